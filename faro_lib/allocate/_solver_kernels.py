"""Compiled loops of the solvers; imported when first used.

A row is a job, and a choice is a replica count. When the budget is divided among tenants, a row is
a tenant, and a choice is a number of budget units. `term` (what a choice adds to the objective),
`cost` (whole units >= 0) and `allowed` (bool) have shape (rows, choices). `pick` (rows,) has one
choice per row.
"""

import numpy as np
from numba import njit

from faro_lib.workload.jobs import TOLERANCE


@njit(cache=True)
def knapsack(term, tie, cost, allowed, budget):
    """Find one choice per row with the largest sum of `term`, then the least sum of `tie`.

    Returns three arrays. The first two (budget + 1,) are the best sums of `term` and of `tie` at
    each budget up to `budget`, or -inf and inf if nothing fits. The third (rows, budget + 1) has
    the choices, from which `trace` reads the solution.
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
    """The optimal choice of each row (rows,) at `budget`; `choice` is a result of `knapsack`."""
    rows = choice.shape[0]
    pick = np.empty(rows, np.int64)
    for j in range(rows - 1, -1, -1):
        pick[j] = choice[j, budget]
        budget -= cost[j, pick[j]]
    return pick


@njit(cache=True)
def _pick_at(price, term, cost, allowed, budget, pick):
    """Set `pick` to each row's choice with the largest `term - price * cost`.

    Returns (Lagrangian, total cost).
    """
    rows, choices = term.shape
    spent = 0
    total = price * budget
    for j in range(rows):
        best = -np.inf
        at = -1
        for x in range(choices):
            if allowed[j, x]:
                v = term[j, x] - price * cost[j, x]
                if v > best:
                    best = v
                    at = x
        total += best
        spent += cost[j, at]
        pick[j] = at
    return total, spent


@njit(cache=True)
def dual_bound(term, cost, allowed, budget, guess=0.0, enough=-np.inf):
    """The Lagrangian upper bound on the sum of terms, the minimum over prices >= 0.

    The Lagrangian is price x budget + the sum over rows of the maximum of term - price x cost. Its
    minimum is the optimum of a relaxed problem, in which each row has the concave envelope of its
    terms. The search starts at the price `guess`. It stops when the bound is below `enough`. Every
    price gives a valid bound, so an inexact price only loosens the bound. Returns (bound, price, a
    pick within the budget, whether such a pick exists).
    """
    rows, choices = term.shape
    fitting = np.zeros(rows, np.int64)
    pick = np.zeros(rows, np.int64)
    # Sums over the rows at the lowest price, where each row picks its best choice, and at the
    # highest price, where each row picks its cheapest choice.
    low_total, low_spent = 0.0, 0
    high_total, high_spent = 0.0, 0
    widest = TOLERANCE  # becomes the largest gain of a row over its cheapest choice
    for j in range(rows):
        cheapest = best = -1
        for x in range(choices):
            if allowed[j, x]:
                if cheapest < 0 or cost[j, x] < cost[j, cheapest]:
                    cheapest = x
                if best < 0 or term[j, x] > term[j, best]:
                    best = x
        if best < 0 or term[j, best] == -np.inf:
            return -np.inf, 0.0, fitting, False
        fitting[j] = cheapest
        pick[j] = best
        low_total += term[j, best]
        low_spent += cost[j, best]
        high_total += term[j, cheapest]
        high_spent += cost[j, cheapest]
        widest = max(widest, term[j, best] - term[j, cheapest])
    if high_spent > budget:
        return -np.inf, 0.0, fitting, False
    if low_spent <= budget:
        return low_total, 0.0, pick, True
    bound, price = low_total, 0.0
    low, high = 0.0, widest + TOLERANCE
    high_total += high * (budget - high_spent)
    for n in range(60):
        # The dual is convex and piecewise linear. Its tangents at the prices `low` and `high` meet
        # at the price `middle` and the value `least`.
        by_low = low_total - low * (budget - low_spent)
        by_high = high_total - high * (budget - high_spent)
        middle = (by_low - by_high) / (low_spent - high_spent)
        least = by_low + middle * (budget - low_spent)
        if not low < middle < high:
            break
        if n == 0 and low < guess < high:
            middle, least = guess, -np.inf
        total, spent = _pick_at(middle, term, cost, allowed, budget, pick)
        if total < bound:
            bound, price = total, middle
        if spent > budget:
            low, low_total, low_spent = middle, total, spent
        else:
            high, high_total, high_spent = middle, total, spent
            fitting = pick.copy()
        if spent == budget or bound < enough or total <= least + TOLERANCE * abs(least):
            break
    return bound, price, fitting, True


@njit(cache=True)
def fill_up(term, cost, allowed, budget, pick):
    """Raise choices in `pick` (rows,) greedily, the largest gain per cost first, until none fits.

    Returns the sum of terms.
    """
    rows, choices = term.shape
    room = budget - sum([cost[j, pick[j]] for j in range(rows)])
    # A row's best step is computed again only after the row has taken it, or if it no longer fits
    # the remaining budget.
    step = np.full(rows, -1, np.int64)
    rate = np.zeros(rows)
    stale = np.ones(rows, np.bool_)
    while room >= 0:
        chosen = -1
        for j in range(rows):
            if stale[j] or (step[j] >= 0 and cost[j, step[j]] - cost[j, pick[j]] > room):
                stale[j] = False
                step[j] = -1
                rate[j] = 0.0
                for x in range(choices):
                    if allowed[j, x]:
                        gain = term[j, x] - term[j, pick[j]]
                        more = cost[j, x] - cost[j, pick[j]]
                        if gain > 0 and 0 < more <= room and gain / more > rate[j]:
                            step[j] = x
                            rate[j] = gain / more
            if step[j] >= 0 and (chosen < 0 or rate[j] > rate[chosen]):
                chosen = j
        if chosen < 0:
            break
        room -= cost[chosen, step[chosen]] - cost[chosen, pick[chosen]]
        pick[chosen] = step[chosen]
        stale[chosen] = True
    return sum([term[j, pick[j]] for j in range(rows)])
