"""Naive forecasters: "persistence" repeats the last count, "seasonal" those of earlier days."""

from dataclasses import dataclass

import numpy as np

from faro_lib.forecast.forecaster import HORIZON_MINUTES, Forecaster, register, training_counts
from faro_lib.workload import Traces

# `Persistence` uses changes of the training counts over at most this many minutes.
ERROR_MINUTES = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Persistence(Forecaster):
    """Sample paths: the last count plus the changes of training counts after a random minute."""

    # Requests per minute of all samples of the training days, (days x samples, jobs, minutes).
    days: np.ndarray
    # Mean requests per minute on the training days, shape (jobs,); used before the first count.
    level: np.ndarray

    def sample(self, horizon: int = HORIZON_MINUTES, n: int = 100) -> np.ndarray:
        self.check_horizon(horizon, n)
        starts = self.days.shape[-1] - ERROR_MINUTES  # minutes of a day from which a path may start
        drawn = self.rng().integers(len(self.days) * starts, size=n)[:, None]
        day, t = np.divmod(drawn, starts)
        ahead = np.minimum(np.arange(horizon) + 1, ERROR_MINUTES)
        errors = self.days[day, :, t + ahead] - self.days[day, :, t]  # (n, horizon, jobs)
        last = self.last_known(self.level)[:, None, None]
        return np.maximum(last + errors.transpose(2, 0, 1), 0)

    def mean(self, horizon: int = HORIZON_MINUTES) -> np.ndarray:
        return np.repeat(self.last_known(self.level)[:, None], horizon, axis=1)


@register("persistence")
def persistence(traces: Traces, *, seed: int = 0) -> Persistence:
    """Fit "persistence": it stores the counts of all training days."""
    train = training_counts(traces)
    return Persistence(
        jobs=traces.names,
        seed=seed,
        day_minutes=train.shape[-1],
        days=train.reshape(-1, *train.shape[2:]),
        level=train.mean(axis=(0, 1, 3)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Seasonal(Forecaster):
    """Sample paths: the counts of the same minutes on random training days."""

    # Requests per minute of all samples of the training days, (days x samples, jobs, minutes).
    days: np.ndarray

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
    return Seasonal(
        jobs=traces.names,
        seed=seed,
        day_minutes=train.shape[-1],
        days=train.reshape(-1, *train.shape[2:]),
    )
