"""Forecaster "ar": an autoregression of log counts with coefficients that all jobs share."""

from dataclasses import dataclass

import numpy as np

from faro_lib.forecast.forecaster import (
    CONTEXT_MINUTES,
    HORIZON_MINUTES,
    Forecaster,
    own_days,
    register,
)
from faro_lib.forecast.regression import daily_profile, shapes_of_other_days, windows
from faro_lib.workload import Traces

RIDGE = 10.0
# Approximate number of training minutes whose errors are stored, evenly spaced.
MAX_ERROR_ROWS = 2000
AT_ONCE = 2_000_000  # counts whose lags are in memory at once in the fit


@dataclass(frozen=True, slots=True, kw_only=True)
class Autoregression(Forecaster):
    """Sample paths x = exp(y + profile) - 1 with autoregressive y; all jobs share its coefficients.

    y[t] = log(1 + x[t]) - profile[job, t] = sum_l a[l] y[t-l] + e[t].

    The errors e[t] of all jobs are those of one random training minute, which preserves the
    correlation between jobs. Past minutes without a count are simulated, too.
    """

    profile: np.ndarray  # mean log count by minute of the day, shape (jobs, day_minutes)
    coefficients: np.ndarray  # a, shape (lags,), largest lag first
    # Errors e of forecasts one minute ahead on the training days, shape (minutes, jobs).
    errors: np.ndarray
    # Standard deviation of y in training, (jobs,); also used to draw y for jobs without counts.
    spread: np.ndarray

    def sample(self, horizon: int = HORIZON_MINUTES, n: int = 100) -> np.ndarray:
        self.check_horizon(horizon, n)
        rng = self.rng()
        jobs = len(self.jobs)
        past_profile = self.profile[:, self.minutes_ahead(-self.counts.shape[1], 0)]
        y = np.log1p(self.counts) - past_profile  # (jobs, minutes)
        start, known = simulation_start(y, self.spread, rng.standard_normal((jobs, n)))
        known = np.concatenate([known, np.full((horizon, jobs), np.nan)])
        rows = rng.integers(len(self.errors), size=(len(known), n))
        errors = self.errors[rows].transpose(0, 2, 1)  # (minutes, jobs, n)
        paths = _continue(start, known, self.coefficients, errors)[-horizon:]
        log_counts = paths + self.profile[:, self.minutes_ahead(0, horizon)].T[:, :, None]
        largest = np.where(np.isnan(self.counts), 0, self.counts).max(axis=1)
        limit = np.log1p(np.where(largest > 0, np.maximum(10 * largest, 100), 1e6))
        return np.expm1(np.clip(log_counts, 0, limit[:, None])).transpose(1, 2, 0)


def simulation_start(
    y: np.ndarray, spread: np.ndarray, normal: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The initial state for simulating an autoregression if some past minutes are missing.

    The simulation starts at the earliest missing count of any job within the last CONTEXT_MINUTES.
    If no count is missing there, it starts at the coming minute. The lags are y in the
    CONTEXT_MINUTES before the start. A missing lag takes the last known lag before it, or else the
    job's first known y. A job without any count gets random lags.

    Parameters
    ----------
    y : deviations from the daily profile, shape (jobs, 2 x CONTEXT_MINUTES), NaN where missing.
    spread : standard deviation of y, shape (jobs,).
    normal : standard normal draws, shape (jobs, samples). Random lags are `spread` times these
        draws.

    Returns
    -------
    start : initial lags, shape (CONTEXT_MINUTES, jobs, samples).
    known : y of the past minutes from the start on, shape (minutes, jobs); NaN = to be simulated.
    """
    missing = np.isnan(y)
    recent = missing[:, CONTEXT_MINUTES:].any(axis=0)
    gap = CONTEXT_MINUTES - int(np.argmax(recent)) if recent.any() else 0
    first = y.shape[1] - gap - CONTEXT_MINUTES
    lags = y[:, first : first + CONTEXT_MINUTES]
    start = np.repeat(_filled(lags, y).T[:, :, None], normal.shape[1], axis=2)
    unknown = missing.all(axis=1)
    start[:, unknown] = spread[unknown, None] * normal[unknown]
    return start, y[:, y.shape[1] - gap :].T


def _filled(lags: np.ndarray, history: np.ndarray) -> np.ndarray:
    """`lags` (jobs, minutes) with each NaN replaced by the last known lag before it.

    Without one, it is replaced by the job's first known value in `history` (jobs, minutes), or 0.
    """
    # Index of the last known lag at or before each minute, -1 if there is none.
    latest = np.maximum.accumulate(np.where(np.isnan(lags), -1, np.arange(lags.shape[1])), axis=1)
    rows = np.arange(len(lags))
    first = np.nan_to_num(history[rows, np.argmax(~np.isnan(history), axis=1)])
    return np.where(latest >= 0, lags[rows[:, None], latest], first[:, None])


def _continue(
    start: np.ndarray, known: np.ndarray, coefficients: np.ndarray, errors: np.ndarray
) -> np.ndarray:
    """Simulate y[t] = sum_l a[l] y[t-l] + errors[t]. Where `known` is not NaN, it replaces y[t].

    `coefficients` are a, largest lag first. `start` (lags, jobs, samples) has y of the minutes
    before the simulation. `known` has shape (minutes, jobs). `errors` and the result have shape
    (minutes, jobs, samples).
    """
    lags = len(start)
    path = np.concatenate([start, errors], dtype=np.float32, casting="same_kind")
    for t in range(lags, len(path)):
        path[t] += np.tensordot(coefficients, path[t - lags : t], axes=1)
        minute = known[t - lags][:, None]
        np.copyto(path[t], minute, where=~np.isnan(minute))
    return path[lags:]


@register("ar")
def pooled_ar(traces: Traces, *, seed: int = 0) -> Autoregression:
    """Fit "ar" by ridge regression over all jobs and training days: a = (Z'Z + RIDGE I)^-1 Z'y.

    y are the log counts minus the profile, and Z are the lags of y. In the fit, the profile is the
    mean of the *other* days, because forecasts cannot use the counts of their own day. Forecasts
    use the `daily_profile` of all days.
    """
    days, phases, jobs, minutes = traces.train.shape
    y = np.empty(traces.train.shape)
    profile = np.empty((jobs, minutes))
    for some, counts in own_days(traces):
        own = np.log1p(counts)  # (own days, phases, some jobs, minutes)
        of_others = [shapes_of_other_days(own[:, phase]) for phase in range(phases)]
        deviations = own - np.stack(of_others, axis=1)
        # Days without data become copies of later ones.
        y[:, :, some] = deviations[np.arange(-days, 0) % len(own)]
        profile[some] = daily_profile(own[:, 0])
    squares, products = np.zeros((CONTEXT_MINUTES, CONTEXT_MINUTES)), np.zeros(CONTEXT_MINUTES)
    few = max(1, AT_ONCE * jobs // y.size)  # all lags of many jobs do not fit into memory
    parts = [y[:, :, first : first + few] for first in range(0, jobs, few)]
    for part in parts:
        rows = windows(part, CONTEXT_MINUTES + 1).reshape(-1, CONTEXT_MINUTES + 1)
        lags = rows[:, :-1]
        squares += lags.T @ lags
        products += lags.T @ rows[:, -1]
    coefficients = np.linalg.solve(squares + RIDGE * np.eye(CONTEXT_MINUTES), products)
    errors = np.concatenate([_errors(part, coefficients) for part in parts], axis=1)
    return Autoregression(
        jobs=traces.names,
        seed=seed,
        day_minutes=minutes,
        profile=profile,
        coefficients=coefficients.astype(np.float32),
        errors=errors,
        spread=y.std(axis=(0, 1, 3)),
    )


def _errors(y: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Errors (minutes, jobs) of forecasts of y (days, phases, jobs, minutes), with mean 0."""
    runs = windows(y, CONTEXT_MINUTES + 1)
    errors = runs[..., -1] - runs[..., :-1] @ coefficients  # (days, phases, jobs, minutes)
    errors = np.moveaxis(errors, 2, -1).reshape(-1, y.shape[2])
    errors = errors[:: max(1, len(errors) // MAX_ERROR_ROWS)]
    return (errors - errors.mean(axis=0)).astype(np.float32)
