"""Guardrails: pure functions that keep every plan within limits, whatever the policy returns.

A tick calls them in this order: `restore_targets` undoes changes that something else made, `mask_absent` hides jobs that
do not exist from the policy, `guarded` limits its plan, and `enforce_capacity` checks the final targets. A job that a
guardrail changed has the guardrail's reason in the plan.
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
    PLAN_ATTEMPTS,
    RATE_LIMIT,
    Observation,
    Plan,
    hold,
    minimum_replicas,
)
from faro_lib.workload import Job, arrays_of
from faro_lib.workload.jobs import MINUTE_S, TOLERANCE

FAIL_MODES = ("hold", "fair-share")


@dataclass(frozen=True, slots=True)
class GuardrailConfig:
    """The limits that an operator sets.

    Attributes
    ----------
    fail_mode : "hold" (keep the targets) or "fair-share", if data is missing or the policy failed or was too slow.
    max_scaling_actions : replicas that one decision may start or stop, None for any number; a start and the stops that
        make room for it are one action. The most valuable starts (the plan's `marginal_value_down`) come first, with the
        least valuable stops (`marginal_value_up`); without these values, the jobs in their order.
    stale_after_s : seconds without a job's data after which the fail mode applies to it. Data is missing if the count of
        the last complete minute or the mean latency is NaN; it is never read as zero.
    deadline_s : seconds after which a decision is discarded, None for no deadline. It is checked after the decision; a
        policy that never returns must be stopped from outside.
    """

    fail_mode: str = "hold"
    max_scaling_actions: int | None = None
    stale_after_s: float = 60.0
    deadline_s: float | None = None

    def __post_init__(self) -> None:
        actions, deadline_s = self.max_scaling_actions, self.deadline_s
        if self.fail_mode not in FAIL_MODES:
            raise ValueError(f"fail_mode={self.fail_mode!r} is unknown; accepted: {', '.join(FAIL_MODES)}")
        if actions is not None and (actions != int(actions) or actions < 0):
            raise ValueError(f"max_scaling_actions={actions!r} must be None or a whole number >= 0")
        if not self.stale_after_s >= 0:
            raise ValueError(f"stale_after_s={self.stale_after_s!r} must be a number >= 0")
        if deadline_s is not None and not deadline_s > 0:
            raise ValueError(f"deadline_s={deadline_s!r} must be None or a number > 0")


GUARDRAILS = GuardrailConfig()


@dataclass(frozen=True, slots=True)
class Guard:
    """What the guardrails remember; arrays (jobs,)."""

    known_s: np.ndarray  # the last time at which the job's data was available
    target: np.ndarray | None = None  # as last requested; None before the first request
    drop: np.ndarray | None = None
    present: np.ndarray | None = None  # whether the job existed at the last observation; None = every job

    def updated(self, observation: Observation) -> Guard:
        """The guard after noting which jobs have data."""
        known = np.isfinite(observation.mean_latency_s)
        if observation.arrivals_per_min.shape[1]:
            known &= np.isfinite(observation.arrivals_per_min[:, -1])
        if observation.present is not None:
            known |= ~observation.present
        return replace(self, known_s=np.where(known, observation.now_s, self.known_s))

    def drifted(self, observation: Observation) -> np.ndarray:
        """Jobs whose target or drop rate is not what the controller last applied; bool (jobs,)."""
        if self.target is None or self.drop is None:
            return np.zeros(len(observation.target), bool)
        return (observation.target != self.target) | (observation.drop != self.drop)


def restore_targets(guard: Guard, observation: Observation) -> Observation:
    """The observation with targets and drop rates as requested, so that the policy decides as if nothing had drifted."""
    if guard.target is None or guard.drop is None:
        return observation
    starting = np.maximum(guard.target - observation.running, 0)
    return replace(observation, target=guard.target, drop=guard.drop, starting=starting)


def mask_absent(jobs: tuple[Job, ...], observation: Observation) -> Observation:
    """The observation in which absent jobs have their minimum and the capacity is larger by just that.

    Policies give every job its minimum, so they need not know which jobs exist.
    """
    if observation.present is None or observation.present.all():
        return observation
    absent, minimum = ~observation.present, minimum_replicas(jobs)
    reserved = float((arrays_of(jobs).cores * minimum)[absent].sum())
    return replace(
        observation,
        capacity=observation.capacity + reserved,
        target=np.where(absent, minimum, observation.target),
        running=np.where(absent, minimum, observation.running),
        starting=np.where(absent, 0, observation.starting),
        changing=observation.changing & ~absent,
        drop=np.where(absent, 0.0, observation.drop),
    )


def without_data(last: Observation, now_s: float) -> Observation:
    """The last observation at a later time, with everything that may have changed since marked as missing."""
    missing, minute = np.full(len(last.target), np.nan), max(last.minute, int(now_s // MINUTE_S))
    history = np.hstack([last.arrivals_per_min, np.full((len(missing), minute - last.minute), np.nan)])
    return replace(
        last,
        now_s=now_s,
        minute=minute,
        arrivals_per_min=history[:, -HISTORY_MINUTES:] if minute > last.minute else last.arrivals_per_min,
        mean_latency_s=missing,
        tail_latency_s=missing,
        ongoing=missing,
        arrivals_now=None,
    )


def invalid(plan: Plan, jobs: int) -> str | None:
    """Why a plan cannot be carried out; None if it can."""
    for field in ("target", "drop"):
        shape = np.shape(getattr(plan, field))
        if shape != (jobs,):
            return f"plan.{field} has shape {shape}; expected ({jobs} jobs,)"
    if plan.target.dtype.kind != "i" and not (np.isfinite(plan.target) & (plan.target % 1 == 0)).all():
        return f"plan.target={plan.target.tolist()} must be whole numbers"
    if not ((plan.drop >= 0) & (plan.drop <= 1)).all():
        return f"plan.drop={plan.drop.tolist()} must lie in [0, 1]"
    if len(plan.reason) != jobs:
        return f"plan.reason has {len(plan.reason)} entries; expected {jobs}"
    return None


def guarded(
    guardrails: GuardrailConfig,
    jobs: tuple[Job, ...],
    guard: Guard,
    visible: Observation,
    plan: Plan,
    *,
    drifted: np.ndarray,
    void: str | None = None,
) -> Plan:
    """The plan within the guardrails.

    `visible` is what the policy observed, `drifted` the jobs whose targets were restored, bool (jobs,), and `void` the
    reason why the plan does not count, or None.
    """
    arrays = arrays_of(jobs)
    stale = visible.now_s - guard.known_s > guardrails.stale_after_s
    if void or stale.any():
        safe = fallback(guardrails, jobs, visible)
        if void:
            plan = replace(safe, reason=(void,) * len(jobs))
        # The plan keeps its predictions for stale jobs, which rest on old data.
        plan = replace(
            plan,
            target=np.where(stale, safe.target, plan.target),
            drop=np.where(stale, safe.drop, plan.drop),
            reason=with_reason(plan.reason, stale, MISSING),
            attempts=max(safe.attempts, plan.attempts),
        )
    outside = (plan.target < arrays.min_replicas) | (plan.target > arrays.max_replicas)
    if visible.present is not None:
        outside &= visible.present
    if outside.any():
        within = np.clip(plan.target, arrays.min_replicas, arrays.max_replicas)
        target = np.where(outside, within, plan.target)
        plan = replace(plan, target=target, reason=with_reason(plan.reason, outside, BOUNDS))
    if guardrails.max_scaling_actions is not None:
        actions = guardrails.max_scaling_actions
        target = limit_scaling_actions(plan, visible.target, visible.capacity, arrays.cores, actions)
        plan = replace(plan, target=target, reason=with_reason(plan.reason, target != plan.target, RATE_LIMIT))
    if visible.present is not None or guard.present is not None:
        plan = with_presence(jobs, guard, visible, plan)
    if drifted.any():
        held = drifted & np.array([why == HOLD for why in plan.reason])
        if visible.present is not None:
            held &= visible.present
        plan = replace(plan, reason=with_reason(plan.reason, held, DRIFT_CORRECTED))
    return plan


def with_reason(reason: tuple[str, ...], where: np.ndarray, new: str) -> tuple[str, ...]:
    """The reasons with `new` for the jobs in `where`, bool (jobs,)."""
    return tuple(new if changed else old for old, changed in zip(reason, where)) if where.any() else reason


def fallback(guardrails: GuardrailConfig, jobs: tuple[Job, ...], visible: Observation) -> Plan:
    """The plan of the fail mode; it holds if the minima do not fit the capacity, as then no fair share exists."""
    fits = float(minimum_replicas(jobs) @ arrays_of(jobs).cores) <= visible.capacity + TOLERANCE
    if guardrails.fail_mode != "fair-share" or not fits:
        return hold(visible)
    target = fair_share(jobs, visible.capacity, visible.present)
    return Plan(target, np.zeros(len(target)), (HOLD,) * len(target), PLAN_ATTEMPTS)


def limit_scaling_actions(plan: Plan, now: np.ndarray, capacity: float, cores: np.ndarray, actions: int) -> np.ndarray:
    """The plan's targets, or the first `actions` steps towards them; see `GuardrailConfig.max_scaling_actions`.

    >>> plan = Plan(np.array([3, 1, 4]), np.zeros(3), (HOLD,) * 3)
    >>> limit_scaling_actions(plan, np.array([2, 4, 2]), capacity=8, cores=np.ones(3), actions=2).tolist()
    [3, 2, 3]
    """
    change = plan.target.astype(np.int64) - now
    if np.abs(change).sum() <= actions:
        return plan.target
    # NaN at a bound: a job at its minimum needs its start most, one at its maximum misses a stop least.
    unknown = np.zeros(len(now))
    gain = unknown if plan.marginal_value_down is None else np.nan_to_num(plan.marginal_value_down, nan=np.inf)
    loss = unknown if plan.marginal_value_up is None else np.nan_to_num(plan.marginal_value_up)
    starts = [job for job in np.argsort(-gain, kind="stable") for _ in range(max(0, change[job]))]
    stops = [job for job in np.argsort(loss, kind="stable") for _ in range(max(0, -change[job]))]
    target, free = now.copy(), capacity - float(now @ cores)
    for _ in range(actions):
        if starts:
            start = starts.pop(0)
            while stops and free < cores[start] - TOLERANCE:
                target[stop := stops.pop(0)] -= 1
                free += cores[stop]
            target[start] += 1
            free -= cores[start]
        elif stops:
            target[stops.pop(0)] -= 1
    return target


def with_presence(jobs: tuple[Job, ...], guard: Guard, visible: Observation, plan: Plan) -> Plan:
    """The plan in which a job that was just added starts with its minimum and one that is absent has nothing."""
    every = np.ones(len(plan.target), bool)
    present = every if visible.present is None else visible.present
    before = every if guard.present is None else guard.present
    if guard.target is None:  # at the first tick no job is new
        before = present
    added, removed = present & ~before, ~present & before
    reason = with_reason(with_reason(plan.reason, ~present, HOLD), removed, JOB_REMOVED)
    return replace(
        plan,
        target=np.where(added, minimum_replicas(jobs), np.where(present, plan.target, 0)),
        drop=np.where(added | ~present, 0.0, plan.drop),
        reason=with_reason(reason, added, JOB_ADDED),
    )


def enforce_capacity(
    jobs: tuple[Job, ...], observation: Observation, plan: Plan, target: np.ndarray, pending: Pending
) -> tuple[np.ndarray, Plan, Pending]:
    """Targets that never exceed the capacity, keep the minima, and are 0 for absent jobs, even during changes.

    If the capacity has shrunk or a job was added, replicas are removed one at a time; see `shed`.
    """
    arrays, present = arrays_of(jobs), observation.present
    minimum = arrays.min_replicas
    if present is not None:
        added = np.array([why == JOB_ADDED for why in plan.reason])
        minimum = np.where(added, minimum_replicas(jobs), np.where(present, minimum, 0))
        target = np.where(present, target, 0)
    target = np.maximum(target, minimum)
    if float(target @ arrays.cores) <= observation.capacity + TOLERANCE:
        return target, plan, pending
    fitting = shed(target, minimum, plan.target, observation.capacity, arrays.cores, arrays.weight)
    removed = fitting < target
    reason = with_reason(plan.reason, removed & (fitting < plan.target), CAPACITY)
    # Actions carried over for these jobs were meant for a larger cluster.
    return fitting, replace(plan, reason=reason), pending.only(~removed)


def shed(
    target: np.ndarray,
    minimum: np.ndarray,
    wanted: np.ndarray,
    capacity: float,
    cores: np.ndarray,
    weight: np.ndarray,
) -> np.ndarray:
    """Targets (jobs,) after removing replicas one at a time until they fit.

    The next replica is taken from those that the plan does not want, then from the job with the most cores above its
    minimum, then, if not even the minima fit, from the job of the least weight; the last of equal jobs.
    """
    target = target.copy()
    while float(target @ cores) > capacity + TOLERANCE and target.any():
        above = (target - minimum) * cores
        unwanted = np.where((target > wanted) & (above > 0), above, 0)
        if unwanted.any():
            score = unwanted
        elif (above > 0).any():
            score = above
        else:
            score = -np.where(target > 0, weight, np.inf)
        target[len(score) - 1 - np.argmax(score[::-1])] -= 1
    return target
