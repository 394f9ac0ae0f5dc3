"""Exact solutions: a knapsack for sums, and a branch and bound around it for objectives with a spread.

The utility of a job is not concave in its replicas (it is convex below saturation), so a greedy solution
is not exact. Dynamic programming over the budget is, in jobs x budget x columns steps, and reduced costs
remove most columns beforehand.
"""

import heapq
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from faro_lib.allocate.knapsack import best_sum
from faro_lib.allocate.leximin import leximin
from faro_lib.allocate.objectives import QUANTUM, quantised
from faro_lib.allocate.problem import Problem


def exact(problem: Problem) -> tuple[np.ndarray, float]:
    """The optimum, and its value as the bound."""
    if problem.objective.leximin:
        replicas = leximin(problem)
    elif problem.gamma:
        replicas = _best_with_spread(problem)
    else:
        replicas = best_sum(problem, problem.feasible)
    assert replicas is not None  # `problem_of` has checked that the minimum replicas fit
    return replicas, problem.score(replicas)


class Box(NamedTuple):
    """The allocations whose least and greatest utility lie in two ranges of levels; inclusive indices."""

    least_from: int
    least_to: int
    greatest_from: int
    greatest_to: int

    @property
    def is_point(self) -> bool:
        return self.least_from == self.least_to and self.greatest_from == self.greatest_to

    def halves(self, levels: np.ndarray) -> tuple[Self, Self]:
        """The box cut in the middle of its wider range."""
        least_width = levels[self.least_to] - levels[self.least_from]
        greatest_width = levels[self.greatest_to] - levels[self.greatest_from]
        if self.least_from < self.least_to and (
            least_width >= greatest_width or self.greatest_from == self.greatest_to
        ):
            middle = (self.least_from + self.least_to) // 2
            return self._replace(least_to=middle), self._replace(least_from=middle + 1)
        middle = (self.greatest_from + self.greatest_to) // 2
        return self._replace(greatest_to=middle), self._replace(greatest_from=middle + 1)


@dataclass
class Incumbent:
    """The best allocation so far."""

    value: float = -np.inf
    tie: float = np.inf
    replicas: np.ndarray | None = None

    def offer(self, problem: Problem, replicas: np.ndarray | None) -> None:
        if replicas is None:
            return
        value, tie = problem.score(replicas), float(problem.tie[np.arange(len(replicas)), replicas].sum())
        if value > self.value or (value == self.value and tie < self.tie):
            self.value, self.tie, self.replicas = value, tie, replicas


def _best_with_spread(problem: Problem) -> np.ndarray | None:
    """The largest sum of terms + gamma (min U - max U), by branch and bound over boxes, best bound first.

    In a box the objective is at most the largest sum of terms with all utilities between the box's lowest
    least level and highest greatest level, plus gamma times its smallest spread. A box that is a point
    fixes the spread, and the knapsack solves it exactly.
    """
    levels = np.unique(problem.utility[problem.feasible])
    best = Incumbent()
    top = len(levels) - 1
    whole = Box(0, top, 0, top)
    heap = [(-_bound(problem, levels, whole, best), whole)]
    while heap:
        bound, box = heapq.heappop(heap)
        if -bound < best.value - QUANTUM / 2:  # values are multiples of the quantum
            break
        if box.is_point:
            least, greatest = levels[box.least_from], levels[box.greatest_to]
            floor = best.value - float(quantised(problem.gamma * (least - greatest)))
            best.offer(problem, best_sum(problem, _between(problem, least, greatest), floor=floor))
            continue
        for half in box.halves(levels):
            bound = _bound(problem, levels, half, best)
            if bound >= best.value - QUANTUM / 2 and bound > -np.inf:
                heapq.heappush(heap, (-bound, half))
    return best.replicas


def _bound(problem: Problem, levels: np.ndarray, box: Box, best: Incumbent) -> float:
    """An upper bound on the objective in the box, -inf if it is empty; solutions on the way are offered to `best`."""
    from faro_lib.allocate import _solver_kernels as kernels

    lowest, highest = levels[box.least_from], levels[box.greatest_to]
    if lowest > highest:
        return -np.inf
    allowed = _between(problem, lowest, highest)
    total, _, pick, fits = kernels.dual_bound(problem.term, problem.costs, allowed, problem.budget)
    if not fits:
        return -np.inf
    if problem.has_quotas:  # which the relaxation does not know
        replicas = best_sum(problem, allowed)
        if replicas is None:
            return -np.inf
        total = float(problem.term[np.arange(len(replicas)), replicas].sum())
    else:  # the rounded relaxation is a solution, and good enough to prune by
        replicas = pick
        kernels.fill_up(problem.term, problem.costs, allowed, problem.budget, replicas)
    best.offer(problem, replicas)
    least, greatest = min(levels[box.least_to], highest), max(levels[box.greatest_from], lowest)
    return total + problem.gamma * (least - greatest)


def _between(problem: Problem, low: float, high: float) -> np.ndarray:
    """Columns whose utility lies in [low, high], bool (jobs, X + 1)."""
    return (low <= problem.utility) & (problem.utility <= high)
