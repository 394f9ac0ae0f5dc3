"""Traces as the pipeline keeps them: traces/requests.parquet and traces/jobs.csv; and where a workload's name leads."""

from __future__ import annotations

import difflib
from pathlib import Path

import numpy as np
import pandas as pd

from faro_lib.workload.jobs import Traces
from faro_lib.workload.published import read_artifact
from faro_lib.workload.readers import read_csv, read_jobs, write_jobs
from faro_lib.workload.synthetic import synthetic as make_synthetic

NAMED = ("synthetic", "faro-10jobs")
ARTIFACT_EVALUATION = "input.json"
ARTIFACT_TRAINING = "top9_twitter_1_1600_avgproc_min_int5m_reduced_6hr_augmented.pkl"


def load_workload(
    workload: str = "synthetic", jobs: str | None = None, *, raw: str = "data/raw", synthetic: dict | None = None
) -> Traces:
    """Traces by name: "synthetic" (from a seed), "faro-10jobs" (the published files in `raw`), or the path of a CSV.

    Parameters
    ----------
    jobs : path of a table of jobs, which replaces the default promises; None keeps them.
    synthetic : parameters of `workload.synthetic.synthetic`.
    """
    table = read_jobs(jobs) if jobs else None
    if workload == "synthetic":
        traces = make_synthetic(**(synthetic or {}))
    elif workload == "faro-10jobs":
        traces = read_artifact(Path(raw) / ARTIFACT_EVALUATION, Path(raw) / ARTIFACT_TRAINING)
    elif str(workload).endswith(".csv"):
        return read_csv(workload, table)
    else:
        near = difflib.get_close_matches(str(workload), NAMED, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"workload={workload!r} is unknown; accepted: {', '.join(NAMED)}, or the path of a .csv{hint}")
    if table is None:
        return traces
    names = [job.name for job in traces.jobs]
    by_name = {job.name: job for job in table}
    if sorted(by_name) != sorted(names):
        raise ValueError(f"{jobs}: its jobs are {sorted(by_name)}; workload {workload!r} has {sorted(names)}")
    return Traces(tuple(by_name[name] for name in names), traces.train, traces.evaluation)


def first_jobs(traces: Traces, jobs: int) -> Traces:
    """The first so many jobs, for a quick look."""
    return Traces(traces.jobs[:jobs], traces.train[:, :, :jobs], traces.evaluation[:, :jobs])


def traces_frame(traces: Traces) -> pd.DataFrame:
    """One row a count: split (train, eval), sample, day, minute, job, requests."""
    parts = []
    for split, counts, first_day in (("train", traces.train, 1), ("eval", traces.evaluation[None], traces.days + 1)):
        day, sample, job, minute = np.indices(counts.shape).reshape(4, -1)
        names = pd.Categorical.from_codes(job, [job.name for job in traces.jobs])
        parts.append(
            pd.DataFrame(
                {
                    "split": split,
                    "sample": sample,
                    "day": day + first_day,
                    "minute": minute,
                    "job": names.astype(str),
                    "requests": counts.ravel(),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def write_traces(traces: Traces, directory: str | Path) -> None:
    """requests.parquet and jobs.csv in `directory`."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    traces_frame(traces).to_parquet(directory / "requests.parquet", index=False)
    write_jobs(traces.jobs, directory / "jobs.csv")


def read_traces(directory: str | Path) -> Traces:
    """What `write_traces` wrote."""
    directory = Path(directory)
    jobs = read_jobs(directory / "jobs.csv")
    table = pd.read_parquet(directory / "requests.parquet")
    names = [job.name for job in jobs]

    def counts(split):
        part = table[table["split"] == split]
        shape = [part[column].nunique() for column in ("day", "sample")]
        minutes = table["minute"].nunique()
        order = part.assign(job=pd.Categorical(part["job"], names)).sort_values(["day", "sample", "job", "minute"])
        return order["requests"].to_numpy().reshape(*shape, len(names), minutes)

    evaluation = counts("eval")[0]
    train = counts("train") if (table["split"] == "train").any() else np.zeros((0, *evaluation.shape), np.int64)
    return Traces(jobs, train, evaluation)
