"""A stand-in for KubeRay's operator: makes what a RayService describes, and submits its serveConfigV2.

As much of the operator as Faro meets: head and worker pods with the labels, ports, start commands and token that KubeRay
gives them, the head's service, and the configuration, which goes to the dashboard whenever it has changed, whenever the
head is another one, and after a restart of the operator, who remembers nothing. That is what resets counts of replicas.
It has no RayCluster objects, no upgrade by a second cluster, no autoscaler.

usage: KUBECONFIG=... python cluster/offline/fakekuberay.py --dashboard http://127.0.0.1:8265
"""

from __future__ import annotations

import argparse
import base64
import copy
import logging
import threading
import time
from collections.abc import Callable

import yaml

from faro_lib.http import HttpClient
from faro_lib.kube.capacity import is_ready
from faro_lib.kube.client import MERGE, Api, ApiError, connect
from faro_lib.kube.informer import Informer
from faro_lib.kube.manifests import SECRET_KEY

LOG = logging.getLogger("fakekuberay")
APPLICATIONS = "/api/serve/applications/"
RAYSERVICES = "/apis/ray.io/v1/rayservices"
PORTS = {"gcs": 6379, "dashboard": 8265, "serve": 8000}
GCS, AGENT = 6379, 52365
SETTLED_S = 2.0  # between two looks, if nothing happens


class FakeKubeRay:
    """The operator, in threads.

    Parameters
    ----------
    dashboard : where the dashboard of a RayService is reached from here, given its namespace, name and token.
    namespace : whose RayServices it minds; None: all.
    """

    def __init__(self, api: Api, dashboard: Callable[[str, str, str | None], HttpClient], namespace: str | None = None):
        self._api, self._dashboard = api, dashboard
        self._stop, self._wake = threading.Event(), threading.Event()
        inside = f"/namespaces/{namespace}" if namespace else ""
        self._services = Informer(api, f"/apis/ray.io/v1{inside}/rayservices", changed=self._wake.set)
        labels = "ray.io/is-ray-node=yes"
        self._pods = Informer(api, f"/api/v1{inside}/pods", changed=self._wake.set, labelSelector=labels)
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._submitted: dict[tuple[str, str], tuple[str, str]] = {}  # RayService -> head's uid, configuration
        self.submissions = 0

    def start(self) -> FakeKubeRay:
        self._services.start().wait(30)
        self._pods.start().wait(30)
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stop.set()
        self._wake.set()
        self._services.stop()
        self._pods.stop()
        self._thread.join(10)

    def _follow(self) -> None:
        while not self._stop.is_set():
            for service in self._services.items():
                try:
                    self.reconcile(service)
                except (OSError, ValueError) as wrong:  # an ApiError is one too; the next look tries again
                    LOG.warning("%s: %s", service["metadata"]["name"], wrong)
            self._wake.wait(SETTLED_S)
            self._wake.clear()
            self._stop.wait(0.2)

    def reconcile(self, service: dict) -> None:
        """One look at a RayService: its pods and service are made, its configuration is submitted, its status told."""
        meta, spec = service["metadata"], service["spec"]
        namespace, name = meta["namespace"], meta["name"]
        cluster = spec["rayClusterConfig"]
        address = self._head_service(service)
        pods = [pod for pod in self._pods.items() if pod["metadata"].get("labels", {}).get("ray.io/cluster") == name]
        pods = [pod for pod in pods if pod["metadata"]["namespace"] == namespace and not _going(pod)]
        heads = [pod for pod in pods if pod["metadata"]["labels"]["ray.io/node-type"] == "head"]
        if not heads:
            self._create(head_pod(service))
        for group in cluster.get("workerGroupSpecs", []):
            label = group["groupName"]
            there = [pod for pod in pods if pod["metadata"]["labels"].get("ray.io/group") == label]
            for _ in range(group["replicas"] - len(there)):
                self._create(worker_pod(service, group, address))
        if heads and is_ready(heads[0]):
            self._submit(service, heads[0]["metadata"]["uid"])

    def _submit(self, service: dict, head: str) -> None:
        namespace, name = (service["metadata"][key] for key in ("namespace", "name"))
        wanted = (head, service["spec"]["serveConfigV2"])
        if self._submitted.get((namespace, name)) == wanted:
            return
        rest = self._dashboard(namespace, name, self._token(service))
        rest.put(APPLICATIONS, yaml.safe_load(wanted[1]))
        self._submitted[namespace, name] = wanted
        self.submissions += 1
        LOG.info("%s: configuration submitted", name)
        path = f"/apis/ray.io/v1/namespaces/{namespace}/rayservices/{name}/status"
        ready = {"type": "Ready", "status": "True", "reason": "Submitted", "message": "", "lastTransitionTime": _now()}
        self._api.send("PATCH", path, {"status": {"conditions": [ready]}}, kind=MERGE)

    def _token(self, service: dict) -> str | None:
        options = service["spec"]["rayClusterConfig"].get("authOptions", {})
        if options.get("mode") != "token":
            return None
        namespace = service["metadata"]["namespace"]
        secret = self._api.get(f"/api/v1/namespaces/{namespace}/secrets/{options['secretName']}")
        return base64.b64decode(secret["data"][SECRET_KEY]).decode().strip()

    def _create(self, thing: dict) -> None:
        made = self._api.send("POST", f"/api/v1/namespaces/{thing['metadata']['namespace']}/pods", thing)
        until = time.monotonic() + 5
        while time.monotonic() < until:  # a look that does not see it yet would make another one
            if any(pod["metadata"]["uid"] == made["metadata"]["uid"] for pod in self._pods.items()):
                return
            time.sleep(0.02)

    def _head_service(self, service: dict) -> str:
        """Its cluster address, made once."""
        namespace, name = (service["metadata"][key] for key in ("namespace", "name"))
        path = f"/api/v1/namespaces/{namespace}/services"
        try:
            found = self._api.get(f"{path}/{name}-head-svc")
        except ApiError as refused:
            if refused.status != 404:
                raise
            meta = {"name": f"{name}-head-svc", "ownerReferences": [_owner(service)]}
            labels = {"ray.io/cluster": name, "ray.io/node-type": "head"}
            ports = [{"name": key, "port": port, "targetPort": port} for key, port in PORTS.items()]
            found = self._api.send("POST", path, {"metadata": meta, "spec": {"selector": labels, "ports": ports}})
        return found["spec"]["clusterIP"]


def definition() -> dict:
    """As much of KubeRay's CustomResourceDefinition as Faro uses; unknown fields are kept, as its operator would read them."""
    text, open_ = {"type": "string"}, {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    group = {
        "type": "object",
        "required": ["rayStartParams", "template"],
        "properties": {"rayStartParams": open_, "template": open_},
    }
    worker = copy.deepcopy(group)
    worker["required"] += ["groupName", "minReplicas", "maxReplicas"]
    worker["properties"] |= {
        "groupName": text,
        **{key: {"type": "integer"} for key in ("replicas", "minReplicas", "maxReplicas")},
    }
    options = {
        "type": "object",
        "properties": {"mode": {"type": "string", "enum": ["token", "disabled"]}, "secretName": text},
    }
    cluster = {
        "type": "object",
        "required": ["headGroupSpec"],
        "properties": {
            "rayVersion": text,
            "authOptions": options,
            "headGroupSpec": group,
            "workerGroupSpecs": {"type": "array", "items": worker},
        },
    }
    spec = {
        "type": "object",
        "required": ["rayClusterConfig"],
        "properties": {"serveConfigV2": text, "rayClusterConfig": cluster},
    }
    schema = {"type": "object", "properties": {"spec": spec, "status": open_}}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": schema},
    }
    names = {"plural": "rayservices", "singular": "rayservice", "kind": "RayService"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "rayservices.ray.io"},
        "spec": {"group": "ray.io", "scope": "Namespaced", "names": names, "versions": [version]},
    }


def head_pod(service: dict) -> dict:
    group = service["spec"]["rayClusterConfig"]["headGroupSpec"]
    options = {"head": None, "port": str(GCS)} | group["rayStartParams"]
    return _pod(service, group["template"], "head", "headgroup", options, {})


def worker_pod(service: dict, group: dict, address: str) -> dict:
    options = {"address": f"{address}:{GCS}"} | group["rayStartParams"]
    pod = _pod(service, group["template"], "worker", group["groupName"], options, {"RAY_ADDRESS": f"{address}:{GCS}"})
    first = copy.deepcopy(pod["spec"]["containers"][0])
    for probe in ("readinessProbe", "livenessProbe", "ports"):
        first.pop(probe, None)
    waits = f"until ray health-check --address {address}:{GCS} >/dev/null 2>&1; do sleep 1; done"
    first |= {"name": "wait-gcs-ready", "args": [waits]}
    pod["spec"]["initContainers"] = [first]
    return pod


def _pod(service: dict, template: dict, kind: str, group: str, options: dict, environment: dict) -> dict:
    """As KubeRay builds it: `ray start` by a login shell in the first container, the token from its Secret."""
    meta = service["metadata"]
    pod = copy.deepcopy(template)
    labels = pod.setdefault("metadata", {}).get("labels", {})
    labels |= {
        "ray.io/cluster": meta["name"],
        "ray.io/node-type": kind,
        "ray.io/group": group,
        "ray.io/is-ray-node": "yes",
    }
    pod["metadata"] |= {
        "generateName": f"{meta['name']}-{kind}-",
        "namespace": meta["namespace"],
        "labels": labels,
        "ownerReferences": [_owner(service)],
    }
    container = pod["spec"]["containers"][0]
    options = {"block": None, "dashboard-agent-listen-port": str(AGENT)} | options
    said = " ".join(f"--{key}" if value is None else f"--{key}={value}" for key, value in options.items())
    container |= {"command": ["/bin/bash", "-lc", "--"], "args": [f"ulimit -n 65536; exec ray start {said}"]}
    container.setdefault("env", []).extend({"name": key, "value": value} for key, value in environment.items())
    wanted = service["spec"]["rayClusterConfig"].get("authOptions", {})
    if wanted.get("mode") == "token":
        secret = {"secretKeyRef": {"name": wanted["secretName"], "key": SECRET_KEY}}
        container["env"] += [
            {"name": "RAY_AUTH_MODE", "value": "token"},
            {"name": "RAY_AUTH_TOKEN", "valueFrom": secret},
        ]
    return pod


def _owner(service: dict) -> dict:
    meta = service["metadata"]
    return {"apiVersion": "ray.io/v1", "kind": "RayService", "name": meta["name"], "uid": meta["uid"]}


def _going(pod: dict) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp")) or pod["status"].get("phase") in ("Succeeded", "Failed")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dashboard", required=True, help="where the dashboard of every RayService is reached")
    said = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    FakeKubeRay(connect(), lambda namespace, name, token: HttpClient(said.dashboard, token, timeout_s=120)).start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
