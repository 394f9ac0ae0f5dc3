"""A measured latency model: a table of tail latencies and drop rates at constant arrival rates, with interpolation."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np

from faro_lib.queueing.formulas import require
from faro_lib.workload.jobs import MINUTE_S, TOLERANCE, Job, frozen
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
    """Name of the job's class. Jobs of a class share replica type, model, service time, scv and latency quantile.

    >>> latency_class(Job("a"))
    'resnet34 of 0.18 s, p99'
    """
    scv = f" (scv {job.service_scv:g})" if job.service_scv else ""
    kind = "" if job.replica == SERIAL else f"{job.replica}, "
    return f"{kind}{job.model} of {job.service_time_s:g} s{scv}, p{100 * job.quantile:g}"


@dataclass(frozen=True, slots=True, eq=False)
class LatencyTable:
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
    max_rps: (
        np.ndarray
    )  # largest rate that a job's router can forward, shape (classes,); infinite without a router
    rate_per_replica_rps: np.ndarray  # increasing from 0, shape (classes, rates)
    saturation_rps: np.ndarray  # rate per replica at utilisation 1, shape (classes,)
    replicas: np.ndarray  # increasing whole numbers, shape (counts,)
    tail_s: (
        np.ndarray
    )  # tail latency of the served requests, shape (classes, rates, counts, minutes)
    # Drop rate minus (1 - quantile), same shape as tail_s. Where it is > 0, the tail latency over
    # all requests is infinite.
    excess_drops: np.ndarray
    own: Mapping[str, str] = field(
        default_factory=dict
    )  # job name -> class, if different from `latency_class(job)`

    def __post_init__(self):
        for name in ARRAYS:
            object.__setattr__(self, name, frozen(np.array(getattr(self, name), dtype=float)))
        object.__setattr__(self, "classes", tuple(str(name) for name in self.classes))
        n, rates, counts = (
            len(self.classes),
            self.rate_per_replica_rps.shape[-1],
            len(self.replicas),
        )
        expected = {
            "rate_per_replica_rps": (n, rates),
            "tail_s": (n, rates, counts, self.tail_s.shape[-1]),
        }
        expected |= {
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
        """The job's class in this table; a ValueError if it was not measured."""
        kind = self.own.get(job.name, latency_class(job))
        if kind not in self.classes:
            raise ValueError(f"{kind!r} was not measured; there are: {'; '.join(self.classes)}")
        return kind

    def saturation_of(self, job: Job) -> float:
        """The largest rate in requests/s that a replica of the job sustains."""
        return float(self.saturation_rps[self.classes.index(self.class_of(job))])

    def minutes(self, job: Job, rate_rps, replicas) -> tuple[np.ndarray, np.ndarray]:
        """Tail latencies in seconds and drop rates, interpolated for each of the table's equally likely minutes.

        Both arrays have the broadcast shape of `rate_rps` and `replicas`, plus a last axis for the
        minutes. The latency is infinite where the drop rate exceeds 1 - quantile. Without replicas,
        every request is dropped.
        """
        k = self.classes.index(self.class_of(job))
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
        wider = np.sqrt(replicas / np.clip(replicas, counts[0], counts[-1]))
        spare = 1 - per_replica / full
        per_replica = np.where(spare > 0, np.maximum(1 - spare * wider, 0.0) * full, per_replica)
        i, t = _position(per_replica, grid)
        j, u = _position(np.log(np.clip(replicas, counts[0], counts[-1])), np.log(counts))
        i1, j1 = np.minimum(i + 1, len(grid) - 1), np.minimum(j + 1, len(counts) - 1)
        t, u = t[..., None], u[..., None]

        def between(values, of=np.positive):
            below = (1 - u) * of(values[i, j]) + u * of(values[i, j1])
            return (1 - t) * below + t * ((1 - u) * of(values[i1, j]) + u * of(values[i1, j1]))

        tail_s, allowed = np.exp(between(self.tail_s[k], np.log)), 1 - self.quantile[k]
        dropped = between(self.excess_drops[k]) + allowed
        # Requests beyond the largest measured rate, or beyond what the router can forward, are
        # dropped.
        excess = np.maximum(np.maximum(per_replica / grid[-1], rate_rps / self.max_rps[k]), 1.0)[
            ..., None
        ]
        dropped = np.where(replicas[..., None] > 0, 1 - (1 - dropped) / excess, 1.0)
        return np.where(dropped > allowed + TOLERANCE, np.inf, tail_s), np.clip(dropped, 0.0, 1.0)

    def tail_latency_s(self, job: Job, rate_rps, replicas) -> np.ndarray:
        """Median over minutes of the tail latency, in seconds. `rate_rps` and `replicas` broadcast."""
        tail_s, _ = self.minutes(job, rate_rps, replicas)
        return tail_s[..., tail_s.shape[-1] // 2]

    def expected_utility(
        self, job: Job, rate_rps, replicas, utility: str, alpha: float = 1.0
    ) -> np.ndarray:
        """Expected utility of a minute at a constant rate. `rate_rps` and `replicas` broadcast.

        If `utility` is "relaxed", a minute's utility is min(1, SLO / tail latency)^alpha.
        Otherwise, it is 1 if the minute meets the SLO and 0 if not. A minute without requests has
        utility 1.
        """
        tail_s, _ = self.minutes(job, rate_rps, replicas)
        if utility == "relaxed":
            of_minute = np.minimum(1.0, job.slo_s / np.maximum(tail_s, job.slo_s)) ** alpha
        else:
            of_minute = (tail_s <= job.slo_s).astype(float)
        with_requests = np.minimum(1.0, np.asarray(rate_rps, float) * MINUTE_S)
        return 1 - with_requests * (1 - of_minute.mean(axis=-1))

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


def _position(values, grid):
    """(index of the grid point at or below each value, fraction of the way to the next one); clamped to the grid."""
    position = np.interp(values, grid, np.arange(len(grid)))
    i = np.asarray(position, int)
    return i, position - i
