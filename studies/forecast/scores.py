"""Rolling forecasts of a day, and their scores.

An origin is a minute from which a forecast starts. In all functions, `samples` are forecasts of
shape (origins, jobs, paths, minutes), and `truth` are the actual requests, (origins, jobs,
minutes). The argument `by` is "" for one overall score, "job" for one score per job, or "minute"
for one score per minute ahead.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from faro_lib.forecast import CONTEXT_MINUTES, HORIZON_MINUTES, Forecaster
from faro_lib.forecast.regression import windows
from faro_lib.forecast.scores import crps_terms

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
TAIL_LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)


def rolling(
    forecaster: Forecaster,
    day_counts,
    horizon: int = HORIZON_MINUTES,
    n: int = 100,
    context: int = CONTEXT_MINUTES,
) -> tuple[np.ndarray, np.ndarray]:
    """(sample paths from every origin of a day, their actuals).

    The forecast at origin t knows minutes 0..t-1 and covers t..t+horizon-1. The first origin is
    `context`.

    Parameters
    ----------
    day_counts : requests per minute, shape (jobs, minutes); NaN = missing.

    Returns
    -------
    samples : float32, shape (origins, jobs, n, horizon).
    truth : shape (origins, jobs, horizon).
    """
    day_counts = np.asarray(day_counts, dtype=float)
    if day_counts.ndim != 2 or day_counts.shape[1] < context + horizon:
        raise ValueError(
            f"day_counts has shape {day_counts.shape}; expected (jobs, {context + horizon} minutes "
            "or more)"
        )
    samples = []
    current = forecaster.start()
    for minute in range(day_counts.shape[1] - horizon + 1):
        if minute >= context:
            samples.append(current.sample(horizon, n).astype(np.float32))
        current = current.update(day_counts[:, minute])
    return np.stack(samples), windows(day_counts[:, context:], horizon).transpose(1, 0, 2)


def rmse(samples, truth, by: str = ""):
    """Root mean squared error of the samples' mean, in requests per minute."""
    return np.sqrt(_mean((samples.mean(axis=2, dtype=float) - truth) ** 2, by))


def crps(samples, truth, by: str = ""):
    """Mean CRPS in requests per minute."""
    return _mean(crps_terms(samples, truth), by)


def pinball_terms(samples, truth, levels: Sequence[float]) -> np.ndarray:
    """Pinball loss at each level q: max(q d, (q - 1) d) with d = actual - q-quantile.

    Shape (levels, *truth.shape).
    """
    over = truth - np.quantile(samples, levels, axis=2)
    level = np.asarray(levels).reshape(-1, 1, 1, 1)
    return np.maximum(level * over, (level - 1) * over)


def pinball(samples, truth, levels: Sequence[float] = TAIL_LEVELS) -> np.ndarray:
    """Mean pinball loss at each level, shape (levels,)."""
    return pinball_terms(samples, truth, levels).mean(axis=(1, 2, 3))


def wql_terms(samples, truth, levels: Sequence[float] = LEVELS) -> np.ndarray:
    """Twice the pinball loss, averaged over the levels, in the shape of `truth`.

    It is the numerator of `wql`.
    """
    return 2 * pinball_terms(samples, truth, levels).mean(axis=0)


def wql(samples, truth, by: str = ""):
    """Weighted quantile loss: 2 x summed pinball loss / summed actuals, averaged over LEVELS."""
    return _mean(wql_terms(samples, truth), by) / _mean(truth, by)


def coverage(samples, truth, level: float = 0.8, by: str = ""):
    """Share of the actuals that lie in the samples' central interval of probability `level`."""
    low, high = interval(samples, level)
    return _mean((low <= truth) & (truth <= high), by)


def interval(samples, level: float) -> np.ndarray:
    """Ends of the central interval of probability `level`, (2, origins, jobs, minutes)."""
    return np.quantile(samples, [(1 - level) / 2, (1 + level) / 2], axis=2)


def _mean(terms: np.ndarray, by: str):
    axes = {"": None, "job": (0, 2), "minute": (0, 1)}
    if by not in axes:
        raise ValueError(f"by={by!r} must be '', 'job' or 'minute'")
    return np.asarray(terms, dtype=float).mean(axis=axes[by])


def scores_caption(gains: Any) -> str:
    """Caption that compares bayes with the best baseline.

    `gains` has columns score, rival, difference, low, high.
    """
    parts = []
    for row in gains.itertuples():
        if row.high < 0:
            verdict = "lower"
        elif row.low > 0:
            verdict = "higher"
        else:
            verdict = "not significantly lower"
        parts.append(
            f"The {row.score} of bayes is {verdict} than that of the best baseline, {row.rival} "
            f"(difference {row.difference:.3g}, 95 % interval {row.low:.3g} to {row.high:.3g})."
        )
    return f"{' '.join(parts)} Bootstrap over blocks of 30 minutes; lower is better."
