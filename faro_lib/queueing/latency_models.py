"""Latency models: what a decision knows of the latency of a job by rate and replica count.

Formulas are linear above utilisation RHO_MAX, because solvers need finite slopes. The simplest
model is a `Formula`. A `LatencyTable` has measured latencies. A plugin may have a model that
learns.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from faro_lib.queueing.constant_service import mdc, mgc
from faro_lib.queueing.formulas import checked, half_mmc, mmc, upper_bound
from faro_lib.workload.jobs import TOLERANCE, Job

RHO_MAX = 0.95
FORMULAS: dict[str, Callable] = {
    "upper-bound": upper_bound,
    "half-mmc": half_mmc,
    "mmc": mmc,
    "mdc": mdc,
    "mgc": mgc,
}
FORMULA_KNOTS = 129  # knots of the curve of a formula
SAMPLED_KNOTS, SAMPLED_RHO = 501, 2.5  # knots and largest utilisation of the curve of other models


def relaxed(
    model: Callable, rate_rps, replicas, service_time_s, quantile, *, rho_max: float = RHO_MAX
) -> np.ndarray:
    """Latency of `model` in seconds. Above utilisation rho_max, it is proportional to utilisation.

    `model` is a latency function of this package. The line above rho_max is from EuroSys'25,
    section 4.

    >>> bool(np.isfinite(relaxed(half_mmc, 100.0, 1, 0.18, 0.99)))
    True
    """
    if not 0 < rho_max < 1:
        raise ValueError(f"rho_max={rho_max} must lie strictly between 0 and 1")
    arguments = checked(rate_rps, replicas, service_time_s, quantile)
    rate_rps, replicas, service_time_s, quantile = arguments
    rho = rate_rps * service_time_s / replicas
    stable_rps = np.where(rho > rho_max, rho_max * replicas / service_time_s, rate_rps)
    return model(stable_rps, replicas, service_time_s, quantile) * np.maximum(1.0, rho / rho_max)


def latency(
    model: str, rate_rps, replicas, service_time_s, quantile, *, service_scv=0.0
) -> np.ndarray:
    """Latency quantile in seconds by the formula `model`, a name in FORMULAS.

    Only mgc uses `service_scv`. All formulas but the upper bound are `relaxed`.

    >>> float(latency("upper-bound", 10.0, 2, 0.2, 0.99))
    1.0
    """
    formula = _formula(model)
    if formula is upper_bound:
        return upper_bound(rate_rps, replicas, service_time_s, quantile)
    if formula is mgc:
        formula = partial(mgc, service_scv=service_scv)
    return relaxed(formula, rate_rps, replicas, service_time_s, quantile)


def _formula(name: str) -> Callable:
    if name not in FORMULAS:
        accepted = f"accepted: {', '.join(FORMULAS)}"
        raise ValueError(f"latency_model={name!r} is not a model; {accepted}")
    return FORMULAS[name]


def utility_of(latency_s, slo_s, utility: str, alpha: float = 1.0) -> np.ndarray:
    """Utility of a latency: 1 if it meets the SLO, else 0 or, if "relaxed", (SLO / latency)^alpha.

    The relaxed utility is from EuroSys'25, section 4. `utility` is "relaxed" or "precise".
    """
    if utility == "relaxed":
        return np.minimum(1.0, slo_s / np.maximum(latency_s, slo_s)) ** alpha
    return np.asarray(latency_s <= slo_s, dtype=float)


class Curves(NamedTuple):
    """Expected utility over constant offered load in erlangs, by class of jobs and replicas 0..X.

    A curve is constant up to its first knot and linear between knots. Above the last one, it is
    proportional to load^-alpha (`alpha` of the relaxed utility), because a formula's latency is
    proportional to the load at high utilisation.
    """

    first: np.ndarray  # load at the first knot, (classes, X + 1)
    last: np.ndarray  # load at the last knot, (classes, X + 1)
    value: np.ndarray  # utility at equally spaced knots, (classes, X + 1, knots)
    of_job: np.ndarray  # index of each job's class, (jobs,)


Curve = tuple[np.ndarray, np.ndarray, np.ndarray]  # first, last and value of one class


class LatencyModel(ABC):
    """Latency and expected utility of jobs at constant rates; only `expected_utility` is needed.

    In all methods, `rate_rps` and `replicas` broadcast. `utility` is "relaxed", with the exponent
    `alpha`, or "precise", as in `utility_of`.
    """

    __slots__ = ()

    @abstractmethod
    def expected_utility(
        self, job: Job, rate_rps, replicas, utility: str, alpha: float = 1.0
    ) -> np.ndarray:
        """Expected utility of a minute at a constant rate."""

    def tail_latency_s(self, job: Job, rate_rps, replicas) -> np.ndarray:
        """Latency at the job's quantile; by default the one that has the expected utility."""
        utility = np.asarray(self.expected_utility(job, rate_rps, replicas, "relaxed"), float)
        return job.slo_s / np.maximum(utility, TOLERANCE)

    def busy_s(self, job: Job) -> float:
        """Seconds per request of a fully loaded replica."""
        return job.busy_s

    def saturated_s(self, jobs: Sequence[Job]) -> np.ndarray:
        """Seconds per request of a replica that is always busy, according to this model: (jobs,).

        A measured model may have another time than the jobs' tables state.
        """
        return np.array([job.busy_s for job in jobs])

    def minutes_s(self, jobs: Sequence[Job], rate_rps, replicas) -> np.ndarray:
        """Equally likely latencies of a minute at the jobs' quantiles, (jobs, ..., minutes).

        `rate_rps` and `replicas` broadcast to (jobs, ...). By default, the only minute is
        `tail_latency_s`.
        """
        rate_rps, replicas = np.broadcast_arrays(rate_rps, replicas)
        each = zip(jobs, rate_rps, replicas)
        return np.array([self.tail_latency_s(*of_job) for of_job in each])[..., None]

    def curves(self, jobs: Sequence[Job], utility: str, alpha: float, columns: int) -> Curves:
        """Curves of the jobs' expected utility for 0..X replicas, X >= `columns`.

        By default, each job is a class, and curves are not cached, because a model may learn.
        """

        def curve(j: int) -> Curve:
            def expected(rate_rps, replicas):
                return self.expected_utility(jobs[j], rate_rps, replicas, utility, alpha)

            return sampled(expected, jobs[j].busy_s, SAMPLED_RHO, columns, jobs[j].name)

        return stacked(range(len(jobs)), curve)


@dataclass(frozen=True, slots=True)
class Formula(LatencyModel):
    """The latency model of one of FORMULAS. A job's variability (scv) only matters for "mgc"."""

    name: str

    def __post_init__(self):
        _formula(self.name)

    def tail_latency_s(self, job: Job, rate_rps, replicas) -> np.ndarray:
        """Latency at the job's quantile; infinite if there are requests and no replicas."""
        rate_rps, replicas = np.asarray(rate_rps, float), np.asarray(replicas, float)
        served = replicas > 0
        latency_s = latency(
            self.name,
            rate_rps,
            np.where(served, replicas, 1.0),
            job.busy_s,
            job.quantile,
            service_scv=job.service_scv,
        )
        return np.where(served | (rate_rps == 0), latency_s, np.inf)

    def expected_utility(
        self, job: Job, rate_rps, replicas, utility: str, alpha: float = 1.0
    ) -> np.ndarray:
        tail_s = self.tail_latency_s(job, rate_rps, replicas)
        return utility_of(tail_s, job.slo_s, utility, alpha)

    def curves(self, jobs: Sequence[Job], utility: str, alpha: float, columns: int) -> Curves:
        """Curves whose first knot is the largest load that meets the SLO."""
        keys = [self._class_of(job) for job in jobs]
        classes = tuple(dict.fromkeys(keys))
        curves = _formula_curves(self.name, classes, utility, float(alpha), reusable(columns))
        index = {key: i for i, key in enumerate(classes)}
        return curves._replace(of_job=np.array([index[key] for key in keys]))

    def _class_of(self, job: Job) -> tuple[float, float, float]:
        """(SLO, quantile, scv); the SLO is in units of `busy_s`, but in s for the upper bound."""
        slo = job.slo_s if self.name == "upper-bound" else job.slo_s / job.busy_s
        return slo, job.quantile, job.service_scv if self.name == "mgc" else 0.0


# What users may give as a latency model: a formula's name, a model, or a function that makes one.
ModelLike = str | LatencyModel | Callable[[], LatencyModel]


def model_of(model: ModelLike) -> LatencyModel:
    """The latency model that a user has named, given, or given a function for.

    >>> model_of("mdc")
    Formula(name='mdc')
    """
    if isinstance(model, LatencyModel):
        return model
    if isinstance(model, str):
        return Formula(model)
    if callable(model):
        return model_of(model())
    names = ", ".join(FORMULAS)
    raise ValueError(
        f"latency_model={model!r} must be the name of a formula ({names}) or a LatencyModel"
    )


def reusable(columns: int) -> int:
    """The next power of two: curves for this many replicas are cached and used for fewer ones."""
    return 1 << (columns - 1).bit_length()


def stacked(keys: Sequence[Hashable], curve: Callable[[Any], Curve]) -> Curves:
    """The curves of all jobs; jobs with equal keys are a class, with the curve `curve(key)`."""
    index = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    first, last, value = (np.stack(arrays) for arrays in zip(*map(curve, index)))
    return Curves(first, last, value, np.array([index[key] for key in keys]))


def sampled(expected: Callable, busy_s: float, rho_max: float, columns: int, job: str) -> Curve:
    """The curve of `expected(rate_rps, replicas)` at utilisations 0 to `rho_max`."""
    replicas = np.arange(1, columns + 1)
    loads = np.linspace(0.0, rho_max, SAMPLED_KNOTS)[None, :] * replicas[:, None]
    value = np.asarray(expected(loads / busy_s, replicas[:, None]), float)
    if value.shape != loads.shape or not np.all(np.isfinite(value)):
        needed = f"must be finite and of shape {loads.shape}; got {value.shape}"
        raise ValueError(f"latency_model: expected_utility of job {job!r} {needed}")
    return _with_zero_replicas(np.zeros(columns), rho_max * replicas, value)


@lru_cache(maxsize=16)
def _formula_curves(
    name: str, classes: tuple[tuple, ...], utility: str, alpha: float, columns: int
) -> Curves:
    return stacked(classes, lambda of: _formula_curve(name, *of, utility, alpha, columns))


@lru_cache(maxsize=1024)
def _formula_curve(
    name: str, slo: float, quantile: float, scv: float, utility: str, alpha: float, columns: int
) -> Curve:
    """The curve of one class of jobs. Latencies in this function have the unit of `slo`."""
    replicas = np.arange(1, columns + 1, dtype=float)

    def at(load):
        return latency(name, load, replicas, 1.0, quantile, service_scv=scv)

    # Bisection for the largest load that meets the SLO; latency increases with the load.
    low = np.zeros(columns)
    high = replicas * max(slo, 1.0) * 2
    feasible = at(low) <= slo
    for _ in range(60):
        middle = (low + high) / 2
        met = at(middle) <= slo
        low = np.where(met, middle, low)
        high = np.where(met, high, middle)
    first = np.where(feasible, low, 0.0)
    relaxes = utility == "relaxed" and name != "upper-bound"
    last = np.maximum(first, RHO_MAX * replicas) if relaxes else first
    value = np.zeros((columns, FORMULA_KNOTS))
    if utility == "relaxed":
        for i, share in enumerate(np.linspace(0.0, 1.0, FORMULA_KNOTS)):
            value[:, i] = utility_of(at(first + share * (last - first)), slo, utility, alpha)
        # Above `last`, the curve falls from value[-1]. If the SLO can be met up to `last`,
        # value[-1] must be 1.
        value[:, -1] = np.where(feasible & (last <= first), 1.0, value[:, -1])
    value[:, 0] = np.where(feasible, 1.0, value[:, 0])
    return _with_zero_replicas(first, last, value)


def _with_zero_replicas(first: np.ndarray, last: np.ndarray, value: np.ndarray) -> Curve:
    """The curve after a row for zero replicas: utility 1 at load 0, and 0 at any other load."""
    zero = np.eye(1, value.shape[1])
    return np.append(0.0, first), np.append(0.0, last), np.concatenate([zero, value])
