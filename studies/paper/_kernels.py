"""The paper's objective at fractional replicas, compiled; imported when first used."""

from typing import NamedTuple

import numpy as np
from numba import njit

from faro_lib.queueing import RHO_MAX
from faro_lib.utility import SOLVER_STEPS

FREE, STEP_1, STEP_2 = SOLVER_STEPS  # breakpoints of the drop penalty


class Formulation(NamedTuple):
    """The paper's continuous problem; all arrays but `loads` have shape (jobs,)."""

    loads: np.ndarray  # (jobs, minutes) erlangs, at one quantile of the forecast
    running: np.ndarray
    cold_start: bool  # whether new replicas serve only from the second minute on
    slo: np.ndarray  # in seconds if `upper_bound`, otherwise in service times
    quantile: np.ndarray
    weight: np.ndarray
    upper_bound: bool  # whether the latency is load / c; otherwise half-M/M/c
    precise: bool  # whether utility and drop penalty are step functions
    gamma: float
    spread_only: bool  # whether the objective is gamma (min U - max U) alone


@njit(cache=True)
def score(x, drop, f):
    """The objective of the `Formulation` f at fractional replicas x and drop rates, both (jobs,).

    As in the published code, a drop rate reduces the utility but not the load, and no job has any
    utility if one of them has no replicas.
    """
    jobs, minutes = f.loads.shape
    if x.min() <= 0:
        return 0.0
    total, low, high = 0.0, np.inf, -np.inf
    for j in range(jobs):
        u = 0.0
        for m in range(minutes):
            c = x[j]
            if f.cold_start and m == 0 and c > f.running[j]:  # new replicas do not serve yet
                c = f.running[j]
            u += _utility(f.loads[j, m], c, f.slo[j], f.quantile[j], f.upper_bound, f.precise)
        u *= _penalty(drop[j], f.precise) / minutes
        total += f.weight[j] * u
        low, high = min(low, u), max(high, u)
    if f.spread_only:
        return f.gamma * (low - high)
    return total + f.gamma * (low - high)


@njit(cache=True)
def _penalty(d, precise):
    """`utility.precise_drop_penalty` or `relaxed_drop_penalty`, with SOLVER_STEPS."""
    if d <= FREE:
        return 1.0
    if precise and d <= STEP_1:
        return 0.75
    if precise:
        return 0.5 if d <= STEP_2 else 0.0
    if d <= STEP_1:
        return 1.0 - 0.25 * (d - FREE) / (STEP_1 - FREE)
    if d <= STEP_2:
        return 0.75 - 0.25 * (d - STEP_1) / (STEP_2 - STEP_1)
    return max(0.0, 0.5 * (1.0 - d) / (1.0 - STEP_2))


@njit(cache=True)
def _utility(load, c, slo, quantile, upper_bound, precise):
    """Utility of `load` erlangs on c replicas, by the upper bound or `half_mmc`.

    It is relaxed unless `precise`.
    """
    if c <= 0:
        return 1.0 if load <= 0 else 0.0
    if upper_bound:
        latency = load / c
    elif precise and load >= c:  # saturated, and without the relaxation
        return 0.0
    else:
        stable = load if precise else min(load, RHO_MAX * c)
        blocked = 1.0
        for k in range(1, int(c) + 1):
            carried = stable * blocked
            blocked = carried / (k + carried)
        rho = stable / c
        waits = blocked / (1.0 - rho * (1.0 - blocked))
        wait = np.log(waits / (1.0 - quantile)) / (c - stable) if waits > 0 else 0.0
        latency = (1.0 + max(0.0, wait) / 2) * max(1.0, load / stable if stable > 0 else 1.0)
    if latency <= slo:
        return 1.0
    return 0.0 if precise else slo / latency


@njit(cache=True)
def score_between(utility, term, x, gamma, leximin, plateau):
    """Objective at fractional replicas x.

    `utility` and `term` are interpolated, or read at floor(x) if `plateau`.
    """
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
