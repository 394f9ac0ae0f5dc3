"""The clairvoyant limit: the utility that is lost even if all requests are known.

Replicas start and stop instantly. Every job is simulated at every constant replica count. Each
minute then gets its optimal allocation. The limit bounds lost utility only. It does not bound
violations or effective utility, which a policy can improve by dropping requests.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from faro_lib.allocate import best_by_minute
from faro_lib.metrics.measures import minute_utility
from faro_lib.policies import Fixed
from faro_lib.simulate import Draws, ServingModel, simulate
from faro_lib.simulate.cluster import PAPER
from faro_lib.workload import Job, Workload, arrays_of
from faro_lib.workload.jobs import MINUTE_S, TOLERANCE

# Replicas per erlang of peak load, beyond which the utility of most jobs hardly rises.
HEADROOM = 1.6
# Replica counts are simulated until one more replica changes every utility by at most this.
LEAST_CHANGE = 0.001


@dataclass(frozen=True, slots=True)
class Clairvoyant:
    """The optimal replica counts of a trial and the utility that they give, minute by minute."""

    jobs: tuple[Job, ...]
    replicas: np.ndarray  # (jobs, minutes + 1); the last column is for requests after the day
    utility: np.ndarray  # same shape; NaN without requests


def measured_utility(
    workload: Workload, draws: Draws, max_replicas: int, serving_model: ServingModel = PAPER
) -> np.ndarray:
    """Simulated utility (jobs, counts, minutes + 1) of each replica count; NaN without requests.

    Idle minutes after each minute let its requests finish. The utility is an upper bound, because
    in a policy's run a minute may begin with waiting requests. Counts start at 0 and end at
    `max_replicas`. They end earlier, but not below `enough_replicas`, if one more replica changes
    every utility by at most LEAST_CHANGE. The last column is for requests after the last minute.
    The limits of jobs and tenants are ignored.
    """
    # Up to `left` requests per replica remain after a minute. The idle minutes suffice to serve 2 *
    # `left`.
    left = serving_model.queue_limit + 2 + max(map(serving_model.limit_of, workload.jobs))
    every = 2 + int(2 * left * arrays_of(workload.jobs).busy_s.max() // MINUTE_S)
    counts = np.zeros((len(workload.jobs), every * workload.minutes), np.int64)
    counts[:, ::every] = workload.requests_per_min
    later_s = (every - 1) * MINUTE_S * np.floor(draws.arrival_s / MINUTE_S)
    apart = replace(draws, arrival_s=draws.arrival_s + later_s)
    cores = arrays_of(workload.jobs).cores.sum()
    enough = enough_replicas(workload)
    columns: list[np.ndarray] = []  # (jobs, minutes + 1) for 1, 2, ... replicas
    for count in range(1, max_replicas + 1):
        limits: dict[str, Any] = dict(min_replicas=count, max_replicas=count, tenant_quota=None)
        fixed = tuple(replace(job, **limits) for job in workload.jobs)
        day = replace(workload, jobs=fixed, requests_per_min=counts, arrival_s=())
        run = simulate(day, Fixed(count), count * cores, draws=apart, serving_model=serving_model)
        columns.append(minute_utility(run)[:, ::every])
        if count >= enough and _hardly_differ(*columns[-2:]):
            break
    return np.stack([0 * columns[0], *columns], axis=1)


def _hardly_differ(one: np.ndarray, other: np.ndarray) -> bool:
    return np.allclose(one, other, rtol=0, atol=LEAST_CHANGE, equal_nan=True)


def clairvoyants(
    workload: Workload, draws: Draws, capacities: Sequence[int], serving_model: ServingModel = PAPER
) -> list[Clairvoyant]:
    """The clairvoyant allocation for the trial `draws` at each capacity in cores."""
    jobs = workload.jobs
    most = max_replicas_of_any(jobs, max(capacities))
    utility = measured_utility(workload, draws, most, serving_model)
    return [clairvoyant(utility, capacity, jobs) for capacity in capacities]


def clairvoyant(utility: np.ndarray, capacity: float, jobs: tuple[Job, ...]) -> Clairvoyant:
    """The allocation with the largest total `measured_utility` in each minute."""
    replicas = best_by_minute(np.nan_to_num(utility), jobs, capacity)
    reached = np.take_along_axis(utility, replicas[:, None], axis=1)[:, 0]
    return Clairvoyant(jobs, replicas, reached)


def max_replicas_of_any(jobs: tuple[Job, ...], capacity: float) -> int:
    """The largest replica count of any job on `capacity` cores if all others have their minimum.

    >>> max_replicas_of_any((Job("a"), Job("b", cores=2.0)), 8)
    6
    """
    arrays = arrays_of(jobs)
    minimum = arrays.min_replicas
    maximum = minimum + np.floor((capacity - minimum @ arrays.cores) / arrays.cores + TOLERANCE)
    return int(np.minimum(maximum, arrays.max_replicas).max())


def enough_replicas(workload: Workload) -> int:
    """A replica count beyond which the utility of most jobs hardly rises.

    It is at least every job's min_replicas.
    """
    # Service times in a full replica.
    full_s = [job.busy_s * job.replica.max_in_service for job in workload.jobs]
    peak_load = (workload.requests_per_min.max(axis=1) / MINUTE_S * full_s).max()
    enough = int(np.ceil(peak_load * HEADROOM)) + 2
    return max(enough, int(arrays_of(workload.jobs).min_replicas.max()))
