"""Leximin: maximise the least utility, then the second least, and so on."""

from collections.abc import Sequence

import numpy as np

from faro_lib.allocate.knapsack import best_sum
from faro_lib.allocate.problem import Problem

Count = tuple[
    np.ndarray, int
]  # (mask, limit): at most `limit` jobs may use a column marked in `mask` (jobs, columns)


def leximin(problem: Problem, *, time_limit_s: float = 60.0) -> np.ndarray | None:
    """Replicas (jobs,) with the lexicographically greatest sorted utilities, then the least change, then the fewest replicas.

    `climb` finds the best sorted utilities, lowest first. If several assignments of jobs to these utilities fit
    the budget, an integer program chooses the one with the least change, or the best one found within `time_limit_s`.
    """
    utility, jobs = problem.utility, np.arange(len(problem.cost))
    at, settled, node, column = _climb(
        utility, problem.cost, problem.budget, problem.group, problem.quota
    )
    allowed = _least_change(problem, settled[:, None] & (utility == utility[jobs, at][:, None]))
    if settled.all():
        return best_sum(problem, allowed, term=np.where(allowed, -problem.tie, 0.0))
    if problem.has_quotas:
        open_levels, numbers = np.unique(_best_of_groups(problem, at, ~settled), return_counts=True)
        classes = [(~settled, level, number) for level, number in zip(open_levels, numbers)]
    else:
        members = [row >= 0 for row in column[1:]]
        classes = [
            (of, utility[of, row[of]][0], (node == c).sum())
            for c, (of, row) in enumerate(zip(members, column[1:]), 1)
        ]
    counts: list[Count] = []
    for of, level, number in classes:
        at_level = _least_change(problem, of[:, None] & (utility == level))
        counts.append((at_level, int(number)))
        allowed |= at_level
    replicas = least_loss(problem, allowed, problem.tie, counts, time_limit_s)
    return (
        at if replicas is None and not problem.has_quotas else replicas
    )  # `at` is leximin-best if there is no quota


def _climb(utility, cost, budget, group, quota):
    from faro_lib.allocate import _leximin_kernels as kernels

    columns = utility.shape[1]
    best_cheaper = np.pad(
        np.maximum.accumulate(utility, axis=1), ((0, 0), (1, 0)), constant_values=-np.inf
    )[:, :-1]
    better = utility > best_cheaper
    from_right = np.minimum.accumulate(
        np.where(better, np.arange(columns), columns)[:, ::-1], axis=1
    )[:, ::-1]
    following = np.pad(from_right[:, 1:], ((0, 0), (0, 1)), constant_values=columns)
    positions = np.flatnonzero(better)
    order = positions[np.argsort(utility.ravel()[positions], kind="stable")]
    return kernels.climb(
        utility, cost, np.where(following == columns, -1, following), order, budget, group, quota
    )


def _best_of_groups(problem: Problem, at: np.ndarray, undecided: np.ndarray) -> np.ndarray:
    """Leximin-best sorted utilities of `undecided` jobs under quotas. No job has less utility than with replicas `at`.

    If a list A of utilities is leximin-better than a list B, A merged with any list C is better than B merged with C.
    It is therefore enough to find each tenant's best list at each budget, and to merge the tenants one at a time.
    """
    from faro_lib.allocate import _leximin_kernels as kernels

    slack, group_slack = problem.room(at)
    best = np.empty((slack + 1, 0))
    for g in np.unique(problem.group[undecided]):
        of = np.flatnonzero(undecided & (problem.group == g))
        utility, cost = problem.utility[of], problem.cost[of]
        utility = np.where(
            utility >= utility[np.arange(len(of)), at[of]][:, None], utility, -np.inf
        )
        least, units = int(cost @ at[of]), min(slack, int(group_slack[g]))
        of_group = np.empty((units + 1, len(of)))
        while units >= 0:
            columns, *_ = _climb(
                utility, cost, least + units, np.zeros(len(of), int), np.array([least + units])
            )
            used = int(cost @ columns) - least
            of_group[used : units + 1] = np.sort(utility[np.arange(len(of)), columns])
            units = used - 1
        best = kernels.join(best, of_group)
    return best[-1]


def _least_change(problem: Problem, allowed: np.ndarray) -> np.ndarray:
    """Remove `allowed` columns >= `current` except each job's least. The others cost more but have the same utility."""
    x = np.arange(allowed.shape[1])
    enough = np.cumsum(allowed & (x >= problem.current[:, None]), axis=1)
    return allowed & ((x < problem.current[:, None]) | (enough == 1))


def least_loss(
    problem: Problem,
    allowed: np.ndarray,
    loss: np.ndarray,
    counts: Sequence[Count] = (),
    time_limit_s: float = 600.0,
) -> np.ndarray | None:
    """Replicas (jobs,) in `allowed`, bool (jobs, columns), with the least sum of `loss` (jobs, columns).

    Each of `counts` limits how many jobs may use a set of columns. Returns the best found in `time_limit_s`, or None.
    """
    from scipy.optimize import LinearConstraint, milp
    from scipy.sparse import coo_array, csr_array, vstack

    jobs, columns = np.nonzero(allowed)
    n = len(jobs)
    rows = [problem.costs[allowed]]
    rows += [
        np.where(problem.group[jobs] == g, rows[0], 0)
        for g in range(len(problem.quota))
        if problem.has_quotas
    ]
    rows += [of[allowed].astype(float) for of, _ in counts]
    upper = [
        problem.budget,
        *(problem.quota if problem.has_quotas else ()),
        *(number for _, number in counts),
    ]
    one_each = coo_array((np.ones(n), (jobs, np.arange(n))), shape=(len(allowed), n))
    matrix = vstack([one_each, csr_array(np.array(rows, float))], format="csc")
    ones = np.ones(len(allowed))
    limits = LinearConstraint(
        matrix, np.append(ones, np.full(len(rows), -np.inf)), np.append(ones, upper)
    )
    answer = milp(
        loss[allowed],
        integrality=np.ones(n),
        bounds=(0, 1),
        constraints=limits,
        options={"mip_rel_gap": 0.0, "time_limit": time_limit_s},
    )
    if answer.x is None:
        return None
    replicas = np.zeros(len(allowed), np.int64)
    replicas[jobs[answer.x > 0.5]] = columns[answer.x > 0.5]
    return replicas
