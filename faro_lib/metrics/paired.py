"""Paired comparison of policies that ran on the same trials."""

import numpy as np
import pandas as pd

CONFIDENCE = 0.95


def paired_difference(values: pd.Series, reference: pd.Series) -> tuple[float, float]:
    """Mean of `values` - `reference` over trials, and the half width of its 95 % confidence interval.

    Student's t for the differences by trial, which both Series have as their index. With a single trial the half width
    is NaN.

    >>> trials = pd.RangeIndex(3)
    >>> mean, half = paired_difference(pd.Series([1.0, 2.0, 3.0], trials), pd.Series([0.5, 1.5, 2.0], trials))
    >>> round(mean, 3), round(half, 3)
    (0.667, 0.717)
    """
    from scipy.stats import t

    differences = (values - reference).to_numpy()
    n = len(differences)
    if n < 2:
        return float(differences.mean()), float("nan")
    half_width = t.ppf((1 + CONFIDENCE) / 2, n - 1) * differences.std(ddof=1) / np.sqrt(n)
    return float(differences.mean()), float(half_width)
