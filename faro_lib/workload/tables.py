"""Load traces by the name of a workload."""

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
    """Traces of a workload: "synthetic", "faro-10jobs" (the published files in `raw`), or the path of a table of counts.

    `jobs` is the path of a table of jobs. `synthetic` has arguments of `make_synthetic` and a
    `change` (see `changed`).
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
        accepted = nearest(
            workload, (SYNTHETIC, PUBLISHED, "the path of a .csv, .csv.gz or .parquet")
        )
        raise ValueError(f"workload={workload!r} is unknown; {accepted}")
    if table is None:
        return traces
    by_name = {job.name: job for job in table}
    if sorted(by_name) != sorted(traces.names):
        raise ValueError(
            f"{jobs}: its jobs are {sorted(by_name)}; workload {workload!r} has {sorted(traces.names)}"
        )
    return Traces(tuple(by_name[name] for name in traces.names), traces.train, traces.evaluation)
