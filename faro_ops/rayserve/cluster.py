"""Observe and scale jobs on Ray Serve over HTTP, through Ray's REST API and Faro's stats endpoint."""

import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

import numpy as np

from faro_lib.policies.protocol import Cluster
from faro_lib.workload import Job
from faro_lib.workload.jobs import MINUTE_S, arrays_of
from faro_ops.controller.clock import Clock
from faro_ops.controller.scaling import NOT_LEADER, MayAct, scale_jobs, summary
from faro_ops.http import HttpClient, Unauthorized
from faro_ops.policies.protocol import LiveObservation
from faro_ops.rayserve.deploy import APPLICATIONS, STATS_ROUTE, scale_path
from faro_ops.rayserve.recent import RecentSeconds
from faro_ops.rayserve.spec import ServeSpec

LAG_S = 0.6  # wall seconds; replicas usually report the statistics of a second within this time after its end
LATE_S = 15  # each read repeats the last LATE_S seconds of the previous read, because replicas may report late
PROGRESS_DEADLINE_S = (
    90.0  # a job counts as `changing` for at most this many wall seconds after it was scaled
)
REDEPLOY_S = 15.0  # a job that Ray no longer lists counts as present for this long: redeploying hides it for 4 to 6 s
FAILED = "DEPLOY_FAILED"  # an update failed; the replicas of the previous version still serve
ALIVE = ("RUNNING", "DEPLOYING", "UNHEALTHY", "NOT_STARTED", FAILED)
NODES = "/api/v0/nodes?detail=1&limit=10000"  # high limit: Ray also lists up to 1,000 dead nodes
UNKNOWN = -1  # target of a job that is absent or has not been observed yet


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to scale the jobs of a Ray cluster; the Ray actor `StatsAggregator` grants it to one controller at a time."""

    holder: str  # the controller's name; if it restarts with the same name, it still has its lease
    duration_s: float
    force: bool = False  # whether to take the lease from another controller at the start


class RayServeCluster(Cluster):
    """Jobs deployed as applications of one Ray cluster.

    ray, http : the REST API of Ray's dashboard, and the server of the applications, which include the stats endpoint.
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
        self._lease = lease
        self.jobs, self.specs, self.clock = jobs, specs, clock
        self._ray, self._http = ray, http
        self._fixed_capacity, self._capacity = capacity, capacity
        self._recent = RecentSeconds(tuple(job.name for job in jobs), clock)
        self._read_until = 0
        self._now_s = 0.0
        self._target = np.full(
            len(jobs), UNKNOWN
        )  # targets last listed by Ray, or requested since then
        self._drop = np.zeros(len(jobs))  # drop rates as last read
        self._scaled_at = np.full(len(jobs), -np.inf)
        self._deployments: list[dict[str, Any] | None] = [None] * len(
            jobs
        )  # deployments as last listed by Ray
        self._missing_since = np.full(len(jobs), np.inf)

    def connect(self) -> None:
        """Check addresses and tokens with one call to each server, and take the lease; ValueError if a step fails."""
        try:
            for server, path in (
                (self._ray, APPLICATIONS),
                (self._http, f"{STATS_ROUTE}?since={int(time.time())}"),
            ):
                if not isinstance(server.get(path), dict):
                    raise OSError(
                        f"{server.address}{path} is answered, but not by Ray Serve and Faro"
                    )
        except OSError as error:
            raise ValueError(
                f"no Ray Serve at {self._ray.address} and {self._http.address}: {error}"
            ) from None
        try:
            self.renew_lease(self._lease is not None and self._lease.force)
        except OSError as error:
            raise ValueError(f"{error}; stop it, or take over with --force") from None

    def renew_lease(self, force: bool = False) -> None:
        """Take or renew the lease; OSError if another controller holds it, unless `force` takes it from that controller."""
        if (lease := self._lease) is not None:
            query = {"holder": lease.holder, "duration_s": lease.duration_s} | (
                {"force": 1} if force else {}
            )
            holder = self._http.post(f"{STATS_ROUTE}?{urlencode(query)}", {})
            if holder != lease.holder:
                raise OSError(
                    f"{self._ray.address}: controller {holder} scales the jobs of this Ray cluster"
                )

    def release_lease(self) -> None:
        """Give up the lease, so that another controller can start at once."""
        if self._lease is not None:
            self._lease = replace(self._lease, duration_s=0.0)
            with suppress(OSError, Unauthorized):
                self.renew_lease()

    def advance(self, until_s: float) -> None:
        self.clock.wait_until(until_s, LAG_S)
        self._now_s = until_s

    def observe(self) -> LiveObservation:
        """The cluster as Ray and the replicas report it; OSError if Ray does not answer."""
        applications = self._ray.get(APPLICATIONS)["applications"]
        self._capacity = self._read_capacity()
        stats = self._read_stats()
        by_job = [stats.get(job.name, {}) for job in self.jobs]
        listed = np.array([_deployment(applications, spec) is not None for spec in self.specs])
        deployments = [self._last_deployment(job, applications) for job in range(len(self.jobs))]
        present = np.array([deployment is not None for deployment in deployments])
        target = np.array([int((one or {}).get("target_num_replicas") or 0) for one in deployments])
        states = [
            Counter(replica["state"] for replica in (one or {}).get("replicas", []))
            for one in deployments
        ]
        running = np.array([count["RUNNING"] for count in states])
        self._target = np.where(listed, target, UNKNOWN)
        if stats:  # without an answer, the last known drop rates stay
            self._drop = np.array(
                [round(1 - (1.0 if (p := one.get("accept")) is None else p), 6) for one in by_job]
            )
        recently = time.monotonic() - self._scaled_at < PROGRESS_DEADLINE_S
        now_s, recent = self._now_s, self._recent
        minute = int(now_s // MINUTE_S)
        return LiveObservation(
            now_s=now_s,
            capacity=self._capacity,
            minute=minute,
            arrivals_per_min=recent.arrivals_per_min(minute),
            mean_latency_s=recent.mean_latency_s(now_s),
            tail_latency_s=recent.tail_latency_s(minute, arrays_of(self.jobs).quantile),
            # NaN if no replica has reported in the last 5 s (`statistics.FRESH_S`).
            ongoing=np.array(
                [float(one["ongoing"]) if one.get("replicas") else np.nan for one in by_job]
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

    def apply(self, target: np.ndarray, drop: np.ndarray, may_act: MayAct = lambda: True) -> None:
        """Scale the jobs with `scale_jobs`, and send the drop rates to the replicas.

        Acts only while `may_act()` is True. Raises OSError with the first error and the number of other errors.
        """

        def post(server: HttpClient, path: str, body: dict[str, Any]) -> None:
            if not may_act():
                raise OSError(NOT_LEADER)
            server.post(path, body)

        self.renew_lease()

        def scale(job: int, replicas: int) -> None:
            post(self._ray, scale_path(self.specs[job]), {"target_num_replicas": replicas})
            self._scaled_at[job] = time.monotonic()

        names, cores = [job.name for job in self.jobs], arrays_of(self.jobs).cores
        current = np.where(self._target == UNKNOWN, target, self._target)
        errors = scale_jobs(names, target, current, cores, self._capacity or 0.0, scale)
        self._target = np.where(self._target == UNKNOWN, UNKNOWN, current)
        try:
            post(
                self._http,
                STATS_ROUTE,
                {name: round(1 - float(rate), 6) for name, rate in zip(names, drop)},
            )
        except (OSError, Unauthorized) as error:
            errors.append(str(error))
        if errors:
            raise OSError(summary(errors))

    def _last_deployment(self, job: int, applications: dict[str, Any]) -> dict[str, Any] | None:
        """The job's deployment as last listed by Ray; None if it is being deleted or has been missing for REDEPLOY_S."""
        spec, now = self.specs[job], time.monotonic()
        deployment, status = (
            _deployment(applications, spec),
            applications.get(spec.application, {}).get("status"),
        )
        if deployment is not None or status == "DELETING":
            self._deployments[job], self._missing_since[job] = deployment, np.inf
            return deployment
        self._missing_since[job] = min(self._missing_since[job], now)
        return (
            self._deployments[job]
            if status == FAILED or now - self._missing_since[job] < REDEPLOY_S
            else None
        )

    def _read_stats(self) -> dict[str, Any]:
        """The statistics of each job (`StatsAggregator.read`); empty if the stats endpoint does not answer."""
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
        """The fixed capacity, if any, else the CPUs of Ray's live nodes as last reported; OSError if never reported."""
        if self._fixed_capacity is not None:
            return self._fixed_capacity
        with suppress(OSError, Unauthorized, KeyError, TypeError):
            nodes = self._ray.get(NODES)["data"]["result"]["result"]
            return float(
                sum(
                    node["resources_total"].get("CPU", 0.0)
                    for node in nodes
                    if node["state"] == "ALIVE"
                )
            )
        if self._capacity is None:
            raise OSError(f"{self._ray.address}: Ray does not report the resources of its nodes")
        return self._capacity


def _deployment(applications: dict[str, Any], spec: ServeSpec) -> dict[str, Any] | None:
    state = applications.get(spec.application, {})
    return (
        state.get("deployments", {}).get(spec.deployment) if state.get("status") in ALIVE else None
    )
