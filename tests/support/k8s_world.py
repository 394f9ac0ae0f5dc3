"""The kind cluster that tests marked k8s run on.

Connections, namespaces, faults of its nodes, things to wait for.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import waiting
import yaml
from kube_things import PLURALS

from faro_ops.operate.kube.capacity import Shape, refuses
from faro_ops.operate.kube.client import MERGE, Api, ApiError, amount, connect

ROOT = Path(__file__).resolve().parents[2]
LABEL = {"faro-test": "yes"}
SERIAL = itertools.count()
WHY = "KUBECONFIG is not set: `cluster/up.sh --only-cluster` starts a kind cluster for these tests"
CONTROL_PLANE = "faro-control-plane"
API_SERVER = "/etc/kubernetes/manifests/kube-apiserver.yaml"
NOWHERE = {"nodeSelector": {"nowhere": "yes"}}  # for pods that need not run


def kubeconfig() -> str:
    if not os.environ.get("KUBECONFIG"):
        pytest.skip(WHY)
    return os.environ["KUBECONFIG"]


def crd() -> dict:
    """The CustomResourceDefinition of FaroPlan."""
    return yaml.safe_load((ROOT / "faro_ops/operate/kube/templates/crd.yaml").read_text())


def path_of(thing: dict) -> str:
    base, plural = PLURALS[thing["kind"]]
    meta = thing["metadata"]
    inside = f"/namespaces/{meta['namespace']}" if "namespace" in meta else ""
    return f"{base}{inside}/{plural}/{meta['name']}"


def apply(api: Api, *things: dict, **query) -> None:
    for thing in things:
        api.apply(path_of(thing), thing, **query)


def until(
    holds: Callable[[], object], within_s: float = 20.0, what: str | Callable[[], str] = "it"
):
    """`waiting.until` on a cluster, whose API server may refuse or be away meanwhile."""
    return waiting.until(holds, within_s, what, passing=(ApiError,))


def pod_state(pod: dict) -> str:
    """A pod in a few words: its phase, whether it is ready, restarts, and why a container waits."""
    status = pod.get("status", {})
    words = [pod["metadata"]["name"], status.get("phase", "")]
    if pod["metadata"].get("deletionTimestamp"):
        words.append("is deleted")
    for one in (*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])):
        states = [f"{kind} {more.get('reason', '')}" for kind, more in one.get("state", {}).items()]
        ready = "ready" if one.get("ready") else "not ready"
        restarts = f"{one.get('restartCount', 0)} restarts"
        words.append(f"{one['name']}: {' '.join(states).strip()}, {ready}, {restarts}")
    return "; ".join(words)


# --- nodes and what is done to them ---------------------------------------------------------------


def workers(api: Api) -> list[str]:
    """Names of the nodes that take pods."""
    nodes = api.get("/api/v1/nodes")["items"]
    return sorted(node["metadata"]["name"] for node in nodes if refuses(node, Shape()) is None)


def half_a_worker(api: Api) -> float:
    """Cores of a pod of which each worker holds exactly two, beside the cluster's own pods.

    A multiple of 0.1.
    """
    nodes = api.get("/api/v1/nodes")["items"]
    smallest = min(amount(node["status"]["allocatable"]["cpu"]) for node in nodes)
    return (math.floor(10 * smallest / 3) + 1) / 10


def pause_image(api: Api) -> str:
    """An image that every node of kind has and that does nothing."""
    node = api.get("/api/v1/nodes")["items"][0]
    return next(
        name for image in node["status"]["images"] for name in image["names"] if "/pause:" in name
    )


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def gateway() -> str:
    """The address of the host that pods can reach."""
    words = docker("network", "inspect", "kind", "-f", "{{range .IPAM.Config}}{{.Gateway}} {{end}}")
    return next(address for address in words.split() if "." in address)


def cordon(api: Api, node: str, cordoned: bool = True) -> None:
    api.send("PATCH", f"/api/v1/nodes/{node}", {"spec": {"unschedulable": cordoned}}, kind=MERGE)


@contextlib.contextmanager
def paused(node: str) -> Iterator[None]:
    """A node that hangs: nothing on it runs, and its heartbeat stops."""
    docker("pause", node)
    try:
        yield
    finally:
        docker("unpause", node)


@contextlib.contextmanager
def without_api_server() -> Iterator[None]:
    """The API server's static pod is taken away, and put back."""
    away = "/root/" + Path(API_SERVER).name
    docker("exec", CONTROL_PLANE, "mv", API_SERVER, away)
    try:
        api = connect(kubeconfig())
        until(lambda: not answers(api), 60, "the API server is away")
        yield
    finally:
        docker("exec", CONTROL_PLANE, "mv", away, API_SERVER)
    until(lambda: answers(api), 120, "the API server is back")


def answers(api: Api) -> bool:
    try:
        return bool(api.get("/api/v1/namespaces/default"))
    except ApiError:
        return False


class World:
    """One namespace on the cluster, and how to be somebody there."""

    def __init__(self, folder: Path):
        self.api = connect(kubeconfig())
        self.folder, self.namespace = folder, f"faro-{os.getpid()}-{next(SERIAL)}"
        self.api.send(
            "POST", "/api/v1/namespaces", {"metadata": {"name": self.namespace, "labels": LABEL}}
        )
        until(
            lambda: self.get("/api/v1/{ns}/serviceaccounts")["items"],
            120,
            "the default ServiceAccount",
        )

    def path(self, path: str) -> str:
        return path.replace("{ns}", f"namespaces/{self.namespace}")

    def get(self, path: str, **query) -> dict:
        return self.api.get(self.path(path), **query)

    def deployment(self, name: str, replicas: int = 1, cpu: float = 0.01, **spec) -> dict:
        """A Deployment of pods that do nothing; `spec` is added to that of the pod."""
        resources = {"requests": {"cpu": f"{1000 * cpu:.0f}m"}}
        pod = {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "c", "image": pause_image(self.api), "resources": resources}],
            **spec,
        }
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
            },
        }

    def account(self, name: str, lifetime_s: int = 3600) -> str:
        """The path of a kubeconfig by which one is that ServiceAccount."""
        said = yaml.safe_load(Path(kubeconfig()).read_text())
        token = self.api.send(
            "POST",
            self.path(f"/api/v1/{{ns}}/serviceaccounts/{name}/token"),
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"expirationSeconds": lifetime_s},
            },
        )["status"]["token"]
        said["users"] = [{"name": said["contexts"][0]["context"]["user"], "user": {"token": token}}]
        path = self.folder / f"{name}-{next(SERIAL)}.conf"
        path.write_text(yaml.safe_dump(said))
        return str(path)

    def close(self) -> None:
        """Its pods go at once: the next world needs their cores."""
        self.api.send("DELETE", f"/api/v1/namespaces/{self.namespace}")
        self.api.send("DELETE", self.path("/api/v1/{ns}/pods"), gracePeriodSeconds="0")
        until(lambda: not self.get("/api/v1/{ns}/pods")["items"], 60, "the namespace has no pod")


def table(names, **fields) -> list[dict]:
    """Rows of jobs.yaml for Deployments of the same names."""
    queries = {
        "requests": "sum(increase(requests_{0}[$window]))",
        "latency_mean_s": "sum(rate(seconds_{0}[$window]))",
    }
    return [
        {
            "job": name,
            "cold_start_s": 5,
            **fields,
            "deployment": {
                "name": name,
                "queries": {key: query.format(name) for key, query in queries.items()},
            },
        }
        for name in names
    ]


class Controller:
    """`faro run` as a process; every line that it says with the instant at which it came."""

    def __init__(self, *arguments: str, **environment: str):
        command = [sys.executable, "-m", "faro_ops.cli", "run", *arguments]
        self.said: list[tuple[float, str]] = []
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for stream in (self.process.stdout, self.process.stderr):
            threading.Thread(target=self._listen, args=(stream,), daemon=True).start()

    def _listen(self, stream) -> None:
        for line in stream:
            self.said.append((time.monotonic(), line.rstrip()))

    @property
    def ticks(self) -> list[tuple[float, dict]]:
        """When it acted, and on what."""
        return [(when, json.loads(line)) for when, line in list(self.said) if line.startswith("{")]

    def heard(self, words: str) -> bool:
        return any(words in line for _, line in list(self.said))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self, within_s: float = 30.0) -> int:
        """As Kubernetes ends a pod; the exit status."""
        self.process.terminate()
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return -9
