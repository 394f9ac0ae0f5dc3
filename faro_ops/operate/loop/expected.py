"""A forecaster that knows announced events, in which a job has a multiple of its usual load."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from faro_lib.forecast.forecaster import HORIZON_MINUTES, Forecaster


@dataclass(frozen=True, slots=True)
class Event:
    """From minute `first` to `last` of a run, job number `job` has `factor` times its load."""

    job: int
    first: float
    last: float
    factor: float  # > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected(Forecaster):
    """A forecaster that multiplies the sample paths of `inner` by the factors of the events.

    `inner` forecasts the usual load from counts divided by the factors. A wrong factor looks like a
    change of the load.
    """

    inner: Forecaster
    events: tuple[Event, ...]

    def start(self, minute_of_day: int = 0) -> Self:
        inner = self.inner.start(minute_of_day)
        return replace(self, inner=inner, minute_of_day=inner.minute_of_day, minutes_seen=0)

    def update(self, counts) -> Self:
        inner = self.inner.update(self.checked(counts) / self._factors(1)[:, 0])
        return replace(
            self, inner=inner, minute_of_day=inner.minute_of_day, minutes_seen=self.minutes_seen + 1
        )

    def forget(self, jobs: np.ndarray) -> Self:
        return replace(self, inner=self.inner.forget(jobs))

    def known(self) -> np.ndarray:
        return self.inner.known()

    def sample(self, horizon: int = HORIZON_MINUTES, n: int = 100) -> np.ndarray:
        return self.inner.sample(horizon, n) * self._factors(horizon)[:, None]

    def _factors(self, horizon: int) -> np.ndarray:
        """Load factors (jobs, horizon) of the coming minutes.

        An event that covers a part of a minute counts in proportion.
        """
        factors = np.ones((len(self.jobs), horizon))
        minute = self.minutes_seen + np.arange(horizon)
        for event in self.events:
            begins, ends = np.maximum(event.first, minute), np.minimum(event.last, minute + 1)
            share = np.clip(ends - begins, 0, 1)
            factors[event.job] *= 1 + (event.factor - 1) * share
        return factors


def expected(inner: Forecaster, events: tuple[Event, ...]) -> Forecaster:
    """An `Expected` forecaster of `inner` and these events."""
    kept = {
        name: getattr(inner, name)
        for name in ("jobs", "seed", "day_minutes", "minute_of_day", "past")
    }
    return Expected(inner=inner, events=events, **kept)
