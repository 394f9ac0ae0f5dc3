"""Compiled loops of `build_table`, which imports this module when it is first called.

A curve (first, last, value) is the utility of one service class and replica count as a function of
load. `value` has the utilities at knots, which are equally spaced from load `first` to load `last`.
"""

import numpy as np
from numba import njit


@njit(cache=True, inline="always")
def _utility(load, first, last, per_load, value, alpha):
    """The utility of a curve at `load` erlangs; the curve has `per_load` knots per erlang."""
    if load <= first:
        return value[0]
    if load >= last:
        ratio = last / load
        return value[-1] * (ratio if alpha == 1.0 else ratio**alpha)
    position = (load - first) * per_load
    i = int(position)
    return value[i] + (position - i) * (value[i + 1] - value[i])


@njit(cache=True)
def met_loads(first, last, value, met):
    """Load up to which each curve has at least the utility `met`, (classes, X + 1); -1 if none."""
    classes, columns, knots = value.shape
    load = np.full((classes, columns), -1.0)
    for k in range(classes):
        for x in range(columns):
            below = 0
            while below < knots and value[k, x, below] >= met:
                below += 1
            if below > 0:
                apart = (last[k, x] - first[k, x]) / (knots - 1)
                load[k, x] = first[k, x] + (below - 1) * apart
    return load


@njit(cache=True)
def _mean(loads, weights, keep, curve, alpha):
    """Sum of weights[m] * utility(loads[s, m] * keep) over samples s and minutes m.

    `keep` is the share of the requests that is served.
    """
    first, last, value = curve
    per_load = (len(value) - 1) / (last - first) if last > first else 0.0
    total = 0.0
    samples, minutes = loads.shape
    for s in range(samples):
        for m in range(minutes):
            if weights[m] > 0.0:
                load = loads[s, m] * keep
                total += weights[m] * _utility(load, first, last, per_load, value, alpha)
    return total


@njit(cache=True)
def _cell(cell, d):
    """Expected utility of a table cell (one job with one replica count) at drop rate drops[d].

    If `grown`, new replicas must start. Until then, running replicas serve `loads_now` with the
    curve `curve_now`. The utility of the start-up time is cached in `cold_part[d]`, because it is
    the same for any number of new replicas.
    """
    loads, weights, curve_x, alpha, drops, grown, now_part = cell
    keep = 1.0 - drops[d]
    total = _mean(loads, weights, keep, curve_x, alpha)
    if not grown:
        return total
    loads_now, cold, curve_now, cold_part = now_part
    if np.isnan(cold_part[d]):
        cold_part[d] = _mean(loads_now, cold, keep, curve_now, alpha)
    return total + cold_part[d]


@njit(cache=True)
def _best_drop(cell, phi, undropped, stack):
    """The maximum of phi[d] U(d) over the indices d of the drop rates, and its d.

    Branch and bound finds it. U(d) is `_cell(cell, d)`, and `undropped` is U(0). As d grows, U(d)
    increases and the penalty phi[d] decreases. For a < d <= b, the product is therefore at most
    phi[a + 1] U(b). `stack` is work space.
    """
    utility = np.full(len(phi), np.nan)
    utility[0] = undropped
    best = undropped * phi[0]
    at = 0
    stack[0, 0], stack[0, 1] = 0, len(phi) - 1
    depth = 1
    while depth > 0:
        depth -= 1
        a, b = stack[depth, 0], stack[depth, 1]
        if phi[a + 1] <= best:  # U is at most 1, so phi[a + 1] bounds all products of this range
            continue
        if np.isnan(utility[b]):
            utility[b] = _cell(cell, b)
            product = utility[b] * phi[b]
            if product > best or (product == best and b < at):
                best = product
                at = b
        if b - a > 1 and phi[a + 1] * utility[b] >= best:
            middle = (a + b) // 2
            stack[depth, 0], stack[depth, 1] = middle, b
            stack[depth + 1, 0], stack[depth + 1, 1] = a, middle
            depth += 2
    return best, at


@njit(cache=True)
def fill(
    loads,
    warm,
    cold,
    both,
    running,
    serving,
    low,
    high,
    of_job,
    first,
    last,
    curve,
    alpha,
    drops,
    phi,
    value,
    effective,
    drop,
):
    """Fill `value`, `effective` and `drop`, all (jobs, X + 1).

    Returns the replica count from which they are constant. `value` is the expected utility without
    drops. `effective` is the maximum over d of phi[d] times the utility at rate drops[d], and
    `drop` is the best rate. `loads` (jobs, samples, minutes) is in erlangs. `cold` and `warm`
    (jobs, minutes) weight the time before and after new replicas start, and `both` is their sum.
    `cold` does not grow from minute to minute. Before the start, the replicas of job serving[j]
    serve job j.
    """
    jobs, columns = value.shape
    saturated = 0
    # Load up to which all utilities are 1 on x and more replicas.
    met = met_loads(first, last, curve, 1.0)
    for k in range(met.shape[0]):
        for x in range(met.shape[1] - 2, -1, -1):
            met[k, x] = min(met[k, x], met[k, x + 1])
    cold_part = np.empty(len(drops))
    stack = np.empty((64, 2), np.int64)
    for j in range(jobs):
        k, k_now, now = of_job[j], of_job[serving[j]], running[j]
        largest = 0.0
        for load in loads[j].flat:
            largest = max(largest, load)
        cold_part[:] = np.nan
        curve_now = (first[k_now, now], last[k_now, now], curve[k_now, now])
        loads_now = loads[serving[j]]
        finished = False
        same, same_grown = -1, False  # a cell that later ones equal, and whether it has grown
        for x in range(low[j], min(high[j] + 1, columns)):
            grown = x > now or serving[j] != j
            if not finished:
                saturated = max(saturated, x)
            if same >= 0 and (finished or grown == same_grown):
                value[j, x] = value[j, same]
                effective[j, x] = effective[j, same]
                drop[j, x] = drop[j, same]
                continue
            curve_x = (first[k, x], last[k, x], curve[k, x])
            weights = warm[j] if grown else both[j]
            now_part = (loads_now, cold[j], curve_now, cold_part)
            cell = (loads[j], weights, curve_x, alpha, drops, grown, now_part)
            undropped = _cell(cell, 0)
            value[j, x] = undropped
            effective[j, x] = undropped
            drop[j, x] = 0.0
            if len(drops) > 1:
                effective[j, x], at = _best_drop(cell, phi, undropped, stack)
                drop[j, x] = drops[at]
            if largest < (1 - 1e-9) * met[k, x]:  # with a margin for rounding
                same, same_grown = x, grown
            # Once every sample of every minute meets the SLO, more replicas change nothing.
            meets_slo = largest <= first[k, x] and curve[k, x, 0] == 1.0
            if meets_slo and (grown or cold[j, 0] == 0.0 or undropped >= 1.0 - 1e-12):
                finished, same = True, x
    return saturated
