"""The control loop in simulated time: observe, decide and apply at every tick."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

from faro_lib.control.guardrails import GUARDRAILS, GuardrailConfig
from faro_lib.control.tick import Memory, PolicyFailed, Step, tick
from faro_lib.protocol import Cluster, Policy, SharingCluster
from faro_lib.workload import Job
from faro_lib.workload.jobs import TOLERANCE


def run(
    cluster: Cluster,
    policy: Policy,
    jobs: tuple[Job, ...],
    until_s: float,
    *,
    guardrails: GuardrailConfig = GUARDRAILS,
    on_step: Callable[[Step], None] | None = None,
) -> None:
    """Observe, decide and apply at every multiple of `policy.tick_s` before `until_s`.

    A policy that fails causes the warning `PolicyFailed`. `on_step` is called after every tick.
    """
    memory = Memory.start(policy, jobs)
    for now_s in tick_times(0.0, until_s, policy.tick_s):
        cluster.advance(now_s)
        memory, step = tick(policy, guardrails, jobs, memory, cluster.observe())
        if step.failure:
            warnings.warn(step.failure, PolicyFailed, stacklevel=2)
        request(cluster, step)
        if on_step:
            on_step(step)
    cluster.advance(until_s)


def request(cluster: Cluster, step: Step, **more: Any) -> None:
    """Request the placements of pools, the targets and the drop rates of a tick.

    more : further arguments of `cluster.apply`.
    """
    if step.plan.placement and isinstance(cluster, SharingCluster):
        cluster.place(step.plan.placement)
    cluster.apply(step.target, step.plan.drop, **more)


def tick_times(
    start_s: float, until_s: float, tick_s: float, clock_s: Callable[[], float] | None = None
) -> Iterator[float]:
    """Yield the multiples of `tick_s` after `start_s` and before `until_s`.

    If `clock_s` tells the time, multiples that are over half a tick in the past are skipped.

    >>> list(tick_times(10.0, 40.0, 10.0))
    [20.0, 30.0]
    """
    now_s = start_s
    while True:
        passed_s = now_s if clock_s is None else max(now_s, clock_s() - tick_s / 2)
        now_s = tick_s * (int(passed_s / tick_s + TOLERANCE) + 1)
        if now_s >= until_s:
            return
        yield now_s
