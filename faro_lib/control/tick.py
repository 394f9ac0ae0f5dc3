"""One tick of the control loop as a pure function: from an observation to the requested replicas and drop rates."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from faro_lib.control import guardrails
from faro_lib.control.clamp import Pending, clamp_to_capacity
from faro_lib.control.guardrails import Guard, GuardrailConfig
from faro_lib.control.placement import cut_to_nodes
from faro_lib.policies.protocol import DEADLINE_EXCEEDED, FAILED, Observation, Plan, Policy, hold
from faro_lib.workload import Job, arrays_of


class PolicyFailed(RuntimeWarning):
    """A policy raised or returned an invalid plan; the loop applied the fail mode."""


@dataclass(frozen=True, slots=True)
class Step:
    """The record of one tick."""

    observation: Observation
    plan: Plan  # within the guardrails
    target: np.ndarray  # (jobs,) replicas requested, within the capacity
    decision_s: float  # duration of the decision
    failure: str | None = None  # why the policy failed


@dataclass(frozen=True, slots=True)
class Memory:
    """What the loop remembers between ticks. It depends only on the observations, so a journal restores it."""

    state: Any
    pending: Pending
    guard: Guard

    @classmethod
    def start(cls, policy: Policy, jobs: tuple[Job, ...], start_s: float = 0.0) -> Memory:
        return cls(policy.start(jobs), Pending.none(len(jobs)), Guard(np.full(len(jobs), start_s)))


def tick(
    policy: Policy,
    config: GuardrailConfig,
    jobs: tuple[Job, ...],
    memory: Memory,
    observation: Observation,
    timer: Callable[[], float] = time.perf_counter,
) -> tuple[Memory, Step]:
    """Decide within the guardrails and the capacity; return the memory for the next tick and the record of this one.

    If the policy raises, returns an invalid plan or exceeds the deadline, the fail mode of the guardrails applies. A
    policy that failed keeps its previous state and decides again at the next tick.
    """
    guard = memory.guard.updated(observation)
    drifted = guard.drifted(observation)
    intended = guardrails.restore_targets(guard, observation) if drifted.any() else observation
    visible = guardrails.mask_absent(jobs, intended)

    began = timer()
    state, plan, failure = _decide(policy, memory.state, visible)
    decision_s = timer() - began
    if failure is not None:
        failure = f"policy {policy.name!r} failed at {visible.now_s:g} s, {config.fail_mode} instead: {failure}"
    is_late = config.deadline_s is not None and decision_s > config.deadline_s
    if failure is not None or is_late:
        reason = DEADLINE_EXCEEDED if failure is None else FAILED
        plan = replace(guardrails.fallback(config, jobs, visible), reason=(reason,) * len(jobs))

    plan = guardrails.guarded(config, jobs, guard, visible, plan, drifted)
    pending = memory.pending.only(observation.exists)
    target, pending = clamp_to_capacity(pending, plan, intended, arrays_of(jobs))
    target, plan, pending = guardrails.enforce_capacity(jobs, observation, plan, target, pending)
    target, plan = cut_to_nodes(arrays_of(jobs), observation, plan, target)
    guard = Guard(guard.known_s, target, plan.drop, observation.exists)
    return Memory(state, pending, guard), Step(observation, plan, target, decision_s, failure)


def _decide(policy: Policy, state: Any, visible: Observation) -> tuple[Any, Plan, str | None]:
    """The policy's new state and plan; or the old state, a plan that holds, and why the policy failed."""
    try:
        after, plan = policy.decide(state, visible)
        if problem := guardrails.invalid(plan, len(visible.target)):
            raise ValueError(problem)
    except Exception as error:  # serving continues whatever the policy does
        return state, hold(visible), str(error)
    return after, plan, None
