"""Guardrails: limits that hold whatever the policy returns.

If another client has changed a job's target, `restore_targets` puts Faro's last request into the observation.
`mask_absent` hides from the policy which jobs are not deployed. `guarded` limits the policy's plan. `enforce_capacity`
reduces the targets to the capacity. A guardrail that changes a job's target also replaces the job's reason in the plan.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from faro_lib.control.clamp import Pending
from faro_lib.policies import protocol
from faro_lib.policies.baselines import fair_share
from faro_lib.policies.protocol import HOLD, Observation, Plan, hold, minimum_replicas
from faro_lib.workload import Job, JobArrays, arrays_of
from faro_lib.workload.jobs import MINUTE_S, TOLERANCE

FAIL_MODES = ("hold", "fair-share")
# At a tick, a job gains CONTEST points if another client has changed its target, and otherwise loses one point. At
# CONTESTED_AT points, Faro leaves the job alone.
CONTEST, CONTESTED_AT = 2, 6


@dataclass(frozen=True, slots=True)
class GuardrailConfig:
    """The limits that an operator sets.

    Attributes
    ----------
    fail_mode : what to do if a job's data is missing, the plan is invalid or the decision is late: "hold" keeps the
        targets, "fair-share" gives equal shares.
    max_scaling_actions : maximum number of replicas that one decision starts or stops; None for no limit. Replicas
        stopped to make room for a new replica do not count. New replicas are started before other replicas are stopped.
        Jobs start replicas in the order of `Plan.marginal_value_down`, highest first. They stop replicas in the order
        of `Plan.marginal_value_up`, lowest first. If the plan has no such values, the order of the jobs applies.
    stale_after_s : seconds without a job's data after which the fail mode applies to the job. Data is missing if the
        request count of the last complete minute or the mean latency is NaN.
    deadline_s : seconds after which a decision is discarded, None for no deadline.
    fixed : names of jobs whose replica count an operator has fixed; this count is their minimum and their maximum.
    force : restore a job's target even if another client keeps changing it.
    """

    fail_mode: str = "hold"
    max_scaling_actions: int | None = None
    stale_after_s: float = 60.0
    deadline_s: float | None = None
    force: bool = False
    fixed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "fixed", tuple(self.fixed))  # a list if read from a journal (JSON)
        actions, deadline_s = self.max_scaling_actions, self.deadline_s
        if self.fail_mode not in FAIL_MODES:
            raise ValueError(
                f"fail_mode={self.fail_mode!r} is unknown; accepted: {', '.join(FAIL_MODES)}"
            )
        if actions is not None and (actions != int(actions) or actions < 0):
            raise ValueError(f"max_scaling_actions={actions!r} must be None or a whole number >= 0")
        if not self.stale_after_s >= 0:
            raise ValueError(f"stale_after_s={self.stale_after_s!r} must be a number >= 0")
        if deadline_s is not None and not deadline_s > 0:
            raise ValueError(f"deadline_s={deadline_s!r} must be None or a number > 0")


GUARDRAILS = GuardrailConfig()


@dataclass(frozen=True, slots=True)
class Guard:
    """The state of the guardrails between ticks; arrays have shape (jobs,)."""

    known_s: (
        np.ndarray
    )  # when the job's data was last available, in seconds since time 0 of the run
    target: np.ndarray | None = None  # last requested targets; None before the first request
    drop: np.ndarray | None = None  # last requested drop rates; None before the first request
    present: np.ndarray | None = (
        None  # bool, the job existed at the last tick; None before the first
    )
    applied: bool = True  # whether the last request was applied
    contest: np.ndarray | int = (
        0  # points for other clients' changes (see CONTEST); constant from CONTESTED_AT on
    )
    advised: np.ndarray | bool = (
        False  # bool, True if Faro only gives advice and leaves the job to its own autoscaler
    )

    def updated(self, observation: Observation) -> Self:
        """This state with `known_s` and `contest` updated by an observation."""
        counted = np.isfinite(observation.arrivals_per_min[:, -1:]).all(
            axis=1
        )  # also true while no minute is complete
        known = np.isfinite(observation.mean_latency_s) & counted | ~observation.exists
        guard = replace(self, known_s=np.where(known, observation.now_s, self.known_s))
        if self.target is None:
            return guard
        before = np.broadcast_to(self.contest, known.shape)
        observed = np.isfinite(
            observation.mean_latency_s
        ).any()  # if no latency is known, the targets may be outdated
        changed = (observation.target != self.target) & observation.exists & self.applied & observed
        changed &= ~self.left(observation)
        after = np.maximum(before + np.where(changed, CONTEST, -1), 0)
        return replace(guard, contest=np.where(before >= CONTESTED_AT, before, after))

    def contested(self, config: GuardrailConfig) -> np.ndarray:
        """Whether Faro leaves a job alone because another client keeps changing its target, bool (jobs,)."""
        return (np.broadcast_to(self.contest, self.known_s.shape) >= CONTESTED_AT) & (
            not config.force
        )

    def drifted(self, observation: Observation) -> np.ndarray:
        """Whether a job's observed target or drop rate differs from the last request, bool (jobs,)."""
        if self.target is None or self.drop is None:
            return np.zeros(len(observation.target), bool)
        return ((observation.target != self.target) | (observation.drop != self.drop)) & ~self.left(
            observation
        )

    def left(self, observation: Observation) -> np.ndarray:
        """Whether a job is left to its own autoscaler, bool (jobs,)."""
        left = np.broadcast_to(self.advised, self.known_s.shape)
        return left if observation.unbounded is None else left | observation.unbounded


def restore_targets(guard: Guard, observation: Observation, contested: np.ndarray) -> Observation:
    """The observation with drop rates and targets as last requested; `contested` jobs (a mask) keep the observed target."""
    if guard.target is None or guard.drop is None:
        return observation
    target = np.where(contested, observation.target, guard.target)
    starting = observation.starting
    if observation.unbounded is None:  # targets are replica counts, not maxReplicas of HPAs
        starting = np.maximum(target - observation.running, 0)
    return replace(observation, target=target, drop=guard.drop, starting=starting)


def mask_absent(jobs: tuple[Job, ...], observation: Observation) -> Observation:
    """Show absent (not deployed) jobs in the observation with their minimum replicas, and add cores for these replicas.

    Policies give even absent jobs their minimum replicas. Without the added cores, other jobs would lose capacity.
    """
    absent, minimum = ~observation.exists, minimum_replicas(jobs)
    if not absent.any():
        return observation
    return replace(
        observation,
        capacity=observation.capacity + float((arrays_of(jobs).cores * minimum)[absent].sum()),
        target=np.where(absent, minimum, observation.target),
        running=np.where(absent, minimum, observation.running),
        starting=np.where(absent, 0, observation.starting),
        changing=observation.changing & ~absent,
        drop=np.where(absent, 0.0, observation.drop),
    )


def without_data(last: Observation, now_s: float) -> Observation:
    """The observation `last`, moved to the time `now_s`, with loads and latencies marked as missing."""
    missing, minute = np.full(len(last.target), np.nan), max(last.minute, int(now_s // MINUTE_S))
    history = np.hstack(
        [last.arrivals_per_min, np.full((len(missing), minute - last.minute), np.nan)]
    )
    return replace(
        last,
        now_s=now_s,
        minute=minute,
        arrivals_per_min=history[:, -protocol.HISTORY_MINUTES :],
        mean_latency_s=missing,
        tail_latency_s=missing,
        ongoing=missing,
        arrivals_now=None,
        failed_per_min=None,
    )


def invalid(plan: Plan, jobs: int) -> str | None:
    """The reason why a plan is invalid, or None if it is valid."""
    for field in ("target", "drop"):
        shape = np.shape(getattr(plan, field))
        if shape != (jobs,):
            return f"plan.{field} has shape {shape}; expected ({jobs} jobs,)"
    if (
        plan.target.dtype.kind != "i"
        and not (np.isfinite(plan.target) & (plan.target % 1 == 0)).all()
    ):
        return f"plan.target={plan.target.tolist()} must be whole numbers"
    if not ((plan.drop >= 0) & (plan.drop <= 1)).all():
        return f"plan.drop={plan.drop.tolist()} must lie in [0, 1]"
    if len(plan.reason) != jobs:
        return f"plan.reason has {len(plan.reason)} entries; expected {jobs}"
    return None


def guarded(
    config: GuardrailConfig,
    jobs: tuple[Job, ...],
    guard: Guard,
    visible: Observation,
    plan: Plan,
    drifted: np.ndarray,
) -> Plan:
    """Limit `plan` by all guardrails except the capacity. `visible` is the observation on which the plan is based."""
    arrays = arrays_of(jobs)
    stale = visible.now_s - guard.known_s > config.stale_after_s
    unsafe = stale & ~guard.advised
    if stale.any():
        safe = fallback(config, jobs, visible)
        plan = replace(
            plan,
            target=np.where(unsafe, safe.target, plan.target),
            drop=np.where(unsafe, safe.drop, plan.drop),
            reason=with_reason(plan.reason, stale, protocol.MISSING),
            attempts=max(safe.attempts, plan.attempts),
        )
    within = np.clip(plan.target, arrays.min_replicas, arrays.max_replicas)
    plan = with_target(
        plan, np.where(visible.exists & ~guard.advised, within, plan.target), protocol.BOUNDS
    )
    if config.fixed:
        fixed = np.array([job.name in config.fixed for job in jobs])
        plan = replace(plan, reason=with_reason(plan.reason, fixed, protocol.OVERRIDE))
    if config.max_scaling_actions is not None:
        target = limit_scaling_actions(
            plan, visible.target, visible.capacity, arrays.cores, config.max_scaling_actions
        )
        plan = with_target(plan, target, protocol.RATE_LIMIT)
    contested = guard.contested(config)
    target = np.where(contested, visible.target, plan.target)
    floor = (
        None
        if plan.floor is None
        else np.where(unsafe | contested, protocol.KEEP_FLOOR, plan.floor)
    )
    plan = replace(
        plan,
        target=target,
        reason=with_reason(plan.reason, contested, protocol.CONTESTED),
        floor=floor,
    )
    plan = with_presence(jobs, guard, visible.exists, plan)
    held = drifted & visible.exists & (np.array(plan.reason) == HOLD)
    return replace(plan, reason=with_reason(plan.reason, held, protocol.DRIFT_CORRECTED))


def with_reason(reason: tuple[str, ...], where: np.ndarray, new: str) -> tuple[str, ...]:
    """The reason of each job, or `new` for jobs in the mask `where`, bool (jobs,)."""
    return (
        tuple(new if changed else old for old, changed in zip(reason, where))
        if where.any()
        else reason
    )


def with_target(plan: Plan, target: np.ndarray, reason: str) -> Plan:
    """The plan with other targets (jobs,), and `reason` for the jobs whose target changes."""
    return replace(
        plan, target=target, reason=with_reason(plan.reason, target != plan.target, reason)
    )


def fallback(config: GuardrailConfig, jobs: tuple[Job, ...], visible: Observation) -> Plan:
    """The plan of the fail mode: equal shares if configured and if all minimum replicas fit, else unchanged targets."""
    if config.fail_mode == "fair-share":
        with suppress(ValueError):  # raised if the minimum replicas exceed the capacity or a quota
            target = fair_share(jobs, visible.capacity, visible.present)
            return Plan(
                target, np.zeros(len(target)), (HOLD,) * len(target), protocol.PLAN_ATTEMPTS
            )
    return hold(visible)


def limit_scaling_actions(
    plan: Plan, now: np.ndarray, capacity: float, cores: np.ndarray, actions: int
) -> np.ndarray:
    """Move the current targets `now` (jobs,) towards the plan by at most `actions` actions (see `GuardrailConfig`).

    >>> plan = Plan(np.array([3, 1, 4]), np.zeros(3), (HOLD,) * 3)
    >>> limit_scaling_actions(plan, np.array([2, 4, 2]), capacity=8, cores=np.ones(3), actions=2).tolist()
    [3, 2, 3]
    """
    change = plan.target.astype(np.int64) - now
    if np.abs(change).sum() <= actions:
        return plan.target
    # marginal_value_down is NaN if a job's planned target is its minimum. Such a job is the first to start replicas.
    # marginal_value_up is NaN if a job's planned target is its maximum. Such a job is the first to stop replicas.
    unknown = np.zeros(len(now))
    gain = (
        unknown
        if plan.marginal_value_down is None
        else np.nan_to_num(plan.marginal_value_down, nan=np.inf)
    )
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


def with_presence(jobs: tuple[Job, ...], guard: Guard, present: np.ndarray, plan: Plan) -> Plan:
    """The plan, except that a job that has just been added gets its minimum replicas, and an absent job gets none."""
    before = (
        present if guard.target is None or guard.present is None else guard.present
    )  # initially, no job is new
    added, removed = present & ~before, ~present & before
    target = np.where(added, minimum_replicas(jobs), np.where(present, plan.target, 0))
    drop = np.where(added | ~present, 0.0, plan.drop)
    reason = with_reason(with_reason(plan.reason, ~present, HOLD), removed, protocol.JOB_REMOVED)
    return replace(
        plan, target=target, drop=drop, reason=with_reason(reason, added, protocol.JOB_ADDED)
    )


def with_delayed_reasons(
    plan: Plan, observation: Observation, target: np.ndarray, pending: Pending
) -> Plan:
    """For jobs that change because an earlier plan's pending target is retried, replace HOLD by that plan's reason."""
    delayed = (target != observation.target) & (np.array(plan.reason) == HOLD)
    reason = tuple(
        old if late else now for now, old, late in zip(plan.reason, pending.reason, delayed)
    )
    return replace(plan, reason=reason)


def enforce_capacity(
    jobs: tuple[Job, ...],
    observation: Observation,
    plan: Plan,
    target: np.ndarray,
    pending: Pending,
    left: np.ndarray,
) -> tuple[np.ndarray, Plan, Pending]:
    """Reduce the targets to fit into the capacity. Return the targets, the plan and the targets still pending.

    Unlike `clamp_to_capacity`, this function also reduces jobs whose count is changing, because the capacity may shrink
    at any time. Jobs keep their minimum replicas if all minimums fit. Jobs in the mask `left` are not reduced, because
    their own autoscaler scales them. A job reduced below its planned target gets the reason CAPACITY.
    """
    arrays, present, why = arrays_of(jobs), observation.exists, np.array(plan.reason)
    own = np.where(left & (plan.floor is None), observation.target, plan.target)
    minimum = np.where(
        present, np.where(left | (why == protocol.CONTESTED), own, arrays.min_replicas), 0
    )
    initial = np.where(why == protocol.JOB_ADDED, minimum_replicas(jobs), minimum)
    target = np.maximum(np.where(present, target, 0), initial)
    fitting = shed(target, initial, minimum, plan.target, observation.capacity, arrays)
    fitting = np.where(left & present, own, fitting)
    removed = fitting < target
    reason = with_reason(plan.reason, removed & (fitting < plan.target), protocol.CAPACITY)
    # Reduced jobs lose their pending targets, which were meant for a larger capacity.
    return fitting, replace(plan, reason=reason), pending.only(~removed)


def shed(
    target: np.ndarray,
    initial: np.ndarray,
    minimum: np.ndarray,
    wanted: np.ndarray,
    capacity: float,
    jobs: JobArrays,
) -> np.ndarray:
    """Remove replicas one by one, in three steps, until the targets (jobs,) fit into the capacity.

    `initial` differs from `minimum` only for jobs that were just added. In a tie, the later job loses a replica first.
    1. Jobs above their planned target (`wanted`) lose replicas until they reach this target or `initial`.
    2. All jobs lose their replicas above `initial`, then those above `minimum`, then those above 1.
    3. Jobs lose their last replica, lowest weight first.
    In steps 1 and 2, the job with the most cores above the bound (`initial`, `minimum` or 1) loses the next replica.
    """
    target = target.copy()
    while float(target @ jobs.cores) > capacity + TOLERANCE and target.any():
        above, over_minimum, over_one = (
            (target - kept) * jobs.cores for kept in (initial, minimum, 1)
        )
        candidates = (np.where(target > wanted, above, 0), above, over_minimum, over_one)
        least_weight = -np.where(target > 0, jobs.weight, np.inf)
        score = next((cores for cores in candidates if (cores > 0).any()), least_weight)
        target[len(score) - 1 - np.argmax(score[::-1])] -= 1
    return target
