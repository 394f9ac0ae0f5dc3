"""Forecasts without a model: the last minute, and the same minute of other days."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from faro_lib.forecast.forecaster import (
    HORIZON_MINUTES,
    Forecaster,
    check_horizon,
    job_names,
    last_known,
    register,
    training_counts,
)
from faro_lib.workload import Traces


@dataclass(frozen=True, slots=True, kw_only=True)
class Persistence(Forecaster):
    """The last minute goes on, with the errors that this made on the training days.

    x[t+h] = x[t] + e[h], with e a whole path of errors (all jobs at once) drawn from the training days.

    Attributes
    ----------
    errors : shape (draws, jobs, minutes), x[t+h] - x[t] on the training days; one row keeps minutes and jobs together.
    level : requests per minute when nothing is known yet, shape (jobs,).
    """

    errors: np.ndarray
    level: np.ndarray

    def sample(self, horizon: int = HORIZON_MINUTES, n: int = 100) -> np.ndarray:
        check_horizon(horizon, n)
        rows = self.rng().integers(len(self.errors), size=n)
        # Beyond the horizon of the errors the last one stands.
        minutes = np.minimum(np.arange(horizon), self.errors.shape[2] - 1)
        errors = self.errors[rows][:, :, minutes].transpose(1, 0, 2)
        return np.maximum(last_known(self.counts, self.level)[:, None, None] + errors, 0)

    def mean(self, horizon: int = HORIZON_MINUTES) -> np.ndarray:
        return np.repeat(last_known(self.counts, self.level)[:, None], horizon, axis=1)


@register("persistence")
def persistence(traces: Traces, *, seed: int = 0, horizon: int = 15) -> Persistence:
    """Persistence with empirical errors up to `horizon` minutes ahead."""
    train = training_counts(traces)
    last = train.shape[-1] - horizon
    errors = np.stack([train[..., h : last + h] - train[..., :last] for h in range(1, horizon + 1)], axis=-1)
    errors = np.moveaxis(errors, 3, 2).reshape(-1, train.shape[2], horizon)  # (days x samples x origins, jobs, minutes)
    level = train.mean(axis=(0, 1, 3))
    return Persistence(jobs=job_names(traces), seed=seed, day_minutes=train.shape[-1], errors=errors, level=level)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seasonal(Forecaster):
    """A day like one of the training days: a sample path is what followed this minute on a day drawn at random.

    Attributes
    ----------
    days : requests per minute of the training days, shape (days x samples, jobs, minutes).
    """

    days: np.ndarray

    def sample(self, horizon: int = HORIZON_MINUTES, n: int = 100) -> np.ndarray:
        check_horizon(horizon, n)
        rows = self.rng().integers(len(self.days), size=n)
        return self.days[:, :, self.minutes_ahead(0, horizon)][rows].transpose(1, 0, 2)

    def mean(self, horizon: int = HORIZON_MINUTES) -> np.ndarray:
        return self.days[:, :, self.minutes_ahead(0, horizon)].mean(axis=0)


@register("seasonal")
def seasonal(traces: Traces, *, seed: int = 0) -> Seasonal:
    """Seasonal naive over all training days."""
    train = training_counts(traces)
    days = train.reshape(-1, *train.shape[2:])
    return Seasonal(jobs=job_names(traces), seed=seed, day_minutes=train.shape[-1], days=days)
