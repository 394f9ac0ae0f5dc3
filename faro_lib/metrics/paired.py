"""Paired comparison of policies on the same trials, with intervals by Student's t.

`t_interval` takes one number per trial, and needs several trials or days. `unit_interval` takes a
measure by blocks of minutes, days or worlds, and gives an interval for a single day and trial too.
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


def unit_interval(differences: np.ndarray, minutes: np.ndarray) -> tuple[float, float, float]:
    """(mean difference of a measure per minute, lower and upper bound of its 95 % interval).

    A unit is a block of consecutive minutes, a day or a world. Units of a stratum are taken as
    independent draws; strata are fixed. The trials of a unit share its load, so they are summed and
    count once. The mean d is a ratio of sums, with variance
    sum_s n_s / (n_s - 1) sum_u (d_su - d_s m_su)^2 / (sum m)^2 over strata s and their n_s units u,
    and Satterthwaite's degrees of freedom. A single unit has the bounds NaN.
    Sources: Cochran, Sampling Techniques, 1977, 5.4 and chapter 6; for blocks: the batch means of
    Law, Simulation Modeling and Analysis, 2015, 9.5.3.

    differences : measure of one policy minus that of the other, summed over each unit, shape
        (strata, trials, units).
    minutes : number of minutes in each unit, same shape.

    >>> mean, low, high = unit_interval(np.array([[[1.0, 2.0, 3.0]]]), np.ones((1, 1, 3)))
    >>> round(mean, 3), round(low, 3), round(high, 3)
    (2.0, -0.484, 4.484)
    """
    from scipy.stats import t

    total = differences.sum(axis=1)  # (strata, units)
    length = minutes.sum(axis=1)
    mean = float(total.sum() / length.sum())
    units = total.shape[1]
    if units < 2:
        return mean, np.nan, np.nan
    of_stratum = total.sum(axis=1, keepdims=True) / length.sum(axis=1, keepdims=True)
    residual = total - of_stratum * length
    variance = units / (units - 1) * (residual**2).sum(axis=1)  # of each stratum's total
    if not variance.any():
        return mean, mean, mean
    freedom = (units - 1) * variance.sum() ** 2 / (variance**2).sum()
    half_width = t.ppf((1 + CONFIDENCE) / 2, freedom) * np.sqrt(variance.sum()) / length.sum()
    return mean, float(mean - half_width), float(mean + half_width)
