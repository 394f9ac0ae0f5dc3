"""All the chance in a run, drawn before it starts.

Every request carries its own draws, so two policies under one seed meet the very same requests (common random numbers):
what differs between their results is what they decided.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from faro_lib.workload import Workload
from faro_lib.workload.arrivals import sample_arrivals
from faro_lib.workload.service import ServiceTime, true_service_time

TRIAL_SEEDS = (24, 32, 40, 42, 62)  # the published trials (EuroSys'25 artifact)


ROUTER = ServiceTime(0.480784, 0.0034853, 0.0009878)


@dataclass(frozen=True, slots=True)
class Draws:
    """The chance of one trial; float arrays of shape (requests,), job after job as `first` (jobs + 1,) says.

    arrival_s : instant of arrival, ascending within a job.
    router_in_s, router_out_s : the router's service of the two passes.
    service_s : the replica's service.
    coin : uniform in [0, 1); a drop rate above it refuses the request.
    seed : names the trial; also seeds the shuffles of the dispatch order.
    """

    first: np.ndarray
    arrival_s: np.ndarray
    router_in_s: np.ndarray
    service_s: np.ndarray
    router_out_s: np.ndarray
    coin: np.ndarray
    seed: int

    def shuffler(self, job: int) -> np.random.Generator:
        """The generator whose `permutation(n)` orders a job's replicas, once for each change of its replica set."""
        return np.random.default_rng([self.seed, 2, job])


def draw(workload: Workload, seed: int, *, router: ServiceTime | None = ROUTER, scv_factor: float = 1.0) -> Draws:
    """Draw a whole trial.

    Parameters
    ----------
    router : service time of one pass; None leaves the router out (its arrays are empty).
    scv_factor : multiplies the squared coefficient of variation of the replicas' service times, their means unchanged.
    """
    arrival_s, first = sample_arrivals(workload, seed)
    rng = np.random.default_rng([seed, 1])
    n = len(arrival_s)
    router_in_s, service_s, router_out_s = np.empty(n if router else 0), np.empty(n), np.empty(n if router else 0)
    for normals in (router_in_s, router_out_s):
        if router:
            rng.standard_normal(out=normals)
            router.from_normals(normals)
    rng.standard_normal(out=service_s)
    for job, a, b in zip(workload.jobs, first[:-1], first[1:]):
        _respread(true_service_time(job), scv_factor).from_normals(service_s[a:b])
    coin = rng.random(n, dtype=np.float32)
    return Draws(first, arrival_s, router_in_s, service_s, router_out_s, coin, seed)


def _respread(service: ServiceTime, scv_factor: float) -> ServiceTime:
    if scv_factor == 1.0:
        return service
    return ServiceTime.from_moments(service.mean_s, service.scv * scv_factor)
