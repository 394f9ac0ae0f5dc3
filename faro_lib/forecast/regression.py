"""The regression of the Bayesian model, shared by its fit and its online forecaster.

    y[t] = sqrt(x[t] + 3/8) / unit,   z[t] = y[t] - p[t]
    z[t] = sum_l a[l] z[t-l] + sum_k b[k] (p[t-k] - 1) + c + (MIN_SPREAD / unit + exp(s + g v[t])) e[t],   e Student-t

with lags l = 1..15 and k = 0..15. The root of a count has a nearly constant variance (Anscombe 1948); `unit`
is the job's mean root. The profile p (argument `shape`) is the mean of y at that minute of other days, and v is
the log of the recent `movement` of z.
"""

import numpy as np

from faro_lib.forecast.forecaster import CONTEXT_MINUTES

ANSCOMBE = 3 / 8
RECENT_MINUTES = 5  # the mean absolute change over these minutes predicts the spread of the next minute
MIN_MOVEMENT = 0.01  # in units; keeps the log of a constant trace finite
MIN_SPREAD = 0.1  # of a root; keeps the likelihood of repeated counts bounded (a Poisson count has 0.5)
USUAL_MOVEMENT = 0.04  # centre of the log movement


def root(counts):
    """sqrt(x + 3/8).

    >>> float(root(np.array(0.625)))
    1.0
    """
    return np.sqrt(counts + ANSCOMBE)


def from_root(y):
    """Counts of a root, >= 0.

    >>> from_root(root(np.array([0.0, 7.0]))).round(6).tolist()
    [0.0, 7.0]
    """
    return np.maximum(np.square(np.maximum(y, 0)) - ANSCOMBE, 0)


def movement(z: np.ndarray, axis: int = -1) -> np.ndarray:
    """v = log of the mean absolute change per minute of z, in which `axis` has RECENT_MINUTES + 1 minutes."""
    return np.log((np.abs(np.diff(z, axis=axis)).mean(axis=axis) + MIN_MOVEMENT) / USUAL_MOVEMENT)


def spread_of(log_spread, follow, moved, unit, exp=np.exp):
    """Scale of the errors of z in units: MIN_SPREAD / unit + exp(s + g v)."""
    return MIN_SPREAD / unit + exp(log_spread + follow * moved)


def windows(values: np.ndarray, length: int) -> np.ndarray:
    """All windows of `length` minutes, shape (..., minutes - length + 1, length)."""
    return np.lib.stride_tricks.sliding_window_view(values, length, axis=-1)


def design(y: np.ndarray, shape: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, v and z of each minute of a day from minute CONTEXT_MINUTES on.

    Parameters
    ----------
    y, shape : roots of the counts and their profile, in units, shape (..., minutes).

    Returns
    -------
    features : z[t-15..t-1], p[t-15..t] - 1, and 1; shape (..., minutes - CONTEXT_MINUTES, 2 x CONTEXT_MINUTES + 2).
    moved, target : v and z, shape (..., minutes - CONTEXT_MINUTES).
    """
    runs = windows(y - shape, CONTEXT_MINUTES + 1)
    lags = runs[..., :-1]
    constant = np.ones((*lags.shape[:-1], 1))
    features = np.concatenate([lags, windows(shape - 1, CONTEXT_MINUTES + 1), constant], axis=-1)
    return features, movement(lags[..., -RECENT_MINUTES - 1 :]), runs[..., -1]


def units(counts: np.ndarray) -> np.ndarray:
    """Mean root of each job's counts (days, jobs, minutes), at least 1; shape (jobs,)."""
    return np.maximum(root(counts).mean(axis=(0, 2)), 1.0)


def daily_profile(y: np.ndarray) -> np.ndarray:
    """Mean of the days (days, jobs, minutes), shape (jobs, minutes), shrunk towards the job's mean.

    The shrinkage is 1 - noise / variance, where `variance` is that of the mean over minutes, and `noise` its part
    that days with independent deviations would have (James and Stein 1961). A single day is no profile.
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
    """The mean of the *other* days for each day, shape (days, jobs, minutes); the mean over minutes for a single day."""
    days = len(y)
    if days == 1:
        return np.broadcast_to(y.mean(axis=-1, keepdims=True), y.shape).copy()
    return (y.sum(axis=0) - y) / (days - 1)
