"""Compiled loops of `mdc`, imported when first used, so that `queueing` loads without numba."""

import math

import numpy as np
from numba import njit

# Larger exponents are handled in logarithms, because exp(-x) underflows to 0 for x > 745.
LARGEST_EXPONENT = 700.0


@njit(cache=True)
def waiting_distribution(rho, servers, tolerance):
    """Equilibrium probabilities P(L = m) that m = 0, 1, ... requests wait in M/D/c.

    The last m has P(L > m) < `tolerance`. Spitzer's identity: with c = `servers`, a = rho c, S_n =
    Poisson(n a) - n c, and g_k = sum_n P(S_n = k) / n, P(L = 0) = exp(-sum_n P(S_n > 0) / n) and m
    P(L = m) = sum_{k=1..m} k g_k P(L = m - k).
    """
    a = rho * servers
    if a <= 0:
        return np.ones(1)
    # P(L = m) decays like z^-m, where z > 1 / rho solves c ln z = a (z - 1). Thus rho^size <
    # tolerance suffices.
    size = int(math.log(tolerance) / math.log(rho)) + 2 + servers
    # The sums over n stop where Chernoff's bound is small: P(S_n >= 0) <= e^(-n c I), I = rho - 1 -
    # ln rho.
    rounds = int(-math.log(tolerance) / (servers * (rho - 1 - math.log(rho)))) + 2
    g = np.zeros(size + 1)
    empty = 0.0
    for n in range(1, rounds + 1):
        mean = n * a
        k = 1
        p = math.exp(-mean + (n * servers + 1) * math.log(mean) - math.lgamma(n * servers + 2))
        total = 0.0
        while p > 1e-320 and (k <= size or p > 1e-18):
            if k <= size:
                g[k] += p / n
            total += p
            p *= mean / (n * servers + k + 1)
            k += 1
            if p < tolerance * 1e-6 and n * servers + k > mean:
                break
        empty += total / n
    law = np.zeros(size + 1)
    law[0] = math.exp(-empty)
    for m in range(1, size + 1):
        s = 0.0
        for k in range(1, m + 1):
            s += k * g[k] * law[m - k]
        law[m] = s / m
    return law


@njit(cache=True)
def wait_cdf(x, rho, servers, below):
    """Probability that the wait in M/D/c is at most `x` service times.

    `below[m]` is the probability that at most m requests wait. For k - 1 <= x < k, it is
    e^(-a(k-x)) sum_{j=0}^{kc-1} below[kc-j-1] (a(k-x))^j / j!, with c = `servers`, a = rho c
    (Franx, "A simple solution for the M/D/c waiting time distribution", 2001).
    """
    k = math.floor(x) + 1
    mean = rho * servers * (k - x)
    top = k * servers - 1
    total = 0.0
    term = math.exp(-mean)
    for j in range(top + 1):
        # The recurrence cannot start from exp(-mean) if this may underflow to 0.
        if mean > LARGEST_EXPONENT:
            term = math.exp(j * math.log(mean) - mean - math.lgamma(j + 1))
        total += term * below[min(top - j, len(below) - 1)]
        term *= mean / (j + 1)
        if term < 1e-18 and j > mean:
            break
    return min(1.0, total)


@njit(cache=True)
def wait_quantile(rho, servers, quantile):
    """The `quantile` of the wait in M/D/c in service times, by bisection of `wait_cdf`."""
    if rho <= 0:
        return 0.0
    below = np.cumsum(waiting_distribution(rho, servers, min(1e-10, (1 - quantile) * 1e-6)))
    if wait_cdf(0.0, rho, servers, below) >= quantile:
        return 0.0
    low, high = 0.0, 1.0
    while wait_cdf(high, rho, servers, below) < quantile:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        if wait_cdf(middle, rho, servers, below) < quantile:
            low = middle
        else:
            high = middle
    return (low + high) / 2
