"""Utility of a latency and penalty of a drop rate: precise with steps, or relaxed with slopes.

The slopes guide solvers.
"""

import numpy as np

from faro_lib.queueing.formulas import require
from faro_lib.queueing.latency_models import utility_of

# Drop rates beyond which the provider credits 25, 50 and 100 % of the price (EuroSys'25, section
# 4).
MEASURE_STEPS = (0.01, 0.05, 0.10)  # steps of the precise penalty, with which runs are scored
SOLVER_STEPS = (0.001, 0.03, 0.08)  # steps of the relaxed penalty, with which solvers decide
CREDITS = (1.0, 0.75, 0.5, 0.0)  # share of the price that is kept in each of the four ranges


def relaxed_utility(latency_s, slo_s, alpha=1.0) -> np.ndarray:
    """1 if the latency meets the SLO, else (slo_s / latency_s)^alpha (EuroSys'25, section 4).

    >>> relaxed_utility([0.5, 1.44, float("inf")], 0.72).tolist()
    [1.0, 0.5, 0.0]
    """
    latency_s, slo_s = _checked(latency_s, slo_s)
    if not np.all(np.asarray(alpha) > 0):
        raise ValueError(f"alpha={alpha} must be a number > 0")
    return utility_of(latency_s, slo_s, "relaxed", alpha)


def precise_drop_penalty(drop, steps=MEASURE_STEPS) -> np.ndarray:
    """Share of utility kept at a drop rate: CREDITS[i] up to steps[i], and 0 above all steps.

    >>> precise_drop_penalty([0.0, 0.01, 0.02, 0.1, 0.2]).tolist()
    [1.0, 1.0, 0.75, 0.5, 0.0]
    """
    return np.asarray(CREDITS)[np.searchsorted(np.asarray(steps, float), _drop(drop), side="left")]


def relaxed_drop_penalty(drop, steps=SOLVER_STEPS) -> np.ndarray:
    """Share of utility kept at a drop rate: linear between the points (steps[i], CREDITS[i]).

    The last point is (1, 0).

    >>> relaxed_drop_penalty([0.0, 0.03, 0.54, 1.0]).round(3).tolist()
    [1.0, 0.75, 0.25, 0.0]
    """
    return np.interp(_drop(drop), (*steps, 1.0), CREDITS)


def _checked(latency_s, slo_s):
    latency_s = np.asarray(latency_s, float)
    slo_s = np.asarray(slo_s, float)
    require("latency_s", latency_s, latency_s >= 0, "be a number >= 0 (infinite is allowed)")
    require("slo_s", slo_s, (slo_s > 0) & np.isfinite(slo_s), "be a finite number > 0")
    return latency_s, slo_s


def _drop(drop):
    drop = np.asarray(drop, float)
    require("drop", drop, (drop >= 0) & (drop <= 1), "lie in [0, 1]")
    return drop
