"""Latency quantiles, drops and SLO misses of the requests that arrived in each minute."""

import numpy as np
from numba import njit

from faro_lib.workload.jobs import MINUTE_S


def minute_edges(arrival_s: np.ndarray, first: np.ndarray, minutes: int) -> np.ndarray:
    """Index of the first request of each minute, int (jobs, minutes + 2).

    The indices bound minutes + 1 bins: one per minute, and one for all later arrivals. `arrival_s`
    (requests,) is sorted by job and time. `first` (jobs + 1,) has the index of each job's first
    request.
    """
    edges_s = MINUTE_S * np.arange(minutes + 2)
    edges_s[-1] = np.inf
    of_job = zip(first[:-1], first[1:])
    return np.array([a + np.searchsorted(arrival_s[a:b], edges_s) for a, b in of_job])


@njit(cache=True, nogil=True)
def quantile_of(values: np.ndarray, q: float) -> float:
    """The q-quantile, interpolated as in numpy; NaN without values, inf if infinite ones count."""
    n = len(values)
    if n == 0:
        return np.nan
    position = q * (n - 1)
    low = int(position)
    weight = position - low
    ordered = values.copy()
    _select(ordered, low)
    if weight == 0 or low + 1 == n:
        return ordered[low]
    below, above = ordered[low], np.inf
    for value in ordered[low + 1 :]:
        above = min(above, value)
    return np.inf if above == np.inf else below + (above - below) * weight


@njit(cache=True, nogil=True)
def _select(values: np.ndarray, k: int) -> None:
    """Reorder `values` as np.partition does: values[k] as if sorted, no later value is smaller.

    This is Hoare's quickselect. numba needs four seconds to compile np.partition.
    """
    first, last = 0, len(values) - 1
    while first < last:
        pivot = values[k]
        i, j = first, last
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if j < k:
            first = i
        if k < i:
            last = j


@njit(cache=True)
def by_minute(
    latency_s: np.ndarray, edges: np.ndarray, slo_s: np.ndarray, quantile: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Drops, SLO misses, latency quantile of all requests and of the served ones, by minute.

    These are arrays (jobs, minutes). An SLO miss is a served request slower than the SLO. A dropped
    request has latency inf. A quantile is NaN without requests. `edges` (jobs, minutes + 1) indexes
    each minute's first request. `slo_s` and `quantile` are (jobs,).
    """
    shape = edges.shape[0], edges.shape[1] - 1
    dropped, slo_missed = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    tail_s, served_tail_s = np.empty(shape), np.empty(shape)
    for job, k in np.ndindex(shape):
        all_s = latency_s[edges[job, k] : edges[job, k + 1]]
        served_s = all_s[all_s != np.inf]
        dropped[job, k] = len(all_s) - len(served_s)
        slo_missed[job, k] = np.sum(served_s > slo_s[job])
        tail_s[job, k] = quantile_of(all_s, quantile[job])
        served_tail_s[job, k] = tail_s[job, k]
        if dropped[job, k]:
            served_tail_s[job, k] = quantile_of(served_s, quantile[job])
    return dropped, slo_missed, tail_s, served_tail_s
