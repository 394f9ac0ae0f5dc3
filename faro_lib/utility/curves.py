"""Utility at a constant rate, per service class and replica count, as a curve over the offered load.

A latency_model model enters the table through these curves only. Each is 1 (its first value) up to `first`, straight
lines through `value` between `first` and `last`, and value[-1] (last / load)^alpha beyond. For the formulas `first` is
where the promise breaks and `last` where the relaxation begins, so only the short stretch between the two is
interpolated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from faro_lib.queueing import LatencyTable, latency, service_class
from faro_lib.queueing import RHO_MAX
from faro_lib.utility.functions import relaxed_utility

KNOTS = 129
# Models that are not formulas are sampled up to this utilisation.
RHO_REACH = 2.5
MODEL_KNOTS = 501


@dataclass(frozen=True, slots=True)
class Curves:
    """`first`, `last` (classes, X + 1), `value` (classes, X + 1, knots), `of_job` (jobs,) the class of each job."""

    first: np.ndarray
    last: np.ndarray
    value: np.ndarray
    of_job: np.ndarray


def curves_of(jobs, latency_model, utility: str, alpha: float, columns: int) -> Curves:
    """One curve for every service class among `jobs` and every replica count 0..columns."""
    keys: list
    if isinstance(latency_model, str):
        # Queues scale with the service time; the upper bound, l = p lam / c, has seconds: l in s is load / c.
        keys = [
            (
                j.slo_s if latency_model == "upper-bound" else j.slo_s / j.service_time_s,
                j.quantile,
                j.service_scv if latency_model == "mgc" else 0.0,
            )
            for j in jobs
        ]
        classes = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        first, last, value = _formula_stack(latency_model, utility, float(alpha), columns, tuple(classes))
        return Curves(first, last, value, np.array([classes[key] for key in keys]))
    elif isinstance(latency_model, LatencyTable):
        keys = [
            replace(job, name=service_class(job), weight=1.0, tenant="", cores=1.0, min_replicas=0, max_replicas=1)
            for job in jobs
        ]
        classes = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        parts = [_measured_curves(latency_model, job, utility, float(alpha), columns) for job in classes]
    elif hasattr(latency_model, "expected_utility"):
        # A model that learns may answer differently next time: nothing is kept.
        keys, classes = list(range(len(jobs))), {i: i for i in range(len(jobs))}
        parts = [_model_curves(latency_model, job, utility, float(alpha), columns) for job in jobs]
    else:
        raise ValueError(
            f"latency_model={latency_model!r} must be the name of a formula (half-mmc, mdc, mgc, mmc, upper-bound) or have "
            "a method expected_utility(job, rate_rps, replicas, utility, alpha)"
        )
    first, last, value = (np.stack(arrays) for arrays in zip(*parts))
    return Curves(first, last, value, np.array([classes[key] for key in keys]))


@lru_cache(maxsize=16)
def _formula_stack(model: str, utility: str, alpha: float, columns: int, classes: tuple):
    """The curves of all classes of a cluster, kept from one decision to the next."""
    parts = [_formula_curves(model, utility, alpha, columns, *key) for key in classes]
    return tuple(np.stack(arrays) for arrays in zip(*parts))


@lru_cache(maxsize=1024)
def _formula_curves(model: str, utility: str, alpha: float, columns: int, slo: float, percentile: float, scv: float):
    """In units of the service time (for the upper bound, of seconds); rates are erlangs."""
    c = np.arange(1, columns + 1, dtype=float)

    def at(load):
        return latency(model, load, c, 1.0, percentile, service_scv=scv)

    # The largest load that keeps the promise; latency is monotone in the load.
    low, high = np.zeros(columns), c * max(slo, 1.0) * 2
    kept = at(low) <= slo
    for _ in range(60):
        middle = (low + high) / 2
        good = at(middle) <= slo
        low, high = np.where(good, middle, low), np.where(good, high, middle)
    first = np.where(kept, low, -1.0)
    last = np.maximum(first, 0.0) if utility == "precise" or model == "upper-bound" else np.maximum(first, RHO_MAX * c)
    value = np.zeros((columns, KNOTS))
    for i, share in enumerate(np.linspace(0.0, 1.0, KNOTS)):
        if utility == "relaxed":
            value[:, i] = relaxed_utility(at(np.maximum(first, 0) + share * (last - np.maximum(first, 0))), slo, alpha)
    value[:, 0] = np.where(kept, 1.0, value[:, 0])
    if utility == "relaxed":
        # Where the stretch is empty both ends are the same point: the promise is just kept.
        value[:, -1] = np.where(kept & (last <= first), 1.0, value[:, -1])
    # Nobody serves at zero replicas: utility 1 without requests, 0 with any.
    nobody = np.zeros((1, KNOTS))
    nobody[0, 0] = 1.0
    return (
        np.concatenate([[0.0], np.maximum(first, 0.0)]),
        np.concatenate([[0.0], last]),
        np.concatenate([nobody, value]),
    )


def _model_curves(latency_model, job, utility, alpha, columns):
    """Sample a model at utilisations 0..RHO_REACH of every replica count; beyond, utility falls as 1 / load^alpha."""
    replicas = np.arange(1, columns + 1)
    loads = np.linspace(0.0, RHO_REACH, MODEL_KNOTS)[None, :] * replicas[:, None]
    value = np.asarray(
        latency_model.expected_utility(job, loads / job.service_time_s, replicas[:, None], utility, alpha), float
    )
    if value.shape != loads.shape or not np.all(np.isfinite(value)):
        raise ValueError(
            f"latency_model: expected_utility of job {job.name!r} must be finite and of shape {loads.shape}; "
            f"got {value.shape}"
        )
    nobody = np.zeros((1, MODEL_KNOTS))
    nobody[0, 0] = 1.0
    last = np.concatenate([[0.0], RHO_REACH * replicas])
    return np.zeros(columns + 1), last, np.concatenate([nobody, value])


_measured_curves = lru_cache(maxsize=256)(_model_curves)
