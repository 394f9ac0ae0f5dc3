"""Days and bursts of a request log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from faro_lib.workload import Job, Traces
from faro_lib.workload.bursts import fit_hours
from faro_lib.workload.jobs import DAY_MINUTES, MINUTE_S
from faro_lib.workload.log_lengths import lengths_of, with_lengths
from faro_lib.workload.readers import read_jobs
from faro_lib.workload.request_log import (
    TIME,
    WINDOW_S,
    Report,
    RequestLog,
    is_request_log,
    read_request_log,
)
from faro_lib.workload.tables import load_workload
from faro_lib.workload.timed import days_from_midnight

BURSTY = 1.5  # index of dispersion above which a log's requests are said to come in bursts
NIGHT_MINUTES = 15  # a request log may end so many minutes before midnight


def read_workload(
    workload: str,
    jobs: str | None = None,
    report: Report = lambda line: None,
    *,
    bursts: bool = True,
) -> Traces:
    """`load_workload`, which may also be the path of a request log.

    Without `bursts`, all requests arrive at random times of their minute.
    """
    if is_request_log(workload):
        traces = traces_of_log(workload, read_jobs(jobs) if jobs else None, report, bursts=bursts)
    else:
        traces = load_workload(workload, jobs)
    return traces if bursts else replace(traces, jobs=at_random(traces.jobs))


def traces_of_log(
    path: str,
    jobs: tuple[Job, ...] | None = None,
    report: Report = lambda line: None,
    *,
    ignore_others: bool = False,
    bursts: bool = False,
    tell: bool = True,
) -> Traces:
    """The complete days, from midnight to midnight, of a request log; the last one is judged.

    A last day that lacks less than NIGHT_MINUTES is complete: no request came. Jobs that generate
    tokens have the lengths of the log (`with_lengths`). If `bursts`, the judged day has its exact
    times, and the jobs have the dispersion of the log. `tell` says whether bursts are reported. The
    other arguments are those of `read_request_log`.
    """
    names = [job.name for job in jobs] if jobs else None
    keep = TIME if bursts else None
    log = read_request_log(
        path, names, report, keep=keep, ignore_others=ignore_others, lengths=True
    )
    if tell:
        tell_bursts(log, report, bursts)
    counts = log.per_minute.astype(float)
    missing = -(log.first_minute + counts.shape[1]) % DAY_MINUTES
    if missing < NIGHT_MINUTES:
        counts = np.pad(counts, ((0, 0), (0, missing)))
    of_log = with_lengths(jobs or tuple(map(Job, log.names)), lengths_of(log), report)
    traces = days_from_midnight(of_log, log.first_minute, counts, path)
    if not bursts:
        return traces
    last = (log.first_minute + counts.shape[1]) // DAY_MINUTES * DAY_MINUTES - log.first_minute
    times = times_between(log, last - DAY_MINUTES, last)
    return replace(traces, jobs=with_bursts(of_log, log), arrival_s=times)


def times_between(log: RequestLog, first: int, last: int) -> tuple[np.ndarray, ...]:
    """Times in s from minute `first` of the log to minute `last` (exclusive), by job."""
    begin_s, end_s = first * MINUTE_S, last * MINUTE_S
    return tuple(
        of_job[(of_job >= begin_s) & (of_job < end_s)] - begin_s for of_job in log.arrival_s
    )


def with_bursts(jobs: Sequence[Job], log: RequestLog) -> tuple[Job, ...]:
    """The jobs with the dispersion of the log, unless their table states one."""
    return dispersed(jobs, dispersion_of(log))


def dispersion_of(log: RequestLog) -> dict[str, list[float]]:
    """Name of a job -> its indices of dispersion, for `Job.with_dispersion`.

    They are rounded to two digits, so that similar jobs share their measured latencies. A job whose
    index in WINDOW_S and in one second is at most BURSTY arrives at random times, and has none.
    """
    hours = -(-log.per_minute.shape[1] // 60)
    found = {}
    for name, arrival_s in zip(log.names, log.arrival_s):
        index = fit_hours(arrival_s, hours)[1]
        if max(index[:2]) > BURSTY:
            found[name] = [float(f"{one:.2g}") for one in index]
    return found


def dispersed(jobs: Sequence[Job], index: Mapping[str, Sequence[float]]) -> tuple[Job, ...]:
    """The jobs with the dispersion in `index`, by name, unless their table states one."""
    return tuple(
        job.with_dispersion(index[job.name]) if job.name in index and not job.bursty else job
        for job in jobs
    )


def at_random(jobs: Sequence[Job]) -> tuple[Job, ...]:
    """The jobs without bursts."""
    return tuple(job.with_dispersion((1.0, 1.0, 1.0)) for job in jobs)


def tell_bursts(log: RequestLog, report: Report, known: bool = False) -> None:
    """Report the services whose requests come in bursts; `known` to predictions, or not."""
    dispersed = dict(zip(log.names, log.dispersion.tolist()))
    bursts = [f"{name} ({index:.1f})" for name, index in dispersed.items() if index > BURSTY]
    optimistic = "Predictions assume random times and are optimistic for them"
    if bursts:
        report(
            f"requests come in bursts: {', '.join(bursts)}; index of dispersion in {WINDOW_S} s, "
            f"1 = at random times. {'Predictions include the bursts' if known else optimistic}"
        )


def tell_counts(jobs: Sequence[Job], report: Report) -> None:
    """Report that counts per minute do not show bursts, if no job states any."""
    if not any(job.bursty for job in jobs):
        report("counts per minute do not show bursts: requests at random times are assumed")
