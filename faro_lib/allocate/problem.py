"""The problem that all solvers read, and the allocation that they return."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from faro_lib.allocate.objectives import Objective, quantised
from faro_lib.utility import UtilityTable
from faro_lib.workload.jobs import TOLERANCE, Job, arrays_of, frozen

# Weight of |replicas - current| in the tie-break, to which the replicas are added: the least change
# counts first.
CHANGE = 2.0**24


@dataclass(frozen=True, slots=True)
class Allocation:
    """A solver's result for the jobs in the table's order, and how close to optimal it is."""

    replicas: np.ndarray  # whole numbers, shape (jobs,)
    drop: np.ndarray  # fraction of the requests to drop, shape (jobs,)
    value: float  # the objective at this allocation
    bound: float  # upper bound on the value of any allocation; NaN if the solver has none
    gap: float  # (bound - value) / |bound|, 0 for `exact`; NaN without a bound
    seconds: float  # time in the solver
    solver: str
    objective: str

    def __post_init__(self):
        object.__setattr__(self, "replicas", frozen(np.array(self.replicas, np.int64)))
        object.__setattr__(self, "drop", frozen(np.array(self.drop, float)))


@dataclass(frozen=True, slots=True)
class Problem:
    """An allocation problem as arrays, with the jobs in problem order (sorted by name).

    Solutions therefore do not depend on the table's order. In arrays (jobs, X + 1), column x is for
    x replicas, and X is the table's largest count. A unit of cost is the greatest common divisor of
    the jobs' cores per replica.
    """

    table: UtilityTable
    objective: Objective
    gamma: float
    order: np.ndarray  # positions of the sorted jobs in the table, shape (jobs,)
    # Utility of x replicas, a multiple of QUANTUM, shape (jobs, X + 1); -inf where infeasible.
    utility: np.ndarray
    term: np.ndarray  # `Objective.terms`: what a job adds to the objective, same shape
    # Utility of the worst and the best job of a row, same shape; `utility` if rows are single jobs.
    least: np.ndarray
    greatest: np.ndarray
    weight: np.ndarray  # shape (jobs,)
    cost: np.ndarray  # cores per replica, in units of `unit_cores`, shape (jobs,)
    costs: np.ndarray  # cores of x replicas, in units, shape (jobs, X + 1)
    budget: int  # cores to allocate, in units
    unit_cores: float  # cores per unit
    # Tie-break, lower is better: first the change from `current`, then replicas; shape (jobs, X +
    # 1).
    tie: np.ndarray
    current: np.ndarray  # replicas to stay close to, shape (jobs,)
    group: np.ndarray  # index of each job's entry in `quota`, shape (jobs,)
    # Units that each group may use. A group is a tenant with a quota, or all jobs without a quota.
    quota: np.ndarray

    @property
    def feasible(self) -> np.ndarray:
        """Whether a job may have x replicas, bool (jobs, X + 1)."""
        return ~np.isneginf(self.term)

    @property
    def has_quotas(self) -> bool:
        return len(self.quota) > 1

    def score(self, replicas: np.ndarray) -> float:
        """The objective's value at `replicas` (jobs,), which are in problem order."""
        at = np.arange(len(self.cost)), replicas
        least, greatest = self.least[at], self.greatest[at]
        utility, gamma = self.utility[at], self.gamma
        score = self.objective.score(utility, self.weight, gamma, least=least, greatest=greatest)
        return float(score)

    def room(self, replicas: np.ndarray) -> tuple[int, np.ndarray]:
        """(units left of the budget, units left of each quota (groups,)); negative if exceeded."""
        spent = self.cost * replicas
        by_group = np.bincount(self.group, spent, len(self.quota)).astype(int)
        return self.budget - int(spent.sum()), self.quota - by_group

    def fits(self, replicas: np.ndarray) -> bool:
        """Whether `replicas` (jobs,) are within the budget and the quotas."""
        left, quota_left = self.room(replicas)
        return left >= 0 and bool(np.all(quota_left >= 0))

    def allocation(
        self, replicas: np.ndarray, bound: float, seconds: float, solver: str
    ) -> Allocation:
        """Convert `replicas`, in problem order, to an `Allocation` in the table's order."""
        in_table = np.empty(len(replicas), np.int64)
        in_table[self.order] = replicas
        drop = np.zeros(len(replicas))
        if self.objective.effective:
            drop = self.table.drop[np.arange(len(replicas)), in_table]
        value = self.score(replicas)
        return Allocation(
            replicas=in_table,
            drop=drop,
            value=value,
            bound=float(bound),
            gap=(bound - value) / max(abs(bound), TOLERANCE),
            seconds=seconds,
            solver=solver,
            objective=self.objective.name,
        )


def problem_of(
    table: UtilityTable,
    budget: float,
    objective: Objective,
    *,
    current=None,
    gamma: float | None = None,
) -> Problem:
    """The `Problem` for these arguments of `solve`.

    Raises ValueError if one is invalid or the minimum replicas do not fit.
    """
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
    arrays = arrays_of(jobs)
    cost, units, quota, unit_cores = in_units(jobs, float(budget))
    cost, current, weight = cost[order], current[order], arrays.weight[order]
    utility = quantised(objective.utilities(table)[order])
    least = greatest = utility
    if table.least is not None and table.greatest is not None:
        infeasible = np.isneginf(utility)
        least = quantised(np.where(infeasible, -np.inf, table.least[order]))
        greatest = quantised(np.where(infeasible, -np.inf, table.greatest[order]))
    if objective.leximin:  # a pool counts as its worst job
        utility = least
    x = np.arange(utility.shape[1])
    problem = Problem(
        table=table,
        objective=objective,
        gamma=objective.gamma(len(jobs), gamma),
        order=order,
        utility=utility,
        term=objective.terms(utility, weight[:, None]),
        least=least,
        greatest=greatest,
        weight=weight,
        cost=cost,
        costs=cost[:, None] * x,
        budget=units,
        unit_cores=unit_cores,
        tie=np.abs(x - current[:, None]) * CHANGE + x,
        current=current.astype(np.int64),
        group=arrays.group[order],
        quota=quota,
    )
    _check_minimum(problem, budget)
    return problem


def in_units(jobs: Sequence[Job], budget: float) -> tuple[np.ndarray, int, np.ndarray, float]:
    """Cost of a replica (jobs,), budget and quotas (groups,) in whole units, and cores per unit."""
    arrays = arrays_of(tuple(jobs))
    tenths = np.rint(10 * arrays.cores).astype(np.int64)
    unit = int(np.gcd.reduce(tenths))
    units = int(budget * 10 / unit + TOLERANCE)
    quota = np.minimum(units, np.floor(arrays.quota * 10 / unit + TOLERANCE)).astype(np.int64)
    return tenths // unit, min(units, int(quota.sum())), quota, unit / 10


def _check_minimum(problem: Problem, budget: float) -> None:
    """Raise ValueError if the jobs' minimum replicas are not in the table or do not fit."""
    jobs = [problem.table.jobs[j] for j in problem.order]
    impossible = ~problem.feasible.any(axis=1)
    if impossible.any():
        name = jobs[np.argmax(impossible)].name
        raise ValueError(f"job {name!r}: no replica count within its bounds is in the table")
    minimum = np.argmax(problem.feasible, axis=1)
    left, quota_left = problem.room(minimum)
    if (quota_left < 0).any():
        g = np.argmax(quota_left < 0)
        job = jobs[np.argmax(problem.group == g)]
        if job.tenant_quota is not None:
            cores = (problem.quota[g] - quota_left[g]) * problem.unit_cores
            quota = f"tenant {job.tenant!r}: tenant_quota={job.tenant_quota:g} cores"
            raise ValueError(f"{quota} is too small: min_replicas of its jobs need {cores:g}")
    if left < 0:
        cores = (problem.cost @ minimum) * problem.unit_cores
        need = f"min_replicas of the {len(minimum)} jobs need {cores:g}"
        raise ValueError(f"budget={float(budget)} cores is too small: {need}")
