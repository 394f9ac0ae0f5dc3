"""Lines about inputs that are probably wrong: too much load for the jobs, missing records."""

from typing import NamedTuple

import numpy as np

from faro_lib.workload import arrays_of
from faro_lib.workload.jobs import MINUTE_S
from faro_ops.advise.sources.history import History

RECENT_MINUTES = 15
HOUR_MINUTES = 60
MISSED = 50  # a gap with fewer expected requests is not reported
UNUSUAL = 4  # nor is one with fewer than this many times those of every other gap


class Gap(NamedTuple):
    """Consecutive minutes without requests, between minutes with requests."""

    missed: float  # requests expected in the gap
    first: int
    end: int  # exclusive


def overloads(history: History, capacity: float | None) -> list[str]:
    """One line for each job whose recent load keeps more replicas busy than the job can have."""
    arrays = arrays_of(history.jobs)
    fitting = arrays.max_replicas if capacity is None else arrays.replicas_within(capacity)
    recent = np.nan_to_num(history.today[:, -RECENT_MINUTES:])
    rates_rps = recent.mean(axis=1) / MINUTE_S
    lines = []
    for job, rate_rps, most in zip(history.jobs, rates_rps, fitting):
        busy = rate_rps * job.busy_s
        if busy <= most:
            continue
        load = f"{rate_rps:.1f} requests/s x {job.busy_s:g} s keep {busy:.0f} replicas busy"
        line = f"{job.name}: {load}; {most:g} fit"
        if job.service_time_s >= 1:
            meant_s = job.service_time_s / 1000
            line += f"; service_time_s is in seconds: did you mean {meant_s:g}?"
        lines.append(line)
    return lines


def silences(history: History) -> list[str]:
    """One line for each job with a gap that may be due to missing records.

    The gap must have at least MISSED expected requests, and at least UNUSUAL times those of every
    other gap of the job.
    """
    last = history.traces.evaluation[:1]  # (1, jobs, minutes)
    earlier = history.traces.train[:0, 0] if history.single_day else history.traces.train[:, 0]
    days = np.concatenate([earlier, last])  # (days, jobs, minutes)
    lines = []
    for job, counts in zip(history.jobs, np.concatenate(days, axis=1)):
        gaps = sorted(gaps_in(counts))
        if not gaps:
            continue
        *others, gap = gaps
        other = others[-1].missed if others else 0.0
        if gap.missed < max(MISSED, UNUSUAL * other):
            continue
        when = history.moment(*divmod(gap.first, history.day_minutes))
        lines.append(
            f"{job.name}: no requests in {gap.end - gap.first} minutes from {when}, "
            f"where {gap.missed:.0f} were usual; if they were not recorded, delete these rows"
        )
    return lines


def gaps_in(counts: np.ndarray) -> list[Gap]:
    """The gaps in a job's counts, (minutes,).

    The expected requests are the length times the mean rate of the hour before or after, whichever
    is lower.
    """
    silent = np.pad(counts == 0, 1)
    edges = np.flatnonzero(np.diff(silent)).tolist()
    gaps = []
    for first, end in zip(edges[::2], edges[1::2]):
        if first == 0 or end == len(counts):
            continue
        before = counts[max(0, first - HOUR_MINUTES) : first].mean()
        after = counts[end : end + HOUR_MINUTES].mean()
        gaps.append(Gap(float(min(before, after)) * (end - first), first, end))
    return gaps
