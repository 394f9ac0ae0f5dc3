"""The one table that a decision needs: for each job, the expected utility of giving it x replicas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from faro_lib.queueing import latency, service_class
from faro_lib.utility.curves import curves_of
from faro_lib.utility.functions import (
    MEASURE_STEPS,
    SOLVER_STEPS,
    precise_drop_penalty,
    relaxed_drop_penalty,
)
from faro_lib.workload.jobs import Job, jobs_array

# Drop rates that a table with drops tries: 0, 0.1, 1, 2, ..., 100 % and every breakpoint of both penalties.
DROPS = tuple(sorted({0.0, 0.001, *SOLVER_STEPS, *MEASURE_STEPS, *(i / 100 for i in range(1, 101))}))


@dataclass(frozen=True, slots=True)
class UtilityTable:
    """Expected utility of every job at every replica count; objectives and solvers see nothing else.

    Attributes
    ----------
    jobs : names, bounds, cores, weights and tenants.
    running : whole numbers, shape (jobs,); the counts that serve now, to which ties return.
    value : expected utility without weight or drops, shape (jobs, X + 1); -inf where a count is out of the job's
        bounds.
    effective : the same times the drop penalty, at the best drop rate; equal to `value` if built without drops.
    drop : that best drop rate, in [0, 1]; 0 everywhere if built without drops.
    saturated : shape (jobs,); beyond this count every column of the job repeats.
    with_drops : whether drops were tried at all.
    """

    jobs: tuple[Job, ...]
    running: np.ndarray
    value: np.ndarray
    effective: np.ndarray
    drop: np.ndarray
    saturated: np.ndarray
    with_drops: bool = False

    def __post_init__(self):
        object.__setattr__(self, "jobs", tuple(self.jobs))
        for field, dtype in (
            ("running", np.int64),
            ("value", float),
            ("effective", float),
            ("drop", float),
            ("saturated", np.int64),
        ):
            array = np.array(getattr(self, field), dtype=dtype)
            array.setflags(write=False)
            object.__setattr__(self, field, array)
        if self.value.ndim != 2 or self.value.shape[0] != len(self.jobs):
            raise ValueError(f"value has shape {self.value.shape}; expected ({len(self.jobs)} jobs, X + 1)")
        for field in ("effective", "drop"):
            if getattr(self, field).shape != self.value.shape:
                raise ValueError(f"{field} has shape {getattr(self, field).shape}; expected {self.value.shape}")
        for field in ("running", "saturated"):
            if getattr(self, field).shape != (len(self.jobs),):
                raise ValueError(f"{field} has shape {getattr(self, field).shape}; expected ({len(self.jobs)},)")
        for field in ("value", "effective"):
            values = getattr(self, field)
            if np.isnan(values).any() or (values == np.inf).any():
                j = int(np.argwhere(np.isnan(values) | (values == np.inf))[0][0])
                raise ValueError(f"{field} of job {self.jobs[j].name!r} must be finite, or -inf where infeasible")

    @property
    def columns(self) -> int:
        """X, the largest replica count in the table."""
        return self.value.shape[1] - 1

    @classmethod
    def from_values(cls, jobs, value, *, running=None, effective=None, drop=None) -> UtilityTable:
        """A table from plain arrays (jobs, X + 1), cut to the bounds of the jobs; for tests and what-ifs."""
        jobs, value = tuple(jobs), np.array(value, dtype=float)
        if value.ndim != 2 or value.shape[0] != len(jobs):
            raise ValueError(f"value has shape {value.shape}; expected ({len(jobs)} jobs, X + 1)")
        x = np.arange(value.shape[1])
        outside = (x < jobs_array(jobs, "min_replicas")[:, None]) | (x > jobs_array(jobs, "max_replicas")[:, None])
        effective = value if effective is None else np.array(effective, dtype=float)
        return cls(
            jobs,
            np.zeros(len(jobs)) if running is None else running,
            np.where(outside, -np.inf, value),
            np.where(outside, -np.inf, effective),
            np.zeros(value.shape) if drop is None else drop,
            np.full(len(jobs), value.shape[1] - 1),
            with_drops=drop is not None,
        )


def build_table(
    jobs,
    rates_rps,
    running,
    *,
    latency_model="half-mmc",
    utility: str = "relaxed",
    alpha: float = 1.0,
    drops=None,
    drop_penalty: str | None = None,
    drop_steps=None,
    cold_start_minutes: float | None = 1.0,
    switching_cost: float = 0.0,
    sample_weights=None,
    max_replicas: int | None = None,
) -> UtilityTable:
    """Expected utility of every job at every replica count, averaged over forecast samples and minutes.

    value[j, x] = mean over samples and minutes of U(l(lam, x)), U relaxed or precise, l the latency percentile by
    `latency_model`. A job that grows is served by its running count until its new replicas have started; that part of the
    horizon is the same for every x above `running`. With `drops`, effective[j, x] = max over d of phi(d) times the mean
    utility of the rates (1 - d) lam: dropping relieves the queue, which is what it is for.

    Parameters
    ----------
    jobs : sequence of Job.
    rates_rps : array (jobs, samples, minutes), requests per second, >= 0.
    running : whole numbers (jobs,), the replicas that serve now.
    latency_model : "half-mmc", "mdc", "mgc", "mmc", "upper-bound", a `queueing.LatencyTable`, or any object with
        expected_utility(job, rate_rps, replicas, utility, alpha) -> array.
    utility : "relaxed" or "precise"; `alpha` is the exponent of the relaxed one.
    drops : None, or increasing drop rates to try, beginning with 0 (`DROPS`).
    drop_penalty : "relaxed" or "precise"; as `utility` if None. `drop_steps` replaces its breakpoints.
    cold_start_minutes : minutes until new replicas serve, fractions allowed; None takes each job's own cold_start_s; 0 for none.
    switching_cost : utility that changing a job's replica count costs, whatever the size of the change.
    sample_weights : None, or weights (samples,) >= 0 of the samples.
    max_replicas : no column beyond it (a budget, say); jobs' own max_replicas hold anyway.

    >>> table = build_table([Job("a")], np.full((1, 1, 2), 10.0), [1], cold_start_minutes=0)
    >>> table.value[0].round(2).tolist()
    [-inf, 0.05, 0.33, 1.0]
    """
    jobs = tuple(jobs)
    loads, running, weights = _checked(jobs, rates_rps, running, sample_weights)
    n_jobs, _, minutes = loads.shape
    if utility not in ("relaxed", "precise"):
        raise ValueError(f"utility={utility!r} is not a utility; accepted: relaxed, precise")
    if not switching_cost >= 0:
        raise ValueError(f"switching_cost={switching_cost} must be a number >= 0")
    drops, phi = _drop_grid(drops, drop_penalty or utility, drop_steps)
    # The part of each minute before the new replicas serve.
    start_min = (
        jobs_array(jobs, "cold_start_s") / 60
        if cold_start_minutes is None
        else np.full(n_jobs, float(cold_start_minutes))
    )
    if not np.all(start_min >= 0):
        raise ValueError(f"cold_start_minutes={cold_start_minutes} must be a number >= 0")
    cold_share = np.clip(start_min[:, None] - np.arange(minutes), 0.0, 1.0)
    cold = (weights[None, :, None] * cold_share[:, None, :]).reshape(n_jobs, -1) / minutes
    warm = (weights[None, :, None] * (1 - cold_share)[:, None, :]).reshape(n_jobs, -1) / minutes

    low, high = jobs_array(jobs, "min_replicas"), jobs_array(jobs, "max_replicas")
    if max_replicas is not None:
        high = np.maximum(np.minimum(high, int(max_replicas)), low)
    widest = int(max(high.max(), running.max()))
    curves = curves_of(jobs, latency_model, utility, alpha, widest)

    from faro_lib.utility import _table_kernels as _compiled

    value = np.full((n_jobs, int(high.max()) + 1), -np.inf)
    effective, drop = value.copy(), np.zeros(value.shape)
    saturated = _compiled.fill(
        loads.reshape(n_jobs, -1), warm, cold, running, low, high,
        curves.of_job, curves.first, curves.last, curves.value, float(alpha),
        drops, phi, value, effective, drop,
    )  # fmt: skip
    if switching_cost:
        changed = np.arange(value.shape[1])[None, :] != running[:, None]
        value, effective = value - switching_cost * changed, effective - switching_cost * changed
    # Columns stop where the last job saturates, but a job may always stay as it is.
    last = int(max(saturated.max(), np.minimum(running, high).max(), low.max()))
    cut = slice(0, last + 1)
    return UtilityTable(
        jobs, running, value[:, cut], effective[:, cut], drop[:, cut], saturated, with_drops=len(drops) > 1
    )


def predicted_latency(jobs, rates_rps, replicas, *, drop=0.0, latency_model="half-mmc") -> np.ndarray:
    """Latency percentile in seconds that the model expects at the given rates; explains a plan.

    Parameters
    ----------
    rates_rps : (jobs,) or (jobs, ...) requests per second.
    replicas, drop : (jobs,) each.

    Returns
    -------
    array shaped as `rates_rps`; infinite where a job with requests has no replicas.

    >>> predicted_latency([Job("a")], [10.0], [4]).round(3).tolist()
    [0.284]
    """
    jobs = tuple(jobs)
    rates = np.asarray(rates_rps, float)
    if rates.shape[:1] != (len(jobs),):
        raise ValueError(f"rates_rps has shape {rates.shape}; expected ({len(jobs)} jobs, ...)")
    replicas = np.broadcast_to(np.asarray(replicas, float), (len(jobs),))
    kept = 1 - np.broadcast_to(np.asarray(drop, float), (len(jobs),))
    out = np.empty(rates.shape)
    for j, job in enumerate(jobs):
        if replicas[j] <= 0:
            out[j] = np.where(rates[j] * kept[j] > 0, np.inf, job.service_time_s)
        elif isinstance(latency_model, str):
            out[j] = latency(
                latency_model,
                rates[j] * kept[j],
                replicas[j],
                job.service_time_s,
                job.quantile,
                service_scv=job.service_scv,
            )
        elif hasattr(latency_model, "read"):
            out[j] = latency_model.read("latency_s", service_class(job), rates[j] * kept[j], replicas[j])
        else:
            # A model of utilities alone says nothing about latency but how far the promise is missed.
            worth = latency_model.expected_utility(job, rates[j] * kept[j], replicas[j], "relaxed", 1.0)
            out[j] = job.slo_s / np.maximum(np.asarray(worth, float), 1e-9)
    return out


def _checked(jobs, rates_rps, running, sample_weights):
    rates = np.asarray(rates_rps, dtype=float)
    if not jobs:
        raise ValueError("jobs is empty; at least one job is needed")
    if rates.ndim != 3 or rates.shape[0] != len(jobs) or 0 in rates.shape:
        raise ValueError(f"rates_rps has shape {rates.shape}; expected ({len(jobs)} jobs, samples, minutes)")
    bad = ~(np.isfinite(rates) & (rates >= 0))
    if bad.any():
        j, s, m = (int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"rates_rps of job {jobs[j].name!r}, sample {s}, minute {m} is {rates[j, s, m]}; "
            "it must be a finite number >= 0"
        )
    counts = np.asarray(running)
    if counts.shape != (len(jobs),) or not np.all(np.isfinite(counts)) or np.any(counts < 0) or np.any(counts % 1):
        raise ValueError(f"running={counts.tolist()} must be {len(jobs)} whole numbers >= 0")
    weights = np.full(rates.shape[1], 1.0) if sample_weights is None else np.asarray(sample_weights, dtype=float)
    if weights.shape != (rates.shape[1],) or not np.all(np.isfinite(weights) & (weights >= 0)) or not weights.sum() > 0:
        raise ValueError(f"sample_weights must be {rates.shape[1]} numbers >= 0 with a positive sum")
    loads = rates * jobs_array(jobs, "service_time_s")[:, None, None]
    return loads, counts.astype(np.int64), weights / weights.sum()


def _drop_grid(drops, penalty, steps):
    if penalty not in ("relaxed", "precise"):
        raise ValueError(f"drop_penalty={penalty!r} is not a penalty; accepted: relaxed, precise")
    grid = np.asarray((0.0,) if drops is None else drops, dtype=float)
    if grid.ndim != 1 or not len(grid) or grid[0] != 0 or np.any(np.diff(grid) <= 0) or grid[-1] > 1:
        raise ValueError(f"drops={drops} must increase from 0 to at most 1")
    if penalty == "precise":
        return grid, precise_drop_penalty(grid, MEASURE_STEPS if steps is None else steps)
    return grid, relaxed_drop_penalty(grid, SOLVER_STEPS if steps is None else steps)
