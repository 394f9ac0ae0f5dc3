"""A workload by the name that the configuration and the command line give it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from faro_lib.config import PUBLISHED, SYNTHETIC
from faro_lib.workload.artifact import read_artifact
from faro_lib.workload.jobs import Traces
from faro_lib.workload.readers import read_csv, read_jobs
from faro_lib.workload.synthetic import synthetic as generate

EVALUATION = "input.json"
TRAINING = "top9_twitter_1_1600_avgproc_min_int5m_reduced_6hr_augmented.pkl"


def open_workload(
    workload: str = SYNTHETIC,
    jobs: str | Path | None = None,
    raw: str | Path = "data/raw",
    synthetic: Mapping[str, int] | None = None,
) -> Traces:
    """`synthetic`, `faro-10jobs` or the path of a CSV, as Traces.

    Parameters
    ----------
    jobs : a table of jobs that takes the place of the workload's own; for the named workloads in the same order.
    raw : folder with the published files.
    synthetic : arguments of the generator: seed, jobs, days, minutes.

    >>> open_workload(synthetic=dict(jobs=2, days=1, minutes=30)).evaluation.shape
    (4, 2, 30)
    """
    promised = None if jobs is None else read_jobs(jobs)
    if workload == SYNTHETIC:
        traces = generate(**(synthetic or {}))
    elif workload == PUBLISHED:
        traces = read_artifact(Path(raw) / EVALUATION, Path(raw) / TRAINING)
    else:
        return read_csv(workload, promised)
    if promised is None:
        return traces
    if len(promised) != len(traces.jobs):
        raise ValueError(f"{jobs}: {len(promised)} jobs, but the workload {workload} has {len(traces.jobs)}")
    return Traces(promised, traces.train, traces.evaluation)
