"""Closed formulas: the upper bound, M/M/c, half of M/M/c, and the relaxation beyond saturation.

Every latency function has the same signature (rate_rps, replicas, service_time_s, percentile) and broadcasts. Replicas
may be fractional (the paper's continuous solvers need that): the Erlang sums then run to floor(replicas) while the
utilisation uses the fraction, as in the published code.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

RHO_MAX = 0.95


def erlang_b(load, servers):
    """Probability that an arriving request finds all servers busy and is lost, M/M/c/c.

    B(0) = 1, B(k) = a B(k-1) / (k + a B(k-1)) for offered load a (Erlang 1917; the stable recurrence).

    Parameters
    ----------
    load : array, offered load in erlangs, >= 0.
    servers : array >= 0, its whole part counts; broadcasts with `load`.

    >>> float(erlang_b(1.0, 2).round(3))
    0.2
    """
    load, servers = np.broadcast_arrays(np.asarray(load, float), np.floor(np.asarray(servers, float)))
    blocked = np.ones(load.shape)
    for k in range(1, int(servers.max(initial=0)) + 1):
        carried = load * blocked
        blocked = np.where(servers >= k, carried / (k + carried), blocked)
    return blocked


def erlang_c(load, servers):
    """Probability that an arriving request waits in an M/M/c queue.

    C = B / (1 - rho (1 - B)), with B the Erlang-B blocking probability by its stable recurrence and rho = load /
    servers.

    Parameters
    ----------
    load : array, offered load in erlangs (arrival rate x service time), >= 0.
    servers : array > 0; broadcasts with `load`. For fractions, B uses the whole part and rho the fraction.

    Returns
    -------
    array in [0, 1]; 1 where load >= servers.

    >>> float(erlang_c(0.5, 1).round(3))
    0.5
    """
    load, servers = np.broadcast_arrays(np.asarray(load, float), np.asarray(servers, float))
    _need("load", load, load >= 0, "a number >= 0")
    _need("servers", servers, servers > 0, "a number > 0")
    blocked = erlang_b(load, servers)
    rho = np.minimum(load / servers, 1.0)
    return blocked / (1 - rho * (1 - blocked))


def upper_bound(rate_rps, replicas, service_time_s, percentile=0.99):
    """Latency if the requests of one second all arrive together: l = p lam / c (EuroSys'25, section 4).

    >>> float(upper_bound(10.0, 2, 0.2))
    1.0
    """
    rate_rps, replicas, service_time_s, percentile = _checked(rate_rps, replicas, service_time_s, percentile)
    return service_time_s * rate_rps / replicas + 0 * percentile


def mmc_wait(rate_rps, replicas, service_time_s, percentile):
    """Percentile of the wait in M/M/c: W = max(0, ln(C / (1 - q)) / (c / p - lam)); infinite from saturation on.

    >>> float(mmc_wait(5.0, 1, 0.1, 0.99).round(4))
    0.7824
    """
    rate_rps, replicas, service_time_s, percentile = _checked(rate_rps, replicas, service_time_s, percentile)
    load = rate_rps * service_time_s
    spare_rps = replicas / service_time_s - rate_rps
    with np.errstate(divide="ignore", invalid="ignore"):
        wait_s = np.maximum(0.0, np.log(erlang_c(load, replicas) / (1 - percentile)) / spare_rps)
    return np.where(load < replicas, wait_s, np.inf)


def mmc(rate_rps, replicas, service_time_s, percentile):
    """Latency in M/M/c as the sum of the mean service and the percentile of the wait: l = p + W."""
    return service_time_s + mmc_wait(rate_rps, replicas, service_time_s, percentile)


def half_mmc(rate_rps, replicas, service_time_s, percentile):
    """The paper's M/D/c: constant service waits half as long as exponential, l = p + W / 2 (EuroSys'25, section 4).

    Exact M/D/c is `mdc`; `20_queueing` shows where the two differ.

    >>> float(half_mmc(5.0, 1, 0.1, 0.99).round(4))
    0.4912
    """
    return service_time_s + mmc_wait(rate_rps, replicas, service_time_s, percentile) / 2


def relaxed(model: Callable, rate_rps, replicas, service_time_s, percentile, *, rho_max: float = RHO_MAX):
    """A latency that stays finite beyond saturation, and continuous ("sloppified"; EuroSys'25, section 4).

    For rho = lam p / c above rho_max, l = l(at rho_max) rho / rho_max; below it is the model's own.

    Parameters
    ----------
    model : a latency function of this package.
    rho_max : the utilisation at which the straight line begins, strictly between 0 and 1.

    >>> bool(np.isfinite(relaxed(half_mmc, 100.0, 1, 0.18, 0.99)))
    True
    """
    if not 0 < rho_max < 1:
        raise ValueError(f"rho_max={rho_max} must lie strictly between 0 and 1")
    rate_rps, replicas, service_time_s, percentile = _checked(rate_rps, replicas, service_time_s, percentile)
    rho = rate_rps * service_time_s / replicas
    inside_rps = np.where(rho > rho_max, rho_max * replicas / service_time_s, rate_rps)
    return model(inside_rps, replicas, service_time_s, percentile) * np.maximum(1.0, rho / rho_max)


def latency(model: str, rate_rps, replicas, service_time_s, percentile, *, service_scv=0.0, rho_max: float = RHO_MAX):
    """Latency percentile by the model's name, relaxed beyond rho_max where the model saturates.

    Parameters
    ----------
    model : "half-mmc", "mmc", "mdc", "mgc" (uses service_scv) or "upper-bound".

    >>> float(latency("upper-bound", 10.0, 2, 0.2, 0.99))
    1.0
    """
    from faro_lib.queueing.constant_service import mdc, mgc

    if model == "upper-bound":
        return upper_bound(rate_rps, replicas, service_time_s, percentile)
    functions = {"half-mmc": half_mmc, "mmc": mmc, "mdc": mdc, "mgc": lambda *a: mgc(*a, service_scv=service_scv)}
    if model not in functions:
        raise ValueError(f"latency_model={model!r} is not a model; accepted: upper-bound, {', '.join(functions)}")
    return relaxed(functions[model], rate_rps, replicas, service_time_s, percentile, rho_max=rho_max)


def _checked(rate_rps, replicas, service_time_s, percentile):
    arrays = [np.asarray(a, float) for a in (rate_rps, replicas, service_time_s, percentile)]
    rate_rps, replicas, service_time_s, percentile = arrays
    _need("rate_rps", rate_rps, rate_rps >= 0, "a number >= 0")
    _need("replicas", replicas, replicas > 0, "a number > 0")
    _need("service_time_s", service_time_s, (service_time_s > 0) & np.isfinite(service_time_s), "a finite number > 0")
    _need("percentile", percentile, (percentile > 0) & (percentile < 1), "strictly between 0 and 1")
    return arrays


def _need(field, values, holds, accepted):
    if not np.all(holds):
        raise ValueError(f"{field}={np.asarray(values)[~np.asarray(holds)].flat[0]} must be {accepted}")
