"""The exact solver: a knapsack for a sum, branch and bound for a sum with a penalty on the spread, `leximin` for Fair.

A job's utility is not concave in its replicas, so a greedy solution is not exact. Dynamic programming over the budget
is exact. Before it runs, a Lagrangian bound rules out most columns (replica counts of a job).
"""

import heapq

import numpy as np

from faro_lib.allocate.knapsack import best_sum
from faro_lib.allocate.leximin import leximin
from faro_lib.allocate.objectives import QUANTUM, quantised
from faro_lib.allocate.problem import Problem

Bound = tuple[float, float, np.ndarray | None]  # upper bound, Lagrangian price, allocation
Box = tuple[int, int, int, int]  # first and last index in `levels` of the least utility, then of the greatest utility


def exact(problem: Problem) -> tuple[np.ndarray, float]:
    """(optimal replicas in the order of the problem's jobs, their objective value, which is also the upper bound)."""
    if problem.objective.leximin:
        replicas = leximin(problem)
    elif problem.gamma:
        replicas = _best_with_spread(problem)
    else:
        replicas = best_sum(problem, problem.feasible)
    assert replicas is not None  # `problem_of` has checked that the minimum replicas fit
    return replicas, problem.score(replicas)


def _best_with_spread(problem: Problem) -> np.ndarray | None:
    """Replicas that maximise sum(`Problem.term`) + gamma (min U - max U), by branch and bound, best bound first.

    `levels` are all utilities that occur. A box restricts each of min U and max U to a range of levels. If both ranges are
    a single level, the spread is known, and a knapsack solves the box.
    """
    levels = np.unique(problem.utility[problem.feasible])
    best: np.ndarray | None = None  # the best replicas found so far
    best_value, best_tie = -np.inf, np.inf  # their value, and their tie-break (less is better)
    heap: list[tuple[float, Box, float]] = []

    def offer(replicas: np.ndarray | None) -> None:
        nonlocal best, best_value, best_tie
        if replicas is not None:
            value, tie = problem.score(replicas), float(problem.tie[np.arange(len(replicas)), replicas].sum())
            if value > best_value or (value == best_value and tie < best_tie):
                best, best_value, best_tie = replicas, value, tie

    def consider(box: Box, price: float = 0.0) -> None:
        bound, price, replicas = _bound(problem, levels, box, price, best_value - QUANTUM / 2)
        offer(replicas)
        if bound >= best_value - QUANTUM / 2 and bound > -np.inf:  # half a quantum absorbs rounding
            heapq.heappush(heap, (-bound, box, price))

    consider((0, len(levels) - 1, 0, len(levels) - 1))
    while heap:
        bound, box, price = heapq.heappop(heap)
        if -bound < best_value - QUANTUM / 2:
            break
        least_from, least_to, greatest_from, greatest_to = box
        if least_from == least_to and greatest_from == greatest_to:
            least, greatest = levels[least_from], levels[greatest_from]
            floor = best_value - float(quantised(problem.gamma * (least - greatest)))  # a smaller sum cannot win
            offer(best_sum(problem, _between(problem, least, greatest), floor=floor))
            continue
        for half in _halves(box, levels):
            consider(half, price)
    return best


def _halves(box: Box, levels: np.ndarray) -> tuple[Box, Box]:
    """The two boxes that result from halving the wider of the box's two ranges."""
    a, b, c, d = box
    if a < b and (levels[b] - levels[a] >= levels[d] - levels[c] or c == d):
        return (a, (a + b) // 2, c, d), ((a + b) // 2 + 1, b, c, d)
    return (a, b, c, (c + d) // 2), (a, b, (c + d) // 2 + 1, d)


def _bound(problem: Problem, levels: np.ndarray, box: Box, price: float, floor: float) -> Bound:
    """(upper bound on the objective in a box, Lagrangian price, a feasible allocation).

    The bound is the Lagrangian bound on the sum of terms, plus gamma times an upper bound on min U - max U in the box.
    The price search starts at `price`. If no allocation reaches `floor`, the bound is -inf and the allocation None.
    """
    from faro_lib.allocate import _solver_kernels as kernels

    least_from, least_to, greatest_from, greatest_to = box
    lowest, highest = levels[least_from], levels[greatest_to]
    if lowest > highest:
        return -np.inf, price, None
    spread = problem.gamma * min(0.0, min(levels[least_to], highest) - max(levels[greatest_from], lowest))
    allowed = _between(problem, lowest, highest)
    arrays = problem.term, problem.costs, allowed, problem.budget
    total, price, replicas, fits = kernels.dual_bound(*arrays, price, floor - spread)
    if not fits or total + spread < floor:
        return -np.inf, price, None
    if problem.has_quotas:  # the relaxation ignores quotas, so solve exactly
        replicas = best_sum(problem, allowed)
        total = -np.inf if replicas is None else problem.term[np.arange(len(replicas)), replicas].sum()
        return float(total) + spread, price, replicas
    kernels.fill_up(*arrays, replicas)  # improves `replicas` in place; `total` is still an upper bound
    return total + spread, price, replicas


def _between(problem: Problem, low: float, high: float) -> np.ndarray:
    """Whether a replica count's utility lies in [low, high], bool (jobs, X + 1)."""
    return (low <= problem.utility) & (problem.utility <= high)
