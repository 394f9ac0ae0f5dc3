"""A RayService exclusive_access for an experiment: its controllers rest, its Ray serves other jobs, and then all is as it was."""

from __future__ import annotations

import base64
import contextlib
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import yaml

from faro_lib.kube import preflight
from faro_lib.kube.client import MERGE, Api, ApiError, connect
from faro_lib.kube.manifests import NAME as CONTROLLER
from faro_lib.kube.rayservice import DASHBOARD, SECRET_KEY, SERVING
from faro_lib.rayserve.backend import Endpoint
from faro_lib.rayserve.deploy import APPLICATIONS
from faro_lib.http import HttpClient

PLACE = ("faro", "faro")  # namespace and name, as `faro manifests` has them by default
CONTEXTS = {"kind": "kind-faro", "kubernetes": None}  # of the kubeconfig, by backend; None: the current one
FORWARD_S, PUT_S = 30.0, 120.0


@contextmanager
def exclusive_access(
    backend: str,
    *,
    address: str | None = None,
    serve_address: str | None = None,
    place: tuple[str, str] = PLACE,
    kubeconfig: str | None = None,
) -> Iterator[Endpoint]:
    """The Ray of a RayService, with nobody else acting on it.

    Parameters
    ----------
    address, serve_address : where its dashboard and its applications are reached; None forwards ports of its head.

    Raises
    ------
    ValueError : there is no such RayService, or it may not be exclusive_access; one line, and nothing has been changed.
    """
    namespace, name = place
    api = connect(kubeconfig, CONTEXTS[backend])
    preflight.check_server(api)
    preflight.check_crds(api, [preflight.RAY_SERVICES])
    service = _get(api, f"/apis/ray.io/v1/namespaces/{namespace}/rayservices/{name}", "RayService", place)
    token = token_of(api, namespace, service)
    with ExitStack() as stack:
        if address is None:
            head = f"service/{name}-head-svc"
            address, serve_address = stack.enter_context(
                port_forward(namespace, head, (DASHBOARD, SERVING), kubeconfig, CONTEXTS[backend])
            )
        elif serve_address is None:
            parts = urllib.parse.urlsplit(address)
            serve_address = f"{parts.scheme}://{parts.hostname}:{SERVING}"
        ray = HttpClient(address, token)
        ray.get(APPLICATIONS)  # a wrong address is refused before anything is changed
        stack.enter_context(scaled_to_zero(api, namespace))
        # Before the controllers come back: they shall find the jobs that they know.
        stack.callback(
            lambda: HttpClient(address, token, PUT_S).put(APPLICATIONS, yaml.safe_load(service["spec"]["serveConfigV2"]))
        )
        yield Endpoint(ray, HttpClient(serve_address or "", token))


def token_of(api: Api, namespace: str, service: dict) -> str | None:
    """Ray's token, from the Secret that the RayService names; None where it wants none."""
    options = service["spec"]["rayClusterConfig"].get("authOptions", {})
    if options.get("mode") != "token":
        return None
    secret = _get(
        api,
        f"/api/v1/namespaces/{namespace}/secrets/{options['secretName']}",
        "Secret",
        (namespace, options["secretName"]),
    )
    return base64.b64decode(secret["data"][SECRET_KEY]).decode().strip()


@contextmanager
def scaled_to_zero(api: Api, namespace: str, name: str = CONTROLLER) -> Iterator[None]:
    """No controller runs; afterwards as many as before. Where there is none, nothing is done."""
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"
    try:
        before = api.get(path)["spec"].get("replicas", 0)
    except ApiError as refused:
        if refused.status != 404:
            raise ValueError(str(refused)) from None
        yield
        return

    def scale(count: int) -> None:
        api.send("PATCH", path, {"spec": {"replicas": count}}, kind=MERGE)

    try:
        scale(0)
        yield
    finally:
        scale(before)


@contextmanager
def port_forward(
    namespace: str, target: str, ports: tuple[int, ...], kubeconfig: str | None, context: str | None
) -> Iterator[list[str]]:
    """Addresses on loopback that lead to these ports of a pod or service, by kubectl."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise ValueError("kubectl is missing, which forwards ports; or name live.address and live.serve_address")
    chosen = [f"--{key}={value}" for key, value in (("kubeconfig", kubeconfig), ("context", context)) if value]
    command = [
        kubectl,
        *chosen,
        "-n",
        namespace,
        "port-forward",
        "--address=127.0.0.1",
        target,
        *(f":{port}" for port in ports),
    ]
    # Into a file: it complains of every broken connection, and a pipe that nobody empties would stop it.
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            found: dict[int, str] = {}
            until = time.monotonic() + FORWARD_S
            while len(found) < len(ports):
                line = process.stdout.readline() if process.stdout else ""
                if not line or time.monotonic() > until:  # its end, for it says one line a port at once or none
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(1)  # its output ends shortly before it does
                    errors.seek(0)
                    raise ValueError(f"kubectl port-forward {target}: {' '.join(errors.read().split()) or 'no answer'}")
                words = line.split()  # Forwarding from 127.0.0.1:35141 -> 8265
                if words[:2] == ["Forwarding", "from"]:
                    found[int(words[-1])] = f"http://{words[2]}"
            threading.Thread(target=lambda: list(process.stdout or ()), daemon=True).start()  # a line a connection
            yield [found[port] for port in ports]
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _get(api: Api, path: str, kind: str, place: tuple[str, str]) -> dict:
    try:
        return api.get(path)
    except ApiError as refused:
        if refused.status == 404:
            raise ValueError(
                f"{kind} '{'/'.join(place)}' is not there; cluster/up.sh or `faro manifests` brings it"
            ) from None
        raise ValueError(str(refused)) from None
