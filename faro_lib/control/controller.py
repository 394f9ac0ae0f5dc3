"""The controller: the loop of `control` against the wall clock, for any `Cluster`, over days and crashes."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from faro_lib.control import GUARDRAILS, GuardrailConfig, Limits, Memory, PolicyFailed, Step, tick
from faro_lib.control.clock import Clock
from faro_lib.control.guardrails import without_data
from faro_lib.control.journal import REPLAYED_TICKS, Header, Journal, after, read, remember
from faro_lib.policies.loops import TwoLoops
from faro_lib.policies.protocol import DEADLINE_EXCEEDED, FAILED, MISSING, Cluster, Observation, Policy
from faro_lib.workload import Job

OBSERVE, APPLY, JOURNAL = "observe", "apply", "journal"  # reasons of failures, beside those of plans


def paced(policy: Policy, tick_s: float, **changes: Any) -> Policy:
    """The policy with another tick; one that plans does so at every tick from then on, as its own interval allows.

    Raises
    ------
    ValueError : the tick is not positive.
    """
    if not tick_s > 0:
        raise ValueError(f"tick_s={tick_s!r} must be a number > 0")
    if isinstance(policy, TwoLoops):
        interval_s = tick_s * max(1, round(policy.interval_s / tick_s))
        changes = dict(first_s=tick_s, interval_s=interval_s, phase_s=0.0) | changes
    return replace(policy, tick_s=tick_s, **changes)  # type: ignore[type-var]


def resumed(
    path: str | Path, policy: Policy, jobs: tuple[Job, ...], guardrails: GuardrailConfig, act: bool
) -> tuple[Header, Memory, Observation | None, int] | None:
    """What a controller that ran before remembers, from its journal: header, memory, last observation, ticks replayed_ticks.

    None where there is no journal, or one without a tick; a file with nothing in it is none.

    Raises
    ------
    ValueError : the journal belongs to another policy, other jobs or other guardrails; one line.
    """
    if not Path(path).exists() or not Path(path).stat().st_size:
        return None
    header, ticks = read(path)
    if not ticks:
        return None
    if (header.policy, header.tick_s) != (policy.name, policy.tick_s):
        raise ValueError(
            f"{path}: of policy {header.policy!r} every {header.tick_s:g} s, not {policy.name!r} every "
            f"{policy.tick_s:g} s; name another journal"
        )
    if header.jobs != jobs:
        raise ValueError(f"{path}: of jobs {[job.name for job in header.jobs]} as they were; name another journal")
    if (header.guardrails, header.act) != (guardrails, act):
        raise ValueError(f"{path}: with other guardrails, or of a dry run; name another journal")
    recent = ticks[-REPLAYED_TICKS:]
    return header, remember(policy, header, recent), ticks[-1].step.observation, len(recent)


def drive(
    cluster: Cluster,
    policy: Policy,
    jobs: tuple[Job, ...],
    *,
    guardrails: GuardrailConfig = GUARDRAILS,
    act: bool = True,
    journal: str | Path | None = None,
    clock: Clock | None = None,
    until_s: float = np.inf,
    stop: threading.Event | None = None,
    on_step: Callable[[Step], None] | None = None,
    on_failure: Callable[[str, str], None] | None = None,
) -> None:
    """Observe, decide, act, every `policy.tick_s` seconds, until `until_s` or until `stop` is set; nothing else ends it.

    Where the cluster cannot be observed the last observation stands in, without its data; where it cannot be changed the
    next tick finds that out and asks again. Ticks that have passed already are left out. At the end the cluster is left
    as it is.

    Parameters
    ----------
    act : False decides and writes down, and changes nothing.
    journal : a file to which every tick is written, and from which the controller resumes if it is there already; the
        clock must then be that of the journal (`resumed`).
    clock : wall time; None where the cluster keeps its own time, as the simulated one does.
    on_step, on_failure : told of every tick, and of whatever went wrong: (reason, one line).
    """
    failed = on_failure or (lambda reason, told: None)
    stop = stop or (clock.stop if clock else threading.Event())
    start_s = max(0.0, clock.now_s) if clock else 0.0
    limits, memory, last = Limits.of(jobs), Memory.start(policy, jobs, start_s), None
    before = resumed(journal, policy, jobs, guardrails, act) if journal else None
    writer = Journal(journal) if journal else None
    try:
        if before:
            _, memory, last, replayed_ticks = before
            start_s = last.now_s if last else 0.0
            if writer:
                writer.resume(replayed_ticks)
        elif writer:
            origin_s, scale = (clock.origin_s, clock.scale) if clock else (None, 1.0)
            writer.begin(Header(policy.name, jobs, guardrails, policy.tick_s, act, origin_s, scale, start_s))
        now_s = _next_tick(start_s, policy.tick_s, clock)
        while now_s < until_s:
            cluster.advance(now_s)
            if stop.is_set():
                break
            try:
                observation = last = cluster.observe()
            except Exception as error:  # whatever became of the cluster, the loop goes on
                failed(OBSERVE, _line(error))
                if last is None:
                    now_s = _next_tick(now_s, policy.tick_s, clock)
                    continue
                observation = without_data(last, now_s)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", PolicyFailed)
                memory, step = tick(policy, guardrails, limits, memory, observation)
            _tell_failures(step, caught, failed)
            memory = after(memory, act)
            error_line = None
            if act:
                try:
                    cluster.apply(step.target, step.plan.drop)
                except Exception as error:  # the next tick sees that it did not happen, and asks again
                    error_line = _line(error)
                    failed(APPLY, error_line)
            if writer:
                try:
                    writer.tick(step, error_line)
                except OSError as error:  # a full disk is no reason to leave the jobs alone; a restart knows less then
                    failed(JOURNAL, _line(error))
            if on_step:
                on_step(step)
            now_s = _next_tick(now_s, policy.tick_s, clock)
    finally:
        if writer:
            writer.close()
    if not stop.is_set() and np.isfinite(until_s):
        cluster.advance(until_s)


def _next_tick(now_s: float, tick_s: float, clock: Clock | None) -> float:
    """The next multiple of the tick; those that have passed on the clock are left out."""
    passed = now_s if clock is None else max(now_s, clock.now_s - tick_s / 2)
    return tick_s * (int(passed / tick_s + 1e-9) + 1)


def _tell_failures(step: Step, caught, failed) -> None:
    for warning in caught:
        if issubclass(warning.category, PolicyFailed):
            failed(FAILED, _line(warning.message))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    for reason in (DEADLINE_EXCEEDED, MISSING):
        if reason in step.plan.reason:
            failed(reason, f"at {step.observation.now_s:g} s")


def _line(error) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
