"""Refuse bad input before anything is written, and say what the stages must know of the workload beforehand."""

from __future__ import annotations

from faro_lib.config import PUBLISHED, PUBLISHED_DAYS, SYNTHETIC, Config
from faro_lib.pipeline.fetch import verify

WITHOUT_FORECASTS = ("FairShare", "Oneshot", "AIAD", "HPA", "RayServe")


def check(config: Config) -> int:
    """Read what the configuration names and refuse, in one line, what the pipeline would stumble over.

    A synthetic workload has nothing to read; published files that lie there must have the right content; a reader's own
    file is read whole.

    Returns
    -------
    Training days of the workload; stages that learn need some.
    """
    if config.workload == PUBLISHED:
        verify(PUBLISHED, config.raw)
    if config.workload in (SYNTHETIC, PUBLISHED):
        if config.jobs:
            _hold(_read_jobs(config.jobs), config)
        return config.synthetic.days if config.workload == SYNTHETIC else PUBLISHED_DAYS
    from faro_lib.workload.tables import load_workload

    traces = load_workload(config.workload, config.jobs)
    _hold(traces.jobs, config)
    predictive = [policy for policy in config.policies if policy not in WITHOUT_FORECASTS]
    if not traces.days and predictive:
        raise ValueError(
            f"{config.workload}: a single day leaves {predictive[0]} none to learn from; add earlier days (a column `day`), "
            f"or choose policies={[policy for policy in config.policies if policy in WITHOUT_FORECASTS] or ['FairShare']}"
        )
    return traces.days


def _read_jobs(path: str):
    from faro_lib.workload.readers import read_jobs

    return read_jobs(path)


def _hold(jobs, config: Config) -> None:
    """The smallest cluster must hold everyone's minimum."""
    from faro_lib.policies.base import at_least_one_each

    at_least_one_each(jobs, min(config.sizes))
