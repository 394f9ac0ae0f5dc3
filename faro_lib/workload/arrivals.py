"""Arrival times of single requests, sampled from counts per minute."""

import numpy as np
from numba import njit

from faro_lib.workload.bursts import burst_arrivals
from faro_lib.workload.jobs import MINUTE_S, Workload


def sample_arrivals(workload: Workload, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the arrival times of all requests, unless the workload has them.

    As in the paper's evaluation (EuroSys'25 artifact), in a minute with n requests, the first
    arrives at the start and the gaps are exponential with mean 60/n s. The last requests of a
    minute may thus arrive after its end. Those of a job with bursts are `burst_arrivals` instead.

    Returns
    -------
    arrival_s : seconds, shape (requests,), sorted by job and then by time.
    first : shape (jobs + 1,); job j has arrival_s[first[j]:first[j + 1]].

    >>> from faro_lib.workload import Job
    >>> workload = Workload((Job("a"), Job("b")), [[2, 0], [1, 1]])
    >>> arrival_s, first = sample_arrivals(workload, seed=24)
    >>> first.tolist(), arrival_s[[0, 2, 3]].tolist()
    ([0, 2, 4], [0.0, 0.0, 60.0])
    """
    counts = workload.requests_per_min
    first = np.concatenate(([0], np.cumsum(counts.sum(axis=1))))
    gaps = np.random.default_rng(seed).standard_exponential(first[-1])
    arrival_s = np.empty(first[-1])
    _fill(counts, first, gaps, arrival_s)
    for n, (begin, end) in enumerate(zip(first[:-1], first[1:])):
        if workload.arrival_s:
            arrival_s[begin:end] = workload.arrival_s[n]
        elif workload.jobs[n].bursty:
            rng = np.random.default_rng([seed, 6, n])
            arrival_s[begin:end] = burst_arrivals(counts[n], workload.jobs[n].dispersion, rng)
        else:
            arrival_s[begin:end].sort(kind="stable")
    return arrival_s, first


@njit(cache=True)
def _fill(counts, first, gaps, arrival_s):
    """Write the arrival times into `arrival_s`; `gaps` are ordered by minute, then job."""
    jobs, minutes = counts.shape
    free = first.copy()
    drawn = 0
    for minute in range(minutes):
        for job in range(jobs):
            n = counts[job, minute]
            now = MINUTE_S * minute
            for _ in range(n):
                arrival_s[free[job]] = now
                free[job] += 1
                now += MINUTE_S / n * gaps[drawn]
                drawn += 1
