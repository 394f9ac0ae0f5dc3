"""Latency quantiles of M/D/c and of M/G/c, first come first served.

M/D/c is exact up to interpolation, M/G/c is an approximation. Over one service time D, the number
waiting changes from L to max(0, L + A - c), where the number of arrivals A is Poisson with mean a =
rho c (Crommelin, 1932). Spitzer's identity gives the stationary distribution of this random walk,
and Franx (2001) derives the distribution of the wait from it.
"""

from functools import lru_cache

import numpy as np

from faro_lib.queueing.formulas import checked, mmc_wait, require

KNOTS = 160  # number of utilisations at which the wait is computed exactly


@lru_cache(maxsize=4096)
def _waits(servers: int, quantile: float) -> tuple[np.ndarray, np.ndarray]:
    """Knots between which `mdc` interpolates: utilisations rho and (1 - rho) W / p, both (knots,).

    W is the wait quantile, and p is the service time. The first rho is the largest with W = 0. The
    last rho is 1, where (1 - rho) W / p has the heavy-traffic limit ln(1 / (1 - quantile)) / (2
    servers) (Köllerström, 1974).
    """
    from faro_lib.queueing._latency_kernels import wait_quantile

    low, high = 0.0, 1.0  # bounds of the largest utilisation with W = 0
    for _ in range(20):
        middle = (low + high) / 2
        if wait_quantile(middle, servers, quantile) > 0:
            high = middle
        else:
            low = middle
    rho = np.geomspace(high, max(0.95, (1 + high) / 2), KNOTS)
    if high < 0.9:
        rho = np.append(rho, 0.97)  # a rho nearer to 1 would take seconds
    scaled = [(1 - one) * wait_quantile(one, servers, quantile) for one in rho]
    heavy_traffic = -np.log(1 - quantile) / (2 * servers)
    return np.array([low, *rho, 1.0]), np.array([0.0, *scaled, heavy_traffic])


def mdc(rate_rps, replicas, service_time_s, quantile) -> np.ndarray:
    """Latency quantile in M/D/c in seconds: service time p plus wait quantile W.

    It is infinite at utilisations rho >= 1. (1 - rho) W / p depends only on rho, `replicas` and
    `quantile`. It is interpolated in rho. Latency errors are below 0.5 %. Fractional `replicas`
    have the waits of floor(replicas) servers at rho = rate_rps p / replicas.

    >>> float(mdc(5.0, 1, 0.1, 0.99).round(3))
    0.434
    """
    arguments = checked(rate_rps, replicas, service_time_s, quantile)
    rate_rps, replicas, service_time_s, quantile = np.broadcast_arrays(*arguments)
    rho = np.asarray(rate_rps * service_time_s / replicas)
    servers = np.maximum(1, np.floor(replicas)).astype(int)
    wait = np.full(rho.shape, np.inf)
    stable = rho < 1
    for c, q in set(zip(servers[stable].tolist(), quantile[stable].tolist())):
        here = (servers == c) & (quantile == q) & stable
        wait[here] = np.interp(rho[here], *_waits(c, q)) / (1 - rho[here])
    return service_time_s + service_time_s * wait


def mgc(rate_rps, replicas, service_time_s, quantile, *, service_scv=0.0) -> np.ndarray:
    """Latency quantile in M/G/c in seconds: service time plus (1 - scv) W_D + scv W_M.

    W_D and W_M are the wait quantiles in M/D/c and M/M/c. scv is the service time's squared
    coefficient of variation. For scv > 1, the sum extrapolates (Tijms, "A First Course in
    Stochastic Models", 2003, section 9.6).

    >>> exponential = 0.1 + mmc_wait(5.0, 1, 0.1, 0.99)
    >>> bool(np.isclose(mgc(5.0, 1, 0.1, 0.99, service_scv=1.0), exponential))
    True
    """
    scv = np.asarray(service_scv, float)
    require("service_scv", scv, scv >= 0, "be a number >= 0")
    constant = mdc(rate_rps, replicas, service_time_s, quantile) - service_time_s
    exponential = mmc_wait(rate_rps, replicas, service_time_s, quantile)
    with np.errstate(invalid="ignore"):
        wait_s = (1 - scv) * constant + scv * exponential
    return service_time_s + np.where(np.isfinite(exponential), np.maximum(wait_s, 0.0), np.inf)
