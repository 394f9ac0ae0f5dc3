"""A greedy solver along the concave envelopes of the jobs' utilities."""

import numpy as np

from faro_lib.allocate.problem import Problem

MIN_GAIN = 1e-12  # smaller gains are rounding errors


def greedy(problem: Problem) -> tuple[np.ndarray, float]:
    """Take the step with the largest gain per core until none fits.

    Returns (replicas in problem order, upper bound). For a sum, the bound is the optimum of the
    convex relaxation without quotas. If the problem has no quotas, the value is below the optimum
    by at most the gain of one step. For leximin or with a spread penalty, the bound is NaN.
    """
    from faro_lib.allocate import _solver_kernels as kernels

    separable = not problem.objective.leximin and not problem.gamma
    bound, _, pick, _ = kernels.dual_bound(
        problem.term, problem.costs, problem.feasible, problem.budget, 0.0, -np.inf
    )
    if separable and not problem.has_quotas:
        kernels.fill_up(problem.term, problem.costs, problem.feasible, problem.budget, pick)
        return pick, bound
    replicas = np.argmax(problem.feasible, axis=1)
    rows = problem.utility if problem.objective.leximin else problem.term
    envelopes = [_envelope(row) for row in rows]
    while True:
        best_rate, best = 0.0, None
        now = _smooth_score(problem, replicas)
        for j, columns in enumerate(envelopes):
            further = columns[columns > replicas[j]]
            if not len(further):
                continue
            step = replicas.copy()
            step[j] = further[0]
            if not problem.fits(step):
                continue
            gain = _smooth_score(problem, step) - now
            rate = gain / (problem.costs[j, step[j]] - problem.costs[j, replicas[j]])
            if gain > MIN_GAIN and rate > best_rate:
                best_rate, best = rate, step
        if best is None:
            return replicas, bound if separable else float("nan")
        replicas = best


def _smooth_score(problem: Problem, replicas: np.ndarray) -> float:
    """The objective's value.

    For leximin, minus the sum of exp(-20 x utility), which low utilities dominate.
    """
    if not problem.objective.leximin:
        return problem.score(replicas)
    return -float(np.exp(-20.0 * problem.utility[np.arange(len(replicas)), replicas]).sum())


def _envelope(row: np.ndarray) -> np.ndarray:
    """The replica counts at the corners of the concave envelope of the row's finite values."""
    kept: list[int] = []
    for x in np.flatnonzero(~np.isneginf(row)).tolist():
        while len(kept) > 1:
            a, b = kept[-2:]
            if (row[b] - row[a]) * (x - b) > (row[x] - row[b]) * (b - a):  # the slope falls at b
                break
            kept.pop()
        kept.append(x)
    return np.array(kept)
