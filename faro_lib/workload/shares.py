"""Replica counts without a policy: the minimum of each job, and an equal share of the capacity."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from faro_lib.workload.jobs import TOLERANCE, Job, arrays_of


def minimum_replicas(jobs: tuple[Job, ...]) -> np.ndarray:
    """Replicas (jobs,) at the start: each job's minimum, but at least 1 (EuroSys'25, section 6.1).

    >>> minimum_replicas((Job("a", min_replicas=0), Job("b", min_replicas=2))).tolist()
    [1, 2]
    """
    return np.maximum(1, arrays_of(jobs).min_replicas)


def at_least_one_each(jobs: tuple[Job, ...], capacity: float) -> np.ndarray:
    """`minimum_replicas(jobs)`; ValueError if they exceed the capacity or a tenant's quota.

    >>> at_least_one_each((Job("a"), Job("b", min_replicas=2)), 2)
    Traceback (most recent call last):
    ValueError: capacity=2 cores cannot hold the minimum of 2 jobs, 3 cores
    """
    minimum = minimum_replicas(jobs)
    arrays = arrays_of(jobs)
    required = float(minimum @ arrays.cores)
    if required > capacity + TOLERANCE:
        problem = f"cannot hold the minimum of {len(jobs)} jobs, {required:g} cores"
        raise ValueError(f"capacity={capacity:g} cores {problem}")
    for_group = np.bincount(arrays.group, minimum * arrays.cores, len(arrays.quota))
    for job, group in zip(jobs, arrays.group):
        if for_group[group] > arrays.quota[group] + TOLERANCE:
            quota = f"tenant {job.tenant!r}: tenant_quota={job.tenant_quota:g} cores"
            need = f"the minimum of its jobs, {for_group[group]:g} cores"
            raise ValueError(f"{quota} cannot hold {need}")
    return minimum


def check_initial(jobs: tuple[Job, ...], initial: np.ndarray, capacity: float) -> None:
    """Raise ValueError if the minimum or the `initial` replicas (jobs,) exceed the capacity."""
    at_least_one_each(jobs, capacity)
    required = float(initial @ arrays_of(jobs).cores)
    if required > capacity + TOLERANCE:
        problem = f"needs {required:g} cores; the capacity is {capacity:g}"
        raise ValueError(f"initial={initial.tolist()} {problem}")


def fair_share(
    jobs: tuple[Job, ...], capacity: float, present: np.ndarray | None = None
) -> np.ndarray:
    """The replicas of each job (jobs,) that fit into an equal share of the cores.

    Leftover cores stay unused. Replica bounds and quotas are respected. An absent job (False in
    `present`) gets only its minimum.

    >>> fair_share((Job("a"), Job("b"), Job("c")), 8).tolist()
    [2, 2, 2]
    """
    minimum, arrays = at_least_one_each(jobs, capacity), arrays_of(jobs)
    if present is not None and not present.all():
        share = minimum.copy()
        if present.any():
            reserved = float(minimum[~present] @ arrays.cores[~present])
            here = tuple(job for job, is_here in zip(jobs, present) if is_here)
            share[present] = fair_share(here, capacity - reserved)
        return share
    share = np.clip(arrays.replicas_within(capacity / len(jobs)), minimum, arrays.max_replicas)
    # While a quota or the capacity is exceeded, the largest affected job loses a replica.
    while True:
        cores = share * arrays.cores
        over_quota = np.bincount(arrays.group, cores, len(arrays.quota)) > arrays.quota + TOLERANCE
        over = over_quota[arrays.group] | (cores.sum() > capacity + TOLERANCE)
        if not over.any():
            return share
        share[np.argmax(np.where(over & (share > minimum), cores, -np.inf))] -= 1


def with_bounds(
    jobs: tuple[Job, ...], least: Sequence[int], most: Sequence[int]
) -> tuple[Job, ...]:
    """The jobs with other minimum and maximum replicas, each (jobs,).

    A quota is raised to the cores of its jobs' minimum: what runs already may exceed it.

    >>> job = Job("a", cores=2.0, tenant="x", tenant_quota=4.0)
    >>> with_bounds((job,), [3], [3])[0].tenant_quota
    6.0
    """
    used: dict[str, float] = {}  # cores of the minimum replicas of each tenant's jobs
    for job, low in zip(jobs, least):
        used[job.tenant] = used.get(job.tenant, 0.0) + low * job.cores
    bounded = []
    for job, low, high in zip(jobs, least, most):
        quota = job.tenant_quota
        if quota:
            quota = max(quota, used[job.tenant])
        bounded.append(replace(job, min_replicas=low, max_replicas=high, tenant_quota=quota))
    return tuple(bounded)
