"""A latency_model model that was measured: what constant arrival rates did on the real dispatch rules."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

FIELDS = ("latency_s", "relaxed", "precise", "dropped")


def service_class(job) -> str:
    """What jobs with one model and one promise have in common, by a name.

    >>> from faro_lib.workload import Job
    >>> service_class(Job("a"))
    'resnet34 of 0.18 s, p99 within 0.72 s'
    """
    varies = f" (scv {job.service_scv:g})" if job.service_scv else ""
    return f"{job.model} of {job.service_time_s:g} s{varies}, p{100 * job.quantile:g} within {job.slo_s:g} s"


@dataclass(frozen=True, slots=True, eq=False)
class LatencyTable:
    """Latency and utility of each service class on a grid of (rate per replica, replicas), made by `simulate`.

    The grid runs along the rate *per replica*, so that every count has its saturation at about the same column.
    Between grid points everything is linear; fewer or more replicas than measured read the nearest count at the same
    rate per replica; beyond the largest rate the latency grows with the rate and the utilities fall with it, as in the
    relaxed M/D/c.

    Attributes
    ----------
    classes : names of the service classes, found by `service_class`.
    rate_per_replica_rps : increasing, shape (classes, rates); the first is 0.
    replicas : increasing whole numbers, shape (counts,).
    latency_s : percentile of latency, shape (classes, rates, counts).
    relaxed, precise : mean per-minute utility, in [0, 1], same shape.
    refused : fraction of the requests dropped, same shape.
    """

    classes: tuple[str, ...]
    rate_per_replica_rps: np.ndarray
    replicas: np.ndarray
    latency_s: np.ndarray
    relaxed: np.ndarray
    precise: np.ndarray
    dropped: np.ndarray

    def __post_init__(self):
        for field in ("rate_per_replica_rps", "replicas", *FIELDS):
            array = np.array(getattr(self, field), dtype=float)
            array.setflags(write=False)
            object.__setattr__(self, field, array)
        object.__setattr__(self, "classes", tuple(str(name) for name in self.classes))
        n = len(self.classes)
        if self.rate_per_replica_rps.ndim != 2 or self.rate_per_replica_rps.shape[0] != n or self.replicas.ndim != 1:
            raise ValueError(
                f"rate_per_replica_rps has shape {self.rate_per_replica_rps.shape}, replicas {self.replicas.shape}; "
                f"expected ({n} classes, rates) and (counts,)"
            )
        for field, grid in (("rate_per_replica_rps", self.rate_per_replica_rps), ("replicas", self.replicas[None])):
            if grid.shape[1] < 1 or not (np.all(np.diff(grid, axis=1) > 0) and np.all(grid >= 0)):
                raise ValueError(f"{field} must be increasing and >= 0")
        shape = (n, self.rate_per_replica_rps.shape[1], len(self.replicas))
        for field in FIELDS:
            values = getattr(self, field)
            if values.shape != shape:
                raise ValueError(f"{field} has shape {values.shape}; expected {shape} (classes, rates, counts)")
            if np.isnan(values).any() or (values < 0).any() or (field != "latency_s" and (values > 1).any()):
                raise ValueError(f"{field} must lie in [0, {'inf' if field == 'latency_s' else '1'}] without NaN")

    def read(self, field: str, kind: str, rate_rps, replicas):
        """One of FIELDS of service class `kind`, interpolated; `rate_rps` and `replicas` broadcast.

        Zero replicas serve nobody: infinite latency, utility 0, everything dropped.
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
        i, t = _place(per_replica, grid)
        j, u = _place(replicas, self.replicas)
        i1, j1 = np.minimum(i + 1, len(grid) - 1), np.minimum(j + 1, len(self.replicas) - 1)
        # Infinite latencies must not meet a weight of zero.
        with np.errstate(invalid="ignore"):
            below = np.where(u > 0, (1 - u) * values[i, j] + u * values[i, j1], values[i, j])
            above = np.where(u > 0, (1 - u) * values[i1, j] + u * values[i1, j1], values[i1, j])
            inside = np.where(t > 0, (1 - t) * below + t * above, below)
        beyond = np.maximum(1.0, per_replica / grid[-1])
        served = {
            "latency_s": lambda: inside * beyond,
            "dropped": lambda: 1 - (1 - inside) / beyond,
            "relaxed": lambda: inside / beyond,
            "precise": lambda: inside / beyond,
        }[field]()
        return np.where(replicas > 0, served, {"latency_s": np.inf, "dropped": 1.0}.get(field, 0.0))

    def expected_utility(self, job, rate_rps, replicas, utility: str, alpha: float = 1.0):
        """Mean utility of `job` at constant rates; what `utility.build_table` asks of a latency_model model."""
        if utility == "relaxed" and alpha != 1.0:
            raise ValueError(f"alpha={alpha}: relaxed utilities were measured with alpha=1")
        return self.read(utility, service_class(job), rate_rps, replicas)

    def save(self, path) -> None:
        """Write all arrays into one .npz file."""
        names = ("rate_per_replica_rps", "replicas", *FIELDS)
        arrays = {name: np.asarray(getattr(self, name)) for name in names}
        np.savez_compressed(Path(path), classes=np.array(self.classes), **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path) -> LatencyTable:
        """Read what `save` wrote."""
        with np.load(Path(path), allow_pickle=False) as file:
            names = ("rate_per_replica_rps", "replicas", *FIELDS)
            return cls(classes=tuple(file["classes"].tolist()), **{name: file[name] for name in names})


def _place(values, grid):
    """Index of the grid point at or below each value, and the fraction of the way to the next; clamped to the grid."""
    clamped = np.clip(values, grid[0], grid[-1])
    i = np.clip(np.searchsorted(grid, clamped, side="right") - 1, 0, max(len(grid) - 2, 0))
    if len(grid) == 1:
        return i, np.zeros(np.shape(values))
    return i, (clamped - grid[i]) / (grid[i + 1] - grid[i])
