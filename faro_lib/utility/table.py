"""The utility table of a decision: the expected utility of each job at each replica count."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from faro_lib.queueing import ModelLike, model_of
from faro_lib.utility.functions import (
    MEASURE_STEPS,
    SOLVER_STEPS,
    precise_drop_penalty,
    relaxed_drop_penalty,
)
from faro_lib.workload.jobs import MINUTE_S, TOLERANCE, Job, arrays_of, frozen

# Drop rates that a table with drops tries: 0, 0.1, 1, 2, ..., 100 % and every breakpoint of both
# penalties.
PERCENTS = tuple(i / 100 for i in range(1, 101))
DROPS = tuple(sorted({0.0, 0.001, *SOLVER_STEPS, *MEASURE_STEPS, *PERCENTS}))


@dataclass(frozen=True, slots=True)
class UtilityTable:
    """Expected utility of every job at replica counts 0..X.

    Objectives and solvers know nothing else of the jobs' load.
    """

    jobs: tuple[Job, ...]
    # Replicas that serve now, (jobs,). Solvers break ties by the smallest change of these counts.
    running: np.ndarray
    # Expected utility without weights and drops, (jobs, X + 1); -inf outside the job's bounds.
    value: np.ndarray
    # Utility x penalty at the best drop rate, (jobs, X + 1); equals `value` if no rate was tried.
    effective: np.ndarray
    drop: np.ndarray  # the best drop rate, in [0, 1], (jobs, X + 1)
    with_drops: bool = False  # whether drop rates were tried
    # Utility of the worst and the best job of each row, (jobs, X + 1), where rows stand for pools
    # of jobs (`sharing.units`); None: every row is one job.
    least: np.ndarray | None = None
    greatest: np.ndarray | None = None

    def __post_init__(self):
        object.__setattr__(self, "jobs", tuple(self.jobs))
        object.__setattr__(self, "running", frozen(np.array(self.running, np.int64)))
        n = len(self.jobs)
        for field in ("value", "effective", "drop", "least", "greatest"):
            if getattr(self, field) is not None:
                object.__setattr__(self, field, frozen(np.array(getattr(self, field), float)))
        shape = self.value.shape
        if len(shape) != 2 or shape[0] != n:
            raise ValueError(f"value has shape {shape}; expected ({n} jobs, X + 1)")
        if self.running.shape != (n,):
            raise ValueError(f"running has shape {self.running.shape}; expected {(n,)}")
        for field in ("value", "effective", "drop"):
            array = getattr(self, field)
            if array.shape != shape:
                raise ValueError(f"{field} has shape {array.shape}; expected {shape}")
            wrong = (np.isnan(array) | np.isposinf(array)).any(axis=1)
            if wrong.any():
                name = self.jobs[np.argmax(wrong)].name
                accepted = "must be finite, or -inf where infeasible"
                raise ValueError(f"{field} of job {name!r} {accepted}")

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
        effective = value if effective is None else np.array(effective, dtype=float)
        arrays = arrays_of(jobs)
        x = np.arange(value.shape[1])
        outside = (x < arrays.min_replicas[:, None]) | (x > arrays.max_replicas[:, None])
        return cls(
            jobs,
            running=np.zeros(len(jobs)) if running is None else running,
            value=np.where(outside, -np.inf, value),
            effective=np.where(outside, -np.inf, effective),
            drop=np.zeros(value.shape) if drop is None else drop,
            with_drops=drop is not None,
        )


def build_table(
    jobs: Sequence[Job],
    rates_rps,
    running,
    *,
    latency_model: ModelLike = "half-mmc",
    utility: str = "relaxed",
    alpha: float = 1.0,
    drops: Sequence[float] | None = None,
    cold_start_minutes: float | None = 1.0,
    max_replicas: int | None = None,
    serving: np.ndarray | None = None,
) -> UtilityTable:
    """Expected utility of every job at every replica count, a mean over samples and minutes.

    value[j, x] is the mean utility U(l(lam, x)) over samples and minutes. l is the latency quantile
    of `latency_model` for x replicas at rate lam. Until new replicas have started, only the
    `running` ones serve. With `drops`, effective[j, x] is the maximum of phi(d) V(d) over drop
    rates d. phi(d) is the drop penalty. V(d) is value[j, x] at rates (1 - d) lam.

    Parameters
    ----------
    rates_rps : array (jobs, samples, minutes), requests per second, >= 0.
    running : whole numbers (jobs,), replicas that serve now.
    latency_model : name of a formula ("half-mmc", "mdc", "mgc", "mmc", "upper-bound") or a
        `queueing.LatencyModel`, such as a `queueing.LatencyTable`.
    utility : "relaxed" or "precise", for U and phi. `alpha` is the exponent of the relaxed utility.
    drops : increasing drop rates to try, beginning with 0, such as `DROPS`. None tries only 0.
    cold_start_minutes : minutes until new replicas serve, >= 0; None uses each job's cold_start_s.
    max_replicas : a further limit on every job's replicas, besides its own max_replicas.
    serving : (jobs,), index of the job that describes the replicas running for each job now; None:
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
    start_min = arrays.cold_start_s / MINUTE_S
    if cold_start_minutes is not None:
        start_min = np.full(len(jobs), cold_start_minutes)
    # Share of each minute in which new replicas are still starting, (jobs, minutes).
    cold_share = np.clip(start_min[:, None] - np.arange(minutes), 0.0, 1.0)
    # Weights of a sample's minute in the mean, before and after new replicas start.
    cold = 1 / samples * cold_share / minutes
    warm = 1 / samples * (1 - cold_share) / minutes

    low, high = arrays.min_replicas, arrays.max_replicas
    if max_replicas is not None:
        high = np.maximum(np.minimum(high, int(max_replicas)), low)
    serving = np.arange(len(jobs)) if serving is None else serving
    most = int(max(high.max(), running.max()))
    curves = model_of(latency_model).curves(jobs, utility, alpha, most)

    from faro_lib.utility import _table_kernels as kernels

    value = np.full((len(jobs), int(high.max()) + 1), -np.inf)
    effective = value.copy()
    drop = np.zeros(value.shape)
    saturated = kernels.fill(
        rates_rps * arrays.busy_s[:, None, None],
        warm,
        cold,
        warm + cold,
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


def wide(values: np.ndarray, columns: int) -> np.ndarray:
    """Utilities of replica counts 0, 1, ... with more columns, whose values are the last ones."""
    unchanged = [(0, 0)] * (values.ndim - 1)
    return np.pad(values, [*unchanged, (0, columns - values.shape[-1])], mode="edge")


def mean_of(tables: Sequence[UtilityTable]) -> UtilityTable:
    """The table of mean utilities; the tables have the same jobs and try no drop rates."""
    columns = max(table.columns for table in tables) + 1
    mean = np.mean([wide(table.value, columns) for table in tables], axis=0)
    beyond = np.arange(columns) > arrays_of(tables[0].jobs).max_replicas[:, None]
    mean[beyond] = -np.inf
    return replace(tables[0], value=mean, effective=mean, drop=np.zeros(mean.shape))


def with_switching_cost(table: UtilityTable, cost: float, unchanged=True) -> UtilityTable:
    """Subtract `cost` from all utilities, except at the running counts of `unchanged` jobs.

    `unchanged` (jobs,) says which jobs keep their kind of replica.
    """
    if not cost >= 0:
        raise ValueError(f"switching_cost={cost} must be a number >= 0")
    same_count = np.arange(table.columns + 1) == table.running[:, None]
    stays = same_count & np.reshape(unchanged, (-1, 1))
    charge = np.where(stays, 0.0, cost)
    charged = replace(table, value=table.value - charge, effective=table.effective - charge)
    if table.least is None:
        return charged
    return replace(charged, least=table.least - charge, greatest=table.greatest - charge)


def fewest_with_same_utility(table: UtilityTable, planned: np.ndarray) -> np.ndarray:
    """The lowest replica count of each row with the utility of `planned`, both (rows,).

    Utilities are `effective`: with the penalty for drops, if the objective has one.
    """
    utility = table.effective
    planned_utility = np.take_along_axis(utility, planned[:, None], axis=1)
    return (utility >= planned_utility - TOLERANCE).argmax(axis=1)


def predicted_latency(
    jobs: Sequence[Job], rates_rps, replicas, *, drop=0.0, latency_model: ModelLike = "half-mmc"
) -> np.ndarray:
    """Latency quantile in seconds that the model predicts, in the shape of `rates_rps`.

    The latency is infinite for a job with requests but no replicas.

    Parameters
    ----------
    rates_rps : (jobs,) or (jobs, ...) requests per second.
    replicas, drop : (jobs,) replica counts and drop rates.

    >>> predicted_latency([Job("a")], [10.0], [4]).round(3).tolist()
    [0.284]
    """
    model = model_of(latency_model)
    rates = np.asarray(rates_rps, float)
    if rates.shape[:1] != (len(jobs),):
        raise ValueError(f"rates_rps has shape {rates.shape}; expected ({len(jobs)} jobs, ...)")
    by_job = (len(jobs), *[1] * (rates.ndim - 1))
    replicas = np.broadcast_to(np.asarray(replicas, float), len(jobs)).reshape(by_job)
    rates = rates * (1 - np.broadcast_to(np.asarray(drop, float), len(jobs)).reshape(by_job))
    minutes_s = model.minutes_s(jobs, rates, np.where(replicas > 0, replicas, 1.0))
    without_s = np.where(rates > 0, np.inf, arrays_of(tuple(jobs)).busy_s.reshape(by_job))
    return np.where(replicas > 0, minutes_s[..., minutes_s.shape[-1] // 2], without_s)


def _checked(jobs, rates_rps, running) -> tuple[np.ndarray, np.ndarray]:
    """Rates and running replicas as arrays; ValueError if they do not fit the jobs."""
    rates = np.asarray(rates_rps, dtype=float, order="C")
    if not jobs:
        raise ValueError("jobs is empty; at least one job is needed")
    if rates.ndim != 3 or rates.shape[0] != len(jobs) or 0 in rates.shape:
        raise ValueError(
            f"rates_rps has shape {rates.shape}; expected ({len(jobs)} jobs, samples, minutes)"
        )
    wrong = ~(np.isfinite(rates) & (rates >= 0))
    if wrong.any():
        j, s, m = np.argwhere(wrong)[0]
        where = f"rates_rps of job {jobs[j].name!r}, sample {s}, minute {m}"
        raise ValueError(f"{where} is {rates[j, s, m]}; it must be a finite number >= 0")
    counts = np.asarray(running)
    whole = np.isfinite(counts) & (counts >= 0) & (np.floor(counts) == counts)
    if counts.shape != (len(jobs),) or not whole.all():
        raise ValueError(f"running={counts.tolist()} must be {len(jobs)} whole numbers >= 0")
    return rates, counts.astype(np.int64)


def _drop_grid(drops, utility: str) -> tuple[np.ndarray, np.ndarray]:
    """(drop rates to try, their drop penalties); ValueError if the rates do not increase from 0."""
    grid = np.asarray((0.0,) if drops is None else drops, dtype=float)
    increases = grid.ndim == 1 and len(grid) > 0 and np.all(np.diff(grid) > 0)
    if not (increases and grid[0] == 0 and grid[-1] <= 1):
        raise ValueError(f"drops={drops} must increase from 0 to at most 1")
    penalty = precise_drop_penalty if utility == "precise" else relaxed_drop_penalty
    return grid, penalty(grid)
