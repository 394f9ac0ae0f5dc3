"""The simulated `Cluster`: requests, replicas and pods in simulated time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from faro_lib.protocol import HISTORY_MINUTES, LATENCY_WINDOW_S, Observation, SharingCluster
from faro_lib.simulate.draws import ROUTER, Draws
from faro_lib.simulate.latencies import minute_edges, quantile_of
from faro_lib.simulate.own_replicas import DISPATCH
from faro_lib.simulate.pods import IDLE_S, RETRY_S, Pods
from faro_lib.simulate.pools import LATE_BINDING, PoolRouter, check_placement
from faro_lib.simulate.serving import Serving, constant_latencies
from faro_lib.workload import Job, Workload, arrays_of
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.pools import Placement, chained, pools_of
from faro_lib.workload.replicas import MAX_ONGOING_REQUESTS
from faro_lib.workload.service import ServiceTime
from faro_lib.workload.shares import check_initial

DRAIN_STEP_S = 10.0  # between two checks for unfinished requests after the last tick
CapacityStep = tuple[float, float]  # (time_s, cores)
Lifetime = tuple[int, float, float]  # (job index, start_s, end_s)


@dataclass(frozen=True, slots=True)
class ServingModel:
    """Parameters of the simulated serving system.

    `dispatch` is "round-robin" (the paper's model: a router and one queue per job),
    "least-outstanding" (a queue per replica and no router, as behind a least-connections proxy) or
    "random" (a queue per replica and no router, as behind a plain Service of Kubernetes). Without a
    router, a request that finds `max_ongoing_requests` in its replica is dropped.
    """

    dispatch: str = "round-robin"
    # With "round-robin", a request that finds more than this number waiting is dropped.
    queue_limit: int = 50
    max_ongoing_requests: int = 4  # limit on the requests in a replica, with the one in service
    idle_s: float = IDLE_S  # how long the pod of a removed replica keeps its cores
    retry_s: float = RETRY_S  # delay until a replica that found no free cores tries again
    # (job's name, max_ongoing_requests) of jobs whose limit differs.
    own_limits: tuple[tuple[str, int], ...] = ()
    pool_router: PoolRouter = LATE_BINDING  # how requests reach the replicas of a pool

    def __post_init__(self) -> None:
        if self.dispatch not in DISPATCH:
            accepted = ", ".join(DISPATCH)
            raise ValueError(f"dispatch={self.dispatch!r} is unknown; accepted: {accepted}")
        for field, minimum in (("queue_limit", 0), ("max_ongoing_requests", 1)):
            value = getattr(self, field)
            if value != int(value) or value < minimum:
                raise ValueError(f"{field}={value!r} must be a whole number >= {minimum}")
        if not self.idle_s >= 0:
            raise ValueError(f"idle_s={self.idle_s!r} must be a number >= 0")
        if not self.retry_s > 0:
            raise ValueError(f"retry_s={self.retry_s!r} must be a number > 0")

    def limit_of(self, job: Job) -> int:
        """Limit on requests in a replica of `job`; at least what its kind of replica needs."""
        limit = max(self.max_ongoing_requests, job.replica.fewest_places)
        return dict(self.own_limits).get(job.name, limit)

    @property
    def router(self) -> ServiceTime | None:
        """Distribution of the duration of one pass through the router; None without a router."""
        return ROUTER if self.dispatch == "round-robin" else None

    @property
    def max_rps(self) -> float:
        """Maximum requests/s of a job's router, which requests pass twice; inf without a router."""
        return 1 / (2 * self.router.mean_s) if self.router else np.inf


PAPER = ServingModel()
# Requests are dispatched as by Ray Serve and service meshes.
LIVE = ServingModel("least-outstanding", max_ongoing_requests=MAX_ONGOING_REQUESTS)


class SimulatedCluster(SharingCluster):
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
        self.workload = workload
        self.now_s = 0.0
        self._capacity_steps = list(capacity_steps)
        self._lifetimes = lifetimes
        model, jobs = serving_model, arrays_of(workload.jobs)
        self._set_units(workload.jobs)
        first = [unit.jobs[0] for unit in self._units]
        self._wishes: dict[str, Placement] = {}  # by pool, the last one of each
        self._serving = Serving(
            workload.jobs,
            draws,
            seconds=1 + int(workload.minutes * MINUTE_S),
            dispatch=model.dispatch,
            queue_limit=model.queue_limit,
            places=np.array([model.limit_of(job) for job in workload.jobs]),
            units=self._units,
            pool_router=model.pool_router,
        )
        self._pods = Pods(
            jobs.cores[first],
            jobs.cold_start_s[first],
            capacity,
            on_birth=self._serving.add_replica,
            on_removal=self._serving.remove_replica,
            idle_s=model.idle_s,
            retry_s=model.retry_s,
        )
        self._set_placements(-np.inf)  # before the first arrival, which may be at 0
        for n, replicas in enumerate(self._by_unit(self._target)):
            self._pods.set_running(n, int(replicas))
        self._set_drop(np.zeros(len(workload.jobs)))
        self._busy_s = draws.busy_s
        self.minute_edges = minute_edges(draws.arrival_s, draws.first, workload.minutes)
        self._tail_minute = -1  # the minute of `_tail_latency_s`
        self._tail_latency_s = np.full(len(workload.jobs), np.nan)
        # The latency quantile of the served requests of that minute, the number of all others, and
        # the number that was served within the minute.
        self._served_tail_latency_s = self._tail_latency_s.copy()
        self._refused, self._served = np.zeros((2, len(workload.jobs)))

    def _set_units(self, jobs: Sequence[Job]) -> None:
        """Set whose the pods are: those of a job alone, or of a pool."""
        self._units = pools_of(jobs)
        self._unit_of = np.zeros(len(jobs), np.int64)  # (jobs,)
        for n, unit in enumerate(self._units):
            self._unit_of[list(unit.jobs)] = n

    @property
    def latency_s(self) -> np.ndarray:
        """Latency of every request in s (requests,), inf if dropped; complete after `finish`."""
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
        station, pods = self._serving.station, self._pods.jobs
        minute = min(int(self.now_s // MINUTE_S), self.workload.minutes)
        history = self.minute_edges[:, max(0, minute - HISTORY_MINUTES) : minute + 1]
        window = slice(max(0, int(self.now_s - LATENCY_WINDOW_S)), int(self.now_s))
        finished = station.finished[:, window].sum(axis=1)
        spent_s = station.finished_latency_s[:, window].sum(axis=1)
        running, terminating = np.zeros((2, len(self._target)), np.int64)
        for unit, its in zip(self._units, pods):
            members = list(unit.jobs)
            running[members] = (
                self._serving.shared[unit.name].running if unit.shared else its.running
            )
            terminating[members[0]] = len(its.idle_since_s)  # any job of the pool may reuse them
        changing = np.array([self._pods.changing(unit, self.now_s) for unit in range(len(pods))])
        busy_s = self._busy_s
        tail_s = self.tail_latency_of(minute - 1)
        return Observation(
            now_s=self.now_s,
            capacity=self._pods.capacity,
            minute=minute,
            arrivals_per_min=np.diff(history, axis=1).astype(float),
            mean_latency_s=spent_s / np.maximum(finished, 1),
            tail_latency_s=tail_s,
            ongoing=self._serving.ongoing,
            running=running,
            starting=self._target - running,
            target=self._target.copy(),
            terminating=terminating,
            changing=changing[self._unit_of],
            drop=station.drop.copy(),
            arrivals_now=station.next_arrival - self.minute_edges[:, minute],
            present=self.present,
            placement=self._wishes or None,
            busy_s=None if busy_s is None else busy_s[:, max(minute - 1, 0)],
            served_per_min=self._served.copy(),
            refused_per_min=self._refused.copy(),
            served_tail_latency_s=self._served_tail_latency_s.copy(),
        )

    def apply(self, target: np.ndarray, drop: np.ndarray) -> None:
        more = self._by_unit(target) - self._by_unit(self._target)
        self._target[:] = target
        for unit, replicas in enumerate(more.tolist()):  # first, because it frees cores
            if replicas < 0:
                self._pods.shrink(unit, -replicas, self.now_s)
        self._set_placements(self.now_s)
        for unit, replicas in enumerate(more.tolist()):
            if replicas > 0:
                self._pods.grow(unit, replicas, self.now_s)
        self._set_drop(drop)

    def place(self, placement: Mapping[str, Placement]) -> None:
        pools = {unit.name: unit for unit in self._units if unit.shared}
        for name, wish in placement.items():
            if name not in pools:
                known = ", ".join(pools) or "none"
                raise ValueError(f"placement of unknown pool {name!r}; pools of jobs: {known}")
            check_placement(pools[name], wish)
        self._wishes |= placement

    def _set_placements(self, now_s: float) -> None:
        """Tell every pool which models its replicas should hold, with the targets in force."""
        for unit in self._units:
            if unit.shared:
                replicas = self._target[list(unit.jobs)]
                wish = self._wishes.get(unit.name)
                rows = wish.resized(replicas) if wish else chained(unit, replicas)
                self._serving.shared[unit.name].place(rows, now_s)

    def _by_unit(self, replicas: np.ndarray) -> np.ndarray:
        """Replicas of each unit, (units,), from those of each job: int (jobs,)."""
        return np.bincount(self._unit_of, replicas, len(self._units)).astype(np.int64)

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
        self._drop_all(~self._has_replicas())  # without replicas, requests would wait forever
        while self._serving.any_inside:
            self.advance(self.now_s + DRAIN_STEP_S)
            self._drop_all(~self._has_replicas())

    def _has_replicas(self) -> np.ndarray:
        """Whether each job has a replica that serves it, or will have, bool (jobs,)."""
        served = self._target > 0
        for shared in self._serving.shared.values():
            served[list(shared.pool.jobs)] = shared.served
        return served

    def _set_drop(self, drop: np.ndarray) -> None:
        """Set the drop rates (jobs,); an absent job without replicas drops all its requests."""
        self._serving.station.drop[:] = drop
        if self.present is not None:
            self._drop_all(~self.present & (self._target == 0))

    def _drop_all(self, where: np.ndarray) -> None:
        for job in np.flatnonzero(where):
            self._serving.station.drop[job] = 1.0
            self._serving.drop_waiting(int(job), self.now_s)

    def tail_latency_of(self, minute: int) -> np.ndarray:
        """Latency quantile (jobs,) in seconds of the requests that arrived in `minute`.

        It is NaN without requests. A request that has not ended counts with the time since its
        arrival, or to its first token if the SLO is on both, or not at all if it is per token.
        """
        if minute == self._tail_minute:
            return self._tail_latency_s.copy()
        requests, kinds = self._serving.requests, self._serving.kinds
        begins_s, ends_s = minute * MINUTE_S, (minute + 1) * MINUTE_S
        before = self.minute_edges[:, max(0, minute - 1)]
        for j, (job, (a, b)) in enumerate(
            zip(self.workload.jobs, self.minute_edges[:, minute : minute + 2])
        ):
            latency_s = requests.latency_s[a:b]
            ended = latency_s > 0
            slo_on = getattr(job.replica, "slo_on", "")
            if slo_on == "per_token":
                spent_s = latency_s[ended]
            else:
                until_s = np.full(b - a, self.now_s)
                if slo_on == "both" and kinds is not None:
                    first_token_s = kinds.first_token_s[a:b]
                    until_s = np.where(first_token_s > 0, first_token_s, until_s)
                spent_s = np.where(ended, latency_s, until_s - requests.arrival_s[a:b])
            self._tail_latency_s[j] = quantile_of(spent_s, job.quantile)
            served = np.isfinite(spent_s)
            self._refused[j] = len(spent_s) - np.count_nonzero(served)
            lately = slice(before[j], b)  # an earlier request waits for a minute at most
            end_s = requests.arrival_s[lately] + requests.latency_s[lately]
            ended_here = (requests.latency_s[lately] > 0) & (end_s > begins_s) & (end_s <= ends_s)
            self._served[j] = np.count_nonzero(ended_here)
            of_served = spent_s if served.all() else spent_s[served]
            self._served_tail_latency_s[j] = quantile_of(of_served, job.quantile)
        self._tail_minute = minute
        return self._tail_latency_s.copy()


def constant_pool_latencies(
    jobs: Sequence[Job], draws: Draws, placement: Placement, serving_model: ServingModel = PAPER
) -> np.ndarray:
    """Latency of every request in s (requests,) if the pool of the jobs always has this placement.

    It is inf for a dropped request, and for all requests of a job whose model no replica holds.
    ValueError if the jobs are not one pool, or its replicas cannot hold these models.
    """
    units = pools_of(jobs)
    if len(units) > 1:
        names = ", ".join(unit.name for unit in units)
        raise ValueError(f"the jobs must be one pool; they are {len(units)}: {names}")
    check_placement(units[0], placement)
    model = serving_model
    places = np.array([model.limit_of(job) for job in jobs])
    if not units[0].shared:
        replicas, limit = placement.replicas, model.queue_limit
        return constant_latencies(jobs, draws, replicas, model.dispatch, limit, places)
    serving = Serving(
        jobs, draws, 1, model.dispatch, model.queue_limit, places, units, model.pool_router
    )
    shared = serving.shared[units[0].name]
    shared.place(placement, -np.inf)
    for _ in placement.home:
        shared.add_replica(-np.inf)
    serving.station.drop[~shared.served] = 1.0
    serving.advance(np.finfo(float).max)
    return serving.requests.latency_s
