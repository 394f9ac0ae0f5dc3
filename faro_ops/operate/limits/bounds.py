"""Bounds of HorizontalPodAutoscalers (HPAs) as plans: Faro sets minReplicas and maxReplicas."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from faro_lib.policies.faro import Faro
from faro_lib.policies.loops import LoopState, fold_minutes, keeping_unknown, long_term
from faro_lib.protocol import Observation, Plan, Policy, Wrapper, hold, reasons
from faro_lib.utility import UtilityTable
from faro_lib.workload import arrays_of
from faro_lib.workload.jobs import TOLERANCE
from faro_ops.protocol import LivePlan, live_observation, live_plan

# Special values of a floor: KEEP_FLOOR keeps minReplicas, HAND_BACK restores the original bounds.
KEEP_FLOOR, HAND_BACK = -1, -2
# Utility that a job may lose with minReplicas instead of the planned replicas (docs/adopt.md).
FLOOR_TOLERANCE = 0.02
# Quantiles of the forecast load that set an HPA's minReplicas and maxReplicas.
LOAD_QUANTILES = (0.1, 0.95)
# Highest utilisation at which an HPA with the default target of 80 % and tolerance of 10 % adds no
# replica.
HELD_UTILISATION = 0.88


@dataclass(frozen=True, slots=True)
class AsBounds(Wrapper):
    """Faro, but its plans are bounds of HPAs: `target` is maxReplicas, `floor` is minReplicas.

    The HPAs react between Faro's long-term decisions, so Faro's own reactive loop does not run, and
    no reserve of idle cores is planned: the ceilings use all cores.
    """

    policy: Faro
    tolerance: float = FLOOR_TOLERANCE  # utility that a job may lose at minReplicas

    @classmethod
    def of(cls, policy: Policy) -> Self:
        """`policy` as bounds; ValueError if it is not a `Faro`, which alone makes predictions."""
        return cls(replace(predicting(policy), reactive=False, reserve=False))

    def decide(self, state: LoopState, observation: Observation) -> tuple[LoopState, Plan]:
        state = fold_minutes(self.policy.having_learned(state, observation), observation)
        if not self.policy.is_long_term(observation.now_s, state.last_s):
            after = replace(state, last_s=observation.now_s)
            return after, keeping_unknown(hold(observation), state, observation)
        current = replicas_of_hpas(observation)
        after, plan = long_term(self.plan, state, observation, current)
        return after, keeping_unknown(plan, state, observation)

    def plan(self, state: LoopState, observation: Observation) -> LivePlan:
        """The bounds around the replicas that Faro would plan.

        The observed targets are the HPAs' maxReplicas, so Faro plans from the current replicas.
        """
        current = replicas_of_hpas(observation)
        decision = self.policy.decision(state, replace(observation, target=current))
        load = np.quantile(decision.rates_rps, LOAD_QUANTILES, axis=(1, 2))
        model = self.policy.informed(state).latency_model
        load = load * np.array([model.busy_s(job) for job in state.jobs])
        floor, ceiling = bounds(
            decision.expected,
            decision.plan.target,
            load,
            observation.capacity,
            self.tolerance,
        )
        reason = reasons(ceiling, observation.target)
        return replace(live_plan(decision.plan), target=ceiling, floor=floor, reason=reason)


def predicting(policy: Policy) -> Faro:
    """`policy` if it is a `Faro`; ValueError if it is another one, which makes no predictions."""
    if not isinstance(policy, Faro):
        accepted = "accepted: Faro-Sum, Faro-FairSum, ..."
        raise ValueError(f"policy={policy.name!r} makes no predictions; {accepted}")
    return policy


def replicas_of_hpas(observation: Observation) -> np.ndarray:
    """The replicas that each job's HPA has or has requested, (jobs,)."""
    known = live_observation(observation).replicas
    replicas = observation.running + observation.starting
    return replicas if known is None else np.where(observation.exists, known, replicas)


def bounds(
    table: UtilityTable, replicas: np.ndarray, load: np.ndarray, capacity: float, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Floors and ceilings, two arrays (jobs,): minReplicas and maxReplicas around `replicas`.

    `load` (2, jobs) has a low and a high quantile of each job's offered load in erlangs. A replica
    count suffices if the job's expected utility is at most `tolerance` lower than with `replicas`.
    The floor is the lowest count that suffices. It is the job's minimum instead if the HPA alone
    would hold a sufficient count at the low load. Ceilings start at `replicas`. While cores are
    free, the ceiling with the largest high load / (ceiling + 1) rises by 1.

    >>> from faro_lib.workload import Job
    >>> values = [[0, 0.5, 0.97, 1.0, 1.0], [0, 1, 1, 1, 1]]
    >>> table = UtilityTable.from_values([Job("a"), Job("b")], values)
    >>> load = np.array([[0.5, 0.1], [2.0, 0.2]])
    >>> both = bounds(table, np.array([3, 1]), load, 5, tolerance=0.05)
    >>> [bound.tolist() for bound in both]
    [[2, 1], [4, 1]]
    """
    rows, arrays = np.arange(len(replicas)), arrays_of(table.jobs)
    low, high = load
    enough = table.value >= table.value[rows, replicas][:, None] - tolerance
    # The lowest counts at which the HPAs would add no replica under the low load.
    held = np.ceil(low / HELD_UTILISATION).astype(int)
    held = np.clip(held, arrays.min_replicas, replicas)
    floor = np.where(enough[rows, held], arrays.min_replicas, enough.argmax(axis=1))
    ceiling = replicas.copy()
    while True:
        cores = ceiling * arrays.cores
        quota_used = np.bincount(arrays.group, weights=cores, minlength=len(arrays.quota))
        quota_left = arrays.quota - quota_used
        room = np.minimum(capacity - cores.sum(), quota_left[arrays.group]) + TOLERANCE
        fits = (arrays.cores <= room) & (ceiling < arrays.max_replicas)
        if not fits.any():
            return floor, ceiling
        ceiling[np.argmax(np.where(fits, high / (ceiling + 1), -np.inf))] += 1
