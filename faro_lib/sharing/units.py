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
from faro_lib.workload.jobs import MINUTE_S, Job, arrays_of, frozen
from faro_lib.workload.pools import Pool, pools_of

FEWEST_COLUMNS = 16  # largest replica count that a row has at least


class Rows(NamedTuple):
    """What 0, 1, ..., X replicas are worth to pools. A row that ends before X repeats its end."""

    worth: np.ndarray  # weighted sum of the jobs' utilities, (pools, X + 1)
    utility: np.ndarray  # expected utility of each job, pool by pool, (jobs of pools, X + 1)
    first: np.ndarray  # the place of each pool's first job in `utility`, (pools,)

    @property
    def least(self) -> np.ndarray:
        """Utility of each pool's worst job, (pools, X + 1)."""
        return np.minimum.reduceat(self.utility, self.first, axis=0)

    @property
    def greatest(self) -> np.ndarray:
        """Utility of each pool's best job, (pools, X + 1)."""
        return np.maximum.reduceat(self.utility, self.first, axis=0)


@dataclass(frozen=True, slots=True)
class Units:
    """Jobs alone, then pools, of a tuple of jobs."""

    alone: tuple[int, ...]  # positions of the jobs that share no replicas
    pools: tuple[Pool, ...]  # pools of several jobs
    jobs: tuple[Job, ...]  # one for each unit; that of a pool stands for all its jobs
    of_job: np.ndarray  # index of each job's unit, (jobs,)

    @property
    def shares(self) -> np.ndarray:
        """Whether each job shares replicas, bool (jobs,)."""
        return self.of_job >= len(self.alone)

    def sums(self, by_job: np.ndarray) -> np.ndarray:
        """Sum over the jobs of each unit, (jobs,) -> (units,)."""
        return np.bincount(self.of_job, by_job, len(self.jobs)).astype(by_job.dtype)

    def spread(self, by_unit: np.ndarray) -> np.ndarray:
        """Each job's entry is that of its unit, (units,) -> (jobs,)."""
        return by_unit[self.of_job]


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
    of_job = np.empty(len(jobs), np.int64)
    of_job[list(alone)] = np.arange(len(alone))
    for unit, pool in enumerate(pools, len(alone)):
        of_job[list(pool.jobs)] = unit
    return Units(alone, pools, tuple(rows), frozen(of_job))


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


def pool_rows(
    jobs: Sequence[Job],
    pools: Sequence[Pool],
    rates_rps: np.ndarray,
    running: np.ndarray,
    most: np.ndarray,
    *,
    latency_model: LatencyModel,
    cold_start_minutes: float | None,
    refuse: bool = True,
    alpha: float = 1.0,
) -> Rows:
    """What 0, 1, ... replicas are worth to each pool, and each of its jobs' expected utility.

    In each minute of each sample path, the jobs with the least load per weight are served, as many
    as are best. Among jobs with equal utilities, no other choice is better. Until new replicas have
    started, only the `running` ones serve. A row ends where more replicas are worth no more, and at
    `most` of them.

    Parameters
    ----------
    rates_rps : (jobs, samples, minutes), requests per second.
    running, most : whole numbers (pools,).
    latency_model : of the pools, at a rate with the load of all jobs of the pool.
    cold_start_minutes : minutes until new replicas serve; None: the pools' cold start.
    refuse : whether jobs may be refused; if not, all are served.

    """
    from faro_lib.sharing import _admission_kernels as kernels

    start = np.cumsum([0, *(len(pool.jobs) for pool in pools)])
    member = np.concatenate([pool.jobs for pool in pools])
    members = tuple(jobs[j] for j in member)
    weight = arrays_of(members).weight
    busy_s = np.array([latency_model.busy_s(job) for job in members])
    start_min = np.array([pool.cold_start_s / MINUTE_S for pool in pools])
    if cold_start_minutes is not None:
        start_min[:] = cold_start_minutes
    cold = np.clip(start_min[:, None] - np.arange(rates_rps.shape[2]), 0.0, 1.0)
    largest = np.add.reduceat(rates_rps.max(axis=(1, 2))[member] * busy_s, start[:-1])
    needed, last = max(FEWEST_COLUMNS, running.max(), 4 * int(largest.max() + 1)), -1
    while needed > last:  # rarely more than once
        last = min(needed, int(most.max()))
        worth, utility = np.empty((len(pools), last + 1)), np.empty((len(members), last + 1))
        curves = latency_model.curves(members, "relaxed", alpha, last)
        needed = kernels.fill_rows(
            rates_rps,
            (member, start),
            (busy_s, weight),
            (curves.of_job, curves.first, curves.last, curves.value),
            float(alpha),
            running,
            most,
            FEWEST_COLUMNS,
            cold,
            refuse,
            worth,
            utility,
        )
    return Rows(worth[:, : needed + 1], utility[:, : needed + 1], start[:-1])


def rows_for(
    objective: Objective, gamma: float, jobs: Sequence[Job], *args: Any, **options: Any
) -> Rows:
    """`pool_rows` for an objective.

    If it has a penalty on the spread of utilities, refusing a job may be worse than serving all of
    them late. For each count, the better one of both is taken. Leximin refuses nothing.
    """
    some = pool_rows(jobs, *args, refuse=not objective.leximin, **options)
    if objective.spread is None:
        return some
    every = pool_rows(jobs, *args, refuse=False, **options)

    def penalised(rows: Rows) -> np.ndarray:
        return rows.worth + gamma * (rows.least - rows.greatest)

    better = penalised(every) > penalised(some)
    worth = np.where(better, every.worth, some.worth)
    of_pool = np.diff(some.first, append=len(some.utility))
    better = np.repeat(better, of_pool, axis=0)
    return Rows(worth, np.where(better, every.utility, some.utility), some.first)


def with_pools(
    units: Units, alone: UtilityTable | None, running: np.ndarray, rows: Rows
) -> UtilityTable:
    """The table of all units: that of the jobs alone, and a row for each pool.

    `running` (units,) are the replicas that serve now. A shorter row ends with its last value.
    """
    fewest = max(unit.min_replicas for unit in units.jobs[len(units.alone) :]) + 1
    columns = max(fewest, rows.worth.shape[1], alone.columns + 1 if alone else 0)
    value, least, greatest = (
        wide(values, columns) for values in (rows.worth, rows.least, rows.greatest)
    )
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
