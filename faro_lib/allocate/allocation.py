"""The answer of a solver, with its certificate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Allocation:
    """Replicas and drop rate of every job.

    Attributes
    ----------
    replicas : whole numbers, shape (jobs,).
    drop : fraction of the requests to refuse at the door, shape (jobs,).
    value : the objective at this allocation.
    bound : no allocation within the budget is worth more; NaN where the solver gives none.
    gap : (bound - value) / max(|bound|, 1e-9), 0 for `exact`; NaN without a bound.
    seconds : spent in the solver.
    """

    replicas: np.ndarray
    drop: np.ndarray
    value: float
    bound: float
    gap: float
    seconds: float
    solver: str
    objective: str

    def __post_init__(self):
        for field, dtype in (("replicas", np.int64), ("drop", float)):
            array = np.array(getattr(self, field), dtype=dtype)
            array.setflags(write=False)
            object.__setattr__(self, field, array)
