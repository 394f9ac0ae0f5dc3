"""The exact solver's knapsack: replicas with the largest sum of the jobs' terms."""

from collections.abc import Sequence

import numpy as np

from faro_lib.allocate.problem import Problem, in_units
from faro_lib.workload.jobs import TOLERANCE, Job, arrays_of


def best_sum(
    problem: Problem,
    allowed: np.ndarray,
    *,
    term: np.ndarray | None = None,
    floor: float | None = None,
) -> np.ndarray | None:
    """Replicas (jobs,) with the largest sum of `term`, then the least sum of `problem.tie`.

    `term` (jobs, columns) is what a job adds to the objective, by default `problem.term`. Only
    columns (replica counts) in `allowed`, bool (jobs, columns), are used. A bound first removes
    columns that no solution with a sum >= `floor` uses. By default, a greedy solution sets `floor`.
    Returns None if nothing fits.
    """
    from faro_lib.allocate import _solver_kernels as kernels

    term = problem.term if term is None else term
    if not problem.has_quotas:
        bound, price, pick, fits = kernels.dual_bound(
            term, problem.costs, allowed, problem.budget, 0.0, -np.inf
        )
        if not fits:
            return None
        if floor is None:
            floor = kernels.fill_up(term, problem.costs, allowed, problem.budget, pick)
        # In a solution with a sum >= `floor`, no job's `reduced` is more than `far` below the job's
        # largest `reduced`.
        reduced = np.where(allowed, term - price * problem.costs, -np.inf)
        rounding = TOLERANCE * max(1.0, abs(bound))  # errors grow with the sum of terms
        far = bound - floor + rounding
        allowed = allowed & (reduced.max(axis=1)[:, None] - reduced <= far)
        highest = np.where(allowed, term, -np.inf).max(axis=1)[:, None]
        all_equal = np.all(~allowed | (term == highest))
        if all_equal and term is problem.term:
            return best_sum(problem, allowed, term=np.where(allowed, -problem.tie, 0.0))
    limits = problem.budget, problem.group, problem.quota
    return _solve(term, problem.tie, problem.costs, allowed, *limits)


def best_by_minute(value: np.ndarray, jobs: Sequence[Job], capacity: float) -> np.ndarray:
    """Replicas, int (jobs, minutes), with the largest sum of values in each minute.

    At most `capacity` cores are used. `value` (jobs, columns, minutes) is the utility of 0, 1, ...
    replicas in each minute; -inf where not allowed. The solution is exact and respects the jobs'
    minimum and maximum replicas and the tenants' quotas.

    >>> value = np.array([[[0.0], [0.4], [0.5]], [[0.0], [0.1], [0.9]]])
    >>> best_by_minute(value, [Job("a"), Job("b")], 3).tolist()
    [[1], [2]]
    """
    cost, budget, quota, _ = in_units(jobs, capacity)
    arrays = arrays_of(tuple(jobs))
    columns = np.arange(value.shape[1])
    within = (arrays.min_replicas[:, None] <= columns) & (columns <= arrays.max_replicas[:, None])
    costs = cost[:, None] * columns
    tie = np.zeros(costs.shape)
    replicas = np.empty((len(jobs), value.shape[2]), np.int64)
    for minute, term in enumerate(np.ascontiguousarray(np.moveaxis(value, 2, 0))):
        best = _solve(term, tie, costs, within & ~np.isneginf(term), budget, arrays.group, quota)
        if best is None:
            limits = f"capacity={capacity:g} cores and the tenants' quotas"
            raise ValueError(f"{limits} cannot hold the minimum of the jobs")
        replicas[:, minute] = best
    return replicas


def _solve(term, tie, costs, allowed, budget, group, quota) -> np.ndarray | None:
    """Give each job its least allowed replicas, and let `_share` divide the budget that is left.

    The arguments are as in `Problem`. Returns None if nothing fits.
    """
    if not allowed.any(axis=1).all():
        return None
    replicas = np.argmax(allowed, axis=1)
    spent = np.take_along_axis(costs, replicas[:, None], axis=1)
    left = budget - int(spent.sum())
    quota_left = quota - np.bincount(group, spent[:, 0], len(quota)).astype(int)
    if left < 0 or np.any(quota_left < 0):
        return None
    open_jobs = np.flatnonzero(allowed.sum(axis=1) > 1)
    if not len(open_jobs):
        return replicas
    more = (costs - spent)[open_jobs]
    allowed = allowed[open_jobs]
    group = group[open_jobs]
    usable = np.where(allowed, more, 0).max(axis=1)
    left = min(left, int(usable.sum()))
    quota_left = np.minimum(quota_left, np.bincount(group, usable, len(quota)).astype(int))
    limits = left, group, quota_left
    replicas[open_jobs] = _share(term[open_jobs], tie[open_jobs], more, allowed, *limits)
    return replicas


def _share(term, tie, costs, allowed, budget, group, quota) -> np.ndarray:
    """Each job's column (jobs,) by dynamic programming.

    With quotas, each tenant is solved at every budget first. Then the budget is divided.
    """
    from faro_lib.allocate import _solver_kernels as kernels

    if len(quota) == 1:
        _, _, choice = kernels.knapsack(term, tie, costs, allowed, budget)
        return kernels.trace(choice, costs, budget)
    shape = len(quota), int(quota.max()) + 1
    values = np.full(shape, -np.inf)  # (tenants, units of budget) best sum of terms
    ties = np.full(shape, np.inf)  # (tenants, units of budget) its tie-break
    members = [group == g for g in range(len(quota))]
    choices = []
    for g, (rows, units) in enumerate(zip(members, quota.tolist())):
        best = kernels.knapsack(term[rows], tie[rows], costs[rows], allowed[rows], units)
        values[g, : units + 1], ties[g, : units + 1], choice = best
        choices.append(choice)
    units = np.tile(np.arange(shape[1]), (len(quota), 1))
    _, _, choice = kernels.knapsack(values, ties, units, ~np.isneginf(values), budget)
    shares = kernels.trace(choice, units, budget).tolist()
    replicas = np.empty(len(term), np.int64)
    for rows, inner, share in zip(members, choices, shares):
        replicas[rows] = kernels.trace(inner, costs[rows], share)
    return replicas
