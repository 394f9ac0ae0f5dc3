"""The controller's memory on disk: a JSON line a tick, from which it resumes and anybody can decide again."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from faro_lib.control import GuardrailConfig, Limits, Memory, PolicyFailed, Step, tick
from faro_lib.policies.protocol import Observation, Plan, Policy
from faro_lib.workload import Job

BEGIN, TICK, RESUME = "begin", "tick", "resume"
REPLAYED_TICKS = (
    200  # ticks that a resuming controller decides again to remember: counters reach back 10 minutes, forecasts 15
)
INTEGERS = {"running", "starting", "target", "terminating"}
BOOLEANS = {"changing", "present"}
SCALARS = {"now_s", "capacity", "minute", "attempts"}


@dataclass(frozen=True, slots=True)
class Header:
    """What a journal begins with.

    origin_s, scale : of the clock; act : whether plans were carried out; start_s : trace time of the beginning.
    """

    policy: str
    jobs: tuple[Job, ...]
    guardrails: GuardrailConfig
    tick_s: float
    act: bool
    origin_s: int | None = None
    scale: float = 1.0
    start_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Tick:
    """One line of the journal: the step, and what became of it.

    error : why it could not be carried out, None if it could; replayed_ticks : ticks that a resumed controller remembered before.
    """

    step: Step
    error: str | None = None
    replayed_ticks: int | None = None


class Journal:
    """An open journal. A line is on the disk before the next tick begins, whole or not at all."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _mend(self.path)
        self._file = self.path.open("ab", buffering=0)

    def begin(self, header: Header) -> None:
        told = dataclasses.asdict(header)
        self._write({"kind": BEGIN} | told)

    def resume(self, replayed_ticks: int) -> None:
        self._write({"kind": RESUME, "replayed_ticks": replayed_ticks})

    def tick(self, step: Step, error: str | None) -> None:
        plan, observation = _plain(step.plan), _plain(step.observation)
        record = {"kind": TICK, "observation": observation, "plan": plan, "target": step.target.tolist()}
        self._write(record | {"decision_s": step.decision_s, "error": error})

    def close(self) -> None:
        self._file.close()

    def _write(self, record: Mapping[str, Any]) -> None:
        line, began = (json.dumps(record, allow_nan=False) + "\n").encode(), os.fstat(self._file.fileno()).st_size
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            os.fsync(self._file.fileno())
        except OSError:
            os.ftruncate(self._file.fileno(), began)  # the next line shall not be glued to half of this one
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def read(path: str | Path) -> tuple[Header, list[Tick]]:
    """Header and ticks of a journal; a last line that was torn by a crash is left out.

    A run that ended before its first tick leaves its header alone; the next one's stands below it, and is the one.

    Raises
    ------
    ValueError : the file is no journal; one line.
    """
    records = list(_records(Path(path)))
    if not records or records[0].get("kind") != BEGIN:
        raise ValueError(f"{path}: not a journal of `faro run`; its first line must be the header")
    header, ticks = records[0], list[Tick]()
    replayed_ticks = None
    for record in records[1:]:
        if record["kind"] == BEGIN and not ticks:
            header = record
        elif record["kind"] == RESUME:
            replayed_ticks = record["replayed_ticks"]
        elif record["kind"] == TICK:
            step = Step(
                _observation(record["observation"]),
                _plan(record["plan"]),
                np.array(record["target"], np.int64),
                record["decision_s"],
            )
            ticks.append(Tick(step, record["error"], replayed_ticks))
            replayed_ticks = None
    return _header(header), ticks


def arrivals(header: Header, ticks: list[Tick]) -> np.ndarray:
    """(jobs, minutes) requests in each minute from the first to the last that was seen; NaN = no tick knew it."""
    seen = [one.step.observation for one in ticks]
    last = max((one.minute for one in seen), default=0)
    counts = np.full((len(header.jobs), last), np.nan)
    for one in seen:
        history = one.arrivals_per_min
        part = counts[:, one.minute - history.shape[1] : one.minute]
        part[:] = np.where(np.isnan(history), part, history)  # a later tick knows better, where it knows
    known = np.isfinite(counts).any(axis=0)
    return counts[:, known.argmax() :] if known.any() else counts[:, :0]


def remember(policy: Policy, header: Header, ticks: list[Tick]) -> Memory:
    """What the controller remembered after these ticks: they are decided again. No more than the last ones are needed."""
    limits, memory = Limits.of(header.jobs), Memory.start(policy, header.jobs, header.start_s)
    for one in ticks:
        memory, _ = _again(policy, header, limits, memory, one)
    return memory


def replay(policy: Policy, header: Header, ticks: list[Tick]) -> Iterator[tuple[Step, Step]]:
    """Every tick as it was taken, and as the policy takes it now; a resumption is replayed as one."""
    limits, memory = Limits.of(header.jobs), Memory.start(policy, header.jobs, header.start_s)
    for place, one in enumerate(ticks):
        if one.replayed_ticks is not None:
            memory = remember(policy, header, ticks[place - one.replayed_ticks : place])
        memory, step = _again(policy, header, limits, memory, one)
        yield one.step, step


def after(memory: Memory, act: bool) -> Memory:
    """The memory that the next tick begins with: where plans are not carried out, nothing was asked of anybody."""
    if act:
        return memory
    pending = memory.pending.only(np.zeros(len(memory.pending.attempts), bool))
    return dataclasses.replace(memory, pending=pending, guard=dataclasses.replace(memory.guard, target=None, drop=None))


def _again(policy, header, limits, memory, one: Tick) -> tuple[Memory, Step]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PolicyFailed)  # it was told of when it happened
        memory, step = tick(policy, header.guardrails, limits, memory, one.step.observation, clock=lambda: 0.0)
    return after(memory, header.act), step


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """Every whole line: one without its end was torn by a crash, and `_mend` will cut it off."""
    try:
        *lines, _torn = path.read_text(encoding="utf-8", errors="replace").split("\n")
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


def _mend(path: Path) -> None:
    """Cut off a last line that was torn by a crash."""
    if path.exists():
        text = path.read_bytes()
        if (whole := text.rfind(b"\n") + 1) < len(text):
            os.truncate(path, whole)  # in place: a crash here loses nothing either


def _plain(noun) -> dict[str, Any]:
    """The fields of an Observation or Plan as JSON has them: NaN is null, infinity a string."""
    return {field.name: _jsonable(getattr(noun, field.name)) for field in dataclasses.fields(noun)}


def _jsonable(value):
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_jsonable(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value.item() if isinstance(value, np.generic) else value


def _array(field: str, value):
    if value is None or field in SCALARS:
        return value
    if field == "reason":
        return tuple(value)
    if field in BOOLEANS:
        return np.array(value, bool)
    if field in INTEGERS:
        return np.array(value, np.int64)
    return np.array([[_float(x) for x in row] if isinstance(row, list) else _float(row) for row in value], float)


def _float(value) -> float:
    return math.nan if value is None else float(value)


def _observation(told: Mapping[str, Any]) -> Observation:
    return Observation(**{field: _array(field, value) for field, value in told.items()})


def _plan(told: Mapping[str, Any]) -> Plan:
    return Plan(**{field: _array(field, value) for field, value in told.items()})


def _header(record: Mapping[str, Any]) -> Header:
    told = {key: value for key, value in record.items() if key != "kind"}
    jobs = tuple(Job(**job) for job in told.pop("jobs"))
    return Header(jobs=jobs, guardrails=GuardrailConfig(**told.pop("guardrails")), **told)
