"""The units of an allocation: jobs alone, and pools. A pool is one row of the utility table.

The row of a pool has what n replicas are worth to all its jobs together. So solvers decide pools
and jobs alone together under one capacity.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from faro_lib.allocate import Objective
from faro_lib.queueing import LatencyModel
from faro_lib.utility import UtilityTable
from faro_lib.utility.table import wide
from faro_lib.workload.jobs import MINUTE_S, Job, arrays_of
from faro_lib.workload.pools import Pool, pools_of

FEWEST_COLUMNS = 16  # largest replica count that a row has at least


class Row(NamedTuple):
    """What 0, 1, ..., X replicas are worth to a pool."""

    worth: np.ndarray  # weighted sum of the jobs' utilities, (X + 1,)
    utility: np.ndarray  # expected utility of each job, (X + 1, jobs of the pool)


@dataclass(frozen=True, slots=True)
class Units:
    """Jobs alone, then pools, of a tuple of jobs."""

    alone: tuple[int, ...]  # positions of the jobs that share no replicas
    pools: tuple[Pool, ...]  # pools of several jobs
    jobs: tuple[Job, ...]  # one for each unit; that of a pool stands for all its jobs

    def sums(self, by_job: np.ndarray) -> np.ndarray:
        """Sum over the jobs of each unit, (jobs,) -> (units,)."""
        of_pools = [by_job[list(pool.jobs)].sum() for pool in self.pools]
        return np.concatenate([by_job[list(self.alone)], np.array(of_pools, by_job.dtype)])

    def spread(self, by_unit: np.ndarray, jobs: int) -> np.ndarray:
        """Each job's entry is that of its unit, (units,) -> (jobs,)."""
        by_job = np.empty(jobs, by_unit.dtype)
        by_job[list(self.alone)] = by_unit[: len(self.alone)]
        for pool, value in zip(self.pools, by_unit[len(self.alone) :]):
            by_job[list(pool.jobs)] = value
        return by_job


@lru_cache(maxsize=64)
def units_of(jobs: tuple[Job, ...]) -> Units:
    """The units of the jobs. The job that stands for a pool has the sums of its jobs' bounds.

    >>> shared = tuple(Job(name, pool="x", models_per_replica=2) for name in "ac")
    >>> [unit.name for unit in units_of((shared[0], Job("b"), shared[1])).jobs]
    ['b', 'pool x']
    """
    every = pools_of(jobs)
    alone = tuple(pool.jobs[0] for pool in every if not pool.shared)
    pools = tuple(pool for pool in every if pool.shared)
    rows = [jobs[j] for j in alone] + [_stands_for(jobs, pool) for pool in pools]
    return Units(alone, pools, tuple(rows))


def _stands_for(jobs: Sequence[Job], pool: Pool) -> Job:
    members = [jobs[j] for j in pool.jobs]
    return replace(
        members[0],
        name=f"pool {pool.name}",
        weight=1.0,
        min_replicas=sum(job.min_replicas for job in members),
        max_replicas=min(1_000_000, sum(job.max_replicas for job in members)),
        pool="",
    )


def pool_row(
    jobs: Sequence[Job],
    rates_rps: np.ndarray,
    running: int,
    most: int,
    *,
    latency_model: LatencyModel,
    cold_start_minutes: float,
    factor: np.ndarray | None = None,
    refuse: bool = True,
    alpha: float = 1.0,
) -> Row:
    """What 0, 1, ..., X <= `most` replicas are worth to a pool, and each job's expected utility.

    In each minute of each sample path, the jobs with the least load per weight are served, as many
    as are best. Among jobs with equal utilities, no other choice is better. Until new replicas have
    started, only the `running` ones serve. More than X replicas are worth no more.

    Parameters
    ----------
    jobs : the jobs of the pool.
    rates_rps : (jobs, samples, minutes), requests per second.
    latency_model : of the pool, at a rate with the load of all jobs.
    factor : (jobs,), factor on each job's utility; None: the jobs' weights.
    refuse : whether jobs may be refused; if not, all are served.

    """
    from faro_lib.sharing import _admission_kernels as kernels

    jobs = tuple(jobs)
    arrays = arrays_of(jobs)
    factor = arrays.weight if factor is None else factor
    loads = np.moveaxis(rates_rps * arrays.busy_s[:, None, None], 0, 2).copy()
    order = (loads / np.maximum(factor, 1e-9)).argsort(axis=2, kind="stable")
    # Four times the largest load is usually enough for all SLOs; if not, the row is made again.
    columns = min(most, max(FEWEST_COLUMNS, running, 4 * int(loads.sum(axis=2).max())))
    while True:
        curves = latency_model.curves(jobs, "relaxed", alpha, columns)
        worth, utility, saturated = kernels.prefix_values(
            loads,
            order,
            factor.astype(float),
            curves.of_job,
            curves.first,
            curves.last,
            curves.value,
            float(alpha),
            columns,
            0 if refuse else len(jobs),
        )
        if saturated < columns or columns == most:
            break
        columns = min(most, 2 * columns)
    columns = min(columns, max(saturated, running)) + 1
    worth, utility = worth[:, :columns], utility[:, :columns]
    minutes = loads.shape[1]
    cold = np.clip(cold_start_minutes - np.arange(minutes), 0.0, 1.0)[:, None]
    now = np.minimum(np.arange(columns), running)
    worth = ((1 - cold) * worth + cold * worth[:, now]).mean(axis=0)
    cold = cold[:, :, None]
    utility = ((1 - cold) * utility + cold * utility[:, now]).mean(axis=0)
    return Row(worth, utility)


def row_for(
    objective: Objective, gamma: float, jobs: Sequence[Job], *args: Any, **options: Any
) -> Row:
    """`pool_row` for an objective.

    If it has a penalty on the spread of utilities, refusing a job may be worse than serving all of
    them late. For each count, the better one of both is taken. Leximin refuses nothing.
    """
    if objective.leximin:
        return pool_row(jobs, *args, refuse=False, **options)
    some = pool_row(jobs, *args, **options)
    if objective.spread is None:
        return some
    every = pool_row(jobs, *args, refuse=False, **options)
    columns = min(len(some.worth), len(every.worth))
    some = Row(some.worth[:columns], some.utility[:columns])
    every = Row(every.worth[:columns], every.utility[:columns])

    def penalised(row: Row) -> np.ndarray:
        return row.worth + gamma * (row.utility.min(axis=1) - row.utility.max(axis=1))

    better = penalised(every) > penalised(some)
    worth = np.where(better, every.worth, some.worth)
    return Row(worth, np.where(better[:, None], every.utility, some.utility))


def cold_start_of(jobs: Sequence[Job], cold_start_minutes: float | None) -> float:
    """Minutes until a new replica of the pool serves; None: the jobs' cold start."""
    return jobs[0].cold_start_s / MINUTE_S if cold_start_minutes is None else cold_start_minutes


def with_pools(
    units: Units, alone: UtilityTable | None, running: np.ndarray, rows: Sequence[Row]
) -> UtilityTable:
    """The table of all units: that of the jobs alone, and a row for each pool.

    `running` (units,) are the replicas that serve now. A shorter row ends with its last value.
    """
    fewest = max(unit.min_replicas for unit in units.jobs[len(units.alone) :]) + 1
    columns = max(fewest, *(len(row.worth) for row in rows), alone.columns + 1 if alone else 0)

    value = np.array([wide(row.worth, columns) for row in rows])
    least = np.array([wide(row.utility.min(axis=1), columns) for row in rows])
    greatest = np.array([wide(row.utility.max(axis=1), columns) for row in rows])
    effective, drop = value, np.zeros(value.shape)
    if alone:
        value = np.concatenate([wide(alone.value, columns), value])
        least = np.concatenate([wide(alone.effective, columns), least])
        greatest = np.concatenate([wide(alone.effective, columns), greatest])
        effective = np.concatenate([wide(alone.effective, columns), effective])
        drop = np.concatenate([wide(alone.drop, columns), drop])
    with_drops = alone.with_drops if alone else True
    table = UtilityTable.from_values(
        units.jobs, value, running=running, effective=effective, drop=drop if with_drops else None
    )
    return replace(table, least=least, greatest=greatest)
