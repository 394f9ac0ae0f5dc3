"""Compiled loops of `build_table`; imported when first used."""

import numpy as np
from numba import njit


@njit(cache=True, inline="always")
def _utility(load, first, last, per_load, value, alpha):
    """A curve of `curves` at one load."""
    if load <= first:
        return value[0]
    if load >= last:
        ratio = last / load
        return value[-1] * (ratio if alpha == 1.0 else ratio**alpha)
    position = (load - first) * per_load
    i = int(position)
    return value[i] + (position - i) * (value[i + 1] - value[i])


@njit(cache=True)
def _mean(loads, weights, keep, first, last, value, alpha):
    """Sum over samples and minutes of weights[minute] x utility at `keep` times the load."""
    total = 0.0
    per_load = (len(value) - 1) / (last - first) if last > first else 0.0
    samples, minutes = loads.shape
    for s in range(samples):
        for m in range(minutes):
            if weights[m] > 0.0:
                total += weights[m] * _utility(loads[s, m] * keep, first, last, per_load, value, alpha)
    return total


@njit(cache=True)
def _cell(loads, weights, cold, grown, d, drops, curves_now, curves_x, alpha, cold_part):
    """Utility of one cell at drop rate d: minutes that x replicas serve, and minutes that the running count serves.

    `cold_part` (drops,) caches the latter, which is the same for all x above the running count.
    """
    keep = 1.0 - drops[d]
    first, last, value = curves_x
    total = _mean(loads, weights, keep, first, last, value, alpha)
    if not grown:
        return total
    if np.isnan(cold_part[d]):
        first, last, value = curves_now
        cold_part[d] = _mean(loads, cold, keep, first, last, value, alpha)
    return total + cold_part[d]


@njit(cache=True)
def _best_drop(loads, weights, cold, grown, drops, phi, curves_now, curves_x, alpha, cold_part, undropped, stack):
    """The largest phi(d) U(d) on the grid, and its index; exact, by branch and bound.

    U increases and phi decreases in d, so on drops a..b the product is at most phi(a) U(b).
    """
    utility = np.full(len(drops), np.nan)
    utility[0] = undropped
    best, at = undropped * phi[0], 0
    stack[0, 0], stack[0, 1] = 0, len(drops) - 1
    depth = 1
    while depth > 0:
        depth -= 1
        a, b = stack[depth, 0], stack[depth, 1]
        if phi[a + 1] * 1.0 <= best:
            continue
        if np.isnan(utility[b]):
            utility[b] = _cell(loads, weights, cold, grown, b, drops, curves_now, curves_x, alpha, cold_part)
            product = utility[b] * phi[b]
            if product > best or (product == best and b < at):
                best, at = product, b
        if b - a > 1 and phi[a + 1] * utility[b] >= best:
            middle = (a + b) // 2
            stack[depth, 0], stack[depth, 1] = middle, b
            stack[depth + 1, 0], stack[depth + 1, 1] = a, middle
            depth += 2
    return best, at


@njit(cache=True)
def fill(loads, warm, cold, running, low, high, of_job, first, last, curve, alpha, drops, phi, value, effective, drop):
    """Fill value, effective and drop in place, all (jobs, X + 1); `build_table` has the definitions.

    loads (jobs, samples, minutes); warm and cold (jobs, minutes): the weight of each minute, split into the
    parts that the new and the running count serve. Returns the largest x that differs from x - 1, per job.
    """
    jobs, columns = value.shape
    both = warm + cold
    saturated = np.zeros(jobs, np.int64)
    cold_part = np.empty(len(drops))
    stack = np.empty((64, 2), np.int64)
    for j in range(jobs):
        k, now = of_job[j], running[j]
        largest = loads[j].max()
        cold_part[:] = np.nan
        curves_now = (first[k, now], last[k, now], curve[k, now])
        finished = -1
        for x in range(columns):
            if x < low[j] or x > high[j]:
                continue
            if finished >= 0:
                value[j, x], effective[j, x], drop[j, x] = value[j, finished], effective[j, finished], drop[j, finished]
                continue
            saturated[j] = x
            curves_x = (first[k, x], last[k, x], curve[k, x])
            grown = x > now
            weights = warm[j] if grown else both[j]
            v = _cell(loads[j], weights, cold[j], grown, 0, drops, curves_now, curves_x, alpha, cold_part)
            value[j, x], effective[j, x], drop[j, x] = v, v, 0.0
            if len(drops) > 1:
                effective[j, x], at = _best_drop(
                    loads[j], weights, cold[j], grown, drops, phi, curves_now, curves_x, alpha, cold_part, v, stack
                )
                drop[j, x] = drops[at]
            # Every request of every sample meets its SLO: more replicas change nothing.
            if largest <= first[k, x] and curve[k, x, 0] == 1.0 and (grown or cold[j].sum() == 0.0 or v >= 1.0 - 1e-12):
                finished = x
    return saturated
