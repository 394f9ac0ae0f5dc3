"""Policies without a forecast: an equal share, and the reactive rules of the paper (section 6.1)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from faro_lib.policies.factories import register
from faro_lib.policies.protocol import (
    HOLD,
    PLAN_ATTEMPTS,
    REACT_UP_AFTER_S,
    REACTIVE_DOWN,
    REACTIVE_UP,
    SHARE,
    Observation,
    Plan,
    at_least_one_each,
    hold,
    minimum_replicas,
    reasons,
)
from faro_lib.workload import Job, JobArrays, arrays_of
from faro_lib.workload.jobs import TOLERANCE

REACT_DOWN_AFTER_S = 600.0  # seconds below the SLO after which replicas are removed


def fair_share(jobs: tuple[Job, ...], capacity: float, present: np.ndarray | None = None) -> np.ndarray:
    """Replicas (jobs,) from an equal share of the cores for each job, within bounds and quotas; the rest is unused.

    Jobs that are not `present`, bool (jobs,), get their minimum and the others share what remains.

    >>> fair_share((Job("a"), Job("b"), Job("c")), 8).tolist()
    [2, 2, 2]
    """
    minimum, arrays = at_least_one_each(jobs, capacity), arrays_of(jobs)
    if present is not None and not present.all():
        share = minimum.copy()
        if present.any():
            reserved = float(minimum[~present] @ arrays.cores[~present])
            here = tuple(job for job, is_here in zip(jobs, present) if is_here)
            share[present] = fair_share(here, capacity - reserved)
        return share
    equal = (capacity / len(jobs) / arrays.cores + TOLERANCE).astype(np.int64)
    share = np.clip(equal, minimum, arrays.max_replicas)
    while True:  # minima above the equal share are paid for by the others, and quotas by the jobs of their tenant
        cores = share * arrays.cores
        over_quota = np.bincount(arrays.group, cores, len(arrays.quota)) > arrays.quota + TOLERANCE
        over = over_quota[arrays.group] | (cores.sum() > capacity + TOLERANCE)
        if not over.any():
            return share
        share[np.argmax(np.where(over & (share > minimum), cores, -np.inf))] -= 1


@dataclass(frozen=True, slots=True)
class FairShare:
    """A constant equal share of the cluster for each job."""

    name: str = "FairShare"
    tick_s: float = 60.0

    def initial(self, jobs: tuple[Job, ...], capacity: float) -> np.ndarray:
        return fair_share(jobs, capacity)

    def start(self, jobs: tuple[Job, ...]) -> tuple[Job, ...]:
        return jobs

    def decide(self, jobs: tuple[Job, ...], observation: Observation) -> tuple[tuple[Job, ...], Plan]:
        target = fair_share(jobs, observation.capacity, observation.present)
        plan = Plan(target, np.zeros(len(target)), reasons(target, observation.target, SHARE), PLAN_ATTEMPTS)
        return jobs, plan


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same constant number of replicas for each job; used to measure latency tables."""

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
    """counter_s : (jobs,) consecutive seconds above the SLO (positive) or below it (negative)."""

    jobs: JobArrays
    counter_s: np.ndarray
    last_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Reactive:
    """Step up after 30 s above the SLO and down after 10 min below it; `step` is the new target of a step."""

    tick_s: float = 10.0

    def initial(self, jobs: tuple[Job, ...], capacity: float) -> np.ndarray:
        return at_least_one_each(jobs, capacity)

    def start(self, jobs: tuple[Job, ...]) -> ReactiveState:
        return ReactiveState(replace(arrays_of(jobs), min_replicas=minimum_replicas(jobs)), np.zeros(len(jobs)))

    def step(self, state: ReactiveState, observation: Observation, direction: int) -> np.ndarray:
        raise NotImplementedError

    def decide(self, state: ReactiveState, observation: Observation) -> tuple[ReactiveState, Plan]:
        latency_s = observation.mean_latency_s
        counter_s = count(state.counter_s, latency_s, state.jobs.slo_s, observation.now_s - state.last_s)
        up, down = counter_s >= REACT_UP_AFTER_S, counter_s <= -REACT_DOWN_AFTER_S
        target = np.where(up, self.step(state, observation, +1), observation.target)
        target = np.where(down, self.step(state, observation, -1), target)
        target = np.clip(target, state.jobs.min_replicas, state.jobs.max_replicas)
        reason = tuple(REACTIVE_UP if u else REACTIVE_DOWN if d else HOLD for u, d in zip(up, down))
        state = replace(state, counter_s=np.where(up | down, 0.0, counter_s), last_s=observation.now_s)
        return state, Plan(target, np.zeros(len(target)), reason)


def count(counter_s: np.ndarray, latency_s: np.ndarray, slo_s: np.ndarray, elapsed_s: float) -> np.ndarray:
    """Consecutive seconds above (+) or below (-) the SLO, `elapsed_s` later; a missing latency changes nothing.

    >>> count(np.array([20.0, 20.0, -50.0, 5.0]), np.array([2.0, 0.5, 2.0, np.nan]), np.ones(4), 10.0).tolist()
    [30.0, -10.0, 10.0, 5.0]
    """
    up = np.maximum(counter_s, 0) + elapsed_s
    down = np.minimum(counter_s, 0) - elapsed_s
    return np.where(np.isnan(latency_s), counter_s, np.where(latency_s > slo_s, up, down))


@dataclass(frozen=True, slots=True)
class AIAD(Reactive):
    """Additive increase, additive decrease: one replica more or less at each step."""

    name: str = "AIAD"

    def step(self, state: ReactiveState, observation: Observation, direction: int) -> np.ndarray:
        return observation.target + direction


@dataclass(frozen=True, slots=True)
class Oneshot(Reactive):
    """Replicas in proportion to latency at each step: x <- ceil(x * latency / SLO)."""

    name: str = "Oneshot"

    def step(self, state: ReactiveState, observation: Observation, direction: int) -> np.ndarray:
        latency_s = np.nan_to_num(observation.mean_latency_s)  # a missing latency takes no step
        return np.ceil(observation.target * latency_s / state.jobs.slo_s).astype(np.int64)


register("FairShare")(lambda context: FairShare())
register("Oneshot")(lambda context: Oneshot())
register("AIAD")(lambda context: AIAD())
