"""Other workloads made from one: more jobs than were traced, and jobs of two models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from faro_lib.workload.jobs import Job, Traces

RESNET18 = {"model": "resnet18", "service_time_s": 0.100, "slo_s": 0.400}  # EuroSys'25, section 6.1
LEAST_SCALE, MOST_SCALE = 0.5, 1.5


def repeated(traces: Traces, jobs: int) -> Traces:
    """As many `jobs` as wanted, the traced ones over and over: as in the paper's larger clusters (its Table 8).

    >>> from faro_lib.workload.synthetic import synthetic
    >>> [job.name for job in repeated(synthetic(jobs=2, days=0, minutes=4), 3).jobs]
    ['job0', 'job1', 'job0 again 1']
    """
    source = np.arange(jobs) % len(traces.jobs)
    return Traces(_named(traces, source), traces.train[:, :, source], traces.evaluation[:, source])


def shifted(traces: Traces, jobs: int, seed: int) -> Traces:
    """As many `jobs` as wanted, each a traced one whose day begins at another minute and whose load is scaled.

    Shifts are uniform over the day, scales uniform in [0.5, 1.5], so the mean load a job stays what it was; a job's shift
    and scale are the same every day, so what was learnt of it on training days holds on the day to be judged.
    """
    rng = np.random.default_rng([seed, 3])
    source = np.arange(jobs) % len(traces.jobs)
    minutes = traces.evaluation.shape[-1]
    shift = rng.integers(minutes, size=jobs)
    scale = rng.uniform(LEAST_SCALE, MOST_SCALE, jobs)[:, None]
    minute = (np.arange(minutes) - shift[:, None]) % minutes

    def moved(counts):
        return np.rint(counts[..., source[:, None], minute] * scale).astype(np.int64)

    return Traces(_named(traces, source), moved(traces.train), moved(traces.evaluation))


def mixed(traces: Traces, every: int = 2, change: dict | None = None) -> Traces:
    """Every so manieth job, from the first on, serves another model with its own promise: ResNet18 by default."""
    jobs = tuple(
        replace(job, **(RESNET18 if change is None else change)) if place % every == 0 else job
        for place, job in enumerate(traces.jobs)
    )
    return replace(traces, jobs=jobs)


def last_days(traces: Traces, days: int) -> Traces:
    """The last so many training days only: enough to learn from where there are many jobs."""
    return replace(traces, train=traces.train[max(0, traces.days - days) :])


def _named(traces: Traces, source) -> tuple[Job, ...]:
    times = np.arange(len(source)) // len(traces.jobs)
    jobs = (traces.jobs[j] for j in source)
    return tuple(replace(job, name=f"{job.name} again {n}" if n else job.name) for job, n in zip(jobs, times))
