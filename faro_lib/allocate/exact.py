"""Exact solutions: a knapsack for sums, and a branch and bound around it for objectives with a spread.

A job's utility is convex in its replicas below saturation, so a greedy solution is not exact. Dynamic programming over
the budget is exact, and reduced costs remove most columns before it.
"""

import heapq
from dataclasses import dataclass

import numpy as np

from faro_lib.allocate.knapsack import best_sum
from faro_lib.allocate.leximin import leximin
from faro_lib.allocate.objectives import QUANTUM, quantised
from faro_lib.allocate.problem import Problem

Box = tuple[int, int, int, int]  # first and last level of the least utility, then of the greatest utility


def exact(problem: Problem) -> tuple[np.ndarray, float]:
    """The optimal replicas, and their value as the bound."""
    if problem.objective.leximin:
        replicas = leximin(problem)
    elif problem.gamma:
        replicas = _best_with_spread(problem)
    else:
        replicas = best_sum(problem, problem.feasible)
    assert replicas is not None  # `problem_of` has checked that the minimum replicas fit
    return replicas, problem.score(replicas)


@dataclass
class Incumbent:
    """The best allocation so far."""

    value: float = -np.inf
    tie: float = np.inf
    replicas: np.ndarray | None = None

    def offer(self, problem: Problem, replicas: np.ndarray | None) -> None:
        """Keep `replicas` if they are better."""
        if replicas is None:
            return
        value, tie = problem.score(replicas), float(problem.tie[np.arange(len(replicas)), replicas].sum())
        if value > self.value or (value == self.value and tie < self.tie):
            self.value, self.tie, self.replicas = value, tie, replicas


def _best_with_spread(problem: Problem) -> np.ndarray | None:
    """Replicas with the largest sum of terms + gamma (min U - max U), by branch and bound, best bound first.

    A box restricts the least and the greatest utility to ranges of `levels`. If both ranges are single levels, the
    spread is known and the knapsack solves the rest.
    """
    levels = np.unique(problem.utility[problem.feasible])
    best, root = Incumbent(), (0, len(levels) - 1, 0, len(levels) - 1)
    heap = [(-_bound(problem, levels, root, best), root)]
    while heap:
        bound, box = heapq.heappop(heap)
        if -bound < best.value - QUANTUM / 2:  # half a quantum absorbs rounding
            break
        if box[0] == box[1] and box[2] == box[3]:
            least, greatest = levels[box[0]], levels[box[2]]
            floor = best.value - float(quantised(problem.gamma * (least - greatest)))
            best.offer(problem, best_sum(problem, _between(problem, least, greatest), floor=floor))
            continue
        for half in _halves(box, levels):
            bound = _bound(problem, levels, half, best)
            if bound >= best.value - QUANTUM / 2 and bound > -np.inf:
                heapq.heappush(heap, (-bound, half))
    return best.replicas


def _halves(box: Box, levels: np.ndarray) -> tuple[Box, Box]:
    """The box, cut in the middle of its wider range."""
    a, b, c, d = box
    if a < b and (levels[b] - levels[a] >= levels[d] - levels[c] or c == d):
        return (a, (a + b) // 2, c, d), ((a + b) // 2 + 1, b, c, d)
    return (a, b, c, (c + d) // 2), (a, b, (c + d) // 2 + 1, d)


def _bound(problem: Problem, levels: np.ndarray, box: Box, best: Incumbent) -> float:
    """An upper bound on the objective in the box, -inf if the box is empty; offers its solution to `best`.

    The largest sum of terms with all utilities between the box's extremes, plus gamma times its smallest spread.
    """
    from faro_lib.allocate import _solver_kernels as kernels

    lowest, highest = levels[box[0]], levels[box[3]]
    if lowest > highest:
        return -np.inf
    allowed = _between(problem, lowest, highest)
    total, _, pick, fits = kernels.dual_bound(problem.term, problem.costs, allowed, problem.budget)
    if not fits:
        return -np.inf
    replicas: np.ndarray | None = pick
    if problem.has_quotas:  # the relaxation ignores them
        replicas = best_sum(problem, allowed)
        if replicas is None:
            return -np.inf
        total = float(problem.term[np.arange(len(replicas)), replicas].sum())
    else:
        kernels.fill_up(problem.term, problem.costs, allowed, problem.budget, pick)
    best.offer(problem, replicas)
    least, greatest = min(levels[box[1]], highest), max(levels[box[2]], lowest)
    return total + problem.gamma * (least - greatest)


def _between(problem: Problem, low: float, high: float) -> np.ndarray:
    """Columns whose utility lies in [low, high], bool (jobs, X + 1)."""
    return (low <= problem.utility) & (problem.utility <= high)
