"""The utility table that a decision is based on: the expected utility of each job at each replica count."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from faro_lib.queueing import LatencyTable, latency
from faro_lib.utility.curves import LatencyModel, curves_of
from faro_lib.utility.functions import (
    MEASURE_STEPS,
    SOLVER_STEPS,
    precise_drop_penalty,
    relaxed_drop_penalty,
)
from faro_lib.workload.jobs import MINUTE_S, TOLERANCE, Job, arrays_of, frozen

# Drop rates that a table with drops tries: 0, 0.1, 1, 2, ..., 100 % and every breakpoint of both
# penalties.
DROPS = tuple(
    sorted({0.0, 0.001, *SOLVER_STEPS, *MEASURE_STEPS, *(i / 100 for i in range(1, 101))})
)


@dataclass(frozen=True, slots=True)
class UtilityTable:
    """Expected utility of every job at replica counts 0..X: all that objectives and solvers know of the jobs' load."""

    jobs: tuple[Job, ...]
    running: (
        np.ndarray
    )  # replicas that serve now, (jobs,); solvers break ties by the smallest change of these counts
    value: (
        np.ndarray
    )  # expected utility without weights and drops, (jobs, X + 1); -inf outside the job's bounds
    effective: (
        np.ndarray
    )  # utility x penalty at the best drop rate, (jobs, X + 1); equals `value` if no rate was tried
    drop: np.ndarray  # the best drop rate, in [0, 1], (jobs, X + 1)
    with_drops: bool = False  # whether drop rates were tried

    def __post_init__(self):
        object.__setattr__(self, "jobs", tuple(self.jobs))
        n = len(self.jobs)
        for field in ("value", "effective", "drop", "running"):
            array = frozen(
                np.array(getattr(self, field), dtype=np.int64 if field == "running" else float)
            )
            object.__setattr__(self, field, array)
            if field == "value" and (array.ndim != 2 or len(array) != n):
                raise ValueError(f"value has shape {array.shape}; expected ({n} jobs, X + 1)")
            expected = (n,) if field == "running" else self.value.shape
            if array.shape != expected:
                raise ValueError(f"{field} has shape {array.shape}; expected {expected}")
            for j in np.unique(np.argwhere(np.isnan(array) | np.isposinf(array))[:1, 0]):
                raise ValueError(
                    f"{field} of job {self.jobs[j].name!r} must be finite, or -inf where infeasible"
                )

    @property
    def columns(self) -> int:
        """X, the largest replica count in the table."""
        return self.value.shape[1] - 1

    @classmethod
    def from_values(
        cls, jobs: Sequence[Job], value, *, running=None, effective=None, drop=None
    ) -> Self:
        """A table from utilities (jobs, X + 1); entries outside the jobs' bounds become -inf."""
        jobs, value = tuple(jobs), np.array(value, dtype=float)
        if value.ndim != 2 or value.shape[0] != len(jobs):
            raise ValueError(f"value has shape {value.shape}; expected ({len(jobs)} jobs, X + 1)")
        x, arrays = np.arange(value.shape[1]), arrays_of(jobs)
        outside = (x < arrays.min_replicas[:, None]) | (x > arrays.max_replicas[:, None])
        return cls(
            jobs,
            np.zeros(len(jobs)) if running is None else running,
            np.where(outside, -np.inf, value),
            np.where(
                outside, -np.inf, value if effective is None else np.array(effective, dtype=float)
            ),
            np.zeros(value.shape) if drop is None else drop,
            with_drops=drop is not None,
        )


def build_table(
    jobs: Sequence[Job],
    rates_rps,
    running,
    *,
    latency_model: LatencyModel = "half-mmc",
    utility: str = "relaxed",
    alpha: float = 1.0,
    drops: Sequence[float] | None = None,
    cold_start_minutes: float | None = 1.0,
    max_replicas: int | None = None,
    serving: np.ndarray | None = None,
) -> UtilityTable:
    """Expected utility of every job at every replica count, averaged over forecast samples and minutes.

    value[j, x] is the mean utility U(l(lam, x)) over samples and minutes. l is the latency quantile
    of `latency_model` for x replicas at rate lam. Until new replicas have started, only the
    `running` ones serve. With `drops`, effective[j, x] is the maximum of phi(d) V(d) over drop
    rates d. phi(d) is the drop penalty. V(d) is value[j, x] at rates (1 - d) lam.

    Parameters
    ----------
    rates_rps : array (jobs, samples, minutes), requests per second, >= 0.
    running : whole numbers (jobs,), replicas that serve now.
    latency_model : "half-mmc", "mdc", "mgc", "mmc", "upper-bound", a `queueing.LatencyTable`, or
        any object with expected_utility(job, rate_rps, replicas, utility, alpha) -> array.
    utility : "relaxed" or "precise", for U and phi. `alpha` is the exponent of the relaxed utility.
    drops : increasing drop rates to try, beginning with 0, such as `DROPS`. None tries only 0.
    cold_start_minutes : minutes until new replicas serve, >= 0; None uses each job's cold_start_s.
    max_replicas : a further limit on every job's replicas, besides its own max_replicas.
    serving : (jobs,), index of the job that describes the replicas running for each job now. None:
        the job itself.

    >>> table = build_table([Job("a")], np.full((1, 1, 2), 10.0), [1], cold_start_minutes=0)
    >>> table.value[0].round(2).tolist()
    [-inf, 0.05, 0.33, 1.0]
    """
    jobs = tuple(jobs)
    rates_rps, running = _checked(jobs, rates_rps, running)
    if utility not in ("relaxed", "precise"):
        raise ValueError(f"utility={utility!r} is not a utility; accepted: relaxed, precise")
    if not (cold_start_minutes or 0.0) >= 0:
        raise ValueError(f"cold_start_minutes={cold_start_minutes} must be a number >= 0")
    grid, phi = _drop_grid(drops, utility)
    arrays = arrays_of(jobs)
    _, samples, minutes = rates_rps.shape
    start_min = (
        arrays.cold_start_s / MINUTE_S
        if cold_start_minutes is None
        else np.full(len(jobs), cold_start_minutes)
    )
    # Share of each minute in which new replicas are still starting, (jobs, minutes).
    cold_share = np.clip(start_min[:, None] - np.arange(minutes), 0.0, 1.0)
    cold, warm = (1 / samples * share / minutes for share in (cold_share, 1 - cold_share))

    low, high = arrays.min_replicas, arrays.max_replicas
    if max_replicas is not None:
        high = np.maximum(np.minimum(high, int(max_replicas)), low)
    serving = np.arange(len(jobs)) if serving is None else serving
    curves = curves_of(jobs, latency_model, utility, alpha, int(max(high.max(), running.max())))

    from faro_lib.utility import _table_kernels as kernels

    value = np.full((len(jobs), int(high.max()) + 1), -np.inf)
    effective, drop = value.copy(), np.zeros(value.shape)
    saturated = kernels.fill(
        rates_rps * arrays.busy_s[:, None, None],
        warm,
        cold,
        running,
        serving,
        low,
        high,
        curves.of_job,
        curves.first,
        curves.last,
        curves.value,
        float(alpha),
        grid,
        phi,
        value,
        effective,
        drop,
    )
    # The table ends where more replicas change no job's utility, but includes every job's running
    # count and minimum.
    columns = int(max(saturated, np.minimum(running, high).max(), low.max())) + 1
    value, effective, drop = (array[:, :columns] for array in (value, effective, drop))
    return UtilityTable(jobs, running, value, effective, drop, with_drops=len(grid) > 1)


def with_switching_cost(table: UtilityTable, cost: float, unchanged=True) -> UtilityTable:
    """Subtract `cost` from all utilities, except at the running replica counts of jobs where `unchanged` is True."""
    if not cost >= 0:
        raise ValueError(f"switching_cost={cost} must be a number >= 0")
    stays = (np.arange(table.columns + 1) == table.running[:, None]) & np.reshape(
        unchanged, (-1, 1)
    )
    charge = np.where(stays, 0.0, cost)
    return replace(table, value=table.value - charge, effective=table.effective - charge)


def predicted_latency(
    jobs: Sequence[Job], rates_rps, replicas, *, drop=0.0, latency_model: LatencyModel = "half-mmc"
) -> np.ndarray:
    """Latency quantile in seconds that the model predicts, in the shape of `rates_rps`.

    The latency is infinite for a job with requests but no replicas. If a model has only
    `expected_utility`, the result is the latency whose relaxed utility equals the predicted
    utility.

    Parameters
    ----------
    rates_rps : (jobs,) or (jobs, ...) requests per second.
    replicas, drop : (jobs,) replica counts and drop rates.

    >>> predicted_latency([Job("a")], [10.0], [4]).round(3).tolist()
    [0.284]
    """
    rates = np.asarray(rates_rps, float)
    if rates.shape[:1] != (len(jobs),):
        raise ValueError(f"rates_rps has shape {rates.shape}; expected ({len(jobs)} jobs, ...)")
    replicas = np.broadcast_to(np.asarray(replicas, float), (len(jobs),))
    keep = 1 - np.broadcast_to(np.asarray(drop, float), (len(jobs),))
    latency_s = np.empty(rates.shape)
    for j, job in enumerate(jobs):
        rate, x = rates[j] * keep[j], replicas[j]
        if x <= 0:
            latency_s[j] = np.where(rate > 0, np.inf, job.busy_s)
        elif isinstance(latency_model, str):
            latency_s[j] = latency(
                latency_model, rate, x, job.busy_s, job.quantile, service_scv=job.service_scv
            )
        elif isinstance(latency_model, LatencyTable):
            latency_s[j] = latency_model.tail_latency_s(job, rate, x)
        else:
            utility = latency_model.expected_utility(job, rate, x, "relaxed", 1.0)
            latency_s[j] = job.slo_s / np.maximum(np.asarray(utility, float), TOLERANCE)
    return latency_s


def _checked(jobs, rates_rps, running) -> tuple[np.ndarray, np.ndarray]:
    rates = np.asarray(rates_rps, dtype=float)
    if not jobs:
        raise ValueError("jobs is empty; at least one job is needed")
    if rates.ndim != 3 or rates.shape[0] != len(jobs) or 0 in rates.shape:
        raise ValueError(
            f"rates_rps has shape {rates.shape}; expected ({len(jobs)} jobs, samples, minutes)"
        )
    for j, s, m in np.argwhere(~(np.isfinite(rates) & (rates >= 0)))[:1]:
        where = f"rates_rps of job {jobs[j].name!r}, sample {s}, minute {m}"
        raise ValueError(f"{where} is {rates[j, s, m]}; it must be a finite number >= 0")
    counts = np.asarray(running)
    if (
        counts.shape != (len(jobs),)
        or not np.all(np.isfinite(counts))
        or np.any(counts < 0)
        or np.any(counts % 1)
    ):
        raise ValueError(f"running={counts.tolist()} must be {len(jobs)} whole numbers >= 0")
    return rates, counts.astype(np.int64)


def _drop_grid(drops, utility: str) -> tuple[np.ndarray, np.ndarray]:
    """(drop rates to try, their drop penalties); a ValueError if the rates do not increase from 0 to at most 1."""
    grid = np.asarray((0.0,) if drops is None else drops, dtype=float)
    if (
        grid.ndim != 1
        or not len(grid)
        or grid[0] != 0
        or np.any(np.diff(grid) <= 0)
        or grid[-1] > 1
    ):
        raise ValueError(f"drops={drops} must increase from 0 to at most 1")
    return grid, precise_drop_penalty(grid) if utility == "precise" else relaxed_drop_penalty(grid)
