"""Baselines: fixed replicas, equal shares, the reactive policies of EuroSys'25 (6.1), and MArk."""

from dataclasses import dataclass, replace

import numpy as np

from faro_lib import protocol
from faro_lib.forecast import HORIZON_MINUTES
from faro_lib.policies.factories import register
from faro_lib.policies.loops import LoopState, TwoLoops
from faro_lib.protocol import Observation, Plan, hold, reasons
from faro_lib.workload import Job, JobArrays, arrays_of
from faro_lib.workload.jobs import MINUTE_S, TOLERANCE
from faro_lib.workload.shares import at_least_one_each, fair_share, minimum_replicas

REACT_DOWN_AFTER_S = 600.0  # seconds below the SLO after which replicas are removed
Window = tuple[tuple[float, np.ndarray], ...]  # (time in s, values), oldest first


@dataclass(frozen=True, slots=True)
class FairShare:
    """An equal share of the cluster for each job."""

    name: str = "FairShare"
    tick_s: float = 60.0

    def initial(self, jobs: tuple[Job, ...], capacity: float) -> np.ndarray:
        return fair_share(jobs, capacity)

    def start(self, jobs: tuple[Job, ...]) -> tuple[Job, ...]:
        return jobs

    def decide(
        self, jobs: tuple[Job, ...], observation: Observation
    ) -> tuple[tuple[Job, ...], Plan]:
        target = fair_share(jobs, observation.capacity, observation.present)
        reason = reasons(target, observation.target, protocol.SHARE)
        return jobs, Plan(target, np.zeros(len(target)), reason, protocol.PLAN_ATTEMPTS)


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same constant replica count for every job, as `experiments.limits` simulates it."""

    replicas: int = 1
    name: str = "Fixed"
    tick_s: float = 1e9

    def initial(self, jobs: tuple[Job, ...], capacity: float) -> np.ndarray:
        return np.full(len(jobs), self.replicas)

    def start(self, jobs: tuple[Job, ...]) -> None:
        return None

    def decide(self, state: None, observation: Observation) -> tuple[None, Plan]:
        return state, hold(observation)


@dataclass(frozen=True, slots=True)
class ReactiveState:
    """State of a policy without a forecast; arrays (jobs,)."""

    jobs: JobArrays  # with a `min_replicas` of 0 raised to 1
    # Seconds in which a policy wants more replicas, or minus the seconds in which it wants fewer.
    counter_s: np.ndarray
    last_s: float = 0.0  # time of the last tick
    window: Window = ()  # HPA: recent recommendations; RayServe: recent ongoing requests

    def within_bounds(self, replicas: np.ndarray) -> np.ndarray:
        return np.clip(replicas, self.jobs.min_replicas, self.jobs.max_replicas)


@dataclass(frozen=True, slots=True)
class Reactive:
    """Base class of policies without a forecast; every job starts with its minimum replicas."""

    tick_s: float = 10.0

    def initial(self, jobs: tuple[Job, ...], capacity: float) -> np.ndarray:
        return at_least_one_each(jobs, capacity)

    def start(self, jobs: tuple[Job, ...]) -> ReactiveState:
        return ReactiveState(
            replace(arrays_of(jobs), min_replicas=minimum_replicas(jobs)), np.zeros(len(jobs))
        )


@dataclass(frozen=True, slots=True)
class Stepwise(Reactive):
    """Take a step up after 30 s of latency above the SLO, and down after 10 minutes below it.

    A subclass defines `step`.
    """

    def step(self, state: ReactiveState, observation: Observation, direction: int) -> np.ndarray:
        """Targets (jobs,) after a step in `direction`, +1 or -1."""
        raise NotImplementedError

    def decide(self, state: ReactiveState, observation: Observation) -> tuple[ReactiveState, Plan]:
        # At most a tick, because live runs begin at now_s = 900.
        elapsed_s = min(observation.now_s - state.last_s, self.tick_s)
        counter_s = count(state.counter_s, observation.mean_latency_s, state.jobs.slo_s, elapsed_s)
        up = counter_s >= protocol.REACT_UP_AFTER_S
        down = counter_s <= -REACT_DOWN_AFTER_S
        target = np.where(up, self.step(state, observation, +1), observation.target)
        target = state.within_bounds(np.where(down, self.step(state, observation, -1), target))
        reason = np.select(
            [up, down], [protocol.REACTIVE_UP, protocol.REACTIVE_DOWN], protocol.HOLD
        )
        state = replace(
            state, counter_s=np.where(up | down, 0.0, counter_s), last_s=observation.now_s
        )
        return state, Plan(target, np.zeros(len(target)), tuple(reason.tolist()))


def count(
    counter_s: np.ndarray, value: np.ndarray, limit: np.ndarray, elapsed_s: float
) -> np.ndarray:
    """Update `counter_s`: consecutive seconds with `value` above `limit`, or minus those not above.

    >>> counter_s, value = np.array([20.0, 20.0, -50.0, 5.0]), np.array([2.0, 0.5, 2.0, np.nan])
    >>> count(counter_s, value, np.ones(4), 10.0).tolist()
    [30.0, -10.0, 10.0, 5.0]
    """
    up = np.maximum(counter_s, 0) + elapsed_s
    down = np.minimum(counter_s, 0) - elapsed_s
    return np.where(np.isnan(value), counter_s, np.where(value > limit, up, down))


@dataclass(frozen=True, slots=True)
class AIAD(Stepwise):
    """Additive increase, additive decrease: one replica per step."""

    name: str = "AIAD"

    def step(self, state: ReactiveState, observation: Observation, direction: int) -> np.ndarray:
        return observation.target + direction


@dataclass(frozen=True, slots=True)
class Oneshot(Stepwise):
    """At each step, multiply the replicas by latency / SLO and round up."""

    name: str = "Oneshot"

    def step(self, state: ReactiveState, observation: Observation, direction: int) -> np.ndarray:
        replicas = np.ceil(observation.target * observation.mean_latency_s / state.jobs.slo_s)
        most = state.jobs.max_replicas  # bounds the product even if the latency is infinite
        return np.nan_to_num(np.minimum(replicas, most)).astype(np.int64)


def counts_since(state: LoopState, observation: Observation) -> np.ndarray:
    """Requests per minute (jobs, minutes) since the last long-term decision.

    They stand in for the forecast until one is possible.
    """
    return observation.arrivals_per_min[:, -max(1, observation.minute - state.since_minute) :]


@dataclass(frozen=True, slots=True)
class MArk(TwoLoops):
    """Replicas for the highest forecast rate of each job; one serves slo_s / busy_s per second."""

    name: str = "MArk"
    horizon_minutes: int = HORIZON_MINUTES

    def plan(self, state: LoopState, observation: Observation) -> Plan:
        if observation.minute >= protocol.HISTORY_MINUTES:
            per_min = state.forecaster.mean(self.horizon_minutes)
        else:
            per_min = counts_since(state, observation)
        jobs = arrays_of(state.jobs)
        rate_rps = np.fmax.reduce(per_min, axis=1) / MINUTE_S  # NaN without a count
        per_replica_rps = jobs.slo_s / jobs.busy_s
        wanted = np.ceil(np.nan_to_num(rate_rps) / per_replica_rps - TOLERANCE).astype(np.int64)
        target = np.clip(wanted, minimum_replicas(state.jobs), jobs.max_replicas)
        reason = reasons(target, observation.target)
        return Plan(target, np.zeros(len(target)), reason, protocol.PLAN_ATTEMPTS, rate_rps)


register("FairShare")(lambda context: FairShare())
register("Oneshot")(lambda context: Oneshot())
register("AIAD")(lambda context: AIAD())
register("MArk")(lambda context: MArk(context.require("forecaster", "MArk")))
