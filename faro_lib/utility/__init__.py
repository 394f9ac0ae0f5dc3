"""Utility of a latency, penalty of a drop rate, and the utility table of a decision."""

from faro_lib.utility.functions import (
    SOLVER_STEPS,
    precise_drop_penalty,
    relaxed_drop_penalty,
    relaxed_utility,
)
from faro_lib.utility.table import (
    DROPS,
    UtilityTable,
    build_table,
    fewest_with_same_utility,
    mean_of,
    predicted_latency,
    with_switching_cost,
)

__all__ = [
    "DROPS",
    "SOLVER_STEPS",
    "UtilityTable",
    "build_table",
    "fewest_with_same_utility",
    "mean_of",
    "precise_drop_penalty",
    "predicted_latency",
    "relaxed_drop_penalty",
    "relaxed_utility",
    "with_switching_cost",
]
