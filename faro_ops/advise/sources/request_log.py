"""Request logs: a row for each request, read in batches, as counts per minute and their burstiness.

A log is a CSV, JSONL or Parquet file, compressed by gzip or zstd or not, with the columns `time`
and `job`, and perhaps `prompt_tokens`, `output_tokens` and `latency_s`. Rows are in the order of
time. Times are ISO 8601 or Unix times, in s or ms.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

from faro_lib.files import Bounded, TooLarge
from faro_lib.workload.bursts import dispersion
from faro_lib.workload.jobs import DAY_MINUTES, MINUTE_S, TABLES
from faro_lib.workload.limits import IDS, check_names, check_size
from faro_lib.workload.timed import LATEST_S, MAX_DAYS, MILLISECONDS_FROM, likely_unit

FORMATS = (".csv", ".jsonl", ".parquet")
COMPRESSIONS = ("", ".gz", ".zst")
ENDINGS = tuple(form + packed for form in FORMATS for packed in COMPRESSIONS)
# Optional columns, which must be numbers >= 0.
NUMBERS = ("prompt_tokens", "output_tokens", "latency_s", "replicas")
LENGTHS = ("prompt_tokens", "output_tokens")
LARGEST = 1e9  # of a number in these columns
WINDOW_S = 10  # counts are kept for windows of this length
WINDOWS_PER_MINUTE = int(MINUTE_S) // WINDOW_S
BLOCK_BYTES = 1 << 24
HEAD_BYTES = 1000  # enough for the names of the columns
PROGRESS_ROWS = 2_000_000
TIME = "time"
UNITS_PER_S = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}  # of columns of timestamps
OFFSET = re.compile(r"(Z|[+-]\d{2}(:?\d{2})?)$")  # the UTC offset at the end of an ISO 8601 time
Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RequestLog:
    """The counts of a log. Minutes without a request count 0."""

    names: tuple[str, ...]
    first_minute: int  # minutes from 1970-01-01 00:00, by the log's own clock
    counts: np.ndarray  # requests in windows of WINDOW_S seconds from that minute on, (jobs, n)
    # If a column was to be kept, a row for each request: job (position in `names`), minute (from
    # `first_minute` on), time_s (since 1970) and, unless only times were to be kept, value.
    kept: pd.DataFrame | None = None
    # By job, prompt and output tokens of its requests, (2, requests), if they were to be kept and
    # the log has both columns.
    tokens: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def per_minute(self) -> np.ndarray:
        """Requests per minute, (jobs, minutes)."""
        return self.counts.reshape(len(self.names), -1, WINDOWS_PER_MINUTE).sum(axis=2)

    @property
    def dispersion(self) -> np.ndarray:
        """Index of dispersion of the counts in WINDOW_S seconds, (jobs,); NaN without requests."""
        return dispersion(self.counts, WINDOWS_PER_MINUTE)

    @property
    def arrival_s(self) -> tuple[np.ndarray, ...]:
        """Times in s from the start of `first_minute`, by job; ValueError if they were not kept."""
        if self.kept is None:
            raise ValueError("the times of the requests were not kept")
        time_s = self.kept["time_s"].to_numpy() - self.first_minute * MINUTE_S
        job = self.kept["job"].to_numpy()
        return tuple(time_s[job == n] for n in range(len(self.names)))


def is_request_log(path: str | Path) -> bool:
    """Whether the file has a row for each request: columns time and job, and no counts.

    Without such a file, the ending decides: that of a table of counts is no log.
    """
    if not str(path).endswith(ENDINGS):
        return False
    only_a_log = not str(path).endswith(TABLES)
    if not Path(path).exists():
        return only_a_log
    try:
        names = _columns(Path(path))
    except (ValueError, OSError, StopIteration):
        # A damaged log is reported by the reader of logs, any other file by that of tables.
        return only_a_log
    return {"time", "job"} <= names and not {"requests", "count"} & names


def _columns(path: Path) -> set[str]:
    """The names of the columns. The head of a CSV is read alone: its end may be damaged."""
    import pyarrow as pa

    packed, kind = _packed_and_kind(path)
    if kind != ".csv":
        return set(next(batches(path)).schema.names)
    with pa.input_stream(str(path), compression=packed) as stream:
        head = stream.read(HEAD_BYTES).decode("utf-8-sig", "replace").split("\n")[0]
    return {name.strip().strip('"') for name in head.split(",")}


def read_request_log(
    path: str | Path,
    names: Sequence[str] | None = None,
    report: Report = lambda line: None,
    *,
    keep: str | None = None,
    ignore_others: bool = False,
    lengths: bool = False,
) -> RequestLog:
    """The counts of a log. The ValueError for a bad row names the file and the row.

    names : the jobs that it may have; None: any.
    report : called with the progress.
    keep : one of NUMBERS, a column to keep for each request beside its time; or TIME, only that.
    ignore_others : whether rows of other jobs are ignored. They are an error otherwise.
    lengths : whether the tokens of prompts and outputs are kept.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; a log has the columns time, job")
    reading = _Reading(path, names, keep, ignore_others, lengths)
    reported = 0
    for batch in batches(path):
        reading.add(batch)
        if reading.rows - reported >= PROGRESS_ROWS:
            reported = reading.rows
            report(f"{path}: {reported / 1e6:.0f} million rows")
    return reading.log()


def batches(path: Path) -> Iterator[Any]:
    """Batches of rows as `pyarrow.RecordBatch`; ValueError for a damaged file."""
    import pyarrow as pa

    rows = 0
    try:
        for batch in _opened(path):
            rows += batch.num_rows
            yield batch
    except (pa.ArrowException, OSError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: damaged or no log, after row {rows} ({reason})") from None
    except TooLarge as error:
        raise ValueError(f"{path}: {error}") from None


def _packed_and_kind(path: Path) -> tuple[str | None, str]:
    """The compression of a file (None: none) and its format, one of FORMATS."""
    packed = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
    return packed, path.with_suffix("").suffix if packed else path.suffix


def _opened(path: Path) -> Iterator[Any]:
    import pyarrow as pa
    from pyarrow import csv, json, parquet

    packed, kind = _packed_and_kind(path)
    text = dict.fromkeys(("time", "job"), pa.string())
    with pa.input_stream(str(path), compression=packed) as stream:
        if kind == ".csv":
            yield from csv.open_csv(
                stream,
                read_options=csv.ReadOptions(block_size=BLOCK_BYTES),
                convert_options=csv.ConvertOptions(column_types=text, strings_can_be_null=False),
            )
        elif kind == ".jsonl":
            yield from json.open_json(stream, read_options=json.ReadOptions(block_size=BLOCK_BYTES))
        else:
            whole = pa.BufferReader(Bounded(stream).read()) if packed else str(path)
            yield from parquet.ParquetFile(whole).iter_batches(1 << 18)


def _first_that_fails(column: Any, convert: Callable[[Any], Any]) -> int:
    """Position of the first value that `convert` rejects, by bisection; there must be one."""
    good, bad = 0, len(column)
    while bad - good > 1:
        middle = (good + bad) // 2
        try:
            convert(column.slice(0, middle))
            good = middle
        except ValueError:
            bad = middle
    return good


@dataclass(slots=True)
class _Reading:
    """What has been read of a log so far."""

    path: Path
    accepted: Sequence[str] | None
    keep: str | None
    ignore_others: bool
    lengths: bool
    rows: int = 0
    last_s: float = -np.inf  # time of the last row
    offset: str | None = None  # UTC offset of ISO 8601 times; None before the first row
    per_s: float = 1.0  # units of Unix times per second
    first_window: int = 0
    counts: dict[str, np.ndarray] = field(default_factory=dict)  # from `first_window` on, by job
    # (names, position in them, time in s, value) of each batch, for `RequestLog.kept`.
    kept: list[tuple[list[str], np.ndarray, np.ndarray, np.ndarray | None]] = field(
        default_factory=list
    )
    tokens: dict[str, list[np.ndarray]] = field(default_factory=dict)  # of each batch, by job

    def add(self, batch: Any) -> None:
        """Count the requests of a batch."""
        needed = list(dict.fromkeys(filter(None, ("time", "job", self.keep))))
        for column in needed:
            if column not in batch.schema.names:
                having = f"needed are {', '.join(needed)}"
                raise ValueError(f"{self.path}: column {column!r} is missing; {having}")
        if not batch.num_rows:
            return
        time_s = self._times(batch.column("time"))
        self._check_order(time_s)
        numbers = {
            name: self._checked_numbers(name, batch.column(name))
            for name in NUMBERS
            if name in batch.schema.names
        }
        window = (time_s // WINDOW_S).astype(np.int64)
        if not self.rows:
            self.first_window = int(window[0]) // WINDOWS_PER_MINUTE * WINDOWS_PER_MINUTE
        if window[-1] - self.first_window > MAX_DAYS * DAY_MINUTES * WINDOWS_PER_MINUTE:
            row = self.rows + len(window)
            raise ValueError(f"{self.path}, row {row}: more than {MAX_DAYS} days after row 1")
        window -= self.first_window
        names, index = self._count(batch.column("job"), window)
        if self.keep:
            value = None
            if self.keep != TIME:
                value = self._numbers(self.keep, batch.column(self.keep), "a number")
            self.kept.append((names, index.astype(np.int32), time_s, value))
        if self.lengths and set(LENGTHS) <= set(numbers):
            both = np.array([numbers[name] for name in LENGTHS], np.float32)
            for n, name in enumerate(names):
                if not self.accepted or name in self.accepted:
                    self.tokens.setdefault(name, []).append(both[:, index == n])
        self.rows += batch.num_rows
        self.last_s = float(time_s[-1])

    def _count(self, jobs: Any, window: np.ndarray) -> tuple[list[str], np.ndarray]:
        """Count the requests of a batch. Returns its names, and the position of each request's."""
        encoded = jobs.dictionary_encode()
        index = np.asarray(encoded.indices.to_numpy(zero_copy_only=False), float)
        names = [str(name) for name in encoded.dictionary.to_pylist()]
        unnamed = np.isnan(index)
        ours = [not self.accepted or name in self.accepted for name in names]
        known = [bool(name) and (own or self.ignore_others) for name, own in zip(names, ours)]
        wrong = unnamed | ~np.array([*known, True])[np.where(unnamed, -1, index).astype(int)]
        if wrong.any():
            at = int(wrong.argmax())
            name = "" if unnamed[at] else names[int(index[at])]
            rule = f"the jobs are {list(self.accepted)}" if self.accepted else "a job has a name"
            raise self._bad(at, f"job {name!r}", rule)
        every = self.counts.keys() | {name for name, own in zip(names, ours) if own}
        check_size(str(self.path), len(every), int(window[-1]) + 1, IDS)
        first, length = int(window[0]), int(window[-1] - window[0]) + 1
        for n, name in enumerate(names):
            if not ours[n]:
                continue
            of_job = np.bincount(window[index == n] - first, minlength=length)
            before = self.counts.get(name, np.zeros(0, np.int64))
            grown = np.zeros(max(len(before), first + length), np.int64)
            grown[: len(before)] = before
            grown[first : first + length] += of_job
            self.counts[name] = grown
        return names, index.astype(np.int64)

    def _times(self, column: Any) -> np.ndarray:
        """Seconds since 1970-01-01 00:00 by the log's own clock."""
        import pyarrow as pa
        from pyarrow import compute

        if pa.types.is_timestamp(column.type):
            stamps = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
            time_s = stamps / UNITS_PER_S[column.type.unit]
            return self._before_2100(time_s, time_s, "a time")
        first = str(column[0].as_py())
        if pa.types.is_large_string(column.type):
            column = column.cast(pa.string())
        if not pa.types.is_string(column.type) or re.fullmatch(r"\d+(\.\d*)?", first):
            return self._unix_times(column)
        if self.offset is None:
            found = OFFSET.search(first) if ":" in first else None
            self.offset = found.group() if found else ""
        accepted = f"ISO 8601 with the UTC offset of row 1 ({self.offset or 'none'})"
        if self.offset:
            alike = compute.ends_with(column, self.offset)
            if not compute.all(alike).as_py():
                at = int(np.argmin(alike.to_numpy(zero_copy_only=False)))
                raise self._bad(at, f"time {column[at].as_py()!r}", accepted)
            column = compute.utf8_slice_codeunits(column, 0, -len(self.offset))

        def stamps_of(part: Any) -> Any:
            stamps = compute.cast(part, pa.timestamp("ns"))
            if stamps.null_count:
                raise pa.ArrowInvalid("a time is missing")
            return stamps

        try:
            stamps = stamps_of(column)
        except pa.ArrowInvalid:
            failing = _first_that_fails(column, stamps_of)
            raise self._bad(failing, f"time {column[failing].as_py()!r}", accepted) from None
        time_s = stamps.to_numpy(zero_copy_only=False).astype(np.int64) / 1e9
        return self._before_2100(time_s, time_s, accepted)

    def _unix_times(self, column: Any) -> np.ndarray:
        """Seconds since 1970 of Unix times, which are in s or, if row 1 is so large, in ms."""
        values = self._numbers("time", column, "ISO 8601 or a Unix time in s or ms")
        if not self.rows:
            self.per_s = 1e3 if values[0] > MILLISECONDS_FROM else 1.0
        return self._before_2100(values / self.per_s, values, "ISO 8601 or a Unix time in s or ms")

    def _before_2100(self, time_s: np.ndarray, given: np.ndarray, accepted: str) -> np.ndarray:
        """The times (rows,), unless one of them cannot be right; `given` is shown then."""
        wrong = ~((time_s >= 0) & (time_s < LATEST_S))
        if wrong.any():
            at = int(wrong.argmax())
            value = "missing" if np.isnan(given[at]) else f"{given[at]:.0f}"
            rule = f"{accepted}, before the year 2100{likely_unit(given[at])}"
            raise self._bad(at, f"time={value}", rule)
        return time_s

    def _numbers(self, name: str, column: Any, accepted: str) -> np.ndarray:
        import pandas as pd

        values = pd.to_numeric(pd.Series(column.to_pandas()), errors="coerce").to_numpy(float)
        wrong = ~np.isfinite(values)
        if wrong.any():
            at = int(wrong.argmax())
            raise self._bad(at, f"{name}={column[at].as_py()!r}", accepted)
        return values

    def _check_order(self, time_s: np.ndarray) -> None:
        steps = np.diff(time_s, prepend=self.last_s)
        if (steps < 0).any():
            at = int((steps < 0).argmax())
            raise self._bad(at, f"time {time_s[at]:.3f} s", "rows are in the order of time")

    def _checked_numbers(self, name: str, column: Any) -> np.ndarray:
        values = self._numbers(name, column, f"a number from 0 to {LARGEST:g}")
        wrong = (values < 0) | (values > LARGEST)
        if wrong.any():
            at = int(wrong.argmax())
            raise self._bad(at, f"{name}={values[at]:g}", f"a number from 0 to {LARGEST:g}")
        return values

    def _bad(self, at: int, what: str, accepted: str) -> ValueError:
        return ValueError(f"{self.path}, row {self.rows + at + 1}: {what}; {accepted}")

    def log(self) -> RequestLog:
        if not self.rows:
            raise ValueError(f"{self.path}: no rows; a log has one for each request")
        if not self.counts:
            ours = ", ".join(self.accepted or ())
            raise ValueError(f"{self.path}: no row is of one of the jobs {ours}")
        if not self.accepted:
            check_names(str(self.path), len(self.counts), self.rows)
        names = tuple(self.accepted or sorted(self.counts, key=lambda name: (len(name), name)))
        longest = max(len(of_job) for of_job in self.counts.values())
        windows = -(-longest // WINDOWS_PER_MINUTE) * WINDOWS_PER_MINUTE
        counts = np.zeros((len(names), windows), np.int64)
        for row, name in zip(counts, names):
            of_job = self.counts.pop(name, np.zeros(0, np.int64))  # not twice in memory
            row[: len(of_job)] = of_job
        first_minute = self.first_window // WINDOWS_PER_MINUTE
        kept = self._kept(names) if self.keep else None
        tokens = {name: np.concatenate(parts, axis=1) for name, parts in self.tokens.items()}
        return RequestLog(names, first_minute, counts, kept, tokens)

    def _kept(self, names: tuple[str, ...]) -> pd.DataFrame:
        import pandas as pd

        position = {name: n for n, name in enumerate(names)}
        parts = []
        first_minute = self.first_window // WINDOWS_PER_MINUTE
        for of_batch, index, time_s, value in self.kept:
            job = np.array([position.get(name, -1) for name in of_batch], np.int32)[index]
            minute = (time_s // MINUTE_S).astype(np.int64) - first_minute
            part = pd.DataFrame({"job": job, "minute": minute, "time_s": time_s})
            if value is not None:
                part["value"] = value
            parts.append(part[job >= 0])
        return pd.concat(parts, ignore_index=True)
