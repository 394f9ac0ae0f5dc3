"""The paper's preprocessing: a day of 1,440 minutes becomes 360, counts become 1..max requests per minute."""

from __future__ import annotations

import numpy as np


def downsample(per_min: np.ndarray, factor: int = 4) -> np.ndarray:
    """Average every `factor` minutes; each phase of the averaging is one sample of the day.

    Parameters
    ----------
    per_min : (jobs, days, minutes), minutes a multiple of `factor`.

    Returns
    -------
    (days, factor samples, jobs, minutes / factor); sample k starts k minutes later and ends in the next day (the last day
    repeats its last minute).

    >>> downsample(np.arange(16.0).reshape(1, 2, 8))[0].tolist()
    [[[1.5, 5.5]], [[2.5, 6.5]], [[3.5, 7.5]], [[4.5, 8.5]]]
    """
    jobs, days, minutes = per_min.shape
    if minutes % factor:
        raise ValueError(
            f"a day of {minutes} minutes cannot be downsampled by {factor}; the factor must divide the minutes"
        )
    flat = per_min.reshape(jobs, -1)
    flat = np.concatenate([flat, np.repeat(flat[:, -1:], factor - 1, axis=1)], axis=1)
    phases = [flat[:, k : k + days * minutes].reshape(jobs, days, -1, factor).mean(-1) for k in range(factor)]
    return np.stack(phases).transpose(2, 0, 1, 3)


def scale_to(per_min: np.ndarray, most: int = 1600) -> np.ndarray:
    """Scale each job linearly to 1..most over all its days, rounded: (days, samples, jobs, minutes) -> the same, int."""
    low = per_min.min(axis=(0, 1, 3), keepdims=True)
    high = per_min.max(axis=(0, 1, 3), keepdims=True)
    span = np.where(high > low, high - low, 1)
    return np.rint(1 + (per_min - low) / span * (most - 1)).astype(np.int64)
