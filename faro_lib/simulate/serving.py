"""Requests and replicas of the simulated cluster. Replicas are added and removed between calls of the event loop."""

from collections.abc import Sequence

import numpy as np

from faro_lib.simulate import events, replicas
from faro_lib.simulate.draws import Draws
from faro_lib.workload import Job

DISPATCH = {"round-robin": events.ROUTER, "least-outstanding": events.LEAST_OUTSTANDING}
SLOTS = 4  # initial number of slots per job, each for one replica; doubled when needed


class Serving:
    """Requests and replicas of all jobs. `places` (jobs,) has the max_ongoing_requests of each job's replicas."""

    def __init__(
        self,
        jobs: Sequence[Job],
        draws: Draws,
        seconds: int,
        dispatch: str,
        queue_limit: int,
        places: np.ndarray,
    ):
        columns = (
            draws.first,
            draws.arrival_s,
            draws.router_in_s,
            draws.service_s,
            draws.router_out_s,
            draws.coin,
        )
        self.requests = events.Requests(*columns, np.empty(len(draws.arrival_s)))
        # The queue holds one request more than the limit: a request that finds exactly
        # `queue_limit` waiting is not dropped.
        self.station = events.new_station(SLOTS, queue_limit + 1, places, seconds, draws.first)
        self.kinds = replicas.new_kinds(
            jobs, SLOTS, places, draws.prompt_tokens, draws.output_tokens
        )
        self._dispatch = (DISPATCH[dispatch], queue_limit)
        self._shufflers = [draws.shuffler(job) for job in range(len(jobs))]
        self._active: list[list[int]] = [[] for _ in jobs]  # slots, oldest replica first

    def advance(self, until_s: float, job: int | None = None) -> None:
        """Process the events of all jobs, or of `job` only, up to `until_s`."""
        jobs = (0, len(self._active)) if job is None else (job, job + 1)
        events.advance_jobs(
            *jobs, until_s, *self._dispatch, self.requests, self.station, self.kinds
        )

    @property
    def any_inside(self) -> bool:
        """Whether any request of the trial has not ended."""
        station = self.station
        outside = (
            (station.head == self.requests.first[1:])
            & (station.held < 0)
            & (station.inside.sum(axis=1) == 0)
        )
        return not outside.all()

    def add_replica(self, job: int, now_s: float) -> None:
        """Add a replica in an empty slot."""
        self.advance(now_s, job)
        slots = self.station.inside.shape[1]
        empty = [
            s
            for s in range(slots)
            if s not in self._active[job] and self.station.inside[job, s] == 0
        ]
        if not empty:
            empty = [slots]
            self.station = events.with_slots(self.station, slots * 2)
            self.kinds = self.kinds and events.with_slots(self.kinds, slots * 2)
        self._active[job].append(empty[0])
        self._reorder(job)
        self._hand_over(job, empty[0], now_s)

    def start(self, job: int, count: int) -> None:
        """Give a job its first replicas before any request has arrived. This is faster than repeated `add_replica`."""
        while (slots := self.station.inside.shape[1]) < count:
            self.station = events.with_slots(self.station, slots * 2)
            self.kinds = self.kinds and events.with_slots(self.kinds, slots * 2)
        self._active[job] = list(range(count))
        self._reorder(job)

    def remove_replica(self, job: int, now_s: float) -> None:
        """Remove the newest replica; it still serves the requests that it holds."""
        self.advance(now_s, job)
        self._active[job].pop()
        self._reorder(job)

    def drop_waiting(self, job: int, now_s: float) -> None:
        """Drop all requests that wait for a replica."""
        station = self.station
        ring = (
            station.waiting_head[job] + np.arange(station.waiting_count[job])
        ) % station.waiting.shape[1]
        held = station.held[job : job + 1]
        dropped = np.concatenate([station.waiting[job, ring], held[held >= 0]])
        self.requests.latency_s[dropped] = np.inf
        second = int(now_s)
        if second < station.finished.shape[1]:
            station.finished[job, second] += len(dropped)
            station.finished_latency_s[job, second] += (
                now_s - self.requests.arrival_s[dropped]
            ).sum()
        station.waiting_count[job], station.held[job] = 0, events.NONE

    def _hand_over(self, job, slot, now_s):
        """Give the held request to the new replica if all slots are empty, because no completion would dispatch it."""
        station, request = self.station, self.station.held[job]
        if request == events.NONE or station.inside[job].any():
            return
        service_s = self.requests.service_s
        if self.kinds is None or self.kinds.kind[job] == replicas.SERIAL:
            completes_s = now_s + service_s[request]
            station.ring[job, slot, station.ring_head[job, slot]] = request
            station.ring_done_s[job, slot, station.ring_head[job, slot]] = completes_s
            station.next_done_s[job, slot] = station.last_done_s[job, slot] = completes_s
        else:
            station.next_done_s[job, slot] = replicas.enter(
                self.kinds, job, slot, request, 0, np.inf, now_s, service_s
            )
        station.inside[job, slot] = 1
        station.held[job] = events.NONE
        if station.waiting_count[job]:
            head = station.waiting_head[job]
            station.held[job] = station.waiting[job, head]
            station.waiting_head[job] = (head + 1) % station.waiting.shape[1]
            station.waiting_count[job] -= 1

    def _reorder(self, job):
        active = self._active[job]
        self.station.order[job, : len(active)] = np.take(
            active, self._shufflers[job].permutation(len(active))
        )
        self.station.active[job] = len(active)
        self.station.turn[job] = 0
