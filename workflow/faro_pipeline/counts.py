"""A workload that is a request log becomes a table of counts, which the stages read."""

import sys
from pathlib import Path

from faro_lib.files import atomic_write
from faro_lib.workload.readers import read_jobs
from faro_ops.advise.sources.load_history import traces_of_log
from faro_ops.advise.sources.request_log import is_request_log
from faro_pipeline.derived import stem_of
from faro_pipeline.settings import Config
from studies.traces import traces_frame


def with_counts(config: Config, say: bool = True) -> Config:
    """The settings; if the workload is a request log, with a table of its counts instead.

    The table is in the folder of the workload's results. It is written again if the log or the
    table of jobs is newer. If `say`, the progress is printed. ValueError for a bad log.
    """
    if not is_request_log(config.workload):
        return config
    name = stem_of(config.workload)
    table = Path(config.results) / name / "counts" / f"{name}.csv"
    sources = [config.workload, *([config.jobs] if config.jobs else [])]
    newest_ns = max(Path(source).stat().st_mtime_ns for source in sources)
    if not table.exists() or table.stat().st_mtime_ns <= newest_ns:
        jobs = read_jobs(config.jobs) if config.jobs else None
        traces = traces_of_log(config.workload, jobs, _print if say else lambda line: None)
        counts = traces_frame(traces)[["day", "minute", "job", "requests"]]
        table.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(table) as partial:
            counts.to_csv(partial, index=False)
    return config.model_copy(update={"workload": str(table)})


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
