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


@njit(cache=True)
def dual_bound(term, cost, allowed, budget):
    """The Lagrangian bound min over price >= 0 of sum_j max_x (term - price cost x) + price budget, by bisection.

    Equal to the convex relaxation over the rows' concave envelopes. Any price gives a valid bound, so that rounding in
    the bisection can only loosen it. Returns (bound, price, choice of every row at the price, feasible).
    """
    rows, choices = term.shape
    pick = np.zeros(rows, np.int64)
    least = 0
    top = 0.0
    # At price 0 the best terms are the bound, unless they do not fit.
    spent = 0
    total = 0.0
    for j in range(rows):
        best, at, cheapest = -np.inf, -1, -1
        worst = np.inf
        for x in range(choices):
            if allowed[j, x]:
                if cheapest < 0 or cost[j, x] < cost[j, cheapest]:
                    cheapest = x
                if term[j, x] > best:
                    best, at = term[j, x], x
                worst = min(worst, term[j, x])
        if at < 0:
            return -np.inf, 0.0, pick, False
        least += cost[j, cheapest]
        pick[j] = at
        spent += cost[j, at]
        total += best
        top = max(top, best - worst)
    if least > budget:
        return -np.inf, 0.0, pick, False
    if spent <= budget:
        return total, 0.0, pick, True
    low, high = 0.0, max(top, 1e-9) + 1e-9
    bound, price = total, 0.0
    for _ in range(60):
        middle = (low + high) / 2
        spent, total = 0, middle * budget
        for j in range(rows):
            best, at = -np.inf, -1
            for x in range(choices):
                if allowed[j, x]:
                    v = term[j, x] - middle * cost[j, x]
                    if v > best:
                        best, at = v, x
            total += best
            spent += cost[j, at]
            pick[j] = at
        if total < bound:
            bound, price = total, middle
        if spent > budget:
            low = middle
        else:
            high = middle
        if high - low < 1e-10 * max(high, 1e-3) or spent == budget:
            break
    # The picks that fit, at the upper end.
    for j in range(rows):
        best, at = -np.inf, -1
        for x in range(choices):
            if allowed[j, x]:
                v = term[j, x] - high * cost[j, x]
                if v > best:
                    best, at = v, x
        pick[j] = at
    return bound, price, pick, True


@njit(cache=True)
def fill_up(term, cost, allowed, budget, pick):
    """Improve `pick`, which fits, by the best gain per cost that still fits, until none does. Returns its sum."""
    rows, choices = term.shape
    spent = 0
    for j in range(rows):
        spent += cost[j, pick[j]]
    room = budget - spent
    # The best step of each row is kept, and looked for again only when the row moves or the step no longer fits.
    step = np.full(rows, -1, np.int64)
    rate = np.zeros(rows)
    stale = np.ones(rows, np.bool_)
    while room >= 0:
        chosen = -1
        for j in range(rows):
            if stale[j] or (step[j] >= 0 and cost[j, step[j]] - cost[j, pick[j]] > room):
                step[j], rate[j], stale[j] = -1, 0.0, False
                for x in range(choices):
                    if allowed[j, x]:
                        gain, more = term[j, x] - term[j, pick[j]], cost[j, x] - cost[j, pick[j]]
                        if gain > 0 and 0 < more <= room and gain / more > rate[j]:
                            step[j], rate[j] = x, gain / more
            if step[j] >= 0 and (chosen < 0 or rate[j] > rate[chosen]):
                chosen = j
        if chosen < 0:
            break
        room -= cost[chosen, step[chosen]] - cost[chosen, pick[chosen]]
        pick[chosen] = step[chosen]
        stale[chosen] = True
    total = 0.0
    for j in range(rows):
        total += term[j, pick[j]]
    return total


@njit(cache=True)
def drop_hopeless(term, cost, allowed, bound, price, floor):
    """Choices that no solution worth at least `floor` can contain (reduced cost > bound - floor) are disallowed."""
    rows, choices = term.shape
    out = allowed.copy()
    room = bound - floor + 1e-9
    for j in range(rows):
        best = -np.inf
        for x in range(choices):
            if allowed[j, x]:
                best = max(best, term[j, x] - price * cost[j, x])
        for x in range(choices):
            if allowed[j, x] and best - (term[j, x] - price * cost[j, x]) > room:
                out[j, x] = False
    return out


@njit(cache=True)
def between(utility, low, high):
    """Where low <= utility <= high."""
    rows, choices = utility.shape
    out = np.empty((rows, choices), np.bool_)
    for j in range(rows):
        for x in range(choices):
            out[j, x] = low <= utility[j, x] <= high
    return out


@njit(cache=True)
def score_between(utility, term, x, gamma, leximin, plateau):
    """Objective at fractional columns x: straight lines between the columns, or the column below if `plateau`."""
    total, low, high = 0.0, np.inf, -np.inf
    last = utility.shape[1] - 1
    for j in range(len(x)):
        position = min(max(x[j], 0.0), last)
        i = min(int(position), last - 1) if last > 0 else 0
        t = position - i
        if plateau:
            t = np.floor(t)
        k = min(i + 1, last)
        u = (1 - t) * utility[j, i] + t * utility[j, k]
        total += (1 - t) * term[j, i] + t * term[j, k]
        low, high = min(low, u), max(high, u)
    return low if leximin else total + gamma * (low - high)


@njit(cache=True)
def paper_score(
    x, drop, loads, running, cold, slo, percentile, weight, bound_model, precise, alpha, rho_max, steps, gamma, mode
):
    """The paper's objective at fractional replicas.

    loads (jobs, minutes) erlangs at one quantile; slo in service times (upper bound: in s); mode 0: sum, 1: sum and
    spread, 2: spread
    alone. Drops multiply the utility and leave the rate alone, as in the published code.
    """
    jobs, minutes = loads.shape
    total, low, high = 0.0, np.inf, -np.inf
    for j in range(jobs):
        u = 0.0
        for m in range(minutes):
            c = running[j] if (cold and m == 0 and x[j] > running[j]) else x[j]
            u += _paper_utility(loads[j, m], c, slo[j], percentile[j], bound_model, precise, alpha, rho_max)
        u *= _penalty(drop[j], precise, steps) / minutes
        total += weight[j] * u
        low, high = min(low, u), max(high, u)
    if mode == 2:
        return low - high
    return total + gamma * (low - high) if mode == 1 else total


@njit(cache=True)
def _penalty(d, precise, steps):
    if d <= steps[0]:
        return 1.0
    if precise:
        return 0.75 if d <= steps[1] else (0.5 if d <= steps[2] else 0.0)
    if d <= steps[1]:
        return 1.0 - 0.25 * (d - steps[0]) / (steps[1] - steps[0])
    if d <= steps[2]:
        return 0.75 - 0.25 * (d - steps[1]) / (steps[2] - steps[1])
    return max(0.0, 0.5 * (1.0 - d) / (1.0 - steps[2]))


@njit(cache=True)
def _paper_utility(load, c, slo, percentile, bound_model, precise, alpha, rho_max):
    if c <= 0:
        return 1.0 if load <= 0 else 0.0
    if bound_model:
        latency = load / c
    else:
        # Precise: the queue as it is, without end beyond saturation.
        if precise and load >= c:
            return 0.0
        inside = load if precise else min(load, rho_max * c)
        blocked = 1.0
        for k in range(1, int(c) + 1):
            carried = inside * blocked
            blocked = carried / (k + carried)
        rho = inside / c
        waits = blocked / (1.0 - rho * (1.0 - blocked))
        wait = np.log(waits / (1.0 - percentile)) / (c - inside) if waits > 0 else 0.0
        latency = (1.0 + max(0.0, wait) / 2) * max(1.0, load / inside if inside > 0 else 1.0)
    if latency <= slo:
        return 1.0
    if precise:
        return 0.0
    return (slo / latency) ** alpha
