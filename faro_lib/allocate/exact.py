"""The exact solver: a knapsack, branch and bound for a penalty on the spread, `leximin` for Fair.

A job's utility is not concave in its replicas, so a greedy solution is not exact. Dynamic
programming over the budget is exact (`knapsack`). Values of allocations are multiples of QUANTUM
(`Problem.score`), so equal values are ties.
"""

import heapq
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from faro_lib.allocate.knapsack import best_sum
from faro_lib.allocate.leximin import leximin
from faro_lib.allocate.objectives import QUANTUM, quantised
from faro_lib.allocate.problem import Problem


class Box(NamedTuple):
    """Ranges of indices into `levels`, ends included, of the jobs' least and greatest utility."""

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


class Bound(NamedTuple):
    """An upper bound on the objective in a box, and what its computation gives besides."""

    value: float  # -inf if the box holds no solution that is good enough
    price: float  # Lagrangian price, at which the search for the prices of smaller boxes begins
    # A solution of the problem, perhaps outside the box; None if value is -inf.
    replicas: np.ndarray | None = None


class Incumbent:
    """The best replicas found so far, with their value and their tie-break (less is better)."""

    def __init__(self, problem: Problem):
        self.problem = problem
        self.value = -np.inf
        self.tie = np.inf
        self.replicas: np.ndarray | None = None

    @property
    def threshold(self) -> float:
        """A box whose upper bound is below this value holds no solution as good.

        Half a quantum absorbs rounding.
        """
        return self.value - QUANTUM / 2

    def offer(self, replicas: np.ndarray | None) -> None:
        """Replace the incumbent by `replicas` if they are better."""
        if replicas is None:
            return
        value = self.problem.score(replicas)
        tie = float(self.problem.tie[np.arange(len(replicas)), replicas].sum())
        if value > self.value or (value == self.value and tie < self.tie):
            self.replicas = replicas
            self.value = value
            self.tie = tie


def exact(problem: Problem) -> tuple[np.ndarray, float]:
    """The optimal replicas in problem order, and their objective value, which is also the bound.

    If rounding leaves no solution, the least replicas of each job, and NaN as the bound.
    """
    replicas: np.ndarray | None
    problem = _without_flat_end(problem)
    if problem.objective.leximin:
        replicas = leximin(problem)
    elif problem.gamma:  # the weight of the spread; 0 for objectives without it
        replicas = _best_with_spread(problem)
    else:
        replicas = best_sum(problem, problem.feasible)
    if replicas is None:
        return np.argmax(problem.feasible, axis=1), np.nan
    return replicas, problem.score(replicas)


def _without_flat_end(problem: Problem) -> Problem:
    """The problem without its last columns, as far as they change no row and none is current."""
    last = int(problem.current.max())
    for values in (problem.utility, problem.least, problem.greatest):
        changes = (values[:, 1:] != values[:, :-1]).any(axis=0)
        last = max(last, int(np.flatnonzero(changes).max(initial=-1)) + 1)
    cut: dict[str, Any] = {}
    for name in ("utility", "term", "least", "greatest", "costs", "tie"):
        cut[name] = np.ascontiguousarray(getattr(problem, name)[:, : last + 1])
    return replace(problem, **cut)


def _best_with_spread(problem: Problem) -> np.ndarray | None:
    """Replicas with the greatest sum(`Problem.term`) + gamma * (min U - max U), U = utilities.

    `levels` are all utilities that occur. Branch and bound halves the box with the largest bound.
    Once both ranges of a box are single levels, a knapsack over the utilities between the two
    levels finds the largest sum of terms. An allocation with a smaller spread may be better than
    that one, but it is considered in its own box.
    """
    feasible = problem.feasible
    levels = np.unique(np.concatenate([problem.least[feasible], problem.greatest[feasible]]))
    best = Incumbent(problem)
    heap: list[tuple[float, Box, float]] = []  # (minus the bound, box, Lagrangian price)

    def consider(box: Box, price: float = 0.0) -> None:
        bound = _bound(problem, levels, box, price, best.threshold)
        best.offer(bound.replicas)  # may raise the threshold
        if bound.value > -np.inf and bound.value >= best.threshold:
            heapq.heappush(heap, (-bound.value, box, bound.price))

    consider(Box(0, len(levels) - 1, 0, len(levels) - 1))
    while heap:
        negated, box, price = heapq.heappop(heap)
        if -negated < best.threshold:
            break
        if box.least_from == box.least_to and box.greatest_from == box.greatest_to:
            least, greatest = levels[box.least_from], levels[box.greatest_from]
            # Rounded as in `Problem.score`.
            spread_term = float(quantised(problem.gamma * (least - greatest)))
            # Replicas whose terms sum to less than `sum_floor` cannot win. With an equal sum, they
            # may win the tie-break.
            sum_floor = best.value - spread_term
            best.offer(best_sum(problem, _between(problem, least, greatest), floor=sum_floor))
        else:
            for half in box.halves(levels):
                consider(half, price)
    return best.replicas


def _bound(problem: Problem, levels: np.ndarray, box: Box, price: float, floor: float) -> Bound:
    """The upper bound for a box, and an allocation of the problem, perhaps outside of the box.

    The box is relaxed: utilities may be anywhere from its lowest to its highest level. The bound
    adds a bound on the sum of terms and gamma times the largest min U - max U in the box. The
    search for the Lagrangian price begins at `price`. If no allocation reaches `floor`, the value
    may be -inf, without replicas.
    """
    from faro_lib.allocate import _solver_kernels as kernels  # compiles when imported

    lowest, highest = levels[box.least_from], levels[box.greatest_to]
    if lowest > highest:
        return Bound(-np.inf, price)
    smallest_spread = max(0.0, levels[box.greatest_from] - levels[box.least_to])
    spread_term = -problem.gamma * smallest_spread
    allowed = _between(problem, lowest, highest)
    arrays = problem.term, problem.costs, allowed, problem.budget
    # `fits`: some allocation of the allowed counts is within the budget. The search stops if the
    # total is too small.
    total, price, replicas, fits = kernels.dual_bound(*arrays, price, floor - spread_term)
    if not fits or total + spread_term < floor:
        return Bound(-np.inf, price)
    if not problem.has_quotas:
        # This improves `replicas` in place; `total` is still an upper bound.
        kernels.fill_up(*arrays, replicas)
        return Bound(total + spread_term, price, replicas)
    # The Lagrangian bound ignores quotas, so the sum is solved exactly instead.
    replicas = best_sum(problem, allowed)
    if replicas is None:
        return Bound(-np.inf, price)
    total = float(problem.term[np.arange(len(replicas)), replicas].sum())
    return Bound(total + spread_term, price, replicas)


def _between(problem: Problem, low: float, high: float) -> np.ndarray:
    """Whether x replicas are allowed and have utilities in [low, high], bool (jobs, X + 1)."""
    return (low <= problem.least) & (problem.greatest <= high)
