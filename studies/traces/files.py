"""The traces of a workload on disk: the pipeline's traces/requests.parquet and traces/jobs.csv."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from faro_lib.workload import Job, Traces
from faro_lib.workload.readers import COLUMNS, read_jobs
from faro_lib.workload.replicas import SERIAL, mapping_of

# Fields of `Job` that only jobs of a pool have in a table.
OF_POOLS = ("pool", "models_per_replica", "memory_gib", "replica_memory_gib", "load_s")


def traces_frame(traces: Traces) -> pd.DataFrame:
    """The traces as a table with one row per count.

    Columns split (train or eval), sample, day, minute, job, requests.
    """
    train = _counts_frame("train", traces.train, 1, traces.names)
    judged = _counts_frame("eval", traces.evaluation[None], traces.days + 1, traces.names)
    return pd.concat([train, judged], ignore_index=True)


def _counts_frame(split: str, counts: np.ndarray, first_day: int, names) -> pd.DataFrame:
    """A table with one row per count of `counts` (days, samples, jobs, minutes)."""
    day, sample, job, minute = np.indices(counts.shape).reshape(4, -1)
    return pd.DataFrame(
        {
            "split": split,
            "sample": sample,
            "day": day + first_day,
            "minute": minute,
            "job": np.array(names, object)[job],
            "requests": counts.ravel(),
        }
    )


def write_traces(traces: Traces, directory: str | Path) -> None:
    """Write requests.parquet and jobs.csv to `directory`."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    traces_frame(traces).to_parquet(directory / "requests.parquet", index=False)
    write_jobs(traces.jobs, directory / "jobs.csv")


def write_jobs(jobs: tuple[Job, ...], path: str | Path) -> None:
    """Write a .csv or .yaml table for `read_jobs`.

    The field `replica` is left out for jobs with serial replicas, and the fields of a pool for jobs
    that share none.
    """
    csv = Path(path).suffix == ".csv"
    rows = []
    for job in jobs:
        row: dict = {"job": job.name}
        for name in COLUMNS:
            if name not in ("job", "replica") and (job.pool or name not in OF_POOLS):
                row[name] = getattr(job, name)
        if job.latency_curve:  # `read_jobs` expects a path relative to the folder of the table
            row["latency_curve"] = os.path.relpath(job.latency_curve, Path(path).parent)
        if job.replica != SERIAL:
            mapping = mapping_of(job.replica)
            row["replica"] = json.dumps(mapping) if csv else mapping
        rows.append(row)
    if csv:
        pd.DataFrame(rows, dtype=object).to_csv(path, index=False)
    else:
        Path(path).write_text(yaml.safe_dump(rows, sort_keys=False))


def read_traces(directory: str | Path) -> Traces:
    """Read the files of `write_traces`."""
    jobs = read_jobs(Path(directory) / "jobs.csv")
    table = pd.read_parquet(Path(directory) / "requests.parquet")
    table["job"] = pd.Categorical(table["job"], [job.name for job in jobs])
    table = table.sort_values(["day", "sample", "job", "minute"])

    def counts(split):
        part = table[table["split"] == split]
        days, samples = part["day"].nunique(), part["sample"].nunique()
        shape = (days, samples, len(jobs), table["minute"].nunique())
        return part["requests"].to_numpy().reshape(shape)

    evaluation = counts("eval")[0]  # (samples, jobs, minutes)
    train = counts("train")
    if not len(train):  # the shape of no days needs the number of samples
        train = np.zeros((0, *evaluation.shape), np.int64)
    return Traces(jobs, train, evaluation)
