"""The score (CRPS) of forecasts, and the difference in score between two forecasters.

`samples` (origins, jobs, paths, minutes) are forecast paths. `truth` (origins, jobs, minutes) are
the actual counts.
"""

import numpy as np


def crps_terms(samples, truth) -> np.ndarray:
    """CRPS (continuous ranked probability score) of the samples' distribution, shaped like `truth`.

    E|X - truth| - E|X - X'| / 2 with X, X' drawn from the samples with replacement (Gneiting and
    Raftery 2007, eq. 21).

    >>> float(crps_terms(np.array([[[[0.0], [2.0]]]]), np.array([[[1.0]]]))[0, 0, 0])
    0.5
    """
    n = samples.shape[2]
    ordered = np.sort(samples, axis=2)
    weights = (2 * np.arange(1, n + 1) - n - 1) / n**2
    spread = np.einsum("ojnh,n->ojh", ordered, weights.astype(ordered.dtype))
    return np.abs(samples - truth[:, :, None]).mean(axis=2, dtype=float) - spread


def difference(
    terms, others, weights=None, *, block: int = 30, draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """The mean of `terms` minus the mean of `others`, and the ends of its 95 % confidence interval.

    The interval is from a circular block bootstrap over origins (Politis and Romano 1992), because
    errors of neighbouring minutes and of different jobs are correlated.

    Parameters
    ----------
    terms, others : scores of two forecasters for the same forecasts, such as `crps_terms`, shape
        (origins, ...).
    weights : shape (origins, ...), by default 1. The mean of `terms` is sum(terms) / sum(weights).
    block : number of consecutive origins in a block.
    """
    origins = len(terms)
    if np.shape(terms) != np.shape(others):
        raise ValueError(
            f"terms {np.shape(terms)} and others {np.shape(others)} are not of the same forecasts"
        )
    if weights is None:
        weights = np.ones_like(terms, dtype=float)
    total = (np.asarray(terms, dtype=float) - others).reshape(origins, -1).sum(axis=1)
    weight = np.asarray(weights, dtype=float).reshape(origins, -1).sum(axis=1)
    block = min(block, origins)
    blocks = -(-origins // block)
    starts = np.random.default_rng(seed).integers(origins, size=(draws, blocks))
    rows = (starts[:, :, None] + np.arange(block)) % origins  # (draws, blocks, block)
    rows = rows.reshape(draws, -1)[:, :origins]
    ratios = total[rows].sum(axis=1) / weight[rows].sum(axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(total.sum() / weight.sum()), float(low), float(high)
