"""Bursts within a minute: arrival times whose counts have a given index of dispersion.

The requests of a minute are split among its windows of 10 s, those of a window among its windows of
1 s, and those among windows of 0.1 s, in which they arrive at random times. The shares of the parts
are Dirichlet variates, so the arrivals are a Poisson process with a random rate. Sources: Kolaczyk,
"Bayesian multiscale models for Poisson processes", JASA 1999; Riedi et al., "A multifractal wavelet
model with application to network traffic", IEEE Transactions on Information Theory 1999.
"""

import numpy as np

from faro_lib.workload.jobs import MINUTE_S

PARTS = (6, 10, 10)  # of a minute and of each window: windows of 10, 1 and 0.1 s
HOUR_S = 3600.0
# An hour with so many requests counts as much as all hours together in its own fit.
SHRINKING_REQUESTS = 500.0


def burst_arrivals(counts: np.ndarray, dispersion, rng: np.random.Generator) -> np.ndarray:
    """Arrival times in s, (requests,), ascending, of one job with `counts` (minutes,).

    `dispersion` has the index of dispersion (variance / mean) of the counts in the windows of each
    length within their parent window, >= 1, shape (3,) or (minutes, 3). 1 = at random times.

    >>> rng = np.random.default_rng(1)
    >>> burst_arrivals(np.array([2, 0, 1]), (6.0, 1.0, 1.0), rng).round(1).tolist()
    [22.9, 28.9, 161.6]
    """
    counts = np.asarray(counts)
    of_minute = np.broadcast_to(dispersion, (len(counts), len(PARTS)))
    in_window, length_s = counts, MINUTE_S
    for level, parts in enumerate(PARTS):
        of_window = np.repeat(of_minute[:, level], len(in_window) // max(len(counts), 1))
        in_window = _split(in_window, parts, of_window, rng).ravel()
        length_s /= parts
    window = np.repeat(np.arange(len(in_window)), in_window)
    return np.sort((window + rng.random(len(window))) * length_s)


def fit_hours(arrival_s: np.ndarray, hours: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of dispersion for `burst_arrivals` from exact times of one job.

    `arrival_s` are seconds from the start of the first of `hours` hours, (requests,). Returns those
    of each hour, (hours, 3), and the means over all requests, (3,). Hours with few requests are
    shrunk to the means.
    """
    windows = int(HOUR_S / MINUTE_S) * int(np.prod(PARTS))
    requests = np.zeros(hours)
    of_hour = np.ones((hours, len(PARTS)))
    for hour in range(hours):
        begin_s = hour * HOUR_S
        a, b = np.searchsorted(arrival_s, (begin_s, begin_s + HOUR_S))
        window = ((arrival_s[a:b] - begin_s) * (windows / HOUR_S)).astype(int)
        counts = np.bincount(np.minimum(window, windows - 1), minlength=windows)
        requests[hour] = b - a
        for level in reversed(range(len(PARTS))):
            in_parts = counts.reshape(-1, PARTS[level])
            of_hour[hour, level] = fit_dispersion(in_parts)
            counts = in_parts.sum(axis=1)
    mean = requests @ of_hour / max(requests.sum(), 1.0) if requests.any() else of_hour[0]
    own = (requests / (requests + SHRINKING_REQUESTS))[:, None]
    return own * of_hour + (1 - own) * mean, mean


def fit_dispersion(counts: np.ndarray) -> float:
    """The index of dispersion, >= 1, with which `counts` (windows, parts) vary within windows.

    A window with n requests has an index of at most n, so the fit solves sum n min(index, n) = the
    sum of squared deviations x parts / (parts - 1) (method of moments).

    >>> fit_dispersion(np.array([[4, 4], [0, 8]]))
    4.0
    """
    parts = counts.shape[1]
    n = counts.sum(axis=1).astype(float)
    n = n[n > 0]
    squares = ((counts - counts.mean(axis=1, keepdims=True)) ** 2).sum() * parts / (parts - 1)
    index = np.unique([1.0, *n[n > 1]])  # between them, the sum is linear in the index
    windows = np.bincount(np.searchsorted(index, n), minlength=len(index))
    below = np.cumsum(windows * index**2)
    above = n.sum() - np.cumsum(windows * index)
    return float(np.interp(squares, below + index * above, index))


def dispersion(counts: np.ndarray, per_block: int) -> np.ndarray:
    """Variance / mean of counts (jobs, windows) within blocks of `per_block` windows, (jobs,).

    It is 1 for requests at random times, and larger for bursts. Within a block, the load is taken
    as constant: the variances and the means of all blocks are summed (Cox and Lewis, The
    Statistical Analysis of Series of Events, 1966, 6.4). NaN for a job without requests.

    >>> dispersion(np.array([[4, 4, 4, 4], [0, 8, 8, 0], [0, 0, 0, 0]]), 2).tolist()
    [0.0, 8.0, nan]
    """
    blocks = counts[:, : counts.shape[1] // per_block * per_block]
    blocks = blocks.reshape(len(counts), -1, per_block)
    variance = blocks.var(axis=2, ddof=1).sum(axis=1)
    mean = blocks.mean(axis=2).sum(axis=1)
    return np.where(mean > 0, variance / np.where(mean > 0, mean, 1.0), np.nan)


def _split(
    counts: np.ndarray, parts: int, dispersion: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """`counts` (windows,) split among equal parts of each window, (windows, parts).

    With Dirichlet shares of total concentration A, the variance of a part's count is that of
    uniform times multiplied by (n + A) / (1 + A). This is `dispersion` if A = (n - dispersion) /
    (dispersion - 1). If n <= dispersion, all n are in one part.
    """
    total = np.maximum(counts - dispersion, 0.0) / np.maximum(dispersion - 1, 1e-9)
    weight = rng.standard_gamma(np.repeat(total[:, None] / parts, parts, axis=1))
    # One part is above 0 even where all variates are 0.
    weight[np.arange(len(counts)), rng.integers(parts, size=len(counts))] += np.finfo(float).tiny
    return rng.multinomial(counts, weight / weight.sum(axis=1, keepdims=True))
