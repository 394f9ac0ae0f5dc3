"""Exact solutions: dynamic programming over the budget, and a search over intervals around it.

The utility of a job is not concave in its replicas (it is convex below saturation), so that greedy is not exact;
dynamic programming is, in jobs x budget x columns steps, and reduced costs take away most columns beforehand.
"""

from __future__ import annotations

import heapq

import numpy as np

from faro_lib.allocate.leximin import leximin
from faro_lib.allocate.objectives import QUANTUM, quantised


def exact(problem):
    """The optimum, which is its own bound."""
    if problem.objective.leximin:
        replicas = leximin(problem)
    elif problem.gamma:
        replicas = _with_spread(problem)
    else:
        replicas = best_sum(problem, ~np.isneginf(problem.term))
    return replicas, problem.score(replicas)


def best_sum(problem, allowed, floor=None, term=None):
    """Most sum of terms over the allowed columns, then the least tie; None if nothing fits or all is below `floor`.

    Quotas nest: each tenant's best for every budget up to its quota becomes one row of the same program.
    """
    from faro_lib.allocate import _solver_kernels as _compiled

    term = problem.term if term is None else term
    cost = costs(problem)
    if floor is None and len(problem.quota) == 1:
        # Any solution is a floor; near-optimal ones are cheap.
        bound, price, pick, feasible = _compiled.dual_bound(term, cost, allowed, problem.budget)
        if not feasible:
            return None
        floor = _compiled.fill_up(term, cost, allowed, problem.budget, pick)
        allowed = _compiled.drop_hopeless(term, cost, allowed, bound, price, floor)
    if len(problem.quota) == 1:
        best, _, choice = _compiled.knapsack(term, problem.tie, cost, allowed, problem.budget)
        return None if np.isneginf(best[-1]) else _compiled.trace(choice, cost, problem.budget)
    widest = int(problem.quota.max()) + 1
    values, ties = np.full((len(problem.quota), widest), -np.inf), np.full((len(problem.quota), widest), np.inf)
    choices = []
    for g, quota in enumerate(problem.quota):
        rows = problem.group == g
        best, least, choice = _compiled.knapsack(term[rows], problem.tie[rows], cost[rows], allowed[rows], int(quota))
        values[g, : quota + 1], ties[g, : quota + 1] = best, least
        choices.append(choice)
    spent = np.tile(np.arange(widest), (len(problem.quota), 1))
    best, _, share = _compiled.knapsack(values, ties, spent, ~np.isneginf(values), problem.budget)
    if np.isneginf(best[-1]):
        return None
    replicas = np.empty(len(term), np.int64)
    for g, units in enumerate(_compiled.trace(share, spent, problem.budget)):
        rows = problem.group == g
        replicas[rows] = _compiled.trace(choices[g], cost[rows], int(units))
    return replicas


def costs(problem) -> np.ndarray:
    """Units of every choice, (jobs, X + 1)."""
    return problem.cost[:, None] * np.arange(problem.term.shape[1])[None, :]


def tie_of(problem, replicas) -> float:
    return float(problem.tie[np.arange(len(replicas)), replicas].sum())


def _with_spread(problem):
    """Branch and bound over lo = min U and hi = max U, around `best_sum` with lo <= U_j(x) <= hi.

    On a rectangle of (lo, hi) the objective is at most the Lagrangian bound at its loosest corner plus gamma times its
    best spread; rectangles are taken best first, and a single point is solved exactly.
    """
    from faro_lib.allocate import _solver_kernels as _compiled

    utility, term, cost, budget, gamma = problem.utility, problem.term, costs(problem), problem.budget, problem.gamma
    levels = np.unique(utility[~np.isneginf(utility)])
    quotas = len(problem.quota) > 1
    best = [-np.inf, np.inf, None]

    def spread(low, high):
        return float(quantised(gamma * (low - high)))

    def offer(replicas):
        if replicas is not None:
            value, tie = problem.score(replicas), tie_of(problem, replicas)
            if value > best[0] or (value == best[0] and tie < best[1]):
                best[:] = [value, tie, replicas]

    def bound_of(node):
        a, b, c, d = node
        if levels[a] > levels[d]:
            return -np.inf
        allowed = _compiled.between(utility, levels[a], levels[d])
        bound, _, pick, feasible = _compiled.dual_bound(term, cost, allowed, budget)
        if not feasible:
            return -np.inf
        if not quotas:
            # The rounded relaxation is a solution, and good enough to prune by.
            _compiled.fill_up(term, cost, allowed, budget, pick)
            offer(pick)
        else:
            replicas = best_sum(problem, allowed)
            if replicas is None:
                return -np.inf
            offer(replicas)
            bound = float(term[np.arange(len(replicas)), replicas].sum())
        return bound + gamma * (min(levels[b], levels[d]) - max(levels[c], levels[a]))

    top = len(levels) - 1
    node = (0, top, 0, top)
    heap = [(-bound_of(node), node)]
    while heap:
        bound, node = heapq.heappop(heap)
        if -bound < best[0] - QUANTUM / 2:
            break
        a, b, c, d = node
        if a == b and c == d:
            allowed = _compiled.between(utility, levels[a], levels[d])
            floor = best[0] - spread(levels[a], levels[d])
            if not quotas:
                sum_bound, price, _, _ = _compiled.dual_bound(term, cost, allowed, budget)
                allowed = _compiled.drop_hopeless(term, cost, allowed, sum_bound, price, floor)
            offer(best_sum(problem, allowed, floor))
            continue
        if (levels[b] - levels[a] >= levels[d] - levels[c] and a < b) or c == d:
            m = (a + b) // 2
            parts = ((a, m, c, d), (m + 1, b, c, d))
        else:
            m = (c + d) // 2
            parts = ((a, b, c, m), (a, b, m + 1, d))
        for part in parts:
            bound = bound_of(part)
            if bound >= best[0] - QUANTUM / 2 and bound > -np.inf:
                heapq.heappush(heap, (-bound, part))
    return best[2]
