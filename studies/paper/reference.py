"""Solvers that check the exact one: an integer program and its relaxation, in cvxpy and HiGHS."""

import numpy as np

from faro_lib.allocate import SOLVERS, register_solver
from faro_lib.allocate.leximin import Count, least_loss
from faro_lib.allocate.problem import Problem
from studies.paper.greedy import greedy


def milp(problem: Problem, *, time_limit_s: float = 600.0) -> tuple[np.ndarray, float]:
    """Solve an integer program with HiGHS. Returns (replicas in problem order, their value).

    The program has one binary variable for each job and replica count. For leximin, it is one
    program per level of utility. Ties between optimal allocations are broken for leximin only.
    """
    if problem.objective.leximin:
        replicas = leximin_by_levels(problem, time_limit_s)
        if replicas is None:
            raise RuntimeError(f"HiGHS found no allocation within time_limit_s={time_limit_s}")
    else:
        program = _Program(problem, boolean=True)
        program.maximise(program.objective(), time_limit_s)
        replicas = program.replicas()
    return replicas, problem.score(replicas)


def convex(problem: Problem) -> tuple[np.ndarray, float]:
    """Solve the linear relaxation, round down and fill up greedily.

    Returns (replicas, the relaxation's value).
    """
    from faro_lib.allocate import _solver_kernels as kernels

    program = _Program(problem, boolean=False)
    program.maximise(program.objective(), 600.0)
    shares = np.where(problem.feasible, np.asarray(program.z.value), 0.0)
    replicas = np.argmax(shares > 1e-6, axis=1)  # the smallest count with a positive share
    if not (problem.has_quotas or problem.gamma or problem.objective.leximin):
        kernels.fill_up(problem.term, problem.costs, problem.feasible, problem.budget, replicas)
        return replicas, float(program.value)
    by_greedy = greedy(problem)[0]  # `fill_up` handles only sums without quotas
    better = problem.fits(replicas) and problem.score(by_greedy) <= problem.score(replicas)
    return replicas if better else by_greedy, float(program.value)


def leximin_by_levels(problem: Problem, time_limit_s: float) -> np.ndarray | None:
    """Leximin-optimal replicas (jobs,), or None if HiGHS finds none in time.

    It solves one integer program per level of utility.
    """
    utility, feasible = problem.utility, problem.feasible
    jobs = np.arange(len(utility))
    level = -np.inf
    counts: list[Count] = []
    replicas = least_loss(problem, feasible, np.zeros(utility.shape), time_limit_s=time_limit_s)
    while replicas is not None:
        reached = utility[jobs, replicas]
        if not (reached > level).any():
            break
        level = reached[reached > level].min()
        below = feasible & (utility <= level)
        replicas = least_loss(problem, feasible, below.astype(float), counts, time_limit_s)
        if replicas is not None:
            counts.append((below, int(below[jobs, replicas].sum())))
    return least_loss(problem, feasible, problem.tie, counts, time_limit_s)


class _Program:
    """An allocation problem in cvxpy.

    `z[j, x]` is 1 if job j gets x replicas, or a fraction if not `boolean`.
    """

    def __init__(self, problem: Problem, boolean: bool):
        import cvxpy as cp

        self.cp = cp
        self.problem = problem
        self.z = cp.Variable(problem.utility.shape, boolean=boolean, nonneg=not boolean)
        spent = cp.sum(cp.multiply(problem.costs, self.z), axis=1)
        self.constraints = [cp.sum(self.z, axis=1) == 1, cp.sum(spent) <= problem.budget]
        if not problem.feasible.all():
            self.constraints.append(cp.sum(self.z[~problem.feasible]) == 0)
        if problem.has_quotas:
            for group, quota in enumerate(problem.quota):
                self.constraints.append(cp.sum(spent[problem.group == group]) <= quota)
        utility = np.where(problem.feasible, problem.utility, 0.0)
        self.utility = cp.sum(cp.multiply(utility, self.z), axis=1)

    def objective(self):
        cp, problem = self.cp, self.problem
        if problem.objective.leximin:
            least = cp.Variable()
            self.constraints.append(self.utility >= least)
            return least
        term = np.where(problem.feasible, problem.term, 0.0)
        total = cp.sum(cp.multiply(term, self.z))
        if problem.gamma:
            low, high = cp.Variable(), cp.Variable()
            self.constraints += [self.utility >= low, self.utility <= high]
            total = total + problem.gamma * (low - high)
        return total

    def maximise(self, objective, time_limit_s: float) -> None:
        program = self.cp.Problem(self.cp.Maximize(objective), self.constraints)
        options = {"mip_rel_gap": 0.0, "mip_abs_gap": 0.0, "time_limit": time_limit_s}
        self.value = program.solve(solver=self.cp.HIGHS, **options)
        if program.status != "optimal":
            raise RuntimeError(
                f"HiGHS stopped as {program.status!r} within time_limit_s={time_limit_s}"
            )

    def replicas(self) -> np.ndarray:
        return np.argmax(np.where(self.problem.feasible, np.asarray(self.z.value), -1.0), axis=1)


for _name, _solver in (("milp", milp), ("convex", convex), ("greedy", greedy)):
    if _name not in SOLVERS:  # this file may also have been loaded as a plugin
        register_solver(_name, _solver)
