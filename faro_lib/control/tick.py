"""One tick of the control loop: decide the replicas and drop rates to request."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from faro_lib.control import guardrails
from faro_lib.control.clamp import Pending
from faro_lib.control.guardrails import Guard, GuardrailConfig
from faro_lib.control.limits import LIMITS, Known, Limit, Wanted, fallback, limited
from faro_lib.protocol import DEADLINE_EXCEEDED, FAILED, Observation, Plan, Policy
from faro_lib.workload import Job, arrays_of

Decide = Callable[[Any, Observation], tuple[Any, Plan]]  # as `Policy.decide`


class PolicyFailed(RuntimeWarning):
    """Warns that a policy raised an exception or returned an invalid plan.

    The loop has then used `GuardrailConfig.fail_mode`.
    """


class Late(Exception):
    """Raised by a `decide` that took too long; the fail mode applies then."""


@dataclass(frozen=True, slots=True)
class Step:
    """The record of one tick."""

    observation: Observation
    plan: Plan  # the policy's plan, limited by the guardrails
    target: np.ndarray  # (jobs,) replicas requested, within the capacity
    decision_s: float  # duration of the decision in seconds
    failure: str | None = None  # why the policy failed; None if it did not
    # Why applying the targets failed; None if it did not. The loop sets this after the tick.
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """The state of the loop between ticks, a function of the observations so far."""

    state: Any  # state of the policy
    pending: Pending  # targets that later ticks retry, because a tick skipped or reduced them
    guard: Guard

    @classmethod
    def start(cls, policy: Policy, jobs: tuple[Job, ...], start_s: float = 0.0) -> Self:
        guard = Guard(known_s=np.full(len(jobs), start_s))
        return cls(policy.start(jobs), Pending.none(len(jobs)), guard)


def tick(
    policy: Policy,
    config: GuardrailConfig,
    jobs: tuple[Job, ...],
    memory: Memory,
    observation: Observation,
    decide: Decide | None = None,
    limits: Iterable[Limit] = LIMITS,
) -> tuple[Memory, Step]:
    """Call the policy and limit its plan by the rules `limits`, in their order.

    Returns the memory for the next tick and the record of this one. `decide` is called instead of
    `policy.decide` if it is given, for example to stop after a time. If the policy raises an
    exception, returns an invalid plan or is late, the fail mode of the guardrails applies, and the
    policy keeps its state from the previous tick.
    """
    observation = guardrails.plausible(observation)
    if not np.isfinite(observation.capacity):  # unknown: assume that the current targets just fit
        used = float(observation.target @ arrays_of(jobs).cores)
        observation = replace(observation, capacity=used)
    guard = memory.guard.updated(observation)
    contested = guard.contested(config)
    drifted = guard.drifted(observation) & ~contested
    intended = observation
    if drifted.any():
        kept = contested | guard.leaves() | guard.added(observation.exists)
        intended = guardrails.restore_targets(guard, observation, kept)
    visible = guardrails.mask_absent(jobs, intended)

    failed: str | None = None  # the reason of the jobs if there is no plan
    failure: str | None = None  # the message if the policy raised
    began = time.perf_counter()
    try:
        state, plan = (decide or policy.decide)(memory.state, visible)
        if problem := guardrails.invalid(plan, len(jobs)):
            raise ValueError(problem)
    except Late:
        failed = DEADLINE_EXCEEDED
    except Exception as error:  # the jobs must be served even if the policy has a bug
        failed = FAILED
        where = f"policy {policy.name!r} failed at {visible.now_s:g} s"
        failure = f"{where}, {config.fail_mode} instead: {error}"
    decision_s = time.perf_counter() - began
    if failed:
        state = memory.state
        plan = fallback(config, jobs, visible)
        # A job that is left to another controller gets no share of the fail mode.
        left = guard.leaves()
        target = np.where(left, visible.target, plan.target)
        plan = replace(plan, target=target, reason=(failed,) * len(jobs))
    elif plan.left is None:
        left = np.zeros(len(jobs), bool)
    else:
        left = plan.left

    left = left & np.array([job.name not in config.fixed for job in jobs])
    known = Known(
        config=config,
        jobs=jobs,
        guard=guard,
        observation=observation,
        intended=intended,
        visible=visible,
        contested=contested,
        drifted=drifted,
        left=left,
    )
    wanted = limited(limits, Wanted(plan, plan.target, memory.pending), known)
    guard = Guard(
        known_s=guard.known_s,
        target=wanted.target,
        drop=wanted.plan.drop,
        present=observation.exists,
        contest=guard.contest,
        left=left,
        seen=guard.seen | observation.exists,
        waiting=guard.waiting,
    )
    step = Step(observation, wanted.plan, wanted.target, decision_s, failure)
    return Memory(state, wanted.pending, guard), step
