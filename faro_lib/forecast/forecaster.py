"""The base class of forecasters, their registry, and the checks that they share."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from faro_lib.registry import Registry, load_plugins
from faro_lib.workload import Traces
from faro_lib.workload.jobs import frozen

CONTEXT_MINUTES = 15  # minutes of history that a forecast uses (EuroSys'25, section 4.1)
HORIZON_MINUTES = 7  # minutes that a forecast covers
PAST_MINUTES = 1440  # maximum number of training counts that `Forecaster.past` keeps for each job
_NO_COUNTS = np.empty((0, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecaster(ABC):
    """An immutable forecaster of requests per minute.

    A subclass adds its parameters as fields and implements `sample`. A function that fits the
    subclass to `Traces` is decorated with `register`; `naive.persistence` is the shortest example.
    """

    jobs: tuple[str, ...]  # names, in the order of the first axis of every array
    seed: int = 0  # the same seed and the same counts give the same samples
    day_minutes: int = 360  # minutes per day; the published traces are downsampled to 360
    minute_of_day: int = 0  # the coming minute's index within the day
    minutes_seen: int = 0  # updates and skipped minutes since the start
    # Requests per minute of the last 2 x CONTEXT_MINUTES, shape (jobs, minutes); NaN = missing.
    counts: np.ndarray = field(default_factory=lambda: _NO_COUNTS)
    # Each job's training counts in ascending order, at most PAST_MINUTES quantiles of them.
    # Shape (jobs, quantiles).
    past: np.ndarray = field(default_factory=lambda: _NO_COUNTS)

    def __post_init__(self):
        if self.counts.size == 0:
            missing = np.full((len(self.jobs), 2 * CONTEXT_MINUTES), np.nan)
            object.__setattr__(self, "counts", frozen(missing))

    def start(self, minute_of_day: int = 0) -> Self:
        """The forecaster without any counts; the coming minute is `minute_of_day`."""
        return replace(
            self,
            minute_of_day=int(minute_of_day) % self.day_minutes,
            minutes_seen=0,
            counts=_NO_COUNTS,
        )

    def update(self, counts) -> Self:
        """The forecaster one minute later, given that minute's requests (jobs,); NaN = missing."""
        counts = self.checked(counts)
        latest = np.concatenate([self.counts[:, 1:], counts[:, None]], axis=1)
        return replace(
            self,
            counts=frozen(latest),
            minute_of_day=(self.minute_of_day + 1) % self.day_minutes,
            minutes_seen=self.minutes_seen + 1,
        )

    def skip(self, minutes: int) -> Self:
        """The forecaster `minutes` later, without the counts that it has stored."""
        restarted = self.start(self.minute_of_day + minutes)
        return replace(restarted, minutes_seen=self.minutes_seen + minutes)

    def forget(self, jobs: np.ndarray) -> Self:
        """Discard the level estimates, if any, of `jobs` (a bool mask), whose load has shifted."""
        return self

    def known(self) -> np.ndarray:
        """Whether each job has had a count, on training days or since the start, bool (jobs,).

        The sample paths of another job are a guess from the counts of the other jobs.
        """
        return np.ones(len(self.jobs), bool)

    @abstractmethod
    def sample(self, horizon: int = HORIZON_MINUTES, n: int = 100) -> np.ndarray:
        """Sample paths of requests per minute (jobs, n, horizon), from the coming minute on."""

    def mean(self, horizon: int = HORIZON_MINUTES) -> np.ndarray:
        """Expected requests per minute, shape (jobs, horizon): the mean of 1,000 sample paths."""
        return self.sample(horizon, 1000).mean(axis=1)

    def checked(self, counts) -> np.ndarray:
        """`counts` as floats of shape (jobs,); ValueError if the shape or a count is invalid."""
        counts = np.asarray(counts, dtype=float)
        if counts.shape != (len(self.jobs),):
            expected = f"expected ({len(self.jobs)},), one count for each job"
            raise ValueError(f"counts has shape {counts.shape}; {expected}")
        wrong = (counts < 0) | np.isinf(counts)
        if wrong.any():
            job = int(wrong.argmax())
            count = f"counts={counts[job]:g} of job {self.jobs[job]!r}"
            raise ValueError(f"{count} must be a finite number >= 0, or NaN if missing")
        return counts

    def check_horizon(self, horizon: int, n: int) -> None:
        for name, value in (("horizon", horizon), ("n", n)):
            if int(value) != value or value < 1:
                raise ValueError(f"{name}={value!r} must be a whole number >= 1")

    def check_any_known(self, known: np.ndarray) -> None:
        if not known.any():
            raise ValueError("no complete minute has been counted yet")

    def last_known(self, otherwise: np.ndarray) -> np.ndarray:
        """The latest known count of each job, shape (jobs,); `otherwise` for a job without one."""
        known = ~np.isnan(self.counts)
        latest = self.counts.shape[1] - 1 - np.argmax(known[:, ::-1], axis=1)
        return np.where(known.any(axis=1), self.counts[np.arange(len(known)), latest], otherwise)

    def rng(self) -> np.random.Generator:
        """The random generator for the next forecast, seeded with `seed` and `minutes_seen`."""
        return np.random.default_rng([self.seed, self.minutes_seen])

    def minutes_ahead(self, first: int, last: int) -> np.ndarray:
        """Minutes of the day at offsets `first` to `last` (exclusive) from the coming minute."""
        return np.arange(self.minute_of_day + first, self.minute_of_day + last) % self.day_minutes


FITS: Registry[Callable[..., Forecaster]] = Registry("forecaster")


def register(name: str) -> Callable:
    """Decorator that registers `fit(traces, seed=0, **options) -> Forecaster` under `name`.

    >>> @register("always-seven")
    ... def fit_seven(traces, seed=0):
    ...     ...
    >>> "always-seven" in forecasters()
    True
    >>> _ = FITS.pop("always-seven")
    """
    return lambda function: FITS.enter(name, function)


def forecasters() -> list[str]:
    """Names of the registered forecasters, including forecasters from plugins."""
    load_plugins()
    return sorted(FITS)


def fit(name: str, traces: Traces, *, seed: int = 0, **options) -> Forecaster:
    """Fit the forecaster `name` to the training days of `traces`.

    Its forecasts begin at minute 0 of the next day.
    """
    by_job = np.asarray(traces.train, float).swapaxes(0, 2).reshape(len(traces.jobs), -1)
    ordered = np.sort(by_job, axis=1)
    minutes = ordered.shape[1]
    kept = np.linspace(0, minutes - 1, min(minutes, PAST_MINUTES)).round().astype(int)
    fitted = FITS.find(name)(traces, seed=seed, **options)
    return replace(fitted, past=frozen(ordered[:, kept]))


def training_counts(traces: Traces) -> np.ndarray:
    """Training counts, imputed before each job's first request.

    Raises ValueError if there are no training days, or if they are too short.
    """
    counts = np.asarray(traces.train, dtype=float)
    window = CONTEXT_MINUTES + HORIZON_MINUTES
    if counts.shape[0] < 1 or counts.shape[1] < 1 or counts.shape[-1] <= window:
        need = f"a forecaster needs at least one day of more than {window} minutes"
        raise ValueError(f"train has shape {counts.shape}; {need}")
    return imputed(counts)


def own_days(traces: Traces) -> list[tuple[np.ndarray, np.ndarray]]:
    """Group jobs by their first usable training day.

    Each group is (job numbers, their `training_counts` from that day on).

    Days until a job's first request have imputed counts, which vary less than observed counts.
    Later days are usable. The first request's day is usable if it is the first or last training
    day. A job without requests uses all days.
    """
    counts = training_counts(traces)
    first_request = (traces.train > 0).any(axis=(1, 3)).argmax(axis=0)  # day, shape (jobs,)
    first = np.where(first_request, np.minimum(first_request + 1, traces.days - 1), 0)
    groups = []
    for day in np.unique(first):
        jobs = np.flatnonzero(first == day)
        groups.append((jobs, np.ascontiguousarray(counts[day:, :, jobs])))
    return groups


def imputed(counts: np.ndarray) -> np.ndarray:
    """`counts` (days, samples, jobs, minutes) with Poisson draws before a job's first request.

    Before its first request, a job is taken to be unobserved, not idle. A draw's mean is the job's
    mean observed count at the same minute of the day. A minute that was never observed gets the
    job's mean over all observed minutes. The mean for a job without requests is
    (mean of sqrt(m))^2, where m are the mean counts of the jobs with requests.
    """
    days, samples, jobs, minutes = counts.shape
    in_order = counts.transpose(1, 2, 0, 3).reshape(samples, jobs, days * minutes)
    observed = np.logical_or.accumulate(in_order > 0, axis=-1)
    if observed.all() or not observed.any():
        return counts
    known = observed.reshape(samples, jobs, days, minutes).transpose(2, 0, 1, 3)
    total = np.where(known, counts, 0)
    number = known.astype(float)
    level = total.sum(axis=(0, 1, 3)) / np.maximum(number.sum(axis=(0, 1, 3)), 1)  # (jobs,)
    requested = observed.any(axis=(0, 2))
    level = np.where(requested, level, np.sqrt(level[requested]).mean() ** 2)
    of_minute = total.sum(axis=(0, 1)) / np.maximum(number.sum(axis=(0, 1)), 1)  # (jobs, minutes)
    mean = np.where(number.any(axis=(0, 1)), of_minute, level[:, None])
    drawn = np.random.default_rng(0).poisson(np.broadcast_to(mean, counts.shape))
    return np.where(known, counts, drawn)
