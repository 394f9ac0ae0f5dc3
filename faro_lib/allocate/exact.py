"""Exact solutions by dynamic programming over the budget."""

from __future__ import annotations

import numpy as np


def exact(problem):
    """The optimum and itself as the bound."""
    from faro_lib.allocate import _compiled

    if problem.objective.leximin or problem.gamma or len(problem.quota) > 1:
        raise NotImplementedError("next commit")
    cost = problem.cost[:, None] * np.arange(problem.term.shape[1])[None, :]
    best, _, choice = _compiled.knapsack(problem.term, problem.tie, cost, ~np.isneginf(problem.term), problem.budget)
    replicas = _compiled.trace(choice, cost, problem.budget)
    return replicas, problem.score(replicas)
