"""The nouns: a job and its promise, a day of requests, and the days that came before it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cache

import numpy as np

MINUTE_S = 60.0
TOLERANCE = 1e-9  # for comparisons of sums of cores, rates and times that rounding may have touched
SYNTHETIC, PUBLISHED = "synthetic", "faro-10jobs"  # the workloads that have a name


@dataclass(frozen=True, slots=True)
class Job:
    """One inference service and the promise it must keep: the `quantile` of its latency stays below `slo_s`.

    Defaults are the paper's ResNet34: a planner's service time of 0.180 s and an SLO of four times that at p99
    (EuroSys'25, section 6.1).

    Attributes
    ----------
    name : unique within a workload.
    slo_s, quantile : the promise; 0 < percentile < 1.
    service_time_s, service_scv : mean and squared coefficient of variation of one request's service on a free replica,
        as the planner believes them.
    cold_start_s : seconds from asking for a replica until it serves.
    cores : cores a replica, a multiple of 0.1.
    weight : priority, multiplies the job's utility; >= 0.
    min_replicas, max_replicas : bounds on the replicas, inclusive; at least 1 and at most 100 by default.
    tenant : the owner, for quotas; "" is nobody's.
    model : name of what the replicas run; `simulate` looks up its true service time by it.
    """

    name: str
    slo_s: float = 0.720
    quantile: float = 0.99
    service_time_s: float = 0.180
    service_scv: float = 0.0
    cold_start_s: float = 35.0
    cores: float = 1.0
    weight: float = 1.0
    min_replicas: int = 1
    max_replicas: int = 100
    tenant: str = ""
    model: str = "resnet34"

    def __post_init__(self):
        def check(field, accepted, holds):
            if not holds:
                raise ValueError(f"job {self.name!r}: {field}={getattr(self, field)!r} must be {accepted}")

        check("name", "a non-empty string", isinstance(self.name, str) and self.name != "")
        for field in ("slo_s", "service_time_s", "cores"):
            check(field, "a finite number > 0", np.isfinite(getattr(self, field)) and getattr(self, field) > 0)
        for field in ("service_scv", "cold_start_s", "weight"):
            check(field, "a finite number >= 0", np.isfinite(getattr(self, field)) and getattr(self, field) >= 0)
        check("quantile", "strictly between 0 and 1", 0 < self.quantile < 1)
        check("cores", "a multiple of 0.1", abs(self.cores * 10 - round(self.cores * 10)) < 1e-9)
        check("min_replicas", "a whole number >= 0", int(self.min_replicas) == self.min_replicas >= 0)
        check(
            "max_replicas",
            f"a whole number >= min_replicas={self.min_replicas}",
            self.max_replicas >= self.min_replicas,
        )


def jobs_array(jobs, field: str) -> np.ndarray:
    """One field of every job as an array of shape (jobs,).

    >>> jobs_array([Job("a"), Job("b", slo_s=1.0)], "slo_s").tolist()
    [0.72, 1.0]
    """
    return np.array([getattr(job, field) for job in jobs])


@dataclass(frozen=True, slots=True)
class JobArrays:
    """The numeric fields of the jobs as read-only arrays (jobs,); the fields are those of `Job`."""

    slo_s: np.ndarray
    quantile: np.ndarray
    service_time_s: np.ndarray
    service_scv: np.ndarray
    cold_start_s: np.ndarray
    cores: np.ndarray
    weight: np.ndarray
    min_replicas: np.ndarray
    max_replicas: np.ndarray


@cache
def arrays_of(jobs: tuple[Job, ...]) -> JobArrays:
    """The arrays of these jobs, built once for each tuple of jobs.

    >>> arrays_of((Job("a"), Job("b", slo_s=1.0))).slo_s.tolist()
    [0.72, 1.0]
    """
    columns = [np.array([getattr(job, field.name) for job in jobs]) for field in fields(JobArrays)]
    for column in columns:
        column.setflags(write=False)
    return JobArrays(*columns)


@dataclass(frozen=True, slots=True)
class Workload:
    """Jobs and what is asked of them: `requests_per_min`, whole numbers of shape (jobs, minutes)."""

    jobs: tuple[Job, ...]
    requests_per_min: np.ndarray

    def __post_init__(self):
        counts = np.asarray(self.requests_per_min)
        if counts.ndim != 2 or counts.shape[0] != len(self.jobs):
            raise ValueError(f"requests_per_min has shape {counts.shape}; expected ({len(self.jobs)} jobs, minutes)")
        _check_names(self.jobs)
        object.__setattr__(self, "requests_per_min", _whole(counts, "requests_per_min"))

    @property
    def minutes(self) -> int:
        return self.requests_per_min.shape[1]

    def between(self, first: int, last: int) -> Workload:
        """Minutes first (inclusive) to last (exclusive)."""
        return replace(self, requests_per_min=self.requests_per_min[:, first:last])


@dataclass(frozen=True, slots=True)
class Traces:
    """The days to learn from and the day to be judged on.

    Attributes
    ----------
    train : whole numbers, shape (days, samples, jobs, minutes); the samples are phase shifts of the same day.
    evaluation : whole numbers, shape (samples, jobs, minutes).
    """

    jobs: tuple[Job, ...]
    train: np.ndarray
    evaluation: np.ndarray

    def __post_init__(self):
        _check_names(self.jobs)
        for field, ndim in (("train", 4), ("evaluation", 3)):
            counts = np.asarray(getattr(self, field))
            if counts.ndim != ndim or counts.shape[-2] != len(self.jobs):
                raise ValueError(
                    f"{field} has shape {counts.shape}; its last two axes must be ({len(self.jobs)} jobs, minutes)"
                )
            object.__setattr__(self, field, _whole(counts, field))

    @property
    def days(self) -> int:
        return self.train.shape[0]

    def workload(self, day: int | None = None, sample: int = 0) -> Workload:
        """One day as a Workload: the evaluation day, or training day `day` (counted from 1)."""
        if day is None:
            return Workload(self.jobs, self.evaluation[sample])
        if not 1 <= day <= self.days:
            raise ValueError(f"day={day} is not a training day; there are days 1 to {self.days}")
        return Workload(self.jobs, self.train[day - 1, sample])

    def until(self, day: int) -> Traces:
        """What an honest choice of options may see: days 1..day - 1 to train on, training day `day` to be judged on."""
        if not 2 <= day <= self.days:
            raise ValueError(f"day={day} must lie in 2..{self.days}: it is judged on days before it")
        return Traces(self.jobs, self.train[: day - 1], self.train[day - 1])


def _check_names(jobs) -> None:
    names = [job.name for job in jobs]
    if not names:
        raise ValueError("jobs is empty; at least one job is needed")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"job {twice!r} occurs more than once; names are unique")


def _whole(counts: np.ndarray, field: str) -> np.ndarray:
    counts = np.asarray(counts)
    bad = ~np.isfinite(counts) | (counts < 0) | (counts != np.floor(counts))
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"{field}{list(where)}={counts[where]} is not a count; counts are whole numbers >= 0")
    counts = counts.astype(np.int64)
    counts.setflags(write=False)
    return counts
