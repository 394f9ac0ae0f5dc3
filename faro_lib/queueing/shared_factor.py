"""How much slower services are that share replicas: a factor of the pool, and one of each service.

The service times of a service are f = g h times as long as assumed: g is the factor of its pool,
because sharing slows down all its services, and h is the service's own. A request waits behind
those of all services. So waits scale with the mean factor F of the pool, weighted by the services'
loads, and the time in service with f. At the pool's true load L, a service has the latency

    F (T(L) - S) + f S,    S = min(T(L), T(0)),

where T is its latency by the assumed model. This is exact if all factors are equal (F = f).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from faro_lib.queueing.latency_models import Curves, LatencyModel
from faro_lib.queueing.service_factor import FACTORS, MODEL_ERROR, OUTLIER, OUTLIER_DENSITY
from faro_lib.workload import Job

IDLE, IDLE_REPLICAS = 0.1, 8.0  # utilisation and replicas of a service in which no request waits
EVERY_MINUTE = 3  # of the measured minutes, which are sorted by latency, every third is enough
COMMON_MINUTE = 0.5
SLO_STEP = 0.025  # between the logarithms of two SLOs for which curves are computed


def idle_latency_s(model: LatencyModel, jobs: Sequence[Job]) -> np.ndarray:
    """Latency quantile of each job if no request waits, (jobs,) in seconds."""
    busy_s = model.saturated_s(jobs)[:, None]
    rate_rps, replicas = IDLE_REPLICAS * IDLE / busy_s, np.full_like(busy_s, IDLE_REPLICAS)
    return np.median(model.minutes_s(jobs, rate_rps, replicas), axis=2)[:, 0]


def mean_shared(factor: np.ndarray, load: np.ndarray) -> float:
    """Mean of the factors (jobs,) of a pool, weighted by their assumed loads (jobs,) > 0."""
    return float(factor @ load / load.sum())


def product(of_pool: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Posteriors (jobs, factors) of g h, from those of g, (factors,), and of h, (jobs, factors).

    Products beyond the first or last of FACTORS count as that one.
    """
    half = len(FACTORS) // 2
    sums = np.array([np.convolve(of_pool, of_job) for of_job in own])
    weight = sums[:, half:-half].copy()
    weight[:, 0] += sums[:, :half].sum(axis=1)
    weight[:, -1] += sums[:, -half:].sum(axis=1)
    return weight


def shifted(weight: np.ndarray, steps: int) -> np.ndarray:
    """Posteriors (..., factors) of factors that are so many steps of FACTORS larger, or smaller.

    What leaves the range counts as its end.
    """
    at = np.clip(np.arange(len(FACTORS)) + steps, 0, len(FACTORS) - 1)
    moved = np.zeros_like(weight)
    for before, after in enumerate(at.tolist()):
        moved[..., after] += weight[..., before]
    return moved


def joint_likelihood(
    model: LatencyModel,
    jobs: Sequence[Job],
    load: float,
    replicas: float,
    tail_latency_s: np.ndarray,
    mean_own: float,
) -> np.ndarray:
    """Likelihood of a minute's latency quantiles, (jobs, factors g, minutes, factors h).

    The minutes are those of the model, sorted by latency. As the services share a queue,
    the minute is the same one for all of them with probability COMMON_MINUTE, and otherwise any.

    Parameters
    ----------
    load : assumed load of all services of the pool together, in erlangs.
    replicas : those of the pool.
    tail_latency_s : (jobs,) > 0, latency at each job's quantile.
    mean_own : mean of the services' own factors, weighted by their loads.

    """
    busy_s = np.array([job.busy_s for job in jobs])
    mean = FACTORS * mean_own  # F at each g
    table_s = model.minutes_s(jobs, load * mean / busy_s[:, None], np.float64(replicas))
    table_s = table_s[..., ::EVERY_MINUTE]  # T(L), (jobs, g, minutes)
    apart = FACTORS[:, None] * FACTORS - mean[:, None]  # f - F, (g, h)
    own_s = np.minimum(idle_latency_s(model, jobs)[:, None, None], table_s)  # S
    # In single precision, which is enough and several times as fast.
    table_s, own_s, apart = (
        array.astype(np.float32) for array in (mean[:, None] * table_s, own_s, apart)
    )
    deviation = np.log(table_s[..., None] + own_s[..., None] * apart[:, None])
    deviation -= np.log(tail_latency_s).astype(np.float32)[:, None, None, None]
    density = np.exp(-0.5 / MODEL_ERROR**2 * (deviation * deviation))
    density /= float(MODEL_ERROR * np.sqrt(2 * np.pi))
    alike = COMMON_MINUTE * density + (1 - COMMON_MINUTE) * density.mean(axis=2, keepdims=True)
    return (1 - OUTLIER) * alike + OUTLIER * OUTLIER_DENSITY


@dataclass(frozen=True, slots=True)
class SlowerPools(LatencyModel):
    """`model` for services that share replicas and whose times are longer or shorter than assumed.

    A job of a pool has the latency of the equation above. Its rate is the one at which the job
    alone would have the true load of the pool (`busy_s` seconds per request), and its curves are
    over the true load. Jobs without a factor have those of `model`.
    """

    model: LatencyModel
    own: Mapping[str, float]  # f, by the job's name
    shared: Mapping[str, float]  # F, by the job's name

    def busy_s(self, job: Job) -> float:
        return self.own.get(job.name, 1.0) * self.model.busy_s(job)

    def tail_latency_s(self, job: Job, rate_rps, replicas) -> np.ndarray:
        if job.name not in self.own:
            return self.model.tail_latency_s(job, rate_rps, replicas)
        own, shared = self.own[job.name], self.shared[job.name]
        rate_rps = own * np.asarray(rate_rps, float)
        table_s = self.model.tail_latency_s(job, rate_rps, replicas)
        own_s = np.minimum(table_s, idle_latency_s(self.model, [job])[0])
        return shared * (table_s - own_s) + own * own_s

    def expected_utility(
        self, job: Job, rate_rps, replicas, utility: str, alpha: float = 1.0
    ) -> np.ndarray:
        rate_rps = self.own.get(job.name, 1.0) * np.asarray(rate_rps, float)
        return self.model.expected_utility(self._on_clock(job), rate_rps, replicas, utility, alpha)

    def curves(self, jobs: Sequence[Job], utility: str, alpha: float, columns: int) -> Curves:
        on_clock = [self._on_clock(job) for job in jobs]
        return self.model.curves(on_clock, utility, alpha, columns)

    def _on_clock(self, job: Job) -> Job:
        """The job with the SLO that T(L) has to meet: F (T(L) - T(0)) + f T(0) <= SLO."""
        if job.name not in self.own:
            return job
        own, shared = self.own[job.name], self.shared[job.name]
        if own == shared == 1.0:
            return job
        left_s = job.slo_s - (own - shared) * idle_latency_s(self.model, [job])[0]
        steps = round(float(np.log(max(left_s, 1e-3 * job.slo_s) / shared / job.slo_s)) / SLO_STEP)
        return _with_slo(job, float(np.exp(SLO_STEP * steps)))


@lru_cache(maxsize=1 << 16)
def _with_slo(job: Job, share: float) -> Job:
    return replace(job, slo_s=share * job.slo_s)
