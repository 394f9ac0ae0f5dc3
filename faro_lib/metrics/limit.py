"""The clairvoyant limit: the utility that is lost even if all requests are known and replicas start instantly.

It bounds lost utility only. A policy that drops requests can have fewer violations or lose less effective utility.
"""

from dataclasses import dataclass

import numpy as np

from faro_lib import allocate
from faro_lib.metrics.measures import lost_utility, lost_utility_published
from faro_lib.workload import Job, arrays_of
from faro_lib.workload.jobs import TOLERANCE


@dataclass(frozen=True, slots=True)
class Clairvoyant:
    """Optimal replicas and their utility (NaN: no requests), (jobs, minutes + 1); last bin: arrivals after the day."""

    jobs: tuple[Job, ...]
    replicas: np.ndarray
    utility: np.ndarray

    def summary(self, published: bool = False) -> dict[str, float]:
        """Measure -> value: the lost utility and, if `published`, also as the paper computes it."""
        lost = {"lost_utility": lost_utility(self.utility)}
        return lost | ({"lost_utility_published": lost_utility_published(self.utility)} if published else {})


def clairvoyant(utility: np.ndarray, capacity: float, jobs: tuple[Job, ...]) -> Clairvoyant:
    """The optimal allocation in each minute; `utility` (jobs, 0..X replicas, minutes + 1) is NaN without requests."""
    replicas = best_replicas_by_minute(np.nan_to_num(utility), capacity, jobs)
    rows, bins = replicas.shape
    return Clairvoyant(jobs, replicas, utility[np.arange(rows)[:, None], replicas, np.arange(bins)[None]])


def max_replicas_of_any(jobs: tuple[Job, ...], capacity: float) -> int:
    """The largest replica count that any job can have on `capacity` cores while all others have their minimum.

    >>> max_replicas_of_any((Job("a"), Job("b", cores=2.0)), 8)
    6
    """
    arrays = arrays_of(jobs)
    minimum = arrays.min_replicas
    maximum = minimum + np.floor((capacity - minimum @ arrays.cores) / arrays.cores + TOLERANCE)
    return int(np.minimum(maximum, arrays.max_replicas).max())


def best_replicas_by_minute(value: np.ndarray, capacity: float, jobs: tuple[Job, ...]) -> np.ndarray:
    """Replicas, int (jobs, bins), that maximise the sum of values in each bin.

    `value` (jobs, replicas, bins) is the value of 0, 1, ... replicas. The solution is exact and respects the jobs' bounds
    and the tenants' quotas.
    """
    arrays, columns = arrays_of(jobs), np.arange(value.shape[1])
    outside = (columns < arrays.min_replicas[:, None]) | (columns > arrays.max_replicas[:, None])
    return allocate.best_by_minute(np.where(outside[:, :, None], -np.inf, value), jobs, capacity)
