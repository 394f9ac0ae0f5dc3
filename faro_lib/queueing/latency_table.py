"""A measured latency model: latencies and utilities at constant rates, tabulated and interpolated."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from faro_lib.workload.jobs import Job

FIELDS = ("latency_s", "relaxed", "precise", "dropped")
AXES = ("rate_per_replica_rps", "replicas")


def service_class(job: Job) -> str:
    """A key that jobs with the same model, service time and SLO share.

    >>> service_class(Job("a"))
    'resnet34 of 0.18 s, p99 within 0.72 s'
    """
    scv = f" (scv {job.service_scv:g})" if job.service_scv else ""
    return f"{job.model} of {job.service_time_s:g} s{scv}, p{100 * job.quantile:g} within {job.slo_s:g} s"


@dataclass(frozen=True, slots=True, eq=False)
class LatencyTable:
    """Measured latency and utility of each service class on a grid of (rate per replica, replicas).

    One axis is the rate *per replica*, so every replica count saturates at about the same grid point. Fields are
    interpolated linearly between grid points. Outside the measured replica counts, the nearest count is read at the
    same rate per replica. Beyond the largest rate, the latency is proportional to the rate and the utilities are
    inversely proportional, as in `relaxed`.
    """

    classes: tuple[str, ...]  # keys by `service_class`
    rate_per_replica_rps: np.ndarray  # increasing from 0, shape (classes, rates)
    replicas: np.ndarray  # increasing whole numbers, shape (counts,)
    latency_s: np.ndarray  # latency quantile, shape (classes, rates, counts)
    relaxed: np.ndarray  # mean per-minute utility, in [0, 1], same shape
    precise: np.ndarray
    dropped: np.ndarray  # fraction of the requests that are dropped, same shape

    def __post_init__(self):
        for field in (*AXES, *FIELDS):
            array = np.array(getattr(self, field), dtype=float)
            array.setflags(write=False)
            object.__setattr__(self, field, array)
        object.__setattr__(self, "classes", tuple(str(name) for name in self.classes))
        rates, counts, n = self.rate_per_replica_rps, self.replicas, len(self.classes)
        if rates.ndim != 2 or rates.shape[0] != n or counts.ndim != 1:
            shapes = f"rate_per_replica_rps has shape {rates.shape}, replicas {counts.shape}"
            raise ValueError(f"{shapes}; expected ({n} classes, rates) and (counts,)")
        for field in AXES:
            axis = np.atleast_2d(getattr(self, field))
            if axis.shape[1] < 1 or not (np.all(np.diff(axis, axis=1) > 0) and np.all(axis >= 0)):
                raise ValueError(f"{field} must be increasing and >= 0")
        shape = (n, rates.shape[1], len(counts))
        for field in FIELDS:
            values, largest = getattr(self, field), np.inf if field == "latency_s" else 1
            if values.shape != shape:
                raise ValueError(f"{field} has shape {values.shape}; expected {shape} (classes, rates, counts)")
            if not np.all((values >= 0) & (values <= largest)):
                raise ValueError(f"{field} must lie in [0, {largest}] without NaN")

    def read(self, field: str, kind: str, rate_rps, replicas) -> np.ndarray:
        """One of FIELDS of the service class `kind`, interpolated; `rate_rps` and `replicas` broadcast.

        With zero replicas, the latency is infinite, the utility 0 and all requests are dropped.
        """
        if field not in FIELDS:
            raise ValueError(f"field={field!r} was not measured; accepted: {', '.join(FIELDS)}")
        if kind not in self.classes:
            raise ValueError(f"{kind!r} was not measured; there are: {'; '.join(self.classes)}")
        k = self.classes.index(kind)
        rate_rps, replicas = np.broadcast_arrays(np.asarray(rate_rps, float), np.asarray(replicas, float))
        if not np.all(rate_rps >= 0):
            raise ValueError(f"rate_rps={rate_rps[~(rate_rps >= 0)].flat[0]} must be a number >= 0")
        grid, values = self.rate_per_replica_rps[k], getattr(self, field)[k]
        per_replica = rate_rps / np.maximum(replicas, 1e-12)
        i, t = _position(per_replica, grid)
        j, u = _position(replicas, self.replicas)
        i1, j1 = np.minimum(i + 1, len(grid) - 1), np.minimum(j + 1, len(self.replicas) - 1)
        # `where`, because an infinite latency times a weight of zero is NaN.
        with np.errstate(invalid="ignore"):
            below = np.where(u > 0, (1 - u) * values[i, j] + u * values[i, j1], values[i, j])
            above = np.where(u > 0, (1 - u) * values[i1, j] + u * values[i1, j1], values[i1, j])
            inside = np.where(t > 0, (1 - t) * below + t * above, below)
        overload = np.maximum(1.0, per_replica / grid[-1])
        if field == "latency_s":
            return np.where(replicas > 0, inside * overload, np.inf)
        if field == "dropped":
            return np.where(replicas > 0, 1 - (1 - inside) / overload, 1.0)
        return np.where(replicas > 0, inside / overload, 0.0)

    def expected_utility(self, job: Job, rate_rps, replicas, utility: str, alpha: float = 1.0) -> np.ndarray:
        """Mean utility of `job` at constant rates; called by `utility.build_table`."""
        if utility == "relaxed" and alpha != 1.0:
            raise ValueError(f"alpha={alpha}: relaxed utilities were measured with alpha=1")
        return self.read(utility, service_class(job), rate_rps, replicas)

    def save(self, path: str | Path) -> None:
        """Write the table as one .npz file."""
        arrays = {name: np.asarray(getattr(self, name)) for name in (*AXES, *FIELDS)}
        np.savez_compressed(Path(path), classes=np.array(self.classes), **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file written by `save`."""
        with np.load(Path(path), allow_pickle=False) as file:
            return cls(tuple(file["classes"].tolist()), **{name: file[name] for name in (*AXES, *FIELDS)})


def _position(values, grid):
    """Index of the grid point at or below each value, and the fraction of the way to the next; clamped to the grid."""
    clamped = np.clip(values, grid[0], grid[-1])
    i = np.clip(np.searchsorted(grid, clamped, side="right") - 1, 0, max(len(grid) - 2, 0))
    if len(grid) == 1:
        return i, np.zeros(np.shape(values))
    return i, (clamped - grid[i]) / (grid[i + 1] - grid[i])
