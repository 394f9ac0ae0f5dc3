"""Solve an allocation problem, and the value of one replica more or one less at its solution."""

import time
from collections.abc import Callable

import numpy as np

from faro_lib.allocate.exact import exact
from faro_lib.allocate.objectives import Objective, objective_of
from faro_lib.allocate.problem import Allocation, problem_of
from faro_lib.registry import Registry
from faro_lib.utility import UtilityTable
from faro_lib.workload import arrays_of

# (Problem, **options) -> (replicas in problem order, bound or NaN).
Solver = Callable[..., tuple[np.ndarray, float]]
SOLVERS: Registry[Solver] = Registry("solver")


def register_solver(name: str, solver: Solver) -> Solver:
    """Make a `Solver` available to `solve` by name."""
    return SOLVERS.enter(name, solver)


register_solver("exact", exact)


def solve(
    table: UtilityTable,
    budget: float,
    objective: str | Objective = "Sum",
    solver: str = "exact",
    *,
    current=None,
    gamma: float | None = None,
    **options,
) -> Allocation:
    """Allocate `budget` cores to the jobs of a `UtilityTable`, within their tenants' quotas.

    Ties are broken by the least change from `current`, then by the fewest replicas, then by the
    jobs' names. The order of the jobs does not matter. Raises ValueError if the jobs' minimum
    replicas exceed the budget or a quota.

    Parameters
    ----------
    objective : a name in OBJECTIVES, or an Objective.
    solver : a name in SOLVERS; receives `options`.
    current : replicas (jobs,) to stay close to; the table's `running` if None.
    gamma : weight of min - max utility in FairSum and PenaltyFairSum; the number of jobs if None.

    >>> from faro_lib.workload import Job
    >>> table = UtilityTable.from_values([Job("a"), Job("b")], [[0, 0.4, 0.5], [0, 0.1, 0.9]])
    >>> solve(table, 3).replicas.tolist()
    [1, 2]
    """
    started = time.perf_counter()
    method = SOLVERS.find(solver)
    problem = problem_of(table, budget, objective_of(objective), current=current, gamma=gamma)
    replicas, bound = method(problem, **options)
    return problem.allocation(replicas, bound, time.perf_counter() - started, solver)


def marginal_values(
    table: UtilityTable, allocation: Allocation, *, gamma: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The gain in the objective from one more replica of each job, and the loss from one fewer.

    Both are arrays (jobs,). All other jobs keep their replicas. The budget and the quotas are
    ignored. A change beyond a job's bounds gives NaN.

    >>> from faro_lib.workload import Job
    >>> table = UtilityTable.from_values([Job("a"), Job("b")], [[0, 0.4, 0.5], [0, 0.1, 0.9]])
    >>> marginal_values(table, solve(table, 3))[0].round(3).tolist()
    [0.1, nan]
    """
    objective = objective_of(allocation.objective)
    rows = np.arange(len(table.jobs))
    utility = objective.utilities(table)
    least = utility if table.least is None else table.least
    greatest = utility if table.greatest is None else table.greatest
    if objective.leximin:
        utility = least
    # Pad one infeasible column on either side: x replicas are at index x + 1.
    padded = [
        np.pad(values, ((0, 0), (1, 1)), constant_values=-np.inf)
        for values in (utility, least, greatest)
    ]
    weight = arrays_of(table.jobs).weight
    current = [values[rows, allocation.replicas + 1] for values in padded]
    now = objective.scores_after(current, current, weight, gamma)

    def change(by: int) -> np.ndarray:
        moved = [values[rows, allocation.replicas + 1 + by] for values in padded]
        possible = ~np.isneginf(moved[0])
        moved = [np.where(possible, after, before) for after, before in zip(moved, current)]
        scores = objective.scores_after(current, moved, weight, gamma)
        return np.where(possible, by * (scores - now), np.nan)

    return change(+1), change(-1)
