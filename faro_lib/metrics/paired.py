"""Paired comparison of policies on the same trials."""

import numpy as np
import pandas as pd

CONFIDENCE = 0.95


def paired_difference(values: pd.Series, reference: pd.Series) -> tuple[float, float]:
    """(mean of `values` - `reference`, half width of its 95 % confidence interval by Student's t).

    The index of both Series is the trial, or day and trial. The trials of a day share its load, so with several days the
    mean over a day's trials is one observation. The half width of a single observation is NaN.

    >>> trials = pd.RangeIndex(3)
    >>> mean, half = paired_difference(pd.Series([1.0, 2.0, 3.0], trials), pd.Series([0.5, 1.5, 2.0], trials))
    >>> round(mean, 3), round(half, 3)
    (0.667, 0.717)
    """
    from scipy.stats import t

    differences = values - reference
    if "day" in differences.index.names and differences.index.unique("day").size > 1:
        differences = differences.groupby(level="day").mean()
    n = len(differences)
    half_width = t.ppf((1 + CONFIDENCE) / 2, n - 1) * differences.std() / np.sqrt(n) if n > 1 else np.nan
    return float(differences.mean()), float(half_width)


def block_bootstrap(
    differences: np.ndarray, minutes: np.ndarray, *, draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean difference per minute, and the ends of its 95 % interval, from a bootstrap of trials and of blocks of a day.

    All days count in each draw; a day's blocks are drawn for all its trials together, because these share its load.

    Parameters
    ----------
    differences : sums over the minutes of a block, shape (days, trials, blocks).
    minutes : length of each block, same shape.

    >>> block_bootstrap(np.full((2, 3, 4), 30.0), np.full((2, 3, 4), 60))
    (0.5, 0.5, 0.5)
    """
    days, trials, blocks = differences.shape
    rng = np.random.default_rng(seed)
    day = np.arange(days)[:, None, None]
    trial = rng.integers(trials, size=(draws, days, trials, 1))
    block = rng.integers(blocks, size=(draws, days, 1, blocks))
    means = differences[day, trial, block].sum(axis=(1, 2, 3)) / minutes[day, trial, block].sum(axis=(1, 2, 3))
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(differences.sum() / minutes.sum()), float(low), float(high)
