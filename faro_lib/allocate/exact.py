"""Exact solver for objectives that are a sum (knapsack), a sum with a spread penalty (branch and bound) or leximin.

A job's utility is not concave in its replicas, so a greedy solution is not exact. Dynamic programming over the budget
is exact. A Lagrangian bound first rules out most columns (replica counts of a job).
"""

import heapq
from typing import NamedTuple

import numpy as np

from faro_lib.allocate.knapsack import best_sum
from faro_lib.allocate.leximin import leximin
from faro_lib.allocate.objectives import QUANTUM, quantised
from faro_lib.allocate.problem import Problem

Bound = tuple[float, float, np.ndarray | None]  # upper bound, Lagrangian price, allocation


class Box(NamedTuple):
    """Two ranges of indices into `levels`, ends included: for the least utility of all jobs and for the greatest."""

    least_from: int
    least_to: int
    greatest_from: int
    greatest_to: int

    def halves(self, levels: np.ndarray) -> tuple["Box", "Box"]:
        """The two boxes that result from halving the wider of the two ranges."""
        a, b, c, d = self
        if levels[b] - levels[a] >= levels[d] - levels[c]:
            middle = (a + b) // 2
            return Box(a, middle, c, d), Box(middle + 1, b, c, d)
        middle = (c + d) // 2
        return Box(a, b, c, middle), Box(a, b, middle + 1, d)


def exact(problem: Problem) -> tuple[np.ndarray, float]:
    """Return the optimal replicas, in problem order, and their objective value, which is also the upper bound."""
    if problem.objective.leximin:
        replicas = leximin(problem)
    elif problem.gamma:
        replicas = _best_with_spread(problem)
    else:
        replicas = best_sum(problem, problem.feasible)
    assert replicas is not None  # `problem_of` has checked that the minimum replicas fit
    return replicas, problem.score(replicas)


def _best_with_spread(problem: Problem) -> np.ndarray | None:
    """Replicas that maximise sum(`Problem.term`) + gamma (min U - max U), where U are the jobs' utilities.

    `levels` are all utilities that occur. Branch and bound halves the box with the largest bound. Once both ranges of a
    box are single levels, a knapsack over the utilities between them solves the box. It assumes that the spread is the
    difference of these levels, because allocations with a smaller spread belong to other boxes.
    """
    levels = np.unique(problem.utility[problem.feasible])
    best: np.ndarray | None = None  # the best replicas found so far
    best_value, best_tie = -np.inf, np.inf  # their value, and their tie-break (less is better)
    heap: list[tuple[float, Box, float]] = []  # (minus the bound, box, Lagrangian price)

    def offer(replicas: np.ndarray | None) -> None:
        nonlocal best, best_value, best_tie
        if replicas is not None:
            value, tie = problem.score(replicas), float(problem.tie[np.arange(len(replicas)), replicas].sum())
            if value > best_value or (value == best_value and tie < best_tie):
                best, best_value, best_tie = replicas, value, tie

    def worthwhile(bound: float) -> bool:
        """Whether a box with this upper bound may hold a solution as good as `best`."""
        return bound > -np.inf and bound >= best_value - QUANTUM / 2  # half a quantum absorbs rounding

    def consider(box: Box, price: float = 0.0) -> None:
        bound, price, replicas = _bound(problem, levels, box, price, best_value - QUANTUM / 2)
        offer(replicas)
        if worthwhile(bound):
            heapq.heappush(heap, (-bound, box, price))

    consider(Box(0, len(levels) - 1, 0, len(levels) - 1))
    while heap:
        negated, box, price = heapq.heappop(heap)
        if not worthwhile(-negated):
            break
        if box.least_from == box.least_to and box.greatest_from == box.greatest_to:
            least, greatest = levels[box.least_from], levels[box.greatest_from]
            # Replicas whose terms sum to less than `floor` cannot win. With an equal sum, they may win the tie-break.
            floor = best_value - float(quantised(problem.gamma * (least - greatest)))
            offer(best_sum(problem, _between(problem, least, greatest), floor=floor))
            continue
        for half in box.halves(levels):
            consider(half, price)
    return best


def _bound(problem: Problem, levels: np.ndarray, box: Box, price: float, floor: float) -> Bound:
    """(upper bound on the objective in `box`, Lagrangian price, an allocation that the problem allows).

    The bound is a Lagrangian bound on the sum of terms, plus gamma times the largest min U - max U in the box. It
    allows every utility from the box's lowest to its highest level. The search for the price starts at `price`. The
    allocation may lie outside the box. If the bound is less than `floor`, returns (-inf, price, None).
    """
    from faro_lib.allocate import _solver_kernels as kernels  # compiles when imported

    lowest, highest = levels[box.least_from], levels[box.greatest_to]
    if lowest > highest:
        return -np.inf, price, None
    largest_least, smallest_greatest = min(levels[box.least_to], highest), max(levels[box.greatest_from], lowest)
    penalty = problem.gamma * min(0.0, largest_least - smallest_greatest)  # <= 0
    allowed = _between(problem, lowest, highest)
    arrays = problem.term, problem.costs, allowed, problem.budget
    total, price, replicas, fits = kernels.dual_bound(*arrays, price, floor - penalty)
    if not fits or total + penalty < floor:  # `fits`: some allocation of the allowed counts is within the budget
        return -np.inf, price, None
    if problem.has_quotas:  # the Lagrangian bound ignores quotas, so the sum is solved exactly instead
        replicas = best_sum(problem, allowed)
        total = -np.inf if replicas is None else problem.term[np.arange(len(replicas)), replicas].sum()
        return float(total) + penalty, price, replicas
    kernels.fill_up(*arrays, replicas)  # improves `replicas` in place; `total` is still an upper bound
    return total + penalty, price, replicas


def _between(problem: Problem, low: float, high: float) -> np.ndarray:
    """Whether a replica count's utility lies in [low, high], bool (jobs, X + 1)."""
    return (low <= problem.utility) & (problem.utility <= high)
