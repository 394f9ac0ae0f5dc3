"""Requests and replicas of the simulated cluster: each kind of replica has a class that serves it.

Jobs that share no replicas have `OwnReplicas`, or `RoleReplicas` of kind `disaggregated`. The jobs
of a pool have `SharedReplicas`.
"""

from collections.abc import Sequence

import numpy as np

from faro_lib.simulate.draws import Draws
from faro_lib.simulate.events import Requests, Station
from faro_lib.simulate.own_replicas import OwnReplicas
from faro_lib.simulate.pools import LATE_BINDING, PoolRouter, SharedReplicas
from faro_lib.simulate.replicas import Kinds
from faro_lib.simulate.roles import RoleReplicas, without_prefill, without_roles
from faro_lib.workload import Job
from faro_lib.workload.pools import Pool
from faro_lib.workload.replicas import Disaggregated


class Serving:
    """Requests and replicas of all jobs. Replicas come and go between calls of the event loops.

    Replicas belong to units: a job alone, or a pool, whose replicas are in `shared` by its name.
    Without `units`, every job is alone. `own` has the requests of all jobs, those of pools and of
    `roles` (by job) too. The other arguments are those of `OwnReplicas`.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        draws: Draws,
        seconds: int,
        dispatch: str,
        queue_limit: int,
        places: np.ndarray,
        units: Sequence[Pool] = (),
        pool_router: PoolRouter = LATE_BINDING,
    ):
        self._units = units
        rules = seconds, dispatch, queue_limit, places
        self.own = OwnReplicas([without_roles(job) for job in jobs], draws, *rules)
        self.shared = {
            pool.name: pool_router.replicas(pool, jobs, self.requests, self.station, queue_limit)
            for pool in units
            if pool.shared
        }
        self.roles = {
            n: RoleReplicas(n, job, draws, self.own, dispatch, queue_limit)
            for n, job in enumerate(jobs)
            if isinstance(job.replica, Disaggregated)
        }
        pooled = [job for shared in self.shared.values() for job in shared.pool.jobs]
        # The (first, end) of jobs whose replicas are in `own`.
        edges = [-1, *sorted([*pooled, *self.roles]), len(jobs)]
        self._with_own = [(a + 1, b) for a, b in zip(edges, edges[1:]) if a + 1 < b]

    @property
    def requests(self) -> Requests:
        return self.own.requests

    @property
    def station(self) -> Station:
        return self.own.station

    @property
    def kinds(self) -> Kinds | None:
        return self.own.kinds

    def advance(self, until_s: float) -> None:
        """Process the events of all jobs up to `until_s`."""
        for first, end in self._with_own:
            self.own.advance(first, end, until_s)
        for shared in self.shared.values():
            shared.advance(until_s)
        for roles in self.roles.values():
            roles.advance(until_s)

    @property
    def ongoing(self) -> np.ndarray:
        """Requests of each job that have arrived at its replicas and have not ended, (jobs,)."""
        ongoing = self.own.ongoing
        for shared in self.shared.values():
            ongoing[list(shared.pool.jobs)] += shared.state.in_replicas
        for job, roles in self.roles.items():
            ongoing[job] = roles.ongoing
        return ongoing

    @property
    def any_inside(self) -> bool:
        """Whether any request of the trial has not ended."""
        passed_router = self.station.head == self.requests.first[1:]
        return bool((~passed_router).any() or self.ongoing.any())

    def start(self, job: int, count: int) -> None:
        """Give a job its first replicas before any request has arrived."""
        if job in self.roles:
            self.roles[job].start(count)
        else:
            self.own.start(job, count)

    def add_replica(self, unit: int, now_s: float) -> None:
        """Add a replica to a job alone, or to a pool."""
        if others := self._others(unit):
            others.add_replica(now_s)
        else:
            self.own.add_replica(self._units[unit].jobs[0], now_s)

    def remove_replica(self, unit: int, now_s: float) -> None:
        """Remove the newest replica; it still serves the requests that are in service."""
        if others := self._others(unit):
            others.remove_replica(now_s)
        else:
            self.own.remove_replica(self._units[unit].jobs[0], now_s)

    def drop_waiting(self, job: int, now_s: float) -> None:
        """Drop all requests of a job that wait for a replica."""
        if job in self.roles:
            self.roles[job].drop_waiting(now_s)
        else:
            self.own.drop_waiting(job, now_s)

    def _others(self, unit: int) -> SharedReplicas | RoleReplicas | None:
        """The replicas of a unit; None if they are in `own`."""
        of_unit = self._units[unit]
        return self.shared[of_unit.name] if of_unit.shared else self.roles.get(of_unit.jobs[0])


def constant_latencies(
    jobs: Sequence[Job],
    draws: Draws,
    replicas: Sequence[int] | np.ndarray,
    dispatch: str,
    queue_limit: int,
    places: np.ndarray,
) -> np.ndarray:
    """Latency of every request in s (requests,) if job j always has replicas[j] replicas.

    It is inf for a dropped request. The other arguments are those of `Serving`.
    """
    counts = [int(count) for count in replicas]
    # A number of replicas without roles has the event loop of the kind `continuous`.
    served = [
        without_roles(job) if without_prefill(job, count) else job
        for job, count in zip(jobs, counts)
    ]
    serving = Serving(served, draws, 1, dispatch, queue_limit, places)
    for job, count in enumerate(counts):
        serving.start(job, count)
    serving.advance(np.finfo(float).max)
    return serving.requests.latency_s
