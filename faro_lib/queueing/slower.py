"""A latency model of services whose times are longer or shorter than assumed."""

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


@lru_cache(maxsize=1 << 16)
def _with_own_clock(job: Job, factor: float) -> Job:
    """The job with its SLO in the time of its own clock, which runs `factor` times slower."""
    return replace(job, slo_s=job.slo_s / factor)
