"""The clairvoyant limit of lost utility: all requests are known, and replicas move instantly at the start of a minute.

There is no such limit of violations or effective utility: dropping requests can lower both below any allocation without drops.
"""

from dataclasses import dataclass

import numpy as np

from faro_lib import allocate
from faro_lib.metrics.measures import lost_utility, lost_utility_published
from faro_lib.policies.protocol import at_least_one_each
from faro_lib.workload import Job, arrays_of
from faro_lib.workload.jobs import TOLERANCE


@dataclass(frozen=True, slots=True)
class Clairvoyant:
    """Replicas (int) and utility (NaN without requests) of each job and minute; arrays (jobs, minutes + 1)."""

    jobs: tuple[Job, ...]
    replicas: np.ndarray
    utility: np.ndarray

    def summary(self, published: bool = False) -> dict[str, float]:
        """The lost utility, also in the published convention if `published`."""
        lost = {"lost_utility": lost_utility(self.utility)}
        return lost | ({"lost_utility_published": lost_utility_published(self.utility)} if published else {})


def clairvoyant(utility: np.ndarray, capacity: float, jobs: tuple[Job, ...]) -> Clairvoyant:
    """The allocation of each minute that maximises the sum of utilities, (jobs, replicas, minutes + 1)."""
    replicas = best_replicas_by_minute(np.nan_to_num(utility), capacity, jobs)
    rows, bins = replicas.shape
    return Clairvoyant(jobs, replicas, utility[np.arange(rows)[:, None], replicas, np.arange(bins)[None]])


def max_replicas_of_any(jobs: tuple[Job, ...], capacity: float) -> int:
    """The largest replica count of any job within `capacity` cores if all other jobs have their minimum.

    >>> max_replicas_of_any((Job("a"), Job("b", cores=2.0)), 8)
    6
    """
    minimum, arrays = at_least_one_each(jobs, capacity), arrays_of(jobs)
    maximum = minimum + np.floor((capacity - minimum @ arrays.cores) / arrays.cores + TOLERANCE)
    return int(np.minimum(maximum, arrays.max_replicas).max())


def best_replicas_by_minute(value: np.ndarray, capacity: float, jobs: tuple[Job, ...]) -> np.ndarray:
    """The allocation of each minute that maximises the sum of values: int (jobs, bins), at least one replica per job.

    The knapsack is solved exactly, within the bounds of the jobs and the quotas of the tenants. `value` is that of 0, 1,
    ... replicas, (jobs, replicas, bins).
    """
    minimum, columns = at_least_one_each(jobs, capacity), np.arange(value.shape[1])
    outside = (columns < minimum[:, None]) | (columns > arrays_of(jobs).max_replicas[:, None])
    return allocate.best_by_minute(np.where(outside[:, :, None], -np.inf, value), jobs, capacity)
