"""Allocation of replicas to jobs: objectives and solvers over a `UtilityTable`."""

from faro_lib.allocate.knapsack import best_by_minute
from faro_lib.allocate.objectives import OBJECTIVES, Objective, register_objective
from faro_lib.allocate.problem import Allocation
from faro_lib.allocate.solve import SOLVERS, marginal_values, register_solver, solve

__all__ = [
    "OBJECTIVES",
    "SOLVERS",
    "Allocation",
    "Objective",
    "best_by_minute",
    "marginal_values",
    "register_objective",
    "register_solver",
    "solve",
]
