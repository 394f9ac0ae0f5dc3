"""Load traces by the name of a workload."""

from dataclasses import replace
from pathlib import Path

from faro_lib.errors import nearest
from faro_lib.workload.changes import changed
from faro_lib.workload.jobs import PUBLISHED, SYNTHETIC, Traces
from faro_lib.workload.published import read_artifact
from faro_lib.workload.readers import is_table, read_csv, read_jobs
from faro_lib.workload.synthetic import synthetic as make_synthetic

ARTIFACT_EVALUATION = "input.json"
ARTIFACT_TRAINING = "top9_twitter_1_1600_avgproc_min_int5m_reduced_6hr_augmented.pkl"


def load_workload(
    workload: str = SYNTHETIC,
    jobs: str | None = None,
    *,
    raw: str = "data/raw",
    synthetic: dict | None = None,
) -> Traces:
    """Traces of a workload by its name, or by the path of a table of counts.

    The names are "synthetic" and "faro-10jobs" (the published files in the folder `raw`). `jobs` is
    the path of a table of jobs. `synthetic` has arguments of `make_synthetic` and a `change` (see
    `changed`).
    """
    table = read_jobs(jobs) if jobs else None
    if workload == SYNTHETIC:
        options = dict(synthetic or {})
        change = options.pop("change", "none")
        traces = changed(make_synthetic(**options), change)
    elif workload == PUBLISHED:
        traces = read_artifact(Path(raw) / ARTIFACT_EVALUATION, Path(raw) / ARTIFACT_TRAINING)
    elif is_table(workload):
        return read_csv(workload, table, strict=True)
    else:
        accepted = (SYNTHETIC, PUBLISHED, "the path of a .csv, .csv.gz or .parquet")
        raise ValueError(f"workload={workload!r} is unknown; {nearest(workload, accepted)}")
    if table is None:
        return traces
    by_name = {job.name: job for job in table}
    if sorted(by_name) != sorted(traces.names):
        raise ValueError(
            f"{jobs}: its jobs are {sorted(by_name)}; "
            f"workload {workload!r} has {sorted(traces.names)}"
        )
    return replace(traces, jobs=tuple(by_name[name] for name in traces.names))
