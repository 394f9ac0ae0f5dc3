"""Jobs with their SLOs (`Job`), one day of requests (`Workload`), and all days (`Traces`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache

import numpy as np

from faro_lib.workload.replicas import SERIAL, Replica

MINUTE_S = 60.0
DAY_MINUTES = 1440
TABLES = (".csv", ".csv.gz", ".parquet")  # endings of files with requests per minute
TOLERANCE = 1e-9  # rounding error allowed in comparisons of cores, rates and times
SYNTHETIC, PUBLISHED = "synthetic", "faro-10jobs"  # names of the built-in workloads


@dataclass(frozen=True, slots=True)
class Job:
    """One inference service and its SLO: the `quantile` of its latency is at most `slo_s`.

    The defaults are the paper's ResNet34, with an SLO of four service times (EuroSys'25, section
    6.1).
    """

    name: str  # unique within a workload
    slo_s: float = 0.720
    quantile: float = 0.99  # strictly between 0 and 1
    service_time_s: float = (
        0.180  # mean assumed by policies; simulations use the times measured for `model`, if any
    )
    service_scv: float = 0.0  # squared coefficient of variation of the service time
    cold_start_s: float = 35.0  # seconds from the request for a replica until it serves
    cores: float = 1.0  # cores per replica, a multiple of 0.1
    weight: float = 1.0  # factor on the job's utility, >= 0
    min_replicas: int = 1  # smallest allowed replica count
    max_replicas: int = 100  # largest allowed replica count
    tenant: str = ""  # the owner; "" = none
    tenant_quota: float | None = (
        None  # cores that all jobs of the tenant may use together; None = no quota
    )
    model: str = (
        "resnet34"  # the model that replicas run; `service.MODELS` has measured service times
    )
    replica: Replica = SERIAL  # how a replica serves its requests
    latency_curve: str = (
        ""  # CSV of measured latencies (`queueing.curve`), which replace a simulated latency table
    )

    def __hash__(self) -> int:
        return hash(self.name)  # cheap, because jobs are cache keys; equality compares every field

    def __post_init__(self):
        def check(field, accepted, holds):
            if not holds:
                raise ValueError(
                    f"job {self.name!r}: {field}={getattr(self, field)!r} must be {accepted}"
                )

        check(
            "name",
            "1 to 100 printable ASCII characters",
            re.fullmatch("[ -~]{1,100}", str(self.name)),
        )
        check(
            "service_time_s", "at least 0.0001", not 0 < self.service_time_s < 1e-4
        )  # limits a replica to 10,000 rps
        for field in ("slo_s", "service_time_s", "cores"):
            check(
                field,
                "a finite number > 0",
                np.isfinite(getattr(self, field)) and getattr(self, field) > 0,
            )
        for field in ("service_scv", "cold_start_s", "weight"):
            check(
                field,
                "a finite number >= 0",
                np.isfinite(getattr(self, field)) and getattr(self, field) >= 0,
            )
        check("quantile", "strictly between 0 and 1", 0 < self.quantile < 1)
        check(
            "cores", "a multiple of 0.1", abs(self.cores * 10 - round(self.cores * 10)) < TOLERANCE
        )
        check(
            "min_replicas", "a whole number >= 0", int(self.min_replicas) == self.min_replicas >= 0
        )
        at_least = f"a whole number from min_replicas={self.min_replicas} to 1000000"
        most = self.max_replicas
        check(
            "max_replicas", at_least, self.min_replicas <= most <= 1_000_000 and int(most) == most
        )
        if self.tenant_quota is not None:
            valid = np.isfinite(self.tenant_quota) and self.tenant_quota >= 0
            check("tenant_quota", "a finite number of cores >= 0, or left out", valid)
            check("tenant", "named where the job has a tenant_quota", self.tenant != "")

    @property
    def busy_s(self) -> float:
        """Seconds per request of a fully loaded replica: `service_time_s` if serial, otherwise 1 / capacity_rps."""
        return (
            self.service_time_s
            if self.replica == SERIAL
            else 1 / self.replica.capacity_rps(self.service_time_s)
        )


@dataclass(frozen=True, slots=True)
class JobArrays:
    """Read-only arrays of the fields of several jobs, shape (jobs,), and of the quotas of their tenants."""

    slo_s: np.ndarray
    quantile: np.ndarray
    busy_s: np.ndarray  # `Job.busy_s`: rate x busy_s / replicas is the utilisation of any kind
    service_scv: np.ndarray
    cold_start_s: np.ndarray
    cores: np.ndarray
    weight: np.ndarray
    min_replicas: np.ndarray
    max_replicas: np.ndarray
    group: np.ndarray  # index into `quota`; jobs without a quota share one group
    quota: np.ndarray  # cores of each group, shape (groups,); infinite without a quota

    def replicas_within(self, cores: float) -> np.ndarray:
        """Number of replicas that each job could run if it had all `cores` to itself, int (jobs,).

        >>> arrays_of((Job("a", cores=0.1), Job("b", cores=2.0))).replicas_within(0.3).tolist()
        [3, 0]
        """
        return (cores / self.cores + TOLERANCE).astype(np.int64)


@lru_cache(maxsize=256)
def arrays_of(jobs: tuple[Job, ...]) -> JobArrays:
    """The fields of the jobs as arrays, cached. `quota` is sorted by tenant; the group without a quota is first.

    >>> arrays_of((Job("a"), Job("b", slo_s=1.0))).slo_s.tolist()
    [0.72, 1.0]
    >>> arrays_of((Job("a", tenant="x", tenant_quota=4.0), Job("b"))).quota.tolist()
    [inf, 4.0]
    """
    quotas = _quotas(jobs)
    tenants = sorted({job.tenant if job.tenant in quotas else "" for job in jobs})
    columns = {}
    for name in (field.name for field in fields(JobArrays)[:-2]):
        kind = int if "replicas" in name else float
        columns[name] = np.array([getattr(job, name) for job in jobs], kind)
    columns["group"] = np.array(
        [tenants.index(job.tenant if job.tenant in quotas else "") for job in jobs]
    )
    columns["quota"] = np.array([quotas.get(tenant, np.inf) for tenant in tenants])
    return JobArrays(**{name: frozen(column) for name, column in columns.items()})


@dataclass(frozen=True, slots=True)
class Workload:
    """Jobs and their requests per minute, whole numbers of shape (jobs, minutes)."""

    jobs: tuple[Job, ...]
    requests_per_min: np.ndarray

    def __post_init__(self):
        counts = np.asarray(self.requests_per_min)
        if counts.ndim != 2 or counts.shape[0] != len(self.jobs):
            raise ValueError(
                f"requests_per_min has shape {counts.shape}; expected ({len(self.jobs)} jobs, minutes)"
            )
        check_jobs(self.jobs)
        object.__setattr__(self, "requests_per_min", _whole_numbers(counts, "requests_per_min"))

    @property
    def minutes(self) -> int:
        return self.requests_per_min.shape[1]

    def between(self, first: int, last: int) -> Workload:
        """The workload from minute `first` to `last` (exclusive)."""
        return replace(self, requests_per_min=self.requests_per_min[:, first:last])


@dataclass(frozen=True, slots=True)
class Traces:
    """Jobs and their requests per minute on the training days and on the evaluation day."""

    jobs: tuple[Job, ...]
    train: np.ndarray  # (days, samples, jobs, minutes); a day's samples average blocks that start at different minutes
    evaluation: np.ndarray  # requests per minute, (samples, jobs, minutes)

    def __post_init__(self):
        check_jobs(self.jobs)
        for field, ndim in (("train", 4), ("evaluation", 3)):
            counts = np.asarray(getattr(self, field))
            if counts.ndim != ndim or counts.shape[-2] != len(self.jobs):
                expected = f"its last two axes must be ({len(self.jobs)} jobs, minutes)"
                raise ValueError(f"{field} has shape {counts.shape}; {expected}")
            object.__setattr__(self, field, _whole_numbers(counts, field))

    @property
    def days(self) -> int:
        return self.train.shape[0]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(job.name for job in self.jobs)

    def workload(self, day: int | None = None, sample: int = 0) -> Workload:
        """The evaluation day, or training day `day` (counted from 1), as a Workload."""
        if day is None:
            return Workload(self.jobs, self.evaluation[sample])
        if not 1 <= day <= self.days:
            raise ValueError(f"day={day} is not a training day; there are days 1 to {self.days}")
        return Workload(self.jobs, self.train[day - 1, sample])

    def until(self, day: int) -> Traces:
        """The traces in which training day `day` is the evaluation day and only the days before it are for training."""
        if not 2 <= day <= self.days:
            raise ValueError(
                f"day={day} must lie in 2..{self.days}: the days before it are for training"
            )
        return Traces(self.jobs, self.train[: day - 1], self.train[day - 1])

    def first_jobs(self, jobs: int) -> Traces:
        """The traces of the first `jobs` jobs."""
        return Traces(self.jobs[:jobs], self.train[:, :, :jobs], self.evaluation[:, :jobs])


def check_jobs(jobs: Sequence[Job]) -> None:
    """Raise ValueError if there are no jobs, if a name occurs twice, or if a tenant has two quotas."""
    names = [job.name for job in jobs]
    if not names:
        raise ValueError("jobs is empty; at least one job is needed")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"job {twice!r} occurs more than once; names are unique")
    _quotas(jobs)


def _quotas(jobs: Sequence[Job]) -> dict[str, float]:
    """Tenant -> quota in cores, for tenants with a quota; ValueError if jobs of a tenant give different quotas."""
    quotas: dict[str, float | None] = {}
    for job in jobs:
        if job.tenant and quotas.setdefault(job.tenant, job.tenant_quota) != job.tenant_quota:
            raise ValueError(
                f"job {job.name!r}: tenant_quota={job.tenant_quota} differs from {quotas[job.tenant]}, which another "
                f"job of tenant {job.tenant!r} has; all jobs of a tenant must agree"
            )
    return {tenant: quota for tenant, quota in quotas.items() if quota is not None}


def _whole_numbers(counts: np.ndarray, field: str) -> np.ndarray:
    """The counts as a read-only array of int64; a ValueError names the first that is not a whole number >= 0."""
    bad = ~np.isfinite(counts) | (counts < 0) | (counts != np.floor(counts))
    for where in np.argwhere(bad)[:1].tolist():
        raise ValueError(
            f"{field}{where}={counts[tuple(where)]} is not a count; counts are whole numbers >= 0"
        )
    return frozen(counts.astype(np.int64))


def frozen(array: np.ndarray) -> np.ndarray:
    """The array itself, made read-only."""
    array.setflags(write=False)
    return array
