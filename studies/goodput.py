"""A latency model whose utility is goodput: the share of requests that meet the SLO.

The usual utility of a minute is SLO / latency at one quantile, at most 1. It says whether a service
meets its SLO, but little about how many of its requests do.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from faro_lib.queueing import LatencyTable
from faro_lib.queueing.latency_models import (
    SAMPLED_RHO,
    Curve,
    Curves,
    LatencyModel,
    reusable,
    sampled,
    stacked,
)
from faro_lib.workload import Job
from faro_lib.workload.jobs import MINUTE_S

QUANTILES = (0.5, 0.8, 0.9, 0.95, 0.99)  # that the latency table must have for each job


@dataclass(frozen=True, slots=True)
class Goodput(LatencyModel):
    """Goodput by interpolation between the latencies that `table` has at QUANTILES."""

    table: LatencyTable

    def expected_utility(
        self, job: Job, rate_rps, replicas, utility: str, alpha: float = 1.0
    ) -> np.ndarray:
        """Expected share of a minute's requests that meet the SLO; 1 without requests."""
        latency_s = [
            self.table.minutes(replace(job, quantile=quantile), rate_rps, replicas)[0]
            for quantile in QUANTILES
        ]
        with_requests = np.minimum(1.0, np.asarray(rate_rps, float) * MINUTE_S)
        return 1 - with_requests * (1 - share_met(np.array(latency_s), job.slo_s).mean(axis=-1))

    def curves(self, jobs: Sequence[Job], utility: str, alpha: float, columns: int) -> Curves:
        """Curves by job, whatever its weight and its bounds."""
        plain = [replace(job, weight=1.0, min_replicas=1, quantile=QUANTILES[-1]) for job in jobs]
        return stacked(plain, lambda job: _curve(self, job, reusable(columns)))


@lru_cache(maxsize=128)
def _curve(model: Goodput, job: Job, columns: int) -> Curve:
    def expected(rate_rps, replicas):
        return model.expected_utility(job, rate_rps, replicas, "relaxed")

    return sampled(expected, job.busy_s, SAMPLED_RHO, columns, job.name)


def share_met(latency_s: np.ndarray, slo_s: float) -> np.ndarray:
    """The share of requests within `slo_s`, from latencies at QUANTILES, (quantiles, ...).

    Log latencies are interpolated. Beyond the last quantile, all requests meet the SLO or none;
    below the first, the share is proportional to slo_s / latency, which keeps a slope in overload.

    >>> share_met(np.array([0.25, 0.5, 1.0, 2.0, 4.0]), 1.0).item()
    0.9
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        log_s = np.log(np.maximum.accumulate(latency_s, axis=0))
        share = QUANTILES[0] * np.minimum(1.0, slo_s / latency_s[0])
        for n, (low, high) in enumerate(zip(QUANTILES, QUANTILES[1:])):
            part = (np.log(slo_s) - log_s[n]) / (log_s[n + 1] - log_s[n])
            exact = np.where(log_s[n] <= np.log(slo_s), 1.0, 0.0)
            part = np.where(np.isfinite(part), part, exact)
            share = share + (high - low) * np.clip(part, 0.0, 1.0)
    return share + (1 - QUANTILES[-1]) * (latency_s[-1] <= slo_s)
