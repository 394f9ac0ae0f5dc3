"""Latency models of services that are not as assumed: slower, or behind another balancer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from faro_lib.queueing.latency_models import Curves, LatencyModel
from faro_lib.workload import Job


@dataclass(frozen=True, slots=True)
class Slower(LatencyModel):
    """`model` with all times of a job multiplied by its factor (`service_factor`); others: 1."""

    model: LatencyModel
    factors: Mapping[str, float]  # by the job's name

    def factor(self, job: Job) -> float:
        return self.factors.get(job.name, 1.0)

    def busy_s(self, job: Job) -> float:
        return self.factor(job) * self.model.busy_s(job)

    def expected_utility(
        self, job: Job, rate_rps, replicas, utility: str, alpha: float = 1.0
    ) -> np.ndarray:
        own = _with_own_clock(job, self.factor(job))
        rate_rps = self.factor(job) * np.asarray(rate_rps, float)
        return self.model.expected_utility(own, rate_rps, replicas, utility, alpha)

    def tail_latency_s(self, job: Job, rate_rps, replicas) -> np.ndarray:
        factor = self.factor(job)
        rate_rps = factor * np.asarray(rate_rps, float)
        return factor * self.model.tail_latency_s(job, rate_rps, replicas)

    def curves(self, jobs: Sequence[Job], utility: str, alpha: float, columns: int) -> Curves:
        factors = np.array([self.factor(job) for job in jobs])
        own = [_with_own_clock(job, factor) for job, factor in zip(jobs, factors.tolist())]
        curves = self.model.curves(own, utility, alpha, columns)
        # Jobs of one class of `curves` may have different factors.
        keys = np.column_stack([curves.of_job, factors])
        classes, of_job = np.unique(keys, axis=0, return_inverse=True)
        of_class, load = classes[:, 0].astype(int), 1 / classes[:, 1, None]
        return Curves(
            curves.first[of_class] * load,
            curves.last[of_class] * load,
            curves.value[of_class],
            of_job.reshape(-1),
        )


@dataclass(frozen=True, slots=True)
class OneReplicaEach(LatencyModel):
    """`model`, in which each request of some jobs can use one replica only, chosen at random.

    So n replicas at rate r have the latencies of one replica at rate r / n.
    """

    model: LatencyModel
    names: frozenset[str]  # of these jobs

    def busy_s(self, job: Job) -> float:
        return self.model.busy_s(job)

    def expected_utility(
        self, job: Job, rate_rps, replicas, utility: str, alpha: float = 1.0
    ) -> np.ndarray:
        load = self._of_one(job, rate_rps, replicas)
        return self.model.expected_utility(job, *load, utility, alpha)

    def tail_latency_s(self, job: Job, rate_rps, replicas) -> np.ndarray:
        return self.model.tail_latency_s(job, *self._of_one(job, rate_rps, replicas))

    def curves(self, jobs: Sequence[Job], utility: str, alpha: float, columns: int) -> Curves:
        curves = self.model.curves(jobs, utility, alpha, columns)
        alone = np.array([job.name in self.names for job in jobs])
        if not alone.any():
            return curves
        classes = len(curves.first)
        replicas = np.arange(1, curves.first.shape[1])
        first, last, value = (array.copy() for array in curves[:3])
        first[:, 1:] = first[:, 1:2] * replicas
        last[:, 1:] = last[:, 1:2] * replicas
        value[:, 1:] = value[:, 1:2]
        return Curves(
            np.concatenate([curves.first, first]),
            np.concatenate([curves.last, last]),
            np.concatenate([curves.value, value]),
            curves.of_job + classes * alone,
        )

    def _of_one(self, job: Job, rate_rps, replicas) -> tuple[np.ndarray, np.ndarray]:
        """(rate, replicas) of the replica that a request meets."""
        rate_rps, replicas = np.asarray(rate_rps, float), np.asarray(replicas, float)
        if job.name not in self.names:
            return rate_rps, replicas
        return rate_rps / np.maximum(replicas, 1.0), np.minimum(replicas, 1.0)


@lru_cache(maxsize=1 << 16)
def _with_own_clock(job: Job, factor: float) -> Job:
    """The job with its SLO in the time of its own clock, which runs `factor` times slower."""
    return replace(job, slo_s=job.slo_s / factor)
