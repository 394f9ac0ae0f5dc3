"""Compiled loops of the solvers; imported when first used."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def knapsack(term, tie, cost, allowed, budget):
    """One choice a row, total cost within `budget`: most `term`, then least `tie`.

    term, tie, allowed (rows, choices); cost (rows, choices) whole units, >= 0. Returns the best term and tie for every
    budget 0..budget, both -inf / inf where nothing fits, and the choice of every row there (rows, budget + 1).
    """
    rows, choices = term.shape
    best = np.zeros(budget + 1)
    least = np.zeros(budget + 1)
    new_best = np.empty(budget + 1)
    new_least = np.empty(budget + 1)
    choice = np.empty((rows, budget + 1), np.int32)
    for j in range(rows):
        new_best[:] = -np.inf
        new_least[:] = np.inf
        choice[j, :] = -1
        for x in range(choices):
            if not allowed[j, x]:
                continue
            u, t, c = term[j, x], tie[j, x], cost[j, x]
            for b in range(c, budget + 1):
                v = best[b - c] + u
                if v >= new_best[b] and v > -np.inf:
                    w = least[b - c] + t
                    if v > new_best[b] or w < new_least[b]:
                        new_best[b] = v
                        new_least[b] = w
                        choice[j, b] = x
        best, new_best = new_best, best
        least, new_least = new_least, least
    return best, least, choice


@njit(cache=True)
def trace(choice, cost, budget):
    """Choices of every row on the way to `budget`."""
    rows = choice.shape[0]
    out = np.empty(rows, np.int64)
    b = budget
    for j in range(rows - 1, -1, -1):
        out[j] = choice[j, b]
        b -= cost[j, out[j]]
    return out
