"""Utility of a latency and penalty of a drop rate, each precise (a step) or relaxed (a slope that solvers can follow)."""

import numpy as np

from faro_lib.queueing.formulas import require

# Drop rates beyond which the provider credits 25, 50 and 100 % of the price (EuroSys'25, section 4).
MEASURE_STEPS = (0.01, 0.05, 0.10)  # of the precise penalty, which scores runs
SOLVER_STEPS = (0.001, 0.03, 0.08)  # of the relaxed penalty, which solvers use in decisions
CREDITS = (1.0, 0.75, 0.5, 0.0)  # share of the price that the provider keeps up to each step, and beyond the last


def precise_utility(latency_s, slo_s) -> np.ndarray:
    """1 if the latency meets the SLO, else 0: U = [l <= s].

    >>> precise_utility([0.5, 0.72, 0.9], 0.72).tolist()
    [1.0, 1.0, 0.0]
    """
    latency_s, slo_s = _checked(latency_s, slo_s)
    return (latency_s <= slo_s).astype(float)


def relaxed_utility(latency_s, slo_s, alpha=1.0) -> np.ndarray:
    """1 if the latency meets the SLO, else (SLO / latency)^alpha: U = min(1, (s / l)^alpha) (EuroSys'25, section 4).

    >>> relaxed_utility([0.5, 1.44, float("inf")], 0.72).tolist()
    [1.0, 0.5, 0.0]
    """
    latency_s, slo_s = _checked(latency_s, slo_s)
    if not np.all(np.asarray(alpha) > 0):
        raise ValueError(f"alpha={alpha} must be a number > 0")
    return np.minimum(1.0, slo_s / np.maximum(latency_s, slo_s)) ** alpha


def precise_drop_penalty(drop, steps=MEASURE_STEPS) -> np.ndarray:
    """Factor on the utility at a drop rate: 1, 0.75 and 0.5 up to the first, second and third step, 0 beyond.

    >>> precise_drop_penalty([0.0, 0.01, 0.02, 0.1, 0.2]).tolist()
    [1.0, 1.0, 0.75, 0.5, 0.0]
    """
    return np.asarray(CREDITS)[np.searchsorted(np.asarray(steps, float), _drop(drop), side="left")]


def relaxed_drop_penalty(drop, steps=SOLVER_STEPS) -> np.ndarray:
    """Factor on the utility at a drop rate: linear through (steps[i], CREDITS[i]) and (1, 0) (EuroSys'25, section 4).

    >>> relaxed_drop_penalty([0.0, 0.03, 0.54, 1.0]).round(3).tolist()
    [1.0, 0.75, 0.25, 0.0]
    """
    return np.interp(_drop(drop), (*steps, 1.0), CREDITS)


def _checked(latency_s, slo_s):
    latency_s, slo_s = np.asarray(latency_s, float), np.asarray(slo_s, float)
    require("latency_s", latency_s, latency_s >= 0, "be a number >= 0 (infinite is allowed)")
    require("slo_s", slo_s, (slo_s > 0) & np.isfinite(slo_s), "be a finite number > 0")
    return latency_s, slo_s


def _drop(drop):
    drop = np.asarray(drop, float)
    require("drop", drop, (drop >= 0) & (drop <= 1), "lie in [0, 1]")
    return drop
