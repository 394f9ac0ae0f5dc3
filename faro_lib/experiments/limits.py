"""The clairvoyant limit: the utility that is lost even if all requests are known and replicas start instantly.

Every job is simulated at every constant replica count. Each minute then gets its optimal
allocation. The limit bounds lost utility only. It does not bound violations or effective utility,
which a policy can improve by dropping requests.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from faro_lib.allocate import best_by_minute
from faro_lib.metrics.measures import minute_utility
from faro_lib.policies import Fixed
from faro_lib.simulate import Draws, simulate
from faro_lib.simulate.cluster import PAPER
from faro_lib.workload import Job, Workload, arrays_of
from faro_lib.workload.jobs import MINUTE_S, TOLERANCE

HEADROOM = 1.6  # replicas per erlang of peak load; more replicas than this hardly raise the utility of most jobs
LEAST_CHANGE = 0.001  # replica counts are simulated until one more replica changes every utility by at most this


@dataclass(frozen=True, slots=True)
class Clairvoyant:
    """The optimal replica counts of a trial and the utility that they give, minute by minute."""

    jobs: tuple[Job, ...]
    replicas: (
        np.ndarray
    )  # (jobs, minutes + 1); the last column is for requests that arrive after the last minute
    utility: np.ndarray  # same shape; NaN without requests


def measured_utility(workload: Workload, draws: Draws, max_replicas: int) -> np.ndarray:
    """Simulated utility by job, replica count and minute, shape (jobs, counts, minutes + 1); NaN without requests.

    Idle minutes after each minute let its requests finish. The utility is an upper bound, because
    in a policy's run a minute may begin with waiting requests. Counts start at 0 and end at
    `max_replicas`. They end earlier, but not below `enough_replicas`, if one more replica changes
    every utility by at most LEAST_CHANGE. The last column is for requests after the last minute.
    The limits of jobs and tenants are ignored.
    """
    # Up to `left` requests per replica remain after a minute. The idle minutes suffice to serve 2 *
    # `left`.
    left = PAPER.queue_limit + 2 + max(map(PAPER.limit_of, workload.jobs))
    every = 2 + int(2 * left * arrays_of(workload.jobs).busy_s.max() // MINUTE_S)
    counts = np.zeros((len(workload.jobs), every * workload.minutes), np.int64)
    counts[:, ::every] = workload.requests_per_min
    later_s = (every - 1) * MINUTE_S * np.floor(draws.arrival_s / MINUTE_S)
    apart = replace(draws, arrival_s=draws.arrival_s + later_s)
    cores, enough, columns = arrays_of(workload.jobs).cores.sum(), enough_replicas(workload), []
    for count in range(1, max_replicas + 1):
        fixed = tuple(
            replace(job, min_replicas=count, max_replicas=count, tenant_quota=None)
            for job in workload.jobs
        )
        day = replace(workload, jobs=fixed, requests_per_min=counts)
        run = simulate(day, Fixed(count), count * cores, draws=apart)
        columns.append(minute_utility(run)[:, ::every])
        if count >= enough and np.allclose(
            columns[-1], columns[-2], rtol=0, atol=LEAST_CHANGE, equal_nan=True
        ):
            break
    return np.stack([0 * columns[0], *columns], axis=1)


def clairvoyants(workload: Workload, draws: Draws, capacities: Sequence[int]) -> list[Clairvoyant]:
    """The clairvoyant allocation for the trial `draws` at each capacity in cores."""
    jobs = workload.jobs
    utility = measured_utility(workload, draws, max_replicas_of_any(jobs, max(capacities)))
    return [clairvoyant(utility, capacity, jobs) for capacity in capacities]


def clairvoyant(utility: np.ndarray, capacity: float, jobs: tuple[Job, ...]) -> Clairvoyant:
    """The allocation with the largest total utility in each minute; `utility` is the result of `measured_utility`."""
    replicas = best_by_minute(np.nan_to_num(utility), jobs, capacity)
    rows, bins = replicas.shape
    return Clairvoyant(
        jobs, replicas, utility[np.arange(rows)[:, None], replicas, np.arange(bins)[None]]
    )


def max_replicas_of_any(jobs: tuple[Job, ...], capacity: float) -> int:
    """The largest replica count that any job can have on `capacity` cores while all others have their minimum.

    >>> max_replicas_of_any((Job("a"), Job("b", cores=2.0)), 8)
    6
    """
    arrays = arrays_of(jobs)
    minimum = arrays.min_replicas
    maximum = minimum + np.floor((capacity - minimum @ arrays.cores) / arrays.cores + TOLERANCE)
    return int(np.minimum(maximum, arrays.max_replicas).max())


def enough_replicas(workload: Workload) -> int:
    """A replica count beyond which the utility of most jobs hardly rises; at least every job's min_replicas."""
    full_s = [
        job.busy_s * job.replica.max_in_service for job in workload.jobs
    ]  # service time when the replica is full
    peak_load = (workload.requests_per_min.max(axis=1) / MINUTE_S * full_s).max()
    return max(
        int(np.ceil(peak_load * HEADROOM)) + 2, int(arrays_of(workload.jobs).min_replicas.max())
    )
