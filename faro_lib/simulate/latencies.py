"""What became of the requests of each job's minutes: percentiles of their latencies, how many were refused or late."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def percentile_of(values, q):
    """The q-quantile by linear interpolation (numpy's default); inf as soon as an inf has weight in it, NaN of nothing."""
    n = len(values)
    if n == 0:
        return np.nan
    position = q * (n - 1)
    low = int(position)
    weight = position - low
    if weight == 0 or low + 1 == n:
        return np.partition(values, low)[low]
    ordered = np.partition(values, low)
    below, above = ordered[low], ordered[low + 1 :].min()
    return np.inf if above == np.inf else below + (above - below) * weight


@njit(cache=True)
def percentiles(latency_s, edges, percentile):
    """The percentile of every slice.

    Parameters
    ----------
    latency_s : (requests,); edges : int (jobs, slices + 1), slice k of job j is latency_s[edges[j, k]:edges[j, k + 1]].
    percentile : (jobs,).

    Returns
    -------
    (jobs, slices); NaN where a slice is empty.
    """
    jobs, slices = edges.shape[0], edges.shape[1] - 1
    result = np.empty((jobs, slices))
    for job in range(jobs):
        for k in range(slices):
            result[job, k] = percentile_of(latency_s[edges[job, k] : edges[job, k + 1]], percentile[job])
    return result


@njit(cache=True)
def percentiles_so_far(now_s, arrival_s, latency_s, edges, percentile):
    """As `percentiles`, of requests that may still be inside (latency_s <= 0): they count with the time spent until now."""
    jobs, slices = edges.shape[0], edges.shape[1] - 1
    result = np.empty((jobs, slices))
    for job in range(jobs):
        for k in range(slices):
            a, b = edges[job, k], edges[job, k + 1]
            spent = np.where(latency_s[a:b] > 0, latency_s[a:b], now_s - arrival_s[a:b])
            result[job, k] = percentile_of(spent, percentile[job])
    return result


@njit(cache=True)
def dropped_and_missed(latency_s, edges, slo_s):
    """How many of every slice were dropped, and how many were served after the SLO: two int arrays (jobs, slices).

    Parameters
    ----------
    latency_s, edges : as in `percentiles`; slo_s : (jobs,).
    """
    jobs, slices = edges.shape[0], edges.shape[1] - 1
    dropped, slo_missed = np.zeros((jobs, slices), np.int64), np.zeros((jobs, slices), np.int64)
    for job in range(jobs):
        for k in range(slices):
            for request in range(edges[job, k], edges[job, k + 1]):
                is_dropped = latency_s[request] == np.inf
                dropped[job, k] += is_dropped
                slo_missed[job, k] += not is_dropped and latency_s[request] > slo_s[job]
    return dropped, slo_missed
