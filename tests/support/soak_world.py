"""Three worlds in which controllers run: Deployments, Deployments with HPAs, and a RayService.

Each has nodes, pods, an API server (kube_api.py), a known load, and one or two controllers, which
are `faro run` with the options of the manifests, in virtual time (soak_time.py). Their HTTP
requests to Prometheus or Ray are answered here. What becomes of the requests follows from the load
and from the replicas that serve (soak_service.py), so the loop is closed. A controller that ends
starts again after RESTART_S, with the same journal.
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
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import yaml
from fake_prometheus import FakePrometheus, Value
from kube_api import KubeApi
from kube_things import (
    DEPLOYMENT,
    FAROPLAN,
    HPA,
    LEASE,
    NODE,
    POD,
    RAYSERVICE,
    Kind,
    hpa,
    node,
    pod,
)
from live_things import FakeRay
from soak_service import (
    QUANTILE,
    WELL,
    Outcome,
    Service,
    Stage,
    Trouble,
    ray_row,
    together,
)
from soak_time import Killed, Process, VirtualTime

import faro_ops.cli
import faro_ops.operate
from faro_ops.cli.app import exit_status
from faro_ops.http import HttpClient, HttpError, HttpTimeout
from faro_ops.operate.export.exporter import Exporter
from faro_ops.operate.job_states import JobStates
from faro_ops.operate.kube import client
from faro_ops.operate.kube.client import APPLY, JSON
from faro_ops.operate.rayserve.statistics import StatsAggregator

NAMESPACE, PLAN = "jobs", "faro"
TICK_S = 20.0
RESTART_S = 10.0  # of a controller that has ended
CORES = 30  # of each node, or Ray worker
COLD_START_S = 5.0
SLO_S = 0.8
SERVICE_S = 0.2
DAY_S = 6 * 3600.0  # period of the load
SWING = 0.4  # of the load around its mean
RATES = {"a": 8.0, "b": 10.0, "c": 14.0, "d": 10.0, "e": 5.0}  # requests per second
MINIMUM = 2  # replicas of each job
STARTED = 5  # replicas of each job at the start, which suffice for its load
ORDERED = "e"  # the job with a standing order of STARTED replicas
# Queries for what became of requests, and the jobs that have them. Of the others, only what their
# `requests` and `latency_s` say is known, which count all answers.
FAILURE_QUERIES = ("failed", "refused", "cancelled")
KNOW_FAILURES = ("a", "c", "d")
APART = 10_007  # between the numbers of the requests of two jobs, so that their fates differ
KEPT_S = 30 * 60  # for which it is remembered what became of requests
NODES = ("n1", "n2")
LATENCY_S = 0.005  # of a call of the API server
RETRY_S = 0.5  # mean pause before a repeated call
HPA_S = 15.0  # between the decisions of an HPA
UTILISATION = 0.8  # at which it aims
REPORTED_S = 3  # seconds between the reports of a replica of Ray Serve
PACKAGES = (
    faro_ops.cli,
    faro_ops.operate,
)
QUERY = re.compile(rf"\b(requests|mean|tail|ongoing|{'|'.join(FAILURE_QUERIES)})_(\w+)\[(\d+)s\]")


@dataclass(frozen=True, eq=False)
class Sizes:
    """How large a world is; equal only to itself, so that twins can be kept by it.

    cores : of each node, or Ray worker.
    rates : mean requests per second by job, around which they swing.
    slo_s : of each job.
    minimum, started : replicas of each job at least, and at the start.
    ordered : the job with a standing order; "" if there is none.
    """

    cores: int = CORES
    rates: Mapping[str, float] = field(default_factory=RATES.copy)
    service_s: float = SERVICE_S
    slo_s: float = SLO_S
    swing: float = SWING
    minimum: int = MINIMUM
    started: int = STARTED
    ordered: str = ORDERED

    @property
    def service(self) -> Service:
        return Service(self.service_s, self.slo_s)

    def load(self, job: str, now_s: float) -> float:
        """Requests of a job from time 0 to `now_s` (monotonic): a slow wave around its mean."""
        turn, phase = self._wave(job)
        wave = (math.cos(phase) - math.cos(turn * now_s + phase)) / turn
        return self.rates[job] * (now_s + self.swing * wave)

    def rate_rps(self, job: str, now_s: float) -> float:
        """Requests of a job per second at a monotonic time."""
        turn, phase = self._wave(job)
        return self.rates[job] * (1 + self.swing * math.sin(turn * now_s + phase))

    def _wave(self, job: str) -> tuple[float, float]:
        return 2 * math.pi / DAY_S, list(self.rates).index(job) * math.pi / 2


USUAL = Sizes()


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

    troubles : what is wrong with each job's service or clients.
    values : job -> function that turns a value of its counts into what Prometheus answers.
    slow : jobs whose queries take too long.
    idle : job -> (begin, end) of its last time without requests, monotonic.
    no_metrics : whether Prometheus, or the endpoint of the statistics, does not answer.
    ends : of controllers that ended by themselves, since the last look.
    boards : the board of job states of each process.
    calls : of the API server, by virtual minute.
    commands : (job, process) of each `faro set` since the fault began.
    """

    name = ""
    metrics_silent_s = 5.0
    sets_replicas = True  # whether Faro does; otherwise, HPAs do

    def __init__(self, virtual: VirtualTime, folder: Path, controllers: int, sizes: Sizes):
        self.clock = virtual
        self.folder = folder
        self.sizes = sizes
        self.server = KubeApi(virtual)
        self.calls: Counter[int] = Counter()
        self.jobs = tuple(sizes.rates)
        self.rows = self._rows()
        self.troubles: dict[str, Trouble] = {}
        # Job -> (since, stage), oldest first; what became of the requests of (job, second).
        self.stages: dict[str, list[tuple[float, Stage]]] = {job: [] for job in self.jobs}
        self._outcomes: dict[tuple[str, int], Outcome] = {}
        self.values: dict[str, Callable[[float], float]] = {}
        self.slow: set[str] = set()
        self.no_metrics = False
        self.idle: dict[str, tuple[float, float]] = {}
        self.ends: list[End] = []
        self.boards: dict[Process, JobStates] = {}
        self.commands: list[tuple[str, Process]] = []
        for name in NODES:
            self.put(NODE, node(name, str(sizes.cores)))
        self.furnish()
        self.write_table()
        self.pods = [self._start(f"faro-{n}") for n in range(controllers)]

    def count(self, job: str, from_s: float, until_s: float) -> int:
        """Requests of a job between two monotonic times."""
        load = self.sizes.load
        requests = load(job, until_s) - load(job, from_s)
        if job in self.idle:
            begin_s, end_s = self.idle[job]
            first_s, last_s = max(from_s, begin_s), min(until_s, end_s)
            if first_s < last_s:
                requests -= load(job, last_s) - load(job, first_s)
        return round(requests)

    # --- what becomes of requests --------------------------------------------------------------

    def serving(self, job: str) -> int:
        """The replicas of a job that serve."""
        raise NotImplementedError

    def knows_failures(self, job: str) -> bool:
        """Whether Faro is told which requests of a job failed."""
        return True

    def accepted(self, job: str) -> float:
        """The share of a job's requests that Faro lets its replicas accept."""
        return 1.0

    def note_stages(self) -> None:
        """Remember how each job is served from now on."""
        now_s = self.clock.now_s
        for job, stages in self.stages.items():
            stage = Stage(self.serving(job), self.troubles.get(job, WELL), self.accepted(job))
            if not stages or stages[-1][1] != stage:
                stages.append((now_s, stage))
        if len(self._outcomes) > 2 * KEPT_S * len(self.jobs):
            recent = {key: one for key, one in self._outcomes.items() if key[1] > now_s - KEPT_S}
            self._outcomes = recent

    def outcome(self, job: str, second: int) -> Outcome:
        """What became of the requests that arrived from `second` (monotonic) to the next one."""
        key = job, second
        if key not in self._outcomes:
            stages = self.stages[job]
            place = max(0, bisect_right(stages, second + 0.5, key=lambda one: one[0]) - 1)
            first, after = (self.count(job, 0.0, one) for one in (second, second + 1))
            other = first + APART * self.jobs.index(job)
            rate_rps = self.sizes.rate_rps(job, second)
            service = self.sizes.service
            self._outcomes[key] = service.outcome(other, after - first, rate_rps, stages[place][1])
        return self._outcomes[key]

    def outcomes(self, job: str, from_s: float, until_s: float) -> Outcome:
        """What became of the requests between two monotonic times."""
        seconds = range(math.floor(from_s), math.floor(until_s))
        return together([self.outcome(job, second) for second in seconds])

    def enough(self, job: str, around_s: float = 0.0, as_stated: bool = False) -> int:
        """The fewest replicas that meet the SLO at the least load within this time of now.

        as_stated : whether to take the stated service time, not the true one.
        """
        now_s = self.clock.now_s
        times_s = (now_s - around_s, now_s, now_s + around_s)
        rate_rps = min(self.sizes.rate_rps(job, one_s) for one_s in times_s)
        factor = 1.0 if as_stated else self.troubles.get(job, WELL).factor
        return max(self.sizes.minimum, self.sizes.service.enough(rate_rps, factor))

    # --- objects -------------------------------------------------------------------------------

    def put(self, kind: Kind, thing: dict) -> dict:
        return self.server.put(kind, thing)

    def find(self, kind: Kind, name: str, namespace: str = NAMESPACE) -> dict | None:
        return self.server.find(kind, name, namespace)

    def remove(self, kind: Kind, name: str, namespace: str = NAMESPACE) -> dict | None:
        return self.server.remove(kind, name, namespace)

    def change(self, kind: Kind, name: str, namespace: str = NAMESPACE, **fields) -> None:
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

    # --- what faults do to the cluster ---------------------------------------------------------

    def lose_node(self, name: str) -> None:
        self.remove(NODE, name, "")

    def return_nodes(self) -> None:
        """Two nodes as at the start."""
        for name in NODES:
            self.put(NODE, node(name, str(self.sizes.cores)))
        self.remove(NODE, "small", "")

    def silence(self, silent: bool) -> None:
        """Let the API server give no answer, or answer again."""
        self.server.silent = silent

    def deny(self, *pairs: tuple[str, str]) -> None:
        """Take these permissions (verb, resource), and give all others; "*" stands for all."""

        def may(asked: dict) -> bool:
            verb, resource = asked["verb"], asked["resource"]
            return not {(verb, resource), ("*", resource), (verb, "*"), ("*", "*")} & {*pairs}

        self.server.may = may

    # --- the table and the orders --------------------------------------------------------------

    def _rows(self) -> dict[str, dict]:
        raise NotImplementedError

    def write_table(self) -> None:
        (self.folder / "jobs.yaml").write_text(yaml.safe_dump({"jobs": list(self.rows.values())}))

    def orders(self) -> list[dict]:
        plan = self.find(FAROPLAN, PLAN) or {}
        return list((plan.get("spec") or {}).get("overrides") or [])

    def standing(self) -> list[dict]:
        """The orders that are in force during the whole soak."""
        return [{"job": ORDERED, "by": "soak", "replicas": STARTED}]

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

        return self.clock.start(self.clock.process(f"faro-{name}"), work)

    # --- controllers ---------------------------------------------------------------------------

    def options(self, journal: Path) -> list[str]:
        raise NotImplementedError

    def _run(self, journal: Path) -> Callable[[], object]:
        jobs = str(self.folder / "jobs.yaml")
        words = ["run", "--jobs", jobs, "--plan", f"{NAMESPACE}/{PLAN}", "--apply", "--wait"]
        words += ["--tick", f"{TICK_S:g}", "--journal", str(journal), "--metrics-port", "0"]
        words += self.options(journal)

        def work() -> None:
            if status := exit_status(words):
                raise SystemExit(status)

        return work

    def _start(self, name: str) -> Pod:
        journal = self.folder / name / "journal"
        process = self.clock.process(name)
        self.clock.start(process, self._run(journal))
        return Pod(name, journal, process)

    def restart_ended(self) -> None:
        """Start the controllers again that have ended."""
        for one in self.pods:
            if not (one.process.ended or one.process.dead):
                continue
            if not one.expected:
                last = one.process.said[-1] if one.process.said else ""
                how = f"{one.process.ended}: {last}"
                self.ends.append(End(self.clock.now_s, one.process, how))
            self.boards.pop(one.process, None)
            one.expected = False
            one.starts += 1
            one.process = self.clock.process(one.name)
            self.clock.start(one.process, self._later(one))

    def _later(self, one: Pod) -> Callable[[], object]:
        work = self._run(one.journal)

        def wait_and_work() -> None:
            self.clock.sleep(RESTART_S)
            work()

        return wait_and_work

    def kill(self, one: Pod) -> None:
        one.expected = True
        self.clock.kill(one.process)

    def terminate(self, one: Pod) -> None:
        one.expected = True
        one.process.terminate()

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
        self.clock.sleep(within_s)
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
            if job in KNOW_FAILURES:
                queries |= {one: f"{one}_{job}[$window]" for one in FAILURE_QUERIES}
            return common_row(job, self.sizes) | {"deployment": {"name": job, "queries": queries}}

        return {job: row(job) for job in self.jobs}

    def options(self, journal: Path) -> list[str]:
        return ["--backend", "deployments", "--prometheus", "http://prometheus.test"]

    def furnish(self) -> None:
        self.prometheus = MeasuredWorld(self)
        self.serial = 0
        for job in self.jobs:
            self.deploy(job, self.sizes.started)
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
        found = {job: self.find(DEPLOYMENT, job) for job in self.jobs}
        return {job: one and one["spec"]["replicas"] for job, one in found.items()}

    # --- what the cluster does -----------------------------------------------------------------

    def reconcile(self) -> None:
        nodes = {one["metadata"]["name"]: one for one in self.server.all(NODE)}
        pods = self.server.all(POD)
        for one in pods:  # of nodes that are gone
            if one["spec"].get("nodeName", "n1") not in nodes:
                self._remove_pod(one)
        for job in self.jobs:
            self._replicas_of(job, self.find(DEPLOYMENT, job))
        self._schedule(nodes)
        for job in self.jobs:
            if one := self.find(DEPLOYMENT, job):
                self._observe(one, nodes)
        self.note_stages()

    def knows_failures(self, job: str) -> bool:
        return job in KNOW_FAILURES

    def serving(self, job: str) -> int:
        one = self.find(DEPLOYMENT, job) or {}
        return (one.get("status") or {}).get("readyReplicas", 0)

    def pods_of(self, job: str) -> list[dict]:
        return [one for one in self.server.all(POD) if one["metadata"]["labels"].get("app") == job]

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
        pods = self.server.all(POD)
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
                started = {"started_s": self.clock.now_s}
                spec = one["spec"] | {"nodeName": best}
                self.put(POD, one | {"spec": spec, "status": status | started})

    def _follow_readiness(self, one: dict, nodes: dict[str, dict]) -> None:
        status = one["status"]
        old_enough = self.clock.now_s - status.get("started_s", -math.inf) >= COLD_START_S
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
        self.clock.sleep(0.02)
        text = form["query"]
        if self.no_metrics or any(f"_{job}[" in text for job in self.slow):
            self.timeout(url, within_s)
        return self.prometheus.answer(form)

    def value(self, query: str, wall_s: float) -> float:
        """What a query has at a Unix time."""
        found = QUERY.search(query)
        assert found, query
        what, job, window_s = found[1], found[2], float(found[3])
        now_s = wall_s - self.clock.wall_offset_s
        if what == "requests":
            count = self.count(job, now_s - window_s, now_s)
            # What is wrong now is not wrong of the minutes before.
            recent = now_s > self.clock.now_s - 30
            return self.values[job](count) if job in self.values and recent else count
        found = self.outcomes(job, now_s - window_s, now_s)
        if what in FAILURE_QUERIES:
            return getattr(found, what)
        latency_s = found.served_s if job in KNOW_FAILURES else found.known_s
        if what == "ongoing":
            return latency_s.sum() / window_s
        if not len(latency_s):
            return math.nan  # 0/0
        return latency_s.mean() if what == "mean" else np.quantile(latency_s, QUANTILE)


class MeasuredWorld(FakePrometheus):
    """The Prometheus of a world."""

    def __init__(self, world: DeploymentWorld):
        super().__init__()
        self._world = world

    def of(self, query: str) -> list[Value]:
        return [partial(self._world.value, query)]


class CeilingWorld(DeploymentWorld):
    """Deployments whose HPAs choose the replicas, within bounds that Faro sets."""

    name = "ceilings"
    sets_replicas = False

    def options(self, journal: Path) -> list[str]:
        return [*super().options(journal), "--act", "ceilings"]

    def furnish(self) -> None:
        self.scaled_s = self.clock.now_s  # when the HPAs last acted
        for job in self.jobs:
            self.autoscaler(job, self.sizes.minimum, 2 * self.sizes.started)
        super().furnish()

    def autoscaler(self, job: str, low: int, high: int) -> None:
        """Create or replace a job's HPA."""
        self.put(HPA, hpa(job, low, high))

    def asked(self) -> dict[str, Any]:
        found = {job: self.find(HPA, job) for job in self.jobs}
        return {
            job: one and (one["spec"]["minReplicas"], one["spec"]["maxReplicas"])
            for job, one in found.items()
        }

    def reconcile(self) -> None:
        now_s = self.clock.now_s
        if now_s - self.scaled_s >= HPA_S:
            self.scaled_s = now_s
            for job in self.jobs:
                self._autoscale(job, self.find(HPA, job), self.find(DEPLOYMENT, job))
        super().reconcile()

    def _autoscale(self, job: str, hpa: dict | None, deployment: dict | None) -> None:
        """What an HPA with a target utilisation does."""
        if hpa is None or deployment is None:
            return
        now_s = self.clock.now_s
        found = self.outcomes(job, now_s - 60, now_s)
        factor = self.troubles.get(job, WELL).factor
        busy = (found.arrivals - found.refused) / 60 * factor * self.sizes.service_s
        wanted = max(math.ceil(busy / UTILISATION), hpa["spec"]["minReplicas"])
        replicas = min(wanted, hpa["spec"]["maxReplicas"])
        if deployment["spec"]["replicas"] != replicas:
            self.put(DEPLOYMENT, deployment | {"spec": deployment["spec"] | {"replicas": replicas}})


class RayWorld(World):
    """Jobs that are applications of a RayService with two workers."""

    name = "ray"
    cluster = "faro-ray"

    def _rows(self) -> dict[str, dict]:
        return {job: common_row(job, self.sizes) for job in self.jobs}

    def options(self, journal: Path) -> list[str]:
        return ["--backend", "rayserve", "--address", "http://ray.test:8265"]

    def furnish(self) -> None:
        sizes = self.sizes
        self.ray = FakeRay(dict.fromkeys(self.jobs, sizes.started), cpus=2 * sizes.cores)
        self.late_s = 0.0  # how late the replicas report
        self.no_answer = ""  # "", "timeout", "500" or "wrong JSON": how Ray answers
        self.wrong_metrics = False
        self.lost: dict[str, int] = {}  # job -> replicas that do not run
        self.reported_s: dict[str, int] = {}
        # Job -> (share that its replicas accept, until when), as they were last told.
        self.accepts: dict[str, tuple[float, float]] = {}
        status = {
            "activeServiceStatus": {"rayClusterName": self.cluster},
            "conditions": [{"type": "Ready", "status": "True"}],
        }
        meta = {"name": PLAN, "namespace": NAMESPACE}
        self.put(RAYSERVICE, {"metadata": meta, "spec": {}, "status": status})
        for n, place in enumerate(NODES):
            self.worker(n, place)
        self.reconcile()

    def worker(self, n: int, place: str, ready: bool = True, cores: int = 0) -> None:
        """A worker pod; without `cores`, of the usual size."""
        labels = {"ray.io/node-type": "worker", "ray.io/cluster": self.cluster}
        labels["autoscaling.faro/cores"] = str(cores or self.sizes.cores)
        self.put(POD, pod(f"worker-{n}", on=place, labels=labels, ready=ready))

    def lose_node(self, name: str) -> None:
        super().lose_node(name)
        self.remove(POD, f"worker-{NODES.index(name)}")

    def return_nodes(self) -> None:
        super().return_nodes()
        for place, name in enumerate(NODES):
            self.worker(place, name)
        self.remove(POD, "worker-9")

    def lose_replica(self, job: str) -> None:
        self.ray.targets.setdefault(job, STARTED)
        self.lost[job] = 1

    def return_replicas(self) -> None:
        self.lost.clear()

    def targets(self) -> dict[str, int | None]:
        return {job: self.ray.targets.get(job) for job in self.jobs}

    def reconcile(self) -> None:
        """The replicas report their seconds, a few at a time."""
        self.note_stages()
        until = int(self.clock.wall_s - self.late_s)
        for job in self.jobs:
            first = self.reported_s.get(job, until - 60)
            if first > until + 120:  # the clock was set back
                first = self.reported_s[job] = until - 1
            if until - first >= REPORTED_S and not self.no_metrics:
                self._report(job, range(max(first, until - 200), until))
                self.reported_s[job] = until

    def _report(self, job: str, seconds: range) -> None:
        service_s = self.sizes.service_s * self.troubles.get(job, WELL).factor
        offset_s = round(self.clock.wall_offset_s)
        rows = {
            second: ray_row(self.outcome(job, second - offset_s), service_s) for second in seconds
        }
        reply = self.ray.stats.report(job, f"{job}#1", 0, rows)
        if reply.accept is not None:
            self.accepts[job] = reply.accept, self.clock.now_s + reply.for_s

    def serving(self, job: str) -> int:
        if job in self.ray.deleting:
            return 0
        return max(0, self.ray.targets.get(job, 0) - self.lost.get(job, 0))

    def accepted(self, job: str) -> float:
        share, until_s = self.accepts.get(job, (1.0, 0.0))
        return share if self.clock.now_s < until_s else 1.0

    def http(self, method: str, url: str, body: Any, form: dict | None, within_s: float) -> Any:
        path = url.split(".test", 1)[1]
        on_statistics = "/faro-statistics" in path
        path = path[path.index("/") :]
        self.clock.sleep(0.01)
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


def common_row(job: str, sizes: Sizes) -> dict:
    return {
        "job": job,
        "slo_s": sizes.slo_s,
        "service_time_s": sizes.service_s,
        "cold_start_s": COLD_START_S,
        "min_replicas": sizes.minimum,
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


# --- the API server, in virtual time --------------------------------------------------------------


class SlowApi:
    """A connection to a KubeApi, each call of which takes virtual time; as `kube.client.Api`."""

    namespace = "default"

    def __init__(
        self, server: KubeApi, calls: Counter[int], *, retries: int = 4, timeout_s: float = 5.0
    ):
        self._server = server
        self._calls = calls
        self._retries = retries
        self._timeout_s = timeout_s

    @property
    def host(self) -> str:
        return self._server.host

    def get(self, path: str, **query: Any) -> dict:
        return self.send("GET", path, **query)

    def send(
        self, method: str, path: str, body: dict | None = None, *, kind: str = JSON, **query: Any
    ) -> dict:
        self._reach()
        return self._server.answer(method, path, body, kind, query)

    def apply(self, path: str, manifest: dict, **query: Any) -> dict:
        return self.send("PATCH", path, manifest, kind=APPLY, **query)

    def lines(self, path: str, silence_s: float, **query: Any) -> Iterator[dict]:
        self._reach()
        yield from self._server.events(path, query, silence_s)

    def _reach(self) -> None:
        """Take the time of a call; ApiError if the server is silent during all attempts."""
        virtual, server = self._server.clock, self._server
        task = virtual.task
        if task is not None and task.process.dead:
            raise Killed
        for attempt in range(self._retries + 1):
            self._calls[int(virtual.now_s // 60)] += 1
            virtual.sleep(LATENCY_S)
            if not server.silent:
                return
            virtual.sleep(self._timeout_s)
            if attempt < self._retries:
                virtual.sleep(RETRY_S)
        raise client.ApiError(0, f"{self.host} cannot be reached: ReadTimeoutError")


# --- how a world is put in place of the real one --------------------------------------------------


def load_modules() -> None:
    """Import what the commands import when they run, so that its names can be replaced."""
    for package in PACKAGES:
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
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
    sizes: Sizes = USUAL,
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

    def connect(*_: Any, **options: Any) -> SlowApi:
        return SlowApi(held_server[0], held_server[2], **options)

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
            held_server[:] = [self.server, self.http, self.calls]
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
        server = "faro_ops.operate.export.exporter.MetricsServer"
        stack.enter_context(mock.patch(server, return_value=NoServer()))
        stack.enter_context(virtual.installed("faro_ops", "faro_lib"))
        world = Named(virtual, folder, controllers, sizes)
        world.boards = boards
        held.append(world)
        yield world
