"""The published repair of an allocation: meet the budget, then free replicas that gain nothing."""

from collections.abc import Iterable

import numpy as np

from faro_lib.allocate.problem import Problem

SHRINK_TOLERANCE = 1e-4  # the paper's: freeing a replica may lower the objective by this much


def shrunk(problem: Problem, replicas: np.ndarray, sequence: Iterable[int]) -> np.ndarray:
    """Free replicas that the objective does not need (the paper's shrink), in problem order.

    In the order of `sequence`, each job frees replicas one by one until a loss exceeds
    SHRINK_TOLERANCE. Then each job in turn is offered all of the free budget. The first offer that
    gains more than the tolerance is accepted, and the shrinking starts again. An offer must also
    raise the objective above its value after the last accepted offer. Without this rule, small
    losses could cancel each gain, and the procedure might not end.
    """
    replicas = np.array(replicas)
    sequence = list(sequence)
    accepted = -np.inf
    while _free(problem, replicas, sequence):
        value = max(problem.score(replicas), accepted)
        for j in sequence:
            left, quota_left = problem.room(replicas)
            room = min(left, int(quota_left[problem.group[j]])) // int(problem.cost[j])
            raised = replicas.copy()
            raised[j] = min(replicas[j] + room, np.flatnonzero(problem.feasible[j])[-1])
            gained = problem.score(raised)
            if raised[j] > replicas[j] and gained > value + SHRINK_TOLERANCE:
                accepted, replicas = gained, raised
                break
        else:
            break
    return replicas


def _free(problem: Problem, replicas: np.ndarray, sequence: list[int]) -> bool:
    """Free every replica that is worth at most SHRINK_TOLERANCE, in place; whether any was."""
    freed = False
    for j in sequence:
        value = problem.score(replicas)
        while replicas[j] > 0 and problem.feasible[j, replicas[j] - 1]:
            replicas[j] -= 1
            less = problem.score(replicas)
            if less < value - SHRINK_TOLERANCE:
                replicas[j] += 1
                break
            value = less
            freed = True
    return freed


def repaired(problem: Problem, replicas: np.ndarray) -> np.ndarray:
    """Remove replicas one by one until budget and quotas hold, as in the paper.

    Each step picks the removal after which the objective, rounded to 4 digits, is highest. In a
    tie, it picks the job that ends closest to its `current` replicas, then the first in problem
    order.
    """
    replicas = np.array(replicas)
    while not problem.fits(replicas):
        left, quota_left = problem.room(replicas)
        over = (left < 0) | (quota_left[problem.group] < 0)
        candidates = []
        for j in np.flatnonzero((replicas > 0) & over):
            if problem.feasible[j, replicas[j] - 1]:
                fewer = replicas.copy()
                fewer[j] -= 1
                change = abs(float(fewer[j] - problem.current[j]))
                candidates.append((-round(problem.score(fewer), 4), change, j))
        replicas[min(candidates)[2]] -= 1
    return replicas
