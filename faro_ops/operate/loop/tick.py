"""One tick on a live cluster: the library's tick, then what nodes, HPAs and the brake limit."""

from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import replace
from typing import Any

import numpy as np

from faro_lib import control
from faro_lib.control import Late, Memory, Step
from faro_lib.control.guardrails import Guard, plausible
from faro_lib.control.limits import LIMITS, Limit
from faro_lib.protocol import Observation, Plan, Policy
from faro_lib.workload import Job
from faro_ops.operate.background import in_thread
from faro_ops.operate.limits.brake import Brake, minima
from faro_ops.operate.limits.fitting import with_fitting_orders
from faro_ops.operate.limits.floors import old_floors, ordered_floors
from faro_ops.operate.limits.held import decide_with_held, held_pools, jobs_of, with_jobs
from faro_ops.operate.limits.placement import nodes
from faro_ops.operate.loop.live_memory import LiveMemory
from faro_ops.operate.loop.service_times import after_rollouts, with_columns
from faro_ops.protocol import LiveGuardrails, LiveObservation, live_observation, live_plan


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
    config: LiveGuardrails,
    jobs: tuple[Job, ...],
    memory: Memory,
    observation: Observation,
    deadline: Deadline | None = None,
) -> tuple[LiveMemory, Step]:
    """`faro_lib.control.tick` for a live cluster, with the rules of `live_limits`.

    Late counts reach the forecaster (`loop.late_counts`). A roll-out makes what is learned of its
    service uncertain. The plan of the returned step is a `LivePlan`.
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

    limits = live_limits(config, jobs, live)
    after, step = control.tick(policy, config, ordered, memory, seen, decide, limits)
    plan = with_columns(live_plan(step.plan), after.state)
    folded = folded.followed(state, after.state, seen)
    after = replace(
        live, state=after.state, pending=after.pending, guard=after.guard, folded=folded
    )
    return after, replace(step, plan=plan)


def live_limits(
    config: LiveGuardrails, jobs: tuple[Job, ...], live: LiveMemory
) -> tuple[Limit, ...]:
    """The rules of a live loop: those of the library, then what nodes, HPAs and the brake limit.

    The library's rules see an order as the bounds of its job, the others the bounds of `jobs`.
    """
    share = config.max_scale_down
    if share is None:
        live_rules: tuple[Limit, ...] = (old_floors, nodes, held_pools, ordered_floors)
    else:
        brake = Brake(share, live.replicas, live.floors)
        live_rules = (
            old_floors,
            minima,
            brake.slow_down,
            nodes,
            brake.slow_down,  # again: replicas that fit on no node may have been removed
            brake.slow_floors,
            held_pools,
            ordered_floors,
        )
    return (*LIMITS, *(for_jobs(jobs, rule) for rule in live_rules))


def for_jobs(jobs: tuple[Job, ...], rule: Limit) -> Limit:
    """The rule with the bounds of these jobs."""
    return lambda wanted, known: rule(wanted, replace(known, jobs=jobs))


def with_orders(
    jobs: tuple[Job, ...], config: LiveGuardrails, guard: Guard, observation: LiveObservation
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
