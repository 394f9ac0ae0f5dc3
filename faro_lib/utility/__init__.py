"""What a latency is worth, what a drop costs, and the table that holds both for every decision."""

from faro_lib.utility.functions import (
    MEASURE_STEPS,
    SOLVER_STEPS,
    precise_drop_penalty,
    precise_utility,
    relaxed_drop_penalty,
    relaxed_utility,
)
from faro_lib.utility.table import DROPS, UtilityTable, build_table, predicted_latency

__all__ = [
    "DROPS",
    "MEASURE_STEPS",
    "SOLVER_STEPS",
    "UtilityTable",
    "build_table",
    "precise_drop_penalty",
    "precise_utility",
    "predicted_latency",
    "relaxed_drop_penalty",
    "relaxed_utility",
]
