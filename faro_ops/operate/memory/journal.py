"""The journal of a run: one line per tick, to resume a run and to explain its decisions.

`records` has the format of the lines. A long journal is rotated (`rotation`), and its archives are
thinned out (`thinning`). A damaged line costs nobody a start: readers skip it, and the controller
sets it aside.
"""

from __future__ import annotations

import errno
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from faro_lib.control.guardrails import CONTESTED_AT, GuardrailConfig, mask_absent
from faro_lib.control.tick import Memory, Step
from faro_lib.protocol import CONTESTED, Observation, Policy
from faro_lib.workload import Job
from faro_lib.workload.replicas import mapping_of, replica_of
from faro_ops.operate.limits.brake import LiveMemory
from faro_ops.operate.loop.background import in_thread
from faro_ops.operate.loop.job_states import JobState
from faro_ops.operate.loop.late_counts import Folded
from faro_ops.operate.loop.tick import tick
from faro_ops.operate.memory import rotation, thinning
from faro_ops.operate.memory.records import (
    BEGIN,
    LOG,
    OF_A_HEADER,
    RESUME,
    TICK,
    Damage,
    complete_lines,
    decoded,
    encoded,
    needs_keyframe,
    step_of,
    tick_record,
)
from faro_ops.protocol import live_observation

# Replayed when a run resumes: 33 min of 10 s ticks, which cover the 15 min that forecasts use.
REPLAYED_TICKS = 200


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
    # Names of guardrails that an earlier version has not recorded; their defaults are assumed.
    absent: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Tick:
    """One recorded tick of the control loop."""

    step: Step
    error: str | None = None  # the error message if applying the targets failed, else None
    # Number of ticks replayed if a run resumed at this tick, else None.
    replayed_ticks: int | None = None
    # Numbers of the jobs whose targets were not applied; None: all of them, if there is an `error`.
    failed: tuple[int, ...] | None = None
    # Seconds between the ticks that thinning has kept around this one; None: it has kept all.
    every_s: float | None = None
    # (state, reason) of each job that was not fine, by name; see controller/job_states.py.
    troubled: Mapping[str, JobState] = field(default_factory=dict)


class Journal:
    """A journal file that only this controller writes.

    Each record is on the disk before the next tick begins. A part of the file is a header and the
    ticks after it. A run resumes from the last part that has ticks. `header` is the header of this
    part, and `ticks` are its newest ticks. In a new file, `header` is None and `ticks` is empty. A
    long journal is rotated (`controller.rotation`).
    """

    def __init__(self, path: str | Path):
        """Open or create a journal.

        Damaged lines are set aside in a file next to it. ValueError if another controller writes
        the journal, or if the file is not a journal.
        """
        self.path = Path(path)
        self.header: Header | None = None
        self.ticks: list[Tick] = []
        # `begin` sets (header, ticks, records). The next write appends the records and sets None.
        self._begun: tuple[Header | None, list[Tick], list[dict[str, Any]]] | None = None
        self._key: Step | None = None  # the last keyframe that this process has written
        self._generation = 0  # of a new file, if its archives are older than it
        self._thinning: Future[None] | None = None  # of the archives, in a thread
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch(0o600)
        self._max_bytes = rotation.MAX_BYTES
        self._file: IO = self.path.open("ab", buffering=0)
        rotation.lock(self._file, self.path)
        try:
            if self._length():
                self._read()
        except ValueError:
            self._file.close()
            raise

    def _read(self) -> None:
        """Read the newest part; set damaged lines aside, and remove an incomplete last line."""
        damage = Damage(self.path)
        found = _parts([self.path], [damage])
        if not found and not damage.first and self.path.read_bytes().startswith(b'{"kind": "'):
            os.truncate(self.path, 0)  # a crash left the first line incomplete
            return
        if found:
            self.header, self.ticks = found[-1]
        else:
            _check_ours(self.path, damage)
        if not damage.first:
            with self.path.open("rb") as file:
                complete = file.read().rfind(b"\n") + 1
            os.truncate(self.path, complete)  # a crash left the last line incomplete
            return
        if not found:
            # A new header has to say how many archives there are.
            self._generation = rotation.generation_of(self.path)
        try:
            self._file, aside = rotation.without_lines(self._file, self.path, damage.lines)
        except OSError as error:  # such as a full disk; the lines are skipped nevertheless
            damage.warn(f"skipped, and not set aside: {error}")
            return
        kept = "the others are used" if found else "no line is left, and a new part begins"
        damage.warn(f"set aside in {aside}; {kept}")

    def resume(self, policy: Policy, header: Header, now_s: float = math.inf) -> Past | None:
        """Prepare this journal for a run with `header`; return the recorded run to resume, if any.

        A resumed run must have the recorded `policy`, `tick_s`, `jobs`, `guardrails` and `apply`.
        It continues the last part. If `header.changes` is not empty, it begins a new part, and
        `jobs`, `guardrails` and `origin_s` may differ. Guardrails that an earlier version has not
        recorded may differ, too, in a new part. Raises ValueError if another setting differs, or if
        the last tick is more than `policy.tick_s` after `now_s`.
        """
        old, recent = self.header, self.ticks[-REPLAYED_TICKS:]
        if not old or not recent:
            self.begin(header)
            return None
        names = [job.name for job in old.jobs]
        if old.absent:
            old = self._completed(old, header)
        begins = bool(header.changes) or old != self.header  # a new part
        if header.changes:
            old = replace(old, jobs=header.jobs, guardrails=header.guardrails)
        self._check_same(old, header)
        last = recent[-1].step.observation
        ahead_s = last.now_s - now_s
        if ahead_s > policy.tick_s:
            problem = f"its last tick is {ahead_s:.0f} s ahead of this machine's clock"
            raise ValueError(f"{self.path}: {problem}; set the clock, or name another journal")
        if begins:
            past = Past(after_change(policy, names, header, recent), last, None)
        else:
            past = Past(remembered(policy, old, recent), last, len(recent))
        self.begin(header, past.ticks)
        return past

    def _completed(self, old: Header, new: Header) -> Header:
        """`old` with the new values of the guardrails that an earlier version has not recorded."""
        assumed = ", ".join(f"{name}={getattr(old.guardrails, name)!r}" for name in old.absent)
        earlier = f"an earlier version has written its header without {', '.join(old.absent)}"
        LOG.warning("%s: %s; %s is assumed", self.path, earlier, assumed)
        values = {name: getattr(new.guardrails, name) for name in old.absent}
        return replace(old, guardrails=replace(old.guardrails, **values))

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
        self._key = None
        if replayed_ticks is None:
            jobs = [asdict(job) | {"replica": mapping_of(job.replica)} for job in header.jobs]
            record = {"kind": BEGIN} | asdict(header) | {"jobs": jobs}
            del record["absent"]
            if self._generation and not self._length():
                record["generation"] = self._generation
            # Twice, because without its header no tick can be read.
            self._begun = header, [], [record, record]
        else:
            resumed = {"kind": RESUME, "replayed_ticks": replayed_ticks}
            self._begun = self.header, self.ticks, [resumed]
        if not self._length():  # a new file: write now, because `faro set` reads the jobs' names
            with suppress(OSError):  # the first tick tries again
                self._write()

    def tick(
        self,
        step: Step,
        error: str | None,
        failed: tuple[int, ...] | None = None,
        troubled: Mapping[str, JobState] | None = None,
    ) -> None:
        """Append one tick.

        If the disk is full, the oldest archive makes room. If that does not suffice, the file stays
        as it was, and OSError is raised.

        failed : numbers of the jobs whose targets were not applied.
        troubled : the state of each job that is not fine, by name.
        """
        key = None if needs_keyframe(step, self._key) else self._key
        record = tick_record(step, error, failed, key)
        if troubled:
            record["troubled"] = {
                job: [one.state, one.reason, round(one.since_s)] for job, one in troubled.items()
            }
        try:
            self._write(record)
        except OSError as problem:
            if problem.errno != errno.ENOSPC or not rotation.make_room(self.path):
                raise
            self._write(record)
        self._key = key or step
        self.ticks = [*self.ticks[1 - REPLAYED_TICKS :], Tick(step, error, failed=failed)]
        if self.path.stat().st_size > self._max_bytes:
            self._rotate()

    def _rotate(self) -> None:
        try:
            file = rotation.rotate(self.path, 2 * REPLAYED_TICKS)
        except OSError as error:  # the tick is recorded; the next one tries again
            LOG.warning("%s: not rotated: %s", self.path, error)
            rotation.make_room(self.path)
            return
        if file is None:
            return
        self._file.close()
        self._file = file
        # If the kept records exceed MAX_BYTES, the next tick must not rotate the file again.
        self._max_bytes = max(rotation.MAX_BYTES, 2 * self.path.stat().st_size)
        self._thinning = in_thread(partial(thinning.tidy, self.path))

    def _length(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def _write(self, *records: Mapping[str, Any]) -> None:
        if self._begun:
            records = (*self._begun[2], *records)
        lines = b"".join(encoded(record) for record in records)
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
        if self._thinning:
            wait((self._thinning,), 10.0)
        if not self._length():  # no run has begun
            self.path.unlink(missing_ok=True)
        self._file.close()


# --- reading --------------------------------------------------------------------------------------


def read(path: str | Path) -> tuple[Header, list[Tick]]:
    """(header, ticks) of a journal's last part, without archived ticks.

    Damaged lines are skipped with a warning. ValueError if the file is not a journal.
    """
    return _parts_of(Path(path), [Path(path)])[-1]


def parts(path: str | Path, since_s: float = 0.0) -> list[tuple[Header, list[Tick]]]:
    """(header, ticks) of each part of a journal, including its archives.

    A new part begins when an operator changes the jobs during the run. The result leaves out parts
    without ticks (unless there is only one part), an incomplete last line, damaged lines (with a
    warning), and archives last written before the Unix time `since_s`. ValueError if the file is
    not a journal. `recorded` has the same ticks one after the other, without holding them all.
    """
    return _parts_of(Path(path), _files(path, since_s))


def recorded(path: str | Path, since_s: float = 0.0) -> Iterator[tuple[Header, Tick]]:
    """Yield (header, tick) for each tick of a journal and its archives, oldest first.

    The ticks of a part have the same header object. For `since_s` and errors, see `parts`.
    """
    files = _files(path, since_s)
    damages = [Damage(file) for file in files]
    _check_ours(Path(path))
    for header, one in _events(files, damages):
        if one is not None:
            yield header, one
    _warn(damages)


def parts_at(path: str | Path, at_s: float) -> list[tuple[Header, list[Tick]]]:
    """Parts with the last tick at or before `at_s`, and with the journal's last tick.

    `at_s` is in seconds since time 0 of the run. Only the files that have these ticks are read.
    """
    files = _files(path)
    later = [n for n, file in enumerate(files) if _first_s(file) > at_s]
    n = max(0, min(later, default=len(files)) - 1)
    found = _parts_of(Path(path), [files[n]])
    if files[n] == files[-1]:
        return found
    header, ticks = read(path)
    return [*found, (header, ticks[-1:])]


def newest_part(path: str | Path, wanted: Callable[[Tick], bool]) -> tuple[Header, list[Tick]]:
    """(header, ticks) of the last part, as far back as the newest file with a `wanted` tick.

    Most often this is the journal itself, so that no archive is read.
    """
    newest = read(path)
    for file in reversed(_files(path)):
        damage = Damage(file)
        found = _parts([file], [damage])
        damage.warn("skipped")
        if not found:
            continue
        header, ticks = found[-1]
        if header != newest[0]:
            break
        if any(map(wanted, ticks)):
            return header, ticks
    return newest


def with_same_jobs(path: str | Path) -> tuple[Header, Iterator[Tick]]:
    """The last header of a journal, and the ticks of all parts with the same names of jobs."""
    last, _ = read(path)
    names = [job.name for job in last.jobs]
    same = (tick for header, tick in recorded(path) if [job.name for job in header.jobs] == names)
    return last, same


def _files(path: str | Path, since_s: float = 0.0) -> list[Path]:
    """The archives of a journal written since the Unix time `since_s`, and the journal itself."""
    archives = rotation.archives(Path(path))
    return [*(one for one in archives if one.stat().st_mtime >= since_s), Path(path)]


def _first_s(file: Path) -> float:
    """Time of the first tick in a file of a journal; infinite if it has none."""
    ticks = (tick for _, tick in _events([file], [Damage(file)]) if tick is not None)
    first = next(ticks, None)
    return math.inf if first is None else first.step.observation.now_s


def _parts_of(path: Path, files: list[Path]) -> list[tuple[Header, list[Tick]]]:
    """The parts in `files`, which belong to the journal `path`, with a warning of damaged lines."""
    damages = [Damage(file) for file in files]
    found = _parts(files, damages)
    if not found:
        _check_ours(path, damages[-1])
        raise ValueError(f"{path}: no header can be read ({damages[-1].first})")
    _warn(damages)
    return found


def _warn(damages: list[Damage]) -> None:
    for damage in damages:
        damage.warn("skipped")


def _check_ours(path: Path, damage: Damage | None = None) -> None:
    """Raise ValueError if no line of a file is one of a journal."""
    found = damage or Damage(path)
    for line in complete_lines(path):
        with suppress(ValueError):
            record = decoded(line)
            if record["kind"] == BEGIN or {"observation", "plan", "target"} <= set(record):
                return
        if not damage:
            found.add(1, line, "not a line of a journal")
    problem = found.first or "its first line must be the header"
    raise ValueError(f"{path}: not a journal of `faro run`; {problem}")


def _parts(files: list[Path], damages: list[Damage]) -> list[tuple[Header, list[Tick]]]:
    """The parts in some files of a journal; [] if no header can be read."""
    found: list[tuple[Header, list[Tick]]] = []
    for header, one in _events(files, damages):
        if one is not None:
            found[-1][1].append(one)
            continue
        if found and not found[-1][1]:
            found.pop()
        found.append((header, []))
    return found if len(found) < 2 or found[-1][1] else found[:-1]


def _events(
    files: Iterable[Path], damages: Iterable[Damage]
) -> Iterator[tuple[Header, Tick | None]]:
    """Yield (header, None) where a part begins, and (header, tick) for each of its ticks.

    files : files of one journal, oldest first.
    damages : as many objects, which note the damaged lines.

    ValueError if another version has written a header.
    """
    header: Header | None = None  # None: it is damaged, so the ticks after it are not usable
    for file, damage in zip(files, damages):
        key: Step | None = None
        replayed_ticks = every_s = None
        for number, line in _numbered(file, damage):
            kind = ""
            try:
                record = decoded(line)
                kind = record["kind"]
                if kind == BEGIN:
                    new = _header(file, record)
                    every_s = record.get("every_s")
                    # A header with a generation was written by a rotation; the part continues.
                    if new != header or "generation" not in record:
                        header, key = new, None
                        yield header, None
                elif kind == RESUME:
                    replayed_ticks = int(record["replayed_ticks"])
                elif kind == TICK:
                    if header is None:
                        raise ValueError("its header is missing or damaged")
                    step = _step(record, len(header.jobs), key)
                    key = key if "of" in record else step
                    yield header, _tick(record, step, replayed_ticks, every_s)
                    replayed_ticks = None
            except OtherVersion:
                raise
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
                problem = " ".join(f"{type(error).__name__}: {error}".split())[:100]
                damage.add(number, line, f"a damaged {kind} ({problem})" if kind else str(error))
                if not kind and sum(text in line for text in OF_A_HEADER) > 1:
                    header = None


def _numbered(file: Path, damage: Damage) -> Iterator[tuple[int, bytes]]:
    """(number, line) of each complete line; a damaged archive ends at its damage."""
    lines = enumerate(complete_lines(file), 1)
    while True:
        try:
            yield next(lines)
        except StopIteration:
            return
        except ValueError as error:  # of an archive, which names itself
            damage.first = damage.first or str(error).removeprefix(f"{file}: ")
            return


def _step(record: Mapping[str, Any], jobs: int, key: Step | None) -> Step:
    step = step_of(record, key)
    plan = step.plan
    lengths = {len(step.target), len(step.observation.target), len(plan.target), len(plan.reason)}
    if lengths != {jobs}:
        raise ValueError(f"targets of other than {jobs} jobs")
    return step


def _tick(
    record: Mapping[str, Any], step: Step, replayed_ticks: int | None, every_s: float | None
) -> Tick:
    failed = record.get("failed")
    return Tick(
        step,
        record["error"],
        replayed_ticks,
        None if failed is None else tuple(int(job) for job in failed),
        every_s,
        # Journals of earlier versions, and ticks at which all jobs were fine, have no such field.
        {
            job: JobState(str(state), str(why), float(since_s))
            for job, (state, why, since_s) in record.get("troubled", {}).items()
        },
    )


class OtherVersion(ValueError):
    """Another version of Faro has written a header."""


def _header(path: str | Path, record: Mapping[str, Any]) -> Header:
    try:
        values = {one.name: record[one.name] for one in fields(Header) if _is_recorded(one, record)}
        values["jobs"] = tuple(_job(one) for one in record["jobs"])
        values["changes"] = tuple(record.get("changes", ()))
        guardrails = record["guardrails"]
        values["guardrails"] = GuardrailConfig(**guardrails)
        names = [one.name for one in fields(GuardrailConfig)]
        values["absent"] = tuple(name for name in names if name not in guardrails)
        return Header(**values)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        problem = f"written by another version of faro_lib ({error}); name another journal"
        raise OtherVersion(f"{path}: {problem}") from None


def _is_recorded(one: Field, record: Mapping[str, Any]) -> bool:
    """Whether a field of a header is in its record; a field without a default must be there."""
    return one.name in record or (one.default is MISSING and one.default_factory is MISSING)


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
    before: deque[Tick] = deque(maxlen=REPLAYED_TICKS)
    skipped = 0
    for one in ticks:
        if one.every_s is not None:
            skipped = REPLAYED_TICKS
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


def arrivals(header: Header, ticks: Iterable[Tick]) -> np.ndarray:
    """Requests per minute (jobs, minutes) from the first observed one on; NaN = not observed."""
    counts = counts_by_minute(ticks)
    known = [minute for minute, of_jobs in counts.items() if np.isfinite(of_jobs).any()]
    if not known:
        return np.empty((len(header.jobs), 0))
    unknown = np.full(len(header.jobs), np.nan)
    minutes = range(min(known), max(counts) + 1)
    return np.stack([counts.get(minute, unknown) for minute in minutes], axis=1)


def counts_by_minute(ticks: Iterable[Tick]) -> dict[int, np.ndarray]:
    """Minute -> requests (jobs,) in it, NaN = not observed; minutes that no tick has are left out.

    Its size is that of the minutes in `ticks`, however long ago time 0 is.
    """
    counts: dict[int, np.ndarray] = {}
    last = None
    for one in ticks:
        observation = one.step.observation
        history = observation.arrivals_per_min
        if history is last:  # as at the keyframe of its minute
            continue
        last = history
        for minute, new in enumerate(history.T, observation.minute - history.shape[1]):
            # A later observation of a minute is more complete.
            before = counts.get(minute, new)
            counts[minute] = np.where(np.isnan(new), before, new)
    return counts
