"""One tick of the control loop, which decides the replicas and drop rates to request after an observation."""

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from faro_lib.control import guardrails
from faro_lib.control.clamp import Pending, clamp_to_capacity
from faro_lib.control.guardrails import Guard, GuardrailConfig
from faro_lib.control.placement import cut_to_nodes
from faro_lib.policies.protocol import DEADLINE_EXCEEDED, FAILED, Observation, Plan, Policy, hold
from faro_lib.workload import Job, arrays_of
from faro_ops.controller.background import in_thread
from faro_ops.policies.authority import ADVISE


class PolicyFailed(RuntimeWarning):
    """Warns that a policy raised an exception or returned an invalid plan, so the loop used `GuardrailConfig.fail_mode`."""


@dataclass(frozen=True, slots=True)
class Step:
    """The record of one tick."""

    observation: Observation
    plan: Plan  # the policy's plan, limited by the guardrails
    target: np.ndarray  # (jobs,) replicas requested, within the capacity
    decision_s: float  # duration of the decision in seconds
    failure: str | None = None  # why the policy failed; None if it did not
    error: str | None = (
        None  # why applying the targets failed; None if it did not. The loop sets this after the tick.
    )


@dataclass(frozen=True, slots=True)
class Memory:
    """The state of the loop between ticks. It depends only on the observations, so replaying a journal restores it."""

    state: Any  # state of the policy
    pending: Pending  # targets that later ticks retry, because a tick skipped or reduced them
    guard: Guard

    @classmethod
    def start(cls, policy: Policy, jobs: tuple[Job, ...], start_s: float = 0.0) -> Self:
        return cls(policy.start(jobs), Pending.none(len(jobs)), Guard(np.full(len(jobs), start_s)))


class Late(Exception):
    """A decision exceeded its deadline."""


class Deadline:
    """Runs decisions and abandons those that take longer than `seconds`; None for no limit."""

    def __init__(self, seconds: float | None = None):
        self.seconds = seconds
        self._running: Future | None = None

    def call(self, decide: Callable[[], Any]) -> Any:
        """The result of `decide()`; raises Late after `seconds`, or at once if an abandoned decision still runs."""
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
) -> tuple[Memory, Step]:
    """Call the policy and apply the guardrails to its plan. Return (memory for the next tick, record of this tick).

    If the policy raises an exception, returns an invalid plan or exceeds the deadline, the fail mode of the guardrails
    applies, and the policy keeps its state from the previous tick.
    """
    if not np.isfinite(
        observation.capacity
    ):  # unknown, so assume that the current targets just fit
        observation = replace(
            observation, capacity=float(observation.target @ arrays_of(jobs).cores)
        )
    guard = memory.guard.updated(observation)
    contested = guard.contested(config)
    drifted = guard.drifted(observation) & ~contested
    left = contested | guard.left(observation)
    intended = (
        guardrails.restore_targets(guard, observation, left) if drifted.any() else observation
    )
    visible = guardrails.mask_absent(jobs, intended)

    began, failure, void = time.perf_counter(), None, None
    state, plan = memory.state, hold(visible)
    try:
        new_state, new_plan = (deadline or Deadline()).call(
            lambda: policy.decide(memory.state, visible)
        )
        if problem := guardrails.invalid(new_plan, len(jobs)):
            raise ValueError(problem)
        state, plan = new_state, new_plan
    except Late:
        void = DEADLINE_EXCEEDED
    except Exception as error:  # the jobs must be served even if the policy has a bug
        void = FAILED
        failure = f"policy {policy.name!r} failed at {visible.now_s:g} s, {config.fail_mode} instead: {error}"
    decision_s = time.perf_counter() - began
    if void:
        plan = replace(guardrails.fallback(config, jobs, visible), reason=(void,) * len(jobs))

    advised = guard.advised if plan.authority is None else plan.authority[:, 0] == ADVISE
    advised = advised & np.array([job.name not in config.fixed for job in jobs])
    plan = guardrails.guarded(config, jobs, replace(guard, advised=advised), visible, plan, drifted)
    pending = memory.pending.only(observation.exists & ~contested & ~advised)
    target, pending = clamp_to_capacity(pending, plan, intended, arrays_of(jobs))
    plan = guardrails.with_delayed_reasons(plan, intended, target, pending)
    target, plan, pending = guardrails.enforce_capacity(
        jobs, observation, plan, target, pending, advised
    )
    target, plan = cut_to_nodes(arrays_of(jobs), observation, plan, target, left | advised)
    guard = Guard(
        guard.known_s, target, plan.drop, observation.exists, contest=guard.contest, advised=advised
    )
    return Memory(state, pending, guard), Step(observation, plan, target, decision_s, failure)
