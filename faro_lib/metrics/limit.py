"""The clairvoyant limit: the utility that is lost even if all requests are known and replicas start instantly.

It bounds lost utility only. A policy that drops requests can have fewer violations or lose less effective utility.
"""

from dataclasses import dataclass

import numpy as np

from faro_lib.allocate import best_by_minute
from faro_lib.workload import Job, arrays_of
from faro_lib.workload.jobs import TOLERANCE


@dataclass(frozen=True, slots=True)
class Clairvoyant:
    """Optimal replicas and their utility (NaN: no requests), (jobs, minutes + 1); last bin: arrivals after the day."""

    jobs: tuple[Job, ...]
    replicas: np.ndarray
    utility: np.ndarray


def clairvoyant(utility: np.ndarray, capacity: float, jobs: tuple[Job, ...]) -> Clairvoyant:
    """The optimal allocation in each minute; `utility` (jobs, 0..X replicas, minutes + 1) is NaN without requests."""
    replicas = best_by_minute(np.nan_to_num(utility), jobs, capacity)
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
