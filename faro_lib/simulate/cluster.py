"""The simulated implementation of the protocol `Cluster`: requests, replicas and pods in simulated time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from faro_lib.protocol import HISTORY_MINUTES, LATENCY_WINDOW_S, Cluster, Observation
from faro_lib.simulate.draws import ROUTER, Draws
from faro_lib.simulate.latencies import minute_edges, quantile_of
from faro_lib.simulate.pods import IDLE_S, RETRY_S, Pods
from faro_lib.simulate.serving import DISPATCH, Serving
from faro_lib.workload import Job, Workload, arrays_of
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.service import ServiceTime
from faro_lib.workload.shares import check_initial

DRAIN_STEP_S = (
    10.0  # after the last tick, simulated seconds between two checks for unfinished requests
)
CapacityStep = tuple[float, float]  # (time_s, cores)
Lifetime = tuple[int, float, float]  # (job index, start_s, end_s)


@dataclass(frozen=True, slots=True)
class ServingModel:
    """Parameters of the simulated serving system.

    `dispatch` is "round-robin" (the paper's model: a router and one queue per job) or
    "least-outstanding" (a queue per replica and no router, as behind a least-connections proxy).
    """

    dispatch: str = "round-robin"
    queue_limit: int = (
        50  # with "round-robin", a request that finds more than this number waiting is dropped
    )
    max_ongoing_requests: int = (
        4  # maximum number of requests in a replica, including the one in service
    )
    idle_s: float = IDLE_S  # how long the pod of a removed replica keeps its cores
    retry_s: float = RETRY_S  # delay until a replica that found no free cores tries again
    own_limits: tuple[
        tuple[str, int], ...
    ] = ()  # (job's name, max_ongoing_requests) of jobs whose limit differs

    def __post_init__(self) -> None:
        if self.dispatch not in DISPATCH:
            raise ValueError(
                f"dispatch={self.dispatch!r} is unknown; accepted: {', '.join(DISPATCH)}"
            )
        for field, minimum in (("queue_limit", 0), ("max_ongoing_requests", 1)):
            value = getattr(self, field)
            if value != int(value) or value < minimum:
                raise ValueError(f"{field}={value!r} must be a whole number >= {minimum}")
        if not self.idle_s >= 0:
            raise ValueError(f"idle_s={self.idle_s!r} must be a number >= 0")
        if not self.retry_s > 0:
            raise ValueError(f"retry_s={self.retry_s!r} must be a number > 0")

    def limit_of(self, job: Job) -> int:
        """Limit on requests in a replica of `job`. The default is raised to the minimum for the job's replica kind."""
        return dict(self.own_limits).get(
            job.name, max(self.max_ongoing_requests, job.replica.fewest_places)
        )

    @property
    def router(self) -> ServiceTime | None:
        """Distribution of the duration of one pass through the router; None without a router."""
        return ROUTER if self.dispatch == "round-robin" else None

    @property
    def max_rps(self) -> float:
        """Maximum requests/s of a job's router, which serves each request twice; inf if there is no router."""
        return 1 / (2 * self.router.mean_s) if self.router else np.inf

    def capped(self, jobs: Sequence[Job], requests_per_min: np.ndarray) -> str:
        """A warning that names jobs whose busiest minute exceeds `max_rps`, or ""; requests_per_min is (jobs, minutes)."""
        most_rps = np.nan_to_num(requests_per_min).max(axis=1) / MINUTE_S
        over = [
            f"{job.name} ({rate:.0f})" for job, rate in zip(jobs, most_rps) if rate > self.max_rps
        ]
        passes = f"the paper's router, one server per job, handles {self.max_rps:.0f} requests/s; more arrive in the"
        return (
            f"{passes} busiest minute of {', '.join(over)}, and more replicas do not help"
            if over
            else ""
        )


PAPER = ServingModel()


class SimulatedCluster(Cluster):
    """A simulated cluster that serves a workload. The function `simulate` explains the arguments.

    `initial` (jobs,) are replicas that serve from the start, without a cold start. `lifetimes` tell
    when jobs exist.
    """

    def __init__(
        self,
        workload: Workload,
        draws: Draws,
        capacity: float,
        initial: np.ndarray,
        serving_model: ServingModel = PAPER,
        *,
        capacity_steps: tuple[CapacityStep, ...] = (),
        lifetimes: tuple[Lifetime, ...] = (),
    ):
        self._target = np.array(initial, np.int64)
        check_initial(workload.jobs, self._target, capacity)
        self.workload, self.now_s = workload, 0.0
        self._capacity_steps, self._lifetimes = list(capacity_steps), lifetimes
        model, jobs = serving_model, arrays_of(workload.jobs)
        seconds = 1 + int(workload.minutes * MINUTE_S)
        limits = np.array([model.limit_of(job) for job in workload.jobs])
        self._serving = Serving(
            workload.jobs, draws, seconds, model.dispatch, model.queue_limit, limits
        )
        add, remove = self._serving.add_replica, self._serving.remove_replica
        self._pods = Pods(
            jobs.cores, jobs.cold_start_s, capacity, add, remove, model.idle_s, model.retry_s
        )
        for job, replicas in enumerate(self._target):
            self._pods.set_running(job, int(replicas))
        self._set_drop(np.zeros(len(workload.jobs)))
        self.minute_edges = minute_edges(draws.arrival_s, draws.first, workload.minutes)
        self._tail_minute, self._tail_latency_s = -1, np.full(len(workload.jobs), np.nan)

    @property
    def latency_s(self) -> np.ndarray:
        """Latency of every request in seconds (requests,), inf if dropped; complete only after `finish`."""
        return self._serving.requests.latency_s

    @property
    def present(self) -> np.ndarray | None:
        """Whether each job exists now, bool (jobs,); None if every job always exists."""
        if not self._lifetimes:
            return None
        present = np.ones(len(self._target), bool)
        present[[job for job, *_ in self._lifetimes]] = False
        for job, from_s, until_s in self._lifetimes:  # a job may have several lifetimes
            present[job] |= from_s <= self.now_s < until_s
        return present

    def observe(self) -> Observation:
        minute = min(int(self.now_s // MINUTE_S), self.workload.minutes)
        window = slice(max(0, int(self.now_s - LATENCY_WINDOW_S)), int(self.now_s))
        station, pods = self._serving.station, self._pods.jobs
        finished = station.finished[:, window].sum(axis=1)
        running = np.array([p.running for p in pods])
        history = self.minute_edges[:, max(0, minute - HISTORY_MINUTES) : minute + 1]
        return Observation(
            now_s=self.now_s,
            capacity=self._pods.capacity,
            minute=minute,
            arrivals_per_min=np.diff(history, axis=1).astype(float),
            mean_latency_s=station.finished_latency_s[:, window].sum(axis=1)
            / np.maximum(finished, 1),
            tail_latency_s=self.tail_latency_of(minute - 1),
            ongoing=station.waiting_count + (station.held >= 0) + station.inside.sum(axis=1),
            running=running,
            starting=self._target - running,
            target=self._target.copy(),
            terminating=np.array([len(p.idle_since_s) for p in pods]),
            changing=np.array([self._pods.changing(job, self.now_s) for job in range(len(pods))]),
            drop=station.drop.copy(),
            arrivals_now=station.next_arrival - self.minute_edges[:, minute],
            present=self.present,
        )

    def apply(self, target: np.ndarray, drop: np.ndarray) -> None:
        for job in np.flatnonzero(target < self._target):
            self._pods.shrink(int(job), int(self._target[job] - target[job]), self.now_s)
        for job in np.flatnonzero(target > self._target):
            self._pods.grow(int(job), int(target[job] - self._target[job]), self.now_s)
        self._target[:] = target
        self._set_drop(drop)

    def advance(self, until_s: float) -> None:
        while self._capacity_steps and self._capacity_steps[0][0] <= until_s:
            at_s, capacity = self._capacity_steps.pop(0)
            self._pods.advance(at_s)
            self._pods.capacity = capacity
        self._pods.advance(until_s)
        self._serving.advance(until_s)
        self.now_s = until_s

    def finish(self) -> None:
        """Run until every request has ended."""
        self._drop_all(self._target == 0)  # without replicas, requests would wait forever
        while self._serving.any_inside:
            self.advance(self.now_s + DRAIN_STEP_S)

    def _set_drop(self, drop: np.ndarray) -> None:
        """Set the drop rates (jobs,); a job that is outside its lifetime and has no replicas drops all its requests."""
        self._serving.station.drop[:] = drop
        if self.present is not None:
            self._drop_all(~self.present & (self._target == 0))

    def _drop_all(self, where: np.ndarray) -> None:
        for job in np.flatnonzero(where):
            self._serving.station.drop[job] = 1.0
            self._serving.drop_waiting(int(job), self.now_s)

    def tail_latency_of(self, minute: int) -> np.ndarray:
        """Latency quantile (jobs,) in seconds of each job's requests that arrived in `minute`; NaN without requests.

        A request that has not ended counts with the time since its arrival, or not at all if the
        SLO is per token.
        """
        if minute != self._tail_minute:
            requests, quantile = self._serving.requests, arrays_of(self.workload.jobs).quantile
            for job, (a, b) in enumerate(self.minute_edges[:, minute : minute + 2]):
                latency_s = requests.latency_s[a:b]
                spent_s = np.where(latency_s > 0, latency_s, self.now_s - requests.arrival_s[a:b])
                if getattr(self.workload.jobs[job].replica, "slo_on", "") == "per_token":
                    spent_s = latency_s[latency_s > 0]
                self._tail_latency_s[job] = quantile_of(spent_s, quantile[job])
            self._tail_minute = minute
        return self._tail_latency_s.copy()
