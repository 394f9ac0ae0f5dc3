"""The clairvoyant limit: what any policy could reach that moves replicas once a minute, without delay."""

from __future__ import annotations

import numpy as np

from faro_lib.metrics.measures import lost_utility, mean_over_jobs_then_bins, minute_effective_utility, minute_utility
from faro_lib.policies import Fixed
from faro_lib.simulate import Draws, Physics, simulate
from faro_lib.simulate.cluster import PAPER
from faro_lib.workload import Workload, jobs_array


def measured_utilities(
    workload: Workload, draws: Draws, most: int, physics: Physics = PAPER
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What each job's minute would have been worth with x replicas all day long: utility(job, x, minute), measured.

    Returns
    -------
    utility, violated, effective : (jobs, most + 1, minutes + 1); column 0 is worth nothing.
    """
    jobs, bins = len(workload.jobs), workload.minutes + 1
    utility, effective = np.zeros((jobs, most + 1, bins)), np.zeros((jobs, most + 1, bins))
    violated = np.ones((jobs, most + 1, bins))
    cores = jobs_array(workload.jobs, "cores").sum()
    for replicas in range(1, most + 1):
        run = simulate(workload, Fixed(replicas), replicas * cores, draws=draws, physics=physics)
        utility[:, replicas] = minute_utility(run)
        effective[:, replicas] = minute_effective_utility(run)
        violated[:, replicas] = np.where(
            run.requests == 0, np.nan, (run.refused + run.late) / np.maximum(run.requests, 1)
        )
    return utility, violated, effective


def clairvoyant(utility: np.ndarray, violated: np.ndarray, capacity: int) -> dict[str, float]:
    """The limit: reallocate every minute, without delay, knowing what each minute would be worth (paper/faro.md, section 5).

    Parameters
    ----------
    utility, violated : (jobs, columns, bins) of `measured_utilities`; every replica takes one core.

    Returns
    -------
    lost_utility, slo_violation_rate of the allocation that maximises the sum of utilities minute by minute.
    """
    replicas = best_by_minute(np.nan_to_num(utility), capacity)
    jobs, bins = replicas.shape
    chosen = (np.arange(jobs)[:, None], replicas, np.arange(bins)[None])
    return {
        "lost_utility": lost_utility(utility[chosen]),
        "slo_violation_rate": mean_over_jobs_then_bins(violated[chosen]),
    }


def best_by_minute(value: np.ndarray, capacity: int) -> np.ndarray:
    """Allocation of at most `capacity` replicas that maximises the sum of values, minute by minute.

    Dynamic programming over the budget, all minutes at once, so it need not build a table for each.

    Parameters
    ----------
    value : (jobs, columns, bins).

    Returns
    -------
    int (jobs, bins), at least 1 each.
    """
    jobs, columns, bins = value.shape
    if capacity < jobs:
        raise ValueError(f"capacity={capacity} is less than one replica for each of {jobs} jobs")
    best = np.zeros((capacity + 1, bins))
    choices = np.zeros((jobs, capacity + 1, bins), np.int64)
    for job in range(jobs):
        after = np.full_like(best, -np.inf)
        for x in range(1, min(columns - 1, capacity) + 1):
            with_x = best[: capacity + 1 - x] + value[job, x]
            better = with_x > after[x:]
            after[x:][better] = with_x[better]
            choices[job, x:][better] = x
        best = after
    left = np.full(bins, capacity)
    replicas = np.zeros((jobs, bins), np.int64)
    for job in reversed(range(jobs)):
        replicas[job] = choices[job, left, np.arange(bins)]
        left = left - replicas[job]
    return replicas
