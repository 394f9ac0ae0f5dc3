"""The replicas of a pool in the simulator: which models they hold, and how they change.

A pool has a wished `Placement`, whose rows the serving replicas follow (`workload.residency`). A
new replica begins with the models of its row, as its cold start includes them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from faro_lib.simulate import events, pool_events, replicas
from faro_lib.simulate.events import Requests, Station
from faro_lib.workload import Job
from faro_lib.workload.pools import Placement, Pool, chained
from faro_lib.workload.residency import next_change, rows_to_follow

POOL_SLOTS = 8  # initial number of slots per pool, each for one replica; doubled when needed


@dataclass(frozen=True, slots=True)
class PoolRouter:
    """How the requests of a pool reach its replicas: by default, they bind late.

    A request then waits until a replica that holds its model is free (`pool_events`).
    """

    name: ClassVar[str] = "late"

    def replicas(
        self,
        pool: Pool,
        jobs: Sequence[Job],
        requests: Requests,
        station: Station,
        queue_limit: int,
    ) -> "SharedReplicas":
        """The replicas of a pool, none at first."""
        return SharedReplicas(pool, jobs, requests, station, queue_limit)


LATE_BINDING = PoolRouter()


def check_placement(pool: Pool, placement: Placement) -> None:
    """Raise ValueError if it is of another pool, or a replica cannot hold its models."""
    jobs, width = len(pool.jobs), placement.resident.shape[1]
    if width != jobs:
        raise ValueError(f"placement of pool {pool.name!r} has {width} jobs; the pool has {jobs}")
    fits = pool.holds(placement.resident)
    if not fits.all():
        raise ValueError(
            f"placement of pool {pool.name!r}: replica {int(fits.argmin())} has more models than "
            "a replica holds"
        )


class SharedReplicas:
    """Replicas of one pool and the requests in them, which wait for a free replica.

    `wish` is the placement of all requested replicas, those that have not started included. The
    other arguments are those of `Serving`.
    """

    def __init__(
        self,
        pool: Pool,
        jobs: Sequence[Job],
        requests: Requests,
        station: Station,
        queue_limit: int,
    ):
        self.pool = pool
        self.wish = chained(pool, np.zeros(len(pool.jobs), np.int64))
        self.state = pool_events.new_pool_state(POOL_SLOTS, len(pool.jobs))
        self._requests, self._station = requests, station
        of_pool = [jobs[job] for job in pool.jobs]
        # A batch that is not full waits here, beside the queue, and not in a replica.
        wait_s = float(getattr(of_pool[0].replica, "wait_s", 0.0))
        self._queue_limit = queue_limit + getattr(of_pool[0].replica, "max_batch", 1) - 1
        in_service = np.array([job.replica.max_in_service for job in of_pool])
        no_tokens = np.empty(0)
        kinds = replicas.new_kinds(of_pool, POOL_SLOTS, in_service, no_tokens, no_tokens)
        self._kinds = kinds and kinds._replace(wait_s=0 * kinds.wait_s)
        slo_s = np.array([job.slo_s for job in of_pool])
        self._members = pool_events.Members(np.array(pool.jobs), slo_s, wait_s)
        self._active: list[int] = []  # slots, oldest replica first
        self._row: list[int] = []  # the row of `wish` that each of them follows
        self._loads: dict[int, tuple[float, int]] = {}  # slot -> (end of the load, model)

    @property
    def running(self) -> np.ndarray:
        """Serving replicas at home with each job, (jobs of the pool,)."""
        return np.bincount(self.wish.home[self._row], minlength=len(self.pool.jobs))

    @property
    def holds(self) -> np.ndarray:
        """The models in each serving replica, oldest replica first, bool (replicas, jobs)."""
        return self.state.holds[self._active]

    @property
    def served(self) -> np.ndarray:
        """Whether a replica serves each job now, or will, bool (jobs of the pool,).

        A load that waits for another replica to load first counts only while any load is running.
        """
        starting = len(self._active) < len(self.wish.home)
        if starting or self._loads:
            return np.any(self.wish.resident, axis=0)
        return np.any(self.holds, axis=0)

    def place(self, wish: Placement, now_s: float) -> None:
        """Follow another placement, of at least as many replicas as there are."""
        same_home = np.array_equal(wish.home, self.wish.home)
        if same_home and np.array_equal(wish.resident, self.wish.resident):
            return
        self.advance(now_s)
        self.wish = wish
        self._assign(now_s)
        self._settle(now_s)

    def advance(self, until_s: float) -> None:
        """Process the events of the pool's requests and replicas up to `until_s`."""
        while self._loads:
            end_s, slot = min((end_s, slot) for slot, (end_s, _) in self._loads.items())
            if end_s > until_s:
                break
            self._run(end_s)
            _, model = self._loads.pop(slot)
            self.state.holds[slot, model] = True
            self._settle(end_s)
        self._run(until_s)

    def add_replica(self, now_s: float) -> None:
        """Add a replica in an empty slot; it follows the first row that no other one follows."""
        self.advance(now_s)
        taken = self.state.done_s < np.inf
        taken[self._active] = True
        if taken.all():
            self._widen(2 * len(taken))
            taken = np.append(taken, False)
        slot = int(np.argmin(taken))
        row = min(set(range(len(self.wish.home))).difference(self._row))
        self._active.append(slot)
        self._row.append(row)
        self.state.holds[slot] = self.wish.resident[row]
        self.state.home[slot] = self.wish.home[row]
        self._begin(slot, now_s)
        self._settle(now_s)

    def remove_replica(self, now_s: float) -> None:
        """Remove the newest replica; it still completes the request in service."""
        self.advance(now_s)
        slot = self._active.pop()
        self._row.pop()
        self._loads.pop(slot, None)
        self._end(slot, now_s)

    # A router other than late binding replaces these.

    def _widen(self, slots: int) -> None:
        """Add empty slots, up to this many."""
        self.state = events.with_slots(self.state, slots, pool_events.EMPTY_SLOT, axis=0)
        if self._kinds:
            self._kinds = events.with_slots(self._kinds, slots, replicas.EMPTY_SLOT)

    def _begin(self, slot: int, now_s: float) -> None:
        """Let the new replica in this slot serve."""
        state = self.state
        state.alive[slot] = True
        state.free_since_s[slot] = now_s
        state.free[state.idle[0]] = slot
        state.idle[0] += 1

    def _end(self, slot: int, now_s: float) -> None:
        """Give the removed replica in this slot no more requests."""
        state = self.state
        state.alive[slot] = False
        free = state.free[: state.idle[0]]
        others = free[free != slot]
        state.free[: len(others)] = others
        state.idle[0] = len(others)

    def _drop_model(self, slot: int, model: int, now_s: float) -> None:
        self.state.holds[slot, model] = False

    def _serve_waiting(self, now_s: float) -> None:
        """Let free replicas take waiting requests that they can serve since they changed."""
        self._run(now_s, changed=True)

    def _run(self, until_s: float, changed: bool = False) -> None:
        """Run the event loop up to `until_s`."""
        trial = self._members, self._requests, self._station, self.state, self._kinds
        pool_events.advance_pool(until_s, changed, self._queue_limit, *trial)

    # What all routers have in common.

    def _assign(self, now_s: float) -> None:
        """Choose the rows of the placement that the replicas follow: those with the least to load.

        Of equal choices, replicas keep their home.
        """
        held = self.holds
        left_s = np.tile(np.array(self.pool.load_s), (len(held), 1))
        for n, slot in enumerate(self._active):
            if slot in self._loads:
                end_s, model = self._loads[slot]
                left_s[n, model] = end_s - now_s
        moves = self.state.home[self._active][:, None] != self.wish.home
        self._row = rows_to_follow(held, left_s, self.wish.resident, moves)[1].tolist()
        self.state.home[self._active] = self.wish.home[self._row]
        for slot, row in zip(self._active, self._row):
            if slot in self._loads and not self.wish.resident[row, self._loads[slot][1]]:
                del self._loads[slot]

    def _settle(self, now_s: float) -> None:
        """Begin the loads and drop the models that the placement asks for, as far as possible."""
        for n, slot in enumerate(self._active):
            if slot not in self._loads:
                self._change_models(n, slot, now_s)
        self._serve_waiting(now_s)

    def _change_models(self, n: int, slot: int, now_s: float) -> None:
        """Let replica n of the active ones, in this slot, drop models and begin its next load."""
        home = int(self.state.home[slot])
        change = next_change(self.pool, n, self.holds, self._row[n], home, self.wish.resident)
        for model in change.drop:
            self._drop_model(slot, model, now_s)
        if change.load is not None:
            self._loads[slot] = (now_s + self.pool.load_s[change.load], change.load)
