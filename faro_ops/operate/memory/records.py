"""The lines of a journal: how records become lines, and how lines are read again.

A line is a JSON object with its checksum as last member, so a damaged byte is noticed. A line
without a checksum is one of an earlier version.

The first tick of each minute is a keyframe, a record of everything. The other ticks of the minute
have only the fields that differ from it, and its time in the member `of`. A damaged line therefore
costs at most the ticks of its minute.
"""

import json
import logging
import math
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from faro_lib.control.tick import Step
from faro_lib.files import lines_of
from faro_lib.protocol import Observation, Plan
from faro_lib.workload import Placement
from faro_lib.workload.jobs import MINUTE_S
from faro_ops.protocol import LiveObservation, LivePlan, live_observation, live_plan

LOG = logging.getLogger(__name__)
BEGIN, TICK, RESUME = "begin", "tick", "resume"  # kinds of records
WHOLE = ("running", "starting", "target", "terminating", "placed", "replicas", "floor", "revision")
DTYPES: dict[str, type] = dict.fromkeys(WHOLE, int)
DTYPES |= dict.fromkeys(("changing", "present", "unbounded", "held"), bool)
SPARSE = "placed"  # a field that is recorded by its entries that are not 0
NOT_RECORDED = ("left",)  # fields of a plan that follow from others
SCALARS: dict[str, type] = dict.fromkeys(("now_s", "capacity", "capacity_age_s"), float)
SCALARS |= dict.fromkeys(("minute", "attempts"), int)
CHECKSUM = re.compile(rb', "crc": "([0-9a-f]{8})"\}$')
# Texts of which a header has several, so that a damaged line can be recognised as a header.
OF_A_HEADER = (b'"guardrails": {', b'"service_time_s": ', b'"slo_s": ')
CHUNK_BYTES = 1 << 20
MAX_LINE_BYTES = 64 << 20  # several times the record of a tick with 10,000 jobs
PACKED_BYTES = 4096  # read from an archive at a time; what follows a damage in them is lost


# --- lines ----------------------------------------------------------------------------------------


def encoded(record: Mapping[str, Any]) -> bytes:
    """A record as a line with its checksum.

    >>> encoded({"kind": "resume"})
    b'{"kind": "resume", "crc": "2f5d6340"}\\n'
    """
    text = json.dumps(record, allow_nan=False).encode()
    return text[:-1] + b', "crc": "%08x"}\n' % zlib.crc32(text)


def decoded(line: bytes) -> dict[str, Any]:
    """The record in a line; ValueError if the line is damaged, or too long to be one."""
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"it is longer than {MAX_LINE_BYTES >> 20} MiB")
    checksum = CHECKSUM.search(line)
    if checksum:
        line = line[: checksum.start()] + b"}"
        if zlib.crc32(line) != int(checksum[1], 16):
            raise ValueError("its checksum is wrong")
    try:
        record = json.loads(line.decode(errors="replace"))
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        raise ValueError("not a line of a journal")
    if "crc" in record:
        raise ValueError("its checksum is damaged")
    return record


def complete_lines(path: Path) -> Iterator[bytes]:
    """The complete lines of a journal or of its archive, without the line ends.

    Of a line longer than MAX_LINE_BYTES, one byte more than these is kept; `decoded` refuses it.
    ValueError if an archive is damaged, after all lines before the damage.
    """
    return lines_of(_chunks(path), MAX_LINE_BYTES)


def _chunks(path: Path) -> Iterator[bytes]:
    """The content of a journal or of its archive; ValueError where an archive is damaged."""
    archived = path.suffix == ".gz"
    unpack = zlib.decompressobj(wbits=31)  # of a gzip file
    try:
        with path.open("rb") as file:
            while chunk := file.read(PACKED_BYTES if archived else CHUNK_BYTES):
                yield unpack.decompress(chunk) if archived else chunk
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; expected a journal of `faro run`") from None
    except zlib.error as error:
        raise ValueError(f"{path}: a damaged archive of a journal ({error})") from None
    if archived and not unpack.eof:
        raise ValueError(f"{path}: a damaged archive of a journal (its end is missing)")


@dataclass(slots=True)
class Damage:
    """The damaged lines of one file of a journal."""

    path: Path
    lines: list[tuple[int, bytes]] = field(default_factory=list)  # (number, line)
    first: str = ""  # what is wrong with the first of them, and where; "" if none is damaged

    def add(self, number: int, line: bytes, problem: str) -> None:
        self.lines.append((number, line))
        self.first = self.first or f"line {number}: {problem}"

    def warn(self, outcome: str) -> None:
        """Log one line if there is damage; `outcome` says what happens to it."""
        if self.first:
            count = len(self.lines)
            shown = f"{count} damaged line{'s' if count > 1 else ''}" if count else "damage"
            warn_once(f"{self.path}: {shown} ({self.first}) {outcome}")


@lru_cache(maxsize=1000)
def warn_once(line: str) -> None:
    """Log a warning, but not again, although a command may read a file several times."""
    LOG.warning("%s", line)


# --- ticks ----------------------------------------------------------------------------------------


def tick_record(
    step: Step, error: str | None, failed: tuple[int, ...] | None, key: Step | None
) -> dict[str, Any]:
    """The record of a tick.

    failed : numbers of the jobs whose request failed; None: all of them, if there is an `error`.
    key : the keyframe that the record refers to; None makes this tick a keyframe.
    """
    record: dict[str, Any] = {"kind": TICK}
    if key is not None:
        record["of"] = key.observation.now_s
    observation, plan = live_observation(step.observation), live_plan(step.plan)
    record["observation"] = _changed(observation, key and live_observation(key.observation))
    record["plan"] = _changed(plan, key and live_plan(key.plan))
    if key is None or not _same(step.target, key.target):
        record["target"] = step.target.tolist()
    record |= {"decision_s": step.decision_s, "error": error}
    if failed is not None:
        record["failed"] = list(failed)
    return record


def needs_keyframe(step: Step, key: Step | None) -> bool:
    """Whether a tick begins a minute, or nothing has been recorded before it."""
    if key is None or step.observation.minute != key.observation.minute:
        return True
    return step.observation.now_s - key.observation.now_s >= MINUTE_S


def step_of(record: Mapping[str, Any], key: Step | None) -> Step:
    """The step in a record; `key` is the last keyframe before it.

    Raises KeyError, TypeError, ValueError and the like if the record is damaged.
    """
    observation, plan = record["observation"], record["plan"]
    decision_s = float(record["decision_s"])
    if "of" not in record:
        return Step(
            LiveObservation(**_restored(observation)),
            LivePlan(**_restored(plan)),
            np.array(record["target"], np.int64),
            decision_s,
        )
    if key is None or key.observation.now_s != record["of"]:
        raise ValueError("the first tick of its minute is damaged")
    target = np.array(record["target"], np.int64) if "target" in record else key.target
    return Step(
        replace(key.observation, **_restored(observation)),
        replace(key.plan, **_restored(plan)),
        target,
        decision_s,
    )


def _changed(value: Any, key: Any) -> dict[str, Any]:
    """The fields of an observation or a plan that differ from those of `key`, as JSON types."""
    names = [one.name for one in fields(value) if one.name not in NOT_RECORDED]
    changed = {
        name: getattr(value, name)
        for name in names
        if key is None or not _same(getattr(value, name), getattr(key, name))
    }
    return {
        name: _sparse(of_job) if name == SPARSE and of_job is not None else plain(of_job)
        for name, of_job in changed.items()
    }


def _sparse(counts: np.ndarray) -> dict[str, list[int]]:
    """A matrix (jobs, nodes) by its entries that are not 0, because a job is on few nodes."""
    index = np.flatnonzero(counts)
    return {
        "shape": list(counts.shape),
        "index": index.tolist(),
        "count": counts.ravel()[index].tolist(),
    }


def _same(value: Any, other: Any) -> bool:
    if value is other:
        return True
    if isinstance(value, np.ndarray) and isinstance(other, np.ndarray):
        return np.array_equal(value, other, equal_nan=True)
    if isinstance(value, np.ndarray) or isinstance(other, np.ndarray):
        return False
    if isinstance(value, Mapping) and isinstance(other, Mapping):
        return plain(value) == plain(other)
    return bool(value == other)


def plain(value: Any) -> Any:
    """An observation, a plan or one of their values as JSON types.

    NaN becomes null, and infinity a string.
    """
    if isinstance(value, Observation | Plan):
        return _changed(value, None)
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, Placement):
        return {"home": value.home.tolist(), "resident": value.resident.astype(int).tolist()}
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.kind != "f" or np.isfinite(value).all():
            return value.tolist()
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _restored(record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an observation or a plan that `plain` made; in arrays, None becomes NaN."""
    return {name: _restored_value(name, value) for name, value in record.items()}


def _restored_value(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in SCALARS:
        return SCALARS[name](value)
    if name == "reason":
        return tuple(value)
    if name == "placement":
        return {pool: _placement(one) for pool, one in value.items()}
    if name == SPARSE and isinstance(value, dict):
        counts = np.zeros(value["shape"], int)
        counts.ravel()[value["index"]] = value["count"]
        return counts
    return np.array(value, DTYPES.get(name, float))


def _placement(record: Mapping[str, Any]) -> Placement:
    home = np.array(record["home"], np.int64)
    resident = np.array(record["resident"], bool)
    return Placement(home, resident.reshape(len(home), -1))
