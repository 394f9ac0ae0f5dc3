"""Whether services have become slower together, or one of them alone.

A slow node or interference slows all its services at once. A new version, or requests of another
kind, slow one. The weighted median of the changes tells the two apart: it does not move while most
services stay as they are.
"""

import numpy as np

MIN_CHANGE = np.log(1.1)  # smaller changes of a service time are not reported
MIN_JOBS = 3  # of fewer services, nobody can say what most of them do
SPREAD = 0.05  # by which changes differ although they have one cause


def weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    """The smallest value up to which half of the weight lies; both arrays (n,), n >= 1.

    >>> weighted_median(np.array([3.0, 1.0, 2.0]), np.array([1.0, 1.0, 1.0]))
    2.0
    >>> weighted_median(np.array([3.0, 1.0, 2.0]), np.array([9.0, 1.0, 1.0]))
    3.0
    """
    order = np.argsort(values)
    below = weights[order].cumsum()
    return float(values[order][np.searchsorted(below, below[-1] / 2)])


def split_change(change: np.ndarray, error: np.ndarray) -> tuple[float, np.ndarray]:
    """Split changes of log service times into (the common change, each job's own change (jobs,)).

    The common change is the lower median, weighted by precision, if more than half of the jobs
    share at least half of it, surely, and 0 otherwise.

    Parameters
    ----------
    change : (jobs,) change of the log of each job's service time; NaN = unknown.
    error : (jobs,) its standard error.

    >>> slow_node = split_change(np.log([1.3, 1.32, 1.29, 1.0]), np.full(4, 0.05))
    >>> round(float(np.exp(slow_node[0])), 2)
    1.29
    >>> one_alone = split_change(np.log([1.5, 1.0, 1.01, 0.99]), np.full(4, 0.05))
    >>> one_alone[0], np.exp(one_alone[1]).round(2).tolist()
    (0.0, [1.5, 1.0, 1.01, 0.99])
    """
    known = np.isfinite(change) & np.isfinite(error)
    if known.sum() < MIN_JOBS:
        return 0.0, change
    values, errors = change[known], error[known]
    common = weighted_median(values, 1 / (errors**2 + SPREAD**2))
    along = values * np.sign(common)
    shares = (along >= abs(common) / 2) & (along > 2 * errors)
    if abs(common) < MIN_CHANGE or 2 * shares.sum() <= len(values):
        return 0.0, change
    return common, change - common
