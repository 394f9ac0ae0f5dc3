"""Leximin: maximise the least utility, then the second least, and so on."""

import heapq
from bisect import bisect_right

import numpy as np

from faro_lib.allocate.knapsack import best_sum
from faro_lib.allocate.problem import Problem


def leximin(problem: Problem) -> np.ndarray | None:
    """Replicas whose sorted utilities are lexicographically greatest; then least change, then fewest replicas.

    All jobs start at their cheapest column, and the worst-off job climbs to its next better column while that
    fits. If it does not fit it never will, since the budget only shrinks, and the job is settled. There is a
    choice only where several jobs are equally badly off and some but not all of them can climb; `_choose`
    makes it.
    """
    steps = [_better_columns(row, cost) for row, cost in zip(problem.utility, problem.cost)]
    at = np.zeros(len(steps), np.int64)
    least = np.array([step[0][0] for step in steps])
    room = problem.budget - least.sum()
    group_room = problem.quota - _by_group(problem, problem.group, least)
    open_jobs = [(step[0][1], j) for j, step in enumerate(steps)]
    heapq.heapify(open_jobs)
    while open_jobs:
        level = open_jobs[0][0]
        worst = []
        while open_jobs and open_jobs[0][0] == level:
            worst.append(heapq.heappop(open_jobs)[1])
        climb = [(j, steps[j][at[j] + 1][0] - steps[j][at[j]][0]) for j in worst if at[j] + 1 < len(steps[j])]
        climb = [(j, more) for j, more in climb if more <= room and more <= group_room[problem.group[j]]]
        if not climb:
            continue
        jobs, more = np.array(climb).T
        by_group = _by_group(problem, problem.group[jobs], more)
        if more.sum() > room or np.any(by_group > group_room):
            return _choose(problem, steps, at, {j for _, j in open_jobs} | set(jobs.tolist()))
        room, group_room = room - more.sum(), group_room - by_group
        for j in jobs.tolist():
            at[j] += 1
            heapq.heappush(open_jobs, (steps[j][at[j]][1], j))
    # The utilities are settled; the knapsack finds the least change that gives them.
    settled = np.array([step[i][1] for step, i in zip(steps, at)])
    return best_sum(problem, problem.utility == settled[:, None], term=np.zeros(problem.utility.shape))


def _by_group(problem: Problem, group, units) -> np.ndarray:
    return np.bincount(group, units, len(problem.quota)).astype(int)


def _better_columns(utility, cost) -> list[tuple[int, float]]:
    """(cost, utility) of the columns that are better than all cheaper ones."""
    steps, best = [], -np.inf
    for x, value in enumerate(utility):
        if value > best:
            steps.append((int(cost) * x, float(value)))
            best = value
    return steps


def _choose(problem: Problem, steps, at, undecided: set[int]) -> np.ndarray:
    """The best sorted utilities of the undecided jobs, none below its current level; all other jobs keep theirs.

    Dynamic programming over the units spent. A state is the sorted utilities of the undecided jobs; adding
    the same job to two states keeps their order, so the best state of each number of units suffices.
    """
    floor = np.array([step[i][1] for step, i in zip(steps, at)])
    least = np.array([step[i][0] for step, i in zip(steps, at)])
    slack = int(problem.budget - least.sum())
    group_slack = problem.quota - _by_group(problem, problem.group, least)

    def options(j, room):
        for x, value in enumerate(problem.utility[j].tolist()):
            more = int(problem.cost[j]) * x - int(least[j])
            if more > room:
                return
            if value >= floor[j] if j in undecided else value == floor[j]:
                yield x, value, more, float(problem.tie[j, x])

    def keep_better(states, used, state):
        if used not in states or (state[0], -state[1]) > (states[used][0], -states[used][1]):
            states[used] = state

    # A state: sorted utilities, tie, and its history: (job, replicas, history before), or for groups (before, within).
    total: dict = {0: ((), 0.0, None)}
    for g in range(len(problem.quota)):
        states: dict = {0: ((), 0.0, None)}
        for j in np.flatnonzero(problem.group == g).tolist():
            new: dict = {}
            room = min(slack, int(group_slack[g]))
            choices = list(options(j, room))
            for used, (utilities, tie, before) in states.items():
                for x, value, more, tie_more in choices:
                    if used + more > room:
                        break
                    merged = utilities
                    if j in undecided:
                        i = bisect_right(utilities, value)
                        merged = (*utilities[:i], value, *utilities[i:])
                    keep_better(new, used + more, (merged, tie + tie_more, (j, x, before)))
            states = new
        joined: dict = {}
        for used, (left, tie, before) in total.items():
            for more, (right, tie_more, within) in states.items():
                if used + more <= slack:
                    merged = tuple(sorted(left + right))
                    keep_better(joined, used + more, (merged, tie + tie_more, (before, within)))
        total = joined
    _, _, history = max(total.values(), key=lambda state: (state[0], -state[1]))
    replicas = np.empty(len(steps), np.int64)
    for _ in range(len(problem.quota)):
        history, within = history
        while within is not None:
            j, replicas[j], within = within
    return replicas
