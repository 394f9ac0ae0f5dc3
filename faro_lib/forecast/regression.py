"""The regression behind the Bayesian forecaster: features from counts, for the fit and for the online paths.

y is the count on the square-root scale, where counts have an even spread (Anscombe 1948), in units of the job's level.
z is the deviation of y from the day's profile p, the mean of y at that minute over other days, and v is the log of the
recent movement of z (`movement`):

    y[t] = sqrt(x[t] + 3/8) / unit,   z[t] = y[t] - p[t]
    z[t] = sum_l a[l] z[t-l] + sum_k b[k] (p[t-k] - 1) + c + exp(s + g v[t]) e[t],   e Student-t

with l = 1..15 and k = 0..15. In the code, the profile p is the argument `shape`.
"""

import numpy as np

from faro_lib.forecast.forecaster import CONTEXT_MINUTES

ANSCOMBE = 3 / 8
RECENT_MINUTES = 5  # minutes whose movement predicts the spread of the next one
MIN_MOVEMENT = 0.01  # of the job's level; keeps the log of a constant trace finite
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
    """v = log of the mean absolute step of z over its last RECENT_MINUTES steps, centred at the usual movement.

    `z` has the last RECENT_MINUTES + 1 minutes along `axis`.
    """
    return np.log((np.abs(np.diff(z, axis=axis)).mean(axis=axis) + MIN_MOVEMENT) / USUAL_MOVEMENT)


def windows(values: np.ndarray, length: int) -> np.ndarray:
    """All runs of `length` minutes, shape (..., minutes - length + 1, length)."""
    return np.lib.stride_tricks.sliding_window_view(values, length, axis=-1)


def design(y: np.ndarray, shape: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, movement and target of each minute of a day from the CONTEXT_MINUTES-th on.

    z = y - profile is the deviation from the day's profile, and v its recent `movement`.

    Parameters
    ----------
    y : (..., minutes), roots of the counts in units of the job's level.
    shape : (..., minutes), the profile in the same units.

    Returns
    -------
    features : (..., minutes - CONTEXT_MINUTES, 2 x CONTEXT_MINUTES + 2): lags of z, oldest first; lags of
        (profile - 1), oldest first, ending with the minute itself; a constant.
    moved : (..., minutes - CONTEXT_MINUTES), v.
    target : (..., minutes - CONTEXT_MINUTES), z.
    """
    runs = windows(y - shape, CONTEXT_MINUTES + 1)
    lags = runs[..., :-1]
    constant = np.ones((*lags.shape[:-1], 1))
    features = np.concatenate([lags, windows(shape - 1, CONTEXT_MINUTES + 1), constant], axis=-1)
    return features, movement(lags[..., -RECENT_MINUTES - 1 :]), runs[..., -1]


def units(counts: np.ndarray) -> np.ndarray:
    """Level of each job on the root scale, shape (jobs,), from counts of shape (days, jobs, minutes)."""
    return np.maximum(root(counts).mean(axis=(0, 2)), 1.0)


def shapes_of_other_days(y: np.ndarray) -> np.ndarray:
    """For each day the mean of the *other* days, shape (days, jobs, minutes); a single day is flat at its mean."""
    days = len(y)
    if days == 1:
        return np.broadcast_to(y.mean(axis=-1, keepdims=True), y.shape).copy()
    return (y.sum(axis=0) - y) / (days - 1)
