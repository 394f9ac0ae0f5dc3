"""A measured latency model: tail latencies and drop rates at constant arrival rates."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np

from faro_lib.queueing.formulas import require
from faro_lib.queueing.latency_models import (
    SAMPLED_RHO,
    Curve,
    Curves,
    LatencyModel,
    reusable,
    sampled,
    stacked,
    utility_of,
)
from faro_lib.workload.jobs import MINUTE_S, TOLERANCE, Job, arrays_of, frozen
from faro_lib.workload.replicas import SERIAL

ARRAYS = (
    "quantile",
    "max_rps",
    "rate_per_replica_rps",
    "saturation_rps",
    "replicas",
    "tail_s",
    "excess_drops",
)


def latency_class(job: Job) -> str:
    """Name of the job's class: replica type, model, service time, its scv, quantile, and bursts.

    >>> latency_class(Job("a"))
    'resnet34 of 0.18 s, p99'
    """
    scv = f" (scv {job.service_scv:g})" if job.service_scv else ""
    kind = "" if job.replica == SERIAL else f"{job.replica}, "
    bursts = f", dispersion {' '.join(f'{d:g}' for d in job.dispersion)}" if job.bursty else ""
    return f"{kind}{job.model} of {job.service_time_s:g} s{scv}, p{100 * job.quantile:g}{bursts}"


@dataclass(frozen=True, slots=True, eq=False)
class LatencyTable(LatencyModel):
    """Measured tail latency and drop rate by class of jobs, rate per replica and replica count.

    Each grid point holds several measured minutes, which are equally likely and sorted by tail
    latency. A minute's tail latency is the quantile over its requests. It is infinite if the drop
    rate exceeds 1 - quantile. Between grid points, the drop rates and log latencies of minutes with
    equal rank are interpolated linearly.

    Between replica counts, interpolation is at the same rate per replica. Beyond the largest
    measured count n, a count X at utilisation rho is looked up as n replicas at utilisation 1 - (1
    - rho) sqrt(X / n) (Halfin and Whitt, 1981). Below the lowest measured rate per replica, the
    lookup uses fewer replicas with the same total rate.
    """

    classes: tuple[str, ...]  # name of each class, as returned by `class_of`
    quantile: np.ndarray  # level of the latency quantile, such as 0.99, shape (classes,)
    # Largest rate that a job's router can forward, shape (classes,); infinite without a router.
    max_rps: np.ndarray
    rate_per_replica_rps: np.ndarray  # increasing from 0, shape (classes, rates)
    saturation_rps: np.ndarray  # rate per replica at utilisation 1, shape (classes,)
    replicas: np.ndarray  # increasing whole numbers, shape (counts,)
    # Tail latency of the served requests, shape (classes, rates, counts, minutes).
    tail_s: np.ndarray
    # Drop rate minus (1 - quantile), same shape as tail_s. Where it is > 0, the tail latency over
    # all requests is infinite.
    excess_drops: np.ndarray
    # Job name -> class, if different from `latency_class(job)`.
    own: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self):
        for name in ARRAYS:
            object.__setattr__(self, name, frozen(np.array(getattr(self, name), dtype=float)))
        object.__setattr__(self, "classes", tuple(str(name) for name in self.classes))
        n, rates = len(self.classes), self.rate_per_replica_rps.shape[-1]
        expected = {
            "rate_per_replica_rps": (n, rates),
            "tail_s": (n, rates, len(self.replicas), self.tail_s.shape[-1]),
            "excess_drops": self.tail_s.shape,
            "quantile": (n,),
            "max_rps": (n,),
            "saturation_rps": (n,),
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}; expected {shape}")
        for name in ("rate_per_replica_rps", "replicas"):
            axis = np.atleast_2d(getattr(self, name))
            if not (np.all(np.diff(axis, axis=1) > 0) and np.all(axis >= 0)):
                raise ValueError(f"{name} must be increasing and >= 0")
        if not np.all((self.tail_s > 0) & np.isfinite(self.tail_s)):
            raise ValueError("tail_s must be finite and > 0")
        if not np.all(np.abs(self.excess_drops) <= 1):
            raise ValueError("excess_drops must lie in [-1, 1] without NaN")

    def class_of(self, job: Job) -> str:
        """The job's class in this table; ValueError if it was not measured."""
        kind = self.own.get(job.name) or latency_class(job)
        if kind not in self.classes:
            raise ValueError(f"{kind!r} was not measured; there are: {'; '.join(self.classes)}")
        return kind

    def minutes(self, job: Job, rate_rps, replicas) -> tuple[np.ndarray, np.ndarray]:
        """Tail latencies in seconds and drop rates, for each of the table's minutes.

        The minutes are equally likely. Both arrays have the broadcast shape of `rate_rps` and
        `replicas`, plus a last axis for the minutes. The latency is infinite where the drop rate
        exceeds 1 - quantile. Without replicas, every request is dropped.
        """
        return self._minutes(self.classes.index(self.class_of(job)), rate_rps, replicas)

    def _minutes(self, k: int, rate_rps, replicas) -> tuple[np.ndarray, np.ndarray]:
        """`minutes` of jobs of class number `k`."""
        rate_rps, replicas = np.broadcast_arrays(
            np.asarray(rate_rps, float), np.asarray(replicas, float)
        )
        require("rate_rps", rate_rps, rate_rps >= 0, "be a number >= 0")
        grid, counts, full = self.rate_per_replica_rps[k], self.replicas, self.saturation_rps[k]
        if np.array_equal(self.tail_s[k, 0], self.tail_s[k, 1]):
            # Row 0 (rate 0) was not measured; it copies row 1. Below rate grid[1] per replica, look
            # up fewer replicas. The total rate stays the same, because a minute's quantile depends
            # on its number of requests.
            replicas = np.minimum(replicas, np.maximum(rate_rps / grid[1], counts[0]))
        per_replica = rate_rps / np.maximum(replicas, 1e-12)
        measured = np.clip(replicas, counts[0], counts[-1])
        wider = np.sqrt(replicas / measured)
        spare = 1 - per_replica / full
        per_replica = np.where(spare > 0, np.maximum(1 - spare * wider, 0.0) * full, per_replica)
        i, t = _position(per_replica, grid)
        j, u = _position(np.log(measured), np.log(counts))
        i1 = np.minimum(i + 1, len(grid) - 1)
        j1 = np.minimum(j + 1, len(counts) - 1)
        t, u = t[..., None], u[..., None]

        def between(values, of=np.positive):
            lower_rate = (1 - u) * of(values[i, j]) + u * of(values[i, j1])
            higher_rate = (1 - u) * of(values[i1, j]) + u * of(values[i1, j1])
            return (1 - t) * lower_rate + t * higher_rate

        tail_s = np.exp(between(self.tail_s[k], np.log))
        allowed = 1 - self.quantile[k]
        dropped = between(self.excess_drops[k]) + allowed
        # Requests beyond the largest measured rate, or beyond what the router can forward, are
        # dropped.
        excess = np.maximum(per_replica / grid[-1], rate_rps / self.max_rps[k])
        served = (1 - dropped) / np.maximum(excess, 1.0)[..., None]
        dropped = np.where(replicas[..., None] > 0, 1 - served, 1.0)
        return np.where(dropped > allowed + TOLERANCE, np.inf, tail_s), np.clip(dropped, 0.0, 1.0)

    def tail_latency_s(self, job: Job, rate_rps, replicas) -> np.ndarray:
        """Median over minutes of the tail latency, in seconds."""
        tail_s, _ = self.minutes(job, rate_rps, replicas)
        return tail_s[..., tail_s.shape[-1] // 2]

    def saturated_s(self, jobs: Sequence[Job]) -> np.ndarray:
        return 1 / self.saturation_rps[_class_numbers(self, tuple(jobs))]

    def minutes_s(self, jobs: Sequence[Job], rate_rps, replicas) -> np.ndarray:
        rate_rps, replicas = np.broadcast_arrays(rate_rps, replicas)
        tail_s = np.empty((*rate_rps.shape, self.tail_s.shape[-1]))
        numbers = _class_numbers(self, tuple(jobs))
        for k in np.unique(numbers):
            of_class = numbers == k
            tail_s[of_class], _ = self._minutes(k, rate_rps[of_class], replicas[of_class])
        return tail_s

    def expected_utility(
        self, job: Job, rate_rps, replicas, utility: str, alpha: float = 1.0
    ) -> np.ndarray:
        """Expected utility of a minute at a constant rate; 1 for a minute without requests."""
        k = self.classes.index(self.class_of(job))
        return self._expected_utility(k, job.slo_s, rate_rps, replicas, utility, alpha)

    def _expected_utility(self, k: int, slo_s: float, rate_rps, replicas, utility, alpha):
        tail_s, _ = self._minutes(k, rate_rps, replicas)
        of_minute = utility_of(tail_s, slo_s, utility, alpha)
        with_requests = np.minimum(1.0, np.asarray(rate_rps, float) * MINUTE_S)
        return 1 - with_requests * (1 - of_minute.mean(axis=-1))

    def curves(self, jobs: Sequence[Job], utility: str, alpha: float, columns: int) -> Curves:
        jobs, width = tuple(jobs), reusable(columns)
        arrays, numbers = arrays_of(jobs), _class_numbers(self, jobs)
        keys = list(zip(numbers.tolist(), arrays.slo_s.tolist(), arrays.busy_s.tolist()))
        return stacked(keys, lambda key: _curve(self, *key, utility, float(alpha), width))

    def save(self, path: str | Path) -> None:
        """Write the table as one .npz file."""
        arrays = {name: np.asarray(getattr(self, name)) for name in ARRAYS}
        text = {"classes": np.array(self.classes), "own": np.array(json.dumps(dict(self.own)))}
        np.savez_compressed(Path(path), **text, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file written by `save`."""
        with np.load(Path(path), allow_pickle=False) as file:
            arrays = {name: file[name] for name in ARRAYS}
            return cls(
                classes=tuple(file["classes"].tolist()), own=json.loads(str(file["own"])), **arrays
            )


@lru_cache(maxsize=16)
def _class_numbers(table: LatencyTable, jobs: tuple[Job, ...]) -> np.ndarray:
    """Number of each job's class, (jobs,)."""
    number = {kind: k for k, kind in enumerate(table.classes)}
    return frozen(np.array([number[table.class_of(job)] for job in jobs]))


@lru_cache(maxsize=512)  # bounded, because an entry for 128 replicas takes 0.5 MB
def _curve(
    table: LatencyTable,
    k: int,
    slo_s: float,
    busy_s: float,
    utility: str,
    alpha: float,
    columns: int,
) -> Curve:
    """The curve of jobs of class number `k` with this SLO and service time."""

    def expected(rate_rps, replicas):
        return table._expected_utility(k, slo_s, rate_rps, replicas, utility, alpha)

    # A measured replica may sustain more than 1 / busy_s requests/s.
    rho_max = max(SAMPLED_RHO, 1.2 * busy_s * float(table.saturation_rps[k]))
    return sampled(expected, busy_s, rho_max, columns, table.classes[k])


def _position(values, grid):
    """(index of the grid point at or below each value, share of the way to the next one)."""
    position = np.interp(values, grid, np.arange(len(grid)))
    i = np.asarray(position, int)
    return i, position - i
