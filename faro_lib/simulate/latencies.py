"""Latency quantiles, drops and SLO misses of the requests that arrived in each minute."""

import numpy as np
from numba import njit

from faro_lib.workload.jobs import MINUTE_S


def minute_edges(arrival_s: np.ndarray, first: np.ndarray, minutes: int) -> np.ndarray:
    """Index of the first request of each minute, int (jobs, minutes + 2).

    The indices bound minutes + 1 bins: one per minute, and one for all later arrivals. `arrival_s` (requests,) and `first`
    (jobs + 1,) are from `Draws`.
    """
    edges_s = MINUTE_S * np.arange(minutes + 2)
    edges_s[-1] = np.inf
    return np.array([a + np.searchsorted(arrival_s[a:b], edges_s) for a, b in zip(first[:-1], first[1:])])


@njit(cache=True, nogil=True)
def quantile_of(values: np.ndarray, q: float) -> float:
    """The q-quantile by linear interpolation, as in numpy; inf if it involves an infinite value, NaN without values."""
    n = len(values)
    if n == 0:
        return np.nan
    position = q * (n - 1)
    low = int(position)
    weight = position - low
    ordered = np.partition(values, low)
    if weight == 0 or low + 1 == n:
        return ordered[low]
    below, above = ordered[low], ordered[low + 1 :].min()
    return np.inf if above == np.inf else below + (above - below) * weight


@njit(cache=True)
def quantiles(latency_s: np.ndarray, edges: np.ndarray, quantile: np.ndarray) -> np.ndarray:
    """Latency quantile of the requests of every minute (jobs, minutes); NaN without requests.

    `edges`, int (jobs, minutes + 1), is the index of each minute's first request; `quantile` has shape (jobs,).
    """
    jobs, minutes = edges.shape[0], edges.shape[1] - 1
    result = np.empty((jobs, minutes))
    for job in range(jobs):
        for k in range(minutes):
            result[job, k] = quantile_of(latency_s[edges[job, k] : edges[job, k + 1]], quantile[job])
    return result


@njit(cache=True)
def dropped_and_missed(latency_s: np.ndarray, edges: np.ndarray, slo_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of (dropped requests, served requests slower than the SLO) in every minute, two int arrays (jobs, minutes)."""
    jobs, minutes = edges.shape[0], edges.shape[1] - 1
    dropped, slo_missed = np.zeros((jobs, minutes), np.int64), np.zeros((jobs, minutes), np.int64)
    for job in range(jobs):
        for k in range(minutes):
            for request in range(edges[job, k], edges[job, k + 1]):
                is_dropped = latency_s[request] == np.inf
                dropped[job, k] += is_dropped
                slo_missed[job, k] += not is_dropped and latency_s[request] > slo_s[job]
    return dropped, slo_missed
