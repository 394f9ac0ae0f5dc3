"""What a forecaster is: an immutable value that takes one minute of counts and draws sample paths of the next ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from faro_lib.registry import Registry, load_plugins
from faro_lib.workload import Traces

CONTEXT_MINUTES = 15  # minutes of history that a forecast looks at (EuroSys'25, section 4.1)
HORIZON_MINUTES = 7  # minutes that a forecast covers
_NOTHING = np.empty((0, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecaster(ABC):
    """The state of a forecast between two minutes; `update` returns a new one, `sample` looks ahead.

    A kind of forecaster is a subclass with the learnt parameters as further fields and one method, `sample`.
    A function that learns them from `Traces` is entered with `register`; see `persistence` for the shortest example.

    Attributes
    ----------
    jobs : names, in the order of every array's first axis.
    seed : of the sample paths; the same seed and the same minutes seen give the same samples.
    day_minutes : length of a day; the day shape repeats after it.
    minute_of_day : of the minute to come.
    seen : minutes updated since the start.
    counts : requests per minute of the last 2 x CONTEXT_MINUTES minutes, shape (jobs, minutes), NaN where missing.
    """

    jobs: tuple[str, ...]
    seed: int = 0
    day_minutes: int = 360
    minute_of_day: int = 0
    seen: int = 0
    counts: np.ndarray = field(default_factory=lambda: _NOTHING)

    def __post_init__(self):
        if self.counts.size == 0:
            object.__setattr__(self, "counts", _frozen(np.full((len(self.jobs), 2 * CONTEXT_MINUTES), np.nan)))

    def start(self, minute_of_day: int = 0) -> Self:
        """Forget the history: a new day begins at `minute_of_day`."""
        return replace(self, minute_of_day=int(minute_of_day) % self.day_minutes, seen=0, counts=_NOTHING)

    def update(self, counts) -> Self:
        """The forecaster one minute later; `counts` (jobs,): requests of the minute that just ended, NaN = missing."""
        counts = self.checked(counts)
        return replace(
            self,
            counts=_frozen(np.concatenate([self.counts[:, 1:], counts[:, None]], axis=1)),
            minute_of_day=(self.minute_of_day + 1) % self.day_minutes,
            seen=self.seen + 1,
        )

    @abstractmethod
    def sample(self, horizon: int = HORIZON_MINUTES, n: int = 100) -> np.ndarray:
        """Sample paths of the requests per minute of the next `horizon` minutes, shape (jobs, n, horizon), >= 0."""

    def mean(self, horizon: int = HORIZON_MINUTES) -> np.ndarray:
        """Expected requests per minute, shape (jobs, horizon); by default the mean of 1,000 sample paths."""
        return self.sample(horizon, 1000).mean(axis=1)

    def checked(self, counts) -> np.ndarray:
        """`counts` as floats of shape (jobs,), or an error that names the job."""
        counts = np.asarray(counts, dtype=float)
        if counts.shape != (len(self.jobs),):
            raise ValueError(f"counts has shape {counts.shape}; expected ({len(self.jobs)},), one count for each job")
        bad = np.flatnonzero((counts < 0) | np.isinf(counts))
        if len(bad):
            job = self.jobs[bad[0]]
            raise ValueError(
                f"counts={counts[bad[0]]:g} of job {job!r} must be a finite number >= 0, or NaN if missing"
            )
        return counts

    def rng(self) -> np.random.Generator:
        """The random numbers of this minute: a function of the seed and of the minutes seen."""
        return np.random.default_rng([self.seed, self.seen])

    def minutes_ahead(self, first: int, last: int) -> np.ndarray:
        """Minutes of the day from `first` to `last` (exclusive), counted from the minute to come; negative = past."""
        return np.arange(self.minute_of_day + first, self.minute_of_day + last) % self.day_minutes


_FITS: Registry[Callable[..., Forecaster]] = Registry("forecaster")


def register(name: str):
    """Decorator that enters a function `fit(traces, seed=0, **options) -> Forecaster` under `name`.

    >>> @register("always-seven")
    ... def fit_seven(traces, seed=0):
    ...     ...
    >>> "always-seven" in forecasters()
    True
    >>> _ = _FITS.pop("always-seven")
    """

    def enter(function: Callable[..., Forecaster]) -> Callable[..., Forecaster]:
        return _FITS.enter(name, function)

    return enter


def forecasters() -> list[str]:
    """Names of the registered forecasters, those of plugins among them."""
    load_plugins()
    return sorted(_FITS)


def fit(name: str, traces: Traces, *, seed: int = 0, **options) -> Forecaster:
    """Learn the forecaster `name` from the training days of `traces`; it stands at the start of a day."""
    return _FITS.find(name)(traces, seed=seed, **options)


def training_counts(traces: Traces) -> np.ndarray:
    """The training days as floats, shape (days, samples, jobs, minutes); an error if there is too little to learn."""
    counts = np.asarray(traces.train, dtype=float)
    if counts.shape[0] < 1 or counts.shape[1] < 1 or counts.shape[-1] <= CONTEXT_MINUTES + HORIZON_MINUTES:
        raise ValueError(
            f"train has shape {counts.shape}; a forecaster needs at least one day of more than "
            f"{CONTEXT_MINUTES + HORIZON_MINUTES} minutes"
        )
    return counts


def job_names(traces: Traces) -> tuple[str, ...]:
    return tuple(job.name for job in traces.jobs)


def last_known(counts: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """The latest count of each job that is not missing, shape (jobs,); `otherwise` where there is none."""
    known = ~np.isnan(counts)
    latest = counts.shape[1] - 1 - np.argmax(known[:, ::-1], axis=1)
    return np.where(known.any(axis=1), counts[np.arange(len(counts)), latest], otherwise)


def check_horizon(horizon: int, n: int) -> None:
    for name, value in (("horizon", horizon), ("n", n)):
        if int(value) != value or value < 1:
            raise ValueError(f"{name}={value!r} must be a whole number >= 1")


def reindex(names: Sequence[str], learnt: Sequence[str], new_jobs: str) -> np.ndarray:
    """Index of `names` among `learnt`, -1 for new ones; an error unless `new_jobs="pooled"` lets them in."""
    place = {name: i for i, name in enumerate(learnt)}
    index = np.array([place.get(name, -1) for name in names], dtype=int)
    if new_jobs not in ("error", "pooled"):
        raise ValueError(f"new_jobs={new_jobs!r} must be 'error' or 'pooled'")
    if new_jobs == "error" and (index < 0).any():
        job = list(names)[int(np.argmin(index))]
        raise ValueError(
            f"job {job!r} is not among the jobs that were learnt; new_jobs='pooled' gives it the pooled prior"
        )
    return index


def _frozen(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array
