"""Forecaster "poisson": Poisson counts with a gamma-distributed level that discounts older counts.

    x[t] ~ Poisson(level[t]),  level[t] ~ Gamma(a, b)
    a <- discount * (a + x[t]),  b <- discount * (b + 1)

x are the counts (Harvey and Fernandes 1989). "poisson" suits jobs with few requests, which "kalman"
models poorly.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from faro_lib.forecast.forecaster import HORIZON_MINUTES, Forecaster, register, training_counts
from faro_lib.workload import Traces

DISCOUNTS = np.array([0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98])
# The weight of earlier counts is multiplied by it every minute and halves in 1.4 minutes.
UNTRAINED_DISCOUNT = 0.6
PRIOR_MINUTES = 0.1  # the prior level weighs as much as this many minutes of counts


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscountedPoisson(Forecaster):
    """Poisson counts about a level with distribution Gamma(a, b) per job. Arrays are (jobs,)."""

    discount: np.ndarray
    # Expected requests per minute before anything is counted; NaN = unknown.
    prior_level: np.ndarray
    a: np.ndarray  # shape parameter of the level in the coming minute
    b: np.ndarray  # rate parameter of the level in the coming minute; 0 = nothing is known

    def start(self, minute_of_day: int = 0) -> Self:
        return replace(
            Forecaster.start(self, minute_of_day),
            a=np.nan_to_num(self.prior_level) * PRIOR_MINUTES,
            b=np.where(np.isnan(self.prior_level), 0.0, PRIOR_MINUTES),
        )

    def forget(self, jobs: np.ndarray) -> Self:
        return replace(self, a=np.where(jobs, 0.0, self.a), b=np.where(jobs, 0.0, self.b))

    def update(self, counts) -> Self:
        later = Forecaster.update(self, counts)
        known = ~np.isnan(later.counts[:, -1])
        a = self.a + np.where(known, later.counts[:, -1], 0)
        # A minute without a count discounts older counts, too, unless their weight b would fall
        # below PRIOR_MINUTES.
        keep = np.where(known | (self.discount * self.b > PRIOR_MINUTES), self.discount, 1.0)
        return replace(later, a=keep * a, b=keep * (self.b + known))

    def known(self) -> np.ndarray:
        return self.b > 0

    def sample(self, horizon: int = HORIZON_MINUTES, n: int = 100) -> np.ndarray:
        self.check_horizon(horizon, n)
        rng = self.rng()
        level_a, level_b = self._level()
        size = (len(self.jobs), n)
        a = np.maximum(level_a, 1e-6)[:, None]
        discount = self.discount[:, None]
        level = rng.gamma(a, 1 / level_b[:, None], size)
        paths = np.empty((*size, horizon))
        for minute in range(horizon):
            paths[:, :, minute] = rng.poisson(np.minimum(level, 1e15))
            kept = np.maximum(discount * a, 1e-9)
            lost = np.maximum((1 - discount) * a, 1e-9)
            level *= rng.beta(kept, lost, size) / discount
            a = discount * a
        return paths

    def mean(self, horizon: int = HORIZON_MINUTES) -> np.ndarray:
        a, b = self._level()
        return np.repeat((a / b)[:, None], horizon, axis=1)

    def _level(self) -> tuple[np.ndarray, np.ndarray]:
        """Gamma parameters a, b of the levels; without data, a = 1 and the others' mean."""
        known = self.known()
        self.check_any_known(known)
        level = np.where(known, self.a / np.where(known, self.b, 1), 0)
        pooled = max(float(level[known].mean()), 1e-6)
        return np.where(known, self.a, 1.0), np.where(known, self.b, 1 / pooled)


@register("poisson")
def poisson(traces: Traces, *, seed: int = 0) -> DiscountedPoisson:
    """Fit "poisson": the discount of each job by maximum likelihood over DISCOUNTS."""
    counts = training_counts(traces)
    x = counts.transpose(2, 0, 1, 3)  # (jobs, days, samples, minutes)
    likelihood = np.stack([_log_likelihood(x, discount) for discount in DISCOUNTS])
    discount = DISCOUNTS[likelihood.argmax(axis=0)]
    level = counts.mean(axis=(0, 1, 3))
    return _from_level(traces.names, level, discount, seed=seed, day_minutes=counts.shape[-1])


def untrained_poisson(jobs: tuple[str, ...], **options) -> DiscountedPoisson:
    """Untrained "poisson"; `sample` raises a ValueError until at least one job has a count."""
    unknown = np.full(len(jobs), np.nan)
    discount = np.full(len(jobs), UNTRAINED_DISCOUNT)
    return _from_level(jobs, unknown, discount, **options)


def _from_level(jobs, level, discount, **options) -> DiscountedPoisson:
    poisson = DiscountedPoisson(
        jobs=jobs, discount=discount, prior_level=level, a=level, b=level, **options
    )
    return poisson.start()  # computes a and b


def _log_likelihood(x: np.ndarray, discount: float) -> np.ndarray:
    """Log-likelihood (jobs,) of counts x (jobs, days, samples, minutes), up to a constant.

    Given the past, a count is negative binomial.
    """
    from scipy.special import gammaln

    a = np.maximum(x[..., 0], 1e-3)
    b = 1.0
    total = np.zeros_like(a)
    for t in range(1, x.shape[-1]):
        a = np.maximum(discount * a, 1e-6)
        b = discount * b
        now = x[..., t]
        total = total + gammaln(a + now) - gammaln(a) + a * np.log(b / (1 + b)) - now * np.log1p(b)
        a = a + now
        b = b + 1
    return total.sum(axis=(1, 2))
