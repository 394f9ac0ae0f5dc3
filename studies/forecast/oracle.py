"""Forecaster "oracle": the actual requests with a chosen error.

It shows how much a better forecast could gain.
"""

from dataclasses import dataclass

import numpy as np

from faro_lib.forecast.forecaster import HORIZON_MINUTES, Forecaster, register
from faro_lib.workload import Traces, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Oracle(Forecaster):
    """The actual requests times lognormal factors with mean 1 and standard deviation `error`.

    In each forecast, one factor scales all paths of a job, and a second factor scales each path.
    Both have the same distribution, so the spread of the paths shows how large the error of their
    centre typically is.
    """

    # Requests per minute, (jobs, minutes); the last minute is repeated after the end.
    truth: np.ndarray
    error: float = 0.0  # relative standard deviation of a factor: 0.2 = 20 %

    def sample(self, horizon: int = HORIZON_MINUTES, n: int = 100) -> np.ndarray:
        self.check_horizon(horizon, n)
        paths = np.repeat(self._truth_ahead(horizon)[:, None], n, axis=1)
        if self.error == 0:
            return paths
        # The common factor is drawn first, so that it does not depend on the number of paths.
        rng = self.rng()
        jobs = len(self.jobs)
        return paths * self._factor(rng, (jobs, 1, 1)) * self._factor(rng, (jobs, n, 1))

    def mean(self, horizon: int = HORIZON_MINUTES) -> np.ndarray:
        return Forecaster.mean(self, horizon) if self.error else self._truth_ahead(horizon)

    def _truth_ahead(self, horizon):
        """The actual requests per minute, starting with the next minute, (jobs, horizon)."""
        coming = (self.minute_of_day - self.minutes_seen) % self.day_minutes + self.minutes_seen
        minutes = np.minimum(coming + np.arange(horizon), self.truth.shape[1] - 1)
        return self.truth[:, minutes].astype(float)

    def _factor(self, rng, shape):
        variance = np.log1p(self.error**2)
        return np.exp(np.sqrt(variance) * rng.standard_normal(shape) - variance / 2)


def oracle(workload: Workload, error: float = 0.0, seed: int = 0) -> Oracle:
    """An oracle that forecasts the day in `workload`.

    Before its first update, its forecasts start at minute 0.

    >>> from faro_lib.workload import Job
    >>> oracle(Workload((Job("a"),), np.array([[10, 20, 30]]))).update([10]).sample(2, 1).tolist()
    [[[20.0, 30.0]]]
    """
    if not 0 <= error < np.inf:
        raise ValueError(f"error={error!r} must be a finite number >= 0")
    names = tuple(job.name for job in workload.jobs)
    return Oracle(
        jobs=names,
        seed=seed,
        day_minutes=workload.minutes,
        truth=workload.requests_per_min,
        error=error,
    )


@register("oracle")
def oracle_of(traces: Traces, *, seed: int = 0) -> Oracle:
    """The oracle of the evaluation day."""
    return oracle(traces.workload(), seed=seed)
