"""Autoregression on log counts around a day shape: pooled coefficients by ridge, sample paths by simulation."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from faro_lib.forecast.forecaster import (
    CONTEXT_MINUTES,
    HORIZON_MINUTES,
    Forecaster,
    check_horizon,
    job_names,
    register,
    reindex,
    training_counts,
)
from faro_lib.forecast.regression import shapes_of_other_days
from faro_lib.workload import Traces


def harmonics(day_minutes: int, order: int) -> np.ndarray:
    """Cosines and sines of the day, shape (day_minutes, 1 + 2 x order), a constant first.

    >>> harmonics(4, 1).round(6).tolist()
    [[1.0, 1.0, 0.0], [1.0, 0.0, 1.0], [1.0, -1.0, 0.0], [1.0, -0.0, -1.0]]
    """
    angle = 2 * np.pi * np.arange(day_minutes)[:, None] * np.arange(1, order + 1) / day_minutes
    return np.concatenate([np.ones((day_minutes, 1)), np.cos(angle), np.sin(angle)], axis=1)


def simulate(start, known, coefficients, errors):
    """Continue the paths y[t] = sum_l coefficients[l] y[t-l] + errors[t], with known minutes held at what was seen.

    Parameters
    ----------
    start : the CONTEXT_MINUTES values before the first simulated one, shape (lags, jobs, samples), oldest first.
    known : values that have been seen, NaN where not, shape (minutes, jobs); the rest is simulated.
    coefficients : oldest lag first, broadcasts to (lags, jobs, samples), or of shape (lags,).
    errors : shape (minutes, jobs, samples).

    Returns
    -------
    array of shape (minutes, jobs, samples).
    """
    lags = start.shape[0]
    path = np.concatenate([start, errors]).astype(np.float32)
    for t in range(lags, len(path)):
        past = path[t - lags : t]
        if coefficients.ndim == 1:
            path[t] += np.tensordot(coefficients, past, axes=1)
        else:
            path[t] += np.einsum("ljs,ljs->js", np.broadcast_to(coefficients, past.shape), past)
        seen = known[t - lags]
        if not np.isnan(seen).all():
            path[t] = np.where(np.isnan(seen)[:, None], path[t], seen[:, None])
    return path[lags:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Autoregression(Forecaster):
    """Log counts as a day shape plus an autoregression that all jobs share; errors drawn from the training days.

    y = log(1 + x) - shape[job, minute];  y[t] = sum_l a[l] y[t-l] + e[t].

    A row of errors is one minute of all jobs, so what jobs have in common stays in the paths. Missing minutes are
    simulated like the future ones, between the minutes that are known. A job that was never seen has a flat day
    at its own level.

    Attributes
    ----------
    shape : shape (jobs, day_minutes); NaN for a job never seen.
    coefficients : shape (lags,), oldest first.
    errors : shape (draws, jobs).
    spread : standard deviation of y over the training days, shape (jobs,): what is known before the first minute.
    """

    shape: np.ndarray
    coefficients: np.ndarray
    errors: np.ndarray
    spread: np.ndarray

    def sample(self, horizon: int = HORIZON_MINUTES, n: int = 100) -> np.ndarray:
        check_horizon(horizon, n)
        rng = self.rng()
        y = np.log1p(self.counts) - self._shape(-self.counts.shape[1], 0)
        start, known = context(y, self.spread, rng.standard_normal((len(self.jobs), n)))
        known = np.concatenate([known, np.full((horizon, len(self.jobs)), np.nan)])
        rows = rng.integers(len(self.errors), size=(len(known), n))
        paths = simulate(start, known, self.coefficients, self.errors[rows].transpose(0, 2, 1))[-horizon:]
        shape = self._shape(0, horizon)
        return np.expm1(bounded(paths + shape.T[:, :, None], self.counts)).transpose(1, 2, 0)

    def _shape(self, first: int, last: int) -> np.ndarray:
        """Day shape over minutes first..last, (jobs, minutes); a job never seen is flat at its own level."""
        shape = self.shape[:, self.minutes_ahead(first, last)]
        if not np.isnan(shape).any():
            return shape
        seen = ~np.isnan(self.counts)
        own = np.where(seen, np.log1p(np.where(seen, self.counts, 0)), 0).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
        pooled = np.nanmean(self.shape) if not np.isnan(self.shape).all() else 0.0
        return np.where(np.isnan(shape), np.where(seen.any(axis=1), own, pooled)[:, None], shape)

    def for_jobs(self, names, new_jobs: str = "error") -> Autoregression:
        """The same for other jobs; with `new_jobs="pooled"` one that was never seen gets the pooled prior."""
        index = reindex(names, self.jobs, new_jobs)
        new = index < 0
        errors = self.errors[:, index].copy()
        everyone = self.errors.ravel()
        errors[:, new] = everyone[
            np.random.default_rng(self.seed).integers(everyone.size, size=(len(errors), new.sum()))
        ]
        shape = np.where(new[:, None], np.nan, self.shape[index])
        spread = np.where(new, np.sqrt(np.mean(self.spread**2)) + np.nanstd(self.shape), self.spread[index])
        return replace(
            self, jobs=tuple(names), shape=shape, errors=errors, spread=spread, counts=np.empty((0, 0)), seen=0
        )


def context(y: np.ndarray, spread: np.ndarray, normal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where a simulation has to begin, and what it must hold on to, given a history with gaps.

    Without gaps in the last CONTEXT_MINUTES minutes it begins with the minute to come. Otherwise it begins at the earliest
    gap, and what lies before it is filled: backwards with the first known deviation from the day shape, forwards with
    the last one; a job of which nothing is known stands off its day shape by a normal deviation of `spread`.

    Parameters
    ----------
    y : deviations from the day shape, shape (jobs, 2 x CONTEXT_MINUTES), NaN where missing.
    spread : shape (jobs,).
    normal : standard normal draws, shape (jobs, samples).

    Returns
    -------
    start : shape (CONTEXT_MINUTES, jobs, samples).
    known : shape (minutes to simulate before the minute to come, jobs), NaN where missing.
    """
    missing = np.isnan(y)
    recent = missing[:, CONTEXT_MINUTES:].any(axis=0)
    gap = CONTEXT_MINUTES - int(np.argmax(recent)) if recent.any() else 0
    first = y.shape[1] - gap - CONTEXT_MINUTES
    before = y[:, first : first + CONTEXT_MINUTES]
    start = np.repeat(filled(before, y)[:, :, None], normal.shape[1], axis=2) if gap else before[:, :, None]
    nothing = missing.all(axis=1)
    if nothing.any():
        start[nothing] = (spread[nothing, None] * normal[nothing])[:, None, :]
    start = np.broadcast_to(start, (*start.shape[:2], normal.shape[1])).transpose(1, 0, 2)
    return start, y[:, y.shape[1] - gap :].T


def filled(window: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`window` (jobs, minutes) with gaps filled by the value before them, else by the first one of `whole`."""
    known = ~np.isnan(window)
    latest = np.maximum.accumulate(np.where(known, np.arange(window.shape[1]), -1), axis=1)
    rows = np.arange(len(window))[:, None]
    first = np.nan_to_num(whole[rows[:, 0], np.argmax(~np.isnan(whole), axis=1)])
    return np.where(latest >= 0, window[rows, latest], first[:, None])


def bounded(log_counts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Log counts (minutes, jobs, samples) between an empty minute and ten times the most that was seen."""
    seen = np.where(np.isnan(counts), 0, counts).max(axis=1)
    most = np.log1p(np.where(seen > 0, np.maximum(10 * seen, 100), 1e6))
    return np.clip(log_counts, 0, most[None, :, None])


@register("ar")
def pooled_ar(
    traces: Traces, *, seed: int = 0, sample: int = 0, order: int | None = None, ridge: float = 10.0, draws: int = 2000
) -> Autoregression:
    """Pooled ridge autoregression on log counts: a = (Z'Z + ridge I)^-1 Z'y over all jobs, days and phases.

    In the fit a day's shape is that of the other days, which is what a forecaster could have known.

    Parameters
    ----------
    sample : the phase of the days to be forecast, whose shape is kept.
    order : harmonics that smooth the day shape; None takes the mean of each minute as it is.
    draws : minutes of errors to keep, thinned evenly.
    """
    log_counts = np.log1p(training_counts(traces))
    _, phases, jobs, minutes = log_counts.shape
    if not 0 <= sample < phases:
        raise ValueError(f"sample={sample} is not a phase of the training days; there are 0 to {phases - 1}")

    def smooth(shape):
        if order is None:
            return shape
        basis = harmonics(minutes, order)
        return shape @ basis @ np.linalg.inv(basis.T @ basis) @ basis.T

    y = log_counts - np.stack([smooth(shapes_of_other_days(log_counts[:, p])) for p in range(phases)], axis=1)
    windows = np.lib.stride_tricks.sliding_window_view(y, CONTEXT_MINUTES + 1, axis=-1)
    rows = windows.reshape(-1, CONTEXT_MINUTES + 1)
    lags, target = rows[:, :-1], rows[:, -1]
    coefficients = np.linalg.solve(lags.T @ lags + ridge * np.eye(CONTEXT_MINUTES), lags.T @ target)
    errors = windows[..., -1] - windows[..., :-1] @ coefficients  # (days, phases, jobs, minutes)
    errors = np.moveaxis(errors, 2, -1).reshape(-1, jobs)
    errors = errors[:: max(1, len(errors) // draws)]
    errors -= errors.mean(axis=0)
    return Autoregression(
        jobs=job_names(traces),
        seed=seed,
        day_minutes=minutes,
        shape=smooth(log_counts[:, sample].mean(axis=0)),
        coefficients=coefficients.astype(np.float32),
        errors=errors.astype(np.float32),
        spread=y.std(axis=(0, 1, 3)),
    )
