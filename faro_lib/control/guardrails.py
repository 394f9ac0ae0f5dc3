"""Guardrails: limits that hold whatever the policy returns.

If another client has changed a job's target, `restore_targets` puts Faro's last request into the
observation. `mask_absent` hides from the policy which jobs are not deployed. `guarded` limits the
policy's plan. `enforce_capacity` reduces the targets to the capacity. A guardrail that changes a
job's target also replaces the job's reason in the plan.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from faro_lib import protocol
from faro_lib.control.clamp import Pending
from faro_lib.protocol import HOLD, Observation, Plan, hold
from faro_lib.workload import Job, JobArrays, arrays_of
from faro_lib.workload.jobs import TOLERANCE
from faro_lib.workload.shares import fair_share, minimum_replicas

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
    deadline_s : seconds after which a live loop discards a decision, None for no deadline.
    max_scale_down : largest share of all replicas that a live loop removes within a minute, over
        all jobs; it may always remove one. None for no limit.
    fixed : names of jobs whose replica count an operator has fixed; this count is their minimum
        and their maximum.
    force : restore a job's target even if another client keeps changing it.
    """

    fail_mode: str = "hold"
    max_scaling_actions: int | None = None
    stale_after_s: float = 60.0
    deadline_s: float | None = None
    force: bool = False
    fixed: tuple[str, ...] = ()
    max_scale_down: float | None = None

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
        if self.max_scale_down is not None and not 0 <= self.max_scale_down <= 1:
            raise ValueError(
                f"max_scale_down={self.max_scale_down!r} must be None or a number from 0 to 1"
            )


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


def guarded(
    config: GuardrailConfig,
    jobs: tuple[Job, ...],
    guard: Guard,
    visible: Observation,
    plan: Plan,
    left: np.ndarray,
    drifted: np.ndarray,
) -> Plan:
    """Limit `plan` by all guardrails except the capacity.

    `visible` is the observation on which the plan is based. `left` and `drifted` are masks (jobs,)
    of the jobs that the plan leaves to another controller, and of those whose target that one
    changed.
    """
    arrays = arrays_of(jobs)
    stale = (visible.now_s - guard.known_s > config.stale_after_s) | guard.waiting
    stale = stale | (np.array(plan.reason) == protocol.MISSING)  # the policy has no data at all
    if stale.any():
        plan = without_stale_jobs(config, jobs, visible, plan, stale, left)

    within = np.clip(plan.target, arrays.min_replicas, arrays.max_replicas)
    bounded = visible.exists & ~left
    plan = with_target(plan, np.where(bounded, within, plan.target), protocol.BOUNDS)
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
    reason = with_reason(plan.reason, contested, protocol.CONTESTED)
    plan = with_presence(jobs, guard, visible, replace(plan, target=target, reason=reason))
    held = drifted & visible.exists & (np.array(plan.reason) == HOLD)
    return replace(plan, reason=with_reason(plan.reason, held, protocol.DRIFT_CORRECTED))


def without_stale_jobs(
    config: GuardrailConfig,
    jobs: tuple[Job, ...],
    visible: Observation,
    plan: Plan,
    stale: np.ndarray,
    left: np.ndarray,
) -> Plan:
    """The plan, but the fail mode decides for the `stale` jobs, whose data is missing too long."""
    safe = fallback(config, jobs, visible)
    unsafe = stale & ~left
    return replace(
        plan,
        target=np.where(unsafe, safe.target, plan.target),
        drop=np.where(unsafe, safe.drop, plan.drop),
        reason=with_reason(plan.reason, stale, protocol.MISSING),
        attempts=max(safe.attempts, plan.attempts),
    )


def with_reason(reason: tuple[str, ...], where: np.ndarray, new: str) -> tuple[str, ...]:
    """The reason of each job, or `new` for jobs in the mask `where`, bool (jobs,)."""
    if not where.any():
        return reason
    return tuple(new if changed else old for old, changed in zip(reason, where))


def with_target(plan: Plan, target: np.ndarray, reason: str) -> Plan:
    """The plan with other targets (jobs,), and `reason` for the jobs whose target changes."""
    changed = target != plan.target
    return replace(plan, target=target, reason=with_reason(plan.reason, changed, reason))


def fallback(config: GuardrailConfig, jobs: tuple[Job, ...], visible: Observation) -> Plan:
    """The plan of the fail mode.

    It has equal shares if that is configured and if all minimum replicas fit. Otherwise, targets
    stay as they are.
    """
    if config.fail_mode == "fair-share":
        with suppress(ValueError):  # raised if the minimum replicas exceed capacity or a quota
            target = fair_share(jobs, visible.capacity, visible.present)
            held = (HOLD,) * len(target)
            return Plan(target, np.zeros(len(target)), held, protocol.PLAN_ATTEMPTS)
    return hold(visible)


def limit_scaling_actions(
    plan: Plan,
    now: np.ndarray,
    capacity: float,
    cores: np.ndarray,
    actions: float,
    stops: float = np.inf,
) -> np.ndarray:
    """Move the current targets `now` (jobs,) towards the plan by at most `actions` actions.

    See `GuardrailConfig.max_scaling_actions` for what counts. At most `stops` replicas are stopped,
    including those that make room for a new replica. A replica that finds no room is not started.

    >>> plan = Plan(np.array([3, 1, 4]), np.zeros(3), (HOLD,) * 3)
    >>> now, cores = np.array([2, 4, 2]), np.ones(3)
    >>> limit_scaling_actions(plan, now, capacity=8, cores=cores, actions=2).tolist()
    [3, 2, 3]
    >>> limit_scaling_actions(plan, now, capacity=8, cores=cores, actions=9, stops=1).tolist()
    [3, 3, 2]
    """
    change = plan.target.astype(np.int64) - now
    if np.abs(change).sum() <= actions and np.maximum(-change, 0).sum() <= stops:
        return plan.target
    gain, loss = np.zeros(len(now)), np.zeros(len(now))
    if plan.marginal_value_down is not None:
        # NaN: the planned target is the job's minimum. Such a job is the first to start replicas.
        gain = np.nan_to_num(plan.marginal_value_down, nan=np.inf)
    if plan.marginal_value_up is not None:
        # NaN: the planned target is the job's maximum. Such a job is the first to stop replicas.
        loss = np.nan_to_num(plan.marginal_value_up)
    to_start = [job for job in np.argsort(-gain, kind="stable") for _ in range(max(0, change[job]))]
    to_stop = [job for job in np.argsort(loss, kind="stable") for _ in range(max(0, -change[job]))]
    target, free = now.copy(), capacity - float(now @ cores)
    while actions > 0 and (to_start or (to_stop and stops > 0)):
        if to_start:
            start = to_start.pop(0)
            while to_stop and stops > 0 and free < cores[start] - TOLERANCE:
                stop = to_stop.pop(0)
                target[stop] -= 1
                free += cores[stop]
                stops -= 1
            if to_stop and free < cores[start] - TOLERANCE:
                continue
            target[start] += 1
            free -= cores[start]
        else:
            target[to_stop.pop(0)] -= 1
            stops -= 1
        actions -= 1
    return target


def with_presence(jobs: tuple[Job, ...], guard: Guard, visible: Observation, plan: Plan) -> Plan:
    """The plan with the first replicas of jobs just added, and none for absent jobs.

    An added job keeps the replicas that it has already, but gets at least its minimum. Only a job
    that never existed before has the reason JOB_ADDED.
    """
    present = visible.exists
    added, removed = guard.added(present), guard.before(present) & ~present
    minimum = minimum_replicas(jobs)
    most = np.maximum(arrays_of(jobs).max_replicas, minimum)
    first = np.clip(visible.target, minimum, most)
    target = np.where(added, first, np.where(present, plan.target, 0))
    drop = np.where(added | ~present, 0.0, plan.drop)
    reason = with_reason(plan.reason, ~present | added, HOLD)
    reason = with_reason(reason, added & (first != visible.target), protocol.BOUNDS)
    reason = with_reason(reason, removed, protocol.JOB_REMOVED)
    reason = with_reason(reason, added & ~np.array(guard.seen), protocol.JOB_ADDED)
    return replace(plan, target=target, drop=drop, reason=reason)


def with_delayed_reasons(
    plan: Plan, observation: Observation, target: np.ndarray, pending: Pending
) -> Plan:
    """The plan with the reasons of earlier plans for the jobs whose pending target is retried."""
    delayed = (target != observation.target) & (np.array(plan.reason) == HOLD)
    reason = tuple(
        earlier if late else now for now, earlier, late in zip(plan.reason, pending.reason, delayed)
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
    """Reduce the targets to the capacity; return the targets, the plan and the pending targets.

    Unlike `clamp_to_capacity`, this function also reduces jobs whose count is changing, because the
    capacity may shrink at any time. Jobs keep their minimum replicas if all minimums fit. Jobs in
    the mask `left` are not reduced, because another controller scales them. A job reduced below its
    planned target gets the reason CAPACITY.
    """
    arrays, present, why = arrays_of(jobs), observation.exists, np.array(plan.reason)
    kept = left | (why == protocol.CONTESTED)
    minimum = np.where(kept, plan.target, arrays.min_replicas)
    minimum = np.where(present, minimum, 0)
    initial = np.where(why == protocol.JOB_ADDED, minimum_replicas(jobs), minimum)
    target = np.maximum(np.where(present, target, 0), initial)
    fitting = shed(target, initial, minimum, plan.target, observation.capacity, arrays)
    fitting = np.where(left & present, plan.target, fitting)
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

    `initial` differs from `minimum` only for jobs that were just added. In a tie, the later job
    loses a replica first.
    1. Jobs above their planned target (`wanted`) lose replicas until they reach it or `initial`.
    2. All jobs lose their replicas above `initial`, then above `minimum`, then above 1.
    3. Jobs lose their last replica, lowest weight first.
    In steps 1 and 2, the job with the most cores above the bound (`initial`, `minimum` or 1) loses
    the next replica.
    """
    target = target.copy()
    while float(target @ jobs.cores) > capacity + TOLERANCE and target.any():
        above_initial = (target - initial) * jobs.cores
        above_plan = np.where(target > wanted, above_initial, 0)
        above_minimum = (target - minimum) * jobs.cores
        above_one = (target - 1) * jobs.cores
        score = -np.where(target > 0, jobs.weight, np.inf)  # step 3
        for cores_above in (above_plan, above_initial, above_minimum, above_one):
            if (cores_above > 0).any():
                score = cores_above
                break
        last_of_highest = len(score) - 1 - np.argmax(score[::-1])
        target[last_of_highest] -= 1
    return target
