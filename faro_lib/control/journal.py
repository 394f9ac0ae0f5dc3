"""The journal of a run: one JSON line per tick, from which a run resumes and any policy can be replayed."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from faro_lib.control.clock import Clock
from faro_lib.control.guardrails import GuardrailConfig
from faro_lib.control.tick import Memory, Step, tick
from faro_lib.policies.protocol import Observation, Plan, Policy
from faro_lib.workload import Job

BEGIN, TICK, RESUME = "begin", "tick", "resume"
REPLAYED_TICKS = 200  # enough to restore the memory: counters reach back 10 minutes, forecasts 15
DTYPES = dict.fromkeys(("running", "starting", "target", "terminating", "placed"), int) | {
    "changing": bool,
    "present": bool,
}
SCALARS = {"now_s", "capacity", "minute", "attempts"}


@dataclass(frozen=True, slots=True)
class Header:
    """The first record of a journal."""

    policy: str
    jobs: tuple[Job, ...]
    guardrails: GuardrailConfig
    tick_s: float
    apply: bool  # whether plans were carried out
    origin_s: int | None = None  # time origin of the trace clock; None if the cluster kept its own time
    scale: float = 1.0
    start_s: float = 0.0  # trace time at the beginning

    @classmethod
    def of(
        cls,
        policy: Policy,
        jobs: tuple[Job, ...],
        guardrails: GuardrailConfig,
        apply: bool,
        clock: Clock | None,
        start_s: float,
    ) -> Header:
        origin_s, scale = (clock.origin_s, clock.scale) if clock else (None, 1.0)
        return cls(policy.name, jobs, guardrails, policy.tick_s, apply, origin_s, scale, start_s)


@dataclass(frozen=True, slots=True)
class Tick:
    """One tick in the journal."""

    step: Step
    error: str | None = None  # why its targets could not be applied
    replayed_ticks: int | None = None  # ticks that a run which resumed here replayed first


class Journal:
    """An open journal; every line is on the disk, complete, before the next tick begins.

    Parameters
    ----------
    replayed_ticks : as in `Tick` for a run that resumes; None begins a journal with `header`.
    """

    def __init__(self, path: str | Path, header: Header, replayed_ticks: int | None = None):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():  # cut off a last line that a crash left incomplete
            text = self.path.read_bytes()
            os.truncate(self.path, text.rfind(b"\n") + 1)
        self._file = self.path.open("ab", buffering=0)
        if replayed_ticks is None:
            self._write({"kind": BEGIN} | asdict(header))
        else:
            self._write({"kind": RESUME, "replayed_ticks": replayed_ticks})

    def tick(self, step: Step, error: str | None) -> None:
        """Write one tick; OSError, and no part of the line, if the disk is full."""
        record = {"kind": TICK, "observation": _plain(step.observation), "plan": _plain(step.plan)}
        self._write(record | {"target": step.target.tolist(), "decision_s": step.decision_s, "error": error})

    def _write(self, record: Mapping[str, Any]) -> None:
        line, length = (json.dumps(record, allow_nan=False) + "\n").encode(), os.fstat(self._file.fileno()).st_size
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            os.fsync(self._file.fileno())
        except OSError:
            os.ftruncate(self._file.fileno(), length)
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def read(path: str | Path) -> tuple[Header, list[Tick]]:
    """Header and ticks of a journal, without a last line that a crash left incomplete.

    A run that ended before its first tick leaves only its header; the header of the next run then replaces it. ValueError
    if the file is not a journal.
    """
    records = list(_records(Path(path)))
    if not records or records[0].get("kind") != BEGIN:
        raise ValueError(f"{path}: not a journal of `faro run`; its first line must be the header")
    header, ticks, replayed_ticks = records[0], list[Tick](), None
    for record in records[1:]:
        if record["kind"] == BEGIN and not ticks:
            header = record
        elif record["kind"] == RESUME:
            replayed_ticks = record["replayed_ticks"]
        elif record["kind"] == TICK:
            observation, plan = _restored(Observation, record["observation"]), _restored(Plan, record["plan"])
            step = Step(observation, plan, np.array(record["target"], np.int64), record["decision_s"])
            ticks.append(Tick(step, record["error"], replayed_ticks))
            replayed_ticks = None
    return _header(path, header), ticks


def _header(path: str | Path, record: Mapping[str, Any]) -> Header:
    try:
        values = {field.name: record[field.name] for field in fields(Header)}
        values["jobs"] = tuple(Job(**job) for job in record["jobs"])
        return Header(**values | {"guardrails": GuardrailConfig(**record["guardrails"])})
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: written by another version of faro_lib ({error}); name another journal") from None


class Past(NamedTuple):
    """A run that can be resumed: its memory, its last observation, and the ticks replayed to restore the memory."""

    memory: Memory
    observation: Observation
    ticks: int


def resumed(path: str | Path, policy: Policy, header: Header) -> Past | None:
    """The past of the run that wrote this journal; None if it does not exist or has no tick.

    ValueError if it belongs to another policy, other jobs or other guardrails than `header`.
    """
    if not Path(path).exists() or not Path(path).stat().st_size:
        return None
    old, ticks = read(path)
    if not ticks:
        return None
    if (old.policy, old.tick_s) != (header.policy, header.tick_s):
        raise ValueError(
            f"{path}: written by policy {old.policy!r} every {old.tick_s:g} s, not by {header.policy!r} every "
            f"{header.tick_s:g} s; name another journal"
        )
    if old.jobs != header.jobs:
        raise ValueError(f"{path}: written for other jobs, {[job.name for job in old.jobs]}; name another journal")
    if (old.guardrails, old.apply) != (header.guardrails, header.apply):
        raise ValueError(f"{path}: written with other guardrails or another --apply; name another journal")
    recent = ticks[-REPLAYED_TICKS:]
    return Past(remembered(policy, old, recent), ticks[-1].step.observation, len(recent))


def remembered(policy: Policy, header: Header, ticks: list[Tick]) -> Memory:
    """The memory of the loop after these ticks, by deciding them again."""
    memory = Memory.start(policy, header.jobs, header.start_s)
    for one in ticks:
        memory, _ = _decide_again(policy, header, memory, one)
    return memory


def replay(policy: Policy, header: Header, ticks: list[Tick]) -> Iterator[tuple[Step, Step]]:
    """Each recorded tick, and the same tick decided by `policy`; resumptions are replayed as such."""
    memory = Memory.start(policy, header.jobs, header.start_s)
    for n, one in enumerate(ticks):
        if one.replayed_ticks is not None:
            memory = remembered(policy, header, ticks[n - one.replayed_ticks : n])
        memory, step = _decide_again(policy, header, memory, one)
        yield one.step, step


def next_memory(memory: Memory, apply: bool) -> Memory:
    """The memory at the next tick: in a dry run nothing was requested, so nothing is carried over or has drifted."""
    if apply:
        return memory
    pending = memory.pending.only(np.zeros(len(memory.pending.attempts), bool))
    return replace(memory, pending=pending, guard=replace(memory.guard, target=None, drop=None))


def _decide_again(policy: Policy, header: Header, memory: Memory, one: Tick) -> tuple[Memory, Step]:
    # The duration of a decision now must not decide whether it exceeds the deadline.
    memory, step = tick(policy, header.guardrails, header.jobs, memory, one.step.observation, timer=lambda: 0.0)
    return next_memory(memory, header.apply), step


def arrivals(header: Header, ticks: list[Tick]) -> np.ndarray:
    """Requests per minute (jobs, minutes) from the first to the last minute observed; NaN = unknown at every tick."""
    observations = [one.step.observation for one in ticks]
    counts = np.full((len(header.jobs), max((one.minute for one in observations), default=0)), np.nan)
    for one in observations:
        history = one.arrivals_per_min
        part = counts[:, one.minute - history.shape[1] : one.minute]
        part[:] = np.where(np.isnan(history), part, history)  # later ticks are more accurate
    known = np.isfinite(counts).any(axis=0)
    return counts[:, known.argmax() :] if known.any() else counts[:, :0]


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """The complete lines of a journal."""
    try:
        *lines, _incomplete = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; expected a journal of `faro run`") from None
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or "kind" not in record:
            raise ValueError(f"{path}, line {number}: not a line of a journal")
        yield record


def _plain(value: Any) -> Any:
    """Observations, plans and their values as JSON: NaN is null, infinity a string."""
    if isinstance(value, Observation | Plan):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _restored(kind: type, record: Mapping[str, Any]) -> Any:
    """An Observation or a Plan from `_plain`; numpy reads null as NaN and "inf" as infinity."""

    def value_of(field: str, value: Any) -> Any:
        if value is None or field in SCALARS:
            return value
        return tuple(value) if field == "reason" else np.array(value, DTYPES.get(field, float))

    return kind(**{field: value_of(field, value) for field, value in record.items()})
