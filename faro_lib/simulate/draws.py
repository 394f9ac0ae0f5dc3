"""All the chance in a run, drawn before it starts.

Every request carries its own draws, so two policies under one seed meet the very same requests (common random numbers):
what differs between their results is what they decided.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from faro_lib.workload import Job, Workload
from faro_lib.workload.arrivals import sample_arrivals

TRIAL_SEEDS = (24, 32, 40, 42, 62)  # the published trials (EuroSys'25 artifact)


@dataclass(frozen=True, slots=True)
class ServiceTime:
    """A shifted lognormal service time: loc_s + scale_s * exp(shape * Z), Z standard normal; shape 0 is a constant."""

    shape: float
    loc_s: float
    scale_s: float

    @property
    def mean_s(self) -> float:
        return self.loc_s + self.scale_s * float(np.exp(self.shape**2 / 2))

    @property
    def scv(self) -> float:
        """Squared coefficient of variation, variance / mean^2."""
        variance = self.scale_s**2 * float(np.expm1(self.shape**2) * np.exp(self.shape**2))
        return variance / self.mean_s**2

    def scaled(self, factor: float) -> ServiceTime:
        return ServiceTime(self.shape, self.loc_s * factor, self.scale_s * factor)

    @classmethod
    def from_moments(cls, mean_s: float, scv: float) -> ServiceTime:
        """The unshifted lognormal of this mean and squared coefficient of variation.

        >>> round(ServiceTime.from_moments(0.2, 0.5).scv, 6)
        0.5
        """
        shape = float(np.sqrt(np.log1p(scv)))
        return cls(shape, 0.0, mean_s * float(np.exp(-(shape**2) / 2)))

    def from_normals(self, normals: np.ndarray) -> None:
        """Turn standard normals into service times, in place."""
        if self.shape == 0:
            normals[:] = self.loc_s + self.scale_s
            return
        normals *= self.shape
        np.exp(normals, out=normals)
        normals *= self.scale_s
        normals += self.loc_s


ROUTER = ServiceTime(0.480784, 0.0034853, 0.0009878)
RESNET34 = ServiceTime(0.422472, 0.0793016, 0.0685808)
# No distribution of ResNet18 was published; the same shape, shortened as the planner's service times are (0.100 / 0.180 s).
MODELS = {"resnet34": RESNET34, "resnet18": RESNET34.scaled(100 / 180)}


def true_service_time(job: Job) -> ServiceTime:
    """What a replica of this job really takes: its model's measured distribution, else the job's own moments."""
    return MODELS.get(job.model) or ServiceTime.from_moments(job.service_time_s, job.service_scv)


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
