"""Who gets how many replicas: objectives and solvers over a `UtilityTable`."""

from faro_lib.allocate.allocation import Allocation
from faro_lib.allocate.objectives import OBJECTIVES, Objective, register_objective
from faro_lib.allocate.solve import SOLVERS, register_solver, solve

__all__ = ["OBJECTIVES", "SOLVERS", "Allocation", "Objective", "register_objective", "register_solver", "solve"]
