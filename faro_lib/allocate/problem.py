"""The problem that all solvers read (table, budget and objective), and the allocation that they return."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from faro_lib.allocate.objectives import Objective, quantised
from faro_lib.utility import UtilityTable
from faro_lib.workload.jobs import TOLERANCE, Job, arrays_of, frozen

CHANGE = (
    2.0**24
)  # tie-break: CHANGE x |replicas - current| + replicas, so the least change counts first


@dataclass(frozen=True, slots=True)
class Allocation:
    """A solver's result: replicas and drop rate of every job, in the table's order, and how close to optimal they are."""

    replicas: np.ndarray  # whole numbers, shape (jobs,)
    drop: np.ndarray  # fraction of the requests to drop, shape (jobs,)
    value: float  # the objective at this allocation
    bound: float  # upper bound on the objective of any allocation within the budget; NaN if the solver has none
    gap: float  # (bound - value) / |bound|, 0 for `exact`; NaN without a bound
    seconds: float  # time in the solver
    solver: str
    objective: str

    def __post_init__(self):
        for field, dtype in (("replicas", np.int64), ("drop", float)):
            object.__setattr__(self, field, frozen(np.array(getattr(self, field), dtype=dtype)))


@dataclass(frozen=True, slots=True)
class Problem:
    """An allocation problem as arrays, with the jobs in problem order (sorted by name).

    Solutions therefore do not depend on the table's order. In arrays (jobs, X + 1), column x is for x replicas, and X
    is the table's largest count. A unit of cost is the greatest common divisor of the jobs' cores per replica.
    """

    table: UtilityTable
    objective: Objective
    gamma: float
    order: np.ndarray  # positions of the sorted jobs in the table, shape (jobs,)
    utility: (
        np.ndarray
    )  # utility of x replicas, a multiple of QUANTUM, shape (jobs, X + 1); -inf where infeasible
    term: np.ndarray  # `Objective.terms`: what a job adds to the objective, same shape
    weight: np.ndarray
    cost: np.ndarray  # cores per replica, in units of `unit_cores`, shape (jobs,)
    costs: np.ndarray  # cores of x replicas, in units, shape (jobs, X + 1)
    budget: int  # cores to allocate, in units
    unit_cores: float  # cores per unit
    tie: (
        np.ndarray
    )  # tie-break, lower is better: first change from `current`, then replicas; shape (jobs, X + 1)
    current: np.ndarray
    group: np.ndarray  # index of each job's entry in `quota`, shape (jobs,)
    quota: np.ndarray  # units that each group may use; a group is a tenant with a quota, or all jobs without a quota

    @property
    def feasible(self) -> np.ndarray:
        """Whether x replicas are within the job's bounds, bool (jobs, X + 1)."""
        return ~np.isneginf(self.term)

    @property
    def has_quotas(self) -> bool:
        return len(self.quota) > 1

    def score(self, replicas: np.ndarray) -> float:
        """The objective's value at `replicas` (jobs,), which are in problem order."""
        return self.objective.score(
            self.utility[np.arange(len(self.cost)), replicas], self.weight, self.gamma
        )

    def room(self, replicas: np.ndarray) -> tuple[int, np.ndarray]:
        """(units left of the budget, units left of each quota (groups,)); negative if exceeded."""
        spent = self.cost * replicas
        return self.budget - int(spent.sum()), self.quota - np.bincount(
            self.group, spent, len(self.quota)
        ).astype(int)

    def fits(self, replicas: np.ndarray) -> bool:
        left, quota_left = self.room(replicas)
        return left >= 0 and bool(np.all(quota_left >= 0))

    def allocation(
        self, replicas: np.ndarray, bound: float, seconds: float, solver: str
    ) -> Allocation:
        """Convert `replicas`, in problem order, to an `Allocation` in the table's order."""
        value = self.score(replicas)
        rows, in_table = np.arange(len(replicas)), np.empty(len(replicas), np.int64)
        in_table[self.order] = replicas
        drop = (
            self.table.drop[rows, in_table] if self.objective.effective else np.zeros(len(replicas))
        )
        gap = (bound - value) / max(abs(bound), TOLERANCE)
        return Allocation(
            in_table, drop, value, float(bound), gap, seconds, solver, self.objective.name
        )


def problem_of(
    table: UtilityTable,
    budget: float,
    objective: Objective,
    *,
    current=None,
    gamma: float | None = None,
) -> Problem:
    """The `Problem` for these arguments of `solve`; ValueError if one is invalid or the minimum replicas do not fit."""
    jobs = table.jobs
    if not isinstance(budget, (int, float, np.number)) or not 0 <= float(budget) < np.inf:
        raise ValueError(f"budget={budget!r} must be a number of cores >= 0")
    if objective.effective and not table.with_drops:
        raise ValueError(
            f"objective={objective.name!r} needs a table with drops; build_table(..., drops=DROPS)"
        )
    if gamma is not None and not (np.isfinite(gamma) and gamma >= 0):
        raise ValueError(f"gamma={gamma} must be a number >= 0")
    current = np.asarray(table.running if current is None else current)
    if current.shape != (len(jobs),) or not np.all((current >= 0) & (np.floor(current) == current)):
        raise ValueError(f"current={current.tolist()} must be {len(jobs)} whole numbers >= 0")
    order = np.array(sorted(range(len(jobs)), key=lambda j: jobs[j].name))
    cost, units, quota, unit_cores = in_units(jobs, float(budget))
    cost, current, group = cost[order], current[order], arrays_of(jobs).group[order]
    utility = quantised(objective.utilities(table)[order])
    weight = arrays_of(jobs).weight[order]
    x = np.arange(utility.shape[1])[None, :]
    problem = Problem(
        table,
        objective,
        objective.gamma(len(jobs), gamma),
        order,
        utility,
        objective.terms(utility, weight[:, None]),
        weight,
        cost,
        cost[:, None] * x,
        units,
        unit_cores,
        np.abs(x - current[:, None]) * CHANGE + x,
        current.astype(np.int64),
        group,
        quota,
    )
    _check_minimum(problem, budget)
    return problem


def in_units(jobs: Sequence[Job], budget: float) -> tuple[np.ndarray, int, np.ndarray, float]:
    """Return replica costs (jobs,), budget, quotas (groups,) and cores per unit. The first three are in whole units."""
    arrays = arrays_of(tuple(jobs))
    tenths = np.rint(10 * arrays.cores).astype(np.int64)
    unit = int(np.gcd.reduce(tenths))
    units = int(budget * 10 / unit + TOLERANCE)
    quota = np.minimum(units, np.floor(arrays.quota * 10 / unit + TOLERANCE)).astype(np.int64)
    return tenths // unit, min(units, int(quota.sum())), quota, unit / 10


def _check_minimum(problem: Problem, budget: float) -> None:
    feasible = problem.feasible
    for j in np.flatnonzero(~feasible.any(axis=1))[:1]:
        name = problem.table.jobs[problem.order[j]].name
        raise ValueError(f"job {name!r}: no replica count within its bounds is in the table")
    minimum = np.argmax(feasible, axis=1)
    left, quota_left = problem.room(minimum)
    for g in np.flatnonzero(quota_left < 0)[:1]:
        job = problem.table.jobs[problem.order[np.argmax(problem.group == g)]]
        if job.tenant_quota is not None:
            need = f"min_replicas of its jobs need {(problem.quota[g] - quota_left[g]) * problem.unit_cores:g}"
            raise ValueError(
                f"tenant {job.tenant!r}: tenant_quota={job.tenant_quota:g} cores is too small: {need}"
            )
    if left < 0:
        need = f"min_replicas of the {len(minimum)} jobs need {(problem.cost * minimum).sum() * problem.unit_cores:g}"
        raise ValueError(f"budget={float(budget)} cores is too small: {need}")
