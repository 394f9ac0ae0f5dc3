"""One tick of the control loop: from an observation to the replicas and drop rates requested, without any I/O."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from faro_lib.control.clamp import Pending, clamp_to_capacity
from faro_lib.control.guardrails import (
    Guard,
    GuardrailConfig,
    enforce_capacity,
    guarded,
    invalid,
    mask_absent,
    restore_targets,
)
from faro_lib.control.placement import cut_to_nodes
from faro_lib.policies.protocol import DEADLINE_EXCEEDED, FAILED, Observation, Plan, Policy, hold
from faro_lib.workload import Job, arrays_of


class PolicyFailed(RuntimeWarning):
    """A policy raised or returned an invalid plan, and the loop went on without it."""


@dataclass(frozen=True, slots=True)
class Step:
    """The record of one tick."""

    observation: Observation
    plan: Plan  # the policy's, changed by the guardrails
    target: np.ndarray  # (jobs,) replicas requested from the cluster
    decision_s: float  # duration of the policy's decision
    failure: str | None = None  # why the policy failed


@dataclass(frozen=True, slots=True)
class Memory:
    """All that the loop remembers between two ticks; it is a fold of `tick` over observations, so a journal restores it."""

    state: Any
    pending: Pending
    guard: Guard

    @classmethod
    def start(cls, policy: Policy, jobs: tuple[Job, ...], start_s: float = 0.0) -> Memory:
        return cls(policy.start(jobs), Pending.none(len(jobs)), Guard(np.full(len(jobs), start_s)))


def tick(
    policy: Policy,
    guardrails: GuardrailConfig,
    jobs: tuple[Job, ...],
    memory: Memory,
    observation: Observation,
    timer: Callable[[], float] = time.perf_counter,
) -> tuple[Memory, Step]:
    """Decide within the guardrails and the capacity; the memory for the next tick, and the record of this one.

    A policy that raises or returns an invalid plan keeps its previous state and decides again at the next tick. In the
    meantime, and if its decision exceeded the deadline, the fail mode of the guardrails applies.
    """
    guard = memory.guard.updated(observation)
    drifted = guard.drifted(observation)
    intended = restore_targets(guard, observation) if drifted.any() else observation
    visible = mask_absent(jobs, intended)

    began = timer()
    state, plan, failure = _decide(policy, memory.state, visible)
    decision_s = timer() - began
    if failure is not None:
        failure = f"policy {policy.name!r} failed at {visible.now_s:g} s, {guardrails.fail_mode} instead: {failure}"
    is_late = guardrails.deadline_s is not None and decision_s > guardrails.deadline_s
    void = FAILED if failure else DEADLINE_EXCEEDED if is_late else None

    plan = guarded(guardrails, jobs, guard, visible, plan, drifted=drifted, void=void)
    pending = memory.pending if observation.present is None else memory.pending.only(observation.present)
    target, pending = clamp_to_capacity(pending, plan, intended, arrays_of(jobs))
    target, plan, pending = enforce_capacity(jobs, observation, plan, target, pending)
    target, plan = cut_to_nodes(arrays_of(jobs), observation, plan, target)
    guard = Guard(guard.known_s, target, plan.drop, observation.present)
    return Memory(state, pending, guard), Step(observation, plan, target, decision_s, failure)


def _decide(policy: Policy, state: Any, visible: Observation) -> tuple[Any, Plan, str | None]:
    """The policy's new state and plan; or the old state, a plan that holds, and why the policy failed."""
    try:
        after, plan = policy.decide(state, visible)
        if problem := invalid(plan, len(visible.target)):
            raise ValueError(problem)
    except Exception as error:  # whatever a policy does wrong, serving goes on
        return state, hold(visible), str(error)
    return after, plan, None
