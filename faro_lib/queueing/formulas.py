"""Closed-form latency quantiles: an upper bound, M/M/c, and the half-wait approximation of M/D/c.

Every latency function takes (rate_rps, replicas, service_time_s, quantile). These arguments
broadcast, and the result is in seconds. `replicas` may be fractional, because the solvers of the
Faro paper (EuroSys'25) search a continuous space. As in the paper's code, Erlang's recurrence
rounds `replicas` down, but the utilisation uses the exact number.
"""

import numpy as np


def erlang_b(load, servers) -> np.ndarray:
    """Probability that an arriving request finds all servers of an M/M/c/c queue busy.

    B(0) = 1 and B(k) = a B(k-1) / (k + a B(k-1)), with a = `load` in erlangs (Erlang, 1917).
    `servers` is rounded down.

    >>> float(erlang_b(1.0, 2).round(3))
    0.2
    """
    servers = np.floor(np.asarray(servers, float))
    load, servers = np.broadcast_arrays(np.asarray(load, float), servers)
    blocked = np.ones(load.shape)
    for k in range(1, int(servers.max(initial=0)) + 1):
        carried = load * blocked
        blocked = np.where(servers >= k, carried / (k + carried), blocked)
    return blocked


def erlang_c(load, servers) -> np.ndarray:
    """Probability that an arriving request waits in an M/M/c queue; 1 where load >= servers.

    C = B / (1 - rho (1 - B)), with B from `erlang_b` and rho = load / servers.

    Parameters
    ----------
    load : array, offered load in erlangs (arrival rate x service time), >= 0.
    servers : array > 0; broadcasts with `load`.

    >>> float(erlang_c(0.5, 1).round(3))
    0.5
    """
    load, servers = np.broadcast_arrays(np.asarray(load, float), np.asarray(servers, float))
    require("load", load, load >= 0, "be a number >= 0")
    require("servers", servers, servers > 0, "be a number > 0")
    blocked = erlang_b(load, servers)
    rho = np.minimum(load / servers, 1.0)
    return blocked / (1 - rho * (1 - blocked))


def upper_bound(rate_rps, replicas, service_time_s, quantile=0.99) -> np.ndarray:
    """Latency of the last request if all requests of a second arrive at once.

    The bound is from EuroSys'25, section 4, and holds for any quantile.

    >>> float(upper_bound(10.0, 2, 0.2))
    1.0
    """
    arguments = checked(rate_rps, replicas, service_time_s, quantile)
    rate_rps, replicas, service_time_s, quantile = arguments
    return service_time_s * rate_rps / replicas + 0 * quantile  # the last term only broadcasts


def mmc_wait(rate_rps, replicas, service_time_s, quantile) -> np.ndarray:
    """Quantile of the waiting time in M/M/c, in seconds; infinite if the utilisation is at least 1.

    It is max(0, ln(C / (1 - quantile)) / (replicas / service_time_s - rate_rps)), with C from
    `erlang_c`.

    >>> float(mmc_wait(5.0, 1, 0.1, 0.99).round(4))
    0.7824
    """
    arguments = checked(rate_rps, replicas, service_time_s, quantile)
    rate_rps, replicas, service_time_s, quantile = arguments
    load = rate_rps * service_time_s
    spare_rps = replicas / service_time_s - rate_rps
    with np.errstate(divide="ignore", invalid="ignore"):
        wait_s = np.log(erlang_c(load, replicas) / (1 - quantile)) / spare_rps
        wait_s = np.maximum(0.0, wait_s)
    return np.where(load < replicas, wait_s, np.inf)


def mmc(rate_rps, replicas, service_time_s, quantile) -> np.ndarray:
    """Latency quantile in M/M/c in seconds: the mean service time plus the quantile of the wait."""
    return service_time_s + mmc_wait(rate_rps, replicas, service_time_s, quantile)


def half_mmc(rate_rps, replicas, service_time_s, quantile) -> np.ndarray:
    """Approximate latency quantile in M/D/c: service time plus half of the wait in M/M/c.

    The approximation is from EuroSys'25, section 4.

    >>> float(half_mmc(5.0, 1, 0.1, 0.99).round(4))
    0.4912
    """
    return service_time_s + mmc_wait(rate_rps, replicas, service_time_s, quantile) / 2


def checked(rate_rps, replicas, service_time_s, quantile) -> list[np.ndarray]:
    """The four arguments as float arrays; ValueError names the first value out of range."""
    arrays = [np.asarray(a, float) for a in (rate_rps, replicas, service_time_s, quantile)]
    rate_rps, replicas, service_time_s, quantile = arrays
    require("rate_rps", rate_rps, rate_rps >= 0, "be a number >= 0")
    require("replicas", replicas, replicas > 0, "be a number > 0")
    finite_and_positive = (service_time_s > 0) & np.isfinite(service_time_s)
    require("service_time_s", service_time_s, finite_and_positive, "be a finite number > 0")
    require("quantile", quantile, (quantile > 0) & (quantile < 1), "be strictly between 0 and 1")
    return arrays


def require(field: str, values: np.ndarray, valid: np.ndarray, accepted: str) -> None:
    """Raise ValueError for the first value that is not valid.

    `accepted` ends the message, as in "be a number >= 0".
    """
    if not np.all(valid):
        raise ValueError(f"{field}={values[~valid].flat[0]} must {accepted}")
