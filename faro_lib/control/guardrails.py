"""Guardrails: what holds whatever the policy says. Pure functions of (guardrails, what is remembered, observation, plan).

In the order of a tick: `restore_targets` sees targets as they were asked for, `mask_absent` hides from the policy who is absent, `guarded`
keeps its plan within the guardrails, admission cuts it to the free capacity, `enforce_capacity` sees to it that what is asked of the
cluster fits in any case. Each job that a rule touched says so in the plan's reason.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from faro_lib.control.clamp import Pending
from faro_lib.policies.baselines import fair_share
from faro_lib.policies.protocol import (
    BOUNDS,
    CAPACITY,
    DRIFT_CORRECTED,
    HISTORY_MINUTES,
    HOLD,
    JOB_ADDED,
    JOB_REMOVED,
    MISSING,
    RATE_LIMIT,
    Observation,
    Plan,
)
from faro_lib.workload import Job, jobs_array
from faro_lib.workload.jobs import MINUTE_S

FAIL_MODES = ("hold", "fair-share")
EPSILON = 1e-9  # cores


class PolicyFailed(RuntimeWarning):
    """A policy raised, or its plan made no sense; the loop went on without it."""


@dataclass(frozen=True, slots=True)
class GuardrailConfig:
    """What an operator may choose.

    Attributes
    ----------
    fail_mode : "hold" (stay as asked) or "fair-share" where data is missing, the policy failed or was late.
    max_scaling_actions : replicas that a decision may move, None for any number; a start together with the stops that it needs is
        one move. The starts that the plan values most come first (its `marginal_value_down`), and the stops that it misses least
        (`marginal_value_up`), where it tells; else the order of the jobs.
    stale_after_s : a job's data may be missing for so long before the policy's word on it no longer counts. Missing means
        that the last complete minute's count or the mean latency is NaN; that is never read as zero.
    deadline_s : a decision that took longer is not carried out; None for no deadline. It is measured, not enforced: a
        policy that never answers must be stopped from outside.
    """

    fail_mode: str = "hold"
    max_scaling_actions: int | None = None
    stale_after_s: float = 60.0
    deadline_s: float | None = None

    def __post_init__(self):
        if self.fail_mode not in FAIL_MODES:
            raise ValueError(f"fail_mode={self.fail_mode!r} is unknown; accepted: {', '.join(FAIL_MODES)}")
        if self.max_scaling_actions is not None and (
            self.max_scaling_actions != int(self.max_scaling_actions) or self.max_scaling_actions < 0
        ):
            raise ValueError(f"max_scaling_actions={self.max_scaling_actions!r} must be None or a whole number >= 0")
        if not self.stale_after_s >= 0:
            raise ValueError(f"stale_after_s={self.stale_after_s!r} must be a number >= 0")
        if self.deadline_s is not None and not self.deadline_s > 0:
            raise ValueError(f"deadline_s={self.deadline_s!r} must be None or a number > 0")


@dataclass(frozen=True, slots=True)
class Limits:
    """What the jobs themselves allow; arrays (jobs,)."""

    jobs: tuple[Job, ...]
    cores: np.ndarray
    fewest: np.ndarray
    most: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, jobs: tuple[Job, ...]) -> Limits:
        return cls(
            jobs, *(jobs_array(jobs, field) for field in ("cores", "min_replicas", "max_replicas", "weight"))
        )  # fmt: skip

    @property
    def at_start(self) -> np.ndarray:
        """Replicas that a job begins with."""
        return np.maximum(1, self.fewest)


@dataclass(frozen=True, slots=True)
class Guard:
    """What the guardrails remember; arrays (jobs,).

    Attributes
    ----------
    target, drop : as last asked; None before the first time.
    known_s : the instant at which the job's data was last there.
    present : whether the job was there at the last look; None = every job.
    """

    known_s: np.ndarray
    target: np.ndarray | None = None
    drop: np.ndarray | None = None
    present: np.ndarray | None = None

    @classmethod
    def start(cls, jobs: int, start_s: float) -> Guard:
        return cls(np.full(jobs, start_s))

    def after(self, target: np.ndarray, drop: np.ndarray, observation: Observation) -> Guard:
        return Guard(self.known_s, target, drop, observation.present)


def restore_targets(guard: Guard, observation: Observation) -> tuple[Guard, Observation]:
    """Take notice of what data there is, and see targets and drop rates as they were asked for.

    If somebody else has reset them, the policy decides as if nothing had happened, and what it decides is asserted again.
    """
    here = np.isfinite(observation.mean_latency_s)
    if observation.arrivals_per_min.shape[1]:
        here = here & np.isfinite(observation.arrivals_per_min[:, -1])
    if observation.present is not None:
        here = here | ~observation.present
    guard = replace(guard, known_s=np.where(here, observation.now_s, guard.known_s))
    if guard.target is not None and guard.drop is not None and was_reset(guard, observation).any():
        starting = np.maximum(guard.target - observation.running, 0)
        observation = replace(observation, target=guard.target, drop=guard.drop, starting=starting)
    return guard, observation


def mask_absent(limits: Limits, intended: Observation) -> Observation:
    """What the policy sees of absent jobs: that they have their minimum, outside the capacity.

    Policies give everybody the minimum; so they need not know who is there.
    """
    if intended.present is None or intended.present.all():
        return intended
    absent = ~intended.present
    lent = float((limits.cores * limits.at_start)[absent].sum())
    return replace(
        intended,
        capacity=intended.capacity + lent,
        target=np.where(absent, limits.at_start, intended.target),
        running=np.where(absent, limits.at_start, intended.running),
        starting=np.where(absent, 0, intended.starting),
        changing=intended.changing & ~absent,
        drop=np.where(absent, 0.0, intended.drop),
    )


def was_reset(guard: Guard, observation: Observation) -> np.ndarray:
    """Jobs whose target or drop rate is not what was asked; bool (jobs,)."""
    return (observation.target != guard.target) | (observation.drop != guard.drop)


def without_data(last: Observation, now_s: float) -> Observation:
    """The last observation at a later instant: what may have changed since is missing."""
    jobs = len(last.target)
    nothing, minute = np.full(jobs, np.nan), max(last.minute, int(now_s // MINUTE_S))
    unseen = np.full((jobs, minute - last.minute), np.nan)
    history = np.hstack([last.arrivals_per_min, unseen])[:, -HISTORY_MINUTES:]
    return replace(
        last,
        now_s=now_s,
        minute=minute,
        arrivals_per_min=history if unseen.shape[1] else last.arrivals_per_min,
        mean_latency_s=nothing,
        tail_latency_s=nothing,
        ongoing=nothing,
        arrivals_now=None,
    )


def unsound(plan: Plan, jobs: int) -> str | None:
    """What is wrong with a plan, in words; None if it can be carried out."""
    for field in ("target", "drop"):
        values = np.asarray(getattr(plan, field))
        if values.shape != (jobs,):
            return f"plan.{field} has shape {values.shape}; expected ({jobs} jobs,)"
    if plan.target.dtype.kind != "i" and not (np.isfinite(plan.target) & (plan.target % 1 == 0)).all():
        return f"plan.target={plan.target.tolist()} must be whole numbers"
    if not ((plan.drop >= 0) & (plan.drop <= 1)).all():
        return f"plan.drop={plan.drop.tolist()} must lie in [0, 1]"
    if len(plan.reason) != jobs:
        return f"plan.reason has {len(plan.reason)} entries; expected {jobs}"
    return None


def guarded(
    guardrails: GuardrailConfig,
    limits: Limits,
    guard: Guard,
    observation: Observation,
    seen: Observation,
    plan: Plan,
    failure: str | None = None,
) -> Plan:
    """The plan within the guardrails.

    Parameters
    ----------
    guard : as `restore_targets` returned it.
    observation, seen : what there is, and what the policy saw of it.
    failure : a reason why the plan does not count, or None.
    """
    jobs = len(plan.target)
    if failure:
        target, drop, attempts = fallback(guardrails, limits, seen)
        plan = Plan(target, drop, (failure,) * jobs, attempts)
    stale = seen.now_s - guard.known_s > guardrails.stale_after_s
    if stale.any():
        target, drop, attempts = fallback(guardrails, limits, seen)
        # The plan's reasons for what it expects of these jobs rest on nothing.
        plan = replace(
            plan,
            target=np.where(stale, target, plan.target),
            drop=np.where(stale, drop, plan.drop),
            reason=told(plan.reason, stale, MISSING),
            attempts=max(attempts, plan.attempts),
        )
    outside = (plan.target < limits.fewest) | (plan.target > limits.most)
    if seen.present is not None:
        outside &= seen.present
    if outside.any():
        within = np.where(outside, np.clip(plan.target, limits.fewest, limits.most), plan.target)
        plan = replace(plan, target=within, reason=told(plan.reason, outside, BOUNDS))
    if guardrails.max_scaling_actions is not None:
        target = limit_scaling_actions(plan, seen.target, seen.capacity, limits.cores, guardrails.max_scaling_actions)
        plan = replace(plan, target=target, reason=told(plan.reason, target != plan.target, RATE_LIMIT))
    if seen.present is not None or guard.present is not None:
        plan = with_presence(limits, guard, seen, plan)
    if seen is not observation and guard.target is not None:
        reset = was_reset(guard, observation) & (np.array(plan.reason) == HOLD)
        if observation.present is not None:
            reset &= observation.present
        plan = replace(plan, reason=told(plan.reason, reset, DRIFT_CORRECTED))
    return plan


def told(reason: tuple[str, ...], where: np.ndarray, why: str) -> tuple[str, ...]:
    return tuple(why if changed else old for old, changed in zip(reason, where)) if where.any() else reason


def fallback(guardrails: GuardrailConfig, limits: Limits, seen: Observation) -> tuple[np.ndarray, np.ndarray, int]:
    """Target, drop and attempts without a plan; where the minima do not fit there is no fair share, so it holds."""
    fits = float(limits.at_start @ limits.cores) <= seen.capacity + EPSILON
    if guardrails.fail_mode == "fair-share" and fits:
        return fair_share(limits.jobs, seen.capacity, seen.present), np.zeros(len(seen.target)), 5
    return seen.target, seen.drop, 1


def limit_scaling_actions(plan: Plan, now: np.ndarray, capacity: float, cores: np.ndarray, moves: int) -> np.ndarray:
    """The plan's targets, or the first `moves` moves towards them; see `GuardrailConfig.max_scaling_actions`.

    >>> plan = Plan(np.array([3, 1, 4]), np.zeros(3), (HOLD,) * 3)
    >>> limit_scaling_actions(plan, np.array([2, 4, 2]), capacity=8, cores=np.ones(3), moves=2).tolist()
    [3, 2, 3]
    """
    change = plan.target.astype(np.int64) - now
    if np.maximum(change, 0).sum() + np.maximum(-change, 0).sum() <= moves:
        return plan.target
    # A job has no value of one less where it must not have less, and none of one more where it gains nothing.
    gain = (
        np.zeros(len(now)) if plan.marginal_value_down is None else np.nan_to_num(plan.marginal_value_down, nan=np.inf)
    )
    miss = np.zeros(len(now)) if plan.marginal_value_up is None else np.nan_to_num(plan.marginal_value_up)
    starts = [job for job in np.argsort(-gain, kind="stable") for _ in range(max(0, change[job]))]
    stops = [job for job in np.argsort(miss, kind="stable") for _ in range(max(0, -change[job]))]
    target, free = now.copy(), capacity - float(now @ cores)
    for _ in range(moves):
        if starts:
            start = starts.pop(0)
            while stops and free < cores[start] - EPSILON:
                target[stop := stops.pop(0)] -= 1
                free += cores[stop]
            target[start] += 1
            free -= cores[start]
        elif stops:
            target[stops.pop(0)] -= 1
    return target


def with_presence(limits: Limits, guard: Guard, seen: Observation, plan: Plan) -> Plan:
    """A job that has just appeared starts with its minimum; one that has left has nothing."""
    everybody = np.ones(len(plan.target), bool)
    present = everybody if seen.present is None else seen.present
    first_look = guard.target is None
    before = present if first_look else everybody if guard.present is None else guard.present
    came, left = present & ~before, ~present & before
    reason = told(told(plan.reason, ~present, HOLD), left, JOB_REMOVED)
    return replace(
        plan,
        target=np.where(came, limits.at_start, np.where(present, plan.target, 0)),
        drop=np.where(came | ~present, 0.0, plan.drop),
        reason=told(reason, came, JOB_ADDED),
    )


def enforce_capacity(
    limits: Limits, observation: Observation, plan: Plan, target: np.ndarray, pending: Pending
) -> tuple[np.ndarray, Plan, Pending]:
    """What is asked of the cluster fits it, though a change be going on: minima are kept, absent jobs hold nothing, and
    the capacity is never exceeded.

    If it is (it has shrunk, or a job has appeared), replicas go one at a time: first those that the plan does not want,
    then of the job with the most cores above its minimum, the later one among equals. Only where not even the minima fit
    do they go too, of the job of the least weight first, the later one among equals.
    """
    fewest, present = limits.fewest, observation.present
    if present is not None:
        fewest = np.where(present, fewest, 0)
        came = np.array([why == JOB_ADDED for why in plan.reason])
        fewest = np.where(came, limits.at_start, fewest)
        target = np.where(present, target, 0)
    target = np.maximum(target, fewest)
    if float(target @ limits.cores) <= observation.capacity + EPSILON:
        return target, plan, pending
    shed = within_capacity(limits, fewest, observation.capacity, plan.target, target)
    lost = shed < target
    # What was carried over for these jobs belongs to a larger cluster.
    return shed, replace(plan, reason=told(plan.reason, lost & (shed < plan.target), CAPACITY)), pending.only(~lost)


def within_capacity(limits: Limits, fewest, capacity: float, wanted, target) -> np.ndarray:
    """Targets (jobs,) shed until they fit; see `enforce_capacity` for the order."""
    target = target.copy()
    latest = np.arange(len(target))
    while float(target @ limits.cores) > capacity + EPSILON and target.any():
        above = (target - fewest) * limits.cores
        unwanted = np.where((target > wanted) & (above > 0), above, 0)
        if unwanted.any():
            order = np.lexsort((latest, unwanted))
        elif (above > 0).any():
            order = np.lexsort((latest, above))
        else:
            order = np.lexsort((latest, -np.where(target > 0, limits.weight, np.inf)))
        target[order[-1]] -= 1
    return target
