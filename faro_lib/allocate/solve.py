"""One door to all solvers."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from faro_lib.allocate.allocation import Allocation
from faro_lib.allocate.exact import exact
from faro_lib.allocate.objectives import objective_of
from faro_lib.allocate.problem import problem_of
from faro_lib.registry import Registry

# name -> function (Problem, **options) -> (replicas in problem order, bound or NaN)
SOLVERS: Registry[Callable] = Registry("solver")
SOLVERS.enter("exact", exact)


def register_solver(name: str, solver: Callable) -> Callable:
    """Make `solver(problem, **options) -> (replicas, bound)` known to `solve`; see `problem.Problem`."""
    return SOLVERS.enter(name, solver)


def solve(
    table, budget, objective="Sum", solver="exact", *, current=None, gamma=None, quotas=None, **options
) -> Allocation:
    """The best allocation of `budget` cores over the jobs of a `UtilityTable`.

    Among equally good ones: least change from `current`, then fewest replicas, then by the jobs' names; the order of
    the jobs never matters.

    Parameters
    ----------
    table : UtilityTable.
    budget : cores, >= 0.
    objective : a name in OBJECTIVES, or an Objective.
    solver : a name in SOLVERS; `options` go to it.
    current : (jobs,) counts to stay close to; the table's `running` if None.
    gamma : weight of the spread in FairSum and PenaltyFairSum; the number of jobs if None.
    quotas : None, or tenant -> cores that its jobs may use together.

    >>> from faro_lib.utility import UtilityTable
    >>> from faro_lib.workload import Job
    >>> table = UtilityTable.from_values([Job("a"), Job("b")], [[0, 0.4, 0.5], [0, 0.1, 0.9]])
    >>> solve(table, 3).replicas.tolist()
    [1, 2]
    """
    chosen = objective_of(objective)
    method = SOLVERS.find(solver)
    started = time.perf_counter()
    problem = problem_of(table, budget, chosen, current=current, gamma=gamma, quotas=quotas)
    replicas, bound = method(problem, **options)
    return allocation_of(problem, replicas, bound, time.perf_counter() - started, solver)


def allocation_of(problem, replicas, bound, seconds, solver) -> Allocation:
    """From problem order back to the table's, with value and gap."""
    value = problem.score(replicas)
    in_table = np.empty(len(replicas), np.int64)
    in_table[problem.order] = replicas
    rows = np.arange(len(replicas))
    drop = problem.table.drop[rows, in_table] if problem.objective.effective else np.zeros(len(replicas))
    gap = float("nan") if np.isnan(bound) else (bound - value) / max(abs(bound), 1e-9)
    return Allocation(in_table, drop, value, float(bound), gap, seconds, solver, problem.objective.name)


def worth(table, replicas, budget, objective="Sum", *, gamma=None, quotas=None) -> float:
    """The objective's value of given replicas (jobs,), counts beyond the table read as its last; -inf if they do not fit.

    >>> from faro_lib.utility import UtilityTable
    >>> from faro_lib.workload import Job
    >>> table = UtilityTable.from_values([Job("a"), Job("b")], [[0, 0.4, 0.5], [0, 0.1, 0.9]])
    >>> round(worth(table, [2, 1], 3), 6), worth(table, [2, 2], 3)
    (0.6, -inf)
    """
    problem = problem_of(table, budget, objective_of(objective), gamma=gamma, quotas=quotas)
    given = np.asarray(replicas)[problem.order]
    within = np.minimum(given, problem.utility.shape[1] - 1)
    if not problem.fits(given) or np.isneginf(problem.utility[np.arange(len(within)), within]).any():
        return float("-inf")
    return problem.score(within)
