"""Exclusive access to a RayService during an experiment; then jobs and controller are restored."""

import base64
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from importlib.metadata import version
from itertools import chain
from queue import Empty, Full, Queue
from typing import Any
from urllib.parse import urlsplit

import psutil
import yaml

from faro_ops.http import HttpClient
from faro_ops.operate.kube import preflight
from faro_ops.operate.kube.capacity import is_ready
from faro_ops.operate.kube.capacity_watch import WORKERS
from faro_ops.operate.kube.client import MERGE, Api, ApiError, amount, connect
from faro_ops.operate.kube.manifests import DASHBOARD_PORT, SECRET_KEY, SERVING_PORT
from faro_ops.operate.kube.rayservice import CLUSTER, serving_cluster
from faro_ops.operate.rayserve.backend import Endpoint
from faro_ops.operate.rayserve.deploy import APPLICATIONS

RAY_SERVICE = ("faro", "faro")  # namespace and name; the defaults of `faro manifests`
# Backend -> kubeconfig context; None: the current one.
CONTEXTS = {"kind": "kind-faro", "kubernetes": None}
FORWARD_S = 30.0
PUT_S = 120.0


@contextmanager
def exclusive_access(
    backend: str,
    *,
    address: str | None = None,
    serve_address: str | None = None,
    place: tuple[str, str] = RAY_SERVICE,
    kubeconfig: str | None = None,
) -> Iterator[Endpoint]:
    """A context in which no controller scales a RayService.

    It yields the `Endpoint` of the Ray cluster.

    address : URL of Ray's dashboard. If None, kubectl forwards the dashboard and the applications
        from Ray's head pod.
    serve_address : URL of the applications. If None, SERVING_PORT on the host of `address`.

    Raises ValueError, before anything is changed, if the RayService does not exist or access is
    refused.
    """
    namespace, name = place
    api = connect(kubeconfig, CONTEXTS[backend])
    preflight.check_server(api)
    preflight.check_crds(api, [preflight.RAY_SERVICES])
    path = f"/apis/ray.io/v1/namespaces/{namespace}/rayservices/{name}"
    service = _get(api, path, "RayService", place)
    token = token_of(api, namespace, service)
    with ExitStack() as stack:
        if address is None:
            head, ports = f"service/{name}-head-svc", (DASHBOARD_PORT, SERVING_PORT)
            forward = port_forward(namespace, head, ports, kubeconfig, CONTEXTS[backend])
            address, serve_address = stack.enter_context(forward)
        parts = urlsplit(address)
        serve_address = serve_address or f"{parts.scheme}://{parts.hostname}:{SERVING_PORT}"
        ray = HttpClient(address, token)
        ray.get(APPLICATIONS)  # fails for a wrong address, before anything is changed
        stack.enter_context(scaled_to_zero(api, namespace, f"{name}-controller"))
        # The jobs are restored before the controller starts again, so that the controller finds its
        # own jobs.
        configuration = yaml.safe_load(service["spec"]["serveConfigV2"])
        stack.callback(replace(ray, timeout_s=PUT_S).request, "PUT", APPLICATIONS, configuration)
        nodes = containers() if backend == "kind" else ()
        workers = RayWorkers(api, namespace, name)
        yield Endpoint(ray, HttpClient(serve_address, token), nodes, workers)


def containers() -> tuple[int, ...]:
    """PIDs of this machine's container shims, which are the containers' root processes.

    A kind node is a container.
    """
    named = [(process.pid, process.info["name"]) for process in psutil.process_iter(["name"])]
    return tuple(pid for pid, name in named if name.startswith("containerd-shim"))


class RayWorkers:
    """The Ray workers of a RayService; an experiment deletes one of them."""

    def __init__(self, api: Api, namespace: str, name: str):
        self._api = api
        self._namespace = namespace
        self._name = name

    def pods(self) -> list[dict]:
        """The ready worker pods of the serving Ray cluster."""
        path = f"namespaces/{self._namespace}"
        service = self._api.get(f"/apis/ray.io/v1/{path}/rayservices/{self._name}")
        selector = f"{CLUSTER}={serving_cluster(service)},{WORKERS}"
        pods = self._api.get(f"/api/v1/{path}/pods", labelSelector=selector)["items"]
        return [pod for pod in pods if is_ready(pod)]

    def ready(self) -> int:
        return len(self.pods())

    def delete_one(self) -> None:
        name = min(pod["metadata"]["name"] for pod in self.pods())
        self._api.send("DELETE", f"/api/v1/namespaces/{self._namespace}/pods/{name}")

    def about(self) -> dict[str, Any]:
        """Software versions and CPU count of a worker's node, and the version of Ray."""
        status = self._api.get(f"/api/v1/nodes/{self.pods()[0]['spec']['nodeName']}")["status"]
        keys = ("kubeletVersion", "containerRuntimeVersion", "kernelVersion", "osImage")
        versions = {key: status["nodeInfo"][key] for key in keys}
        return versions | {"ray": version("ray"), "processors": amount(status["capacity"]["cpu"])}


def token_of(api: Api, namespace: str, service: dict) -> str | None:
    """Ray's token, from the Secret that the RayService names; None if Ray requires no token."""
    options = service["spec"]["rayClusterConfig"].get("authOptions", {})
    if options.get("mode") != "token":
        return None
    name = options["secretName"]
    path = f"/api/v1/namespaces/{namespace}/secrets/{name}"
    secret = _get(api, path, "Secret", (namespace, name))
    return base64.b64decode(secret["data"][SECRET_KEY]).decode().strip()


@contextmanager
def scaled_to_zero(api: Api, namespace: str, controller: str) -> Iterator[None]:
    """A context in which the controller's Deployment, if any, is scaled to zero.

    Its replica count is restored at the end.
    """
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/{controller}/scale"
    try:
        before = api.get(path)["spec"].get("replicas", 0)
    except ApiError as error:
        if error.status != 404:
            raise ValueError(str(error)) from None
        yield
        return
    try:
        api.send("PATCH", path, {"spec": {"replicas": 0}}, kind=MERGE)
        yield
    finally:
        api.send("PATCH", path, {"spec": {"replicas": before}}, kind=MERGE)


@contextmanager
def port_forward(
    namespace: str, target: str, ports: tuple[int, ...], kubeconfig: str | None, context: str | None
) -> Iterator[list[str]]:
    """A context in which kubectl forwards loopback URLs to the pod or service `target`.

    It yields one URL per port.
    """
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise ValueError(
            "kubectl is missing, which forwards ports; or name live.address and live.serve_address"
        )
    options = []
    if kubeconfig:
        options.append(f"--kubeconfig={kubeconfig}")
    if context:
        options.append(f"--context={context}")
    command = [kubectl, *options, "-n", namespace, "port-forward", "--address=127.0.0.1", target]
    # stderr goes to a file: kubectl logs every broken connection, and a full pipe would block it.
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [*command, *(f":{port}" for port in ports)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            lines = lines_of(process)
            addresses: dict[int, str] = {}
            until_s = time.monotonic() + FORWARD_S
            while len(addresses) < len(ports):
                line = next_line(lines, until_s)
                if not line:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(1)  # its output ends shortly before the process does
                    errors.seek(0)
                    silent = f"no answer within {FORWARD_S:g} s"
                    problem = " ".join(errors.read().split()) or silent
                    raise ValueError(f"kubectl port-forward {target}: {problem}")
                words = line.split()  # Forwarding from 127.0.0.1:35141 -> 8265
                if words[:2] == ["Forwarding", "from"]:
                    addresses[int(words[-1])] = f"http://{words[2]}"
            yield [addresses[port] for port in ports]
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def lines_of(process: subprocess.Popen[str]) -> Queue[str]:
    """The lines of a process's output, which a thread reads until its end; then "".

    An unread pipe would fill up. Only the first lines are kept, because kubectl prints a line for
    each connection.
    """
    lines: Queue[str] = Queue(100)

    def read() -> None:
        for line in chain(process.stdout or (), ("",)):
            with suppress(Full):
                lines.put_nowait(line)

    threading.Thread(target=read, daemon=True).start()
    return lines


def next_line(lines: Queue[str], until_s: float) -> str:
    """The next line; "" at the end of the output, or at `until_s` by time.monotonic()."""
    try:
        return lines.get(timeout=max(0.0, until_s - time.monotonic()))
    except Empty:
        return ""


def _get(api: Api, path: str, kind: str, place: tuple[str, str]) -> dict:
    try:
        return api.get(path)
    except ApiError as error:
        if error.status == 404:
            name = "/".join(place)
            raise ValueError(
                f"{kind} '{name}' does not exist; cluster/up.sh or `faro manifests` creates it"
            ) from None
        raise ValueError(str(error)) from None
