"""After the optimum: what a replica is worth, taking back what is not needed, giving away what is left."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from faro_lib.allocate.exact import best_sum
from faro_lib.allocate.objectives import Objective, objective_of
from faro_lib.allocate.problem import problem_of
from faro_lib.allocate.solve import allocation_of
from faro_lib.workload.jobs import jobs_array


@dataclass(frozen=True, slots=True)
class Marginals:
    """What the objective gains by one replica more of a job, and loses by one less; NaN at a bound; (jobs,)."""

    more: np.ndarray
    less: np.ndarray


def marginal_values(table, allocation, objective=None, *, gamma=None) -> Marginals:
    """Value of one replica more or less, job by job, with everything else as it is; explains a plan.

    >>> from faro_lib.utility import UtilityTable
    >>> from faro_lib.workload import Job
    >>> table = UtilityTable.from_values([Job("a"), Job("b")], [[0, 0.4, 0.5], [0, 0.1, 0.9]])
    >>> from faro_lib.allocate import solve
    >>> marginal_values(table, solve(table, 3)).more.round(3).tolist()
    [0.1, nan]
    """
    chosen = objective_of(allocation.objective if objective is None else objective)
    rows = np.arange(len(table.jobs))
    utilities, weight = chosen.utilities(table), jobs_array(table.jobs, "weight").astype(float)
    chosen_now = _column(utilities, allocation.replicas)
    now = chosen.score(chosen_now, weight, gamma)

    def change(by):
        out = np.full(len(rows), np.nan)
        moved = _column(utilities, allocation.replicas + by)
        for j in np.flatnonzero(~np.isneginf(moved)):
            tried = chosen_now.copy()
            tried[j] = moved[j]
            out[j] = by * (chosen.score(tried, weight, gamma) - now)
        return out

    return Marginals(change(+1), change(-1))


def _column(utilities, replicas):
    """Utility of each job at `replicas`, -inf outside the table."""
    replicas = np.asarray(replicas)
    inside = (replicas >= 0) & (replicas < utilities.shape[1])
    return np.where(inside, utilities[np.arange(len(replicas)), np.where(inside, replicas, 0)], -np.inf)


def shrink(table, allocation, budget, tol: float = 1e-4, *, gamma=None, quotas=None):
    """Take away what the objective does not miss: the paper's shrink.

    Job by job, in the table's order, one replica after another until the first loss above `tol`. If that freed
    anything, all of the free budget is offered to each job in turn; a gain above `tol` is accepted and the shrinking
    begins again. Unlike the paper's it ends: many losses below `tol` may add up to a gain above it, so what is accepted
    must also be better than what was accepted before.
    """
    started = time.perf_counter()
    problem = problem_of(table, budget, objective_of(allocation.objective), gamma=gamma, quotas=quotas)
    # The paper goes through the jobs in file order.
    replicas = shrunk(problem, np.array(allocation.replicas)[problem.order], np.argsort(problem.order), tol)
    return allocation_of(
        problem, replicas, allocation.bound, allocation.seconds + time.perf_counter() - started, allocation.solver
    )


def shrunk(problem, replicas, sequence, tol):
    """`shrink` in problem order, going through the jobs by `sequence`."""
    replicas = np.array(replicas)

    def take():
        freed = False
        for j in sequence:
            value = problem.score(replicas)
            while replicas[j] > 0 and not np.isneginf(problem.utility[j, replicas[j] - 1]):
                replicas[j] -= 1
                less = problem.score(replicas)
                if less < value - tol:
                    replicas[j] += 1
                    break
                value, freed = less, True
        return freed

    accepted = -np.inf
    while take():
        value, gave = max(problem.score(replicas), accepted), False
        for j in sequence:
            before = replicas[j]
            room = int(problem.budget - (problem.cost * replicas).sum()) // int(problem.cost[j])
            tenant = problem.group == problem.group[j]
            room = min(
                room,
                int(problem.quota[problem.group[j]] - (problem.cost * replicas)[tenant].sum()) // int(problem.cost[j]),
            )
            inside = np.flatnonzero(~np.isneginf(problem.utility[j]))
            replicas[j] = min(before + room, inside[-1])
            gained = problem.score(replicas)
            if replicas[j] > before and gained > value + tol:
                accepted, gave = gained, True
                break
            replicas[j] = before
        if not gave:
            break
    return replicas


def repaired(problem, replicas):
    """Within the budget: remove, one by one, the replica whose removal costs least.

    Costs are compared after rounding the objective to 1e-4; ties go to the smaller change from `current` (the paper's
    rule).
    """
    replicas = np.array(replicas)
    while not problem.fits(replicas):
        best = None
        spent = problem.cost * replicas
        over = np.bincount(problem.group, spent, len(problem.quota)) > problem.quota
        everyone = spent.sum() > problem.budget
        for j in range(len(replicas)):
            if (
                replicas[j] == 0
                or np.isneginf(problem.utility[j, replicas[j] - 1])
                or not (everyone or over[problem.group[j]])
            ):
                continue
            replicas[j] -= 1
            key = (-round(problem.score(replicas), 4), float(np.abs(replicas - problem.current).sum()))
            replicas[j] += 1
            if best is None or key < best[0]:
                best = (key, j)
        replicas[best[1]] -= 1
    return replicas


def spread_spare(table_heavy, allocation, budget, *, quotas=None):
    """Give leftover replicas to where they lower the expected loss most under a heavier-than-expected load.

    On a cluster that is paid for, an unused replica is worth nothing. Exactly: the most sum of weighted utilities on
    `table_heavy` (built from the same jobs at, say, 1.3 times the rates) with no job below `allocation`.

    Returns the allocation with `replicas` raised; value, bound and drop remain those of the expected load.
    """
    from dataclasses import replace

    problem = problem_of(table_heavy, budget, Objective("Sum"), current=allocation.replicas, quotas=quotas)
    floor = np.array(allocation.replicas)[problem.order]
    columns = np.arange(problem.term.shape[1])
    # Beyond the heavy table's last column a job gains nothing; it keeps what it has.
    allowed = ~np.isneginf(problem.term) & (columns[None, :] >= np.minimum(floor, problem.term.shape[1] - 1)[:, None])
    beyond = floor >= problem.term.shape[1]
    if beyond.any():
        return allocation
    raised = best_sum(problem, allowed)
    if raised is None:
        return allocation
    replicas = np.empty(len(floor), np.int64)
    replicas[problem.order] = raised
    return replace(allocation, replicas=replicas)
