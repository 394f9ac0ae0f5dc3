"""Readers of the files that people have: CSV of counts, tables of jobs, the Azure Functions 2019 layout."""

from __future__ import annotations

import dataclasses
import difflib
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from faro_lib.workload.downsample import downsample, scale_to
from faro_lib.workload.jobs import Job, Traces

JOB_FIELDS = {field.name: str(field.type) for field in dataclasses.fields(Job)}
# What a .yaml table may say of a job beside its promise: how Ray Serve runs it, which Deployment it is. Mappings; who
# reads them (`live`, `kube`) checks what is in them.
SECTIONS = ("serve", "deployment")


def read_jobs(path: str | Path) -> tuple[Job, ...]:
    """Jobs from a .csv or .yaml table whose columns are `Job`'s fields (`job` is the name; the others have defaults).

    A job that says how long its requests take but not which model it runs is a model of its own: else it would be served as
    the default model is.
    """
    rows = _rows(Path(path))
    plain = ({key: value for key, value in row.items() if key not in SECTIONS} for row in rows)
    return tuple(_job(row, f"{path}, job {n}") for n, row in enumerate(plain, 1))


def read_sections(path: str | Path, section: str) -> dict[str, dict]:
    """One of SECTIONS of each job of a .yaml table, by the job's name; {} where a job has none."""
    found = {}
    for n, row in enumerate(_rows(Path(path)), 1):
        found[str(row.get("job"))] = said = row.get(section) or {}
        if not isinstance(said, dict):
            raise ValueError(f"{path}, job {n}: {section}={said!r} must be a mapping")
    return found


def _rows(path: Path) -> list[dict]:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; a table of jobs has a column `job` and any of {_fields()}")
    if path.suffix in (".yaml", ".yml"):
        rows = yaml.safe_load(path.read_text())
        rows = rows.get("jobs") if isinstance(rows, dict) else rows
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ValueError(f"{path}: expected a list of jobs, each a mapping with `job` and any of {_fields()}")
    elif path.suffix == ".csv":
        rows = pd.read_csv(path, dtype={"job": str, "tenant": str, "model": str}).to_dict("records")
    else:
        raise ValueError(f"{path}: a table of jobs is a .csv or a .yaml file")
    return rows


def _job(row: dict, where: str) -> Job:
    row = {key: value for key, value in row.items() if not (isinstance(value, float) and np.isnan(value))}
    if "job" not in row:
        raise ValueError(f"{where}: column `job` (the name) is missing")
    known = {}
    for key, value in row.items():
        field = "name" if key == "job" else key
        if field not in JOB_FIELDS or key == "name":
            near = difflib.get_close_matches(key, JOB_FIELDS, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; accepted: job, {_fields()}"
            raise ValueError(f"{where}: unknown field {key!r}{hint}")
        kind = {"float": float, "int": int, "str": str}[JOB_FIELDS[field]]
        try:
            known[field] = kind(value)
        except (TypeError, ValueError):
            raise ValueError(f"{where}: {key}={value!r} is not a number") from None
    if "service_time_s" in known and "model" not in known:
        known["model"] = known["name"]
    try:
        return Job(**known)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _fields() -> str:
    return ", ".join(field for field in JOB_FIELDS if field != "name")


def write_jobs(jobs: tuple[Job, ...], path: str | Path) -> None:
    """The table that `read_jobs` reads."""
    table = pd.DataFrame([dataclasses.asdict(job) for job in jobs]).rename(columns={"name": "job"})
    if Path(path).suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        Path(path).write_text(yaml.safe_dump(table.to_dict("records"), sort_keys=False))


def read_csv(path: str | Path, jobs: tuple[Job, ...] | None = None) -> Traces:
    """Counts from a CSV with columns minute, job, requests and, optionally, day.

    Minutes run 0, 1, 2, ... without gaps, the same for every job and day. The last day is the one to be judged on, earlier
    days are for training; without `day` there is one day and no training.

    Parameters
    ----------
    jobs : the jobs' promises; by default every job of the file with `Job`'s defaults.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; expected a CSV with columns minute, job, requests[, day]")
    try:
        table = pd.read_csv(path, dtype={"job": str})
    except (ValueError, UnicodeDecodeError, pd.errors.ParserError) as error:
        raise ValueError(f"{path}: not a CSV table ({str(error).splitlines()[0]})") from None
    missing = [column for column in ("minute", "job", "requests") if column not in table]
    if missing:
        raise ValueError(
            f"{path}: column {missing[0]!r} is missing; expected minute, job, requests[, day], got {list(table)}"
        )
    if table.empty:
        raise ValueError(f"{path}: no rows; expected one for each minute and job")
    if "day" not in table:
        table["day"] = 0
    _check_rows(path, table)
    names = [job.name for job in jobs] if jobs else sorted(table["job"].unique(), key=lambda name: (len(name), name))
    for name in table["job"].unique():
        if name not in names:
            raise ValueError(f"{path}: job {name!r} is not among the jobs {names}")
    grid = table.pivot(index=["day", "minute"], columns="job", values="requests").reindex(columns=names)
    minutes = grid.index.get_level_values("minute").max() + 1
    days = sorted(table["day"].unique())
    grid = grid.reindex(pd.MultiIndex.from_product([days, range(minutes)], names=["day", "minute"]))
    if grid.isna().any(axis=None):
        (day, minute), name = grid.isna().stack().idxmax()[:2], grid.isna().stack().idxmax()[2]
        of_day = f" of day {day}" if len(days) > 1 else ""
        raise ValueError(
            f"{path}: minute {minute}{of_day} is missing for job {name!r}; minutes 0..{minutes - 1} are needed"
        )
    counts = grid.to_numpy().reshape(len(days), minutes, len(names)).transpose(0, 2, 1)[:, None]
    return Traces(jobs or tuple(Job(name) for name in names), counts[:-1], counts[-1])


def _check_rows(path: Path, table: pd.DataFrame) -> None:
    """Name the first row that is not a count."""
    for column in ("minute", "requests", "day"):
        values = pd.to_numeric(table[column], errors="coerce")
        for bad, why in ((values.isna(), "not a number"), (values < 0, "negative"), (values % 1 != 0, "not whole")):
            if bad.any():
                row = table[bad].iloc[0]
                raise ValueError(
                    f"{path}, line {table.index[bad][0] + 2}: {column}={row[column]} for job {row['job']!r} at minute "
                    f"{row['minute']} is {why}; counts are whole numbers >= 0"
                )
        table[column] = values.astype(np.int64)
    twice = table.duplicated(["day", "minute", "job"])
    if twice.any():
        row = table[twice].iloc[0]
        line = table.index[twice][0] + 2
        raise ValueError(f"{path}, line {line}: job {row['job']!r} at minute {row['minute']} occurs a second time")


def read_azure(
    paths: list[str | Path], top: int = 10, by: str = "invocations", *, downsample_by: int = 4, most: int = 1600
) -> Traces:
    """The Azure Functions 2019 layout: one file a day, columns HashOwner, HashApp, HashFunction, Trigger, 1..1440.

    The `top` functions by total invocations or by variance over all days are downsampled (1,440 minutes to 360) and scaled to
    1..most requests per minute, as the paper does. The last file is the day to be judged on.

    Source of the data: Shahrad et al., "Serverless in the Wild", USENIX ATC 2020 (CC-BY 4.0).
    """
    if by not in ("invocations", "variance"):
        raise ValueError(f"by={by!r} is unknown; accepted: invocations, variance")
    if len(paths) < 1:
        raise ValueError("paths is empty; expected one file a day")
    minutes = [str(minute) for minute in range(1, 1441)]
    days = []
    for path in paths:
        if not Path(path).exists():
            raise FileNotFoundError(f"{path}: no such file; expected one file of the Azure Functions 2019 layout a day")
        table = pd.read_csv(path)
        missing = [column for column in ("HashFunction", *minutes) if column not in table]
        if missing:
            raise ValueError(
                f"{path}: column {missing[0]!r} is missing; expected HashOwner, HashApp, HashFunction, Trigger, 1..1440"
            )
        days.append(table.groupby("HashFunction")[minutes].sum())
    names = sorted(set.intersection(*(set(day.index) for day in days)))
    if len(names) < top:
        raise ValueError(f"top={top}: only {len(names)} functions occur on all {len(days)} days")
    counts = np.stack([day.loc[names].to_numpy(float) for day in days], axis=1)  # (functions, days, minutes)
    score = counts.sum(axis=(1, 2)) if by == "invocations" else counts.reshape(len(names), -1).var(axis=1)
    chosen = np.argsort(-score, kind="stable")[:top]
    scaled = scale_to(downsample(counts[chosen], downsample_by), most)
    return Traces(tuple(Job(names[i]) for i in chosen), scaled[:-1], scaled[-1])
