"""Who gets how many replicas: objectives and solvers over a `UtilityTable`."""

from faro_lib.allocate.allocation import Allocation
from faro_lib.allocate.continuous import METHODS, continuous
from faro_lib.allocate.envelope import greedy, price_of_one_replica
from faro_lib.allocate.hierarchical import solve_hierarchical
from faro_lib.allocate.milp import convex, milp
from faro_lib.allocate.objectives import OBJECTIVES, Objective, register_objective
from faro_lib.allocate.paper import solve_paper
from faro_lib.allocate.solve import SOLVERS, register_solver, solve, worth
from faro_lib.allocate.spare import Marginals, marginal_values, shrink, spread_spare

register_solver("milp", milp)
register_solver("convex", convex)
register_solver("greedy", greedy)
for _method in METHODS:
    register_solver(_method, continuous(_method))

__all__ = [
    "OBJECTIVES",
    "SOLVERS",
    "Allocation",
    "Marginals",
    "Objective",
    "marginal_values",
    "price_of_one_replica",
    "register_objective",
    "register_solver",
    "shrink",
    "solve",
    "solve_hierarchical",
    "solve_paper",
    "spread_spare",
    "worth",
]
