"""Forecaster "kalman": a Kalman filter for a local level of root counts (Durbin and Koopman 2012, chapter 2).

level[t+1] = level[t] + N(0, step),    y[t] = sqrt(x[t] + 3/8) = level[t] + N(0, noise).

`update` filters with this model, `sample` simulates it, and `concentrated_likelihood` filters for the fit.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from faro_lib.forecast.forecaster import HORIZON_MINUTES, Forecaster, register, training_counts
from faro_lib.forecast.regression import from_root, root
from faro_lib.workload import Traces

RATIOS = np.geomspace(0.01, 100, 33)  # candidates for step / noise
UNKNOWN = 1e12  # variance of an unknown level


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalLevel(Forecaster):
    """The local level of each job; all arrays have shape (jobs,) and are on the root scale."""

    step: np.ndarray  # variance of the level's change per minute
    noise: np.ndarray  # variance of a root count about the level
    prior_level: np.ndarray  # mean of the level before the first minute
    prior_variance: np.ndarray
    level: np.ndarray  # mean of the level in the coming minute
    variance: np.ndarray  # variance of the level in the coming minute

    def start(self, minute_of_day: int = 0) -> Self:
        fresh = Forecaster.start(self, minute_of_day)
        return replace(fresh, level=self.prior_level, variance=self.prior_variance)

    def forget(self, jobs: np.ndarray) -> Self:
        return replace(self, variance=np.where(jobs, UNKNOWN, self.variance))

    def update(self, counts) -> Self:
        later = Forecaster.update(self, counts)
        y = root(later.counts[:, -1])
        missing = np.isnan(y)
        gain = np.where(missing, 0.0, self.variance / (self.variance + self.noise))
        level = self.level + gain * np.where(missing, 0.0, y - self.level)
        return replace(later, level=level, variance=self.variance * (1 - gain) + self.step)

    def sample(self, horizon: int = HORIZON_MINUTES, n: int = 100) -> np.ndarray:
        self.check_horizon(horizon, n)
        known = self.variance < UNKNOWN / 2
        self.check_any_known(known)
        # A job without counts gets the others' mean level, and half that level as standard deviation.
        pooled = self.level[known].mean()
        level, variance = np.where(known, self.level, pooled), np.where(known, self.variance, (pooled / 2) ** 2)
        rng = self.rng()
        shape = (len(self.jobs), n, horizon)
        changes = rng.standard_normal(shape) * np.sqrt(self.step)[:, None, None]
        changes[:, :, 0] = rng.standard_normal(shape[:2]) * np.sqrt(variance)[:, None]  # error of the current level
        errors = rng.standard_normal(shape) * np.sqrt(self.noise)[:, None, None]
        return from_root(level[:, None, None] + changes.cumsum(axis=2) + errors)


@register("kalman")
def kalman(traces: Traces, *, seed: int = 0) -> LocalLevel:
    """Fit "kalman" by maximum likelihood: step / noise on the grid RATIOS, and the noise in closed form."""
    y = root(training_counts(traces)).transpose(2, 0, 1, 3)  # (jobs, days, samples, minutes)
    likelihood, noise = np.array([concentrated_likelihood(y, ratio) for ratio in RATIOS]).swapaxes(0, 1)
    best = likelihood.argmax(axis=0)
    noise = noise[best, np.arange(len(y))]
    level, variance = y.mean(axis=(1, 2, 3)), y.var(axis=(1, 2, 3)) + 1e-6
    return _local_level(traces.names, noise * RATIOS[best], noise, level, variance, seed=seed, day_minutes=y.shape[-1])


def untrained(jobs: tuple[str, ...], **options) -> LocalLevel:
    """A local level without training days; `sample` raises a ValueError until any job has a count.

    The noise is 1/4, the variance of the root of a Poisson count. The step is 1: at 900 requests per minute, the
    rate changes by 7 % per minute (one standard deviation).

    >>> untrained(("a",)).update([100.0]).sample(1, 1000).mean().round() > 50
    np.True_
    """
    ones = np.ones(len(jobs))
    return _local_level(jobs, ones, ones / 4, 0 * ones, UNKNOWN * ones, **options)


def _local_level(jobs, step, noise, level, variance, **options) -> LocalLevel:
    prior = {"prior_level": level, "prior_variance": variance, "level": level, "variance": variance}
    return LocalLevel(jobs=jobs, step=step, noise=noise, **prior, **options)


def concentrated_likelihood(y: np.ndarray, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """(maximum log-likelihood over the noise variance, up to a constant; the maximising variance), each (jobs,).

    The filter of `update` runs with all variances divided by the noise, at step / noise = `ratio`. The first count of a
    day only sets the level.

    Parameters
    ----------
    y : root counts, shape (jobs, days, samples, minutes).
    """
    _, days, samples, minutes = y.shape
    level, variance = y[..., 0], 1.0 + ratio  # variance: noise of the first count (1) plus one step (ratio)
    squares, log_variances = 0.0, 0.0
    for t in range(1, minutes):
        error = y[..., t] - level
        squares = squares + (error**2 / (variance + 1)).sum(axis=(1, 2))
        log_variances += np.log(variance + 1)
        gain = variance / (variance + 1)
        level, variance = level + gain * error, variance * (1 - gain) + ratio
    predicted = days * samples * (minutes - 1)
    noise = np.maximum(squares / predicted, 1e-9)  # a constant trace has no noise
    return -0.5 * (predicted * np.log(noise) + days * samples * log_variances), noise
