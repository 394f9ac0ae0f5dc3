"""Faro on the kind cluster as `faro manifests` describes it: controllers in pods, policies, quota; load and probes in pods."""

from __future__ import annotations

import base64
import time
from importlib.metadata import version
from pathlib import Path

from k8s_ray import HEAD, IMAGE, OPERATOR, READY_S, WorldWithRayService
from k8s_world import apply, until

from faro_lib.kube.capacity import is_ready
from faro_lib.kube.manifests import CONSTANTS, NAME, SECRET, SERVING_PORT, Head, ManifestSpec, Workers, objects
from faro_lib.kube.status import PLURAL, crd
from faro_lib.rayserve.spec import serve_specs
from faro_lib.workload import Job

JOBS = (Job("a", cold_start_s=5), Job("b", cold_start_s=5))
JOBS_TEXT = "jobs:\n  - {job: a, cold_start_s: 5}\n  - {job: b, cold_start_s: 5}\n"
FILES = ("rbac", "config", "controller", "network", "quota", "rayservice")
# One line of JSON for each request: when it was sent, its address, its status or error.
LOAD = """
import json, sys, threading, time, urllib.request
def send(url):
    began = time.time()
    try:
        status = urllib.request.urlopen(url, timeout=20).status
    except urllib.error.HTTPError as error:
        status = error.code
    except Exception as error:
        status = repr(error)[:100]
    print(json.dumps({"at": began, "url": url, "status": status, "took_s": round(time.time() - began, 2)}), flush=True)
urls, pause_s, end = sys.argv[2:], 1 / float(sys.argv[1]), time.time() + 900
while time.time() < end:
    for url in urls:
        threading.Thread(target=send, args=(url,)).start()
    time.sleep(pause_s)
"""
PROBE = """
import json, socket, sys, time
answers = {}
for address in sys.argv[1:]:
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), 3).close()
        answers[address] = "open"
    except OSError as error:
        answers[address] = "closed"
print(json.dumps(answers), flush=True)
"""


class FaroWorld(WorldWithRayService):
    """A namespace with everything that `faro manifests` writes, small: two workers of four cores, two controllers.

    monitoring : name of the namespace whose pods may read the metrics.
    """

    def __init__(self, folder: Path, monitoring: str):
        super().__init__(folder)
        self.monitoring = monitoring
        enforce = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.api.apply(
            f"/api/v1/namespaces/{self.namespace}",
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace, "labels": enforce}},
        )
        data = {"auth_token": base64.b64encode(b"a token").decode()}
        meta = {"name": SECRET, "namespace": self.namespace}
        apply(self.api, crd(), {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": data})
        until(lambda: self.get(f"/apis/autoscaling.faro/v1alpha1/{{ns}}/{PLURAL}"), 60, "FaroPlan is served")
        for pod in self.api.get(OPERATOR)["items"]:  # it waits for up to five minutes after an outage
            self.api.send("DELETE", f"{OPERATOR}/{pod['metadata']['name']}")

    def describe(self, files: tuple[str, ...] = FILES, head: Head = HEAD) -> None:
        """Apply these files of the manifests."""
        spec = ManifestSpec(
            JOBS,
            JOBS_TEXT,
            namespace=self.namespace,
            image=IMAGE,
            ray_version=version("ray"),
            policy="FairShare",
            tick_s=5.0,
            served=serve_specs(JOBS),
            initial=(1, 1),
            workers=Workers(2, 4, 2.0, 0.2),
            head=head,
            monitoring_namespace=self.monitoring,
        )
        apply(self.api, *(thing for file in files for thing in objects(spec, f"{file}.yaml")))

    # --- Ray ----------------------------------------------------------------------------------------------------------

    def service(self) -> dict:
        return self.get("/apis/ray.io/v1/{ns}/rayservices/faro")

    def condition(self, kind: str) -> str:
        conditions = self.service().get("status", {}).get("conditions", [])
        return next((one["status"] for one in conditions if one["type"] == kind), "")

    def serving(self) -> str:
        """The name of the Ray cluster that serves."""
        return self.service().get("status", {}).get("activeServiceStatus", {}).get("rayClusterName", "")

    def until_ready(self) -> None:
        until(lambda: self.condition("Ready") == "True", READY_S, lambda: f"ready: {self.service().get('status')}")

    def workers(self) -> list[dict]:
        found = self.get("/api/v1/{ns}/pods", labelSelector="ray.io/node-type=worker")["items"]
        return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]

    # --- Faro ---------------------------------------------------------------------------------------------------------

    def plan(self) -> dict:
        return self.get(f"/apis/autoscaling.faro/v1alpha1/{{ns}}/{PLURAL}/faro").get("status", {})

    def targets(self) -> tuple[str, float]:
        """The targets as text, and the capacity."""
        return self.plan().get("targets", ""), self.plan().get("capacityCores", 0.0)

    def ready_replicas(self) -> list[int]:
        return [job["readyReplicas"] for job in self.plan().get("jobs", [])]

    def controllers(self) -> list[dict]:
        return self.get("/api/v1/{ns}/pods", labelSelector=f"app.kubernetes.io/name={NAME}")["items"]

    def restarts(self) -> int:
        return sum(
            one["restartCount"] for pod in self.controllers() for one in pod["status"].get("containerStatuses", [])
        )

    # --- pods of the test ---------------------------------------------------------------------------------------------

    def python(self, name: str, code: str, *arguments: str, namespace: str | None = None) -> str:
        """Start a pod that runs Python code; returns the path of the pod."""
        container = {
            "name": "c",
            "image": IMAGE,
            "command": ["python", "-c", code, *arguments],
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
            "securityContext": CONSTANTS["restricted"],
        }
        spec = {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "securityContext": CONSTANTS["pod_security"],
            "containers": [container],
        }
        path = f"/api/v1/namespaces/{namespace or self.namespace}/pods"
        self.api.send("POST", path, {"metadata": {"name": name}, "spec": spec})
        return f"{path}/{name}"

    def probe(self, name: str, *addresses: str, namespace: str | None = None) -> list[str]:
        """Whether a new pod of a namespace reaches these addresses: "open" or "closed" for each."""
        path = self.python(name, PROBE, *addresses, namespace=namespace)
        until(lambda: self.api.get(path)["status"]["phase"] == "Succeeded", 120, f"{name} has ended")
        answers = next(self.api.lines(f"{path}/log", 10.0))
        self.api.send("DELETE", path)
        return [answers[address] for address in addresses]

    def address(self, service: str, port: int = SERVING_PORT) -> str:
        return f"{service}.{self.namespace}.svc:{port}"


class Load:
    """A pod that sends requests at a fixed rate to each of some addresses, from a namespace without policies."""

    def __init__(self, world: FaroWorld, name: str, per_s: float, *urls: str, namespace: str):
        self.api, self.urls = world.api, urls
        self.path = world.python(name, LOAD, str(per_s), *urls, namespace=namespace)
        until(lambda: is_ready(self.api.get(self.path)), 120, "the load has begun")

    def sent(self) -> list[dict]:
        return list(self.api.lines(f"{self.path}/log", 10.0))

    def end(self) -> dict[str, list[dict]]:
        """The requests by address, after those that are under way have ended."""
        time.sleep(2)
        sent = self.sent()
        self.api.send("DELETE", self.path)
        return {url: [one for one in sent if one["url"] == url] for url in self.urls}


def failed(requests: list[dict]) -> list[dict]:
    return [one for one in requests if one["status"] != 200]
