"""The paper's solvers, for comparison: search a continuous relaxation, round up, repair, shrink.

Between whole replica counts, the utility is interpolated linearly. With `plateau=True`, a fraction
of a replica adds no utility, as in the paper's precise formulation. The searches then find no slope
to follow.
"""

from collections.abc import Callable

import numpy as np

from faro_lib.allocate import SOLVERS, register_solver
from faro_lib.allocate.problem import Problem
from studies.paper.repair import repaired, shrunk

ROUNDING = 1e-6  # a fraction of a replica up to this is rounded down, not up
METHODS = ("cobyla", "slsqp", "differential-evolution")


def search(
    score: Callable, start, lower, upper, cost, budget, method: str, *, seed: int = 0, options=None
):
    """The x (jobs,) that maximises score(x) for lower <= x <= upper and cost @ x <= budget.

    method : one of METHODS.
    """
    from scipy.optimize import Bounds, LinearConstraint, differential_evolution, minimize

    if method not in METHODS:
        raise ValueError(f"method={method!r} is not a search; accepted: {', '.join(METHODS)}")
    options = dict(options or {})
    cost = np.asarray(cost, float)
    bounds = Bounds(lower, upper)

    def loss(x):
        return -score(np.clip(x, lower, upper))

    if method == "differential-evolution":
        x = differential_evolution(
            loss,
            bounds,
            constraints=LinearConstraint(cost[None, :], -np.inf, budget),
            rng=np.random.default_rng(seed),
            x0=np.clip(start, lower, upper),
            **{"polish": False, **options},
        ).x
    elif method == "slsqp":
        room = {"type": "ineq", "fun": lambda x: budget - cost @ x, "jac": lambda x: -cost}
        limits: dict = {"bounds": bounds, "constraints": room}
        x = minimize(loss, start, method="SLSQP", options=options, **limits).x
    else:
        # No upper bounds: the budget limits x already, and the score clips it.
        x = published_search(lambda x: -loss(x), start, lower, upper[:0], cost, budget, options)
    return np.clip(np.where(np.isfinite(x), x, start), lower, upper)


def published_search(score: Callable, start, lower, upper_of_last, cost, budget, options=None):
    """The x (jobs,) that maximises score(x) by SciPy's COBYLA, called as in the published code.

    The limits are one vector of inequality constraints: budget, lower bounds, and upper bounds of
    the last variables only. COBYLA also evaluates the score where they are violated, and its result
    may violate them slightly.
    """
    from scipy.optimize import minimize

    last = len(start) - len(upper_of_last)

    def room(x):
        return np.concatenate([[budget - cost @ x], x - lower, upper_of_last - x[last:]])

    limits = {"type": "ineq", "fun": room}
    options = {"rhobeg": 3.0, **(options or {})}

    def loss(x):
        return -score(x)

    x = minimize(loss, start, method="COBYLA", constraints=limits, options=options).x
    return np.where(np.isfinite(x), x, start)


def continuous(method: str) -> Callable:
    """A solver for `SOLVERS` that runs `search` by `method` and rounds up to whole replicas."""

    def solver(
        problem: Problem, *, plateau: bool = False, seed: int = 0, options=None
    ) -> tuple[np.ndarray, float]:
        from studies.paper import _kernels as kernels

        feasible = problem.feasible
        lower = np.argmax(feasible, axis=1).astype(float)
        upper = feasible.shape[1] - 1.0 - np.argmax(feasible[:, ::-1], axis=1)
        utility = np.where(feasible, problem.utility, 0.0)
        term = np.where(feasible, problem.term, 0.0)
        gamma, leximin = problem.gamma, problem.objective.leximin

        def score(x):
            return kernels.score_between(utility, term, x, gamma, leximin, plateau)

        start = np.clip(problem.current.astype(float), lower, upper)
        limits = (lower, upper, problem.cost, problem.budget)
        x = search(score, start, *limits, method, seed=seed, options=options)
        replicas = repaired(problem, np.ceil(x - ROUNDING).astype(np.int64))
        return shrunk(problem, replicas, range(len(replicas))), float("nan")

    return solver


for _name in METHODS:
    if _name not in SOLVERS:  # this file may also have been loaded as a plugin
        register_solver(_name, continuous(_name))
