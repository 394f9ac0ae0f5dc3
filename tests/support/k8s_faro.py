"""Faro on the kind cluster as `faro manifests` describes it.

Controllers in pods, policies and a quota; load and probes in pods.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date, datetime
from importlib.metadata import version
from pathlib import Path

import yaml
from k8s_ray import HEAD, IMAGE, OPERATOR, READY_S, WorldWithRayService
from k8s_world import ROOT, World, apply, crd, pod_state, until
from kube_things import objects

from faro_lib.workload import Job
from faro_ops.operate.kube.capacity import is_ready
from faro_ops.operate.kube.manifests import (
    CONSTANTS,
    SECRET,
    SERVING_PORT,
    Head,
    ManifestSpec,
    Workers,
)
from faro_ops.operate.kube.status import PLURAL
from faro_ops.operate.rayserve.spec import serve_specs

NAME = "faro-controller"  # of the controller with the default name of the manifests
JOBS = (Job("a", cold_start_s=5), Job("b", cold_start_s=5))
FILES = ("rbac", "config", "controller", "network", "quota", "rayservice")
HALF = ("a=4 b=4", 8.0)  # the targets and the capacity: a fair share of two workers of four cores
TICK_S = 5.0
# Until everything is as before a fault, on a machine where a process starts ten times slower than
# on an idle one. Ray's pods then take minutes. A container that has failed may wait for 300 s, and
# a file that is mounted from a Secret follows it after up to 90 s (both are kubelet's periods).
WHOLE_S = 1200.0
FOLLOWED_S = 120.0
PER_S = 2.0  # requests to each job
REQUEST_S = 10.0  # after which a request has failed
# One line of JSON for each request: when it was sent, its address, its status or error.
LOAD = r"""
import json, sys, threading, time, urllib.request
def send(url):
    began = time.time()
    try:
        status = urllib.request.urlopen(url, timeout=TIMEOUT).status
    except urllib.error.HTTPError as error:
        status = error.code
    except Exception as error:
        status = repr(error)[:100]
    one = {"at": began, "url": url, "status": status, "took_s": round(time.time() - began, 2)}
    sys.stdout.write(json.dumps(one) + "\n")  # one write, so that lines of two threads do not mix
    sys.stdout.flush()
urls, pause_s, end = sys.argv[2:], 1 / float(sys.argv[1]), time.time() + 3600
while time.time() < end:
    for url in urls:
        threading.Thread(target=send, args=(url,)).start()
    time.sleep(pause_s)
""".replace("TIMEOUT", str(REQUEST_S))
# It tries for a while, because a policy that admits a new pod takes effect some seconds after the
# pod has started.
PROBE = """
import json, socket, sys, time
answers = dict.fromkeys(sys.argv[1:], "closed")
for _ in range(10):
    for address in answers:
        host, port = address.rsplit(":", 1)
        try:
            socket.create_connection((host, int(port)), 3).close()
            answers[address] = "open"
        except OSError:
            pass
    time.sleep(1)
print(json.dumps(answers), flush=True)
"""


class FaroWorld(WorldWithRayService):
    """A namespace with everything that `faro manifests` writes.

    It is small: two workers of four cores, two controllers.

    monitoring : name of the namespace whose pods may read the metrics.
    """

    def __init__(self, folder: Path, monitoring: str):
        super().__init__(folder)
        self.monitoring, self.head = monitoring, HEAD
        enforce = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.api.apply(
            f"/api/v1/namespaces/{self.namespace}",
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": self.namespace, "labels": enforce},
            },
        )
        data = {"auth_token": base64.b64encode(b"a token").decode()}
        meta = {"name": SECRET, "namespace": self.namespace}
        apply(
            self.api, crd(), {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": data}
        )
        until(
            lambda: self.get(f"/apis/autoscaling.faro/v1alpha1/{{ns}}/{PLURAL}"),
            60,
            "FaroPlan is served",
        )
        for pod in self.api.get(OPERATOR)[
            "items"
        ]:  # it waits for up to five minutes after an outage
            self.api.send("DELETE", f"{OPERATOR}/{pod['metadata']['name']}")

    def describe(
        self, files: tuple[str, ...] = FILES, head: Head | None = None, jobs: tuple[Job, ...] = JOBS
    ) -> None:
        """Apply these files of the manifests.

        Without `head` the head stays as it is: another one begins an upgrade.
        """
        self.head = head or self.head
        spec = ManifestSpec(
            jobs,
            yaml.safe_dump([{"job": job.name, "cold_start_s": job.cold_start_s} for job in jobs]),
            namespace=self.namespace,
            image=IMAGE,
            ray_version=version("ray"),
            policy="FairShare",
            tick_s=TICK_S,
            served=serve_specs(jobs),
            initial=[1] * len(jobs),
            workers=Workers(2, 4, 2.0, 0.2),
            head=self.head,
            monitoring_namespace=self.monitoring,
        )
        apply(self.api, *(thing for file in files for thing in objects(spec, f"{file}.yaml")))

    # --- Ray --------------------------------------------------------------------------------------

    def service(self) -> dict:
        return self.get("/apis/ray.io/v1/{ns}/rayservices/faro")

    def condition(self, kind: str) -> str:
        conditions = self.service().get("status", {}).get("conditions", [])
        return next((one["status"] for one in conditions if one["type"] == kind), "")

    def serving(self) -> str:
        """The name of the Ray cluster that serves."""
        return (
            self.service()
            .get("status", {})
            .get("activeServiceStatus", {})
            .get("rayClusterName", "")
        )

    def until_ready(self) -> None:
        until(
            lambda: self.condition("Ready") == "True",
            READY_S,
            lambda: f"ready: {self.service().get('status')}",
        )

    def pods(self, kind: str) -> list[dict]:
        """Heads or workers of the serving cluster that are not on their way out."""
        chosen = f"ray.io/node-type={kind},ray.io/cluster={self.serving()}"
        found = self.get("/api/v1/{ns}/pods", labelSelector=chosen)["items"]
        return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]

    def kill(self, pod: dict) -> str:
        """Without the time to end that a pod is usually given."""
        name = pod["metadata"]["name"]
        self.api.send("DELETE", self.path(f"/api/v1/{{ns}}/pods/{name}"), gracePeriodSeconds="0")
        return name

    def worker_away_from_the_head(self) -> dict:
        """A worker on another node than the head.

        If all are beside the head, one is replaced, and Kubernetes spreads them again.
        """

        def away():
            (head,) = self.pods("head")
            return [
                pod
                for pod in self.pods("worker")
                if pod["spec"].get("nodeName") not in (head["spec"]["nodeName"], None)
            ]

        if not away():
            self.kill(self.pods("worker")[0])
            until(
                lambda: away() and self.whole(),
                READY_S,
                lambda: f"a worker on the other node: {self.plan()}",
            )
        return away()[0]

    # --- Faro -------------------------------------------------------------------------------------

    def plan(self) -> dict:
        return self.get(f"/apis/autoscaling.faro/v1alpha1/{{ns}}/{PLURAL}/faro").get("status", {})

    def targets(self) -> tuple[str, float]:
        """The targets as text, and the capacity."""
        return self.plan().get("targets", ""), self.plan().get("capacityCores", 0.0)

    def ready_replicas(self) -> list[int]:
        return [job["readyReplicas"] for job in self.plan().get("jobs", [])]

    def whole(self) -> bool:
        """Whether two workers serve, and a plan of the last ticks gives each job half of them."""
        decided = self.plan().get("lastDecisionTime")
        return (
            decided is not None
            and time.time() - datetime.fromisoformat(decided).timestamp() < 3 * TICK_S
            and self.targets() == HALF
            and self.ready_replicas() == [4, 4]
            and self.condition("Ready") == "True"
            and sum(is_ready(pod) for pod in self.pods("worker")) == 2
        )

    def state(self) -> str:
        """What `whole` looks at, and the pods: for the message of a test that waits in vain."""
        plan, pods = self.plan(), self.get("/api/v1/{ns}/pods")["items"]
        seen = {key: plan.get(key) for key in ("lastDecisionTime", "targets", "capacityCores")}
        not_true = [
            f"{one['type']}={one['status']}: {one.get('message', '')}"
            for one in (
                *plan.get("conditions", []),
                *self.service().get("status", {}).get("conditions", []),
            )
            if one["status"] != "True"
        ]
        lines = [f"plan {seen}, ready replicas {self.ready_replicas()}", *not_true]
        return "\n".join([*lines, *map(pod_state, pods)])

    def serve(self) -> None:
        """The RayService, and a controller that leads."""
        self.describe(head=HEAD)
        self.until_ready()
        until(self.whole, FOLLOWED_S, lambda: f"the plan: {self.plan()}")

    def controllers(self) -> list[dict]:
        return self.get("/api/v1/{ns}/pods", labelSelector=f"app.kubernetes.io/name={NAME}")[
            "items"
        ]

    def spread_controllers(self) -> None:
        """On two nodes. After a drain both may be on one, and Kubernetes moves no running pod."""

        def nodes() -> set[str | None]:
            return {pod["spec"].get("nodeName") for pod in self.controllers() if is_ready(pod)}

        if len(nodes()) == 1:
            self.kill(self.controllers()[0])
            until(lambda: len(nodes()) == 2, FOLLOWED_S, "the controllers are on two nodes")

    def restarts(self) -> int:
        return sum(
            one["restartCount"]
            for pod in self.controllers()
            for one in pod["status"].get("containerStatuses", [])
        )

    # --- pods of the test -------------------------------------------------------------------------

    def python(
        self,
        name: str,
        code: str,
        *arguments: str,
        namespace: str | None = None,
        labels: dict | None = None,
        **where: str,
    ) -> str:
        """Start a pod that runs Python code; returns the path of the pod.

        where : added to its spec.
        """
        container = {
            "name": "c",
            "image": IMAGE,
            "command": ["python", "-c", code, *arguments],
            "resources": {
                "requests": {"cpu": "50m", "memory": "64Mi"},
                "limits": {"memory": "256Mi"},
            },
            "securityContext": CONSTANTS["restricted"],
        }
        spec = {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "securityContext": CONSTANTS["pod_security"],
            "containers": [container],
            **where,
        }
        path = f"/api/v1/namespaces/{namespace or self.namespace}/pods"
        self.api.send(
            "POST", path, {"metadata": {"name": name, "labels": labels or {}}, "spec": spec}
        )
        return f"{path}/{name}"

    def probe(
        self, name: str, *addresses: str, namespace: str | None = None, labels: dict | None = None
    ) -> list[str]:
        """Whether a new pod of a namespace reaches these addresses: "open" or "closed" for each."""
        path = self.python(name, PROBE, *addresses, namespace=namespace, labels=labels)
        until(
            lambda: self.api.get(path)["status"]["phase"] == "Succeeded", 120, f"{name} has ended"
        )
        answers = next(self.api.lines(f"{path}/log", 10.0))
        self.api.send("DELETE", path)
        return [answers[address] for address in addresses]

    def address(self, service: str, port: int = SERVING_PORT) -> str:
        return f"{service}.{self.namespace}.svc:{port}"


@contextlib.contextmanager
def faro_world(folder: Path, *files: str) -> Iterator[FaroWorld]:
    """Faro in a namespace of its own, and another namespace for Prometheus.

    files : the files of the manifests that are applied.
    """
    with (
        contextlib.closing(World(folder)) as monitoring,
        contextlib.closing(FaroWorld(folder, monitoring.namespace)) as one,
    ):
        one.describe(files)
        yield one


class Load:
    """A pod that sends requests to each of some addresses at a fixed rate.

    where : as in `FaroWorld.python`.
    """

    def __init__(self, world: World, name: str, per_s: float, *urls: str, **where: str):
        self.api, self.path = world.api, world.python(name, LOAD, str(per_s), *urls, **where)
        until(lambda: is_ready(self.api.get(self.path)), 120, "the load has begun")

    def end(self) -> list[dict]:
        """The requests in the order of their answers."""
        sent = list(self.api.lines(f"{self.path}/log", 120.0))
        self.api.send("DELETE", self.path)
        return sent


def load_of_jobs(world: FaroWorld) -> Load:
    """Load on both jobs from a pod beside the head, in the namespace of Prometheus."""
    urls = [f"http://{world.address('faro-serve-svc')}/{job.name}" for job in JOBS]
    (head,) = world.pods("head")
    where = dict(namespace=world.monitoring, nodeName=head["spec"]["nodeName"])
    return Load(world, f"load-{time.monotonic_ns()}", PER_S, *urls, **where)


def failed(requests: list[dict]) -> list[dict]:
    return [one for one in requests if one["status"] != 200]


@dataclass
class Row:
    """What a fault cost: a row of the table in docs/kubernetes.md.

    whole_s : seconds from the fault until everything was as before and no request failed any more.
    """

    fault: str
    sent: int = 0
    failed: int = 0
    whole_s: float = 0.0


@contextlib.contextmanager
def under_load(world: FaroWorld, fault: str, within_s: float = WHOLE_S) -> Iterator[Row]:
    """Send requests during a fault and until everything is as before.

    The row is complete at the end. It is printed, and added to the file $FARO_FAULTS, if that is
    set.
    """
    until(world.whole, within_s, lambda: f"all is well before the fault:\n{world.state()}\nit")
    load, row = load_of_jobs(world), Row(fault)
    requests: list[dict] = []
    try:
        time.sleep(5)
        began = time.time()
        yield row
        until(
            world.whole,
            within_s,
            lambda: f"as before the fault:\n{world.state()}\nit",
        )
        whole = time.time()
        time.sleep(REQUEST_S + 2)  # those under way end
    finally:
        requests += load.end()
        print(
            f"{fault}: {len(failed(requests))} of {len(requests)} requests failed:",
            failed(requests)[:3],
        )
    lost = failed(requests)
    row.sent, row.failed = len(requests), len(lost)
    row.whole_s = round(max([whole, *(one["at"] + one["took_s"] for one in lost)]) - began, 1)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    line = json.dumps(asdict(row) | {"date": date.today().isoformat(), "commit": commit.strip()})
    print(line, lost[-1:])
    if path := os.environ.get("FARO_FAULTS"):
        with open(path, "a") as file:
            file.write(line + "\n")
    assert not failed(requests[-5:]), lost
