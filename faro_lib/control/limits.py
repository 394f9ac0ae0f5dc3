"""What limits a plan: an ordered list of rules that hold whatever the policy returns.

Each rule takes what is wanted and what is known, and returns what is wanted after it. A rule that
changes a job's target also replaces the job's reason. The rules of `LIMITS` apply in simulations
and live; a live loop passes more of them (`faro_ops.operate.limits`).
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from faro_lib import protocol
from faro_lib.control.clamp import Pending, clamp_to_capacity
from faro_lib.control.guardrails import Guard, GuardrailConfig
from faro_lib.protocol import HOLD, Observation, Plan, hold
from faro_lib.workload import Job, JobArrays, arrays_of
from faro_lib.workload.jobs import TOLERANCE
from faro_lib.workload.shares import fair_share, minimum_replicas


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be requested, while the rules limit it."""

    plan: Plan  # with the planned targets, drop rates and reasons
    target: np.ndarray  # (jobs,) replicas to request at this tick
    pending: Pending  # targets that later ticks retry


@dataclass(frozen=True, slots=True)
class Known:
    """What the rules know; masks are bool (jobs,).

    There are three views of the cluster. `observation` is what was measured, with a finite
    capacity; the capacity is enforced on it. `intended` has Faro's last requests where another
    client changed a target; plans are clamped from there. `visible` also hides which jobs are
    absent; the policy has seen it.
    """

    config: GuardrailConfig
    jobs: tuple[Job, ...]
    guard: Guard
    observation: Observation
    intended: Observation
    visible: Observation
    contested: np.ndarray  # other clients keep changing the job's target
    drifted: np.ndarray  # another client has changed the job's target or drop rate
    left: np.ndarray  # the plan leaves the job to another controller

    @property
    def arrays(self) -> JobArrays:
        return arrays_of(self.jobs)

    @property
    def ordered(self) -> np.ndarray:
        """Whether an operator has fixed the job's replica count."""
        return np.array([job.name in self.config.fixed for job in self.jobs])


Limit = Callable[[Wanted, Known], Wanted]


def limited(limits: Iterable[Limit], wanted: Wanted, known: Known) -> Wanted:
    """What is wanted after all rules, in their order."""
    for limit in limits:
        wanted = limit(wanted, known)
    return wanted


def with_reason(reason: tuple[str, ...], where: np.ndarray, new: str) -> tuple[str, ...]:
    """The reason of each job, or `new` for jobs in the mask `where`, bool (jobs,)."""
    if not where.any():
        return reason
    return tuple(new if changed else old for old, changed in zip(reason, where))


def replanned(wanted: Wanted, target: np.ndarray, reason: str) -> Wanted:
    """With other planned targets (jobs,), and `reason` for the jobs whose target changes."""
    plan = wanted.plan
    why = with_reason(plan.reason, target != plan.target, reason)
    return replace(wanted, plan=replace(plan, target=target, reason=why), target=target)


# --- the rules for plans --------------------------------------------------------------------------


def missing_data(wanted: Wanted, known: Known) -> Wanted:
    """The fail mode decides for the jobs whose data is missing too long."""
    visible, plan = known.visible, wanted.plan
    age_s = visible.now_s - known.guard.known_s
    stale = (age_s > known.config.stale_after_s) | known.guard.waiting
    stale = stale | (np.array(plan.reason) == protocol.MISSING)  # the policy has no data at all
    if not stale.any():
        return wanted
    safe = fallback(known.config, known.jobs, visible)
    unsafe = stale & ~known.left
    target = np.where(unsafe, safe.target, plan.target)
    plan = replace(
        plan,
        target=target,
        drop=np.where(unsafe, safe.drop, plan.drop),
        reason=with_reason(plan.reason, stale, protocol.MISSING),
        attempts=max(safe.attempts, plan.attempts),
    )
    return replace(wanted, plan=plan, target=target)


def bounds(wanted: Wanted, known: Known) -> Wanted:
    """Each job has its minimum at least and its maximum at most."""
    arrays, target = known.arrays, wanted.plan.target
    within = np.clip(target, arrays.min_replicas, arrays.max_replicas)
    bounded = known.visible.exists & ~known.left
    return replanned(wanted, np.where(bounded, within, target), protocol.BOUNDS)


def orders(wanted: Wanted, known: Known) -> Wanted:
    """A job with an order of an operator says so; its order is its minimum and its maximum."""
    plan = wanted.plan
    reason = with_reason(plan.reason, known.ordered, protocol.OVERRIDE)
    return replace(wanted, plan=replace(plan, reason=reason))


def scaling_actions(wanted: Wanted, known: Known) -> Wanted:
    """A plan starts and stops at most `GuardrailConfig.max_scaling_actions` replicas."""
    actions, now = known.config.max_scaling_actions, known.visible
    if actions is None:
        return wanted
    cores = known.arrays.cores
    target = limit_scaling_actions(wanted.plan, now.target, now.capacity, cores, actions)
    return replanned(wanted, target, protocol.RATE_LIMIT)


def contests(wanted: Wanted, known: Known) -> Wanted:
    """A job that another client keeps changing stays as it is."""
    plan = wanted.plan
    target = np.where(known.contested, known.visible.target, plan.target)
    reason = with_reason(plan.reason, known.contested, protocol.CONTESTED)
    return replace(wanted, plan=replace(plan, target=target, reason=reason), target=target)


def presence(wanted: Wanted, known: Known) -> Wanted:
    """A job just added has its first replicas, and an absent job none.

    An added job keeps the replicas that it has already, but gets at least its minimum. Only a job
    that never existed before has the reason JOB_ADDED.
    """
    guard, visible, plan = known.guard, known.visible, wanted.plan
    present = visible.exists
    added, removed = guard.added(present), guard.before(present) & ~present
    minimum = minimum_replicas(known.jobs)
    most = np.maximum(known.arrays.max_replicas, minimum)
    first = np.clip(visible.target, minimum, most)
    target = np.where(added, first, np.where(present, plan.target, 0))
    drop = np.where(added | ~present, 0.0, plan.drop)
    reason = with_reason(plan.reason, ~present | added, HOLD)
    reason = with_reason(reason, added & (first != visible.target), protocol.BOUNDS)
    reason = with_reason(reason, removed, protocol.JOB_REMOVED)
    reason = with_reason(reason, added & ~np.array(guard.seen), protocol.JOB_ADDED)
    return replace(
        wanted, plan=replace(plan, target=target, drop=drop, reason=reason), target=target
    )


def drift(wanted: Wanted, known: Known) -> Wanted:
    """A job that stays as planned although another client changed it says so."""
    plan = wanted.plan
    held = known.drifted & known.visible.exists & (np.array(plan.reason) == HOLD)
    reason = with_reason(plan.reason, held, protocol.DRIFT_CORRECTED)
    return replace(wanted, plan=replace(plan, reason=reason))


# --- the rules for requests -----------------------------------------------------------------------


def free_capacity(wanted: Wanted, known: Known) -> Wanted:
    """Replicas start where cores and quotas are free; the others are retried by later ticks."""
    exists = known.observation.exists
    pending = wanted.pending.only(exists & ~known.contested & ~known.left)
    plan, intended = wanted.plan, known.intended
    target, pending = clamp_to_capacity(pending, plan, intended, known.arrays)
    delayed = (target != intended.target) & (np.array(plan.reason) == HOLD)
    reason = tuple(
        earlier if late else now for now, earlier, late in zip(plan.reason, pending.reason, delayed)
    )
    return Wanted(replace(plan, reason=reason), target, pending)


def capacity(wanted: Wanted, known: Known) -> Wanted:
    """All jobs fit into the capacity, also those whose count is changing: it may shrink any time.

    Jobs keep their minimum replicas if all minimums fit. Jobs that are left are not reduced,
    because another controller scales them. A job reduced below its planned target gets the reason
    CAPACITY.
    """
    plan, arrays = wanted.plan, known.arrays
    present, why = known.observation.exists, np.array(plan.reason)
    kept = known.left | (why == protocol.CONTESTED)
    minimum = np.where(kept, plan.target, arrays.min_replicas)
    minimum = np.where(present, minimum, 0)
    initial = np.where(why == protocol.JOB_ADDED, minimum_replicas(known.jobs), minimum)
    target = np.maximum(np.where(present, wanted.target, 0), initial)
    fitting = shed(target, initial, minimum, plan.target, known.observation.capacity, arrays)
    fitting = np.where(known.left & present, plan.target, fitting)
    removed = fitting < target
    reason = with_reason(plan.reason, removed & (fitting < plan.target), protocol.CAPACITY)
    # Reduced jobs lose their pending targets, which were meant for a larger capacity.
    return Wanted(replace(plan, reason=reason), fitting, wanted.pending.only(~removed))


LIMITS: tuple[Limit, ...] = (
    missing_data,
    bounds,
    orders,
    scaling_actions,
    contests,
    presence,
    drift,
    free_capacity,
    capacity,
)


# --- what the rules use ---------------------------------------------------------------------------


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
