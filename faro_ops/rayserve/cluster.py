"""Observe and scale jobs on Ray Serve, through Ray's REST API and Faro's stats endpoint."""

import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

import numpy as np

from faro_lib.protocol import Cluster
from faro_lib.workload import Job
from faro_lib.workload.jobs import MINUTE_S, arrays_of
from faro_ops.controller.clock import Clock
from faro_ops.controller.scaling import NOT_LEADER, MayAct, NotScaled, scale_jobs, summary
from faro_ops.http import HttpClient, Unauthorized
from faro_ops.moved import moved
from faro_ops.policies.protocol import LiveObservation
from faro_ops.rayserve.deploy import APPLICATIONS, STATS_ROUTE, scale_path
from faro_ops.rayserve.recent import RecentSeconds
from faro_ops.rayserve.spec import ServeSpec

# Wall seconds; replicas usually report the statistics of a second within this time after its end.
LAG_S = 0.6
# Each read repeats the last LATE_S seconds of the previous read, because replicas may report late.
LATE_S = 15
# A job counts as `changing` for at most this many wall seconds after it was scaled.
PROGRESS_DEADLINE_S = 90.0
# A job that Ray no longer lists counts as present for this long: redeploying hides it for 4 to 6 s.
REDEPLOY_S = 15.0
FAILED = "DEPLOY_FAILED"  # an update failed; the replicas of the previous version still serve
ALIVE = ("RUNNING", "DEPLOYING", "UNHEALTHY", "NOT_STARTED", FAILED)
NODES = "/api/v0/nodes?detail=1&limit=10000"  # high limit: Ray also lists up to 1,000 dead nodes
UNKNOWN = -1  # target of a job that is absent or has not been observed yet


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to scale the jobs of a Ray cluster, which one controller has at a time.

    The Ray actor `StatsAggregator` grants it.
    """

    holder: str  # the controller's name; if it restarts with the same name, it still has its lease
    duration_s: float
    force: bool = False  # whether to take the lease from another controller at the start


class RayServeCluster(Cluster):
    """Jobs deployed as applications of one Ray cluster.

    ray : the REST API of Ray's dashboard.
    http : the server of the applications, which include the stats endpoint.
    capacity : cores that the jobs may use; None: the CPUs of Ray's nodes.
    lease : the right to scale, renewed before each change; None for a dry run.
    """

    def __init__(
        self,
        jobs: tuple[Job, ...],
        specs: tuple[ServeSpec, ...],
        ray: HttpClient,
        http: HttpClient,
        clock: Clock,
        capacity: float | None = None,
        lease: Lease | None = None,
    ):
        self.jobs = jobs
        self.specs = specs
        self.clock = clock
        self._ray = ray
        self._http = http
        self._lease = lease
        self._fixed_capacity = capacity
        self._capacity = capacity
        self._recent = RecentSeconds(tuple(job.name for job in jobs), clock)
        self._read_until = 0
        self._now_s = 0.0
        # One entry per job:
        self._target = np.full(len(jobs), UNKNOWN)  # as last listed by Ray, or requested since then
        self._drop = np.zeros(len(jobs))  # drop rates as last read
        self._scaled_at = np.full(len(jobs), -np.inf)  # by time.monotonic()
        self._deployments: list[dict[str, Any] | None] = [None] * len(jobs)  # as last listed by Ray
        self._missing_since = np.full(len(jobs), np.inf)  # by time.monotonic()

    def connect(self) -> None:
        """Check addresses and tokens with one call to each server, and take the lease.

        Raises ValueError if a step fails.
        """
        listed: dict[str, Any] = {}
        try:
            listed = _mapping_at(self._ray, APPLICATIONS)
            _mapping_at(self._http, f"{STATS_ROUTE}?since={int(time.time())}")
        except OSError as error:
            places = f"{self._ray.address} and {self._http.address}"
            problem = _moved_application(listed) or f"no Ray Serve at {places}: {error}"
            raise ValueError(problem) from None
        try:
            self.renew_lease(self._lease is not None and self._lease.force)
        except OSError as error:
            raise ValueError(f"{error}; stop it, or take over with --force") from None

    def renew_lease(self, force: bool = False) -> None:
        """Take or renew the lease. OSError if another controller holds it and `force` is False."""
        if self._lease is None:
            return
        query: dict[str, Any] = {
            "holder": self._lease.holder,
            "duration_s": self._lease.duration_s,
        }
        if force:
            query["force"] = 1
        holder = self._http.post(f"{STATS_ROUTE}?{urlencode(query)}", {})
        if holder != self._lease.holder:
            problem = f"controller {holder} scales the jobs of this Ray cluster"
            raise OSError(f"{self._ray.address}: {problem}")

    def release_lease(self) -> None:
        """Give up the lease, so that another controller can start at once."""
        if self._lease is None:
            return
        self._lease = replace(self._lease, duration_s=0.0)
        with suppress(OSError, Unauthorized):
            self.renew_lease()

    def advance(self, until_s: float) -> None:
        self.clock.wait_until(until_s, LAG_S)
        self._now_s = until_s

    def observe(self) -> LiveObservation:
        """The cluster as Ray and the replicas report it; OSError if Ray does not answer."""
        # As reported, one entry per job:
        applications = self._ray.get(APPLICATIONS)["applications"]
        self._capacity = self._read_capacity()
        all_stats = self._read_stats()
        stats = [all_stats.get(job.name, {}) for job in self.jobs]
        listed = [_deployment(applications, spec) is not None for spec in self.specs]
        deployments = [self._last_deployment(job, applications) for job in range(len(self.jobs))]
        states = [_states(one) for one in deployments]
        # Arrays of shape (jobs,):
        present = np.array([one is not None for one in deployments])
        target = np.array([_target(one) for one in deployments])
        running = np.array([count["RUNNING"] for count in states])
        recently = time.monotonic() - self._scaled_at < PROGRESS_DEADLINE_S
        self._target = np.where(listed, target, UNKNOWN)
        if all_stats:  # without an answer, the last known drop rates stay
            self._drop = np.array([_drop_rate(one) for one in stats])
        now_s = self._now_s
        minute = int(now_s // MINUTE_S)
        recent = self._recent
        return LiveObservation(
            now_s=now_s,
            capacity=self._capacity,
            minute=minute,
            arrivals_per_min=recent.arrivals_per_min(minute),
            mean_latency_s=recent.mean_latency_s(now_s),
            tail_latency_s=recent.tail_latency_s(minute, arrays_of(self.jobs).quantile),
            # NaN if no replica has reported in the last 5 s (`statistics.FRESH_S`).
            ongoing=np.array(
                [float(one["ongoing"]) if one.get("replicas") else np.nan for one in stats]
            ),
            running=running,
            starting=np.maximum(target - running, 0),
            target=target,
            terminating=np.array([count["STOPPING"] for count in states]),
            changing=(running < target) & recently,
            drop=self._drop,
            arrivals_now=recent.arrivals_now(minute, now_s),
            failed_per_min=recent.failed_per_min(minute),
            present=None if present.all() else present,
        )

    def writer_of(self, job: int) -> str | None:
        """None: Ray does not record which client scaled a deployment."""
        return None

    def apply(self, target: np.ndarray, drop: np.ndarray, may_act: MayAct = lambda: True) -> None:
        """Scale the jobs with `scale_jobs`, and send the drop rates to the replicas.

        Acts only while `may_act()` is True. Raises OSError with the first error and the number of
        other errors.
        """

        def post(server: HttpClient, path: str, body: dict[str, Any]) -> None:
            if not may_act():
                raise OSError(NOT_LEADER)
            server.post(path, body)

        self.renew_lease()

        def scale(job: int, replicas: int) -> None:
            post(self._ray, scale_path(self.specs[job]), {"target_num_replicas": replicas})
            self._scaled_at[job] = time.monotonic()

        names = [job.name for job in self.jobs]
        cores = arrays_of(self.jobs).cores
        current = np.where(self._target == UNKNOWN, target, self._target)
        errors = scale_jobs(names, target, current, cores, self._capacity or 0.0, scale)
        self._target = np.where(self._target == UNKNOWN, UNKNOWN, current)
        accept = {name: round(1 - float(rate), 6) for name, rate in zip(names, drop)}
        try:
            post(self._http, STATS_ROUTE, accept)
        except (OSError, Unauthorized) as error:
            errors.append(str(error))
        if errors:
            raise NotScaled(summary(errors), np.flatnonzero(current != target))

    def _last_deployment(self, job: int, applications: dict[str, Any]) -> dict[str, Any] | None:
        """The job's deployment as last listed by Ray.

        None if it is being deleted, or has been missing for REDEPLOY_S.
        """
        spec = self.specs[job]
        deployment = _deployment(applications, spec)
        status = applications.get(spec.application, {}).get("status")
        if deployment is not None or status == "DELETING":
            self._deployments[job] = deployment
            self._missing_since[job] = np.inf
            return deployment
        now = time.monotonic()
        self._missing_since[job] = min(self._missing_since[job], now)
        if status == FAILED or now - self._missing_since[job] < REDEPLOY_S:
            return self._deployments[job]
        return None

    def _read_stats(self) -> dict[str, Any]:
        """The statistics of each job (`StatsAggregator.read`).

        Empty if the stats endpoint does not answer.
        """
        try:
            stats = self._http.get(f"{STATS_ROUTE}?since={self._read_until - LATE_S}")
        except (OSError, Unauthorized):
            return {}
        stats = {job.name: stats[job.name] for job in self.jobs if job.name in stats}
        for job, one in stats.items():
            self._recent.add(job, one["seconds"])
        self._read_until = int(time.time())
        return stats

    def _read_capacity(self) -> float:
        """The fixed capacity, if any, else the CPUs of Ray's live nodes as last reported.

        Raises OSError if Ray has never reported them.
        """
        if self._fixed_capacity is not None:
            return self._fixed_capacity
        with suppress(OSError, Unauthorized, KeyError, TypeError):
            nodes = self._ray.get(NODES)["data"]["result"]["result"]
            alive = [node["resources_total"] for node in nodes if node["state"] == "ALIVE"]
            return float(sum(resources.get("CPU", 0.0) for resources in alive))
        if self._capacity is None:
            raise OSError(f"{self._ray.address}: Ray does not report the resources of its nodes")
        return self._capacity


def _mapping_at(server: HttpClient, path: str) -> dict[str, Any]:
    """The server's answer; OSError if it is not a mapping, and therefore not from Ray or Faro."""
    answer = server.get(path)
    if not isinstance(answer, dict):
        problem = "is answered, but not by Ray Serve and Faro"
        raise OSError(f"{server.address}{path} {problem}")
    return answer


def _moved_application(listed: dict[str, Any]) -> str | None:
    """Why an application does not run whose configuration was written for an older Faro, if any."""
    for name, state in listed.get("applications", {}).items():
        configured = state.get("deployed_app_config") or {}
        problem = moved(configured.get("import_path", ""))
        if problem and state.get("status") != "RUNNING":
            return f"application {name!r}: {problem}"
    return None


def _deployment(applications: dict[str, Any], spec: ServeSpec) -> dict[str, Any] | None:
    state = applications.get(spec.application, {})
    if state.get("status") not in ALIVE:
        return None
    return state.get("deployments", {}).get(spec.deployment)


def _states(deployment: dict[str, Any] | None) -> Counter[str]:
    """The number of the deployment's replicas in each state."""
    return Counter(replica["state"] for replica in (deployment or {}).get("replicas", []))


def _target(deployment: dict[str, Any] | None) -> int:
    return int((deployment or {}).get("target_num_replicas") or 0)


def _drop_rate(stats: dict[str, Any]) -> float:
    """The share of its requests that a job drops; 0 if no share was ever set."""
    accept = stats.get("accept")
    return 0.0 if accept is None else round(1 - accept, 6)
