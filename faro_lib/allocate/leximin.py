"""Leximin: maximise the least utility, then the second least, and so on."""

from collections.abc import Sequence

import numpy as np

from faro_lib.allocate.knapsack import best_sum
from faro_lib.allocate.problem import Problem

# (mask, limit): at most `limit` jobs may use a column that is marked in `mask` (jobs, columns).
Count = tuple[np.ndarray, int]


def leximin(problem: Problem, *, time_limit_s: float = 60.0) -> np.ndarray:
    """Replicas (jobs,) with the lexicographically greatest sorted utilities.

    Ties go to the least change, then to the fewest replicas. `climb` finds the best sorted
    utilities, lowest first. If several assignments of jobs to these utilities fit the budget, an
    integer program chooses the one with the least change, or the best one found within
    `time_limit_s`. If it finds none by then, the result has the best utilities, but perhaps not the
    least change.
    """
    utility = problem.utility
    at, settled, node, column = _climb(
        utility, problem.cost, problem.budget, problem.group, problem.quota
    )
    reached = np.take_along_axis(utility, at[:, None], axis=1)  # (jobs, 1)
    allowed = _least_change(problem, settled[:, None] & (utility == reached))
    if settled.all():
        closest = best_sum(problem, allowed, term=np.where(allowed, -problem.tie, 0.0))
        return at if closest is None else closest
    if problem.has_quotas:
        at, levels = _best_of_groups(problem, at, ~settled)
        open_levels = [(~settled, *one) for one in zip(*np.unique(levels, return_counts=True))]
    else:
        open_levels = _open_levels(problem, node, column)
    counts: list[Count] = []
    for members, level, number in open_levels:
        at_level = _least_change(problem, members[:, None] & (utility == level))
        counts.append((at_level, number))
        allowed |= at_level
    replicas = least_loss(problem, allowed, problem.tie, counts, time_limit_s)
    return at if replicas is None else replicas


def _open_levels(problem: Problem, node, column) -> list[tuple[np.ndarray, float, int]]:
    """(jobs, utility, number): of these jobs, bool (jobs,), this number stays at this utility.

    `node` and `column` are results of `climb` without quotas.
    """
    found = []
    for n, columns in enumerate(column[1:], 1):
        members = columns >= 0
        first = np.argmax(members)
        level = problem.utility[first, columns[first]]  # the same for all members
        found.append((members, level, int((node == n).sum())))
    return found


def _climb(utility, cost, budget, group, quota):
    """The results of `climb`."""
    from faro_lib.allocate import _leximin_kernels as kernels

    columns = utility.shape[1]
    best_so_far = np.maximum.accumulate(utility, axis=1)
    best_cheaper = np.pad(best_so_far[:, :-1], ((0, 0), (1, 0)), constant_values=-np.inf)
    better = utility > best_cheaper
    # The next better column at or after each column, then after it; `columns` if there is none.
    position = np.where(better, np.arange(columns), columns)
    at_or_after = np.minimum.accumulate(position[:, ::-1], axis=1)[:, ::-1]
    after = np.pad(at_or_after[:, 1:], ((0, 0), (0, 1)), constant_values=columns)
    following = np.where(after == columns, -1, after)
    positions = np.flatnonzero(better)
    order = positions[np.argsort(utility.ravel()[positions], kind="stable")]
    return kernels.climb(utility, cost, following, order, budget, group, quota)


def _best_of_groups(
    problem: Problem, at: np.ndarray, undecided: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Leximin-best replicas (jobs,), and the sorted utilities of the `undecided` jobs with them.

    No job has less utility than with replicas `at`, which the other jobs keep. If a list A of
    utilities is leximin-better than a list B, A merged with any list C is better than B merged with
    C. It is therefore enough to find each tenant's best list at each budget, and to merge the
    tenants one at a time.
    """
    from faro_lib.allocate import _leximin_kernels as kernels

    slack, group_slack = problem.room(at)
    best = [np.empty((slack + 1, 0))]  # after each tenant; row s is for s units more than `at`
    tenants = []  # (jobs, their columns, their sorted utilities); rows are for units, as in `best`
    for g in np.unique(problem.group[undecided]):
        of = np.flatnonzero(undecided & (problem.group == g))
        rows = np.arange(len(of))
        utility, cost = problem.utility[of], problem.cost[of]
        reached = utility[rows, at[of]][:, None]
        utility = np.where(utility >= reached, utility, -np.inf)
        least = int(cost @ at[of])
        units = min(slack, int(group_slack[g]))
        of_group = np.empty((units + 1, len(of)))
        replicas = np.empty((units + 1, len(of)), np.int64)
        while units >= 0:
            budget = least + units
            columns, *_ = _climb(utility, cost, budget, np.zeros_like(of), np.array([budget]))
            used = int(cost @ columns) - least
            of_group[used : units + 1] = np.sort(utility[rows, columns])
            replicas[used : units + 1] = columns
            units = used - 1
        tenants.append((of, replicas, of_group))
        best.append(kernels.join(best[-1], of_group))
    at = at.copy()
    left = slack
    for (of, replicas, of_group), without, joined in zip(tenants[::-1], best[-2::-1], best[::-1]):
        # The tenant's least number of units with which the joined list is reached.
        units = next(
            n
            for n in range(len(of_group))
            if np.array_equal(np.sort([*without[left - n], *of_group[n]]), joined[left])
        )
        at[of] = replicas[units]
        left -= units
    return at, best[-1][-1]


def _least_change(problem: Problem, allowed: np.ndarray) -> np.ndarray:
    """Keep only the least of each job's `allowed` columns >= `current`.

    The others cost more and have the same utility.
    """
    fewer = np.arange(allowed.shape[1]) < problem.current[:, None]
    number = np.cumsum(allowed & ~fewer, axis=1)
    return allowed & (fewer | (number == 1))


def least_loss(
    problem: Problem,
    allowed: np.ndarray,
    loss: np.ndarray,
    counts: Sequence[Count] = (),
    time_limit_s: float = 600.0,
) -> np.ndarray | None:
    """Replicas (jobs,) in `allowed`, bool (jobs, columns), with the least sum of `loss`.

    `loss` has the shape of `allowed`. Each of `counts` limits how many jobs may use a set of
    columns. Returns the best found in `time_limit_s`, or None.
    """
    from scipy.optimize import LinearConstraint, milp
    from scipy.sparse import coo_array, csr_array, vstack

    jobs, columns = np.nonzero(allowed)  # a variable in {0, 1} for each allowed column
    n = len(jobs)
    cost = problem.costs[allowed]
    rows, upper = [cost], [problem.budget]  # rows @ variables <= upper
    if problem.has_quotas:
        for g, quota in enumerate(problem.quota):
            rows.append(np.where(problem.group[jobs] == g, cost, 0))
            upper.append(quota)
    for mask, number in counts:
        rows.append(mask[allowed])
        upper.append(number)
    one_each = coo_array((np.ones(n), (jobs, np.arange(n))), shape=(len(allowed), n))
    matrix = vstack([one_each, csr_array(np.array(rows, float))], format="csc")
    ones = np.ones(len(allowed))
    no_lower = np.full(len(rows), -np.inf)
    limits = LinearConstraint(matrix, np.append(ones, no_lower), np.append(ones, upper))
    answer = milp(
        loss[allowed],
        integrality=np.ones(n),
        bounds=(0, 1),
        constraints=limits,
        options={"mip_rel_gap": 0.0, "time_limit": time_limit_s},
    )
    if answer.x is None:
        return None
    chosen = answer.x > 0.5
    replicas = np.zeros(len(allowed), np.int64)
    replicas[jobs[chosen]] = columns[chosen]
    return replicas
