"""Replicas of a pool with queues of their own, and the two routers that send requests to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from faro_lib.simulate import events
from faro_lib.simulate.events import Requests, Station
from faro_lib.simulate.pools import PoolRouter, SharedReplicas
from faro_lib.workload import Job
from faro_lib.workload.pools import Pool
from faro_lib.workload.replicas import SERIAL
from studies.sharing.routers import queue_events

NONE_MOVED = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class EarlyBinding(PoolRouter):
    """A request joins the replica with the fewest requests among those that hold its model.

    A replica serves the earliest deadline in its queue.
    """

    counts_age_s: float = 0.5  # seconds between two counts of the requests in replicas
    # Number of gateways. Requests go to them in turn, and each knows only what it has sent itself.
    gateways: int = 1
    name: ClassVar[str] = "early"

    def __post_init__(self) -> None:
        if not 0 <= self.counts_age_s < np.inf:
            raise ValueError(f"counts_age_s={self.counts_age_s!r} must be a finite number >= 0")
        if self.gateways != int(self.gateways) or self.gateways < 1:
            raise ValueError(f"gateways={self.gateways!r} must be a whole number >= 1")

    def replicas(self, *trial) -> SharedReplicas:
        return QueuedReplicas(*trial, router=self)


@dataclass(frozen=True, slots=True)
class LeastRecentlyUsed(EarlyBinding):
    """A request joins a replica that holds its model and has room, or else any replica.

    Of these, it joins the one with the fewest requests. A replica has room if it has fewer than
    max_ongoing_requests. It loads a missing model before it serves the request, and drops those
    that it has used least recently. It serves its queue in order.
    """

    name: ClassVar[str] = "lru"

    def replicas(self, *trial) -> SharedReplicas:
        return LoadingReplicas(*trial, router=self)


class QueuedReplicas(SharedReplicas):
    """Replicas of one pool, each with a queue of its own."""

    loads_on_demand = False

    def __init__(
        self,
        pool: Pool,
        jobs: Sequence[Job],
        requests: Requests,
        station: Station,
        queue_limit: int,
        *,
        router: EarlyBinding,
    ):
        super().__init__(pool, jobs, requests, station, queue_limit)
        replica = jobs[pool.jobs[0]].replica
        if replica != SERIAL:
            raise ValueError(
                f"pool {pool.name!r}: its replicas are {replica}, which only binding late can serve"
            )
        slots, size = len(self.state.home), len(pool.jobs)
        self.queues = queue_events.new_queues(slots, size, queue_limit, int(router.gateways))
        self._rules = queue_events.Rules(
            loads_on_demand=self.loads_on_demand,
            queue_limit=queue_limit,
            counts_age_s=float(router.counts_age_s),
            load_s=np.array(pool.load_s),
            memory_of=np.array(pool.memory_of),
            memory_gib=pool.memory_gib,
            models=pool.models,
        )

    def _widen(self, slots: int) -> None:
        super()._widen(slots)
        queues = events.with_slots(self.queues, slots, queue_events.EMPTY_SLOT, axis=0)
        self.queues = events.with_slots(queues, slots, {"sent": 0})

    def _begin(self, slot: int, now_s: float) -> None:
        self.queues.used_s[slot] = now_s
        # It has no requests. What the gateways count must not be that of an earlier replica.
        self.queues.counted[slot] = 0
        self.queues.sent[:, slot] = 0
        self._reorder()

    def _end(self, slot: int, now_s: float) -> None:
        self._reorder()
        self._move_requests(slot, events.NONE, now_s)

    def _reorder(self) -> None:
        """Tell the event loop which slots are active."""
        queues = self.queues
        queues.order[: len(self._active)] = self._active
        queues.active[0] = len(self._active)
        queues.turn[0] = 0

    def _drop_model(self, slot: int, model: int, now_s: float) -> None:
        super()._drop_model(slot, model, now_s)
        self._move_requests(slot, model, now_s)

    def _move_requests(self, slot: int, model: int, now_s: float) -> None:
        """Send the requests in the replica's queue, of one job or of all, to other replicas."""
        moved = np.empty(self.queues.inside[slot], np.int64)
        positions = np.empty_like(moved)
        count = queue_events.take_out(self.state, self.queues, slot, model, moved, positions)
        if count:
            self._route(now_s, moved[:count], positions[:count])

    def _run(self, until_s: float, changed: bool = False) -> None:
        self._route(until_s, NONE_MOVED, NONE_MOVED)

    def _route(self, until_s: float, moved: np.ndarray, of: np.ndarray) -> None:
        """Run the event loop up to `until_s`, where requests `moved`, `of` jobs, are routed."""
        trial = self._members, self._requests, self._station, self.state, self.queues
        queue_events.advance_queues(until_s, moved, of, self._rules, *trial)

    def _serve_waiting(self, now_s: float) -> None:
        """Send requests that waited for any replica.

        The first requests of the jobs' queues go in the order of their deadlines.
        """
        can = self.holds.any(axis=0) | self.loads_on_demand
        moved, of = [], []
        while self._active:
            deadline_s = np.where(can, self._urgent_s(), np.inf)
            if deadline_s.min() == np.inf:
                break
            of.append(int(deadline_s.argmin()))
            moved.append(self._pop_waiting(of[-1]))
        self._route(now_s, np.array(moved, np.int64), np.array(of, np.int64))

    def _urgent_s(self) -> np.ndarray:
        """Deadline of each job's first waiting request, inf if none waits, (jobs of the pool,)."""
        station, jobs = self._station, self._members.jobs
        waits = station.waiting_count[jobs] > 0
        first = station.waiting[jobs, station.waiting_head[jobs]][waits]
        deadline_s = np.full(len(jobs), np.inf)
        deadline_s[waits] = self._requests.arrival_s[first] + self._members.slo_s[waits]
        return deadline_s

    def _pop_waiting(self, position: int) -> int:
        """Take the first waiting request of a job out of its queue."""
        station, job = self._station, self._members.jobs[position]
        head = station.waiting_head[job]
        station.waiting_head[job] = (head + 1) % station.waiting.shape[1]
        station.waiting_count[job] -= 1
        return int(station.waiting[job, head])


class LoadingReplicas(QueuedReplicas):
    """Replicas that load a model when a request needs it, whatever the placement asks for."""

    loads_on_demand = True

    @property
    def served(self) -> np.ndarray:
        return np.full(len(self.pool.jobs), len(self.wish.home) > 0)

    def _change_models(self, n: int, slot: int, now_s: float) -> None:
        """Do nothing: the event loop loads models and drops them."""
