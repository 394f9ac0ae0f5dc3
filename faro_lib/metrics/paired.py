"""Paired comparison of policies on the same trials, by a bootstrap."""

import numpy as np

CONFIDENCE = 0.95


def block_bootstrap(
    differences: np.ndarray, minutes: np.ndarray, *, draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """How much a measure differs per minute between two policies: the mean and the 95 % bootstrap bounds.

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
    means = differences[day, trial, block].sum(axis=(1, 2, 3)) / minutes[day, trial, block].sum(
        axis=(1, 2, 3)
    )
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(differences.sum() / minutes.sum()), float(low), float(high)
