"""Replicas that never change: what most services have, and the least that a policy should beat."""

from dataclasses import dataclass, replace

import numpy as np

from faro_lib.policies.factories import PolicyContext, register
from faro_lib.policies.faro import Faro, tuned
from faro_lib.protocol import PLAN_ATTEMPTS, Observation, Plan, reasons
from faro_lib.workload import Job, arrays_of
from faro_lib.workload.jobs import TOLERANCE
from faro_lib.workload.shares import at_least_one_each, minimum_replicas


@dataclass(frozen=True, slots=True)
class StaticState:
    """The jobs and the replicas (jobs,) that they keep; None before the first decision."""

    jobs: tuple[Job, ...]
    replicas: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Static:
    """The constant replica counts that were best on the training days (`Faro.constant_replicas`).

    Every job has at least one replica. The counts never change, except while the capacity is too
    small for them: then the jobs have the best constant counts for the capacity that is left.
    """

    faro: Faro  # knows the training days and the latency model
    name: str = "Static"
    tick_s: float = 60.0

    def __post_init__(self) -> None:
        if not self.faro.forecaster.past.size:
            raise ValueError(f"policy {self.name!r} needs training days, and there are none")

    def initial(self, jobs: tuple[Job, ...], capacity: float) -> np.ndarray:
        return self.faro.constant_replicas(jobs, capacity, at_least_one_each(jobs, capacity))

    def start(self, jobs: tuple[Job, ...]) -> StaticState:
        return StaticState(jobs)

    def decide(self, state: StaticState, observation: Observation) -> tuple[StaticState, Plan]:
        replicas = state.replicas
        if replicas is None:
            replicas = self.within(state.jobs, observation.capacity)
        target = replicas
        if target @ arrays_of(state.jobs).cores > observation.capacity + TOLERANCE:
            target = self.within(state.jobs, observation.capacity)
        reason = reasons(target, observation.target)
        plan = Plan(target, np.zeros(len(target)), reason, PLAN_ATTEMPTS)
        return replace(state, replicas=replicas), plan

    def within(self, jobs: tuple[Job, ...], capacity: float) -> np.ndarray:
        """The best constant counts; the minimum of each job if even that exceeds the capacity."""
        least = minimum_replicas(jobs)
        least_cores = float(least @ arrays_of(jobs).cores)
        return self.faro.constant_replicas(jobs, max(capacity, least_cores), least)


@register("Static")
def static(context: PolicyContext) -> Static:
    """`Static` with the latency model and the training days of the context."""
    context.require("forecaster", "Static")
    return Static(tuned(context))
