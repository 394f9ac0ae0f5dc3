"""The tables of stage 30.

`samples` are sample paths (origins, jobs, paths, minutes), `truth` actuals (origins, jobs,
minutes).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import studies.forecast.oracle  # noqa: F401, registers oracle
from faro_lib.allocate import solve
from faro_lib.utility import build_table
from faro_lib.workload import Job, arrays_of
from faro_lib.workload.jobs import MINUTE_S
from studies.forecast.scores import coverage, crps, interval, rmse, wql


def decision_regret(
    samples, truth, plan_value: Callable[[np.ndarray, np.ndarray], float]
) -> np.ndarray:
    """Utility lost by planning from the forecast instead of the actuals, shape (origins,).

    `plan_value(samples, truth)` plans from samples (jobs, paths, minutes) and returns the plan's
    utility for the actuals (jobs, minutes). The regret is >= 0 if plans from the actuals are
    optimal.
    """
    regret = []
    for paths, actual in zip(samples, truth):
        best = plan_value(actual[:, None, :], actual)
        regret.append(best - plan_value(paths, actual))
    return np.array(regret)


def plans(
    jobs: tuple[Job, ...], replicas_per_job: float
) -> Callable[[np.ndarray, np.ndarray], float]:
    """Return a `plan_value` for `decision_regret` that plans the jobs' replicas with `solve`.

    The budget is the cores of `replicas_per_job` replicas of each job, or of the jobs' minimum
    replicas if these need more. Every job initially runs the replicas that fit into an equal share.
    """
    arrays = arrays_of(jobs)
    minimum = np.maximum(1, arrays.min_replicas)
    budget = max(int(replicas_per_job * arrays.cores.sum()), int(np.ceil(minimum @ arrays.cores)))
    running = np.maximum(minimum, arrays.replicas_within(budget / len(jobs)))

    def plan_value(seen: np.ndarray, came: np.ndarray) -> float:
        believed = build_table(jobs, seen / MINUTE_S, running, max_replicas=budget)
        true = build_table(jobs, came[:, None] / MINUTE_S, running, max_replicas=budget)
        replicas = np.minimum(solve(believed, budget).replicas, true.value.shape[1] - 1)
        return float(true.value[np.arange(len(jobs)), replicas].sum())

    return plan_value


def crps_of_sums(samples, truth) -> float:
    """CRPS of the total requests of the horizon."""
    return crps(samples.sum(axis=-1, keepdims=True), truth.sum(axis=-1, keepdims=True))


def score_table(
    forecaster: str,
    samples,
    truth,
    jobs: Sequence[str],
    *,
    fit_s: float = np.nan,
    predict_ms: float = np.nan,
):
    """Rows of forecast/scores.csv: one per job, and "all"."""
    scores: dict[str, Callable] = {
        "rmse_per_min": rmse,
        "crps_per_min": crps,
        "wql": wql,
        "coverage_80": coverage,
    }
    columns = {
        name: [*score(samples, truth, by="job"), score(samples, truth)]
        for name, score in scores.items()
    }
    rows = {"forecaster": forecaster, "job": [*jobs, "all"], **columns}
    return pd.DataFrame(rows | {"fit_s": fit_s, "predict_ms": predict_ms})


def coverage_table(forecaster: str, samples, truth, levels: Sequence[float] = (0.5, 0.8, 0.95)):
    """Coverage by minutes ahead (from 1): columns minute, level, coverage, forecaster."""
    minutes = np.arange(1, truth.shape[2] + 1)
    tables = [
        {"minute": minutes, "level": q, "coverage": coverage(samples, truth, q, "minute")}
        for q in levels
    ]
    return pd.concat(map(pd.DataFrame, tables), ignore_index=True).assign(forecaster=forecaster)


def bands_table(
    samples, truth, jobs: Sequence[str], ahead: int, first_minute: int, level: float = 0.8
):
    """Forecasts made `ahead` minutes before each minute.

    Columns job, minute, requests, mean, low and high.
    """
    samples, truth = samples[..., ahead - 1], truth[..., ahead - 1]
    low, high = interval(samples, level)
    minute = first_minute + ahead - 1 + np.arange(len(samples))
    columns = {"requests": truth, "mean": samples.mean(axis=2), "low": low, "high": high}
    rows = [
        {"job": job, "minute": minute, **{name: values[:, j] for name, values in columns.items()}}
        for j, job in enumerate(jobs)
    ]
    return pd.concat(map(pd.DataFrame, rows), ignore_index=True)


def steps_table(
    samples,
    truth,
    jobs: Sequence[str],
    levels: Sequence[float] = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99),
):
    """A posterior predictive check: quantiles of the change from minute to minute.

    Columns job, level, observed (in the actuals) and replicated (in the sample paths).
    """
    replicated = np.quantile(np.diff(samples, axis=3), levels, axis=(0, 2, 3))
    observed = np.quantile(np.diff(truth, axis=2), levels, axis=(0, 2))
    rows = [
        {"job": job, "level": levels, "observed": observed[:, j], "replicated": replicated[:, j]}
        for j, job in enumerate(jobs)
    ]
    return pd.concat(map(pd.DataFrame, rows), ignore_index=True)


def save_samples(
    path: str | Path, forecasts: dict[str, np.ndarray], truth: np.ndarray, jobs: Sequence[str]
) -> None:
    """Write forecast/samples.npz: `truth`, `jobs`, and each forecaster's samples as integers."""
    rounded = {name: np.rint(samples) for name, samples in forecasts.items()}
    # With the smallest integer type, the file is as small as a compressed one and is written 50
    # times as fast.
    arrays: dict[str, Any] = {
        name: x.astype(np.min_scalar_type(int(x.max()))) for name, x in rounded.items()
    }
    np.savez(path, truth=truth, jobs=np.array(list(jobs)), **arrays)
