"""One tick on a live cluster: the library's tick, then what nodes, HPAs and the brake limit."""

from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import replace
from typing import Any

import numpy as np

from faro_lib import control
from faro_lib.control import GuardrailConfig, Late, Memory, Step
from faro_lib.control.guardrails import Guard, plausible
from faro_lib.protocol import Observation, Plan, Policy
from faro_lib.workload import Job, arrays_of
from faro_ops.operate.limits import brake
from faro_ops.operate.limits.bounds import KEEP_FLOOR
from faro_ops.operate.limits.brake import LiveMemory
from faro_ops.operate.limits.fitting import with_fitting_orders
from faro_ops.operate.limits.held import decide_with_held, jobs_of, with_jobs, without_held_pools
from faro_ops.operate.limits.placement import cut_to_nodes
from faro_ops.operate.loop.background import in_thread
from faro_ops.operate.loop.service_times import after_rollouts, with_columns
from faro_ops.protocol import LiveObservation, LivePlan, live_observation, live_plan


class Deadline:
    """Runs decisions and abandons those that take longer than `seconds`; None for no limit."""

    def __init__(self, seconds: float | None = None):
        self.seconds = seconds
        self._running: Future | None = None

    def call(self, decide: Callable[[], Any]) -> Any:
        """The result of `decide()`.

        Raises Late after `seconds`, or at once if an abandoned decision still runs.
        """
        if self.seconds is None:
            return decide()
        if self._running and not self._running.done():
            raise Late
        self._running = in_thread(decide)
        wait((self._running,), self.seconds)
        if not self._running.done():
            raise Late
        return self._running.result()


def tick(
    policy: Policy,
    config: GuardrailConfig,
    jobs: tuple[Job, ...],
    memory: Memory,
    observation: Observation,
    deadline: Deadline | None = None,
) -> tuple[LiveMemory, Step]:
    """`faro_lib.control.tick` for a live cluster, with the same results.

    Late counts reach the forecaster (`controller.late_counts`).
    The targets also fit on individual nodes, and with `config.max_scale_down`, they fall no faster
    (`controller.brake`). The plan of the returned step is a `LivePlan`.
    """
    limit = deadline or Deadline()

    seen = live_observation(plausible(observation))
    known = LiveMemory.of(memory)
    state = after_rollouts(known.state, known.revision, seen.revision)
    live = known.having_observed(seen)
    guard = leaving_held(without_unbounded(memory.guard, seen), seen)
    state, folded = live.folded.amended(state, seen)
    memory = replace(memory, state=state, guard=guard)
    ordered = with_orders(jobs, config, guard, seen)

    def decide(state: Any, visible: Observation) -> Any:
        return limit.call(lambda: decide_with(policy, state, ordered, live_observation(visible)))

    after, step = control.tick(policy, config, ordered, memory, seen, decide)
    contested = after.guard.contested(config)
    plan = with_kept_floors(live_plan(step.plan), config, after.guard, seen.now_s, contested)
    left = contested | memory.guard.leaves() | after.guard.leaves()
    kept = left if seen.unbounded is None else left | seen.unbounded
    arrays, share, target = arrays_of(jobs), config.max_scale_down, step.target
    has_order = np.array([job.name in config.fixed for job in jobs])
    if share is None:
        target, plan = cut_to_nodes(arrays, seen, plan, target, kept)
    else:
        measured = replace(seen, capacity=step.observation.capacity)  # never NaN
        target, plan = brake.keep_minima(arrays, measured, plan, target, left)
        # An order is no guess from data. What it removes is not limited, but it counts. Fewer
        # replicas than it says are left by a loss of capacity, which is limited.
        ordered_fall = has_order & (target < seen.target) & (target >= arrays.max_replicas)
        free = left | ordered_fall
        limits = free, live.replicas
        target, plan = brake.slow_down(share, arrays, measured, plan, target, *limits)
        target, plan = cut_to_nodes(arrays, seen, plan, target, kept)
        # Again, because replicas that fit on no node may have been removed.
        target, plan = brake.slow_down(share, arrays, measured, plan, target, *limits)
        ours = left | has_order
        plan = brake.slow_floors(share, arrays, measured, plan, target, ours, live.floors)
    plan = without_held_pools(jobs, plan, left)
    plan = with_ordered_floors(plan, seen, target, has_order & seen.exists & ~contested)
    plan = with_columns(plan, after.state)
    guard = replace(after.guard, target=target)
    folded = folded.followed(state, after.state, seen)
    after = replace(live, state=after.state, pending=after.pending, guard=guard, folded=folded)
    return after, replace(step, plan=plan, target=target)


def with_orders(
    jobs: tuple[Job, ...], config: GuardrailConfig, guard: Guard, observation: LiveObservation
) -> tuple[Job, ...]:
    """The jobs, with each operator's order that fits as minimum and maximum replicas."""
    has_order = np.array([job.name in config.fixed for job in jobs])
    kept = guard.contested(config) | (guard.leaves() & ~has_order)
    return with_fitting_orders(jobs, config.fixed, observation, kept)


def decide_with(
    policy: Policy, state: Any, jobs: tuple[Job, ...], observation: LiveObservation
) -> tuple[Any, Plan]:
    """`decide_with_held` for `jobs`, whose bounds apply to this decision only."""
    own = jobs_of(state)
    if own is None:  # a policy without a forecast; the guardrails apply the bounds
        return decide_with_held(policy, state, observation)
    after, plan = decide_with_held(policy, with_jobs(state, jobs), observation)
    return with_jobs(after, own), plan


def without_unbounded(guard: Guard, observation: LiveObservation) -> Guard:
    """The guard without requests for jobs whose HPA has its original bounds.

    Nothing that the HPA does to such a job contradicts a request of Faro.
    """
    if observation.unbounded is None or guard.target is None or guard.drop is None:
        return guard
    target = np.where(observation.unbounded, observation.target, guard.target)
    drop = np.where(observation.unbounded, observation.drop, guard.drop)
    return replace(guard, target=target, drop=drop)


def leaving_held(guard: Guard, observation: LiveObservation) -> Guard:
    """The guard that leaves the held jobs alone even if the policy fails or is late.

    A held job that appears keeps the replicas that it has; it does not start with its minimum.
    """
    held = observation.held
    if held is None:
        return guard
    present = guard.present
    if present is not None:
        present = np.where(held, observation.exists, present)
    return replace(guard, left=guard.leaves() | held, present=present)


def with_ordered_floors(
    plan: LivePlan, observation: LiveObservation, target: np.ndarray, ordered: np.ndarray
) -> LivePlan:
    """The plan, but the HPAs of jobs in the mask `ordered` get `target` as minReplicas, too.

    Between two plans, there are no new floors, and without authority, HPAs get their original
    bounds back. Neither applies to what an operator orders.
    """
    if observation.unbounded is None or not ordered.any():
        return plan
    floor = np.full(len(target), KEEP_FLOOR) if plan.floor is None else plan.floor
    return replace(plan, floor=np.where(ordered, target, floor))


def with_kept_floors(
    plan: LivePlan, config: GuardrailConfig, guard: Guard, now_s: float, contested: np.ndarray
) -> LivePlan:
    """The plan without new floors for jobs whose data is missing or that another client changes."""
    if plan.floor is None:
        return plan
    stale = now_s - guard.known_s > config.stale_after_s
    kept = (stale & ~guard.leaves()) | contested
    return replace(plan, floor=np.where(kept, KEEP_FLOOR, plan.floor))
