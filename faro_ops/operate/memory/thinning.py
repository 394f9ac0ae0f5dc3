"""Thinning of a journal's archives: the older they are, the fewer of their ticks are kept.

| age | kept |
| --- | --- |
| less than a day | every tick, to the last bit |
| one to three days | one tick a minute |
| more than three days | one tick in five minutes |

Of the ticks of a minute, or of five, one with a plan is kept, and every tick at which a service has
gained or lost authority. A kept tick is a record of its own, with numbers of five digits and
without what only a replay needs. The counts of all minutes stay, because an observation has those
of 15 minutes. If the archives exceed MAX_BYTES, the oldest are deleted.
"""

import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

from faro_lib.protocol import HOLD, OVERRIDE
from faro_lib.workload.jobs import MINUTE_S
from faro_ops.operate.memory.records import BEGIN, TICK, complete_lines, decoded, encoded
from faro_ops.operate.memory.rotation import archives, write_archive

DAY_S = 86_400.0
# (seconds since an archive was written, seconds between the ticks that it then keeps)
LEVELS = ((DAY_S, MINUTE_S), (3 * DAY_S, 5 * MINUTE_S))
MAX_BYTES = 240 << 20  # of all archives
DIGITS = 5  # significant digits of the numbers in a thinned tick
ONLY_FOR_REPLAYS = ("arrivals_now", "free_cores", "placed", "revision")
# The deciles score the forecast of the next minute, which five minutes later is not known.
ONLY_FOR_MINUTES = ("next_minute_deciles_rps",)


def tidy(path: Path, now_s: float | None = None) -> None:
    """Thin out the archives of a journal by their age, and delete the oldest ones above MAX_BYTES.

    now_s : Unix time; None: now.

    A damaged archive stays as it is, and so does one that the disk has no room to write again.
    """
    now_s = time.time() if now_s is None else now_s
    for archive in archives(path):
        age_s = now_s - archive.stat().st_mtime
        every_s = max((kept for after_s, kept in LEVELS if age_s > after_s), default=0.0)
        with suppress(ValueError, OSError, KeyError, TypeError, AttributeError):
            if every_s > thinned_to_s(archive):
                thin(archive, every_s)
    sizes = {archive: archive.stat().st_size for archive in archives(path)}
    for archive in list(sizes)[:-1]:
        if sum(sizes.values()) <= MAX_BYTES:
            return
        archive.unlink()
        del sizes[archive]


def thinned_to_s(archive: Path) -> float:
    """Seconds between the ticks of a thinned archive; 0 if it has every tick."""
    return float(decoded(next(complete_lines(archive))).get("every_s", 0.0))


def thin(archive: Path, every_s: float) -> None:
    """Keep about one tick per `every_s` seconds in an archive. Its modification time stays.

    ValueError, and nothing is changed, if a line is damaged.
    """
    status = archive.stat()
    left_out = set(ONLY_FOR_REPLAYS)
    if every_s > MINUTE_S:
        left_out |= set(ONLY_FOR_MINUTES)
    lines = []
    for record in kept_records(whole_records(archive), every_s):
        if record["kind"] == BEGIN:
            lines.append(encoded(record | {"every_s": every_s}))
        else:
            lines.append(encoded(shortened(record, left_out)))
    write_archive(archive, b"".join(lines))
    os.utime(archive, (status.st_atime, status.st_mtime))


def whole_records(archive: Path) -> Iterator[dict[str, Any]]:
    """The headers and ticks of an archive, each tick with all its fields.

    That a run has resumed is left out, because it matters only for replays.
    """
    key: dict[str, Any] | None = None
    for line in complete_lines(archive):
        record = decoded(line)
        if record["kind"] == BEGIN:
            key = None
            yield record
        elif record["kind"] == TICK:
            if "of" not in record:
                key = record
            yield whole(record, key)


def whole(record: dict[str, Any], key: dict[str, Any] | None) -> dict[str, Any]:
    """The record of a tick with the fields that it shares with its keyframe `key`."""
    if "of" not in record:
        return record
    if key is None or key["observation"]["now_s"] != record["of"]:
        raise ValueError("the first tick of a minute is damaged")
    own = {name: value for name, value in record.items() if name != "of"}
    both = {name: key[name] | record[name] for name in ("observation", "plan")}
    return {"target": key["target"]} | own | both


def kept_records(records: Iterable[dict[str, Any]], every_s: float) -> Iterator[dict[str, Any]]:
    """The headers, and of the ticks in `every_s` seconds the first with a plan, else the first.

    A tick at which a level of authority has changed is kept, too.
    """
    levels: list[float] | None = None  # at the tick before; None: it belongs to another part

    def interval_of(record: dict[str, Any]) -> float:
        return -1.0 if record["kind"] == BEGIN else record["observation"]["now_s"] // every_s

    for interval, group in groupby(records, interval_of):
        if interval < 0:
            yield from group
            levels = None
            continue
        ticks = list(group)
        planned = [n for n, tick in enumerate(ticks) if _has_plan(tick)]
        kept = {(planned or [0])[0]}
        for n, tick in enumerate(ticks):
            if levels is not None and levels != _levels(tick):
                kept.add(n)
            levels = _levels(tick)
        yield from (ticks[n] for n in sorted(kept))


def _has_plan(record: Mapping[str, Any]) -> bool:
    plan = record["plan"]
    return plan.get("forecast_rps") is not None or not set(plan["reason"]) <= {HOLD, OVERRIDE}


def _levels(record: Mapping[str, Any]) -> list[float]:
    return [row[0] for row in record["plan"].get("authority") or []]


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
