"""The simulated cluster: requests, replicas and pods behind the `Cluster` protocol."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from faro_lib.policies.protocol import HISTORY_MINUTES, Observation, at_least_one_each
from faro_lib.simulate.draws import ROUTER, Draws
from faro_lib.simulate.latencies import percentiles_so_far
from faro_lib.simulate.pods import IDLE_S, RETRY_S, Pods
from faro_lib.simulate.serving import DISPATCH, Serving
from faro_lib.workload import Workload
from faro_lib.workload.jobs import MINUTE_S, jobs_array
from faro_lib.workload.service import ServiceTime

WINDOW_S = 30  # of the mean latency that policies see
DRAIN_STEP_S = 10.0  # between two looks whether the last request has ended


@dataclass(frozen=True, slots=True)
class ServingModel:
    """How the simulated cluster serves.

    dispatch : "round-robin" (the paper's: one queue a job, round-robin) or "least-outstanding" (a queue a replica, as behind a
        least-connections proxy).
    queue_limit : a request that finds more than this many waiting is refused ("round-robin").
    max_ongoing_requests : requests that a replica may hold, the one in service included.
    idle_s : how long the pod of a removed replica is kept; until then no other job can have its place.
    retry_s : a replica that found no place tries again after this.
    """

    dispatch: str = "round-robin"
    queue_limit: int = 50
    max_ongoing_requests: int = 4
    idle_s: float = IDLE_S
    retry_s: float = RETRY_S

    def __post_init__(self):
        if self.dispatch not in DISPATCH:
            raise ValueError(f"dispatch={self.dispatch!r} is unknown; accepted: {', '.join(DISPATCH)}")
        for field, least in (("queue_limit", 0), ("max_ongoing_requests", 1)):
            value = getattr(self, field)
            if value != int(value) or value < least:
                raise ValueError(f"{field}={value!r} must be a whole number >= {least}")
        if not self.idle_s >= 0:
            raise ValueError(f"idle_s={self.idle_s!r} must be a number >= 0")
        if not self.retry_s > 0:
            raise ValueError(f"retry_s={self.retry_s!r} must be a number > 0")

    @property
    def router(self) -> ServiceTime | None:
        """Service time of one pass through the router, None where this dispatch has none; `draw` wants to know."""
        return ROUTER if self.dispatch == "round-robin" else None


PAPER = ServingModel()


class SimulatedCluster:
    """A cluster that serves a workload in simulated time.

    Parameters
    ----------
    workload, draws : what is asked, and the chance of the trial (`draws.draw(workload, seed)`).
    capacity : cores.
    initial : replicas (jobs,) that serve from the beginning.
    capacity_steps : (instant, cores) pairs: from then on the cluster has that many cores.
    lifetimes : (job index, from, until) triples in seconds: the job is there only in between, the others always. What is
        asked of a job while it has no replicas because it is not there is dropped.
    """

    def __init__(
        self,
        workload: Workload,
        draws: Draws,
        capacity: float,
        initial: np.ndarray,
        serving_model: ServingModel = PAPER,
        *,
        capacity_steps: tuple[tuple[float, float], ...] = (),
        lifetimes: tuple[tuple[int, float, float], ...] = (),
    ):
        at_least_one_each(workload.jobs, capacity)
        self.workload = workload
        self.now_s = 0.0
        self._capacity_steps = capacity_steps
        self._lifetimes = lifetimes
        jobs, seconds = len(workload.jobs), int(workload.minutes * MINUTE_S)
        self._serving = Serving(
            draws, seconds + 1, serving_model.dispatch, serving_model.queue_limit, serving_model.max_ongoing_requests
        )
        self._percentile = jobs_array(workload.jobs, "quantile")
        self._tail_minute, self._tail_latency_s = -1, np.full(jobs, np.nan)
        cold_start_s, cores = jobs_array(workload.jobs, "cold_start_s"), jobs_array(workload.jobs, "cores")
        told = self._serving.add_replica, self._serving.remove_replica
        self._pods = Pods(cores, cold_start_s, capacity, *told, serving_model.idle_s, serving_model.retry_s)
        self._target = np.array(initial, np.int64)
        for job, replicas in enumerate(self._target):
            self._pods.set_running(job, int(replicas))
        self._close_doors(np.zeros(jobs))
        # Requests are counted by their own arrival; the last bin holds what overran the last minute.
        edges = MINUTE_S * np.arange(workload.minutes + 2)
        edges[-1] = np.inf
        blocks = zip(draws.first[:-1], draws.first[1:])
        self._edges = np.array([a + np.searchsorted(draws.arrival_s[a:b], edges) for a, b in blocks])

    @property
    def latency_s(self) -> np.ndarray:
        """(requests,) latency of every request; inf = dropped. Complete once `finish` was called."""
        return self._serving.requests.latency_s

    @property
    def minute_edges(self) -> np.ndarray:
        """(jobs, minutes + 2): request indices at which the arrivals of each minute begin; the last bin is the overrun."""
        return self._edges

    @property
    def present(self) -> np.ndarray | None:
        """bool (jobs,), which jobs are there now; None where all always are."""
        if not self._lifetimes:
            return None
        present = np.ones(len(self._target), bool)
        for job, from_s, until_s in self._lifetimes:
            present[job] = from_s <= self.now_s < until_s
        return present

    def observe(self) -> Observation:
        minute = min(int(self.now_s // MINUTE_S), self.workload.minutes)
        window = slice(max(0, int(self.now_s) - WINDOW_S), int(self.now_s))
        station = self._serving.station
        ended = station.finished[:, window].sum(axis=1)
        spent_s = station.finished_latency_s[:, window].sum(axis=1)
        counts = np.diff(self._edges[:, max(0, minute - HISTORY_MINUTES) : minute + 1], axis=1).astype(float)
        pods = self._pods.jobs
        return Observation(
            now_s=self.now_s,
            capacity=self._pods.capacity,
            minute=minute,
            arrivals_per_min=counts,
            mean_latency_s=spent_s / np.maximum(ended, 1),
            tail_latency_s=self._percentile_of(minute - 1),
            ongoing=station.waiting_count + (station.held >= 0) + station.inside.sum(axis=1),
            running=np.array([p.running for p in pods]),
            starting=self._target - [p.running for p in pods],
            target=self._target.copy(),
            terminating=np.array([len(p.idle_since_s) for p in pods]),
            changing=np.array([self._pods.changing(job, self.now_s) for job in range(len(pods))]),
            drop=station.drop.copy(),
            arrivals_now=station.next_arrival - self._edges[:, minute],
            present=self.present,
        )

    def apply(self, target, drop):
        for job in np.flatnonzero(target < self._target):
            self._pods.shrink(job, int(self._target[job] - target[job]), self.now_s)
        for job in np.flatnonzero(target > self._target):
            self._pods.grow(job, int(target[job] - self._target[job]), self.now_s)
        self._target[:] = target
        self._close_doors(drop)

    def _close_doors(self, drop):
        """The drop rates asked for; who is not there, and has no replicas any more, refuses all, those that wait included."""
        door, present = self._serving.station.drop, self.present
        door[:] = drop
        if present is not None:
            for job in np.flatnonzero(~present & (self._target == 0)):
                door[job] = 1.0
                self._serving.refuse_waiting(int(job), self.now_s)

    def advance(self, until_s):
        while self._capacity_steps and self._capacity_steps[0][0] <= until_s:
            (at_s, capacity), *later = self._capacity_steps
            self._capacity_steps = tuple(later)
            self._pods.advance(at_s)
            self._pods.capacity = capacity
        self._pods.advance(until_s)
        self._serving.advance(until_s)
        self.now_s = until_s

    def finish(self) -> None:
        """Let every request inside reach its end; pods that are on their way still come, as the run goes on until then."""
        for job in np.flatnonzero(self._target == 0):  # nobody would ever serve these
            self._serving.station.drop[job] = 1.0
            self._serving.refuse_waiting(int(job), self.now_s)
        while self._serving.any_inside:
            self.advance(self.now_s + DRAIN_STEP_S)

    def _percentile_of(self, minute: int) -> np.ndarray:
        """Of the arrivals in that minute, as known when it ended; NaN before the first."""
        if minute != self._tail_minute:
            edges = self._edges[:, minute : minute + 2]
            arrival_s, latency_s = self._serving.requests.arrival_s, self._serving.requests.latency_s
            self._tail_latency_s = percentiles_so_far(self.now_s, arrival_s, latency_s, edges, self._percentile)[:, 0]
            self._tail_minute = minute
        return self._tail_latency_s
