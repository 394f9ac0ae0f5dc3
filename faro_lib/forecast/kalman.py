"""Local level: the root of a count is a random walk seen through noise (Durbin and Koopman 2012, chapter 2)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from faro_lib.forecast.forecaster import (
    HORIZON_MINUTES,
    Forecaster,
    check_horizon,
    job_names,
    register,
    training_counts,
)
from faro_lib.forecast.regression import from_root, root
from faro_lib.workload import Traces

RATIOS = np.geomspace(0.01, 100, 33)  # variance of a step of the level over the variance of the noise
UNKNOWN = 1e12  # variance of a level that nobody has seen


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalLevel(Forecaster):
    """level[t+1] = level[t] + N(0, step), sqrt(x[t] + 3/8) = level[t] + N(0, noise); filtered minute by minute.

    Attributes
    ----------
    step, noise : variances, shape (jobs,).
    prior_level, prior_variance : of the level before the first minute, shape (jobs,).
    level, variance : of the level now, shape (jobs,).
    """

    step: np.ndarray
    noise: np.ndarray
    prior_level: np.ndarray
    prior_variance: np.ndarray
    level: np.ndarray
    variance: np.ndarray

    def start(self, minute_of_day: int = 0) -> Self:
        fresh = Forecaster.start(self, minute_of_day)
        return replace(fresh, level=self.prior_level, variance=self.prior_variance)

    def update(self, counts) -> Self:
        later = Forecaster.update(self, counts)
        seen = root(later.counts[:, -1])
        gain = np.where(np.isnan(seen), 0.0, self.variance / (self.variance + self.noise))
        level = self.level + gain * np.where(np.isnan(seen), 0.0, seen - self.level)
        return replace(later, level=level, variance=self.variance * (1 - gain) + self.step)

    def sample(self, horizon: int = HORIZON_MINUTES, n: int = 100) -> np.ndarray:
        check_horizon(horizon, n)
        rng = self.rng()
        moves = rng.standard_normal((len(self.jobs), n, horizon)) * np.sqrt(self.step)[:, None, None]
        moves[:, :, 0] = rng.standard_normal((len(self.jobs), n)) * np.sqrt(self.variance)[:, None]
        noise = rng.standard_normal(moves.shape) * np.sqrt(self.noise)[:, None, None]
        return from_root(self.level[:, None, None] + moves.cumsum(axis=2) + noise)


@register("kalman")
def kalman(traces: Traces, *, seed: int = 0) -> LocalLevel:
    """Local level by maximum likelihood: the ratio of the variances on a grid, their size in closed form."""
    y = root(training_counts(traces)).transpose(2, 0, 1, 3)  # (jobs, days, samples, minutes)
    likelihood, noise = np.array([concentrated_likelihood(y, ratio) for ratio in RATIOS]).swapaxes(0, 1)
    best = likelihood.argmax(axis=0)
    noise = noise[best, np.arange(len(y))]
    prior_level, prior_variance = y.mean(axis=(1, 2, 3)), y.var(axis=(1, 2, 3)) + 1e-6
    return LocalLevel(
        jobs=job_names(traces),
        seed=seed,
        day_minutes=y.shape[-1],
        step=noise * RATIOS[best],
        noise=noise,
        prior_level=prior_level,
        prior_variance=prior_variance,
        level=prior_level,
        variance=prior_variance,
    )


def concentrated_likelihood(y: np.ndarray, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """Log-likelihood per job at step variance = ratio x noise variance, the noise at its maximum, and that noise.

    `y` has shape (jobs, days, samples, minutes); each day starts anew from its first minute.
    """
    level, variance = y[..., 0], 1.0 + ratio
    squares, logs = 0.0, 0.0
    for t in range(1, y.shape[-1]):
        error = y[..., t] - level
        squares = squares + (error**2 / (variance + 1)).sum(axis=(1, 2))
        logs += np.log(variance + 1)
        gain = variance / (variance + 1)
        level, variance = level + gain * error, variance * (1 - gain) + ratio
    count = y[0, ..., 1:].size
    noise = np.maximum(squares / count, 1e-9)
    return -0.5 * (count * np.log(noise) + y[0, ..., 0].size * logs), noise


@dataclass(frozen=True, slots=True, kw_only=True)
class Untaught(LocalLevel):
    """The local level of jobs that nobody has seen before; it says so until it has seen a minute of each."""

    def sample(self, horizon: int = HORIZON_MINUTES, n: int = 100) -> np.ndarray:
        unseen = np.flatnonzero(self.variance > UNKNOWN / 2)
        if len(unseen):
            raise ValueError(f"job {self.jobs[unseen[0]]!r}: no complete minute has been counted yet")
        return super(Untaught, self).sample(horizon, n)


def untaught(jobs: tuple[str, ...], *, seed: int = 0) -> Untaught:
    """A forecaster without training days: noise as of Poisson counts, whose root has a variance of 1/4; steps of 1.

    A job of 900 requests a minute then moves by 7 % a minute (one standard deviation).

    >>> untaught(("a",)).update([100.0]).sample(1, 1000).mean().round() > 50
    np.True_
    """
    ones = np.ones(len(jobs))
    return Untaught(
        jobs=jobs,
        seed=seed,
        step=ones,
        noise=ones / 4,
        prior_level=0 * ones,
        prior_variance=UNKNOWN * ones,
        level=0 * ones,
        variance=UNKNOWN * ones,
    )
