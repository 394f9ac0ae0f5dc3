"""Compiled loops of `build_table`; imported when first used."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, inline="always")
def _utility(load, first, last, per_load, value, alpha):
    if load <= first:
        return value[0]
    if load >= last:
        fallen = last / load
        return value[-1] * (fallen if alpha == 1.0 else fallen**alpha)
    position = (load - first) * per_load
    i = int(position)
    return value[i] + (position - i) * (value[i + 1] - value[i])


@njit(cache=True)
def _mean(loads, weights, keep, first, last, value, alpha):
    """Sum of weights x utility of the loads, of which only `keep` passes."""
    total = 0.0
    per_load = (len(value) - 1) / (last - first) if last > first else 0.0
    for n in range(len(loads)):
        if weights[n] > 0.0:
            total += weights[n] * _utility(loads[n] * keep, first, last, per_load, value, alpha)
    return total


@njit(cache=True)
def fill(loads, warm, cold, running, low, high, of_job, first, last, curve, alpha, drops, phi, value, effective, drop):
    """Fill value, effective and drop in place, all (jobs, X + 1); see `build_table` for the meaning of everything.

    loads (jobs, n); warm and cold (jobs, n): the weight of each entry, the part served by the new and by the running
    count. Returns the largest x that still differs from x - 1, per job.
    """
    jobs, columns = value.shape
    all_of = warm + cold
    saturated = np.zeros(jobs, np.int64)
    n_drops = len(drops)
    cold_part = np.empty(n_drops)
    seen = np.empty(n_drops)
    stack = np.empty((64, 2), np.int64)
    for j in range(jobs):
        k = of_job[j]
        top = loads[j].max() if loads.shape[1] else 0.0
        now = running[j]
        cold_part[:] = np.nan
        finished = -1
        for x in range(columns):
            if x < low[j] or x > high[j]:
                continue
            if finished >= 0:
                value[j, x], effective[j, x], drop[j, x] = value[j, finished], effective[j, finished], drop[j, finished]
                continue
            saturated[j] = x
            f, l, c = first[k, x], last[k, x], curve[k, x]
            grown = x > now
            weights = warm[j] if grown else all_of[j]
            if grown and np.isnan(cold_part[0]):
                cold_part[0] = _mean(loads[j], cold[j], 1.0, first[k, now], last[k, now], curve[k, now], alpha)
            v = _mean(loads[j], weights, 1.0, f, l, c, alpha) + (cold_part[0] if grown else 0.0)
            value[j, x] = v
            effective[j, x] = v
            drop[j, x] = 0.0
            if n_drops > 1:
                # Best drop on the grid, exactly: on drops a..b the product is at most phi(a) U(b).
                seen[:] = np.nan
                seen[0] = v
                best, at = v * phi[0], 0
                stack[0, 0], stack[0, 1] = 0, n_drops - 1
                depth = 1
                while depth > 0:
                    depth -= 1
                    a, b = stack[depth, 0], stack[depth, 1]
                    if phi[a + 1] * 1.0 <= best:
                        continue
                    if np.isnan(seen[b]):
                        keep = 1.0 - drops[b]
                        seen[b] = _mean(loads[j], weights, keep, f, l, c, alpha)
                        if grown:
                            if np.isnan(cold_part[b]):
                                cold_part[b] = _mean(
                                    loads[j], cold[j], keep, first[k, now], last[k, now], curve[k, now], alpha
                                )
                            seen[b] += cold_part[b]
                        product = seen[b] * phi[b]
                        if product > best or (product == best and b < at):
                            best, at = product, b
                    if b - a > 1 and phi[a + 1] * seen[b] >= best:
                        middle = (a + b) // 2
                        stack[depth, 0], stack[depth, 1] = middle, b
                        stack[depth + 1, 0], stack[depth + 1, 1] = a, middle
                        depth += 2
                effective[j, x] = best
                drop[j, x] = drops[at]
            # Every request of every sample keeps its promise: more replicas change nothing.
            if top <= f and c[0] == 1.0 and (x > now or cold[j].sum() == 0.0 or v >= 1.0 - 1e-12):
                finished = x
    return saturated
