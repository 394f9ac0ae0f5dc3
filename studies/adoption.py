"""A plugin: HPAs between static bounds and HPAs between bounds that Faro sets, to compare with
Faro.

`StaticFloors` is what operators use without a common controller: one HPA per service with a static
minimum and maximum. The minima divide the fraction SHARE of the capacity in proportion to the
offered loads. Each is at least one replica. The offered load of a service is its quantile LOAD over
the training days. The HPAs that scale up first get the rest of the capacity. A service's maximum is
the replica count that an HPA would choose in its busiest minute of those days.

`Ceilings` simulates `faro run --act ceilings`.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from faro_lib.policies import HPA, Observation, Plan, PolicyContext, register
from faro_lib.policies.baselines import ReactiveState
from faro_lib.policies.faro import tuned
from faro_lib.protocol import hold
from faro_lib.workload import Job, arrays_of
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.shares import at_least_one_each, minimum_replicas
from faro_ops.operate.limits.bounds import AsBounds
from faro_ops.protocol import live_plan

# The values that lose the least utility on the training days (docs/adopt.md).
SHARE = 0.75
LOAD = 0.95


def divided(
    capacity: float, load: np.ndarray, minimum: np.ndarray, cores: np.ndarray
) -> np.ndarray:
    """Add replicas to `minimum` (jobs,) within `capacity`.

    Each goes to the job with the highest load per replica.
    """
    replicas = minimum.copy()
    while True:
        fits = replicas @ cores + cores <= capacity
        if not fits.any():
            return replicas
        replicas[np.argmax(np.where(fits, load / replicas, -np.inf))] += 1


@dataclass(frozen=True, slots=True)
class StaticState:
    jobs: tuple[Job, ...]
    hpa: ReactiveState


@dataclass(frozen=True, slots=True)
class StaticFloors:
    """One HPA per job, with bounds that are static at a given capacity."""

    load: np.ndarray  # offered load in erlangs, (jobs,); the minima are proportional to it
    peak: np.ndarray  # peak offered load in erlangs, (jobs,)
    hpa: HPA
    share: float = SHARE
    name: str = "StaticFloors"
    tick_s: float = 15.0  # the tick of the HPA

    def floors(self, jobs: tuple[Job, ...], capacity: float) -> np.ndarray:
        return divided(
            self.share * capacity, self.load, minimum_replicas(jobs), arrays_of(jobs).cores
        )

    def initial(self, jobs: tuple[Job, ...], capacity: float) -> np.ndarray:
        return self.floors(jobs, capacity)

    def start(self, jobs: tuple[Job, ...]) -> StaticState:
        return StaticState(jobs, self.hpa.start(jobs))

    def decide(self, state: StaticState, observation: Observation) -> tuple[StaticState, Plan]:
        floor = self.floors(state.jobs, observation.capacity)
        ceiling = np.maximum(floor, np.ceil(self.peak / self.hpa.utilisation).astype(np.int64))
        bounds = replace(state.hpa.jobs, min_replicas=floor, max_replicas=ceiling)
        hpa, plan = self.hpa.decide(replace(state.hpa, jobs=bounds), observation)
        return replace(state, hpa=hpa), plan


def static_floors(
    context: PolicyContext, share: float = SHARE, quantile: float = LOAD
) -> StaticFloors:
    traces = context.require("traces", "StaticFloors")
    # offered load in erlangs, (days, samples, jobs, minutes)
    load = traces.train / MINUTE_S * arrays_of(context.jobs).busy_s[:, None]
    usual = np.quantile(load, quantile, axis=(0, 1, 3))  # (jobs,)
    peak = load.max(axis=(0, 1, 3))
    return StaticFloors(usual, peak, HPA(), share)


register("StaticFloors")(static_floors)


@dataclass(frozen=True, slots=True)
class BoundedState:
    """The states of Faro and the HPAs; `hpa.jobs` has the bounds (jobs,) set by Faro."""

    faro: Any
    hpa: ReactiveState


@dataclass(frozen=True, slots=True)
class UnderCeilings:
    """One HPA per job, between bounds that Faro sets. Faro and the HPAs decide at their own
    intervals, so an HPA may follow new bounds up to 15 s after Faro's decision.
    """

    faro: AsBounds
    hpa: HPA
    name: str = "Ceilings"
    tick_s: float = 5.0  # a common divisor of the ticks of Faro and the HPA

    def initial(self, jobs: tuple[Job, ...], capacity: float) -> np.ndarray:
        return at_least_one_each(jobs, capacity)

    def start(self, jobs: tuple[Job, ...]) -> BoundedState:
        return BoundedState(self.faro.start(jobs), self.hpa.start(jobs))

    def decide(self, state: BoundedState, observation: Observation) -> tuple[BoundedState, Plan]:
        faro, hpa = state.faro, state.hpa
        explained = hold(observation)
        if observation.now_s % self.faro.tick_s == 0:
            faro, plan = self.faro.decide(faro, observation)
            plan = live_plan(plan)
            if plan.floor is not None:
                bounds = replace(hpa.jobs, min_replicas=plan.floor, max_replicas=plan.target)
                hpa = replace(hpa, jobs=bounds)
                held = explained.reason
                explained = replace(plan, target=observation.target, reason=held, floor=None)
        if observation.now_s % self.hpa.tick_s:
            return BoundedState(faro, hpa), explained
        hpa, plan = self.hpa.decide(hpa, observation)
        return BoundedState(faro, hpa), replace(explained, target=plan.target, reason=plan.reason)


register("Ceilings")(lambda context: UnderCeilings(AsBounds.of(tuned(context)), HPA()))
