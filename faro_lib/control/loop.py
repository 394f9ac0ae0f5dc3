"""The loop: observe, decide, keep within the guardrails, admit, apply."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from faro_lib.control.clamp import Pending, admit
from faro_lib.control.guardrails import (
    Guard,
    GuardrailConfig,
    Limits,
    PolicyFailed,
    enforce_capacity,
    guarded,
    mask_absent,
    restore_targets,
    unsound,
    without_data,
)
from faro_lib.policies.protocol import DEADLINE_EXCEEDED, FAILED, Cluster, Observation, Plan, Policy, hold
from faro_lib.workload import Job

GUARDRAILS = GuardrailConfig()


@dataclass(frozen=True, slots=True)
class Step:
    """One turn of the loop: what was seen, what was planned within the guardrails, what was asked of the cluster."""

    observation: Observation
    plan: Plan
    target: np.ndarray
    decision_s: float


@dataclass(frozen=True, slots=True)
class Memory:
    """All that the loop remembers between two ticks; a fold of `tick` over observations, so that a log restores it."""

    state: Any
    pending: Pending
    guard: Guard

    @classmethod
    def start(cls, policy: Policy, jobs: tuple[Job, ...], start_s: float = 0.0) -> Memory:
        return cls(policy.start(jobs), Pending.none(len(jobs)), Guard.start(len(jobs), start_s))


def tick(
    policy: Policy,
    guardrails: GuardrailConfig,
    limits: Limits,
    memory: Memory,
    observation: Observation,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Memory, Step]:
    """From an observation to what is asked of the cluster.

    A policy that raises or answers nonsense keeps its state of before and is asked again at the next tick; meanwhile, and
    where it was late, the guardrails say what happens.
    """
    guard, intended = restore_targets(memory.guard, observation)
    seen = mask_absent(limits, intended)
    state, failure = memory.state, None
    began = clock()
    try:
        after, plan = policy.decide(state, seen)
        if wrong := unsound(plan, len(seen.target)):
            raise ValueError(wrong)
        state = after
    except Exception as error:  # whatever a policy does wrong, serving goes on
        plan, failure = hold(seen), FAILED
        warnings.warn(
            f"policy {policy.name!r} failed at {seen.now_s:g} s, {guardrails.fail_mode} instead: {error}",
            PolicyFailed,
            stacklevel=2,
        )
    decision_s = clock() - began
    if failure is None and guardrails.deadline_s is not None and decision_s > guardrails.deadline_s:
        failure = DEADLINE_EXCEEDED
    plan = guarded(guardrails, limits, guard, observation, seen, plan, failure)
    carried = memory.pending if observation.present is None else memory.pending.only(observation.present)
    target, pending = admit(carried, plan, intended, limits.cores)
    target, plan, pending = enforce_capacity(limits, observation, plan, target, pending)
    return Memory(state, pending, guard.after(target, plan.drop, observation)), Step(
        observation, plan, target, decision_s
    )


def run(
    cluster: Cluster,
    policy: Policy,
    jobs: tuple[Job, ...],
    until_s: float,
    *,
    start_s: float = 0.0,
    on_step: Callable[[Step], None] | None = None,
    guardrails: GuardrailConfig = GUARDRAILS,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Take a tick and apply what it asks, every `policy.tick_s` seconds until `until_s`.

    Where the cluster cannot be observed the last observation stands in, without its data.

    Parameters
    ----------
    guardrails : the guardrails.
    clock : measures how long a decision takes, in seconds.
    """
    limits, memory = Limits.of(jobs), Memory.start(policy, jobs, start_s)
    now_s, last = start_s, None
    while now_s + policy.tick_s < until_s:
        now_s += policy.tick_s
        cluster.advance(now_s)
        try:
            observation = cluster.observe()
        except Exception:
            if last is None:
                raise
            observation = without_data(last, now_s)
        memory, step = tick(policy, guardrails, limits, memory, observation, clock)
        cluster.apply(step.target, step.plan.drop)
        last = observation
        if on_step:
            on_step(step)
    cluster.advance(until_s)
