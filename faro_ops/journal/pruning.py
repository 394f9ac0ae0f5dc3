"""Keep a journal small: thin out the ticks of earlier days, and delete the oldest days.

| age of a file | kept |
| --- | --- |
| less than a day | every tick, to the last bit |
| one to three days | one tick a minute |
| more than three days | one tick in five minutes |

Of the ticks of a minute, or of five, one with a plan is kept, and every tick at which a service has
gained or lost authority. A kept tick is a record of its own, with numbers of five digits and
without what only a replay needs. The counts of all minutes stay, because an observation has those
of 15 minutes. If all files exceed MAX_BYTES, the oldest are deleted.
"""

import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from faro_lib.workload.jobs import MINUTE_S
from faro_ops.journal.database import (
    RecordRow,
    connection_to,
    day_files,
    is_sound,
    remove,
    settle,
    size_of,
    write_file,
)
from faro_ops.journal.reading import JournalEvent, events_of, records_in
from faro_ops.journal.ticks import Header, Tick, decided, header_record, tick_record
from faro_ops.protocol import live_plan

DAY_S = 86_400.0
# (seconds since a file was written, seconds between the ticks that it then keeps)
LEVELS = ((DAY_S, MINUTE_S), (3 * DAY_S, 5 * MINUTE_S))
MAX_BYTES = 280 << 20  # of all files
DIGITS = 5  # significant digits of the numbers in a thinned tick
ONLY_FOR_REPLAYS = ("arrivals_now", "free_cores", "placed", "revision")
# The deciles score the forecast of the next minute, which five minutes later is not known.
ONLY_FOR_MINUTES = ("next_minute_deciles_rps",)


def delete_oldest(path: Path) -> None:
    """Delete a journal's oldest files while all have more than MAX_BYTES; the newest stays."""
    files = day_files(path)
    sizes = [size_of(file) for file in files]
    for n, file in enumerate(files[:-1]):
        if sum(sizes[n:]) <= MAX_BYTES:
            return
        remove(file)


def thin_out(path: Path, now_s: float) -> None:
    """Thin out the files of earlier days by their age at the Unix time `now_s`.

    A damaged file stays as it is, and so does one that a reader has open or that the disk has no
    room to write again.
    """
    for file in day_files(path)[:-1]:
        age_s = now_s - file.stat().st_mtime
        every_s = max((kept for after_s, kept in LEVELS if age_s > after_s), default=0.0)
        with suppress(ValueError, OSError, sqlite3.Error):
            if every_s and is_sound(file) and settle(file):
                thin(file, every_s)


def thin(file: Path, every_s: float) -> None:
    """Keep about one tick per `every_s` seconds in a file; one that has so few stays as it is.

    Its modification time stays.

    ValueError, OSError or sqlite3.Error, and nothing is changed, if that is not possible.
    """
    status = file.stat()
    with closing(connection_to(file, "mode=ro")) as day:
        first = next((one.tick for one in events_of(records_in(day), file) if one.tick), None)
        if first is None or every_s <= (first.every_s or 0.0):
            return
        events = kept_events(events_of(records_in(day), file), every_s)
        write_file(file, thinned_rows(events, every_s))
    os.utime(file, (status.st_atime, status.st_mtime))


def kept_events(events: Iterable[JournalEvent], every_s: float) -> Iterator[JournalEvent]:
    """The headers, and of the ticks in `every_s` seconds the first with a plan, else the first.

    A tick at which a level of authority has changed is kept, too.
    """
    levels: list[float] | None = None  # at the tick before; None: it belongs to another part

    def interval_of(event: JournalEvent) -> float:
        return -1.0 if event.tick is None else event.tick.step.observation.now_s // every_s

    for interval, group in groupby(events, interval_of):
        in_interval = list(group)
        if interval < 0:
            yield from in_interval
            levels = None
            continue
        ticks = [event.tick for event in in_interval if event.tick is not None]
        planned = [n for n, tick in enumerate(ticks) if decided(tick.step.plan)]
        kept = {(planned or [0])[0]}
        for n, tick in enumerate(ticks):
            now = _levels(tick)
            if levels is not None and levels != now:
                kept.add(n)
            levels = now
        yield from (in_interval[n] for n in sorted(kept))


def _levels(tick: Tick) -> list[float]:
    authority = live_plan(tick.step.plan).authority
    return [] if authority is None else authority[:, 0].tolist()


def thinned_rows(events: Iterable[JournalEvent], every_s: float) -> Iterator[RecordRow]:
    """The rows of a thinned file."""
    left_out = set(ONLY_FOR_REPLAYS)
    if every_s > MINUTE_S:
        left_out |= set(ONLY_FOR_MINUTES)
    n = part = 0
    for header, tick, continues in events:
        n += 1
        if tick is None:
            part = n
            yield from header_rows(header, n, continues)
            n += 1
            continue
        # That a run has resumed matters only for replays.
        whole = tick_record(replace(tick, every_s=every_s, replayed_ticks=None), None)
        now_s, plan = tick.step.observation.now_s, tick.step.plan
        yield RecordRow.of(shortened(whole, left_out), n, part, n, now_s, decided(plan))


def header_rows(header: Header, n: int, continues: bool) -> Iterator[RecordRow]:
    """The rows n and n + 1 of a header: twice, because without it no tick can be read."""
    record = header_record(header) | {"continues": continues}
    for copy in (n, n + 1):
        yield RecordRow.of(record, copy, n, 0, header.start_s, False)


def shortened(record: dict[str, Any], left_out: Collection[str]) -> dict[str, Any]:
    """The record of a tick with numbers of DIGITS digits and without the fields in `left_out`."""

    def of(fields: dict[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in fields.items() if name not in left_out}
        return {name: _rounded(value) for name, value in kept.items() if value is not None}

    observation = of(record["observation"]) | {"now_s": record["observation"]["now_s"]}
    return record | {"observation": observation, "plan": of(record["plan"])}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return value
