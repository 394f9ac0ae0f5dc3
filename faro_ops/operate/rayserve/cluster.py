"""Observe and scale jobs on Ray Serve, through Ray's REST API and Faro's stats endpoint.

The trouble of one job does not raise. It is reported to the board of job states, and the job's data
is missing, or Faro holds its replicas.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

import numpy as np

from faro_lib.protocol import SharingCluster
from faro_lib.workload import Job, Placement
from faro_lib.workload.jobs import MINUTE_S, arrays_of
from faro_ops.http import HttpClient, Unauthorized
from faro_ops.operate.clock import Clock
from faro_ops.operate.job_states import FINE, GONE, MISCONFIGURED, MISSING, JobStates
from faro_ops.operate.limits.steady_capacity import VANISHED, SteadyCapacity
from faro_ops.operate.rayserve.applications import STOPPING, Deployment, Listed, listing_of
from faro_ops.operate.rayserve.clock_offset import offset_after
from faro_ops.operate.rayserve.coverage import Coverage
from faro_ops.operate.rayserve.deploy import APPLICATIONS, PLACEMENTS_QUERY, STATS_ROUTE, scale_path
from faro_ops.operate.rayserve.gateway import GATEWAY
from faro_ops.operate.rayserve.pooled_jobs import PooledJobs
from faro_ops.operate.rayserve.recent import RecentSeconds
from faro_ops.operate.rayserve.spec import ServeSpec
from faro_ops.operate.rayserve.statistics import JobStatistics, is_measure
from faro_ops.operate.scaling import NOT_LEADER, MayAct, NotScaled, scale_jobs, summary
from faro_ops.protocol import LiveObservation

LOG = logging.getLogger(__name__)
# Sources of reports to the board of job states: the jobs' table, Ray's list, the replicas'
# statistics, and what the replicas of pools say about their models.
FROM_TABLE = "table"
FROM_RAY = "applications"
FROM_REPLICAS = "statistics"
FROM_MODELS = "models"
# Wall seconds; replicas usually report the statistics of a second within this time after its end.
LAG_S = 0.6
# Each read repeats this many seconds of the one before, and all that some replica had not reported.
REPEATED_S = 2
# A job's measurements of this many last seconds, if they cannot be right, are reported.
WRONG_S = 60
# Drop rates that were set without a lease hold this long.
UNLEASED_S = 60.0
# A job counts as `changing` for at most this many wall seconds after it was scaled.
PROGRESS_DEADLINE_S = 90.0
# A job that Ray no longer lists counts as present for this long: redeploying hides it for 4 to 6 s.
REDEPLOY_S = 15.0
NODES = "/api/v0/nodes?detail=1&limit=10000"  # high limit: Ray also lists up to 1,000 dead nodes
UNKNOWN = -1  # target of a job that is absent or has not been observed yet


@dataclass(frozen=True, slots=True)
class RayCores:
    """The cores of Ray's live nodes, as last measured (`steady_capacity.Measured`)."""

    cores: float = math.nan  # NaN: never measured
    age_s: float = 0.0
    outage: str = ""
    unready: float = 0.0
    bound: str = "Ray's nodes"


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to scale the jobs of a Ray cluster, which one controller has at a time.

    The Ray actor `StatsAggregator` grants it. Drop rates hold as long as the lease.
    """

    holder: str  # the controller's name; if it restarts with the same name, it still has its lease
    duration_s: float
    force: bool = False  # whether to take the lease from another controller at the start


class RayServeCluster(SharingCluster):
    """Jobs deployed as applications of one Ray cluster; the jobs of a pool are one application.

    ray : the REST API of Ray's dashboard.
    http : the server of the applications, which include the stats endpoint.
    capacity : cores that the jobs may use; None: the CPUs of Ray's nodes; NaN: unknown here,
        because a `LeaderGatedCluster` measures them.
    lease : the right to scale, renewed before each change; None for a dry run.
    states : board on which jobs with trouble are reported.
    unusable : what is wrong with sections of the jobs' table, by number of the job; these jobs keep
        their replicas.
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
        states: JobStates | None = None,
        unusable: Mapping[int, str] | None = None,
    ):
        self.jobs = jobs
        self.specs = specs
        self.clock = clock
        self._ray = ray
        self._http = http
        self._lease = lease
        self._states = states or JobStates()
        self._unusable = unusable or {}
        self._fixed_capacity = capacity
        self._measured = RayCores()  # the last measurement that Ray answered
        self._measured_at = time.monotonic()
        self._steady = SteadyCapacity()
        replicas = {job.name: job.replica for job in jobs}
        self._recent = RecentSeconds(tuple(replicas), clock, replicas)
        self._coverage = {job.name: Coverage() for job in jobs}
        self._pools = PooledJobs(jobs)
        self._skew_s = 0.0  # the statistics actor's clock minus ours
        self._read_until = 0
        self._now_s = 0.0
        # One entry per job:
        self._target = np.full(len(jobs), UNKNOWN)  # as last listed by Ray, or requested since then
        self._drop = np.zeros(len(jobs))  # drop rates as last read or set
        self._drop_ends_s = math.inf  # by time.monotonic(); then all jobs accept all requests
        self._scaled_at = np.full(len(jobs), -np.inf)  # by time.monotonic()
        self._deployments: list[Deployment | None] = [None] * len(jobs)  # as last listed by Ray
        self._missing_since = np.full(len(jobs), np.inf)  # by time.monotonic()

    def connect(self) -> None:
        """Check addresses and tokens with one call to each server, and take the lease.

        Raises ValueError if a step fails.
        """
        try:
            _mapping_at(self._ray, APPLICATIONS)
            _mapping_at(self._http, f"{STATS_ROUTE}?since={int(time.time())}")
        except OSError as error:
            places = f"{self._ray.address} and {self._http.address}"
            raise ValueError(f"no Ray Serve at {places}: {error}") from None
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
        answer = _mapping_at(self._ray, APPLICATIONS)
        applications = answer.get("applications")
        if not isinstance(applications, dict):
            raise OSError(f"{self._ray.address}{APPLICATIONS}: Ray's answer lists no applications")

        # One entry per job:
        listing = [listing_of(applications, spec) for spec in self.specs]
        deployments = [self._last_deployment(job, one) for job, one in enumerate(listing)]
        # The statistics of a job alone come from its replicas, those of a pool from its gateways.
        reporting = list(listing)
        for pool in self._pools.shared:
            for n in pool.jobs:
                gateway = self.specs[n].model_copy(update={"deployment": GATEWAY})
                reporting[n] = listing_of(applications, gateway)
        stats = self._read_stats(reporting)
        self._report(listing, deployments)
        self._read_placements()
        # Arrays of shape (jobs,):
        present = np.array([one is not None for one in deployments])
        target = np.array([one.target if one else 0 for one in deployments])
        running = np.array([one.running if one else 0 for one in deployments])
        stopping = np.array([one.states[STOPPING] if one else 0 for one in deployments])
        self._pools.divide(deployments, target, running, stopping)
        recently = time.monotonic() - self._scaled_at < PROGRESS_DEADLINE_S
        on_ray = np.array([one.deployment is not None for one in listing])
        self._target = np.where(on_ray, target, UNKNOWN)
        unusable = np.isin(np.arange(len(listing)), list(self._unusable))
        held = present & (unusable | np.array([one.state == MISCONFIGURED for one in listing]))
        capacity, capacity_age_s = self._read_capacity(target)
        if self._steady.reason == VANISHED:
            held = np.ones(len(self.jobs), bool)
        self._read_drop(stats)
        now_s = self._now_s
        minute = int(now_s // MINUTE_S)
        recent, arrays = self._recent, arrays_of(self.jobs)
        first_token_s, per_token_s = recent.token_latencies_s(minute, arrays.quantile)
        return LiveObservation(
            now_s=now_s,
            capacity=capacity,
            minute=minute,
            arrivals_per_min=recent.arrivals_per_min(minute),
            mean_latency_s=recent.mean_latency_s(now_s),
            tail_latency_s=recent.tail_latency_s(minute, arrays.quantile),
            # NaN if a replica has not reported in the last 5 s (`statistics.FRESH_S`).
            ongoing=np.array([self._ongoing(job.name, stats) for job in self.jobs]),
            running=running,
            starting=np.maximum(target - running, 0),
            target=target,
            terminating=stopping,
            changing=(running < target) & recently,
            drop=self._drop.copy(),
            arrivals_now=recent.arrivals_now(minute, now_s),
            served_tail_latency_s=recent.served_tail_latency_s(minute, arrays.quantile),
            **recent.ended_per_min(minute),
            first_token_s=first_token_s,
            per_token_s=per_token_s,
            goodput_rps=recent.goodput_rps(minute, arrays.slo_s),
            present=None if present.all() else present,
            held=held if held.any() else None,
            capacity_age_s=capacity_age_s,
            revision=np.array([one.revision if one else 0 for one in deployments]),
            placement=self._pools.placement,
        )

    def place(self, placement: Mapping[str, Placement]) -> None:
        """Set which models the replicas of pools should hold, from the next `apply` on."""
        self._pools.place(placement)

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

        units = [list(unit.jobs) for unit in self._pools.units]

        def scale(unit: int, replicas: int) -> None:
            post(
                self._ray, scale_path(self.specs[units[unit][0]]), {"target_num_replicas": replicas}
            )
            self._scaled_at[units[unit]] = time.monotonic()

        names = [job.name for job in self.jobs]
        of_units = [unit.name for unit in self._pools.units]
        cores = np.array([unit.cores for unit in self._pools.units])
        current = np.where(self._target == UNKNOWN, target, self._target)
        capacity = self._steady.cores if self._fixed_capacity is None else self._fixed_capacity
        # If it is unknown, jobs grow only into the cores that others free.
        capacity = float(np.nan_to_num(capacity))
        errors = self._send_placements(target, post)
        wanted, now = self._pools.sums(np.asarray(target)), self._pools.sums(current)
        errors += scale_jobs(of_units, wanted, now, cores, capacity, scale)
        for members, done in zip(units, now == wanted):
            if done:
                current[members] = target[members]
        self._target = np.where(self._target == UNKNOWN, UNKNOWN, current)
        try:
            self._send_drop(names, drop, post)
        except (OSError, Unauthorized) as error:
            errors.append(str(error))
        if errors:
            raise NotScaled(summary(errors), np.flatnonzero(current != target))

    def _send_placements(
        self, target: np.ndarray, post: Callable[[HttpClient, str, dict[str, Any]], None]
    ) -> list[str]:
        """Send the rows of the pools; return the errors. They stay in force until others come."""
        if not self._pools.shared:
            return []
        try:
            post(self._http, f"{STATS_ROUTE}?{PLACEMENTS_QUERY}", self._pools.wishes(target))
        except (OSError, Unauthorized) as error:
            return [f"the placements of pools are not sent: {error}"]
        return []

    def _read_placements(self) -> None:
        """Read what the replicas of pools hold; models that cannot be loaded are reported."""
        if not self._pools.shared:
            return
        try:
            self._pools.read(_mapping_at(self._http, f"{STATS_ROUTE}?{PLACEMENTS_QUERY}"))
        except (OSError, Unauthorized, ValueError) as error:
            LOG.warning("the placements of pools are not known: %s", error)
            return
        reasons = {
            job: f"its model cannot be loaded, and is tried again: {why}"
            for job, why in self._pools.failures.items()
        }
        self._states.report_all(MISCONFIGURED, reasons, by=FROM_MODELS)

    def _send_drop(
        self,
        names: list[str],
        drop: np.ndarray,
        post: Callable[[HttpClient, str, dict[str, Any]], None],
    ) -> None:
        """Send the drop rates, which end unless they are sent again; OSError if this fails."""
        for_s = self._lease.duration_s if self._lease else UNLEASED_S
        ends_s = time.monotonic() + for_s
        accept = {name: round(1 - float(rate), 6) for name, rate in zip(names, drop)}
        post(self._http, f"{STATS_ROUTE}?{urlencode({'for_s': for_s})}", accept)
        self._drop, self._drop_ends_s = np.array(drop, float), ends_s

    def _last_deployment(self, job: int, now: Listed) -> Deployment | None:
        """The job's deployment as last listed by Ray.

        None if it is being deleted, or has been missing for REDEPLOY_S.
        """
        if now.deployment is not None or now.deleting:
            self._deployments[job] = now.deployment
            self._missing_since[job] = np.inf
            return now.deployment
        now_s = time.monotonic()
        self._missing_since[job] = min(self._missing_since[job], now_s)
        if now.stays or now_s - self._missing_since[job] < REDEPLOY_S:
            return self._deployments[job]
        return None

    def _report(self, listing: list[Listed], deployments: list[Deployment | None]) -> None:
        """Report what is wrong with the jobs' sections and applications to the board."""
        unusable = {self.jobs[n].name: reason for n, reason in self._unusable.items()}
        self._states.report_all(MISCONFIGURED, unusable, by=FROM_TABLE)
        for job, one, deployment in zip(self.jobs, listing, deployments):
            state, reason = one.state, one.reason
            if state == GONE and deployment is not None:
                state = FINE  # it has been missing for less than REDEPLOY_S
            if state == FINE and deployment is None:
                state, reason = GONE, "Ray has not deployed its application yet"
            self._states.report(job.name, state, reason, by=FROM_RAY)

    def _read_stats(self, listing: list[Listed]) -> dict[str, JobStatistics]:
        """The statistics of each job that has some; what is wrong is reported to the board.

        Empty if the stats endpoint does not answer.
        """
        skew_s = round(self._skew_s)
        since = min((*(one.since for one in self._coverage.values()), self._read_until))
        sent_s = time.time()
        try:
            answer = _mapping_at(self._http, f"{STATS_ROUTE}?since={since + skew_s - REPEATED_S}")
        except (OSError, Unauthorized) as error:
            reason = f"the replicas' statistics cannot be read: {error}"
            self._states.report_all(
                MISSING, {job.name: reason for job in self.jobs}, by=FROM_REPLICAS
            )
            return {}
        now_s = time.time()
        if (theirs_s := clock_of(answer)) is not None:
            self._skew_s = offset_after(self._skew_s, sent_s, now_s, theirs_s)
            skew_s = round(self._skew_s)

        self._read_until = int(now_s)
        stats: dict[str, JobStatistics] = {}
        reasons: dict[str, str] = {}
        for job, one in zip(self.jobs, listing):
            reason = ""
            if job.name in answer:
                try:
                    stats[job.name] = JobStatistics.of(answer[job.name], -skew_s)
                except ValueError as error:
                    reason = str(error)
            else:
                reason = "none of its replicas has reported"
            reason = self._add(job.name, stats.get(job.name), one.deployment) or reason
            if reason:
                reasons[job.name] = reason
        self._states.report_all(MISSING, reasons, by=FROM_REPLICAS)
        return stats

    def _add(self, job: str, stats: JobStatistics | None, deployment: Deployment | None) -> str:
        """Add a job's statistics; return why its data is incomplete, or "" if it is not."""
        now = self._read_until
        reported = stats.reported if stats else {}
        replicas = deployment.replicas if deployment else None
        coverage = self._coverage[job].after(now, reported, replicas)
        self._coverage[job] = coverage
        seconds, wrong = (stats.seconds, stats.wrong) if stats else ({}, {})
        self._recent.add(job, seconds, wrong, coverage)
        if late := coverage.late:
            ages = ", ".join(f"{name} ({late[name]} s)" for name in sorted(late))
            return f"{len(late)} of {len(coverage.until)} replicas report late: {ages}"
        lately = [second for second in wrong if now - second <= WRONG_S]
        return wrong[max(lately)] if lately else ""

    def _ongoing(self, job: str, stats: dict[str, JobStatistics]) -> float:
        """The job's ongoing requests; NaN if a replica has not reported them lately."""
        if job not in stats or self._coverage[job].late:
            return math.nan
        return stats[job].ongoing

    def _read_drop(self, stats: dict[str, JobStatistics]) -> None:
        """Note the drop rates that the replicas were told; those not known stay until they end."""
        if time.monotonic() >= self._drop_ends_s:
            self._drop = np.zeros(len(self.jobs))
        for job, one in enumerate(self.jobs):
            share = stats[one.name].accept if one.name in stats else None
            if share is not None:
                self._drop[job] = round(1 - share, 6)

    def _read_capacity(self, target: np.ndarray) -> tuple[float, float | None]:
        """(the capacity that counts, its age): the fixed one, or that of Ray's live nodes.

        The age is in seconds; None if the capacity is not measured. What Ray does not report for a
        moment, or reports as 0, is not lost (`SteadyCapacity`).
        """
        if self._fixed_capacity is not None:
            return self._fixed_capacity, None
        now_s = time.monotonic()
        try:
            self._measured = RayCores(cores_of_nodes(self._ray.get(NODES)))
            self._measured_at = now_s
        except (OSError, ValueError) as error:
            age_s = now_s - self._measured_at
            self._measured = replace(self._measured, age_s=age_s, outage=str(error))
        before = self._steady
        used = float(arrays_of(self.jobs).cores @ target)
        self._steady = before.after(now_s, self._measured, used)
        if self._steady.reason != before.reason and self._steady.note:
            LOG.warning("capacity: %s", self._steady.note)
        return self._steady.cores, self._measured.age_s


def cores_of_nodes(answer: Any) -> float:
    """The CPUs of the live nodes in Ray's answer; ValueError if it has another form.

    >>> node = {"state": "ALIVE", "resources_total": {"CPU": 4.0}}
    >>> cores_of_nodes({"data": {"result": {"result": [node, node]}}})
    8.0
    """
    try:
        nodes = answer["data"]["result"]["result"]
        alive = [node["resources_total"] for node in nodes if node["state"] == "ALIVE"]
        cpus = [resources.get("CPU", 0.0) for resources in alive]
    except (KeyError, TypeError, AttributeError) as error:
        problem = f"{type(error).__name__}: {error}"[:100]
        raise ValueError(f"Ray's answer about its nodes cannot be read ({problem})") from None
    for cpu in cpus:
        if not is_measure(cpu):
            raise ValueError(f"a node of Ray has CPU={repr(cpu)[:30]}")
    return float(sum(cpus))


def clock_of(answer: dict[str, Any]) -> float | None:
    """The statistics actor's Unix time, which the parts of all jobs have; None without a job."""
    times_s: list[Any] = [part.get("now_s") for part in answer.values() if isinstance(part, dict)]
    valid_s: list[float] = sorted(time_s for time_s in times_s if is_measure(time_s))
    return valid_s[len(valid_s) // 2] if valid_s else None  # one damaged part does not matter


def _mapping_at(server: HttpClient, path: str) -> dict[str, Any]:
    """The server's answer; OSError if it is not a mapping, and therefore not from Ray or Faro."""
    answer = server.get(path)
    if not isinstance(answer, dict):
        problem = "is answered, but not by Ray Serve and Faro"
        raise OSError(f"{server.address}{path} {problem}")
    return answer
