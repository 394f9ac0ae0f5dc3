"""Forecasts that use the count of the current, incomplete minute."""

import numpy as np

from faro_lib.forecast.forecaster import HORIZON_MINUTES, Forecaster
from faro_lib.workload.jobs import TOLERANCE


def nowcast(
    forecaster: Forecaster, so_far, share: float, horizon: int = HORIZON_MINUTES, n: int = 100
) -> np.ndarray:
    """Sample paths of requests per minute, shape (jobs, n, horizon), from the current minute on.

    If share > 0, all paths have the same count in the current minute: the mean of the forecast and
    of so_far / share, weighted by 1 / variance. The forecast has the variance of its sample paths,
    plus 1. so_far / share has the variance of Poisson arrivals,
    max(so_far, 1) (1 - share) / share^2. Later minutes are forecast given the current count.

    Parameters
    ----------
    so_far : requests since the minute began, shape (jobs,). For a job with NaN (missing), only the
        forecast is used.
    share : the part of the minute that has passed, in [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(
            f"share={share} must lie in [0, 1]: it is the part of the minute that has passed"
        )
    if share == 0:
        return forecaster.sample(horizon, n)
    now = forecaster.sample(1, n)[:, :, 0]  # (jobs, n)
    so_far = np.asarray(so_far, float)
    expected = now.mean(axis=1)
    variance = now.var(axis=1) + 1.0
    extrapolated = np.maximum(so_far, 0.0) / share
    noise = np.maximum(so_far, 1.0) / share**2 * (1 - share) + TOLERANCE
    weight = np.where(np.isnan(so_far), 0.0, variance / (variance + noise))
    count = (1 - weight) * expected + weight * np.nan_to_num(extrapolated)
    current = np.repeat(count[:, None, None], n, axis=1)
    if horizon == 1:
        return current
    later = forecaster.update(count).sample(horizon - 1, n)
    return np.concatenate([current, later], axis=2)
