"""Compiled loops of `admission` and `values`, which import this module when they are first called.

Curves are those of `queueing.Curves`: the utility of a job at a total load of its pool.
"""

import numpy as np
from numba import njit

from faro_lib.utility._table_kernels import _utility


@njit(cache=True)
def choice_utilities(keeps, loads, of_job, first, last, value, alpha, replicas):
    """Mean utility of each job if the pool keeps these shares of its jobs' load, (choices, jobs).

    `keeps` (choices, jobs) are the shares of requests that are served, and `loads` (paths, jobs) is
    in erlangs. A job of which nothing is kept has utility 0 on a path with load.
    """
    choices, jobs = keeps.shape
    utility = np.zeros((choices, jobs))
    paths = len(loads)
    for choice in range(choices):
        for path in range(paths):
            total = 0.0
            for job in range(jobs):
                total += keeps[choice, job] * loads[path, job]
            known = -1
            last_utility = 0.0
            for job in range(jobs):
                if keeps[choice, job] == 0.0:
                    utility[choice, job] += 0.0 if loads[path, job] > 0.0 else 1.0
                    continue
                k = of_job[job]
                if k != known:
                    known = k
                    start, end = first[k, replicas], last[k, replicas]
                    knots = value[k, replicas]
                    per_load = (len(knots) - 1) / (end - start) if end > start else 0.0
                    last_utility = _utility(total, start, end, per_load, knots, alpha)
                utility[choice, job] += last_utility
    return utility / paths


@njit(cache=True)
def prefix_values(loads, order, factor, of_job, first, last, value, alpha, high, fewest):
    """What replicas are worth to a pool that serves its jobs with the least load per weight.

    `loads` (samples, minutes, jobs) is in erlangs, and `order` has the jobs of each sample and
    minute by load per weight. A job's worth is factor * U, with U = 0 for a refused job. The best
    number of served jobs is taken in each sample and minute. Returns the mean over samples of the
    sum of the jobs' worth, (minutes, high + 1), and the means of the jobs' utilities, (minutes,
    high + 1, jobs). At least `fewest` jobs are served.
    """
    samples, minutes, jobs = loads.shape
    worth = np.zeros((minutes, high + 1))
    utility = np.zeros((minutes, high + 1, jobs))
    for x in range(high + 1):
        for minute in range(minutes):
            for sample in range(samples):
                best, best_count = -np.inf, 0
                total = 0.0
                for count in range(jobs + 1):
                    if count > 0:
                        total += loads[sample, minute, order[sample, minute, count - 1]]
                    served = 0.0
                    for place in range(count):
                        job = order[sample, minute, place]
                        k = of_job[job]
                        start, end = first[k, x], last[k, x]
                        knots = value[k, x]
                        per_load = (len(knots) - 1) / (end - start) if end > start else 0.0
                        u = _utility(total, start, end, per_load, knots, alpha)
                        served += factor[job] * u
                    for place in range(count, jobs):
                        job = order[sample, minute, place]
                        if loads[sample, minute, job] == 0.0:
                            served += factor[job]
                    if count >= fewest and served >= best:
                        best, best_count = served, count
                worth[minute, x] += best
                total = 0.0
                for place in range(best_count):
                    total += loads[sample, minute, order[sample, minute, place]]
                for place in range(jobs):
                    job = order[sample, minute, place]
                    if place < best_count:
                        k = of_job[job]
                        start, end = first[k, x], last[k, x]
                        knots = value[k, x]
                        per_load = (len(knots) - 1) / (end - start) if end > start else 0.0
                        u = _utility(total, start, end, per_load, knots, alpha)
                        utility[minute, x, job] += u
                    elif loads[sample, minute, job] == 0.0:
                        utility[minute, x, job] += 1.0
    return worth / samples, utility / samples
