"""M/D/c exactly (Poisson arrivals, constant service, c servers, FCFS), and an M/G/c approximation.

Seen every D seconds (the service time), the number waiting is a random walk that cannot fall below
zero (Crommelin 1932): L' = max(0, L + A - c), A Poisson with mean a = rho c. Its stationary law is that
of the walk's maximum, which Spitzer's identity gives in positive terms only. Franx (2001) turns it into
the distribution of the wait.
"""

from functools import lru_cache
from importlib import resources

import numpy as np

from faro_lib.queueing.formulas import checked, mmc_wait

# Utilisations of the lookup table: finer towards saturation, where the wait grows as 1 / (1 - rho), and near zero,
# where the high quantiles of few servers begin to wait.
RHO_GRID = np.concatenate(
    [
        np.linspace(0.0, 0.01, 101),
        np.linspace(0.0105, 0.1, 180),
        np.linspace(0.101, 0.4, 300),
        np.linspace(0.405, 0.9, 100),
        np.linspace(0.9025, 0.99, 36),
    ]
)
STORED_QUANTILES, STORED_SERVERS = (0.5, 0.9, 0.95, 0.99, 0.999), 100


def mdc_wait_cdf(wait_over_service, rho: float, servers: int) -> np.ndarray:
    """P(wait <= x D) in M/D/c, exact.

    For (k-1) <= x < k: P(W <= xD) = e^(-a(k-x)) sum_{j=0}^{kc-1} Q_{kc-j-1} (a(k-x))^j / j!, with
    a = rho c and Q the cumulative distribution of the number waiting (Franx, "A simple solution for the
    M/D/c waiting time distribution", 2001).

    Parameters
    ----------
    wait_over_service : array, waits in units of the service time, >= 0.
    rho : utilisation, 0 <= rho < 1.
    servers : whole number >= 1.

    >>> round(float(mdc_wait_cdf(0.0, 0.5, 1)), 6)   # an M/D/1 queue is idle half of the time
    0.5
    """
    from faro_lib.queueing import _latency_kernels as kernels

    below = np.cumsum(kernels.waiting_distribution(float(rho), int(servers), 1e-12))
    x = np.atleast_1d(np.asarray(wait_over_service, float))
    probability = np.array([kernels.wait_cdf(v, float(rho), int(servers), below) for v in x.ravel()])
    return probability.reshape(np.shape(wait_over_service))


def mdc_wait_over_service(rho: float, servers: int, quantile: float) -> float:
    """Quantile of the M/D/c wait in units of the service time, exact (no lookup).

    >>> round(mdc_wait_over_service(0.5, 1, 0.5), 6)
    0.0
    """
    from faro_lib.queueing import _latency_kernels as kernels

    return float(kernels.wait_quantile(float(rho), int(servers), float(quantile)))


@lru_cache(maxsize=4096)
def _row(servers: int, quantile: float) -> np.ndarray:
    """Waits over service times on RHO_GRID, from the package's file if it has them, else computed."""
    stored = stored_waits().get(f"{quantile:.6g}", ())
    if servers <= len(stored):
        return stored[servers - 1].astype(float)
    return np.array([mdc_wait_over_service(rho, servers, quantile) for rho in RHO_GRID])


@lru_cache(maxsize=1)
def stored_waits() -> dict[str, np.ndarray]:
    """Waits of the package's file, (servers, RHO_GRID) by quantile; {} if it was made for another grid."""
    path = resources.files("faro_lib.queueing") / "mdc.npz"
    if not path.is_file():
        return {}
    with resources.as_file(path) as file, np.load(file) as table:
        if not np.array_equal(table["rho"], RHO_GRID):
            return {}
        return {key: table[key] for key in table.files if key != "rho"}


def write_stored_waits(path) -> None:
    """Compute the package's file again, which takes three minutes."""
    servers = range(1, STORED_SERVERS + 1)
    rows = {
        f"{q:.6g}": np.array([[mdc_wait_over_service(rho, c, q) for rho in RHO_GRID] for c in servers], np.float32)
        for q in STORED_QUANTILES
    }
    np.savez_compressed(path, rho=RHO_GRID, **rows)  # type: ignore[arg-type]


def mdc(rate_rps, replicas, service_time_s, quantile) -> np.ndarray:
    """Latency in M/D/c: constant service plus the exact quantile of the wait, l = p + W; infinite if rho >= 1.

    W / p depends on (c, rho, q) alone, so one table serves every job. (1 - rho) W / p is interpolated in
    rho, within 0.5 % of the exact latency up to rho = 0.99 (a test checks it). For fractional replicas
    the table is read at floor(c) and rho uses c.

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
                scaled = np.interp(rho[here], RHO_GRID, (1 - RHO_GRID) * _row(int(c), float(q)))
                wait[here] = scaled / (1 - rho[here])
    return service_time_s + service_time_s * wait


def mgc(rate_rps, replicas, service_time_s, quantile, *, service_scv=0.0) -> np.ndarray:
    """Latency with general service: the wait interpolates between M/D/c and M/M/c, l = p + W.

    W = (1 - scv) W(M/D/c) + scv W(M/M/c), scv the squared coefficient of variation (Tijms, "A First
    Course in Stochastic Models", 2003, section 9.6). Made for scv <= 1; extrapolated beyond.

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
