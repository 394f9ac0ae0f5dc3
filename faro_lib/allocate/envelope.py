"""The concave envelope of the table: a greedy solver on it, its bound, and the price of one replica."""

from __future__ import annotations

import numpy as np

from faro_lib.allocate.exact import costs
from faro_lib.allocate.objectives import objective_of
from faro_lib.allocate.problem import problem_of


def greedy(problem):
    """Best gain per core first, along each job's concave envelope, until nothing fits; the bound is the relaxation's.

    Within one job's worth of the optimum for a sum. Under a spread or leximin objective the step that raises the
    objective most is taken, which may stop early. With quotas each step must fit its tenant's.
    """
    from faro_lib.allocate import _solver_kernels as _compiled

    cost, allowed = costs(problem), ~np.isneginf(problem.term)
    separable = not problem.objective.leximin and not problem.gamma
    bound, _, pick, _ = _compiled.dual_bound(problem.term, cost, allowed, problem.budget)
    if separable and len(problem.quota) == 1:
        _compiled.fill_up(problem.term, cost, allowed, problem.budget, pick)
        return pick, bound
    replicas = np.argmax(allowed, axis=1)
    hulls = [_hull(row) for row in (problem.utility if problem.objective.leximin else problem.term)]
    while True:
        best = None
        now = _key(problem, replicas)
        for j, hull in enumerate(hulls):
            for x in hull[hull > replicas[j]][:1]:
                tried = replicas.copy()
                tried[j] = x
                if problem.fits(tried):
                    gain = _key(problem, tried) - now
                    rate = gain / (cost[j, x] - cost[j, replicas[j]])
                    if gain > 1e-12 and (best is None or rate > best[0]):
                        best = (rate, tried)
        if best is None:
            return replicas, bound if separable else float("nan")
        replicas = best[1]


def _key(problem, replicas):
    """The objective; for leximin a sum in which the badly-off count far more."""
    if not problem.objective.leximin:
        return problem.score(replicas)
    chosen = problem.utility[np.arange(len(replicas)), replicas]
    return -float(np.exp(-20.0 * chosen).sum())


def _hull(row) -> np.ndarray:
    """Columns of the row that lie on its concave envelope."""
    kept: list[int] = []
    for x in np.flatnonzero(~np.isneginf(row)).tolist():
        while len(kept) > 1 and (row[kept[-1]] - row[kept[-2]]) * (x - kept[-1]) <= (row[x] - row[kept[-1]]) * (
            kept[-1] - kept[-2]
        ):
            kept.pop()
        kept.append(x)
    return np.array(kept)


def price_of_one_replica(table, budget, objective="Sum", *, gamma=None, quotas=None) -> float:
    """What one more core is worth to the convex relaxation: the dual price of the budget, in units of the objective.

    The relaxation is concave in the budget: its value at R + 1 minus that at R is at most this price, which is at most
    its value at R minus that at R - 1. For a spread objective the linear program is solved (needs cvxpy).
    """
    from faro_lib.allocate import _solver_kernels as _compiled

    chosen = objective_of(objective)
    problem = problem_of(table, budget, chosen, gamma=gamma, quotas=quotas)
    if chosen.leximin or problem.gamma or len(problem.quota) > 1:
        from faro_lib.allocate.milp import relaxation

        return relaxation(problem)[1] / problem.unit_cores
    allowed = ~np.isneginf(problem.term)
    return _compiled.dual_bound(problem.term, costs(problem), allowed, problem.budget)[1] / problem.unit_cores
