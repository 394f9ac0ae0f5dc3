"""Rolling forecasts of a day, their scores, and the tables of the forecast stage.

In all functions, `samples` has shape (origins, jobs, n, minutes) and `truth`, the actuals, (origins, jobs, minutes). An
origin is a minute from which a forecast starts. `by` is "" for one number, "job" for one per job, "minute" for one per
minute ahead.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from faro_lib.forecast.forecaster import CONTEXT_MINUTES, HORIZON_MINUTES, Forecaster
from faro_lib.forecast.regression import windows

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
TAIL_LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)


def rolling(
    forecaster: Forecaster, day_counts, horizon: int = HORIZON_MINUTES, n: int = 100, context: int = CONTEXT_MINUTES
) -> tuple[np.ndarray, np.ndarray]:
    """(sample paths from every minute of a day, actuals).

    The forecast at origin t knows minutes 0..t-1 and covers t..t+horizon-1. The first origin is `context`.

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
            f"day_counts has shape {day_counts.shape}; expected (jobs, {context + horizon} minutes or more)"
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


def crps_terms(samples, truth) -> np.ndarray:
    """CRPS (continuous ranked probability score) of the samples' empirical distribution, in the shape of `truth`.

    E|X - x| - E|X - X'| / 2 with X, X' drawn from the samples with replacement (Gneiting and Raftery 2007, eq. 21).

    >>> float(crps_terms(np.array([[[[0.0], [2.0]]]]), np.array([[[1.0]]]))[0, 0, 0])
    0.5
    """
    n = samples.shape[2]
    ordered = np.sort(samples, axis=2)
    weights = (2 * np.arange(1, n + 1) - n - 1) / n**2
    spread = np.einsum("ojnh,n->ojh", ordered, weights.astype(ordered.dtype))
    return np.abs(samples - truth[:, :, None]).mean(axis=2, dtype=float) - spread


def crps(samples, truth, by: str = ""):
    """Mean CRPS in requests per minute."""
    return _mean(crps_terms(samples, truth), by)


def pinball_terms(samples, truth, levels: Sequence[float]) -> np.ndarray:
    """Pinball loss max(q (x - z), (q - 1) (x - z)) of the samples' q-quantile z, shape (levels, *truth)."""
    over = truth - np.quantile(samples, levels, axis=2)
    level = np.asarray(levels).reshape(-1, 1, 1, 1)
    return np.maximum(level * over, (level - 1) * over)


def pinball(samples, truth, levels: Sequence[float] = TAIL_LEVELS) -> np.ndarray:
    """Mean pinball loss at each level, shape (levels,)."""
    return pinball_terms(samples, truth, levels).mean(axis=(1, 2, 3))


def wql_terms(samples, truth, levels: Sequence[float] = LEVELS) -> np.ndarray:
    """2 x the mean pinball loss over the levels, the numerator of `wql`, in the shape of `truth`."""
    return 2 * pinball_terms(samples, truth, levels).mean(axis=0)


def wql(samples, truth, by: str = ""):
    """Weighted quantile loss: 2 x the summed pinball loss / the summed actuals, averaged over LEVELS."""
    return _mean(wql_terms(samples, truth), by) / _mean(truth, by)


def coverage(samples, truth, level: float = 0.8, by: str = ""):
    """Share of the actuals inside the samples' central interval that has probability `level`."""
    low, high = _interval(samples, level)
    return _mean((low <= truth) & (truth <= high), by)


def difference(
    terms, others, weights=None, *, block: int = 30, draws: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[float, float, float]:
    """(difference of the mean scores of two forecasters on one day, low, high).

    The confidence interval is from a circular block bootstrap over origins (Politis and Romano 1992), because errors of
    neighbouring minutes and of different jobs are correlated.

    Parameters
    ----------
    terms, others : terms of the score, such as `crps_terms`, shape (origins, ...).
    weights : the sum of terms is divided by the sum of these, shape (origins, ...); 1 each by default, `truth` for WQL.
    block : number of consecutive origins in a block.
    level : confidence level.
    """
    origins = len(terms)
    if np.shape(terms) != np.shape(others):
        raise ValueError(f"terms {np.shape(terms)} and others {np.shape(others)} are not of the same forecasts")
    total = (np.asarray(terms, dtype=float) - others).reshape(origins, -1).sum(axis=1)
    weight = np.ones_like(terms, dtype=float) if weights is None else np.asarray(weights, dtype=float)
    weight = weight.reshape(origins, -1).sum(axis=1)
    block = min(block, origins)
    starts = np.random.default_rng(seed).integers(origins, size=(draws, -(-origins // block)))
    rows = ((starts[:, :, None] + np.arange(block)) % origins).reshape(draws, -1)[:, :origins]
    ratios = total[rows].sum(axis=1) / weight[rows].sum(axis=1)
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return float(total.sum() / weight.sum()), float(low), float(high)


def decision_regret(samples, truth, plan_value: Callable[[np.ndarray, np.ndarray], float]) -> np.ndarray:
    """Utility lost by planning from the forecast instead of from the actuals, shape (origins,).

    `plan_value(samples, truth)` makes a plan from samples (jobs, n, minutes) and returns its utility under the actuals
    (jobs, minutes). The regret is >= 0 if plans from the actuals are optimal.
    """
    return np.array(
        [plan_value(actual[:, None, :], actual) - plan_value(paths, actual) for paths, actual in zip(samples, truth)]
    )


def score_table(
    forecaster: str, samples, truth, jobs: Sequence[str], *, fit_s: float = np.nan, predict_ms: float = np.nan
):
    """The rows of one forecaster in forecast/scores.csv: one per job, and one for job "all"."""
    import pandas as pd

    scores: dict[str, Callable] = {"rmse_per_min": rmse, "crps_per_min": crps, "wql": wql, "coverage_80": coverage}
    columns = {name: [*score(samples, truth, by="job"), score(samples, truth)] for name, score in scores.items()}
    rows = {"forecaster": forecaster, "job": [*jobs, "all"], **columns}
    return pd.DataFrame(rows | {"fit_s": fit_s, "predict_ms": predict_ms})


def coverage_table(forecaster: str, samples, truth, levels: Sequence[float] = (0.5, 0.8, 0.95)):
    """Coverage for each number of minutes ahead (from 1): columns minute, level, coverage, forecaster."""
    import pandas as pd

    minutes = np.arange(1, truth.shape[2] + 1)
    tables = [{"minute": minutes, "level": q, "coverage": coverage(samples, truth, q, "minute")} for q in levels]
    return pd.concat(map(pd.DataFrame, tables), ignore_index=True).assign(forecaster=forecaster)


def bands_table(samples, truth, jobs: Sequence[str], ahead: int, first_minute: int, level: float = 0.8):
    """Forecasts made `ahead` minutes before each minute: columns job, minute, requests, mean, low, high."""
    import pandas as pd

    samples, truth = samples[..., ahead - 1], truth[..., ahead - 1]
    low, high = _interval(samples, level)
    minute = first_minute + ahead - 1 + np.arange(len(samples))
    columns = {"requests": truth, "mean": samples.mean(axis=2), "low": low, "high": high}
    rows = [
        {"job": job, "minute": minute, **{name: values[:, j] for name, values in columns.items()}}
        for j, job in enumerate(jobs)
    ]
    return pd.concat(map(pd.DataFrame, rows), ignore_index=True)


def steps_table(
    samples, truth, jobs: Sequence[str], levels: Sequence[float] = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
):
    """Quantiles of the change per minute, in actuals and in sample paths: columns job, level, observed, replicated."""
    import pandas as pd

    replicated = np.quantile(np.diff(samples, axis=3), levels, axis=(0, 2, 3))
    observed = np.quantile(np.diff(truth, axis=2), levels, axis=(0, 2))
    rows = [
        {"job": job, "level": levels, "observed": observed[:, j], "replicated": replicated[:, j]}
        for j, job in enumerate(jobs)
    ]
    return pd.concat(map(pd.DataFrame, rows), ignore_index=True)


def save_samples(path: str | Path, forecasts: dict[str, np.ndarray], truth: np.ndarray, jobs: Sequence[str]) -> None:
    """Write forecast/samples.npz: `truth`, `jobs`, and each forecaster's samples, rounded to whole requests."""
    arrays: dict[str, Any] = {name: np.rint(samples).astype(np.int32) for name, samples in forecasts.items()}
    np.savez_compressed(path, truth=truth, jobs=np.array(list(jobs)), **arrays)


def _interval(samples, level: float) -> np.ndarray:
    """Ends of the central interval of probability `level`, shape (2, *truth)."""
    return np.quantile(samples, [(1 - level) / 2, (1 + level) / 2], axis=2)


def _mean(terms: np.ndarray, by: str):
    axes = {"": None, "job": (0, 2), "minute": (0, 1)}
    if by not in axes:
        raise ValueError(f"by={by!r} must be '', 'job' or 'minute'")
    return np.asarray(terms, dtype=float).mean(axis=axes[by])
