"""Refuse bad input before anything is written."""

from __future__ import annotations

from faro_lib.config import PUBLISHED, SYNTHETIC, Config
from faro_lib.pipeline.fetch import verify


def check(config: Config) -> None:
    """Read what the configuration names and refuse what the pipeline would stumble over, in one line.

    A synthetic workload has nothing to read; published files that lie there must have the right content; a reader's own
    file is read whole.
    """
    if config.workload == PUBLISHED:
        verify(PUBLISHED, config.raw)
    if config.workload in (SYNTHETIC, PUBLISHED) and config.jobs is None:
        return
    from faro_lib.policies.base import at_least_one_each
    from faro_lib.workload.readers import read_jobs
    from faro_lib.workload.tables import load_workload

    if config.workload in (SYNTHETIC, PUBLISHED):
        jobs = read_jobs(str(config.jobs))
    else:
        jobs = load_workload(config.workload, config.jobs).jobs
    at_least_one_each(jobs, min(config.sizes))
