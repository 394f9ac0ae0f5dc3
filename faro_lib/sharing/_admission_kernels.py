"""Compiled loops of `admission`, which imports this module when it is first called.

Curves are those of `queueing.Curves`: the utility of a job at a total load of its pool.
"""

import numpy as np
from numba import njit

from faro_lib.utility._table_kernels import _utility, met_loads

MET = 1 - 1e-9  # utility from which a job counts as meeting its SLO


@njit(cache=True)
def choice_utilities(keeps, loads, of_job, first, last, value, alpha, replicas):
    """Mean utility of each job if pools keep these shares of their load, (pools, choices, jobs).

    `keeps` (choices, jobs) are the shares of requests that are served, and `loads` (pools, jobs,
    paths) is in erlangs. `of_job` (pools, jobs) and `replicas` (pools,) are the pools'. A job of
    which nothing is kept has utility 0, and a job without load utility 1.
    """
    pools, jobs, paths = loads.shape
    utility = np.zeros((pools, len(keeps), jobs))
    for pool in range(pools):
        x = replicas[pool]
        for choice in range(len(keeps)):
            of_choice = utility[pool, choice]
            for path in range(paths):
                total = 0.0
                for job in range(jobs):
                    total += keeps[choice, job] * loads[pool, job, path]
                known = -1
                last_utility = 0.0
                for job in range(jobs):
                    if loads[pool, job, path] == 0.0:
                        of_choice[job] += 1.0
                        continue
                    if keeps[choice, job] == 0.0:
                        continue
                    k = of_job[pool, job]
                    if k != known:
                        known = k
                        start, end = first[k, x], last[k, x]
                        knots = value[k, x]
                        per_load = (len(knots) - 1) / (end - start) if end > start else 0.0
                        last_utility = _utility(total, start, end, per_load, knots, alpha)
                    of_choice[job] += last_utility
    return utility / paths


@njit(cache=True, inline="always")
def _at(total, k, x, curves, alpha):
    """Utility of a job of class k at the pool's load `total` on x replicas."""
    first, last, value, per_load = curves
    return _utility(total, first[k, x], last[k, x], per_load[k, x], value[k, x], alpha)


@njit(cache=True)
def _knots_per_load(first, last, value):
    """Knots per erlang of the curves, (classes, X + 1)."""
    per_load = np.zeros(first.shape)
    for k in range(len(first)):
        for x in range(first.shape[1]):
            if last[k, x] > first[k, x]:
                per_load[k, x] = (value.shape[2] - 1) / (last[k, x] - first[k, x])
    return per_load


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
def _sort(in_order, key):
    """Sort the numbers `in_order` by their keys; equal ones are in ascending order."""
    for place in range(1, len(in_order)):
        job = in_order[place]
        while place > 0:
            before = in_order[place - 1]
            if key[before] < key[job] or (key[before] == key[job] and before < job):
                break
            in_order[place] = before
            place -= 1
        in_order[place] = job


@njit(cache=True)
def _prefix_values(loads, factor, of_job, curves, met, alpha, fewest):
    """What replicas are worth to a pool that serves its jobs with the least load per weight.

    `loads` (samples, minutes, jobs) is in erlangs. `met` (jobs, high + 1) is the largest load that
    meets each job's SLO on a count of replicas and on any more. A job's worth is factor * U, with
    U = 0 for a refused job and U = 1 for a job without load. The best number of served jobs, at
    least `fewest`, is taken in each sample and minute.

    Returns the mean over samples of the sum of the jobs' worth, (minutes, high + 1), the means of
    the jobs' utilities, (minutes, high + 1, jobs), and the count from which all are constant.
    """
    samples, minutes, jobs = loads.shape
    high = met.shape[1] - 1
    worth = np.zeros((minutes, high + 1))
    utility = np.zeros((minutes, high + 1, jobs))
    # Number of samples in which all jobs meet their SLOs: with a count of replicas, and from it on.
    met_at = np.zeros((minutes, high + 1))
    met_from = np.zeros((minutes, high + 2))
    alike = np.all(of_job == of_job[0])  # then one lookup serves all jobs
    in_order = np.arange(jobs)
    per_factor, floor = np.empty(jobs), np.maximum(factor, 1e-9)
    # Of the jobs that are served first, by their number: load, and factors of those without load,
    # of those with load, and of all.
    total, idle, busy, most_worth = np.zeros((4, jobs + 1))
    saturated = 0
    for minute in range(minutes):
        for sample in range(samples):
            load = loads[sample, minute]
            for job in range(jobs):
                per_factor[job] = load[job] / floor[job]
            _sort(in_order, per_factor)
            every = load.sum()
            enough = 0
            for job in range(jobs):
                while enough <= high and every > met[job, enough]:
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


@njit(cache=True)
def _mean_from(after, before, cold):
    """Mean over minutes of values `after` new replicas start, and `before` in the share `cold`."""
    total = 0.0
    for minute, share in enumerate(cold):
        total += (1 - share) * after[minute] + share * before[minute]
    return total / len(cold)


@njit(cache=True)
def fill_rows(
    rates, members, arrays, curves, alpha, running, most, fewest, cold, refuse, worth, utility
):
    """Fill `worth` (pools, X + 1) and `utility` (members, X + 1), as in `units.Rows`.

    `members` are (the jobs of all pools, pool by pool; the place of each pool's first job, and
    their number), and `arrays` their (busy time, weight). `curves` are those of the members.
    `running` and `most` (pools,) are replicas, and `fewest` is the largest count to try at least.
    `cold` (pools, minutes) is the share of a minute in which only the `running` replicas serve.

    Returns the count from which all rows are constant. If it is more than X, all is to be done
    again with so many columns.
    """
    jobs, start = members
    busy_s, weight = arrays
    of_job, first, last, value = curves
    tables = (first, last, value, _knots_per_load(first, last, value))
    met_on = met_loads(first, last, value, MET)
    _, samples, minutes = rates.shape
    columns, constant = worth.shape[1], 0
    for pool in range(len(worth)):
        places = slice(start[pool], start[pool + 1])
        classes, now = of_job[places], running[pool]
        loads = np.empty((samples, minutes, len(classes)))
        total = np.zeros((samples, minutes))
        for job, place in enumerate(range(start[pool], start[pool + 1])):
            loads[:, :, job] = rates[jobs[place]] * busy_s[place]
            total += loads[:, :, job]
        # Four times the largest load is usually enough for all SLOs.
        high = min(most[pool], max(fewest, now, 4 * int(total.max())))
        while True:
            if high >= columns:
                return high
            met = np.empty((len(classes), high + 1))
            for job, k in enumerate(classes):
                least = np.inf
                for x in range(high, -1, -1):
                    least = min(least, met_on[k, x])
                    met[job, x] = least
            smallest = 0 if refuse else len(classes)
            by_minute, of_jobs, saturated = _prefix_values(
                loads, weight[places], classes, tables, met, alpha, smallest
            )
            if saturated < high or high == most[pool]:
                break
            high = min(most[pool], 2 * high)
        end = min(high, max(saturated, now))
        constant = max(constant, end)
        for x in range(end + 1):
            before = min(x, now)
            worth[pool, x] = _mean_from(by_minute[:, x], by_minute[:, before], cold[pool])
            for job, place in enumerate(range(start[pool], start[pool + 1])):
                utility[place, x] = _mean_from(
                    of_jobs[:, x, job], of_jobs[:, before, job], cold[pool]
                )
        for x in range(end + 1, columns):
            worth[pool, x] = worth[pool, end]
            utility[places, x] = utility[places, end]
    return constant
