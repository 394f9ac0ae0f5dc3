"""Guardrails: what an operator sets, what is remembered of requests, and what a policy sees.

If another client has changed a job's target, `restore_targets` puts Faro's last request into the
observation. `mask_absent` hides from the policy which jobs are not deployed. `control.limits` has
the rules that limit plans.
"""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from faro_lib import protocol
from faro_lib.protocol import Observation, Plan
from faro_lib.workload import Job, arrays_of
from faro_lib.workload.shares import minimum_replicas

# Measurements of an observation.
MAY_BE_INFINITE = ("tail_latency_s", "served_tail_latency_s")
MEASURED = (
    *MAY_BE_INFINITE,
    *protocol.ENDED,
    "arrivals_per_min",
    "arrivals_now",
    "mean_latency_s",
    "ongoing",
    "busy_s",
    "throttled",
)
FAIL_MODES = ("hold", "fair-share")
# At a tick, a job gains CONTEST points if another client has changed its target, and otherwise
# loses one point. At CONTESTED_AT points, Faro leaves the job alone.
CONTEST, CONTESTED_AT = 2, 6


@dataclass(frozen=True, slots=True)
class GuardrailConfig:
    """The limits that an operator sets.

    Attributes
    ----------
    fail_mode : what to do if a job's data is missing, the plan is invalid or the decision is late:
        "hold" keeps the targets, "fair-share" gives equal shares.
    max_scaling_actions : maximum number of replicas that one decision starts or stops; None for no
        limit. Replicas stopped to make room for a new replica do not count. New replicas are
        started before other replicas are stopped. Jobs start replicas in the order of
        `Plan.marginal_value_down`, highest first. They stop replicas in the order of
        `Plan.marginal_value_up`, lowest first. If the plan has no such values, the order of the
        jobs applies.
    stale_after_s : seconds without a job's data after which the fail mode applies to the job. Data
        is missing if the request count of the last complete minute or the mean latency is NaN. It
        applies at once to a job without any count since the start and on training days.
    fixed : names of jobs whose replica count an operator has fixed; this count is their minimum
        and their maximum.
    force : restore a job's target even if another client keeps changing it.
    """

    fail_mode: str = "hold"
    max_scaling_actions: int | None = None
    stale_after_s: float = 60.0
    force: bool = False
    fixed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "fixed", tuple(self.fixed))  # a list if read from a journal (JSON)
        actions = self.max_scaling_actions
        if self.fail_mode not in FAIL_MODES:
            raise ValueError(
                f"fail_mode={self.fail_mode!r} is unknown; accepted: {', '.join(FAIL_MODES)}"
            )
        if actions is not None and (actions != int(actions) or actions < 0):
            raise ValueError(f"max_scaling_actions={actions!r} must be None or a whole number >= 0")
        if not self.stale_after_s >= 0:
            raise ValueError(f"stale_after_s={self.stale_after_s!r} must be a number >= 0")


GUARDRAILS = GuardrailConfig()


@dataclass(frozen=True, slots=True)
class Guard:
    """The state of the guardrails between ticks; arrays have shape (jobs,)."""

    # When the job's data was last available, in seconds since time 0 of the run.
    known_s: np.ndarray
    target: np.ndarray | None = None  # last requested targets; None before the first request
    drop: np.ndarray | None = None  # last requested drop rates; None before the first request
    present: np.ndarray | None = None  # bool, the job existed at the last tick; None before
    applied: np.ndarray | bool = True  # bool, whether the last request for the job was applied
    # Points for other clients' changes (see CONTEST); constant from CONTESTED_AT on.
    contest: np.ndarray | int = 0
    left: np.ndarray | bool = False  # bool, the last plan left the job to another controller
    seen: np.ndarray | bool = False  # bool, the job existed at some tick
    # Bool, the job was added with replicas of its own, and no data of it is known since.
    waiting: np.ndarray | bool = False

    def updated(self, observation: Observation) -> Self:
        """This state with `known_s`, `waiting` and `contest` updated by an observation."""
        last_counts = observation.arrivals_per_min[:, -1:]
        counted = np.isfinite(last_counts).all(axis=1)  # also true while no minute is complete
        known = (np.isfinite(observation.mean_latency_s) & counted) | ~observation.exists
        added = self.added(observation.exists)
        guard = replace(
            self,
            known_s=np.where(known, observation.now_s, self.known_s),
            waiting=(self.waiting | (added & (observation.target > 0))) & ~known,
        )
        if self.target is None:
            return guard
        # If no latency is known, the observed targets may be outdated.
        observed = np.isfinite(observation.mean_latency_s).any()
        comparable = observation.exists & self.applied & observed & ~self.leaves() & ~added
        changed = (observation.target != self.target) & comparable
        before = np.broadcast_to(self.contest, known.shape)
        after = np.maximum(before + np.where(changed, CONTEST, -1), 0)
        return replace(guard, contest=np.where(before >= CONTESTED_AT, before, after))

    def contested(self, config: GuardrailConfig) -> np.ndarray:
        """Whether another client keeps changing a job's target, bool (jobs,).

        Faro leaves such a job alone, unless `config.force` is set.
        """
        if config.force:
            return np.zeros(self.known_s.shape, bool)
        return np.broadcast_to(self.contest, self.known_s.shape) >= CONTESTED_AT

    def drifted(self, observation: Observation) -> np.ndarray:
        """Whether a job's observed target or drop rate differs from the last request, (jobs,)."""
        if self.target is None or self.drop is None:
            return np.zeros(len(observation.target), bool)
        differs = (observation.target != self.target) | (observation.drop != self.drop)
        return differs & ~self.leaves() & ~self.added(observation.exists)

    def before(self, exists: np.ndarray) -> np.ndarray:
        """Whether each job existed at the last tick, bool (jobs,); `exists` at the first tick."""
        return exists if self.present is None or self.target is None else self.present

    def added(self, exists: np.ndarray) -> np.ndarray:
        """Whether a job exists (`exists`) but did not at the last tick, bool (jobs,)."""
        return exists & ~self.before(exists)

    def leaves(self) -> np.ndarray:
        """Whether the last plan left a job to another controller, bool (jobs,)."""
        return np.broadcast_to(self.left, self.known_s.shape)


def restore_targets(guard: Guard, observation: Observation, kept: np.ndarray) -> Observation:
    """The observation with drop rates and targets as last requested.

    The jobs in the mask `kept` keep the observed target.
    """
    if guard.target is None or guard.drop is None:
        return observation
    target = np.where(kept, observation.target, guard.target)
    starting = np.maximum(target - observation.running, 0)
    return replace(observation, target=target, drop=guard.drop, starting=starting)


def plausible(observation: Observation) -> Observation:
    """The observation with NaN for measurements that cannot be right.

    These are negative numbers, and infinite ones except for latency quantiles, in which a request
    that was not served is infinite. So a wrong measurement is missing data of its own job.
    """
    wrong: dict[str, Any] = {}
    for name in MEASURED:
        values = getattr(observation, name)
        if values is None:
            continue
        bad = values < 0
        if name not in MAY_BE_INFINITE:
            bad = bad | np.isinf(values)
        if bad.any():
            wrong[name] = np.where(bad, np.nan, values)
    return replace(observation, **wrong) if wrong else observation


def mask_absent(jobs: tuple[Job, ...], observation: Observation) -> Observation:
    """The observation with minimum replicas for absent jobs, and cores added for these replicas.

    Policies give even absent (not deployed) jobs their minimum replicas. Without the added cores,
    other jobs would lose capacity.
    """
    absent = ~observation.exists
    if not absent.any():
        return observation
    minimum = minimum_replicas(jobs)
    added_cores = float((arrays_of(jobs).cores * minimum)[absent].sum())
    return replace(
        observation,
        capacity=observation.capacity + added_cores,
        target=np.where(absent, minimum, observation.target),
        running=np.where(absent, minimum, observation.running),
        starting=np.where(absent, 0, observation.starting),
        changing=observation.changing & ~absent,
        drop=np.where(absent, 0.0, observation.drop),
    )


def invalid(plan: Plan, jobs: int) -> str | None:
    """The reason why a plan is invalid, or None if it is valid."""
    for field in ("target", "drop"):
        shape = np.shape(getattr(plan, field))
        if shape != (jobs,):
            return f"plan.{field} has shape {shape}; expected ({jobs} jobs,)"
    whole = np.isfinite(plan.target) & (plan.target % 1 == 0)
    if plan.target.dtype.kind != "i" and not whole.all():
        return f"plan.target={plan.target.tolist()} must be whole numbers"
    if not ((plan.drop >= 0) & (plan.drop <= 1)).all():
        return f"plan.drop={plan.drop.tolist()} must lie in [0, 1]"
    if len(plan.reason) != jobs:
        return f"plan.reason has {len(plan.reason)} entries; expected {jobs}"
    return None
