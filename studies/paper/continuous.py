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
    """The x (jobs,) that maximises score(x) for lower <= x <= upper and cost @ x <= budget, by a
    method of METHODS.
    """
    from scipy.optimize import Bounds, LinearConstraint, differential_evolution, minimize

    if method not in METHODS:
        raise ValueError(f"method={method!r} is not a search; accepted: {', '.join(METHODS)}")
    options, cost, bounds = dict(options or {}), np.asarray(cost, float), Bounds(lower, upper)

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
        x = minimize(
            loss, start, method="SLSQP", bounds=bounds, constraints=room, options=options
        ).x
    else:
        # No upper bounds: the budget limits x already, and the score clips it.
        x = published_search(
            lambda x: score(np.clip(x, lower, upper)),
            start,
            lower,
            upper[:0],
            cost,
            budget,
            options,
        )
    return np.clip(np.where(np.isfinite(x), x, start), lower, upper)


def published_search(score: Callable, start, lower, upper_of_last, cost, budget, options=None):
    """The x (jobs,) that maximises score(x) by SciPy's COBYLA, called as the published code calls
    it.

    The limits are one vector of inequality constraints: budget, lower bounds, and upper bounds of
    the last variables only. COBYLA also evaluates the score where they are violated, and its result
    may violate them slightly.
    """
    from scipy.optimize import minimize

    last = len(start) - len(upper_of_last)

    def room(x):
        return np.concatenate([[budget - cost @ x], x - lower, upper_of_last - x[last:]])

    constraints, options = {"type": "ineq", "fun": room}, {"rhobeg": 3.0, **(options or {})}
    x = minimize(
        lambda x: -score(x), start, method="COBYLA", constraints=constraints, options=options
    ).x
    return np.where(np.isfinite(x), x, start)


def continuous(method: str) -> Callable:
    """A solver for `SOLVERS` that runs `search` by `method` and rounds its result to whole
    replicas.
    """

    def solver(
        problem: Problem, *, plateau: bool = False, seed: int = 0, options=None
    ) -> tuple[np.ndarray, float]:
        from studies.paper import _kernels as kernels

        feasible = problem.feasible
        lower = np.argmax(feasible, axis=1).astype(float)
        upper = feasible.shape[1] - 1.0 - np.argmax(feasible[:, ::-1], axis=1)
        utility, term = (
            np.where(feasible, problem.utility, 0.0),
            np.where(feasible, problem.term, 0.0),
        )

        def score(x):
            return kernels.score_between(
                utility, term, x, problem.gamma, problem.objective.leximin, plateau
            )

        start = np.clip(problem.current.astype(float), lower, upper)
        x = search(
            score,
            start,
            lower,
            upper,
            problem.cost,
            problem.budget,
            method,
            seed=seed,
            options=options,
        )
        replicas = repaired(problem, np.ceil(x - ROUNDING).astype(np.int64))
        return shrunk(problem, replicas, range(len(replicas))), float("nan")

    return solver


for _name in METHODS:
    if _name not in SOLVERS:  # this file may also have been loaded as a plugin
        register_solver(_name, continuous(_name))
