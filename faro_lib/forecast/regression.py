"""The autoregression of forecaster "bayes", which `studies.bayes` fits and `posterior` simulates.

    y[t] = sqrt(x[t] + 3/8) / unit,   z[t] = y[t] - p[t]
    z[t] = sum_l a[l] z[t-l] + sum_k b[k] (p[t-k] - 1) + c + scale[t] e[t],   e Student-t
    scale[t] = MIN_SPREAD / unit + exp(s + g v[t])

x are the counts, and `unit` is a job's mean sqrt(x + 3/8). a, b, c, s and g are fitted; l is from
1 to 15 and k from 0 to 15. The daily profile p (`shape` in the code) is the mean of y at the same
minute of other days. v (`log_change`) is the log of the mean absolute change of z in the last
minutes, which predicts the scale of the errors.
"""

import numpy as np

ANSCOMBE = 3 / 8
# The mean absolute change of z over these minutes predicts the scale of the next error.
RECENT_MINUTES = 5
MIN_CHANGE = 0.01  # keeps `log_change` finite for a constant trace
# Minimum scale of the errors of sqrt(count); keeps the likelihood of a constant trace bounded.
MIN_SPREAD = 0.1
# Typical mean absolute change of z per minute, for which `log_change` is near 0.
USUAL_CHANGE = 0.04


def root(counts):
    """sqrt(x + 3/8), which gives Poisson counts x a nearly constant variance (Anscombe 1948).

    >>> float(root(np.array(0.625)))
    1.0
    """
    return np.sqrt(counts + ANSCOMBE)


def from_root(y):
    """The inverse of `root`: the count x with root(x) = y, or 0 if y is less than root(0).

    >>> from_root(root(np.array([0.0, 7.0]))).round(6).tolist()
    [0.0, 7.0]
    """
    return np.maximum(np.square(np.maximum(y, 0)) - ANSCOMBE, 0)


def log_change(z: np.ndarray, axis: int = -1) -> np.ndarray:
    """v = log((m + MIN_CHANGE) / USUAL_CHANGE); m is the mean absolute change of z along `axis`."""
    return np.log((np.abs(np.diff(z, axis=axis)).mean(axis=axis) + MIN_CHANGE) / USUAL_CHANGE)


def spread_of(log_spread, follow, change, unit, exp=np.exp):
    """Scale of the errors of z: MIN_SPREAD / unit + exp(s + g v).

    s is `log_spread`, g is `follow` and v is `change`.
    """
    return MIN_SPREAD / unit + exp(log_spread + follow * change)


def windows(values: np.ndarray, length: int) -> np.ndarray:
    """All windows of `length` minutes in `values` (..., minutes).

    The shape is (..., minutes - length + 1, length).
    """
    return np.lib.stride_tricks.sliding_window_view(values, length, axis=-1)


def daily_profile(y: np.ndarray) -> np.ndarray:
    """Mean (jobs, minutes) of y (days, jobs, minutes) over the days, shrunk to each job's mean.

    The result is level + max(0, 1 - noise / variance) (profile - level) (James and Stein 1961).
    `profile` is the mean over the days, and `level` is the overall mean. `variance` is the variance
    of `profile` over the minutes. `noise` is the sampling variance of `profile`, estimated from the
    days. A single day gives `level`.
    """
    days, _, minutes = y.shape
    profile = y.mean(axis=0)
    level = profile.mean(axis=-1, keepdims=True)
    if days == 1:
        return np.broadcast_to(level, profile.shape).copy()
    deviations = y - profile - (y.mean(axis=-1, keepdims=True) - level)
    noise = (deviations**2).sum(axis=(0, 2)) / ((days - 1) * minutes * days)
    variance = np.maximum(profile.var(axis=-1), 1e-12)
    return level + np.maximum(1 - noise / variance, 0)[:, None] * (profile - level)


def shapes_of_other_days(y: np.ndarray) -> np.ndarray:
    """For each day of y (days, jobs, minutes), the mean of the *other* days.

    If y has one day, the result is its mean over time.
    """
    days = len(y)
    if days == 1:
        return np.broadcast_to(y.mean(axis=-1, keepdims=True), y.shape).copy()
    return (y.sum(axis=0) - y) / (days - 1)
