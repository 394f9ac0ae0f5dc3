"""The worst-off job first: raise the least utility, then the next, and so on, as far as the budget goes."""

from __future__ import annotations

import heapq
from bisect import bisect_right

import numpy as np


def leximin(problem):
    """Replicas whose sorted utilities are lexicographically greatest; then least change, then fewest replicas.

    All jobs start at their cheapest column, and the worst-off climbs to its next better one while that fits. If it does
    not fit it never will (the budget only shrinks), and the job is settled. Only when several jobs are equally badly
    off and some but not all of them can climb is there a choice; dynamic programming over the slack then makes it, its
    states being sorted utilities: adding the same job to two of them keeps their order, so that the best of each slack
    suffices.
    """
    steps = [_skyline(row, cost) for row, cost in zip(problem.utility, problem.cost)]
    at = np.zeros(len(steps), np.int64)
    room = problem.budget - sum(step[0][0] for step in steps)
    tenant_room = problem.quota - np.bincount(problem.group, [step[0][0] for step in steps], len(problem.quota)).astype(
        int
    )
    open_jobs = [(step[0][1], j) for j, step in enumerate(steps)]
    heapq.heapify(open_jobs)
    while open_jobs:
        level = open_jobs[0][0]
        worst = []
        while open_jobs and open_jobs[0][0] == level:
            worst.append(heapq.heappop(open_jobs)[1])
        climb = [(j, steps[j][at[j] + 1][0] - steps[j][at[j]][0]) for j in worst if at[j] + 1 < len(steps[j])]
        climb = [(j, more) for j, more in climb if more <= room and more <= tenant_room[problem.group[j]]]
        if not climb:
            continue
        jobs, more = np.array(climb).T
        by_tenant = np.bincount(problem.group[jobs], more, len(problem.quota)).astype(int)
        if more.sum() > room or np.any(by_tenant > tenant_room):
            return _choose(problem, steps, at, {j for _, j in open_jobs} | set(jobs.tolist()))
        room, tenant_room = room - more.sum(), tenant_room - by_tenant
        for j in jobs.tolist():
            at[j] += 1
            heapq.heappush(open_jobs, (steps[j][at[j]][1], j))
    from faro_lib.allocate.exact import best_sum

    # Every job's utility is settled; what remains is how to get it with the least change.
    settled = np.array([step[i][1] for step, i in zip(steps, at)])
    return best_sum(problem, problem.utility == settled[:, None], term=np.zeros(problem.utility.shape))


def _skyline(utility, cost):
    """(cost, utility) of the columns that are better than all cheaper ones."""
    steps, best = [], -np.inf
    for x, value in enumerate(utility):
        if value > best:
            steps.append((int(cost) * x, float(value)))
            best = value
    return steps


def _choose(problem, steps, at, undecided):
    """Best sorted utilities of the undecided jobs, none of them below its level; all other jobs keep theirs."""
    floor = np.array([step[i][1] for step, i in zip(steps, at)])
    least = np.array([step[i][0] for step, i in zip(steps, at)])
    slack = int(problem.budget - least.sum())
    tenant_slack = problem.quota - np.bincount(problem.group, least, len(problem.quota)).astype(int)

    def options(j, room):
        for x, value in enumerate(problem.utility[j].tolist()):
            more = int(problem.cost[j]) * x - int(least[j])
            if more > room:
                return
            if value >= floor[j] if j in undecided else value == floor[j]:
                yield x, value, more, float(problem.tie[j, x])

    def better(states, used, state):
        if used not in states or (state[0], -state[1]) > (states[used][0], -states[used][1]):
            states[used] = state

    # A state: sorted utilities of the undecided, tie, and how it came about: (job, replicas, before) or two of them.
    total: dict = {0: ((), 0.0, None)}
    for g in range(len(problem.quota)):
        states: dict = {0: ((), 0.0, None)}
        for j in np.flatnonzero(problem.group == g).tolist():
            new: dict = {}
            room = min(slack, int(tenant_slack[g]))
            choices = list(options(j, room))
            for used, (utilities, tie, before) in states.items():
                for x, value, more, tie_more in choices:
                    if used + more > room:
                        break
                    merged = utilities
                    if j in undecided:
                        at_value = bisect_right(utilities, value)
                        merged = (*utilities[:at_value], value, *utilities[at_value:])
                    better(new, used + more, (merged, tie + tie_more, (j, x, before)))
            states = new
        joined: dict = {}
        for used, (left, tie, before) in total.items():
            for more, (right, tie_more, here) in states.items():
                if used + more <= slack:
                    better(joined, used + more, (tuple(sorted(left + right)), tie + tie_more, (before, here)))
        total = joined
    _, _, history = max(total.values(), key=lambda state: (state[0], -state[1]))
    replicas = np.empty(len(steps), np.int64)
    for _ in range(len(problem.quota)):
        history, here = history
        while here is not None:
            j, replicas[j], here = here
    return replicas
