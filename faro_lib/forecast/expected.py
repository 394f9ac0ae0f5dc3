"""A forecaster that knows of events: during an event the load of a job is a multiple of what it would be without it."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from faro_lib.forecast.forecaster import HORIZON_MINUTES, Forecaster


@dataclass(frozen=True, slots=True)
class Event:
    """The load of a job, as an index, is multiplied by `factor` > 0 from minute `first` to `last` (exclusive) of the run."""

    job: int
    first: float
    last: float
    factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected(Forecaster):
    """`inner` sees the counts divided by the factors of the events, and its sample paths are multiplied by them.

    If an event is larger or smaller than expected, `inner` sees that its own level has changed.
    """

    inner: Forecaster
    events: tuple[Event, ...]

    def start(self, minute_of_day: int = 0) -> Self:
        inner = self.inner.start(minute_of_day)
        return replace(self, inner=inner, minute_of_day=inner.minute_of_day, minutes_seen=0)

    def update(self, counts) -> Self:
        inner = self.inner.update(self.checked(counts) / self._factors(1)[:, 0])
        return replace(self, inner=inner, minute_of_day=inner.minute_of_day, minutes_seen=inner.minutes_seen)

    def forget(self, jobs: np.ndarray) -> Self:
        return replace(self, inner=self.inner.forget(jobs))

    def renewed(self, other: Forecaster) -> Forecaster:
        return replace(self, inner=self.inner.renewed(other))

    def sample(self, horizon: int = HORIZON_MINUTES, n: int = 100) -> np.ndarray:
        return self.inner.sample(horizon, n) * self._factors(horizon)[:, None]

    def _factors(self, horizon: int) -> np.ndarray:
        """Factors (jobs, horizon) of the coming minutes; a minute that an event covers in part has a part of its effect."""
        factors, minute = np.ones((len(self.jobs), horizon)), self.minutes_seen + np.arange(horizon)
        for event in self.events:
            share = np.clip(np.minimum(event.last, minute + 1) - np.maximum(event.first, minute), 0, 1)
            factors[event.job] *= 1 + (event.factor - 1) * share
        return factors


def expected(inner: Forecaster, events: tuple[Event, ...]) -> Forecaster:
    """`inner` with these events."""
    if not events:
        return inner
    kept = {name: getattr(inner, name) for name in ("jobs", "seed", "day_minutes", "minute_of_day")}
    return Expected(inner=inner, events=events, **kept)
