"""Faro without Ray: each job is a plain Deployment of any model server, scaled by its `scale` subresource."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from faro_lib.control import growth
from faro_lib.control.clock import Clock
from faro_lib.errors import nearest
from faro_lib.kube.capacity import Shape, requests_of
from faro_lib.kube.client import MERGE, Api, ApiError
from faro_lib.kube.deployment_metrics import Load, DeploymentMetrics, Queries
from faro_lib.policies.protocol import HISTORY_MINUTES, Observation
from faro_lib.workload import Job
from faro_lib.workload.jobs import MINUTE_S, jobs_array

PATIENCE = 3.0  # cold starts after which a change that has not come true no longer counts as going on
THREADS = 16


@dataclass(frozen=True, slots=True)
class DeploymentRef:
    """Which Deployment a job is, and how it is measured."""

    job: Job
    namespace: str
    name: str
    queries: Queries

    @classmethod
    def of(cls, job: Job, said: dict, namespace: str) -> DeploymentRef:
        """From the job's `deployment` section of jobs.yaml."""
        accepted = ("namespace", "name", "queries")
        for key in said:
            if key not in accepted:
                raise ValueError(f"job {job.name!r}: deployment.{key} is unknown; {nearest(key, accepted)}")
        if not isinstance(said.get("queries"), dict):
            raise ValueError(f"job {job.name!r}: deployment.queries is missing: PromQL for requests and latency_mean_s")
        queries = Queries.of(job.name, said["queries"])
        return cls(job, said.get("namespace", namespace), said.get("name", job.name), queries)

    @property
    def path(self) -> str:
        return f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{self.name}"


@dataclass(frozen=True, slots=True)
class Found:
    """One Deployment as last read."""

    version: str
    target: int
    ready: int
    settled: bool

    @classmethod
    def of(cls, deployment: Mapping) -> Found:
        status, spec = deployment.get("status", {}), deployment["spec"]
        seen = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
        target, ready = spec.get("replicas", 1), status.get("readyReplicas", 0)
        settled = seen and ready == target and status.get("replicas", 0) == target
        return cls(deployment["metadata"]["resourceVersion"], target, ready, settled)


class Deployments:
    """`Cluster` on plain Deployments. A drop rate is nobody's to enforce here: it is remembered, and published in the plan.

    Parameters
    ----------
    clock : trace time. Prometheus remembers what was since its origin: a controller whose clock began a quarter of an hour
        ago has its history at once.
    cores : what the jobs may use, unless a `LeaderGatedCluster` cluster says otherwise.
    """

    def __init__(self, api: Api, addresses: list[DeploymentRef], prometheus: DeploymentMetrics, clock: Clock, cores: float = 0.0):
        self._api, self.addresses, self._prometheus, self.clock, self.cores = api, addresses, prometheus, clock, cores
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="deployments")
        self._patience_s = PATIENCE * jobs_array([address.job for address in addresses], "cold_start_s") / clock.scale
        self._drop = np.zeros(len(addresses))
        self._asked_at = np.full(len(addresses), -np.inf)
        self._found: list[Found | None] = [None] * len(addresses)
        self._cores_each = jobs_array([address.job for address in addresses], "cores")
        self._tick_s: float | None = None
        self.may_act: Callable[[], bool] = lambda: True

    def advance(self, until_s: float) -> None:
        self.clock.wait_until(until_s)
        self._tick_s = until_s

    def observe(self) -> Observation:
        """Raises ApiError where the Deployments cannot be read; missing load is NaN."""
        self._found = self.read()
        # Of the tick, not of the answer: policies plan at instants of a grid, and must find themselves on it.
        now_s = self.clock.now_s if self._tick_s is None else self._tick_s
        minute = int(now_s // MINUTE_S)
        load = self._measure(minute, now_s)
        there = np.array([found is not None for found in self._found])
        target = np.array([found.target if found else 0 for found in self._found])
        ready = np.array([found.ready if found else 0 for found in self._found])
        unsettled = np.array([found is not None and not found.settled for found in self._found])
        return Observation(
            now_s=now_s,
            capacity=self.cores,
            minute=minute,
            arrivals_per_min=load.arrivals_per_min,
            mean_latency_s=load.mean_latency_s * self.clock.scale,
            tail_latency_s=load.tail_latency_s * self.clock.scale,
            ongoing=load.ongoing,
            running=np.minimum(ready, target),
            starting=np.maximum(target - ready, 0),
            target=target,
            terminating=np.maximum(ready - target, 0),
            changing=unsettled & (time.monotonic() - self._asked_at < self._patience_s),
            drop=self._drop.copy(),
            arrivals_now=None if np.isnan(load.arrivals_now).all() else load.arrivals_now,
            present=None if there.all() else there,
        )

    def apply(self, target: np.ndarray, drop: np.ndarray) -> None:
        """Scale what differs, shrinking first; every job is tried, whatever became of those before it, but that nobody grows
        into what another has not given up.

        Raises
        ------
        ApiError : what was refused first. The next tick sees it, and asks again.
        """
        self._drop = np.array(drop, float)
        target = np.asarray(target)
        standing = np.array([found.target if found else asked for found, asked in zip(self._found, target)])
        refused = self._scale_all(np.flatnonzero(target < standing), target, standing)
        grows = growth(target, standing, self._cores_each, self.cores)
        for job in np.flatnonzero((target > standing) & ~grows):
            refused.append(f"{self.addresses[job].name} does not grow to {target[job]}: others have not shrunk")
        refused += self._scale_all(np.flatnonzero(grows), target, standing)
        if refused:
            raise ApiError(0, refused[0] + (f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""))

    def _scale_all(self, these: np.ndarray, target: np.ndarray, standing: np.ndarray) -> list[str]:
        """Scale these jobs at once; `standing` becomes what there is then. What was refused, a line each."""
        refused = []
        asked = {int(job): self._threads.submit(self._scale, int(job), int(target[job])) for job in these}
        for job, done in asked.items():
            if error := done.exception():
                refused.append(f"{self.addresses[job].name} is not scaled to {target[job]}: {error}")
            else:
                standing[job] = target[job]
        return refused

    def read(self) -> list[Found | None]:
        """Every job's Deployment as it stands; None where there is none."""
        return [Found.of(one) if one else None for one in self.objects()]

    def objects(self) -> list[dict | None]:
        """The same whole, by one list a namespace."""
        there: dict[tuple[str, str], dict] = {}
        for namespace in sorted({address.namespace for address in self.addresses}):
            listed = self._api.get(f"/apis/apps/v1/namespaces/{namespace}/deployments")
            there |= {(namespace, item["metadata"]["name"]): item for item in listed["items"]}
        return [there.get((address.namespace, address.name)) for address in self.addresses]

    def _scale(self, job: int, replicas: int) -> None:
        """Write only upon what was read: a controller that was suspended while another took over overwrites nothing of it.

        Raises
        ------
        ApiError : refused; 409 where someone else has scaled it meanwhile, which the next tick will see.
        """
        if not self.may_act():
            raise ApiError(0, "another controller may act by now; the rest is left to it")
        address, found = self.addresses[job], self._found[job]
        version = found.version if found else ""
        for _ in range(3):
            body = {"metadata": {"resourceVersion": version}, "spec": {"replicas": replicas}}
            try:
                written = self._api.send("PATCH", f"{address.path}/scale", body, kind=MERGE, fieldManager="faro")
            except ApiError as refused:
                if refused.status != 409:
                    raise
                now = self._api.get(f"{address.path}/scale")
                theirs = now["spec"].get("replicas", 0)
                if found and theirs not in (found.target, replicas):
                    raise ApiError(409, f"someone else has scaled it to {theirs}") from None
                version = now["metadata"]["resourceVersion"]
                continue
            self._asked_at[job] = time.monotonic()
            self._found[job] = Found(
                written["metadata"]["resourceVersion"], replicas, found.ready if found else 0, False
            )
            return
        raise ApiError(409, "it changes faster than it can be scaled")

    def _measure(self, minute: int, now_s: float) -> Load:
        clock = self.clock
        ends = clock.origin_s + clock.minute_s * (np.arange(max(0, minute - HISTORY_MINUTES), minute) + 1.0)
        queries = [one.queries for one in self.addresses]
        return self._prometheus.observe(queries, ends, clock.wall_s(now_s), clock.minute_s)


def shape_of(jobs: list[Job], deployments: list[dict]) -> Shape:
    """What the replicas of these Deployments need of a node; see `Shape`.

    Raises
    ------
    ValueError : a job's cores are not what its pods ask for, or the pods cannot go to the same nodes.
    """
    per_core: dict[str, float] = {}
    specs = [deployment["spec"]["template"]["spec"] for deployment in deployments]
    for job, spec in zip(jobs, specs):
        asked = requests_of({"spec": spec})
        if abs(asked.get("cpu", 0.0) - job.cores) > 1e-6:
            raise ValueError(
                f"job {job.name!r}: cores={job.cores:g}, but its pods ask for {asked.get('cpu', 0.0):g}; they must agree"
            )
        for name, value in asked.items():
            per_core[name] = max(per_core.get(name, 0.0), value / job.cores)
    tenths = np.gcd.reduce([round(job.cores * 10) for job in jobs])
    tolerations = tuple(
        one for one in specs[0].get("tolerations", []) if all(one in s.get("tolerations", []) for s in specs)
    )
    selector = dict(specs[0].get("nodeSelector", {}))
    if any(spec.get("nodeSelector", {}) != selector for spec in specs):
        raise ValueError("deployments: their nodeSelectors differ; jobs share capacity only on the same nodes")
    return Shape(per_core, float(tenths) / 10, tolerations, selector)
