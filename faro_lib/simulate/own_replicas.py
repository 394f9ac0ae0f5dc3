"""Replicas of jobs that share none: those of a job are all alike."""

from collections.abc import Sequence

import numpy as np

from faro_lib.simulate import events, replicas
from faro_lib.simulate.draws import Draws
from faro_lib.workload import Job

DISPATCH = {
    "round-robin": events.ROUTER,
    "least-outstanding": events.LEAST_OUTSTANDING,
    "random": events.RANDOM,
}
SLOTS = 4  # initial number of slots per job, each for one replica; doubled when needed


class OwnReplicas:
    """Requests and replicas of jobs. Replicas come and go between calls of the event loop.

    `places` (jobs,) is the max_ongoing_requests of each job's replicas. Ends of requests are
    counted in each of the first `seconds` seconds.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        draws: Draws,
        seconds: int,
        dispatch: str,
        queue_limit: int,
        places: np.ndarray,
    ):
        self.requests = events.Requests(
            first=draws.first,
            arrival_s=draws.arrival_s,
            router_in_s=draws.router_in_s,
            service_s=draws.service_s,
            router_out_s=draws.router_out_s,
            coin=draws.coin,
            latency_s=np.empty(len(draws.arrival_s)),
            elsewhere_s=draws.elsewhere_s,
        )
        # The queue holds one request more than the limit: a request that finds exactly
        # `queue_limit` waiting is not dropped. In front of a pool, a batch waits beside it.
        longest = queue_limit + max(job.replica.max_in_service for job in jobs)
        self.station = events.new_station(SLOTS, longest, places, seconds, draws.first)
        self.kinds = replicas.new_kinds(
            jobs, SLOTS, places, draws.prompt_tokens, draws.output_tokens
        )
        self.active: list[list[int]] = [[] for _ in jobs]  # slots, oldest replica first
        self._dispatch = (DISPATCH[dispatch], queue_limit)
        self._shufflers = [draws.shuffler(job) for job in range(len(jobs))]

    def advance(self, first: int, end: int, until_s: float) -> None:
        """Process the events of the jobs `first` to `end` - 1 up to `until_s`."""
        rules = self._dispatch
        events.advance_jobs(first, end, until_s, *rules, self.requests, self.station, self.kinds)

    @property
    def ongoing(self) -> np.ndarray:
        """Requests of each job that wait for a replica, or are in one, (jobs,)."""
        station = self.station
        return station.waiting_count + (station.held >= 0) + station.inside.sum(axis=1)

    def start(self, job: int, count: int) -> None:
        """Give a job its first replicas before any request has arrived."""
        self._widen(count)
        self.active[job] = list(range(count))
        self._reorder(job)

    def add_replica(self, job: int, now_s: float) -> None:
        """Add a replica in an empty slot."""
        self.advance(job, job + 1, now_s)
        taken = self.station.inside[job] > 0
        taken[self.active[job]] = True
        slot = len(taken) if taken.all() else int(np.argmin(taken))
        self._widen(slot + 1)
        self.active[job].append(slot)
        self._reorder(job)
        self._hand_over(job, slot, now_s)

    def remove_replica(self, job: int, now_s: float) -> None:
        """Remove the newest replica; it still serves the requests that it holds."""
        self.advance(job, job + 1, now_s)
        self.active[job].pop()
        self._reorder(job)

    def drop_waiting(self, job: int, now_s: float) -> None:
        """Drop all requests that wait for a replica."""
        station, dropped = self.station, self.take_waiting(job)
        self.requests.latency_s[dropped] = np.inf
        second = int(now_s)
        if second < station.finished.shape[1]:
            spent_s = now_s - self.requests.arrival_s[dropped]
            station.finished[job, second] += len(dropped)
            station.finished_latency_s[job, second] += spent_s.sum()

    def take_waiting(self, job: int) -> np.ndarray:
        """Take away all requests that wait for a replica, and return them."""
        station = self.station
        position = station.waiting_head[job] + np.arange(station.waiting_count[job])
        waiting = station.waiting[job, position % station.waiting.shape[1]]
        held = station.held[job : job + 1]
        taken = np.concatenate([waiting, held[held >= 0]])
        station.waiting_count[job] = 0
        station.held[job] = events.NONE
        return taken

    def _widen(self, slots: int) -> None:
        """Double the slots per job until there are at least this many."""
        width = self.station.inside.shape[1]
        while width < slots:
            width *= 2
            self.station = events.with_slots(self.station, width, events.EMPTY_SLOT)
            if self.kinds is not None:
                self.kinds = events.with_slots(self.kinds, width, replicas.EMPTY_SLOT)

    def _hand_over(self, job: int, slot: int, now_s: float) -> None:
        """Give the held request to the new replica if all slots are empty.

        No completion would then dispatch it.
        """
        station, request = self.station, self.station.held[job]
        if request == events.NONE or station.inside[job].any():
            return
        service_s = self.requests.service_s
        if self.kinds is None or self.kinds.kind[job] == replicas.SERIAL:
            completes_s = now_s + service_s[request]
            head = station.ring_head[job, slot]
            station.ring[job, slot, head] = request
            station.ring_done_s[job, slot, head] = completes_s
            station.next_done_s[job, slot] = completes_s
            station.last_done_s[job, slot] = completes_s
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

    def _reorder(self, job: int) -> None:
        """Dispatch in a new random order, after the job's active slots have changed."""
        active = self.active[job]
        shuffled = np.take(active, self._shufflers[job].permutation(len(active)))
        self.station.order[job, : len(active)] = shuffled
        self.station.active[job] = len(active)
        self.station.turn[job] = 0
