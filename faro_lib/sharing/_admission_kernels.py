"""Compiled loops of `admission` and `values`, which import this module when they are first called.

Curves are those of `queueing.Curves`: the utility of a job at a total load of its pool.
"""

import numpy as np
from numba import njit

from faro_lib.utility._table_kernels import _utility

MET = 1 - 1e-9  # utility from which a job counts as meeting its SLO


@njit(cache=True)
def choice_utilities(keeps, loads, of_job, first, last, value, alpha, replicas):
    """Mean utility of each job if the pool keeps these shares of its jobs' load, (choices, jobs).

    `keeps` (choices, jobs) are the shares of requests that are served, and `loads` (paths, jobs) is
    in erlangs. A job of which nothing is kept has utility 0, and a job without load utility 1.
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
                if loads[path, job] == 0.0:
                    utility[choice, job] += 1.0
                    continue
                if keeps[choice, job] == 0.0:
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


@njit(cache=True, inline="always")
def _at(total, k, x, curves, alpha):
    """Utility of a job of class k at the pool's load `total` on x replicas."""
    first, last, value, per_load = curves
    return _utility(total, first[k, x], last[k, x], per_load[k, x], value[k, x], alpha)


@njit(cache=True)
def _knots_per_load(first, last, value, high):
    """Knots per erlang of the curves of 0 to `high` replicas, (classes, high + 1)."""
    per_load = np.zeros((len(first), high + 1))
    for k in range(len(first)):
        for x in range(high + 1):
            if last[k, x] > first[k, x]:
                per_load[k, x] = (value.shape[2] - 1) / (last[k, x] - first[k, x])
    return per_load


@njit(cache=True)
def _met_loads(first, last, value):
    """Largest load that meets the SLO on x replicas and on any more, (classes, X + 1).

    It is -1 if no load does. Curves are interpolated, so a utility of at least MET counts as 1.
    """
    classes, columns, knots = value.shape
    met = np.empty((classes, columns))
    for k in range(classes):
        least = np.inf
        for x in range(columns - 1, -1, -1):
            below = 0
            while below < knots and value[k, x, below] >= MET:
                below += 1
            load = -1.0
            if below > 0:
                apart = (last[k, x] - first[k, x]) / (knots - 1)
                load = first[k, x] + (below - 1) * apart
            least = min(least, load)
            met[k, x] = least
    return met


@njit(cache=True)
def _served_worth(total, served, load, factor, of_job, curves, x, alpha):
    """Worth of the `served` jobs on x replicas at the pool's load `total`."""
    known, u, worth = -1, 0.0, 0.0
    for job in served:
        if load[job] == 0.0:
            worth += factor[job]
            continue
        if of_job[job] != known:
            known = of_job[job]
            u = _at(total, known, x, curves, alpha)
        worth += factor[job] * u
    return worth


@njit(cache=True)
def prefix_values(loads, order, factor, of_job, first, last, value, alpha, high, fewest):
    """What replicas are worth to a pool that serves its jobs with the least load per weight.

    `loads` (samples, minutes, jobs) is in erlangs, and `order` has the jobs of each sample and
    minute by load per weight. A job's worth is factor * U, with U = 0 for a refused job and U = 1
    for a job without load. The best number of served jobs, at least `fewest`, is taken in each
    sample and minute.

    Returns the mean over samples of the sum of the jobs' worth, (minutes, high + 1), the means of
    the jobs' utilities, (minutes, high + 1, jobs), and the count from which all are constant.
    """
    samples, minutes, jobs = loads.shape
    worth = np.zeros((minutes, high + 1))
    utility = np.zeros((minutes, high + 1, jobs))
    # Number of samples in which all jobs meet their SLOs: with a count of replicas, and from it on.
    met_at = np.zeros((minutes, high + 1))
    met_from = np.zeros((minutes, high + 2))
    curves = (first, last, value, _knots_per_load(first, last, value, high))
    met = _met_loads(first[:, : high + 1], last[:, : high + 1], value[:, : high + 1])
    alike = np.all(of_job == of_job[0])  # then one lookup serves all jobs
    # Of the jobs that are served first, by their number: load, and factors of those without load,
    # of those with load, and of all.
    total, idle, busy, most_worth = np.zeros((4, jobs + 1))
    saturated = 0
    for minute in range(minutes):
        for sample in range(samples):
            load = loads[sample, minute]
            in_order = order[sample, minute]
            every = load.sum()
            enough = 0
            for job in range(jobs):
                while enough <= high and every > met[of_job[job], enough]:
                    enough += 1
            met_from[minute, enough] += 1
            saturated = max(saturated, enough)
            for count in range(jobs):
                job = in_order[count]
                without_load = load[job] == 0.0
                total[count + 1] = total[count] + load[job]
                idle[count + 1] = idle[count] + (factor[job] if without_load else 0.0)
                busy[count + 1] = busy[count] + (0.0 if without_load else factor[job])
                most_worth[count + 1] = most_worth[count] + factor[job]
                if alike:
                    most_worth[count + 1] = idle[count + 1] + busy[count + 1]
            for x in range(min(enough, high + 1)):
                if alike and _at(every, of_job[0], x, curves, alpha) >= MET:
                    met_at[minute, x] += 1
                    continue
                # The largest count is tried first. Fewer jobs are worth at most what they are worth
                # if all of them meet their SLOs.
                best, best_count, best_utility, u = -np.inf, 0, 0.0, 0.0
                for count in range(jobs, fewest - 1, -1):
                    if most_worth[count] <= best:
                        break
                    if alike:
                        u = _at(total[count], of_job[0], x, curves, alpha)
                        served = idle[count] + busy[count] * u
                    else:
                        served = _served_worth(
                            total[count], in_order[:count], load, factor, of_job, curves, x, alpha
                        )
                    if served > best:
                        best, best_count, best_utility = served, count, u
                worth[minute, x] += best
                for place in range(jobs):
                    job = in_order[place]
                    if load[job] == 0.0:
                        utility[minute, x, job] += 1.0
                    elif place < best_count:
                        u = best_utility
                        if not alike:
                            u = _at(total[best_count], of_job[job], x, curves, alpha)
                        utility[minute, x, job] += u
        everything = 0.0
        for x in range(high + 1):
            everything += met_from[minute, x]
            met_samples = everything + met_at[minute, x]
            worth[minute, x] += met_samples * factor.sum()
            utility[minute, x] += met_samples
    return worth / samples, utility / samples, min(saturated, high)
