"""Paired comparison of policies on the same trials: by Student's t or by a bootstrap.

`t_interval` takes one number per trial, and needs several trials or days. `block_bootstrap` takes a
measure by blocks of minutes, and gives an interval for a single day and trial too.
"""

import numpy as np
import pandas as pd

CONFIDENCE = 0.95


def t_interval(values: pd.Series, reference: pd.Series) -> tuple[float, float]:
    """(mean of `values` - `reference`, half width of its 95 % interval by Student's t).

    The index of both Series is the trial, or day and trial. The trials of a day share its load, so
    with several days the mean over a day's trials is one observation. The half width of a single
    observation is NaN.

    >>> ours, theirs = pd.Series([1.0, 2.0, 3.0]), pd.Series([0.5, 1.5, 2.0])
    >>> mean, half = t_interval(ours, theirs)
    >>> round(mean, 3), round(half, 3)
    (0.667, 0.717)
    """
    from scipy.stats import t

    differences = values - reference
    if "day" in differences.index.names and differences.index.unique("day").size > 1:
        differences = differences.groupby(level="day").mean()
    n = len(differences)
    if n < 2:
        return float(differences.mean()), np.nan
    half_width = t.ppf((1 + CONFIDENCE) / 2, n - 1) * differences.std() / np.sqrt(n)
    return float(differences.mean()), float(half_width)


def block_bootstrap(
    differences: np.ndarray, minutes: np.ndarray, *, draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """(mean difference of a measure per minute, lower and upper bound of its 95 % interval).

    A block is a stretch of consecutive minutes. Each draw resamples the trials and the blocks of
    each day. All trials of a day get the same blocks, because they share the day's load.

    differences : measure of one policy minus that of the other, summed over each block, shape
        (days, trials, blocks).
    minutes : number of minutes in each block, same shape.

    >>> block_bootstrap(np.full((2, 3, 4), 30.0), np.full((2, 3, 4), 60))
    (0.5, 0.5, 0.5)
    """
    days, trials, blocks = differences.shape
    rng = np.random.default_rng(seed)
    day = np.arange(days)[:, None, None]
    trial = rng.integers(trials, size=(draws, days, trials, 1))
    block = rng.integers(blocks, size=(draws, days, 1, blocks))
    sums = differences[day, trial, block].sum(axis=(1, 2, 3))  # (draws,)
    means = sums / minutes[day, trial, block].sum(axis=(1, 2, 3))
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(differences.sum() / minutes.sum()), float(low), float(high)
