"""The knapsack that all exact solvers share: one column per job, the largest sum of terms within budget and quotas."""

from collections.abc import Sequence

import numpy as np

from faro_lib.allocate.problem import Problem, in_units
from faro_lib.workload import Job, arrays_of


def best_sum(
    problem: Problem, allowed: np.ndarray, *, term: np.ndarray | None = None, floor: float | None = None
) -> np.ndarray | None:
    """The allocation with the largest sum of terms over the allowed columns, then the least tie.

    None if nothing fits. Columns that no solution of at least `floor` contains are removed first, by their
    reduced cost; without a floor, a near-optimal solution gives one.
    """
    from faro_lib.allocate import _solver_kernels as kernels

    term = problem.term if term is None else term
    if not problem.has_quotas:
        bound, price, pick, fits = kernels.dual_bound(term, problem.costs, allowed, problem.budget)
        if not fits:
            return None
        if floor is None:
            floor = kernels.fill_up(term, problem.costs, allowed, problem.budget, pick)
        allowed = kernels.reduce_columns(term, problem.costs, allowed, bound, price, floor)
    return _solve(term, problem.tie, problem.costs, allowed, problem.budget, problem.group, problem.quota)


def best_by_minute(value: np.ndarray, jobs: Sequence[Job], capacity: float) -> np.ndarray:
    """The allocation of at most `capacity` cores with the largest sum of values, minute by minute.

    Parameters
    ----------
    value : utility of 0, 1, ... replicas in each minute, shape (jobs, columns, minutes); -inf where not allowed.

    Returns
    -------
    replicas, int (jobs, minutes).

    >>> best_by_minute(np.array([[[0.0], [0.4], [0.5]], [[0.0], [0.1], [0.9]]]), [Job("a"), Job("b")], 3).tolist()
    [[1], [2]]
    """
    cost, budget, quota, _ = in_units(jobs, capacity)
    costs = cost[:, None] * np.arange(value.shape[1])[None, :]
    tie, group = np.zeros(costs.shape), arrays_of(tuple(jobs)).group
    replicas = np.empty((len(jobs), value.shape[2]), np.int64)
    for minute, term in enumerate(np.ascontiguousarray(np.moveaxis(value, 2, 0))):
        best = _solve(term, tie, costs, ~np.isneginf(term), budget, group, quota)
        if best is None:
            raise ValueError(f"capacity={capacity:g} cores and the tenants' quotas cannot hold the minimum of the jobs")
        replicas[:, minute] = best
    return replicas


def _solve(term, tie, costs, allowed, budget, group, quota) -> np.ndarray | None:
    """Dynamic programming over the budget. With quotas it nests: a group is one row, its columns the units it gets."""
    from faro_lib.allocate import _solver_kernels as kernels

    if len(quota) == 1:
        best, _, choice = kernels.knapsack(term, tie, costs, allowed, budget)
        return None if np.isneginf(best[-1]) else kernels.trace(choice, costs, budget)
    widest = int(quota.max()) + 1
    values, ties = np.full((len(quota), widest), -np.inf), np.full((len(quota), widest), np.inf)
    choices = []
    for g, units in enumerate(quota):
        rows = group == g
        values[g, : units + 1], ties[g, : units + 1], choice = kernels.knapsack(
            term[rows], tie[rows], costs[rows], allowed[rows], int(units)
        )
        choices.append(choice)
    units = np.tile(np.arange(widest), (len(quota), 1))
    best, _, choice = kernels.knapsack(values, ties, units, ~np.isneginf(values), budget)
    if np.isneginf(best[-1]):
        return None
    replicas = np.empty(len(term), np.int64)
    for g, share in enumerate(kernels.trace(choice, units, budget)):
        rows = group == g
        replicas[rows] = kernels.trace(choices[g], costs[rows], int(share))
    return replicas
