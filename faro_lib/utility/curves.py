"""Curves of utility over constant offered load, one per service class and replica count. Jobs of a class share curves.

`build_table` evaluates every latency model through these curves. A curve is constant up to its
first knot and linear between knots. Above the last one, it is proportional to load^-alpha (`alpha`
of `relaxed_utility`), because a formula's latency is proportional to the load at high utilisation.
A formula's first knot is the largest load that meets the SLO.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np

from faro_lib.queueing import RHO_MAX, LatencyTable, latency
from faro_lib.utility.functions import relaxed_utility
from faro_lib.workload import Job

KNOTS = 129
MODEL_RHO_MAX, MODEL_KNOTS = (
    2.5,
    501,
)  # largest utilisation and number of knots for a model that is not a formula


class LearnedModel(Protocol):
    """A latency model that is not a formula; `queueing.LatencyTable` is one."""

    def expected_utility(
        self, job: Job, rate_rps, replicas, utility: str, alpha: float
    ) -> np.ndarray: ...


LatencyModel = str | LearnedModel


class Curves(NamedTuple):
    """Curves by service class and replica count 0..X, with loads in erlangs."""

    first: np.ndarray  # load at the first knot, (classes, X + 1)
    last: np.ndarray  # load at the last knot, (classes, X + 1)
    value: np.ndarray  # utility at equally spaced knots, (classes, X + 1, knots)
    of_job: np.ndarray  # index of each job's class, (jobs,)


def curves_of(
    jobs: Sequence[Job], latency_model: LatencyModel, utility: str, alpha: float, columns: int
) -> Curves:
    """Curves of all service classes of `jobs` for 0..X replicas, X >= `columns`; ValueError for an unknown model."""
    keys: list
    if isinstance(latency_model, str | LatencyTable):
        columns = (
            1 << (columns - 1).bit_length()
        )  # a power of two, to reuse cached curves for similar `columns`
    if isinstance(latency_model, str):
        keys = [_formula_key(latency_model, job) for job in jobs]
        classes = dict.fromkeys(keys)
        first, last, value = _formula_stack(
            latency_model, utility, float(alpha), columns, tuple(classes)
        )
    elif hasattr(latency_model, "expected_utility"):
        # The curves of a LatencyTable are cached. Other models may learn between calls, so theirs
        # are not cached.
        sample: Callable = _model_curves
        keys = list(range(len(jobs)))
        if isinstance(latency_model, LatencyTable):
            sample, keys = (
                _measured_curves,
                [(latency_model.class_of(job), job.slo_s, job.busy_s) for job in jobs],
            )
        classes = dict(zip(reversed(keys), reversed(jobs)))
        samples = (
            sample(latency_model, job, utility, float(alpha), columns) for job in classes.values()
        )
        first, last, value = _stack(samples)
    else:
        formula = "be the name of a formula (half-mmc, mdc, mgc, mmc, upper-bound)"
        method = "have a method expected_utility(job, rate_rps, replicas, utility, alpha)"
        raise ValueError(f"latency_model={latency_model!r} must {formula} or {method}")
    index = {key: i for i, key in enumerate(classes)}
    return Curves(first, last, value, np.array([index[key] for key in keys]))


def _formula_key(model: str, job: Job) -> tuple[float, float, float]:
    """The inputs of a curve: (SLO, quantile, scv). The SLO is in units of `busy_s`, but in seconds for upper-bound."""
    slo = job.slo_s if model == "upper-bound" else job.slo_s / job.busy_s
    return slo, job.quantile, job.service_scv if model == "mgc" else 0.0


def _stack(parts: Iterable) -> tuple[np.ndarray, ...]:
    return tuple(np.stack(arrays) for arrays in zip(*parts))


@lru_cache(maxsize=16)
def _formula_stack(model: str, utility: str, alpha: float, columns: int, classes: tuple):
    return _stack(_formula_curves(model, utility, alpha, columns, *key) for key in classes)


@lru_cache(maxsize=1024)
def _formula_curves(
    model: str, utility: str, alpha: float, columns: int, slo: float, quantile: float, scv: float
):
    """(first, last, value) of one class, as in `Curves`. Latencies in this function have the unit of `slo`."""
    c = np.arange(1, columns + 1, dtype=float)

    def at(load):
        return latency(model, load, c, 1.0, quantile, service_scv=scv)

    # Bisection for the largest load that meets the SLO; latency increases with the load.
    low, high = np.zeros(columns), c * max(slo, 1.0) * 2
    feasible = at(low) <= slo
    for _ in range(60):
        middle = (low + high) / 2
        met = at(middle) <= slo
        low, high = np.where(met, middle, low), np.where(met, high, middle)
    first = np.where(feasible, low, 0.0)
    relaxes = utility == "relaxed" and model != "upper-bound"
    last = np.maximum(first, RHO_MAX * c) if relaxes else first
    value = np.zeros((columns, KNOTS))
    if utility == "relaxed":
        for i, share in enumerate(np.linspace(0.0, 1.0, KNOTS)):
            value[:, i] = relaxed_utility(at(first + share * (last - first)), slo, alpha)
        # Above `last`, the curve falls from value[-1]. If the SLO can be met up to `last`,
        # value[-1] must be 1.
        value[:, -1] = np.where(feasible & (last <= first), 1.0, value[:, -1])
    value[:, 0] = np.where(feasible, 1.0, value[:, 0])
    return _with_zero_replicas(first, last, value)


def _model_curves(latency_model, job, utility, alpha, columns):
    """(first, last, value) for all replica counts. `value` has the model's utility at utilisations 0 to `rho_max`."""
    c, rho_max = np.arange(1, columns + 1), MODEL_RHO_MAX
    if isinstance(
        latency_model, LatencyTable
    ):  # a measured replica may sustain more than 1 / busy_s requests/s
        rho_max = max(rho_max, 1.2 * job.busy_s * latency_model.saturation_of(job))
    loads = np.linspace(0.0, rho_max, MODEL_KNOTS)[None, :] * c[:, None]
    value = np.asarray(
        latency_model.expected_utility(job, loads / job.busy_s, c[:, None], utility, alpha), float
    )
    if value.shape != loads.shape or not np.all(np.isfinite(value)):
        asked = f"latency_model: expected_utility of job {job.name!r} must be finite and of shape {loads.shape}"
        raise ValueError(f"{asked}; got {value.shape}")
    return _with_zero_replicas(np.zeros(columns), rho_max * c, value)


def _with_zero_replicas(first, last, value):
    """The curves with a row for zero replicas prepended: utility 1 at load 0, and 0 at any other load."""
    zero = np.eye(1, value.shape[1])
    return (
        np.concatenate([[0.0], first]),
        np.concatenate([[0.0], last]),
        np.concatenate([zero, value]),
    )


_measured_curves = lru_cache(maxsize=512)(
    _model_curves
)  # bounded, as an entry for 128 replicas takes 0.5 MB
