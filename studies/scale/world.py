"""Change traces: add jobs, use two models, or remove training days."""

from dataclasses import replace
from typing import Any

import numpy as np

from faro_lib.workload.jobs import Job, Traces
from faro_lib.workload.replicas import SERIAL

# EuroSys'25, section 6.1
RESNET18: dict[str, Any] = dict(
    model="resnet18", service_time_s=0.1, slo_s=0.4, replica=SERIAL, latency_curve=""
)
MIN_SCALE, MAX_SCALE = 0.5, 1.5


def repeated(traces: Traces, jobs: int) -> Traces:
    """Repeat the jobs of `traces`, in order, until there are `jobs` jobs (EuroSys'25, Table 8).

    >>> from faro_lib.workload.synthetic import synthetic
    >>> repeated(synthetic(jobs=2, days=0, minutes=4), 3).names
    ('job0', 'job1', 'job0 again 1')
    """
    source = np.arange(jobs) % len(traces.jobs)
    return Traces(_named(traces, source), traces.train[:, :, source], traces.evaluation[:, source])


def shifted(traces: Traces, jobs: int, seed: int) -> Traces:
    """Repeat the jobs of `traces`, in order, until there are `jobs` jobs.

    Each is shifted in time and scaled at random. The shift is uniform over the day, the scale
    uniform in [MIN_SCALE, MAX_SCALE]. A job keeps both on all days.
    """
    rng = np.random.default_rng([seed, 3])
    source = np.arange(jobs) % len(traces.jobs)
    minutes = traces.evaluation.shape[-1]
    shift = rng.integers(minutes, size=jobs)
    scale = rng.uniform(MIN_SCALE, MAX_SCALE, jobs)[:, None]
    minute = (np.arange(minutes) - shift[:, None]) % minutes

    def moved(counts):
        return np.rint(counts[..., source[:, None], minute] * scale).astype(np.int64)

    return Traces(_named(traces, source), moved(traces.train), moved(traces.evaluation))


def mixed(traces: Traces) -> Traces:
    """The traces, with the model, service time and SLO of ResNet18 for jobs 0, 2, 4, ..."""
    jobs = tuple(
        job if index % 2 else replace(job, **RESNET18) for index, job in enumerate(traces.jobs)
    )
    return replace(traces, jobs=jobs)


def last_days(traces: Traces, days: int) -> Traces:
    """The traces with only the last `days` training days."""
    return replace(traces, train=traces.train[max(0, traces.days - days) :])


def _named(traces: Traces, source: np.ndarray) -> tuple[Job, ...]:
    """The jobs of indices `source` (jobs,), with a number in the names of those that repeat."""
    rounds = np.arange(len(source)) // len(traces.jobs)
    jobs = [traces.jobs[j] for j in source]
    names = (f"{job.name} again {n}" if n else job.name for job, n in zip(jobs, rounds))
    # Large minima and quotas are dropped, because the cluster or the quota may not hold the
    # repeated jobs.
    return tuple(
        replace(job, name=name, min_replicas=min(job.min_replicas, 1), tenant="", tenant_quota=None)
        for job, name in zip(jobs, names)
    )
