"""The marginal value of a replica around an allocation."""

import numpy as np

from faro_lib.allocate.objectives import objective_of
from faro_lib.allocate.problem import Allocation
from faro_lib.utility import UtilityTable
from faro_lib.workload import arrays_of


def marginal_values(
    table: UtilityTable, allocation: Allocation, *, gamma: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(gain in the objective from one more replica, loss from one fewer), (jobs,) each; NaN outside the job's bounds.

    All other jobs keep their replicas; the budget and the quotas are ignored.

    >>> from faro_lib.workload import Job
    >>> table = UtilityTable.from_values([Job("a"), Job("b")], [[0, 0.4, 0.5], [0, 0.1, 0.9]])
    >>> from faro_lib.allocate import solve
    >>> marginal_values(table, solve(table, 3))[0].round(3).tolist()
    [0.1, nan]
    """
    objective = objective_of(allocation.objective)
    rows = np.arange(len(table.jobs))
    # One infeasible column on either side: x replicas are at index x + 1.
    utilities = np.pad(objective.utilities(table), ((0, 0), (1, 1)), constant_values=-np.inf)
    weight = arrays_of(table.jobs).weight
    current = utilities[rows, allocation.replicas + 1]
    now = objective.score(current, weight, gamma)

    def change(by):
        moved = utilities[rows, allocation.replicas + 1 + by]
        scores = [objective.score(np.where(rows == j, moved, current), weight, gamma) for j in rows]
        return np.where(np.isneginf(moved), np.nan, by * (np.array(scores) - now))

    return change(+1), change(-1)
