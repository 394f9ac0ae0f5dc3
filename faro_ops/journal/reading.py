"""Read a journal: whole, its newest ticks, or a tick of a time, with SQL.

A part of a journal is a header and the ticks after it. A new part begins when an operator changes
the jobs during the run. Damage costs no reader more than the records that it hit
(`database.opened`). All functions raise FileNotFoundError or ValueError if there is no journal, or
nothing in it can be read.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from faro_lib.control.tick import Step
from faro_ops.journal.database import NO_JOURNAL, RecordRow, day_files, opened
from faro_ops.journal.lines import opened_lines
from faro_ops.journal.ticks import INVALID, Header, Tick, header_of, tick_of


class NothingLeft(ValueError):
    """All of a journal is damaged."""


class JournalEvent(NamedTuple):
    """A record of a journal: a tick, or the header of a part or of a file that continues it."""

    header: Header
    tick: Tick | None = None
    continues: bool = False


def read(path: str | Path) -> tuple[Header, list[Tick]]:
    """(header, ticks) of a journal's last part."""
    return parts(path)[-1]


def parts(path: str | Path, since_s: float = 0.0) -> list[tuple[Header, list[Tick]]]:
    """(header, ticks) of each part of a journal.

    The result leaves out parts without ticks (unless there is only one part), and files last
    written before the Unix time `since_s`. `recorded` has the same ticks one after the other,
    without holding them all.
    """
    found: list[tuple[Header, list[Tick]]] = []
    for header, tick, _ in _events(files_of(path, since_s)):
        if tick is not None:
            found[-1][1].append(tick)
            continue
        if found and not found[-1][1]:
            found.pop()
        found.append((header, []))
    if not found:
        raise NothingLeft(f"{path}: no header of the journal can be read")
    return found if len(found) < 2 or found[-1][1] else found[:-1]


def recorded(path: str | Path, since_s: float = 0.0) -> Iterator[tuple[Header, Tick]]:
    """Yield (header, tick) for each tick of a journal, oldest first.

    The ticks of a part have the same header object. For `since_s`, see `parts`.
    """
    for header, tick, _ in _events(files_of(path, since_s)):
        if tick is not None:
            yield header, tick


def newest(path: str | Path, count: int = 1) -> tuple[Header, list[Tick]]:
    """(header, ticks) of a journal's last part, with at least its newest `count` ticks.

    Only the files that have them are read.
    """
    header: Header | None = None
    ticks: list[Tick] = []
    for file in reversed(files_of(path)):
        with _opened(file) as day:
            found = _newest_in(day, file, count - len(ticks))
        if found is None:
            continue
        if header is not None and found[0].header != header:
            break
        first, earlier = found
        header = first.header
        ticks = earlier + ticks
        if len(ticks) >= count or (ticks and not first.continues):
            break
    if header is None:
        raise NothingLeft(f"{path}: no header of the journal can be read")
    return header, ticks


def last_decision(path: str | Path) -> tuple[Header, list[Tick]]:
    """(header, ticks) of the last part, with the last tick that decided anything and the last one.

    They may be the same, and none may have decided anything.
    """
    header, last = newest(path)
    for file in reversed(files_of(path)):
        with _opened(file) as day:
            part = _last_part(day)
            found = _tick_where(day, file, "part = ? AND decided", part)
            begin = _header_in(day, file, part)
        if begin is None or begin.header != header:
            break
        if found is not None:
            return header, [found[1], *last]
        if not begin.continues:
            break
    return header, last


def parts_at(path: str | Path, at_s: float) -> list[tuple[Header, list[Tick]]]:
    """The parts with the last tick at or before `at_s`, and the journal's first and last tick.

    `at_s` is in seconds since time 0 of the run.
    """
    files = files_of(path)
    first = next(recorded(path), None)
    if first is None:
        return []
    found = None
    for file in reversed(files):
        with _opened(file) as day:
            found = _tick_where(day, file, "keyframe > 0 AND now_s <= ?", at_s)
        if found is not None:
            break
    header, last = newest(path)
    ticks = [first, *([found] if found else []), *((header, tick) for tick in last[-1:])]
    return [(of, [tick]) for of, tick in ticks]


def with_same_jobs(path: str | Path) -> tuple[Header, Iterator[Tick]]:
    """The last header of a journal, and the ticks of all parts with the same names of jobs."""
    last, _ = newest(path)
    names = [job.name for job in last.jobs]
    same = (tick for header, tick in recorded(path) if [job.name for job in header.jobs] == names)
    return last, same


# --- files and rows -------------------------------------------------------------------------------


def files_of(path: str | Path, since_s: float = 0.0) -> list[Path]:
    """The files of a journal that were written since the Unix time `since_s`, oldest first.

    A file that `faro export` has written is a journal, too.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.exists():
        raise FileNotFoundError(f"{path}: {NO_JOURNAL}")
    files = day_files(path)
    if not files:
        raise ValueError(f"{path}: not a journal of `faro run`; it has no file of a day")
    return [one for one in files[:-1] if one.stat().st_mtime >= since_s] + files[-1:]


def _opened(file: Path) -> AbstractContextManager[sqlite3.Connection]:
    return opened(file) if file.suffix == ".db" else opened_lines(file)


def _events(files: Iterable[Path]) -> Iterator[JournalEvent]:
    """All ticks, and a header where a part begins."""
    header: Header | None = None
    for file in files:
        with _opened(file) as day:
            for event in events_of(records_in(day), file):
                if event.tick is None:
                    if event.continues and event.header == header:
                        continue
                    header = event.header
                if header is not None:
                    yield JournalEvent(header, event.tick)


def events_of(rows: Iterable[RecordRow], file: Path) -> Iterator[JournalEvent]:
    """The headers and ticks in rows of a file, in their order.

    They must include the header and the keyframe of each tick. ValueError if another version of
    Faro has written them.
    """
    header, part, keyframe = None, 0, 0
    key: Step | None = None
    for row in rows:
        if row.is_header:
            if row.part != part:  # else it is its second copy
                record = row.content()
                header, part, key = header_of(record, str(file)), row.part, None
                yield JournalEvent(header, continues=bool(record.get("continues")))
            continue
        assert header is not None
        try:
            of = key if keyframe == row.keyframe else None
            tick = tick_of(row.content(), len(header.jobs), of)
        except INVALID as error:
            problem = " ".join(f"{type(error).__name__}: {error}".split())[:100]
            raise ValueError(f"{file}, record {row.n}: not a tick ({problem})") from None
        if row.keyframe == row.n:
            key, keyframe = tick.step, row.n
        yield JournalEvent(header, tick)


def records_in(
    day: sqlite3.Connection, condition: str = "TRUE", *values: float
) -> Iterator[RecordRow]:
    """The rows of an open file that fulfil an SQL condition."""
    for (body,) in day.execute(f"SELECT body FROM record WHERE {condition} ORDER BY n", values):
        row = RecordRow.in_bytes(body)
        assert row is not None  # as `database.opened` has checked
        yield row


def _last_part(day: sqlite3.Connection) -> int:
    """The number of the last part with ticks, else of the last one; 0 if there is none."""
    for condition in ("keyframe > 0", "TRUE"):
        newest = f"SELECT part FROM record WHERE {condition} ORDER BY n DESC LIMIT 1"
        found = day.execute(newest).fetchone()
        if found:
            return int(found[0])
    return 0


def _header_in(day: sqlite3.Connection, file: Path, part: int) -> JournalEvent | None:
    return next(events_of(records_in(day, "part = ? AND keyframe = 0", part), file), None)


def _newest_in(
    day: sqlite3.Connection, file: Path, count: int
) -> tuple[JournalEvent, list[Tick]] | None:
    """The last part in a file: its header, and at least its newest `count` ticks."""
    part = _last_part(day)
    begin = _header_in(day, file, part)
    if begin is None:
        return None
    keyframes = "SELECT keyframe FROM record WHERE part = ? AND keyframe > 0 ORDER BY n DESC"
    found = day.execute(f"{keyframes} LIMIT 1 OFFSET ?", (part, max(0, count - 1))).fetchone()
    start = found[0] if found else part
    rows = records_in(day, "part = ? AND (keyframe = 0 OR n >= ?)", part, start)
    return begin, [event.tick for event in events_of(rows, file) if event.tick is not None]


def _tick_where(
    day: sqlite3.Connection, file: Path, condition: str, *values: float
) -> tuple[Header, Tick] | None:
    """(header, tick) of the last tick in a file that fulfils an SQL condition."""
    columns = f"SELECT part, keyframe, n FROM record WHERE {condition} ORDER BY n DESC LIMIT 1"
    found = day.execute(columns, values).fetchone()
    if found is None:
        return None
    part, keyframe, n = found
    rows = records_in(day, "n IN (?, ?) OR (part = ? AND keyframe = 0)", keyframe, n, part)
    *_, (header, tick, _) = events_of(rows, file)
    assert tick is not None
    return header, tick


# --- counts ---------------------------------------------------------------------------------------


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
