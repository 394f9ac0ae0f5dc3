"""One tick on a live cluster: the library's tick, then what nodes, HPAs and the brake limit."""

from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import replace
from typing import Any

from faro_lib import control
from faro_lib.control import Late, Memory, Step
from faro_lib.control.guardrails import plausible
from faro_lib.protocol import Observation, Policy
from faro_lib.workload import Job
from faro_ops.operate.background import in_thread
from faro_ops.operate.limits.fitting import with_orders
from faro_ops.operate.limits.floors import without_unbounded
from faro_ops.operate.limits.held import decide_with, leaving_held
from faro_ops.operate.limits.rules import live_limits
from faro_ops.operate.loop.live_memory import LiveMemory
from faro_ops.operate.loop.service_times import after_rollouts, with_columns
from faro_ops.protocol import LiveGuardrails, live_observation, live_plan


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

    limits = live_limits(config, jobs, live.replicas, live.floors)
    after, step = control.tick(policy, config, ordered, memory, seen, decide, limits)
    plan = with_columns(live_plan(step.plan), after.state)
    folded = folded.followed(state, after.state, seen)
    after = replace(
        live, state=after.state, pending=after.pending, guard=after.guard, folded=folded
    )
    return after, replace(step, plan=plan)
