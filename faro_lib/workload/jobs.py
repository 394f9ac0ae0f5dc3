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

    The defaults are the paper's ResNet34, with an SLO of four service times (EuroSys'25, sec. 6.1).
    """

    name: str  # unique within a workload
    slo_s: float = 0.720
    quantile: float = 0.99  # strictly between 0 and 1
    # The mean assumed by policies; simulations use the times measured for `model`, if any.
    service_time_s: float = 0.180
    service_scv: float = 0.0  # squared coefficient of variation of the service time
    cold_start_s: float = 35.0  # seconds from the request for a replica until it serves
    cores: float = 1.0  # cores per replica, a multiple of 0.1
    weight: float = 1.0  # factor on the job's utility, >= 0
    min_replicas: int = 1  # smallest allowed replica count
    max_replicas: int = 100  # largest allowed replica count
    tenant: str = ""  # the owner; "" = none
    # Cores that all jobs of the tenant may use together; None = no quota.
    tenant_quota: float | None = None
    # The model that replicas run; `service.MODELS` has measured service times.
    model: str = "resnet34"
    replica: Replica = SERIAL  # how a replica serves its requests
    # CSV of measured latencies (`queueing.curve`), which replace a simulated latency table.
    latency_curve: str = ""
    # Jobs with the same pool share replicas (`workload.pools`); "" = replicas of its own.
    pool: str = ""
    models_per_replica: int | None = None  # models that a replica of the pool may hold
    memory_gib: float | None = None  # memory of the model
    replica_memory_gib: float | None = None  # memory of a replica of the pool for its models
    load_s: float = 5.0  # seconds in which a replica of the pool loads the model
    # Relative standard error of the assumed service time, for policies that learn; None = unknown.
    service_time_error: float | None = None
    # Index of dispersion of the counts in windows of this length within the next longer ones (of
    # 10 s within the minute); 1 = random times (`workload.bursts`).
    dispersion_10s: float = 1.0
    dispersion_1s: float = 1.0
    dispersion_100ms: float = 1.0

    def __hash__(self) -> int:
        return hash(self.name)  # cheap, because jobs are cache keys; equality compares every field

    def __post_init__(self):
        def check(field, holds, accepted):
            if not holds:
                value = getattr(self, field)
                raise ValueError(f"job {self.name!r}: {field}={value!r} must be {accepted}")

        printable = re.fullmatch("[ -~]{1,100}", str(self.name))
        check("name", printable, "1 to 100 printable ASCII characters")
        # Limits a replica to 10,000 requests/s.
        check("service_time_s", not 0 < self.service_time_s < 1e-4, "at least 0.0001")
        for field in ("slo_s", "service_time_s", "cores"):
            value = getattr(self, field)
            check(field, np.isfinite(value) and value > 0, "a finite number > 0")
        for field in ("service_scv", "cold_start_s", "weight", "load_s"):
            value = getattr(self, field)
            check(field, np.isfinite(value) and value >= 0, "a finite number >= 0")
        check("quantile", 0 < self.quantile < 1, "strictly between 0 and 1")
        tenths = self.cores * 10
        check("cores", abs(tenths - round(tenths)) < TOLERANCE, "a multiple of 0.1")
        least, most = self.min_replicas, self.max_replicas
        check("min_replicas", int(least) == least >= 0, "a whole number >= 0")
        fits = least <= most <= 1_000_000 and int(most) == most
        check("max_replicas", fits, f"a whole number from min_replicas={least} to 1000000")
        for field in ("memory_gib", "replica_memory_gib", "service_time_error"):
            value = getattr(self, field)
            holds = value is None or (np.isfinite(value) and value > 0)
            check(field, holds, "a finite number > 0, or left out")
        for field in ("dispersion_10s", "dispersion_1s", "dispersion_100ms"):
            value = getattr(self, field)
            check(field, np.isfinite(value) and value >= 1, "a finite number >= 1")
        models = self.models_per_replica
        whole = models is None or 1 <= models == int(models)
        check("models_per_replica", whole, "a whole number >= 1, or left out")
        quota = self.tenant_quota
        if quota is not None:
            valid = np.isfinite(quota) and quota >= 0
            check("tenant_quota", valid, "a finite number of cores >= 0, or left out")
            check("tenant", self.tenant != "", "named where the job has a tenant_quota")

    @property
    def busy_s(self) -> float:
        """Seconds per request of a fully loaded replica.

        This is `service_time_s` for a serial replica, and 1 / capacity_rps for other kinds.
        """
        if self.replica == SERIAL:
            return self.service_time_s
        return 1 / self.replica.capacity_rps(self.service_time_s)

    @property
    def dispersion(self) -> tuple[float, float, float]:
        """The indices of dispersion as in `bursts.burst_arrivals`."""
        return self.dispersion_10s, self.dispersion_1s, self.dispersion_100ms

    def with_dispersion(self, index: Sequence[float]) -> Job:
        """The job with other indices of dispersion, as `dispersion` has them."""
        in_10s, in_1s, in_100ms = map(float, index)
        return replace(self, dispersion_10s=in_10s, dispersion_1s=in_1s, dispersion_100ms=in_100ms)

    @property
    def bursty(self) -> bool:
        """Whether requests arrive in bursts instead of at random times of their minute."""
        return max(self.dispersion) > 1


@dataclass(frozen=True, slots=True)
class JobArrays:
    """Read-only arrays of several jobs' fields, shape (jobs,), and of their tenants' quotas."""

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

    def __getattr__(self, name: str):
        columns = ", ".join(field.name for field in fields(self))
        raise AttributeError(f"jobs have no column {name!r}; columns: {columns}")

    def replicas_within(self, cores: float) -> np.ndarray:
        """Number of replicas that each job could run if it had all `cores` to itself, int (jobs,).

        >>> arrays_of((Job("a", cores=0.1), Job("b", cores=2.0))).replicas_within(0.3).tolist()
        [3, 0]
        """
        return (cores / self.cores + TOLERANCE).astype(np.int64)


@lru_cache(maxsize=8192)  # one entry for each pool, too
def arrays_of(jobs: tuple[Job, ...]) -> JobArrays:
    """The fields of the jobs as arrays, cached.

    `quota` is sorted by tenant; the group without a quota is first.

    >>> arrays_of((Job("a"), Job("b", slo_s=1.0))).slo_s.tolist()
    [0.72, 1.0]
    >>> arrays_of((Job("a", tenant="x", tenant_quota=4.0), Job("b"))).quota.tolist()
    [inf, 4.0]
    """
    quotas = _quotas(jobs)
    columns = {}
    for field in fields(JobArrays)[:-2]:  # all but group and quota
        kind = int if "replicas" in field.name else float
        columns[field.name] = np.array([getattr(job, field.name) for job in jobs], kind)
    group_of_job = [job.tenant if job.tenant in quotas else "" for job in jobs]
    groups = sorted(set(group_of_job))
    columns["group"] = np.array([groups.index(group) for group in group_of_job])
    columns["quota"] = np.array([quotas.get(group, np.inf) for group in groups])
    return JobArrays(**{name: frozen(column) for name, column in columns.items()})


@dataclass(frozen=True, slots=True)
class Workload:
    """Jobs and their requests per minute, whole numbers of shape (jobs, minutes)."""

    jobs: tuple[Job, ...]
    requests_per_min: np.ndarray
    # Exact arrival times in s, ascending, an array for each job; () = unknown, so they are drawn.
    arrival_s: tuple[np.ndarray, ...] = ()

    def __post_init__(self):
        counts = np.asarray(self.requests_per_min)
        if counts.ndim != 2 or counts.shape[0] != len(self.jobs):
            expected = f"expected ({len(self.jobs)} jobs, minutes)"
            raise ValueError(f"requests_per_min has shape {counts.shape}; {expected}")
        check_jobs(self.jobs)
        object.__setattr__(self, "requests_per_min", _whole_numbers(counts, "requests_per_min"))
        _check_times(self.arrival_s, counts)

    @property
    def minutes(self) -> int:
        return self.requests_per_min.shape[1]

    def between(self, first: int, last: int) -> Workload:
        """The workload from minute `first` to `last` (exclusive)."""
        counts = self.requests_per_min[:, first:last]
        times = tuple(
            of_job[(of_job >= first * MINUTE_S) & (of_job < last * MINUTE_S)] - first * MINUTE_S
            for of_job in self.arrival_s
        )
        return replace(self, requests_per_min=counts, arrival_s=times)


@dataclass(frozen=True, slots=True)
class Traces:
    """Jobs and their requests per minute on the training days and on the evaluation day."""

    jobs: tuple[Job, ...]
    # Shape (days, samples, jobs, minutes). A day's samples average blocks of minutes that start at
    # different minutes.
    train: np.ndarray
    evaluation: np.ndarray  # requests per minute, (samples, jobs, minutes)
    arrival_s: tuple[np.ndarray, ...] = ()  # of its first sample, as in `Workload`

    def __post_init__(self):
        check_jobs(self.jobs)
        for field, ndim in (("train", 4), ("evaluation", 3)):
            counts = np.asarray(getattr(self, field))
            if counts.ndim != ndim or counts.shape[-2] != len(self.jobs):
                expected = f"its last two axes must be ({len(self.jobs)} jobs, minutes)"
                raise ValueError(f"{field} has shape {counts.shape}; {expected}")
            object.__setattr__(self, field, _whole_numbers(counts, field))
        _check_times(self.arrival_s, self.evaluation[0])

    @property
    def days(self) -> int:
        return self.train.shape[0]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(job.name for job in self.jobs)

    def workload(self, day: int | None = None, sample: int = 0) -> Workload:
        """The evaluation day, or training day `day` (counted from 1), as a Workload."""
        if day is None:
            return Workload(self.jobs, self.evaluation[sample], () if sample else self.arrival_s)
        if not 1 <= day <= self.days:
            raise ValueError(f"day={day} is not a training day; there are days 1 to {self.days}")
        return Workload(self.jobs, self.train[day - 1, sample])

    def until(self, day: int) -> Traces:
        """The traces whose evaluation day is training day `day`, with only the days before it."""
        if not 2 <= day <= self.days:
            raise ValueError(
                f"day={day} must lie in 2..{self.days}: the days before it are for training"
            )
        return Traces(self.jobs, self.train[: day - 1], self.train[day - 1])

    def first_jobs(self, jobs: int) -> Traces:
        """The traces of the first `jobs` jobs."""
        counts = self.train[:, :, :jobs], self.evaluation[:, :jobs]
        return Traces(self.jobs[:jobs], *counts, self.arrival_s[:jobs])


def check_jobs(jobs: Sequence[Job]) -> None:
    """Raise ValueError if there is no job, a name occurs twice, or a tenant has two quotas."""
    names = [job.name for job in jobs]
    if not names:
        raise ValueError("jobs is empty; at least one job is needed")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"job {twice!r} occurs more than once; names are unique")
    _quotas(jobs)


def _quotas(jobs: Sequence[Job]) -> dict[str, float]:
    """Tenant -> quota in cores, of tenants with a quota; ValueError if a tenant's jobs disagree."""
    quotas: dict[str, float | None] = {}
    for job in jobs:
        if job.tenant and quotas.setdefault(job.tenant, job.tenant_quota) != job.tenant_quota:
            raise ValueError(
                f"job {job.name!r}: tenant_quota={job.tenant_quota} differs from "
                f"{quotas[job.tenant]}, which another job of tenant {job.tenant!r} has; "
                "all jobs of a tenant must agree"
            )
    return {tenant: quota for tenant, quota in quotas.items() if quota is not None}


def _check_times(arrival_s: Sequence[np.ndarray], counts: np.ndarray) -> None:
    """Raise ValueError if there are times, and their counts per minute are not `counts`."""
    if not arrival_s:
        return
    minutes = counts.shape[1]
    found = [
        np.bincount((of_job // MINUTE_S).astype(int), minlength=minutes) for of_job in arrival_s
    ]
    if [one.tolist() for one in found] != counts.tolist():
        raise ValueError("arrival_s has other requests per minute than the counts")


def _whole_numbers(counts: np.ndarray, field: str) -> np.ndarray:
    """The counts as read-only int64; ValueError for the first that is not a whole number >= 0."""
    bad = ~np.isfinite(counts) | (counts < 0) | (counts != np.floor(counts))
    if bad.any():
        where = np.argwhere(bad)[0].tolist()
        raise ValueError(
            f"{field}{where}={counts[tuple(where)]} is not a count; counts are whole numbers >= 0"
        )
    return frozen(counts.astype(np.int64))


def frozen(array: np.ndarray) -> np.ndarray:
    """The array itself, made read-only."""
    array.setflags(write=False)
    return array
