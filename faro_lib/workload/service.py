"""Service-time distributions of the models that replicas run, measured or assumed."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from faro_lib.workload.jobs import Job
from faro_lib.workload.replicas import SERIAL


@dataclass(frozen=True, slots=True)
class ServiceTime:
    """The shifted lognormal loc_s + scale_s exp(shape Z), with Z standard normal."""

    shape: float  # 0 for a constant service time
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

    def scaled(self, factor: float) -> Self:
        return replace(self, loc_s=self.loc_s * factor, scale_s=self.scale_s * factor)

    @classmethod
    def from_moments(cls, mean_s: float, scv: float) -> Self:
        """The unshifted lognormal with this mean and squared coefficient of variation.

        >>> round(ServiceTime.from_moments(0.2, 0.5).scv, 6)
        0.5
        """
        shape = float(np.sqrt(np.log1p(scv)))
        return cls(shape, 0.0, mean_s * float(np.exp(-(shape**2) / 2)))

    def from_normals(self, normals: np.ndarray) -> None:
        """Convert standard normals to service times, in place."""
        normals *= self.shape
        np.exp(normals, out=normals)
        normals *= self.scale_s
        normals += self.loc_s


RESNET34 = ServiceTime(0.422472, 0.0793016, 0.0685808)
# No distribution was published for ResNet18, so ResNet34's is scaled by the ratio of the mean
# service times.
MODELS = {"resnet34": RESNET34, "resnet18": RESNET34.scaled(100 / 180)}


def true_service_time(job: Job) -> ServiceTime:
    """The service time measured for the job's model, or a lognormal with the job's mean and scv.

    For a batched replica, the result multiplies the mean duration of a batch. For a replica
    that generates tokens, it is unused.
    """
    if job.replica.kind in ("batched", "continuous", "disaggregated"):
        return ServiceTime.from_moments(1.0, job.service_scv)
    return MODELS.get(job.model) or ServiceTime.from_moments(job.service_time_s, job.service_scv)


def true_busy_s(job: Job) -> float:
    """Seconds per request of a fully loaded replica: `Job.busy_s` with the true service time."""
    mean_s = true_service_time(job).mean_s
    if job.replica == SERIAL:
        return mean_s
    return 1 / job.replica.capacity_rps(mean_s)
