"""The policies without a forecast: an equal share for ever, and the reactive rules (paper, section 6.1)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from faro_lib.policies.protocol import (
    HOLD,
    REACTIVE_DOWN,
    REACTIVE_UP,
    SHARE,
    Observation,
    Plan,
    at_least_one_each,
    hold,
)
from faro_lib.policies.registry import register
from faro_lib.workload import Job, jobs_array

UP_AFTER_S, DOWN_AFTER_S = 30.0, 600.0  # how long latency must stay above, below the SLO


def fair_share(jobs: tuple[Job, ...], capacity: float, present: np.ndarray | None = None) -> np.ndarray:
    """floor(R/J) cores' worth of replicas each, within each job's bounds; what is left stays unused.

    With `present`, bool (jobs,), `capacity` lends the absent jobs their minimum, as in `Observation`; the others share.

    >>> fair_share((Job("a"), Job("b"), Job("c")), 8).tolist()
    [2, 2, 2]
    """
    fewest = at_least_one_each(jobs, capacity)
    if present is not None and not present.all():
        share = fewest.copy()
        here = tuple(job for job, is_here in zip(jobs, present) if is_here)
        lent = float(np.dot(fewest[~present], jobs_array(jobs, "cores")[~present]))
        share[present] = fair_share(here, capacity - lent) if here else 0
        return share
    equal = [int(capacity / len(jobs) / job.cores + 1e-9) for job in jobs]
    share = np.clip(equal, fewest, [job.max_replicas for job in jobs])
    cores = np.array([job.cores for job in jobs])
    while share @ cores > capacity + 1e-9:  # minima above the equal share must be paid for by the others
        spare = np.where(share > fewest, share * cores, -np.inf)
        share[np.argmax(spare)] -= 1
    return share


@dataclass(frozen=True, slots=True)
class FairShare:
    """An equal share of the cluster for each job, for ever."""

    name: str = "FairShare"
    tick_s: float = 60.0

    def initial(self, jobs, capacity):
        return fair_share(jobs, capacity)

    def start(self, jobs):
        return jobs

    def decide(self, state, observation):
        target = fair_share(state, observation.capacity, observation.present)
        reason = tuple(HOLD if same else SHARE for same in target == observation.target)
        return state, Plan(target, np.zeros(len(target)), reason, attempts=5)


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same number of replicas for everyone, for ever: the instrument of measured tables, not a policy to run."""

    replicas: int = 1
    name: str = "Fixed"
    tick_s: float = 1e9

    def initial(self, jobs, capacity):
        return np.full(len(jobs), self.replicas)

    def start(self, jobs):
        return None

    def decide(self, state, observation):
        return state, hold(observation)


@dataclass(frozen=True, slots=True)
class ReactiveState:
    slo_s: np.ndarray
    fewest: np.ndarray
    most: np.ndarray
    counter_s: np.ndarray  # seconds above the SLO (positive) or below it (negative) in a row
    last_s: float


def count(counter_s: np.ndarray, above: np.ndarray, elapsed_s: float, known=True) -> np.ndarray:
    """Seconds in a row above (+) or below (-) the SLO; a change of side starts afresh, and what is not known counts nothing.

    >>> count(np.array([20.0, 20.0, -50.0]), np.array([True, False, True]), 10.0).tolist()
    [30.0, -10.0, 10.0]
    """
    up = np.maximum(counter_s, 0) + elapsed_s
    down = np.minimum(counter_s, 0) - elapsed_s
    return np.where(known, np.where(above, up, down), counter_s)


@dataclass(frozen=True, slots=True)
class Reactive:
    """A single loop that steps up after 30 s above the SLO and down after 10 min below; `step` says how far."""

    tick_s: float = 10.0

    def initial(self, jobs, capacity):
        return at_least_one_each(jobs, capacity)

    def start(self, jobs):
        fewest = np.maximum(1, jobs_array(jobs, "min_replicas"))
        return ReactiveState(
            jobs_array(jobs, "slo_s"), fewest, jobs_array(jobs, "max_replicas"), np.zeros(len(jobs)), 0.0
        )

    def step(self, state: ReactiveState, observation: Observation, direction: int) -> np.ndarray:
        raise NotImplementedError

    def decide(self, state, observation):
        elapsed_s = observation.now_s - state.last_s
        latency_s = observation.mean_latency_s
        counter_s = count(state.counter_s, latency_s > state.slo_s, elapsed_s, ~np.isnan(latency_s))
        up, down = counter_s >= UP_AFTER_S, counter_s <= -DOWN_AFTER_S
        target = np.where(up, self.step(state, observation, +1), observation.target)
        target = np.where(down, self.step(state, observation, -1), target)
        target = np.clip(target, state.fewest, state.most)
        reason = tuple(REACTIVE_UP if u else REACTIVE_DOWN if d else HOLD for u, d in zip(up, down))
        counter_s = np.where(up | down, 0.0, counter_s)
        state = replace(state, counter_s=counter_s, last_s=observation.now_s)
        return state, Plan(target, np.zeros(len(target)), reason)


@dataclass(frozen=True, slots=True)
class AIAD(Reactive):
    """Additive increase, additive decrease: one replica more after 30 s above the SLO, one less after 10 min below."""

    name: str = "AIAD"

    def step(self, state, observation, direction):
        return observation.target + direction


@dataclass(frozen=True, slots=True)
class Oneshot(Reactive):
    """Linearly proportional to latency: x <- ceil(x * latency / SLO), up after 30 s above it, down after 10 min below."""

    name: str = "Oneshot"

    def step(self, state, observation, direction):
        latency_s = np.nan_to_num(observation.mean_latency_s)  # where it is missing nobody steps
        return np.ceil(observation.target * latency_s / state.slo_s).astype(np.int64)


register("FairShare")(lambda context: FairShare())
register("Oneshot")(lambda context: Oneshot())
register("AIAD")(lambda context: AIAD())
