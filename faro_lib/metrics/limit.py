"""The clairvoyant limit: what any policy could reach that moves replicas once a minute, without delay."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from faro_lib import allocate
from faro_lib.metrics.measures import lost_utility, mean_over_jobs_then_bins, minute_effective_utility, minute_utility
from faro_lib.policies import Fixed
from faro_lib.policies.protocol import at_least_one_each
from faro_lib.simulate import Draws, ServingModel, simulate
from faro_lib.simulate.cluster import PAPER
from faro_lib.workload import Job, Workload, jobs_array


def measured_utilities(
    workload: Workload, draws: Draws, most: int, serving_model: ServingModel = PAPER
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What each job's minute would have been worth with x replicas all day long: utility(job, x, minute), measured.

    Every x is measured for every job, within its bounds or not; `best_by_minute` keeps to them.

    Returns
    -------
    utility, violated, effective : (jobs, most + 1, minutes + 1); column 0 is worth nothing.
    """
    jobs, bins = len(workload.jobs), workload.minutes + 1
    utility, effective = np.zeros((jobs, most + 1, bins)), np.zeros((jobs, most + 1, bins))
    violated = np.ones((jobs, most + 1, bins))
    cores = jobs_array(workload.jobs, "cores").sum()
    for replicas in range(1, most + 1):
        fixed = tuple(replace(job, min_replicas=replicas, max_replicas=replicas) for job in workload.jobs)
        day = replace(workload, jobs=fixed)
        run = simulate(day, Fixed(replicas), replicas * cores, draws=draws, serving_model=serving_model)
        utility[:, replicas] = minute_utility(run)
        effective[:, replicas] = minute_effective_utility(run)
        violated[:, replicas] = np.where(
            run.requests == 0, np.nan, (run.dropped + run.slo_missed) / np.maximum(run.requests, 1)
        )
    return utility, violated, effective


@dataclass(frozen=True, slots=True)
class Clairvoyant:
    """What the clairvoyant does and what comes of it; arrays (jobs, bins).

    Attributes
    ----------
    replicas : of each job in each minute.
    utility, effective : NaN in a job-minute without requests; violated : share refused or slo_missed, NaN there, too.
    """

    jobs: tuple[Job, ...]
    replicas: np.ndarray
    utility: np.ndarray
    effective: np.ndarray
    violated: np.ndarray

    def summary(self) -> dict[str, float]:
        """The measures that policies are compared by; nothing is ever dropped."""
        return {
            "lost_utility": lost_utility(self.utility),
            "slo_violation_rate": mean_over_jobs_then_bins(self.violated),
            "lost_effective_utility": lost_utility(self.effective),
        }


def clairvoyant(
    utility: np.ndarray, violated: np.ndarray, effective: np.ndarray, capacity: float, jobs: tuple[Job, ...]
) -> Clairvoyant:
    """The limit: reallocate every minute, without delay, knowing what each minute would be worth (paper/faro.md, section 5).

    The allocation that maximises the sum of utilities minute by minute.

    Parameters
    ----------
    utility, violated, effective : (jobs, columns, bins) of `measured_utilities`.
    capacity : cores.
    """
    replicas = best_by_minute(np.nan_to_num(utility), capacity, jobs)
    rows, bins = replicas.shape
    chosen = (np.arange(rows)[:, None], replicas, np.arange(bins)[None])
    return Clairvoyant(jobs, replicas, utility[chosen], effective[chosen], violated[chosen])


def most_replicas(jobs: tuple[Job, ...], capacity: float) -> int:
    """The most that any job can have of `capacity` cores while the others keep their minimum.

    >>> most_replicas((Job("a"), Job("b", cores=2.0)), 8)
    6
    """
    fewest, cores = at_least_one_each(jobs, capacity), jobs_array(jobs, "cores")
    most = fewest + np.floor((capacity - fewest @ cores) / cores + 1e-9)
    return int(np.minimum(most, jobs_array(jobs, "max_replicas")).max())


def best_by_minute(value: np.ndarray, capacity: float, jobs: tuple[Job, ...]) -> np.ndarray:
    """Allocation of at most `capacity` cores that maximises the sum of values, minute by minute.

    Parameters
    ----------
    value : (jobs, columns, bins), the worth of 0, 1, ... replicas; what has no column is not given to anybody.
    jobs : whose cores and bounds hold.

    Returns
    -------
    int (jobs, bins), at least 1 each.
    """
    fewest, x = at_least_one_each(jobs, capacity), np.arange(value.shape[1])
    outside = (x < fewest[:, None]) | (x > jobs_array(jobs, "max_replicas")[:, None])
    return allocate.best_by_minute(np.where(outside[:, :, None], -np.inf, value), jobs, capacity)
