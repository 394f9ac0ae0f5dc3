"""Latency quantiles of M/D/c (exact up to interpolation) and of M/G/c (an approximation), first come first served.

Over one service time D, the number waiting changes from L to max(0, L + A - c), where the number of
arrivals A is Poisson with mean a = rho c (Crommelin, 1932). Spitzer's identity gives the stationary
distribution of this random walk, and Franx (2001) derives the distribution of the wait from it.
"""

from functools import lru_cache

import numpy as np

from faro_lib.queueing.formulas import checked, mmc_wait, require

KNOTS = 160  # number of utilisations at which the wait is computed exactly


@lru_cache(maxsize=4096)
def _waits(servers: int, quantile: float) -> tuple[np.ndarray, np.ndarray]:
    """Knots between which `mdc` interpolates: utilisations rho and the values of (1 - rho) W / p, both (knots,).

    W is the wait quantile, and p is the service time. The first rho is the largest with W = 0. The
    last rho is 1, where (1 - rho) W / p has the heavy-traffic limit ln(1 / (1 - quantile)) / (2
    servers) (Köllerström, 1974).
    """
    from faro_lib.queueing._latency_kernels import wait_quantile

    low, high = 0.0, 1.0  # bounds of the largest utilisation with W = 0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (
            (low, middle) if wait_quantile(middle, servers, quantile) > 0 else (middle, high)
        )
    rho = np.append(
        np.geomspace(high, max(0.95, (1 + high) / 2), KNOTS), 0.97 if high < 0.9 else ()
    )
    scaled = [
        (1 - one) * wait_quantile(one, servers, quantile) for one in rho
    ]  # a rho nearer to 1 would take seconds
    return np.array([low, *rho, 1.0]), np.array(
        [0.0, *scaled, -np.log(1 - quantile) / (2 * servers)]
    )


def mdc(rate_rps, replicas, service_time_s, quantile) -> np.ndarray:
    """Latency quantile in M/D/c in seconds: service time p plus wait quantile W; infinite at utilisations rho >= 1.

    (1 - rho) W / p depends only on rho, `replicas` and `quantile`. It is interpolated in rho.
    Latency errors are below 0.5 %. Fractional `replicas` have the waits of floor(replicas) servers
    at rho = rate_rps p / replicas.

    >>> float(mdc(5.0, 1, 0.1, 0.99).round(3))
    0.434
    """
    arguments = checked(rate_rps, replicas, service_time_s, quantile)
    rate_rps, replicas, service_time_s, quantile = np.broadcast_arrays(*arguments)
    rho = np.asarray(rate_rps * service_time_s / replicas)
    servers = np.maximum(1, np.floor(replicas)).astype(int)
    wait = np.full(rho.shape, np.inf)
    for c, q in set(zip(servers[rho < 1].tolist(), quantile[rho < 1].tolist())):
        here = (servers == c) & (quantile == q) & (rho < 1)
        wait[here] = np.interp(rho[here], *_waits(c, q)) / (1 - rho[here])
    return service_time_s + service_time_s * wait


def mgc(rate_rps, replicas, service_time_s, quantile, *, service_scv=0.0) -> np.ndarray:
    """Latency quantile in M/G/c in seconds: service time plus (1 - scv) W_D + scv W_M.

    W_D and W_M are the wait quantiles in M/D/c and M/M/c. scv is the service time's squared
    coefficient of variation. For scv > 1, the sum extrapolates (Tijms, "A First Course in
    Stochastic Models", 2003, section 9.6).

    >>> float(mgc(5.0, 1, 0.1, 0.99, service_scv=1.0).round(4)) == float((0.1 + mmc_wait(5.0, 1, 0.1, 0.99)).round(4))
    True
    """
    scv = np.asarray(service_scv, float)
    require("service_scv", scv, scv >= 0, "be a number >= 0")
    constant = mdc(rate_rps, replicas, service_time_s, quantile) - service_time_s
    exponential = mmc_wait(rate_rps, replicas, service_time_s, quantile)
    with np.errstate(invalid="ignore"):
        wait_s = (1 - scv) * constant + scv * exponential
    return service_time_s + np.where(np.isfinite(exponential), np.maximum(wait_s, 0.0), np.inf)
