"""What runs were worth, as numbers and as tables, and the limit of what any policy could reach."""

from faro_lib.metrics.experiment import (
    Tables,
    compare,
    gather,
    kit_of,
    limits_of,
    read_tables,
    summaries,
    trial_seeds,
    write_tables,
)
from faro_lib.metrics.frames import decisions_frame, minutes_frame, running_by_minute
from faro_lib.metrics.limit import best_by_minute, clairvoyant, measured_utilities
from faro_lib.metrics.measures import (
    lost_utility,
    lost_utility_360,
    minute_effective_utility,
    minute_utility,
    slo_violation_rate,
    summarize,
)
from faro_lib.metrics.prediction import learning_curve, prediction_errors
from faro_lib.metrics.remaining import remaining

__all__ = [
    "Tables",
    "best_by_minute",
    "clairvoyant",
    "compare",
    "decisions_frame",
    "gather",
    "kit_of",
    "learning_curve",
    "limits_of",
    "lost_utility",
    "lost_utility_360",
    "measured_utilities",
    "minute_effective_utility",
    "minute_utility",
    "minutes_frame",
    "prediction_errors",
    "read_tables",
    "remaining",
    "running_by_minute",
    "slo_violation_rate",
    "summaries",
    "summarize",
    "trial_seeds",
    "write_tables",
]
