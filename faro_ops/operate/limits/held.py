"""Jobs whose replicas Faro keeps as they are, whatever the policy plans (`LiveObservation.held`).

The library knows such a job already: it is left to another controller (`Plan.left`). The policy
plans the other jobs around its replicas.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from faro_lib.control.guardrails import Guard
from faro_lib.control.limits import Known, Wanted
from faro_lib.policies.loops import LoopState
from faro_lib.policies.pooled import without_held_pools
from faro_lib.protocol import HOLD, Plan, Policy
from faro_lib.workload import Job, arrays_of
from faro_ops.operate.limits.authority import ADVISE, FULL, AuthorityState, limited_jobs
from faro_ops.operate.limits.bounds import KEEP_FLOOR
from faro_ops.operate.limits.kept import kept_by_others
from faro_ops.protocol import LiveObservation, live_plan


def decide_with(
    policy: Policy, state: Any, jobs: tuple[Job, ...], observation: LiveObservation
) -> tuple[Any, Plan]:
    """`decide_with_held` for `jobs`, whose bounds apply to this decision only."""
    own = jobs_of(state)
    if own is None:  # a policy without a forecast; the guardrails apply the bounds
        return decide_with_held(policy, state, observation)
    after, plan = decide_with_held(policy, with_jobs(state, jobs), observation)
    return with_jobs(after, own), plan


def decide_with_held(policy: Policy, state: Any, observation: LiveObservation) -> tuple[Any, Plan]:
    """`policy.decide`, but the held jobs keep their targets, drop rates and bounds."""
    held = observation.held
    if held is None or not held.any():
        return policy.decide(state, observation)
    jobs = jobs_of(state)
    if jobs is None:  # a policy without a forecast; the guardrails make its plan fit
        after, plan = policy.decide(state, observation)
        return after, with_held(plan, observation, held)
    # A held job has its target as minimum and maximum. Together, they may exceed the capacity.
    fixed = limited_jobs(jobs, np.where(held, ADVISE, FULL), observation.target, False)
    minimum = float(arrays_of(fixed).min_replicas @ arrays_of(fixed).cores)
    roomy = replace(observation, capacity=max(observation.capacity, minimum))
    after, plan = policy.decide(with_jobs(state, fixed), roomy)
    return with_jobs(after, jobs), with_held(plan, observation, held)


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


def with_held(plan: Plan, observation: LiveObservation, held: np.ndarray) -> Plan:
    """The plan with the observed targets and drop rates of the jobs `held`, which it leaves."""
    kept = live_plan(plan)
    left = held if plan.left is None else plan.left | held
    floor = kept.floor
    return replace(
        kept,
        target=np.where(held, observation.target, plan.target),
        drop=np.where(held, observation.drop, plan.drop),
        reason=tuple(HOLD if is_held else was for is_held, was in zip(held, plan.reason)),
        floor=None if floor is None else np.where(held, KEEP_FLOOR, floor),
        left=left,
    )


def held_pools(wanted: Wanted, known: Known) -> Wanted:
    """A pool with a job that others scale, or that is held, keeps the models of its replicas."""
    plan = without_held_pools(known.jobs, wanted.plan, kept_by_others(known))
    return replace(wanted, plan=plan)


def jobs_of(state: Any) -> tuple[Job, ...] | None:
    """The jobs in the state of a policy that plans with a forecast; None for any other policy."""
    loop = loop_of(state)
    return None if loop is None else loop.jobs


def loop_of(state: Any) -> LoopState | None:
    """The state of the loops of a policy that plans with a forecast; None for any other policy."""
    if isinstance(state, AuthorityState):
        return loop_of(state.inner)
    return state if isinstance(state, LoopState) else None


def with_loop(state: Any, loop: LoopState) -> Any:
    """The state of a policy that plans with a forecast, with another state of its loops."""
    if isinstance(state, AuthorityState):
        return replace(state, inner=with_loop(state.inner, loop))
    return loop


def with_jobs(state: Any, jobs: tuple[Job, ...]) -> Any:
    """The state of a policy that plans with a forecast, for `jobs` with other bounds."""
    loop = loop_of(state)
    return state if loop is None else with_loop(state, replace(loop, jobs=jobs))
