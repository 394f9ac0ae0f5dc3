"""The paper's solvers: search a continuous relaxation, round up, repair, shrink. Kept for comparison.

Between whole columns the table's utility is a straight line if relaxed; `plateau=True` makes it the step of the precise
formulation, on which these searches see no slope.
"""

from __future__ import annotations

import numpy as np

from faro_lib.allocate.spare import repaired, shrunk

SLACK = 1e-8  # cores over the budget that count as none
METHODS = ("cobyla", "nlopt-cobyla", "slsqp", "differential-evolution")


def search(score, start, lower, upper, cost, budget, method: str, *, seed: int = 0, options=None) -> np.ndarray:
    """Maximise `score` (x) over lower <= x <= upper, cost x <= budget, by one of METHODS."""
    from scipy.optimize import Bounds, LinearConstraint, differential_evolution, minimize

    options = dict(options or {})
    cost = np.asarray(cost, float)
    if method == "differential-evolution":
        found = differential_evolution(
            lambda x: -score(x), Bounds(lower, upper), constraints=LinearConstraint(cost[None, :], -np.inf, budget),
            rng=np.random.default_rng(seed), x0=np.clip(start, lower, upper), **{"polish": False, **options},
        )  # fmt: skip
        return np.clip(found.x, lower, upper)
    if method == "slsqp":
        found = minimize(
            lambda x: -score(np.clip(x, lower, upper)), start, method="SLSQP", bounds=Bounds(lower, upper),
            constraints={"type": "ineq", "fun": lambda x: budget - cost @ x, "jac": lambda x: -cost}, options=options,
        )  # fmt: skip
    elif method == "cobyla":
        # SciPy's COBYLA is interpreted since 1.16, and every constraint costs time: one vector of them, without the upper
        # bounds that the budget implies. (The score is clipped to the others.)
        def room(x):
            return np.concatenate([[budget - cost @ x], x - lower])

        found = minimize(
            lambda x: -score(np.clip(x, lower, upper)), start, method="COBYLA",
            constraints={"type": "ineq", "fun": room}, options={"rhobeg": 3.0, **options},
        )  # fmt: skip
    elif method == "nlopt-cobyla":
        return _powell(score, np.clip(start, lower, upper), lower, upper, cost, budget, options)
    else:
        raise ValueError(f"method={method!r} is not a search; accepted: {', '.join(METHODS)}")
    return np.clip(np.where(np.isfinite(found.x), found.x, start), lower, upper)


def _powell(score, start, lower, upper, cost, budget, options):
    """Powell's own COBYLA, compiled, as SciPy had it before 1.16: about twenty times as fast as what SciPy has now.

    On a plateau its simplex may degenerate: it then asks for the score at NaN, and sooner or later never returns. It is
    stopped there, and the best that it saw is taken.
    """
    try:
        import nlopt
    except ImportError as error:
        raise ValueError("method='nlopt-cobyla' needs the package nlopt; accepted without it: cobyla") from error
    best, most = start, -np.inf

    def objective(x, _gradient):
        nonlocal best, most
        if np.isnan(x).any():
            raise nlopt.ForcedStop
        value = score(x)
        if value > most and cost @ x <= budget + SLACK:
            best, most = x.copy(), value
        return value

    optimiser = nlopt.opt(nlopt.LN_COBYLA, len(start))
    optimiser.set_max_objective(objective)
    optimiser.set_lower_bounds(lower)
    optimiser.set_upper_bounds(upper)
    optimiser.add_inequality_constraint(lambda x, _gradient: float(cost @ x - budget), SLACK)
    optimiser.set_initial_step(options.get("rhobeg", 3.0))
    optimiser.set_xtol_abs(options.get("tol", 1e-4))
    optimiser.set_maxeval(options.get("maxiter", 1000))
    try:
        found = optimiser.optimize(start)
    except nlopt.ForcedStop:
        found = best
    return np.clip(found, lower, upper)


def continuous(method: str):
    """A solver for the registry, on the table's rows read between the columns."""

    def solver(problem, *, plateau: bool = False, seed: int = 0, shrink: bool = True, tol: float = 1e-4, options=None):
        from faro_lib.allocate import _solver_kernels as _compiled

        feasible = ~np.isneginf(problem.utility)
        lower = np.argmax(feasible, axis=1).astype(float)
        upper = problem.utility.shape[1] - 1.0 - np.argmax(feasible[:, ::-1], axis=1)
        utility, term = np.where(feasible, problem.utility, 0.0), np.where(feasible, problem.term, 0.0)
        leximin = problem.objective.leximin

        def score(x):
            return _compiled.score_between(utility, term, x, problem.gamma, leximin, plateau)

        start = np.clip(problem.current.astype(float), lower, upper)
        x = search(score, start, lower, upper, problem.cost, problem.budget, method, seed=seed, options=options)
        replicas = repaired(problem, np.ceil(x - 1e-6).astype(np.int64))
        if shrink:
            replicas = shrunk(problem, replicas, range(len(replicas)), tol)
        return replicas, float("nan")

    solver.__doc__ = f"{method} on the continuous table, rounded up, repaired and shrunk."
    return solver
