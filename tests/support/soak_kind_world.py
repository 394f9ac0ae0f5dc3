"""The world of the soak on a kind cluster: real nodes, pods, controllers and Prometheus.

Two services are plain Deployments of model servers. Two controllers run in pods, as the chart
installs them. The faults of soak_faults.py act on it as on the worlds of soak_world.py.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

sys.path.insert(0, str(Path(__file__).parent))
import http_server
from fake_prometheus import MARKED
from faro_ops.operate.loop.job_states import FINE
from k8s_models import CORES, SERVICE_S, ModelWorld, Prometheus
from k8s_ray import IMAGE
from k8s_world import (
    ROOT,
    apply,
    cordon,
    docker,
    gateway,
    until,
    without_api_server,
    workers,
)
from kube_things import DEPLOYMENT, FAROPLAN, NODE, Kind, object_path, objects
from soak_kind_requests import NAMES, RPS, WHOLE_S, Watcher
from soak_time import Process
from soak_world import NODES, PLAN, TICK_S, End, Pod, Sizes
from soak_world import World as AnyWorld

from faro_lib.workload.readers import read_jobs
from faro_ops.operate.kube.capacity import has_ready_condition, is_ready
from faro_ops.operate.kube.client import MERGE, ApiError
from faro_ops.operate.kube.manifests import ManifestSpec

MINIMUM = 2  # replicas of each service
STARTED = 4
QUOTA = 14  # replicas; a rolling update may add one of each service
CONTROLLER_CORES = 0.75  # of the controllers, one of which may be replaced
LOAD_S = 60.0  # that a changed model loads
SCRAPED_S = 10.0  # between two scrapes of the controllers, at most
RECENT_S = 30.0  # of the values that a wrong metric changes
SLOW_S = 30.0  # of an answer that nobody waits for
# Exit codes of a container whose node or pod was ended from outside.
ENDED = (0, 137, 143, 255)
SERIAL = itertools.count(1)


class RealTime:
    """The clock of a world in which time passes by itself."""

    @property
    def now_s(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class Proxy:
    """A Prometheus as the controllers see it: that of the cluster, unless a fault says otherwise.

    world : `no_metrics`, `slow` and `values` are as in soak_world.World.
    """

    def __init__(self, world: KindWorld, url: str):
        self.world = world
        self.url = url

    def answer(self, request: http_server.Request) -> tuple[int, Any]:
        text = request.query.get("query", "")
        if self.world.no_metrics or any(of_job(job, text) for job in self.world.slow):
            time.sleep(SLOW_S)
            return 503, {}
        form = {"Content-Type": request.headers.get("Content-Type") or http_server.FORM}
        asked = Request(
            self.url + request.address,
            request.content or None,
            form,
            method=request.method,
        )
        with urlopen(asked, timeout=SLOW_S) as answer:
            body = json.load(answer)
        for job, value in list(self.world.values.items()):
            falsify(body, counts_of(job, text), value, time.time() - RECENT_S)
        return 200, body


def of_job(job: str, query: str) -> bool:
    return f'service="{job}"' in query


def counts_of(job: str, text: str) -> set[str]:
    """The numbers of the marked queries that count the requests of a job."""
    return {
        number
        for query, number in MARKED.findall(text)
        if of_job(job, query) and "http_requests_total" in query
    }


def falsify(body: dict, numbers: set[str], value: Callable[[float], float], since_s: float) -> None:
    """Change the values of some queries since a Unix time."""
    for series in body.get("data", {}).get("result", []):
        if series["metric"].get("faro_query") in numbers:
            for sample in series["values"]:
                if sample[0] > since_s:
                    sample[1] = str(value(float(sample[1])))


@dataclass(frozen=True)
class Shown:
    """A job's state as the FaroPlan shows it."""

    state: str
    reason: str


class PlanBoard:
    """The board of job states as the FaroPlan shows it."""

    def __init__(self, rows: Iterable[dict]):
        self._rows = {row["name"]: row for row in rows}

    def of(self, job: str) -> Shown:
        row = self._rows.get(job, {})
        return Shown(row.get("state", FINE), row.get("stateReason", ""))


class KindWorld(ModelWorld):
    """Two services, and two controllers as `faro manifests` and the chart describe them.

    It is a world of the soak: faults act on it as on those of soak_world.py.

    proxy : the address of the Prometheus that the controllers ask.
    look : called about every LOOK_S while something is waited for.
    """

    sets_replicas = True
    order, orders, set_job = AnyWorld.order, AnyWorld.orders, AnyWorld.set_job
    enough = AnyWorld.enough

    def __init__(self, folder: Path, prometheus: Prometheus, watcher: Watcher):
        self.prometheus = prometheus
        self.watcher = watcher
        self._held = contextlib.ExitStack()  # the proxy, until the end
        self._away = contextlib.ExitStack()  # while the API server is away
        self.begin()
        super().__init__(folder, NAMES, QUOTA)
        self.nodes = dict(zip(NODES, workers(self.api)))
        answer = Proxy(self, prometheus.url).answer
        self.proxy = self._held.enter_context(http_server.serving(answer, gateway())).url
        room = CORES * QUOTA + CONTROLLER_CORES
        spec = {"hard": {"requests.cpu": f"{room:.2f}"}}
        apply(self.api, self.named("ResourceQuota", "models", spec=spec))
        apply(self.api, *(self.budget(name) for name in NAMES))
        for name in NAMES:
            self.deploy(name, STARTED)
        self.objects_of = self.manifests()
        for file in ("rbac", "config", "controller", "network"):
            apply(self.api, *self.objects_of[file])

    def begin(self) -> None:
        """What faults change, as it is without one."""
        self.clock = RealTime()
        self.sizes = Sizes(
            rates=RPS,
            service_s=SERVICE_S,
            slo_s=4 * SERVICE_S,
            swing=0.0,
            minimum=MINIMUM,
            started=STARTED,
            ordered="",
        )
        self.jobs = NAMES
        self.no_metrics = False
        self.values: dict[str, Callable[[float], float]] = {}
        self.slow: set[str] = set()
        self.troubles: dict[str, Any] = {}
        self.idle: dict[str, tuple[float, float]] = {}
        self.calls: Counter[int] = Counter()  # they are not seen here
        self.commands: list[tuple[str, Process]] = []
        self.ends: list[End] = []
        self.look: Callable[[], None] = lambda: None
        # What the API server showed last.
        self.found: dict[str, dict] = {}  # Deployments by job
        self.status: dict[str, Any] = {}  # of the FaroPlan
        self.pods: list[Pod] = []  # of the controllers
        self._restarts: dict[str, int] = {}

    def manifests(self) -> dict[str, list[dict]]:
        """The objects of the controllers by file."""
        table = self.folder / "jobs.yaml"
        spec = ManifestSpec(
            read_jobs(table),
            table.read_text(),
            backend="deployments",
            namespace=self.namespace,
            name=PLAN,
            image=IMAGE,
            deployments=self.names,
            namespaces=(self.namespace,),
            prometheus=self.proxy,
            tick_s=TICK_S,
        )
        files = ("rbac", "config", "controller", "network")
        found = {file: objects(spec, f"{file}.yaml") for file in files}
        deployment = next(one for one in found["controller"] if one["kind"] == "Deployment")
        annotations = deployment["spec"]["template"]["metadata"]["annotations"]
        annotations["prometheus.io/scrape"] = "true"
        return found

    def row(self, name: str) -> dict:
        return super().row(name) | {"min_replicas": MINIMUM}

    def budget(self, name: str) -> dict:
        spec = {"maxUnavailable": 1, "selector": {"matchLabels": {"app": name}}}
        return self.named("PodDisruptionBudget", name, spec=spec) | {"apiVersion": "policy/v1"}

    def model(self, name: str, loads_s: float = 0.0) -> dict:
        """The Deployment of a service. Its pods are ready only after `loads_s`."""
        deployment = super().model(name)
        surge = {"maxSurge": 1, "maxUnavailable": 0}
        deployment["spec"]["strategy"] = {"type": "RollingUpdate", "rollingUpdate": surge}
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        if loads_s:
            program = f"sleep {loads_s:.0f}; exec python /model/model_server.py"
            container["command"] = ["sh", "-c", program]
        return deployment

    def close(self) -> None:
        self._away.close()
        super().close()
        self._held.close()

    # --- what is seen --------------------------------------------------------------------------

    def refresh(self) -> None:
        """Look at the API server; ApiError if it does not answer."""
        items = self.get("/apis/apps/v1/{ns}/deployments")["items"]
        self.found = {one["metadata"]["name"]: one for one in items}
        self.status = self.plan()
        chosen = f"app.kubernetes.io/name={PLAN}-controller"
        controllers = self.get("/api/v1/{ns}/pods", labelSelector=chosen)["items"]
        self.pods = [as_pod(one) for one in controllers]
        for one in controllers:
            self._note_end(one)

    def _note_end(self, controller: dict) -> None:
        """Note a controller that has ended by itself."""
        name = controller["metadata"]["name"]
        for one in controller["status"].get("containerStatuses", []):
            before, self._restarts[name] = self._restarts.get(name, 0), one["restartCount"]
            last = one.get("lastState", {}).get("terminated", {})
            by_itself = last.get("exitCode") not in ENDED or last.get("reason") == "OOMKilled"
            if one["restartCount"] > before and by_itself:
                path = self.path(f"/api/v1/{{ns}}/pods/{name}/log")
                lines = list(self.api.lines(path, 10.0, previous="true", tailLines="3"))
                how = f"{last.get('reason')} {last.get('exitCode')}: {lines}"
                self.ends.append(End(self.clock.now_s, as_pod(controller).process, how))

    def plan(self) -> dict:
        return (self.find(FAROPLAN, PLAN) or {}).get("status", {})

    def targets(self) -> dict[str, int | None]:
        return {job: self.found[job]["spec"]["replicas"] for job in NAMES}

    asked = targets

    @property
    def leader(self) -> Pod | None:
        """The controller that leads, by the FaroPlan."""
        holder = self.status.get("controller", "")
        return next((one for one in self.pods if one.name in holder), None)

    def board(self) -> PlanBoard:
        return PlanBoard(self.status.get("jobs", []))

    def ready_pods(self, name: str) -> set[str]:
        """Names of the pods of a service that serve."""
        pods = self.get("/api/v1/{ns}/pods", labelSelector=f"app={name}")["items"]
        return {pod["metadata"]["name"] for pod in pods if is_ready(pod)}

    def failures(self, since_s: float) -> Counter[str]:
        """Failures that the controllers have counted in the last seconds, by reason."""
        query = f'faro_failures_total{{namespace="{self.namespace}"}}[{since_s:.0f}s]'
        url = f"{self.prometheus.url}/api/v1/query?{urlencode({'query': query})}"
        with urlopen(url, timeout=10) as answer:
            found = json.load(answer)["data"]["result"]
        counted: Counter[str] = Counter()
        for one in found:
            counted[one["metric"]["reason"]] += counted_in(one["values"], time.time() - since_s)
        return counted

    def is_whole(self) -> bool:
        """Whether all replicas of the newest template serve, and a new plan finds all fine."""
        self.refresh()
        for name in NAMES:
            one = self.found[name]
            wanted, status = one["spec"]["replicas"], one.get("status", {})
            counts = [status.get(key, 0) for key in ("replicas", "updatedReplicas")]
            counts.append(status.get("readyReplicas", 0))
            current = status.get("observedGeneration", 0) >= one["metadata"]["generation"]
            if not current or any(count != wanted for count in counts):
                return False
        decided = self.status.get("lastDecisionTime")
        fine = all(self.board().of(job).state == FINE for job in NAMES)
        return decided is not None and seconds_since(decided) < 3 * TICK_S and fine

    def wait(self, holds: Callable[[], object], within_s: float, what: str) -> None:
        """Wait until something holds, and look meanwhile."""

        def looked() -> object:
            self.look()
            time.sleep(1.0)
            return holds()

        until(looked, within_s, lambda: f"{what}; the plan: {self.status}")

    def reconcile(self) -> None:
        """The cluster's own controllers do it."""

    restart_ended = reconcile

    # --- objects -------------------------------------------------------------------------------

    def at(self, kind: Kind, name: str) -> str:
        """The path of an object; a node may have the name that it has in virtual time."""
        if kind == NODE:
            return object_path(kind, self.nodes.get(name, name), "")
        return object_path(kind, name, self.namespace)

    def find(self, kind: Kind, name: str, _: str = "") -> dict | None:
        return found_at(self.api, self.at(kind, name))

    def put(self, kind: Kind, thing: dict) -> None:
        """Create an object, or change its `spec`."""
        name, spec = thing["metadata"]["name"], {"spec": thing["spec"]}
        try:
            self.api.send("PATCH", self.at(kind, name), spec, kind=MERGE)
        except ApiError as error:
            if error.status != 404:
                raise
            new = spec | {"metadata": {"name": name}}
            self.api.send("POST", object_path(kind, "", self.namespace), new)

    def remove(self, kind: Kind, name: str, _: str = "") -> None:
        with contextlib.suppress(ApiError):
            self.api.send("DELETE", self.at(kind, name))

    def deploy(self, job: str, replicas: int) -> None:
        """Give a service its usual template."""
        model = self.model(job)
        model["spec"]["replicas"] = replicas
        self.api.send("PUT", self.at(DEPLOYMENT, job), model)

    # --- what faults do ------------------------------------------------------------------------

    def standing(self) -> list[dict]:
        return []

    def command(self, name: str, *words: str) -> Process:
        """Run a command of `faro` for the FaroPlan, as an operator does."""
        process = Process(f"faro-{name}", next(SERIAL))
        command = [sys.executable, "-m", "faro_ops.cli", name, *words]
        command += ["--plan", f"{self.namespace}/{PLAN}"]

        def work() -> None:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            process.ended = "done" if done.returncode == 0 else f"exit: {done.stderr}"

        threading.Thread(target=work, daemon=True).start()
        return process

    def kill(self, one: Pod) -> None:
        self.delete_pod(one.name, gracePeriodSeconds="0")

    def terminate(self, one: Pod) -> None:
        self.delete_pod(one.name)

    def delete_pod(self, name: str, **how: str) -> None:
        self.api.send("DELETE", self.path(f"/api/v1/{{ns}}/pods/{name}"), **how)

    def lose_replica(self, job: str) -> None:
        """Kill a pod of a service, and wait until another one serves."""
        before = self.ready_pods(job)
        name = min(before)
        self.watcher.leaves(name)
        self.delete_pod(name, gracePeriodSeconds="0")
        self.wait(lambda: self.ready_pods(job) - before, WHOLE_S, "another pod serves")

    def return_replicas(self) -> None:
        """Its Deployment does it."""

    def load_models(self, job: str) -> None:
        """Give a service a template whose models load for a while; Faro keeps the replicas."""
        template = self.model(job, LOAD_S)["spec"]["template"]
        body = {"spec": {"template": template}}
        self.api.send("PATCH", self.at(DEPLOYMENT, job), body, kind=MERGE)
        self.wait(self.is_whole, WHOLE_S + QUOTA * LOAD_S, "the rolling update is done")

    def deny(self, *pairs: tuple[str, str]) -> None:
        """Take all permissions, or give them back."""
        assert pairs in ((), (("*", "*"),)), pairs
        for thing in self.objects_of["rbac"]:
            if thing["kind"] in ("Role", "ClusterRole"):
                apply(self.api, thing | ({"rules": []} if pairs else {}))

    def silence(self, silent: bool) -> None:
        if silent:
            self._away.enter_context(without_api_server())
        else:
            self._away.close()

    def drain(self, name: str) -> None:
        """Leave a node without pods, as `kubectl drain` does."""
        node = self.nodes[name]
        cordon(self.api, node)
        self.wait(lambda: evict(self.api, node), WHOLE_S, f"{node} is empty")

    def lose_node(self, name: str) -> None:
        self.watcher.leave(self.nodes[name])
        docker("stop", self.nodes[name])

    def return_nodes(self) -> None:
        """All nodes run and take pods, and all replicas serve."""
        for node in self.nodes.values():
            docker("start", node)
        for node in self.nodes.values():
            self.wait(lambda node=node: node_is_ready(self.api, node), WHOLE_S, f"{node} is ready")
            cordon(self.api, node, False)
            self.watcher.returns(node)
        self.wait(self.is_whole, WHOLE_S, "all replicas serve again")


def found_at(api: Any, path: str) -> dict | None:
    """The object of a path; None if there is none."""
    try:
        return api.get(path)
    except ApiError as error:
        if error.status != 404:
            raise
        return None


def as_pod(one: dict) -> Pod:
    """A pod of a controller as the soak knows it; its name gives its process a number."""
    name = one["metadata"]["name"]
    return Pod(name, Path(), Process(name, zlib.crc32(name.encode())))


def counted_in(samples: list, since_s: float) -> float:
    """By how much a counter grew in these samples (Unix time, value as text).

    One that first appears later than a scrape after `since_s` began at zero.
    """
    values = [float(value) for _, value in samples]
    is_new = samples[0][0] > since_s + SCRAPED_S
    grown = sum(max(0.0, after - before) for before, after in zip(values, values[1:]))
    return grown + (values[0] if is_new else 0.0)


def seconds_since(text: str) -> float:
    return time.time() - datetime.fromisoformat(text).timestamp()


# --- nodes ----------------------------------------------------------------------------------------


def evict(api: Any, node: str) -> bool:
    """Try to evict every pod of a node that no DaemonSet owns; returns whether none is left."""
    pods = api.get("/api/v1/pods", fieldSelector=f"spec.nodeName={node}")["items"]
    left = [pod for pod in pods if not of_daemon_set(pod)]
    for pod in left:
        meta = pod["metadata"]
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": meta["name"]}}
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/eviction"
        try:
            api.send("POST", path, body)
        except ApiError as error:
            # 429: a disruption budget allows none now. 500: two budgets select the pod.
            if error.status not in (404, 429):
                raise
    return not left


def of_daemon_set(pod: dict) -> bool:
    owners = pod["metadata"].get("ownerReferences", [])
    return any(one["kind"] in ("DaemonSet", "Node") for one in owners)


def node_is_ready(api: Any, node: str) -> bool:
    return has_ready_condition(api.get(f"/api/v1/nodes/{node}"))
