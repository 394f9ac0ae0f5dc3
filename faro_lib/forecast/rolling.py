"""Forecast every minute of a day, as a controller would."""

from __future__ import annotations

import numpy as np

from faro_lib.forecast.forecaster import CONTEXT_MINUTES, HORIZON_MINUTES, Forecaster
from faro_lib.forecast.regression import windows


def rolling(
    forecaster: Forecaster, day_counts, horizon: int = HORIZON_MINUTES, n: int = 100, context: int = CONTEXT_MINUTES
) -> tuple[np.ndarray, np.ndarray]:
    """Sample paths from every origin of a day, and the actuals.

    Origin t has the counts of minutes 0..t-1 and forecasts t..t+horizon-1. Origins run from `context` to
    the last whose horizon lies within the day.

    Parameters
    ----------
    day_counts : requests per minute, shape (jobs, minutes); NaN = missing.

    Returns
    -------
    samples : float32, shape (origins, jobs, n, horizon).
    truth : shape (origins, jobs, horizon).
    """
    day_counts = np.asarray(day_counts, dtype=float)
    if day_counts.ndim != 2 or day_counts.shape[1] < context + horizon:
        raise ValueError(
            f"day_counts has shape {day_counts.shape}; expected (jobs, {context + horizon} minutes or more)"
        )
    samples = []
    current = forecaster.start()
    for minute in range(day_counts.shape[1] - horizon + 1):
        if minute >= context:
            samples.append(current.sample(horizon, n).astype(np.float32))
        current = current.update(day_counts[:, minute])
    return np.stack(samples), windows(day_counts[:, context:], horizon).transpose(1, 0, 2)
