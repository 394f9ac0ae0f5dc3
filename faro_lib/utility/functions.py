"""Utility of a latency and penalty of a drop rate, precise (a step) and relaxed (a slope that a solver can follow)."""

from __future__ import annotations

import numpy as np

# Service credits of 25, 50 and 100 % start beyond these drop rates: in the measure, and inside the paper's solver.
MEASURE_STEPS = (0.01, 0.05, 0.10)
SOLVER_STEPS = (0.001, 0.03, 0.08)
CREDITS = (1.0, 0.75, 0.5, 0.0)


def precise_utility(latency_s, slo_s):
    """1 while the promise is kept, 0 otherwise: U = [l <= s].

    >>> precise_utility([0.5, 0.72, 0.9], 0.72).tolist()
    [1.0, 1.0, 0.0]
    """
    latency_s, slo_s = _latency(latency_s), _slo(slo_s)
    return (latency_s <= slo_s).astype(float)


def relaxed_utility(latency_s, slo_s, alpha=1.0):
    """1 while the promise is kept, then falling with the latency: U = min(1, (s / l)^alpha) (EuroSys'25, section 4).

    >>> relaxed_utility([0.5, 1.44, float("inf")], 0.72).tolist()
    [1.0, 0.5, 0.0]
    """
    latency_s, slo_s = _latency(latency_s), _slo(slo_s)
    if not np.all(np.asarray(alpha) > 0):
        raise ValueError(f"alpha={alpha} must be a number > 0")
    return np.minimum(1.0, slo_s / np.maximum(latency_s, slo_s)) ** alpha


def precise_drop_penalty(drop, steps=MEASURE_STEPS):
    """Service credits: phi = 1 for d <= steps[0], 0.75 for d <= steps[1], 0.5 for d <= steps[2], 0 beyond.

    >>> precise_drop_penalty([0.0, 0.01, 0.02, 0.1, 0.2]).tolist()
    [1.0, 1.0, 0.75, 0.5, 0.0]
    """
    drop = _drop(drop)
    return np.asarray(CREDITS)[np.searchsorted(np.asarray(steps, float), drop, side="left")]


def relaxed_drop_penalty(drop, steps=SOLVER_STEPS):
    """Straight lines through (steps[0], 1), (steps[1], 0.75), (steps[2], 0.5), (1, 0) (EuroSys'25, section 4).

    >>> relaxed_drop_penalty([0.0, 0.03, 0.54, 1.0]).round(3).tolist()
    [1.0, 0.75, 0.25, 0.0]
    """
    return np.interp(_drop(drop), (*steps, 1.0), CREDITS)


def _latency(latency_s):
    latency_s = np.asarray(latency_s, float)
    if not np.all(latency_s >= 0):
        raise ValueError(
            f"latency_s={latency_s[~(latency_s >= 0)].flat[0]} must be a number >= 0 (infinite is allowed)"
        )
    return latency_s


def _slo(slo_s):
    slo_s = np.asarray(slo_s, float)
    if not np.all((slo_s > 0) & np.isfinite(slo_s)):
        raise ValueError(f"slo_s={slo_s} must be a finite number > 0")
    return slo_s


def _drop(drop):
    drop = np.asarray(drop, float)
    if not np.all((drop >= 0) & (drop <= 1)):
        raise ValueError(f"drop={drop[~((drop >= 0) & (drop <= 1))].flat[0]} must lie in [0, 1]")
    return drop
