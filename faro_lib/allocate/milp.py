"""The independent oracle: a mixed-integer program in cvxpy, solved by HiGHS, and its linear relaxation."""

from __future__ import annotations

import numpy as np

from faro_lib.allocate.exact import costs


def milp(problem, *, time_limit_s: float = 600.0):
    """One binary a job and column. Leximin is a sequence of programs, one for each job from the worst-off up.

    Ties are not looked at: any allocation of the best value may come back.
    """
    if problem.objective.leximin:
        return _leximin(problem, time_limit_s)
    program = _Program(problem, boolean=True)
    program.maximise(program.objective(), time_limit_s)
    replicas = program.replicas()
    return replicas, problem.score(replicas)


def convex(problem):
    """The linear relaxation (every job on its concave envelope) is the bound; rounded and filled up, a solution."""
    from faro_lib.allocate import _solver_kernels as _compiled
    from faro_lib.allocate.envelope import greedy

    bound, _, shares = relaxation(problem)
    replicas = _floor(problem, shares)
    if len(problem.quota) == 1 and not problem.gamma and not problem.objective.leximin:
        _compiled.fill_up(problem.term, costs(problem), ~np.isneginf(problem.term), problem.budget, replicas)
    else:
        by_greed = greedy(problem)[0]
        if not problem.fits(replicas) or problem.score(by_greed) > problem.score(replicas):
            replicas = by_greed
    return replicas, bound


def relaxation(problem):
    """(bound, price of one unit of the budget, shares (jobs, X + 1)) of the linear program."""
    program = _Program(problem, boolean=False)
    program.maximise(program.objective(), 600.0)
    return float(program.value), float(abs(program.budget.dual_value)), np.asarray(program.z.value)


def _floor(problem, shares):
    """The cheapest column of each job that has a share."""
    shares = np.where(np.isneginf(problem.utility), 0.0, shares)
    return np.argmax(shares > 1e-6, axis=1)


class _Program:
    """Variables and constraints that all objectives share."""

    def __init__(self, problem, boolean):
        import cvxpy as cp

        self.cp, self.problem = cp, problem
        feasible = ~np.isneginf(problem.utility)
        self.utility = np.where(feasible, problem.utility, 0.0)
        self.term = np.where(feasible, problem.term, 0.0)
        self.z = cp.Variable(problem.utility.shape, boolean=boolean, nonneg=not boolean)
        spent = cp.sum(cp.multiply(costs(problem), self.z), axis=1)
        self.budget = cp.sum(spent) <= problem.budget
        self.constraints = [cp.sum(self.z, axis=1) == 1, self.budget]
        if not feasible.all():
            self.constraints.append(cp.sum(self.z[~feasible]) == 0)
        if len(problem.quota) > 1:
            self.constraints += [cp.sum(spent[problem.group == g]) <= q for g, q in enumerate(problem.quota)]
        self.of_job = cp.sum(cp.multiply(self.utility, self.z), axis=1)

    def objective(self):
        if self.problem.objective.leximin:
            least = self.cp.Variable()
            self.constraints.append(self.of_job >= least)
            return least
        total = self.cp.sum(self.cp.multiply(self.term, self.z))
        if self.problem.gamma:
            low, high = self.cp.Variable(), self.cp.Variable()
            self.constraints += [self.of_job >= low, self.of_job <= high]
            total = total + self.problem.gamma * (low - high)
        return total

    def maximise(self, objective, time_limit_s):
        program = self.cp.Problem(self.cp.Maximize(objective), self.constraints)
        options = {"mip_rel_gap": 0.0, "mip_abs_gap": 0.0, "time_limit": time_limit_s}
        self.value = program.solve(solver=self.cp.HIGHS, **options)
        if program.status != "optimal":
            raise RuntimeError(f"HiGHS stopped as {program.status!r} within time_limit_s={time_limit_s}")

    def replicas(self):
        return np.argmax(np.where(np.isneginf(self.problem.utility), -1.0, np.asarray(self.z.value)), axis=1)


def _leximin(problem, time_limit_s):
    """r_i = the greatest t such that at most i - 1 jobs are below it, given r_1..r_{i-1}."""
    levels = np.unique(problem.utility[~np.isneginf(problem.utility)])
    found: list[float] = []
    replicas = None
    jobs = len(problem.cost)
    span = float(levels[-1] - levels[0])
    for i in range(jobs):
        program = _Program(problem, boolean=True)
        cp = program.cp
        excused = cp.Variable(jobs, boolean=True)
        level = cp.Variable()
        program.constraints += [
            level <= program.of_job + (span + 1e-6) * excused,
            cp.sum(excused) <= i,
            level <= levels[-1],
        ]
        for k, r in enumerate(found):
            below = (problem.utility < r) & ~np.isneginf(problem.utility)
            if below.any():
                program.constraints.append(cp.sum(program.z[below]) <= k)
        program.maximise(level, time_limit_s)
        replicas = program.replicas()
        found.append(float(np.sort(problem.utility[np.arange(jobs), replicas])[i]))
    return replicas, found[0]
