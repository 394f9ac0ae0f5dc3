"""The journal of a run: one JSON line per tick, to resume a run and to explain its decisions."""

from __future__ import annotations

import errno
import gzip
import json
import math
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from faro_lib.control.guardrails import CONTESTED_AT, GuardrailConfig, mask_absent
from faro_lib.control.tick import Memory, Step
from faro_lib.protocol import CONTESTED, Observation, Plan, Policy
from faro_lib.workload import Job
from faro_lib.workload.replicas import mapping_of, replica_of
from faro_ops.controller import rotation
from faro_ops.controller.brake import LiveMemory
from faro_ops.controller.tick import tick
from faro_ops.policies.protocol import LiveObservation, LivePlan, live_observation

BEGIN, TICK, RESUME = "begin", "tick", "resume"  # kinds of records
# Replayed when a run resumes: 33 min of 10 s ticks, which cover the 15 min that forecasts use.
REPLAYED_TICKS = 200
WHOLE = ("running", "starting", "target", "terminating", "placed", "replicas", "floor")
DTYPES: dict[str, type] = dict.fromkeys(WHOLE, int)
DTYPES |= dict.fromkeys(("changing", "present", "unbounded", "held"), bool)
NOT_RECORDED = ("left",)  # fields of a plan that follow from others
SCALARS: dict[str, type] = dict.fromkeys(("now_s", "capacity", "capacity_age_s"), float)
SCALARS |= dict.fromkeys(("minute", "attempts"), int)


@dataclass(frozen=True, slots=True)
class Header:
    """The settings of a run: the first record of its journal."""

    policy: str
    jobs: tuple[Job, ...]
    guardrails: GuardrailConfig
    tick_s: float
    apply: bool  # False in a dry run
    origin_s: int | None = None  # Unix time at time 0 of the run; None in a simulation
    scale: float = 1.0
    start_s: float = 0.0  # when the loop began to use these settings, in seconds since time 0
    # An operator's changes just before this header, as text; () if none.
    changes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tick:
    """One recorded tick of the control loop."""

    step: Step
    error: str | None = None  # the error message if applying the targets failed, else None
    # Number of ticks replayed if a run resumed at this tick, else None.
    replayed_ticks: int | None = None


class Journal:
    """A journal file that only this controller writes.

    Each record is on the disk before the next tick begins. A part of the file is a header and the
    ticks after it. A run resumes from the last part that has ticks. `header` is the header of this
    part, and `ticks` are its newest ticks. In a new file, `header` is None and `ticks` is empty. A
    long journal is rotated (`controller.rotation`).
    """

    def __init__(self, path: str | Path):
        """Open or create a journal.

        ValueError if another controller writes it, or if the file is not a journal.
        """
        self.path = Path(path)
        self.header: Header | None = None
        self.ticks: list[Tick] = []
        # `begin` sets (header, ticks, record). The next write appends the record and sets None.
        self._begun: tuple[Header | None, list[Tick], dict[str, Any]] | None = None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch(0o600)
        self._max_bytes = rotation.MAX_BYTES
        self._file: IO = self.path.open("ab", buffering=0)
        rotation.lock(self._file, self.path)
        try:
            if self._length():
                self.header, self.ticks = read(self.path)
        except ValueError:
            self._file.close()
            raise
        complete = self.path.read_bytes().rfind(b"\n") + 1
        os.truncate(self.path, complete)  # remove a line that a crash left incomplete

    def resume(self, policy: Policy, header: Header, now_s: float = math.inf) -> Past | None:
        """Prepare this journal for a run with `header`; return the recorded run to resume, if any.

        A resumed run must have the recorded `policy`, `tick_s`, `jobs`, `guardrails` and `apply`.
        It continues the last part. If `header.changes` is not empty, it begins a new part, and
        `jobs` and `guardrails.fixed` may differ. Raises ValueError if another setting differs, or
        if the last tick is more than `policy.tick_s` after `now_s`.
        """
        old, recent = self.header, self.ticks[-REPLAYED_TICKS:]
        if not old or not recent:
            self.begin(header)
            return None
        names = [job.name for job in old.jobs]
        if header.changes:
            guardrails = replace(old.guardrails, fixed=header.guardrails.fixed)
            old = replace(old, jobs=header.jobs, guardrails=guardrails)
        self._check_same(old, header)
        last = recent[-1].step.observation
        ahead_s = last.now_s - now_s
        if ahead_s > policy.tick_s:
            problem = f"its last tick is {ahead_s:.0f} s ahead of this machine's clock"
            raise ValueError(f"{self.path}: {problem}; set the clock, or name another journal")
        if header.changes:
            past = Past(after_change(policy, names, header, recent), last, None)
        else:
            past = Past(remembered(policy, old, recent), last, len(recent))
        self.begin(header, past.ticks)
        return past

    def _check_same(self, old: Header, new: Header) -> None:
        """Raise ValueError if a setting differs that a resumed run must share with the recorded."""
        for name in ("policy", "tick_s", "jobs", "guardrails", "apply"):
            was = getattr(old, name)
            if was != getattr(new, name):
                shown = [job.name for job in old.jobs] if name == "jobs" else was
                problem = f"written by a run with other {name}, {shown}; name another journal"
                raise ValueError(f"{self.path}: {problem}")

    def begin(self, header: Header, replayed_ticks: int | None = None) -> None:
        """Begin a part with `header` at the next tick.

        The last part continues instead if `replayed_ticks` is not None.
        """
        if replayed_ticks is None:
            jobs = [asdict(job) | {"replica": mapping_of(job.replica)} for job in header.jobs]
            self._begun = header, [], {"kind": BEGIN} | asdict(header) | {"jobs": jobs}
        else:
            record = {"kind": RESUME, "replayed_ticks": replayed_ticks}
            self._begun = self.header, self.ticks, record
        if not self._length():  # a new file: write now, because `faro set` reads the jobs' names
            with suppress(OSError):  # the first tick tries again
                self._write()

    def tick(self, step: Step, error: str | None) -> None:
        """Append one tick; OSError if the disk is full, in which case the file stays as it was."""
        self._write(
            {
                "kind": TICK,
                "observation": plain(step.observation),
                "plan": plain(step.plan),
                "target": step.target.tolist(),
                "decision_s": step.decision_s,
                "error": error,
            }
        )
        self.ticks = [*self.ticks[1 - REPLAYED_TICKS :], Tick(step, error)]
        if self.path.stat().st_size > self._max_bytes:
            self._rotate()

    def _rotate(self) -> None:
        file = rotation.rotate(self.path, 2 * REPLAYED_TICKS)
        if file is None:
            return
        self._file.close()
        self._file = file
        # If the kept records exceed MAX_BYTES, the next tick must not rotate the file again.
        self._max_bytes = max(rotation.MAX_BYTES, 2 * self.path.stat().st_size)

    def _length(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def _write(self, *records: Mapping[str, Any]) -> None:
        if self._begun:
            records = (self._begun[2], *records)
        lines = "".join(json.dumps(record, allow_nan=False) + "\n" for record in records).encode()
        length = self._length()
        try:
            if self._file.write(lines) != len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            os.fsync(self._file.fileno())
        except OSError:
            os.ftruncate(self._file.fileno(), length)
            raise
        if self._begun:
            self.header, self.ticks, _ = self._begun
            self._begun = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._length():  # no run has begun
            self.path.unlink(missing_ok=True)
        self._file.close()


def read(path: str | Path) -> tuple[Header, list[Tick]]:
    """(header, ticks) of a journal's last part, without archived ticks.

    ValueError if the file is not a journal.
    """
    return _parts(path, _records(Path(path)))[-1]


def parts(path: str | Path, since_s: float = 0.0) -> list[tuple[Header, list[Tick]]]:
    """(header, ticks) of each part of a journal, including its archives.

    A new part begins when an operator changes the jobs during the run. The result leaves out parts
    without ticks (unless there is only one part), an incomplete last line, and archives last
    written before the Unix time `since_s`. ValueError if the file is not a journal.
    """
    recent = [one for one in rotation.archives(Path(path)) if one.stat().st_mtime >= since_s]
    files = (*recent, Path(path))
    return _parts(path, (record for file in files for record in _records(file)))


def with_same_jobs(path: str | Path) -> tuple[Header, list[Tick]]:
    """The last header of a journal, and the ticks of all parts with the same names of jobs."""
    found = parts(path)
    last, _ = found[-1]
    names = [job.name for job in last.jobs]
    same = [ticks for header, ticks in found if [job.name for job in header.jobs] == names]
    return last, [one for ticks in same for one in ticks]


def _parts(
    path: str | Path, records: Iterator[tuple[str, dict[str, Any]]]
) -> list[tuple[Header, list[Tick]]]:
    _, first = next(records, ("", {"kind": None}))
    if first["kind"] != BEGIN:
        raise ValueError(f"{path}: not a journal of `faro run`; its first line must be the header")
    found: list[tuple[Header, list[Tick]]] = [(_header(path, first), [])]
    replayed_ticks = None
    for place, record in records:
        header, ticks = found[-1]
        if record["kind"] == BEGIN:
            # A header with a generation was written by a rotation; the part continues.
            if "generation" not in record:
                if not ticks:
                    found.pop()
                found.append((_header(path, record), []))
            continue
        try:
            if record["kind"] == RESUME:
                replayed_ticks = int(record["replayed_ticks"])
            elif record["kind"] == TICK:
                ticks.append(_tick(record, len(header.jobs), replayed_ticks))
                replayed_ticks = None
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            problem = " ".join(f"{type(error).__name__}: {error}".split())[:100]
            raise ValueError(f"{place}: a damaged {record['kind']} ({problem})") from None
    _, last_ticks = found[-1]
    return found if last_ticks or len(found) == 1 else found[:-1]


def _tick(record: Mapping[str, Any], jobs: int, replayed_ticks: int | None) -> Tick:
    observation = _restored(LiveObservation, record["observation"])
    plan = _restored(LivePlan, record["plan"])
    target = np.array(record["target"], np.int64)
    if {len(target), len(observation.target), len(plan.target), len(plan.reason)} != {jobs}:
        raise ValueError(f"targets of other than {jobs} jobs")
    step = Step(observation, plan, target, float(record["decision_s"]))
    return Tick(step, record["error"], replayed_ticks)


def _header(path: str | Path, record: Mapping[str, Any]) -> Header:
    try:
        values = {field.name: record[field.name] for field in fields(Header)}
        values["jobs"] = tuple(_job(one) for one in record["jobs"])
        values["changes"] = tuple(record["changes"])
        values["guardrails"] = GuardrailConfig(**record["guardrails"])
        return Header(**values)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        problem = f"written by another version of faro_lib ({error}); name another journal"
        raise ValueError(f"{path}: {problem}") from None


def _job(record: Mapping[str, Any]) -> Job:
    replica = replica_of(record.get("replica", {"kind": "serial"}))
    return Job(**{**record, "replica": replica})


class Past(NamedTuple):
    """A recorded run that can be resumed."""

    memory: Memory
    observation: Observation  # the last recorded observation
    # Number of ticks replayed to restore `memory`; None if an operator's change begins a new part.
    ticks: int | None


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
    state = memory.state
    for one in ticks:
        with suppress(Exception):  # a policy that fails keeps its state, as in `tick`
            state, _ = policy.decide(state, mask_absent(new.jobs, one.step.observation))
    if not new.apply:
        return replace(memory, state=state)
    guard = replace(
        memory.guard,
        target=last.target,
        drop=last.plan.drop,
        present=last.observation.exists,
        applied=ticks[-1].error is None,
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


def replay(policy: Policy, header: Header, ticks: list[Tick]) -> Iterator[tuple[Step, Step]]:
    """Let `policy` decide again on each observation; yield pairs (recorded step, new step)."""
    memory = Memory.start(policy, header.jobs, header.start_s)
    for n, one in enumerate(ticks):
        if one.replayed_ticks is not None:
            memory = remembered(policy, header, ticks[n - one.replayed_ticks : n])
        memory, step = _decide_again(policy, header, memory, one)
        yield one.step, step


def next_memory(memory: Memory, apply: bool, error: str | None) -> Memory:
    """The memory for the next tick; `error` is why this tick's targets were not applied, if so.

    A dry run (`apply` False) requests nothing, so its memory has no pending targets and no last
    request.
    """
    if apply:
        return replace(memory, guard=replace(memory.guard, applied=error is None))
    pending = memory.pending.only(np.zeros(len(memory.pending.attempts), bool))
    return replace(memory, pending=pending, guard=replace(memory.guard, target=None, drop=None))


def _decide_again(policy: Policy, header: Header, memory: Memory, one: Tick) -> tuple[Memory, Step]:
    # No deadline, because the decision may take longer on this machine.
    memory, step = tick(policy, header.guardrails, header.jobs, memory, one.step.observation)
    memory = next_memory(memory, header.apply, one.error)
    if header.apply:
        # The recorded request, so that its effect is not taken for another client's change.
        guard = replace(memory.guard, target=one.step.target, drop=one.step.plan.drop)
        memory = replace(memory, guard=guard)
    return memory, step


def arrivals(header: Header, ticks: list[Tick]) -> np.ndarray:
    """Requests per minute (jobs, minutes) from the first observed one on; NaN = not observed."""
    observations = [one.step.observation for one in ticks]
    minutes = max((one.minute for one in observations), default=0)
    counts = np.full((len(header.jobs), minutes), np.nan)
    for one in observations:
        history = one.arrivals_per_min
        part = counts[:, one.minute - history.shape[1] : one.minute]
        # A later observation of a minute is more complete.
        part[:] = np.where(np.isnan(history), part, history)
    known = np.isfinite(counts).any(axis=0)
    return counts[:, known.argmax() :] if known.any() else counts[:, :0]


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ("file, line N", record) for each complete line of a journal or of its archive.

    ValueError if the file is damaged.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; expected a journal of `faro run`") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: a damaged archive of a journal ({error})") from None
    *lines, _incomplete = content.decode(errors="replace").split("\n")
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or "kind" not in record:
            raise ValueError(f"{path}, line {number}: not a line of a journal")
        yield f"{path}, line {number}", record


def plain(value: Any) -> Any:
    """An observation, a plan or one of their values as JSON types.

    NaN becomes null, and infinity a string.
    """
    if isinstance(value, Observation | Plan):
        names = [field.name for field in fields(value) if field.name not in NOT_RECORDED]
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _restored(kind: type, record: Mapping[str, Any]) -> Any:
    """Build the observation or plan (`kind`) from `record`, which `plain` made.

    In its arrays, None becomes NaN.
    """

    def value_of(field: str, value: Any) -> Any:
        if value is None:
            return None
        if field in SCALARS:
            return SCALARS[field](value)
        if field == "reason":
            return tuple(value)
        return np.array(value, DTYPES.get(field, float))

    return kind(**{field: value_of(field, value) for field, value in record.items()})
