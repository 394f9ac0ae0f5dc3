"""Readers of users' files: a table of counts (CSV, .parquet) and a table of jobs (.csv, .yaml)."""

import dataclasses
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from faro_lib import files
from faro_lib.errors import nearest
from faro_lib.files import TooLarge, read_yaml, unpacked
from faro_lib.workload.jobs import TABLES, Job, Traces, check_jobs
from faro_lib.workload.limits import check_names
from faro_lib.workload.replicas import replica_of
from faro_lib.workload.service import MODELS
from faro_lib.workload.timed import (
    by_the_clock,
    clock_shifts,
    days_from_midnight,
    minutes_of,
    timed_counts,
)

# Column of a table of jobs -> type of its values. The column `job` has the names of the jobs.
COLUMNS = {"job": "str"} | {
    one.name: str(one.type).removesuffix(" | None") for one in dataclasses.fields(Job)[1:]
}
EXPECTED = "job, requests, and minute[, day] or time"
ALIASES = {"timestamp": "time", "service": "job", "count": "requests"}  # other accepted names
NUMBER_BYTES = 8  # of a number in memory
MAX_COUNT = 10**9  # largest accepted number of requests per minute
# A table may give the standard deviation of the service time instead of `service_scv`.
READ_COLUMNS = COLUMNS | {"service_std_s": "float"}
ACCEPTED = {"str": "text", "int": "a whole number", "float": "a number"}
# Optional sections of a job in .yaml, for Ray Serve and for Kubernetes, which are ignored here.
SECTIONS = ("serve", "deployment")


def read_jobs(path: str | Path) -> tuple[Job, ...]:
    """Jobs from a .csv or .yaml table with the column `job` (the name) and other fields of `Job`.

    If a row has a `service_time_s` but no `model`, the job's model is named after the job. The
    simulator then uses this service time, not the measured one of the default model. A
    `latency_curve` is a path relative to the table's folder.
    """
    rows = []
    for row in job_rows(path):
        fields = {key: value for key, value in row.items() if key not in SECTIONS}
        if fields.get("latency_curve"):
            fields["latency_curve"] = str(Path(path).parent / str(fields["latency_curve"]))
        rows.append(fields)
    jobs = tuple(_job(row, f"{path}, job {n}") for n, row in enumerate(rows, 1))
    try:
        check_jobs(jobs)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return jobs


def job_rows(path: str | Path) -> list[dict]:
    """The rows of a table of jobs as mappings, unchecked. Empty cells of a .csv are left out."""
    path = Path(path)
    columns = ", ".join(COLUMNS)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; a table of jobs has the columns {columns}")
    if path.suffix in (".yaml", ".yml"):
        rows = read_yaml(path)
        if isinstance(rows, dict):
            rows = rows.get("jobs")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ValueError(
                f"{path}: expected a list of jobs, each a mapping with any of {columns}"
            )
        return rows
    if path.suffix == ".csv":
        records = _read_csv(path, str).to_dict("records")
        return [{key: cell for key, cell in row.items() if cell != ""} for row in records]
    raise ValueError(f"{path}: a table of jobs is a .csv or a .yaml file")


def _read_csv(path: Path, dtype: type | dict[str, type]) -> pd.DataFrame:
    """Read a CSV file, or a CSV on standard input (path "-"). Empty cells become ""."""
    options: dict[str, Any] = dict(dtype=dtype, keep_default_na=False, low_memory=False)
    try:
        with unpacked(path) as file:
            table = pd.read_csv(sys.stdin if str(path) == "-" else file, **options)
    except (ValueError, OverflowError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: not a table ({str(error).splitlines()[0]})") from None
    # pandas makes an index if line 2 has surplus cells.
    if not isinstance(table.index, pd.RangeIndex):
        raise ValueError(f"{path}: line 2 has more cells than the header")
    return table.fillna("")


def _read_parquet(path: Path) -> pd.DataFrame:
    """Read a .parquet file. Job names become text, and missing names are empty."""
    from pyarrow.parquet import read_metadata

    try:
        size = read_metadata(path)
        # Equal values take nearly no room in the file.
        if size.num_rows * size.num_columns * NUMBER_BYTES > files.MAX_UNPACKED_BYTES:
            most = files.MAX_UNPACKED_BYTES / (1 << 30)
            raise TooLarge(f"its {size.num_rows} rows take more than {most:g} GiB; split it")
        table = pd.read_parquet(path)
        texts = {
            name: table[name].astype(object).fillna("").astype(str)
            for name in ("job", "service")
            if name in table
        }
        return table.assign(**texts)
    except (ValueError, OverflowError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: not a table ({str(error).splitlines()[0]})") from None


def _job(row: dict, where: str) -> Job:
    values = _values(row, where)
    std_s = values.pop("service_std_s", None)
    if std_s is not None:
        complete = values.get("service_time_s", 0) > 0 and "service_scv" not in values
        if not (std_s >= 0 and complete):
            need = "must be a number >= 0, beside a service_time_s and without a service_scv"
            raise ValueError(f"{where}: service_std_s={std_s:g} {need}")
        ratio = std_s / values["service_time_s"]
        values["service_scv"] = ratio * ratio
    if "service_time_s" in values:
        name = values["name"]
        values.setdefault("model", f"own {name}" if name in MODELS else name)
    try:
        if "replica" in values:
            values["replica"] = replica_of(values["replica"])
        return Job(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _values(row: dict, where: str) -> dict:
    """The values of a row, converted to the types of READ_COLUMNS; the column `job` as `name`."""
    row = {key: value for key, value in row.items() if value is not None}
    if "job" not in row:
        raise ValueError(f"{where}: column `job` (the name) is missing")
    values: dict = {}
    for key, value in row.items():
        if key not in READ_COLUMNS:
            raise ValueError(f"{where}: unknown field {key!r}; {nearest(str(key), READ_COLUMNS)}")
        kind = READ_COLUMNS[key]
        try:
            converted = value if key == "replica" else _converted(value, kind)
        except (ValueError, OverflowError):
            raise ValueError(f"{where}: {key}={value!r} is not {ACCEPTED[kind]}") from None
        values["name" if key == "job" else key] = converted
    return values


def _converted(value: object, kind: str) -> str | int | float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError
    if kind == "str":
        return str(value)
    number = float(value)
    if kind == "float":
        return number
    if number % 1 != 0:
        raise ValueError
    return int(number)


def is_table(path: str | Path) -> bool:
    """Whether `path` names a table of counts: .csv, .csv.gz, .parquet, or - for standard input."""
    return str(path) == "-" or str(path).endswith(TABLES)


def read_csv(
    path: str | Path, jobs: tuple[Job, ...] | None = None, *, strict: bool = False
) -> Traces:
    """Traces from a table with the columns job, requests, and `time` or `minute` (and `day`).

    With `minute`, all jobs and days need the same minutes 0, 1, 2, ... With `time`, days begin at
    midnight (`timed.days_from_midnight`) by the clock of each day (`timed.by_the_clock`). The last
    day is for evaluation, all earlier days for training. Without `jobs`, every job has the defaults
    of `Job`. If `strict`, a row of a job that is not in `jobs` raises ValueError. Otherwise, such
    rows are ignored, but at least one row must belong to `jobs`. The ValueError for a bad row names
    its file and line.
    """
    table, names = read_counts(path, jobs, strict=strict)
    if "time" in table:
        of_names = jobs or tuple(Job(name) for name in names)
        first, counts = timed_counts(table, names, str(path))
        first, counts = by_the_clock(first, counts, clock_shifts(table))
        return days_from_midnight(of_names, first, counts, str(path))
    return traces_of_minutes(Path(path), table, names, jobs)


def read_counts(
    path: str | Path, jobs: tuple[Job, ...] | None = None, *, strict: bool = True
) -> tuple[pd.DataFrame, list[str]]:
    """The checked rows of a table of counts, as in `read_csv`, and the names of the jobs."""
    path = Path(path)
    if str(path) != "-" and not path.exists():
        raise FileNotFoundError(f"{path}: no such file; expected a table with columns {EXPECTED}")
    if path.suffix == ".parquet":
        table = _read_parquet(path)
    else:
        table = _read_csv(path, {"job": str, "service": str})
    aliases = {alias: name for alias, name in ALIASES.items() if name not in table}
    table = table.rename(columns=aliases)
    for column in ("time" if "time" in table else "minute", "job", "requests"):
        if column not in table:
            missing = "'minute' or 'time'" if column == "minute" else repr(column)
            raise ValueError(
                f"{path}: column {missing} is missing; expected {EXPECTED}, got {list(table)}"
            )
    if table.empty:
        raise ValueError(f"{path}: no rows; expected one for each minute and job")
    if "time" in table:
        table["minute"] = minutes_of(table["time"], str(path))
    if "day" not in table or "time" in table:
        table["day"] = 0
    _check_rows(path, table)
    if jobs:
        names = [job.name for job in jobs]
    else:
        names = sorted(table["job"].unique(), key=lambda name: (len(name), name))
        if "time" in table:
            check_names(str(path), len(names), len(table))
    known = table["job"].isin(names)
    if not known.all() and (strict or not known.any()):
        unknown = f"{path}: job {table['job'][~known].iloc[0]!r} is not among the jobs {names}"
        raise ValueError(f"{unknown}; add it to the table of jobs, or delete its rows")
    return table[known], names


def traces_of_minutes(
    path: Path, table: pd.DataFrame, names: list[str], jobs: tuple[Job, ...] | None
) -> Traces:
    """Traces from rows with a `minute` and a `day`. ValueError if a minute of a job is missing."""
    days = sorted(table["day"].unique())
    minutes = int(table["minute"].max()) + 1
    if len(table) < len(days) * minutes * len(names):
        there = set(zip(table["day"], table["minute"], table["job"]))
        # A generator, because `minutes` may be a typing error of any size.
        every = ((day, minute, name) for day in days for minute in range(minutes) for name in names)
        day, minute, name = next(row for row in every if row not in there)
        of_day = f" of day {day}" if len(days) > 1 else ""
        raise ValueError(
            f"{path}: minute {minute}{of_day} is missing for job {name!r}; "
            f"minutes 0..{minutes - 1} are needed"
        )
    grid = table.pivot(index=["day", "minute"], columns="job", values="requests")[names]
    counts = grid.to_numpy().reshape(len(days), minutes, len(names))
    by_day = counts.transpose(0, 2, 1)[:, None]  # (days, 1, jobs, minutes)
    return Traces(jobs or tuple(Job(name) for name in names), by_day[:-1], by_day[-1])


def _check_rows(path: Path, table: pd.DataFrame) -> None:
    """Make minute, requests and day integers. ValueError for the first bad or repeated row."""
    at = "time" if "time" in table else "minute"
    unnamed = (table["job"] == "").to_numpy()
    if unnamed.any():
        raise ValueError(f"{path}, line {unnamed.argmax() + 2}: job is empty")
    for column in ("minute", "requests", "day"):
        values = pd.to_numeric(table[column], errors="coerce")
        reasons = {
            "not a number": values.isna(),
            "negative": values < 0,
            "too large": values > MAX_COUNT,
            "not whole": values % 1 != 0,
        }
        for reason, bad in reasons.items():
            if bad.any():
                line, row = _first_row(table, bad)
                raise ValueError(
                    f"{path}, line {line}: {column}={row[column]} for job {row['job']!r} "
                    f"at {at} {row[at]} is {reason}; counts are whole numbers from 0 to 1e9"
                )
        table[column] = values.astype(np.int64)
    repeated = table.duplicated(["day", "minute", "job"])
    if repeated.any():
        line, row = _first_row(table, repeated)
        raise ValueError(
            f"{path}, line {line}: job {row['job']!r} at {at} {row[at]} occurs a second time"
        )


def _first_row(table: pd.DataFrame, chosen: pd.Series) -> tuple[int, pd.Series]:
    """The first row that is `chosen`, and its line in the file, which begins with a header."""
    n = int(chosen.to_numpy().argmax())
    return n + 2, table.iloc[n]
