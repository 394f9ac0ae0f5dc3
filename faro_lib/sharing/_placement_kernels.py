"""Compiled loops of `placement`, which imports this module when it is first called.

A set of jobs is a bit mask: bit j is the j-th job of the pool.
"""

import numpy as np
from numba import njit


@njit(cache=True)
def subset_loads(loads):
    """Load of every set of jobs on every path, (sets, paths); `loads` is (paths, jobs)."""
    paths, jobs = loads.shape
    total = np.zeros((1 << jobs, paths))
    for subset in range(1, 1 << jobs):
        job = 0
        while not (subset >> job) & 1:
            job += 1
        rest = subset & (subset - 1)
        for path in range(paths):
            total[subset, path] = total[rest, path] + loads[path, job]
    return total


@njit(cache=True)
def reached(masks, jobs):
    """Replicas that hold a model of each set of jobs, (sets,); `masks` (replicas,) are theirs."""
    sets = 1 << jobs
    # within[T]: replicas that hold only models of T; first the replicas that hold exactly T.
    within = np.zeros(sets, np.int64)
    for mask in masks:
        within[mask] += 1
    for job in range(jobs):
        for subset in range(sets):
            if (subset >> job) & 1:
                within[subset] += within[subset ^ (1 << job)]
    return len(masks) - within[::-1]  # the complement of set S is the set sets - 1 - S


@njit(cache=True)
def mean_pressure(masks, jobs, needs_of):
    """Mean over paths of the largest need(S) / replicas that hold a model of S.

    `needs_of` (sets, paths) are the replicas that each set of jobs needs.
    """
    reach = reached(masks, jobs)
    most = np.zeros(needs_of.shape[1])
    for subset in range(1, len(reach)):
        for path in range(len(most)):
            most[path] = max(most[path], needs_of[subset, path] / max(reach[subset], 0.1))
    return most.mean()


@njit(cache=True)
def improve(masks, home, jobs, needs_of, models, memory_of, memory_gib, least_gain, rounds):
    """Replace one model of one replica at a time, as long as it reduces the mean pressure.

    Each round makes the best replacement, if it reduces the pressure by more than `least_gain`.
    Home models stay. `masks` is changed in place. Returns the mean pressure.
    """
    now = mean_pressure(masks, jobs, needs_of)
    # No placement has less than if every replica holds every model.
    floor = (needs_of[-1] / max(len(masks), 0.1)).mean()
    for _ in range(rounds):
        if floor >= now - least_gain:
            break
        best, best_replica, best_mask = now - least_gain, -1, 0
        for replica in range(len(masks)):
            before = masks[replica]
            repeated = False
            for other in range(replica):
                if masks[other] == before and home[other] == home[replica]:
                    repeated = True
            if repeated:
                continue
            for gone in range(-1, jobs):  # -1: nothing goes
                if gone >= 0 and (gone == home[replica] or not (before >> gone) & 1):
                    continue
                kept = before if gone < 0 else before & ~(1 << gone)
                for new in range(jobs):
                    if (before >> new) & 1:
                        continue
                    mask = kept | (1 << new)
                    count, memory = 0, 0.0
                    for job in range(jobs):
                        if (mask >> job) & 1:
                            count += 1
                            memory += memory_of[job]
                    if count > models or memory > memory_gib + 1e-9:
                        continue
                    masks[replica] = mask
                    pressure = mean_pressure(masks, jobs, needs_of)
                    masks[replica] = before
                    if pressure < best - 1e-12:
                        best, best_replica, best_mask = pressure, replica, mask
        if best_replica < 0:
            break
        masks[best_replica] = best_mask
        now = best
    return now
