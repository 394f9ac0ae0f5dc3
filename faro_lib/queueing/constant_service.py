"""M/D/c exactly (Poisson arrivals, constant service, c servers, FCFS), and an M/G/c approximation.

Observed once per service time D, the number waiting is a random walk that stops at zero: L' = max(0, L + A - c),
with A Poisson of mean a = rho c (Crommelin, 1932). Spitzer's identity gives its stationary distribution as a sum of
positive terms, and Franx (2001) derives the distribution of the wait from it.
"""

from functools import lru_cache

import numpy as np

from faro_lib.queueing.formulas import checked, mmc_wait

KNOTS = 160  # utilisations at which the wait is computed exactly


def mdc_wait_cdf(wait_over_service, rho: float, servers: int) -> np.ndarray:
    """P(W <= x D) in M/D/c, exact.

    For (k-1) <= x < k: P(W <= xD) = e^(-a(k-x)) sum_{j=0}^{kc-1} Q_{kc-j-1} (a(k-x))^j / j!, with
    a = rho c and Q the cumulative distribution of the number waiting (Franx, "A simple solution for the
    M/D/c waiting time distribution", 2001).

    Parameters
    ----------
    wait_over_service : array x >= 0, waits in units of the service time.
    rho : utilisation, 0 <= rho < 1.
    servers : whole number >= 1.

    >>> round(float(mdc_wait_cdf(0.0, 0.5, 1)), 6)   # an M/D/1 queue is idle half of the time
    0.5
    """
    from faro_lib.queueing import _latency_kernels as kernels

    below = np.cumsum(kernels.waiting_distribution(float(rho), int(servers), 1e-12))
    x = np.asarray(wait_over_service, float)
    return np.array([kernels.wait_cdf(v, float(rho), int(servers), below) for v in x.ravel()]).reshape(x.shape)


def mdc_wait_over_service(rho: float, servers: int, quantile: float) -> float:
    """Quantile of the M/D/c wait in units of the service time, exact.

    >>> round(mdc_wait_over_service(0.5, 1, 0.5), 6)
    0.0
    """
    from faro_lib.queueing import _latency_kernels as kernels

    return float(kernels.wait_quantile(float(rho), int(servers), float(quantile)))


@lru_cache(maxsize=4096)
def _waits(servers: int, quantile: float) -> tuple[np.ndarray, np.ndarray]:
    """Utilisations from the first wait to 1, and (1 - rho) W / p there; exact.

    At rho = 1 it is the heavy-traffic limit ln(1 / (1 - q)) / (2 c) (Köllerström, 1974), because an exact wait near
    saturation takes seconds.
    """
    low, high = 0.0, 1.0  # of the largest utilisation without a wait
    for _ in range(20):
        middle = (low + high) / 2
        waits = mdc_wait_over_service(middle, servers, quantile) > 0
        low, high = (low, middle) if waits else (middle, high)
    rho = np.append(np.geomspace(high, max(0.95, (1 + high) / 2), KNOTS), 0.97 if high < 0.9 else ())
    scaled = [(1 - one) * mdc_wait_over_service(one, servers, quantile) for one in rho]
    limit = -np.log(1 - quantile) / (2 * servers)
    return np.concatenate([[low], rho, [1.0]]), np.array([0.0, *scaled, limit])


def mdc(rate_rps, replicas, service_time_s, quantile) -> np.ndarray:
    """Latency in M/D/c: the service time plus the quantile of the wait, l = p + W; infinite where rho >= 1.

    (1 - rho) W / p depends on (c, rho, q) alone and is interpolated in rho, within 0.5 % of the exact latency.
    Fractional replicas use the waits of floor(c) servers at rho = lam p / c.

    >>> float(mdc(5.0, 1, 0.1, 0.99).round(3))
    0.434
    """
    rate_rps, replicas, service_time_s, quantile = np.broadcast_arrays(
        *checked(rate_rps, replicas, service_time_s, quantile)
    )
    rho = np.asarray(rate_rps * service_time_s / replicas)
    servers = np.maximum(1, np.floor(replicas)).astype(int)
    wait = np.full(rho.shape, np.inf)
    for q in np.unique(quantile):
        for c in np.unique(servers):
            here = (quantile == q) & (servers == c) & (rho < 1)
            if here.any():
                wait[here] = np.interp(rho[here], *_waits(int(c), float(q))) / (1 - rho[here])
    return service_time_s + service_time_s * wait


def mgc(rate_rps, replicas, service_time_s, quantile, *, service_scv=0.0) -> np.ndarray:
    """Latency in M/G/c by interpolating the wait between M/D/c and M/M/c: l = p + (1 - scv) W_D + scv W_M.

    scv is the squared coefficient of variation of the service time (Tijms, "A First Course in Stochastic Models",
    2003, section 9.6). The interpolation is meant for scv <= 1 and extrapolates beyond.

    >>> float(mgc(5.0, 1, 0.1, 0.99, service_scv=1.0).round(4)) == float((0.1 + mmc_wait(5.0, 1, 0.1, 0.99)).round(4))
    True
    """
    scv = np.asarray(service_scv, float)
    if not np.all(scv >= 0):
        raise ValueError(f"service_scv={scv[~(scv >= 0)].flat[0]} must be a number >= 0")
    constant = mdc(rate_rps, replicas, service_time_s, quantile) - service_time_s
    exponential = mmc_wait(rate_rps, replicas, service_time_s, quantile)
    with np.errstate(invalid="ignore"):
        wait_s = (1 - scv) * constant + scv * exponential
    return service_time_s + np.where(np.isfinite(exponential), np.maximum(wait_s, 0.0), np.inf)
