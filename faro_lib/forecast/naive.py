"""Naive forecasters: "persistence" repeats the last count, "seasonal" the same minutes of earlier days."""

from dataclasses import dataclass

import numpy as np

from faro_lib.forecast.forecaster import HORIZON_MINUTES, Forecaster, register, training_counts
from faro_lib.workload import Traces

ERROR_MINUTES = 15  # minutes ahead for which errors are recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class Persistence(Forecaster):
    """Sample paths: the last count plus x[t+h] - x[t] for a random training minute t, the same t for all jobs."""

    errors: np.ndarray  # x[t+h] - x[t] on the training days, shape (minutes t, jobs, minutes h)
    level: np.ndarray  # mean requests per minute on the training days, shape (jobs,); used before the first count

    def sample(self, horizon: int = HORIZON_MINUTES, n: int = 100) -> np.ndarray:
        self.check_horizon(horizon, n)
        rows = self.rng().integers(len(self.errors), size=n)
        minutes = np.minimum(np.arange(horizon), self.errors.shape[2] - 1)  # further ahead, the last error is repeated
        errors = self.errors[rows][:, :, minutes].transpose(1, 0, 2)
        return np.maximum(self.last_known(self.level)[:, None, None] + errors, 0)

    def mean(self, horizon: int = HORIZON_MINUTES) -> np.ndarray:
        return np.repeat(self.last_known(self.level)[:, None], horizon, axis=1)


@register("persistence")
def persistence(traces: Traces, *, seed: int = 0) -> Persistence:
    """Fit "persistence": it stores the errors after each minute of the training days."""
    train = training_counts(traces)
    last = train.shape[-1] - ERROR_MINUTES
    errors = np.stack([train[..., h : last + h] - train[..., :last] for h in range(1, ERROR_MINUTES + 1)], axis=-1)
    errors = np.moveaxis(errors, 3, 2)  # (days, samples, origins, jobs, minutes)
    errors = errors.reshape(-1, *errors.shape[-2:])
    level = train.mean(axis=(0, 1, 3))
    return Persistence(jobs=traces.names, seed=seed, day_minutes=train.shape[-1], errors=errors, level=level)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seasonal(Forecaster):
    """Sample paths: the counts of the same minutes on random training days."""

    days: np.ndarray  # requests per minute of the training days, shape (days x samples, jobs, minutes)

    def sample(self, horizon: int = HORIZON_MINUTES, n: int = 100) -> np.ndarray:
        self.check_horizon(horizon, n)
        rows = self.rng().integers(len(self.days), size=n)
        return self.days[:, :, self.minutes_ahead(0, horizon)][rows].transpose(1, 0, 2)

    def mean(self, horizon: int = HORIZON_MINUTES) -> np.ndarray:
        return self.days[:, :, self.minutes_ahead(0, horizon)].mean(axis=0)


@register("seasonal")
def seasonal(traces: Traces, *, seed: int = 0) -> Seasonal:
    """Fit "seasonal": it stores the counts of all training days."""
    train = training_counts(traces)
    days = train.reshape(-1, *train.shape[2:])
    return Seasonal(jobs=traces.names, seed=seed, day_minutes=train.shape[-1], days=days)
