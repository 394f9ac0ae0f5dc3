"""Paired comparison of policies by one number per trial, which needs several trials or days.

`faro_lib.metrics.paired` has intervals for a single day and trial.
"""

import numpy as np
import pandas as pd

from faro_lib.metrics.paired import CONFIDENCE


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
