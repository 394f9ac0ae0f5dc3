"""Paired comparison of policies on the same days and trials, with intervals by Student's t."""

import numpy as np

CONFIDENCE = 0.95


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
