"""Resume a run from its journal, and let a policy decide again on what it has recorded."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from faro_lib.control.guardrails import CONTESTED_AT, mask_absent
from faro_lib.control.tick import Memory, Step
from faro_lib.protocol import CONTESTED, Observation, Policy
from faro_ops.journal import writing
from faro_ops.journal.ticks import Header, Tick
from faro_ops.journal.writing import Journal
from faro_ops.operate.loop.late_counts import Folded
from faro_ops.operate.loop.live_memory import LiveMemory
from faro_ops.operate.loop.tick import tick
from faro_ops.protocol import live_observation


class Past(NamedTuple):
    """A recorded run that can be resumed."""

    memory: Memory
    observation: Observation  # the last recorded observation
    # Number of ticks replayed to restore `memory`; None if an operator's change begins a new part.
    ticks: int | None


def resume_run(
    journal: Journal, policy: Policy, header: Header, now_s: float = math.inf
) -> Past | None:
    """Prepare a journal for a run with `header`; return the recorded run to resume, if any.

    A resumed run must have the recorded `policy`, `tick_s`, `jobs`, `guardrails` and `apply`. It
    continues the last part. If `header.changes` is not empty, it begins a new part, and `jobs`,
    `guardrails` and `origin_s` may differ. Raises ValueError if another setting differs, or if the
    last tick is more than `policy.tick_s` after `now_s`.
    """
    old, recent = journal.header, journal.ticks[-writing.REPLAYED_TICKS :]
    if not old or not recent:
        journal.begin(header)
        return None
    names = [job.name for job in old.jobs]
    if header.changes:
        old = replace(old, jobs=header.jobs, guardrails=header.guardrails)
    _check_same(journal.path, old, header)
    last = recent[-1].step.observation
    ahead_s = last.now_s - now_s
    if ahead_s > policy.tick_s:
        problem = f"its last tick is {ahead_s:.0f} s ahead of this machine's clock"
        raise ValueError(f"{journal.path}: {problem}; set the clock, or name another journal")
    if header.changes:
        past = Past(after_change(policy, names, header, recent), last, None)
    else:
        past = Past(remembered(policy, old, recent), last, len(recent))
    journal.begin(header, past.ticks)
    return past


def _check_same(path: Path, old: Header, new: Header) -> None:
    """Raise ValueError if a setting differs that a resumed run must share with the recorded."""
    for name in ("policy", "tick_s", "jobs", "guardrails", "apply"):
        was = getattr(old, name)
        if was != getattr(new, name):
            shown = [job.name for job in old.jobs] if name == "jobs" else was
            problem = f"written by a run with other {name}, {shown}; name another journal"
            raise ValueError(f"{path}: {problem}")


def after_change(policy: Policy, before: list[str], new: Header, ticks: list[Tick]) -> Memory:
    """The memory of the loop after an operator has changed the jobs.

    If the jobs still have the names in `before`, the policy processes the observations of `ticks`
    again, and the last requested targets and drop rates stay in force. Otherwise, the memory starts
    empty.
    """
    last = ticks[-1].step
    memory = Memory.start(policy, new.jobs, last.observation.now_s)
    if before != [job.name for job in new.jobs]:
        return memory
    state, folded = memory.state, Folded()
    for one in ticks:
        seen = one.step.observation
        state, folded = folded.amended(state, seen)
        before = state
        with suppress(Exception):  # a policy that fails keeps its state, as in `tick`
            state, _ = policy.decide(state, mask_absent(new.jobs, seen))
        folded = folded.followed(before, state, seen)
    memory = replace(LiveMemory.of(memory), folded=folded)
    if not new.apply:
        return replace(memory, state=state)
    guard = replace(
        memory.guard,
        target=last.target,
        drop=last.plan.drop,
        present=last.observation.exists,
        applied=applied_jobs(len(new.jobs), ticks[-1].error, ticks[-1].failed),
        seen=last.observation.exists,
    )
    resumed = LiveMemory.of(replace(memory, state=state, guard=guard))
    return resumed.having_seen([live_observation(one.step.observation) for one in ticks])


def remembered(policy: Policy, header: Header, ticks: list[Tick]) -> Memory:
    """The memory of the loop after `ticks`: the policy decides on each of them again."""
    memory = Memory.start(policy, header.jobs, header.start_s)
    if ticks:  # another client may already contest a job's target at the first tick
        contest = np.where(np.array(ticks[0].step.plan.reason) == CONTESTED, CONTESTED_AT, 0)
        memory = replace(memory, guard=replace(memory.guard, contest=contest))
    for one in ticks:
        memory, _ = _decide_again(policy, header, memory, one)
    return memory


def replay(policy: Policy, header: Header, ticks: Iterable[Tick]) -> Iterator[tuple[Step, Step]]:
    """Let `policy` decide again on each observation; yield pairs (recorded step, new step).

    Ticks that thinning has left over are no complete record. They, and the first REPLAYED_TICKS
    ticks after them, are not yielded.
    """
    memory = Memory.start(policy, header.jobs, header.start_s)
    before: deque[Tick] = deque(maxlen=writing.REPLAYED_TICKS)
    skipped = 0
    for one in ticks:
        if one.every_s is not None:
            skipped = writing.REPLAYED_TICKS
            continue
        if one.replayed_ticks is not None:
            last = list(before)[-one.replayed_ticks :] if one.replayed_ticks else []
            memory = remembered(policy, header, last)
        memory, step = _decide_again(policy, header, memory, one)
        before.append(one)
        if skipped:
            skipped -= 1
        else:
            yield one.step, step


def next_memory(
    memory: Memory, apply: bool, error: str | None, failed: tuple[int, ...] | None = None
) -> Memory:
    """The memory for the next tick; `error` is why this tick's targets were not applied, if so.

    A dry run (`apply` False) requests nothing, so its memory has no pending targets and no last
    request. For `failed`, see `Tick`.
    """
    if apply:
        applied = applied_jobs(len(memory.guard.known_s), error, failed)
        return replace(memory, guard=replace(memory.guard, applied=applied))
    pending = memory.pending.only(np.zeros(len(memory.pending.attempts), bool))
    return replace(memory, pending=pending, guard=replace(memory.guard, target=None, drop=None))


def applied_jobs(jobs: int, error: str | None, failed: tuple[int, ...] | None) -> np.ndarray:
    """Whether each job's target was applied, bool (jobs,); see `Tick` for the arguments."""
    if error is None or failed is None:
        return np.full(jobs, error is None)
    applied = np.ones(jobs, bool)
    applied[list(failed)] = False
    return applied


def _decide_again(policy: Policy, header: Header, memory: Memory, one: Tick) -> tuple[Memory, Step]:
    # No deadline, because the decision may take longer on this machine.
    memory, step = tick(policy, header.guardrails, header.jobs, memory, one.step.observation)
    memory = next_memory(memory, header.apply, one.error, one.failed)
    if header.apply:
        # The recorded request, so that its effect is not taken for another client's change.
        guard = replace(memory.guard, target=one.step.target, drop=one.step.plan.drop)
        memory = replace(memory, guard=guard)
    return memory, step
