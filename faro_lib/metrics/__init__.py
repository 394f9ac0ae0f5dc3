"""Measures of a run, its tables, and the clairvoyant limit; nothing here runs anything but the limit."""

from faro_lib.metrics.frames import decisions_frame, minutes_frame, running_by_minute
from faro_lib.metrics.limit import best_by_minute, clairvoyant, measured_utilities
from faro_lib.metrics.measures import (
    lost_utility,
    lost_utility_excl_overrun,
    minute_effective_utility,
    minute_utility,
    slo_violation_rate,
    summarize,
)
from faro_lib.metrics.prediction import learning_curve, prediction_errors

__all__ = [
    "best_by_minute",
    "clairvoyant",
    "decisions_frame",
    "learning_curve",
    "lost_utility",
    "lost_utility_excl_overrun",
    "measured_utilities",
    "minute_effective_utility",
    "minute_utility",
    "minutes_frame",
    "prediction_errors",
    "running_by_minute",
    "slo_violation_rate",
    "summarize",
]
