"""Three worlds in which controllers run: Deployments, Deployments with HPAs, and a RayService.

Each has nodes, pods, an API server (soak_api.py), a known load, and one or two controllers, which
are `faro run` with the options of the manifests, in virtual time (soak_time.py). Their HTTP
requests to Prometheus or Ray are answered here. A controller that ends starts again after
RESTART_S, with the same journal.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import pkgutil
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from k8s_world import MARKED
from kube_things import node, pod
from live_things import FakeRay
from soak_api import FakeApi, FakeServer
from soak_time import Killed, Process, VirtualTime

import faro_ops.cli
import faro_ops.controller
import faro_ops.kube
import faro_ops.policies
import faro_ops.rayserve
from faro_ops.cli.app import exit_status
from faro_ops.controller.exporter import Exporter
from faro_ops.controller.job_states import JobStates
from faro_ops.http import HttpClient, HttpError, HttpTimeout
from faro_ops.kube import client
from faro_ops.rayserve.statistics import StatsAggregator, bucket_of, empty_row

NAMESPACE, PLAN = "jobs", "faro"
TICK_S = 20.0
RESTART_S = 10.0  # of a controller that has ended
CORES = 30  # of each node, or Ray worker
COLD_START_S = 5.0
LATENCY_S = 0.25  # mean time of a request
SERVICE_S = 0.2
DAY_S = 6 * 3600.0  # period of the load
SWING = 0.4  # of the load around its mean
RATES = {"a": 8.0, "b": 10.0, "c": 14.0, "d": 10.0, "e": 5.0}  # requests per second
MINIMUM = 2  # replicas of each job
STARTED = 5  # replicas of each job at the start, which suffice for its load
NEEDED = 3  # replicas that each job with requests needs at least
ORDERED = "e"  # the job with a standing order of STARTED replicas
NODES = ("n1", "n2")
HPA_S = 15.0  # between the decisions of an HPA
UTILISATION = 0.8  # at which it aims
REPORTED_S = 3  # seconds between the reports of a replica of Ray Serve
PACKAGES = (
    faro_ops.cli,
    faro_ops.controller,
    faro_ops.kube,
    faro_ops.policies,
    faro_ops.rayserve,
)
# (base, plural) of objects.
NODE = "/api/v1", "nodes"
POD = "/api/v1", "pods"
QUOTA = "/api/v1", "resourcequotas"
DEPLOYMENT = "/apis/apps/v1", "deployments"
HPA = "/apis/autoscaling/v2", "horizontalpodautoscalers"
LEASE = "/apis/coordination.k8s.io/v1", "leases"
FAROPLAN = "/apis/autoscaling.faro/v1alpha1", "faroplans"
RAYSERVICE = "/apis/ray.io/v1", "rayservices"
QUERY = re.compile(r"\b(requests|mean|tail|ongoing)_(\w+)\[(\d+)s\]")


def load(job: str, now_s: float) -> float:
    """Requests of a job from time 0 to `now_s` (monotonic): a slow wave around its mean rate."""
    rate = RATES[job]
    turn = 2 * math.pi / DAY_S
    phase = list(RATES).index(job) * math.pi / 2
    wave = (math.cos(phase) - math.cos(turn * now_s + phase)) / turn
    return rate * (now_s + SWING * wave)


@dataclass(eq=False)
class Pod:
    """A controller's pod: its name and volume stay when its process starts again."""

    name: str
    journal: Path
    process: Process
    starts: int = 1
    expected: bool = False  # whether the world has ended the process


@dataclass(frozen=True)
class End:
    """A controller's process that ended by itself, and how."""

    at_s: float
    process: Process
    how: str


class World:
    """What all worlds have in common. Faults change its attributes and objects.

    values : job -> function that turns a value of its counts into what Prometheus answers.
    slow : jobs whose queries take too long.
    idle : job -> (begin, end) of its last time without requests, monotonic.
    no_metrics : whether Prometheus, or the endpoint of the statistics, does not answer.
    ends : of controllers that ended by themselves, since the last look.
    boards : the board of job states of each process.
    commands : (job, process) of each `faro set` since the fault began.
    """

    name = ""
    metrics_silent_s = 5.0
    needed = NEEDED

    def __init__(self, virtual: VirtualTime, folder: Path, controllers: int):
        self.virtual = virtual
        self.folder = folder
        self.server = FakeServer(virtual)
        self.rows = self._rows()
        self.jobs = tuple(RATES)
        self.values: dict[str, Callable[[float], float]] = {}
        self.slow: set[str] = set()
        self.no_metrics = False
        self.idle: dict[str, tuple[float, float]] = {}
        self.ends: list[End] = []
        self.boards: dict[Process, JobStates] = {}
        self.commands: list[tuple[str, Process]] = []
        for name in NODES:
            self.put(NODE, node(name, str(CORES)))
        self.furnish()
        self.write_table()
        self.pods = [self._start(f"faro-{n}") for n in range(controllers)]

    def count(self, job: str, from_s: float, until_s: float) -> int:
        """Requests of a job between two monotonic times."""
        requests = load(job, until_s) - load(job, from_s)
        if job in self.idle:
            begin_s, end_s = self.idle[job]
            first_s, last_s = max(from_s, begin_s), min(until_s, end_s)
            if first_s < last_s:
                requests -= load(job, last_s) - load(job, first_s)
        return round(requests)

    # --- objects -------------------------------------------------------------------------------

    def put(self, kind: tuple[str, str], thing: dict) -> dict:
        return self.server.put(*kind, thing)

    def find(self, kind: tuple[str, str], name: str, namespace: str = NAMESPACE) -> dict | None:
        return self.server.find(*kind, name, namespace)

    def remove(self, kind: tuple[str, str], name: str, namespace: str = NAMESPACE) -> dict | None:
        return self.server.remove(*kind, name, namespace)

    def change(
        self, kind: tuple[str, str], name: str, namespace: str = NAMESPACE, **fields
    ) -> None:
        """Replace top-level fields of an object, if it exists."""
        if thing := self.find(kind, name, namespace):
            self.put(kind, thing | fields)

    def furnish(self) -> None:
        raise NotImplementedError

    def reconcile(self) -> None:
        """What the cluster's own controllers do, once a second."""
        raise NotImplementedError

    def targets(self) -> dict[str, int | None]:
        """The replicas that each job is asked to have; None if it is not there."""
        raise NotImplementedError

    def asked(self) -> dict[str, Any]:
        """What controllers have asked for, of each job: the replicas, or the bounds of its HPA."""
        return self.targets()

    # --- the table and the orders --------------------------------------------------------------

    def _rows(self) -> dict[str, dict]:
        raise NotImplementedError

    def write_table(self) -> None:
        (self.folder / "jobs.yaml").write_text(yaml.safe_dump({"jobs": list(self.rows.values())}))

    def orders(self) -> list[dict]:
        plan = self.find(FAROPLAN, PLAN) or {}
        return list((plan.get("spec") or {}).get("overrides") or [])

    def order(self, *rows: dict) -> None:
        """Write overrides into the FaroPlan, as `kubectl edit` does."""
        if plan := self.find(FAROPLAN, PLAN):
            self.put(FAROPLAN, plan | {"spec": plan.get("spec", {}) | {"overrides": list(rows)}})

    def set_job(self, job: str, *words: str) -> None:
        """Run `faro set` for a job, beside the controllers."""
        self.commands.append((job, self.command("set", job, *words)))

    def command(self, name: str, *words: str) -> Process:
        """Run a command of `faro` for the FaroPlan, beside the controllers."""
        line = [name, *words, "--plan", f"{NAMESPACE}/{PLAN}"]

        def work() -> None:
            if status := exit_status(line):
                raise SystemExit(status)

        return self.virtual.start(self.virtual.process(f"faro-{name}"), work)

    # --- controllers ---------------------------------------------------------------------------

    def options(self, journal: Path) -> list[str]:
        raise NotImplementedError

    def _run(self, journal: Path) -> Callable[[], object]:
        jobs = str(self.folder / "jobs.yaml")
        words = ["run", "--jobs", jobs, "--plan", f"{NAMESPACE}/{PLAN}", "--apply", "--wait"]
        words += ["--tick", f"{TICK_S:g}", "--journal", str(journal), "--metrics-port", "0"]
        # Latencies in these worlds do not depend on replicas, so they say nothing about services.
        words += [*self.options(journal), "--no-learning"]

        def work() -> None:
            if status := exit_status(words):
                raise SystemExit(status)

        return work

    def _start(self, name: str) -> Pod:
        journal = self.folder / name / "journal.jsonl"
        process = self.virtual.process(name)
        self.virtual.start(process, self._run(journal))
        return Pod(name, journal, process)

    def restart_ended(self) -> None:
        """Start the controllers again that have ended."""
        for one in self.pods:
            if not (one.process.ended or one.process.dead):
                continue
            if not one.expected:
                last = one.process.said[-1] if one.process.said else ""
                how = f"{one.process.ended}: {last}"
                self.ends.append(End(self.virtual.now_s, one.process, how))
            self.boards.pop(one.process, None)
            one.expected = False
            one.starts += 1
            one.process = self.virtual.process(one.name)
            self.virtual.start(one.process, self._later(one))

    def _later(self, one: Pod) -> Callable[[], object]:
        work = self._run(one.journal)

        def wait_and_work() -> None:
            self.virtual.sleep(RESTART_S)
            work()

        return wait_and_work

    def kill(self, one: Pod) -> None:
        one.expected = True
        self.virtual.kill(one.process)

    @property
    def leader(self) -> Pod | None:
        """The controller that holds the lease."""
        lease = self.find(LEASE, PLAN) or {}
        holder = (lease.get("spec") or {}).get("holderIdentity") or ""
        for one in self.pods:
            if holder.endswith(f".{one.process.pid}") and not one.process.dead:
                return one
        return None

    def board(self) -> JobStates | None:
        leader = self.leader
        return self.boards.get(leader.process) if leader else None

    # --- HTTP ----------------------------------------------------------------------------------

    def http(self, method: str, url: str, body: Any, form: dict | None, within_s: float) -> Any:
        raise NotImplementedError

    def timeout(self, url: str, within_s: float) -> None:
        self.virtual.sleep(within_s)
        raise HttpTimeout(url, 0, f"no complete answer within {within_s:.3g} s")


class DeploymentWorld(World):
    """Jobs that are Deployments, with a scheduler, and a Prometheus that knows the load."""

    name = "kubernetes"

    def _rows(self) -> dict[str, dict]:
        def row(job: str) -> dict:
            queries = {
                "requests": f"increase(requests_{job}[$window])",
                "latency_mean_s": f"mean_{job}[$window]",
                "latency_s": f"tail_{job}[$window]",
                "ongoing": f"ongoing_{job}[$window]",
            }
            return common_row(job) | {"deployment": {"name": job, "queries": queries}}

        return {job: row(job) for job in RATES}

    def options(self, journal: Path) -> list[str]:
        return ["--backend", "deployments", "--prometheus", "http://prometheus.test"]

    def furnish(self) -> None:
        self.serial = 0
        for job in RATES:
            self.deploy(job, STARTED)
        for _ in range(3):
            self.reconcile()

    def deploy(self, job: str, replicas: int, **spec: Any) -> None:
        """Create or replace a job's Deployment; `spec` is added to that of its pods."""
        template = pod("template", "1", on=None)
        template["spec"] |= spec
        body = {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": job}},
            "template": {"metadata": {"labels": {"app": job}}, "spec": template["spec"]},
        }
        meta = {"name": job, "namespace": NAMESPACE}
        self.put(DEPLOYMENT, {"metadata": meta, "spec": body, "status": {}})

    def targets(self) -> dict[str, int | None]:
        found = {job: self.find(DEPLOYMENT, job) for job in RATES}
        return {job: one and one["spec"]["replicas"] for job, one in found.items()}

    # --- what the cluster does -----------------------------------------------------------------

    def reconcile(self) -> None:
        nodes = {one["metadata"]["name"]: one for one in self.server.all(*NODE)}
        pods = self.server.all(*POD)
        for one in pods:  # of nodes that are gone
            if one["spec"].get("nodeName", "n1") not in nodes:
                self._remove_pod(one)
        for job in RATES:
            self._replicas_of(job, self.find(DEPLOYMENT, job))
        self._schedule(nodes)
        for job in RATES:
            if one := self.find(DEPLOYMENT, job):
                self._observe(one, nodes)

    def pods_of(self, job: str) -> list[dict]:
        return [one for one in self.server.all(*POD) if one["metadata"]["labels"].get("app") == job]

    def _remove_pod(self, one: dict) -> None:
        self.remove(POD, one["metadata"]["name"], one["metadata"]["namespace"])

    def _replicas_of(self, job: str, deployment: dict | None) -> None:
        pods = self.pods_of(job)
        wanted = deployment["spec"]["replicas"] if deployment else 0
        pods.sort(key=lambda one: not one["spec"].get("nodeName"))
        for one in pods[wanted:]:
            self._remove_pod(one)
        for _ in range(wanted - len(pods)):
            self.serial += 1
            # The uid of a template is not followed: running pods keep the spec that they have.
            spec = deployment["spec"]["template"]["spec"]
            new = pod(f"{job}-{self.serial}", on=None, labels={"app": job}, ready=False)
            new["spec"] = dict(spec)
            new["status"]["phase"] = "Pending"
            self.put(POD, new)

    def _schedule(self, nodes: dict[str, dict]) -> None:
        pods = self.server.all(*POD)
        used = dict.fromkeys(nodes, 0.0)
        for one in pods:
            if place := one["spec"].get("nodeName"):
                used[place] = used.get(place, 0.0) + cores_of(one["spec"])
        for one in pods:
            if one["spec"].get("nodeName"):
                self._follow_readiness(one, nodes)
                continue
            free = {
                name: float(each["status"]["allocatable"]["cpu"]) - used[name]
                for name, each in nodes.items()
                if accepts(each, one["spec"])
            }
            best = max(free, key=lambda name: free[name], default=None)
            need = cores_of(one["spec"])
            if best is not None and free[best] >= need:
                used[best] += need
                status = dict(one["status"]) | {"phase": "Running"}
                started = {"started_s": self.virtual.now_s}
                spec = one["spec"] | {"nodeName": best}
                self.put(POD, one | {"spec": spec, "status": status | started})

    def _follow_readiness(self, one: dict, nodes: dict[str, dict]) -> None:
        status = one["status"]
        old_enough = self.virtual.now_s - status.get("started_s", -math.inf) >= COLD_START_S
        there = nodes.get(one["spec"]["nodeName"])
        ready = "True" if old_enough and there and is_ready(there) else "False"
        if status["conditions"][0]["status"] != ready:
            conditions = [{"type": "Ready", "status": ready}]
            self.put(POD, one | {"status": status | {"conditions": conditions}})

    def _observe(self, deployment: dict, nodes: dict[str, dict]) -> None:
        pods = self.pods_of(deployment["metadata"]["name"])
        ready = sum(one["status"]["conditions"][0]["status"] == "True" for one in pods)
        status = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": len(pods),
            "readyReplicas": ready,
        }
        if deployment["status"] != status:
            self.put(DEPLOYMENT, deployment | {"status": status})

    # --- Prometheus ----------------------------------------------------------------------------

    def http(self, method: str, url: str, body: Any, form: dict | None, within_s: float) -> Any:
        if form is None or "prometheus.test" not in url:
            raise HttpError(url, 404, "not found")
        self.virtual.sleep(0.02)
        text = form["query"]
        if self.no_metrics or any(f"_{job}[" in text for job in self.slow):
            self.timeout(url, within_s)
        first, last, step = (float(form[key]) for key in ("start", "end", "step"))
        times_s = [first + n * step for n in range(round((last - first) / step) + 1)]
        series = []
        for query, place in MARKED.findall(text):
            values = [[when, f"{self.value(query, when):g}"] for when in times_s]
            series.append({"metric": {"faro_query": place}, "values": values})
        if not series:  # vector(1)
            series = [{"metric": {}, "values": [[when, "1"] for when in times_s]}]
        return {"data": {"resultType": "matrix", "result": series}}

    def value(self, query: str, wall_s: float) -> float:
        """What a query has at a Unix time."""
        found = QUERY.search(query)
        assert found, query
        what, job, window_s = found[1], found[2], float(found[3])
        now_s = wall_s - self.virtual.wall_offset_s
        if what == "requests":
            count = self.count(job, now_s - window_s, now_s)
            # What is wrong now is not wrong of the minutes before.
            recent = now_s > self.virtual.now_s - 30
            return self.values[job](count) if job in self.values and recent else count
        return {"mean": LATENCY_S, "tail": 2 * LATENCY_S, "ongoing": LATENCY_S * RATES[job]}[what]


class CeilingWorld(DeploymentWorld):
    """Deployments whose HPAs choose the replicas, within bounds that Faro sets."""

    name = "ceilings"
    needed = MINIMUM  # the HPAs choose how many there are

    def options(self, journal: Path) -> list[str]:
        return [*super().options(journal), "--act", "ceilings"]

    def furnish(self) -> None:
        self.scaled_s = self.virtual.now_s  # when the HPAs last acted
        for job in RATES:
            self.autoscaler(job, MINIMUM, 2 * STARTED)
        super().furnish()

    def autoscaler(self, job: str, low: int, high: int) -> None:
        """Create or replace a job's HPA."""
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": job}
        meta = {"name": job, "namespace": NAMESPACE}
        spec = {"scaleTargetRef": target, "minReplicas": low, "maxReplicas": high}
        self.put(HPA, {"metadata": meta, "spec": spec})

    def asked(self) -> dict[str, Any]:
        found = {job: self.find(HPA, job) for job in RATES}
        return {
            job: one and (one["spec"]["minReplicas"], one["spec"]["maxReplicas"])
            for job, one in found.items()
        }

    def reconcile(self) -> None:
        now_s = self.virtual.now_s
        if now_s - self.scaled_s >= HPA_S:
            self.scaled_s = now_s
            for job in RATES:
                self._autoscale(job, self.find(HPA, job), self.find(DEPLOYMENT, job))
        super().reconcile()

    def _autoscale(self, job: str, hpa: dict | None, deployment: dict | None) -> None:
        """What an HPA with a target utilisation does."""
        if hpa is None or deployment is None:
            return
        now_s = self.virtual.now_s
        busy = self.count(job, now_s - 60, now_s) / 60 * SERVICE_S
        wanted = max(math.ceil(busy / UTILISATION), hpa["spec"]["minReplicas"])
        replicas = min(wanted, hpa["spec"]["maxReplicas"])
        if deployment["spec"]["replicas"] != replicas:
            self.put(DEPLOYMENT, deployment | {"spec": deployment["spec"] | {"replicas": replicas}})


class RayWorld(World):
    """Jobs that are applications of a RayService with two workers."""

    name = "ray"
    cluster = "faro-ray"

    def _rows(self) -> dict[str, dict]:
        return {job: common_row(job) for job in RATES}

    def options(self, journal: Path) -> list[str]:
        return ["--backend", "rayserve", "--address", "http://ray.test:8265"]

    def furnish(self) -> None:
        self.ray = FakeRay(dict.fromkeys(RATES, STARTED), cpus=2 * CORES)
        self.late_s = 0.0  # how late the replicas report
        self.no_answer = ""  # "", "timeout", "500" or "wrong JSON": how Ray answers
        self.wrong_metrics = False
        self.lost: dict[str, int] = {}  # job -> replicas that do not run
        self.reported_s: dict[str, int] = {}
        status = {
            "activeServiceStatus": {"rayClusterName": self.cluster},
            "conditions": [{"type": "Ready", "status": "True"}],
        }
        meta = {"name": PLAN, "namespace": NAMESPACE}
        self.put(RAYSERVICE, {"metadata": meta, "spec": {}, "status": status})
        for n, place in enumerate(NODES):
            self.worker(n, place)
        self.reconcile()

    def worker(self, n: int, place: str, ready: bool = True, cores: int = CORES) -> None:
        labels = {"ray.io/node-type": "worker", "ray.io/cluster": self.cluster}
        labels["autoscaling.faro/cores"] = str(cores)
        self.put(POD, pod(f"worker-{n}", on=place, labels=labels, ready=ready))

    def targets(self) -> dict[str, int | None]:
        return {job: self.ray.targets.get(job) for job in RATES}

    def reconcile(self) -> None:
        """The replicas report their seconds, a few at a time."""
        until = int(self.virtual.wall_s - self.late_s)
        for job in RATES:
            first = self.reported_s.get(job, until - 60)
            if first > until + 120:  # the clock was set back
                first = until - 1
            if until - first >= REPORTED_S and not self.no_metrics:
                self._report(job, range(max(first, until - 200), until))
                self.reported_s[job] = until

    def _report(self, job: str, seconds: range) -> None:
        rows = {}
        for second in seconds:
            now_s = second - self.virtual.wall_offset_s
            # Whole requests, whose sum over many seconds is right.
            count = self.count(job, 0.0, now_s + 1) - self.count(job, 0.0, now_s)
            buckets = {str(bucket_of(LATENCY_S)): count}
            sums = {"arrivals": count, "done": count, "latency_s": count * LATENCY_S}
            rows[second] = empty_row() | sums | {"buckets": buckets}
        self.ray.stats.report(job, f"{job}#1", 0, rows)

    def http(self, method: str, url: str, body: Any, form: dict | None, within_s: float) -> Any:
        path = url.split(".test", 1)[1]
        on_statistics = "/faro-statistics" in path
        path = path[path.index("/") :]
        self.virtual.sleep(0.01)
        if not on_statistics and self.no_answer == "timeout":
            self.timeout(url, within_s)
        if on_statistics and self.no_metrics:
            raise HttpError(url, 503, "no")
        status, answer = self.ray.answer(method, path, body)
        if not on_statistics and self.no_answer == "500":
            status = 500
        if status != 200:
            raise HttpError(url, status, "no")
        if not on_statistics and self.no_answer == "wrong JSON" and method == "GET":
            return {"unexpected": [1]}
        if on_statistics and self.wrong_metrics and method == "GET":
            return ["not", "statistics"]
        answer = json.loads(json.dumps(answer))
        if path.startswith("/api/serve/applications/"):
            for job, lost in self.lost.items():
                if job in answer["applications"]:
                    deployment = answer["applications"][job]["deployments"]["replica"]
                    del deployment["replicas"][-lost:]
        return answer

    def forget_statistics(self) -> None:
        self.ray.stats = StatsAggregator()


WORLDS = {one.name: one for one in (DeploymentWorld, CeilingWorld, RayWorld)}


def common_row(job: str) -> dict:
    return {
        "job": job,
        "slo_s": 0.8,
        "service_time_s": SERVICE_S,
        "cold_start_s": COLD_START_S,
        "min_replicas": MINIMUM,
    }


def cores_of(spec: dict) -> float:
    requests = spec["containers"][0]["resources"]["requests"]
    return client.amount(requests.get("cpu", "0"))


def is_ready(one: dict) -> bool:
    return one["status"]["conditions"][0]["status"] == "True"


def accepts(one: dict, spec: dict) -> bool:
    """Whether a node takes new pods of this spec."""
    labels = one["metadata"]["labels"]
    chosen = spec.get("nodeSelector", {})
    fits = all(labels.get(name) == value for name, value in chosen.items())
    return fits and is_ready(one) and not one["spec"].get("unschedulable")


# --- how a world is put in place of the real one --------------------------------------------------


def load_modules() -> None:
    """Import what the commands import when they run, so that its names can be replaced."""
    for package in PACKAGES:
        for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__"):
                importlib.import_module(found.name)


class NoServer:
    """In place of the exporter's HTTP server: its metrics are read from its registry."""

    server_port = 0

    def start(self) -> None:
        pass

    shutdown = server_close = start


@contextlib.contextmanager
def in_world(
    kind: str,
    controllers: int,
    on_step: Callable[[World, Process, Any, Any], None],
    on_failure: Callable[[World, Process, str, str], None],
) -> Iterator[World]:
    """A world with its controllers; the caller is its driver, which lets the time pass.

    on_step : called with the world, the process, its exporter and the step, after each tick.
    on_failure : called with the world, the process, the reason and the message of each failure.
    """
    load_modules()
    virtual = VirtualTime()
    held: list[World] = []
    step, failure, board_init = Exporter.step, Exporter.failure, JobStates.__init__

    def stepped(exporter: Exporter, one: Any) -> None:
        step(exporter, one)
        task = virtual.task
        if held and task:
            on_step(held[0], task.process, exporter, one)

    def failed(exporter: Exporter, reason: str, message: str) -> None:
        failure(exporter, reason, message)
        task = virtual.task
        if held and task:
            on_failure(held[0], task.process, reason, message)

    boards: dict[Process, JobStates] = {}

    def new_board(board: JobStates, *arguments: Any, **options: Any) -> None:
        board_init(board, *arguments, **options)
        task = virtual.task
        if task:  # the first one of a process is the controller's
            boards.setdefault(task.process, board)

    def connect(*_: Any, **options: Any) -> FakeApi:
        return FakeApi(held_server[0], **options)

    def request(
        http: HttpClient,
        method: str,
        path: str,
        body: Any = None,
        form: dict | None = None,
        within_s: float | None = None,
    ) -> Any:
        task = virtual.task
        if task is None or task.process.dead:
            raise Killed
        within_s = within_s or 3 * http.timeout_s
        return held_server[1](method, http.address.rstrip("/") + path, body, form, within_s)

    held_server: list[Any] = []

    class Named(WORLDS[kind]):  # type: ignore[name-defined,misc]
        def furnish(self) -> None:
            held_server[:] = [self.server, self.http]
            super().furnish()

    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        real = client.connect
        for name, module in list(sys.modules.items()):
            if name.startswith("faro_ops") and getattr(module, "connect", None) is real:
                stack.enter_context(mock.patch.object(module, "connect", connect))
        stack.enter_context(mock.patch.object(HttpClient, "request", request))
        stack.enter_context(mock.patch.object(Exporter, "step", stepped))
        stack.enter_context(mock.patch.object(Exporter, "failure", failed))
        stack.enter_context(mock.patch.object(JobStates, "__init__", new_board))
        server = "faro_ops.controller.exporter.MetricsServer"
        stack.enter_context(mock.patch(server, lambda *_: NoServer()))
        stack.enter_context(virtual.installed("faro_ops", "faro_lib"))
        world = Named(virtual, folder, controllers)
        world.boards = boards
        held.append(world)
        yield world
