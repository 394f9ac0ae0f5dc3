"""Load traces by the name of a workload; write and read the pipeline's traces/requests.parquet and traces/jobs.csv."""

from pathlib import Path

import numpy as np
import pandas as pd

from faro_lib.errors import nearest
from faro_lib.workload.changes import changed
from faro_lib.workload.jobs import PUBLISHED, SYNTHETIC, Traces
from faro_lib.workload.published import read_artifact
from faro_lib.workload.readers import is_table, read_csv, read_jobs, write_jobs
from faro_lib.workload.synthetic import synthetic as make_synthetic

ARTIFACT_EVALUATION = "input.json"
ARTIFACT_TRAINING = "top9_twitter_1_1600_avgproc_min_int5m_reduced_6hr_augmented.pkl"


def load_workload(
    workload: str = SYNTHETIC, jobs: str | None = None, *, raw: str = "data/raw", synthetic: dict | None = None
) -> Traces:
    """Traces of a workload: "synthetic", "faro-10jobs" (the published files in `raw`), or the path of a table of counts.

    `jobs` is the path of a table of jobs with their SLOs, `synthetic` has parameters of
    `synthetic.synthetic`, and `change`, one of `changes.CHANGES`.
    """
    table = read_jobs(jobs) if jobs else None
    if workload == SYNTHETIC:
        options = dict(synthetic or {})
        change = options.pop("change", "none")
        traces = changed(make_synthetic(**options), change)
    elif workload == PUBLISHED:
        traces = read_artifact(Path(raw) / ARTIFACT_EVALUATION, Path(raw) / ARTIFACT_TRAINING)
    elif is_table(workload):
        return read_csv(workload, table)
    else:
        accepted = nearest(workload, (SYNTHETIC, PUBLISHED, "the path of a .csv, .csv.gz or .parquet"))
        raise ValueError(f"workload={workload!r} is unknown; {accepted}")
    if table is None:
        return traces
    by_name = {job.name: job for job in table}
    if sorted(by_name) != sorted(traces.names):
        raise ValueError(f"{jobs}: its jobs are {sorted(by_name)}; workload {workload!r} has {sorted(traces.names)}")
    return Traces(tuple(by_name[name] for name in traces.names), traces.train, traces.evaluation)


def traces_frame(traces: Traces) -> pd.DataFrame:
    """The traces as a table with one row per count: columns split (train or eval), sample, day, minute, job, requests."""
    parts = []
    for split, counts, first_day in (("train", traces.train, 1), ("eval", traces.evaluation[None], traces.days + 1)):
        day, sample, job, minute = np.indices(counts.shape).reshape(4, -1)
        columns = {"split": split, "sample": sample, "day": day + first_day, "minute": minute}
        parts.append(pd.DataFrame(columns | {"job": np.array(traces.names, object)[job], "requests": counts.ravel()}))
    return pd.concat(parts, ignore_index=True)


def write_traces(traces: Traces, directory: str | Path) -> None:
    """Write requests.parquet and jobs.csv to `directory`."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    traces_frame(traces).to_parquet(directory / "requests.parquet", index=False)
    write_jobs(traces.jobs, directory / "jobs.csv")


def read_traces(directory: str | Path) -> Traces:
    """Read the files of `write_traces`."""
    jobs = read_jobs(Path(directory) / "jobs.csv")
    table = pd.read_parquet(Path(directory) / "requests.parquet")
    table["job"] = pd.Categorical(table["job"], [job.name for job in jobs])
    table = table.sort_values(["day", "sample", "job", "minute"])

    def counts(split):
        part = table[table["split"] == split]
        shape = part["day"].nunique(), part["sample"].nunique(), len(jobs), table["minute"].nunique()
        return part["requests"].to_numpy().reshape(shape)

    evaluation = counts("eval")[0]
    train = counts("train")
    return Traces(jobs, train if len(train) else np.zeros((0, *evaluation.shape), np.int64), evaluation)
