"""All randomness of a trial, drawn before it starts.

Every request carries its own draws, so all policies under one seed receive the same requests (common random numbers), and
results differ only by their decisions.
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
    """The randomness of one trial; float arrays of shape (requests,), job after job.

    Attributes
    ----------
    first : (jobs + 1,) index of each job's first request.
    arrival_s : arrival times, ascending within a job.
    router_in_s, router_out_s : service times of the two passes through the router; empty without a router.
    service_s : service time on a replica.
    coin : uniform in [0, 1); the request is dropped if the drop rate exceeds it.
    seed : the trial's seed; it also seeds the shuffles of the dispatch order.
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
    """Draw a trial.

    Parameters
    ----------
    router : service time of one pass; None leaves the router out.
    scv_factor : multiplies the squared coefficient of variation of the replicas' service times at the same mean.
    """
    arrival_s, first = sample_arrivals(workload, seed)
    rng = np.random.default_rng([seed, 1])
    n, passes = len(arrival_s), len(arrival_s) if router else 0
    router_in_s, service_s, router_out_s = np.empty(passes), np.empty(n), np.empty(passes)
    if router:
        for normals in (router_in_s, router_out_s):
            rng.standard_normal(out=normals)
            router.from_normals(normals)
    rng.standard_normal(out=service_s)
    for job, a, b in zip(workload.jobs, first[:-1], first[1:]):
        service = true_service_time(job)
        if scv_factor != 1.0:
            service = ServiceTime.from_moments(service.mean_s, service.scv * scv_factor)
        service.from_normals(service_s[a:b])
    coin = rng.random(n, dtype=np.float32)
    return Draws(first, arrival_s, router_in_s, service_s, router_out_s, coin, seed)
