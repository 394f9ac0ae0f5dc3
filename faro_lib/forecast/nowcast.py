"""What the minute that is going on says about itself and the next ones."""

from __future__ import annotations

import numpy as np

from faro_lib.forecast.forecaster import HORIZON_MINUTES, Forecaster


def nowcast(forecaster: Forecaster, so_far, share: float, horizon: int = HORIZON_MINUTES, n: int = 100) -> np.ndarray:
    """Sample paths that begin with the minute that is going on, of which a share has been seen.

    The forecast of the minute and its extrapolation from the count so far are weighed by their precisions: the variance of
    the sample paths, and that of a Poisson count of which the rest is still to come, count / share x (1 - share) / share.
    The later minutes are forecast as if the minute had ended so.

    Parameters
    ----------
    so_far : requests (jobs,) since the minute began, NaN = missing (the forecast alone stands).
    share : of the minute that has gone by, in [0, 1].

    Returns
    -------
    requests per minute (jobs, n, horizon); minute 0 is the one going on.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share={share} must lie in [0, 1]: it is the part of the minute that has gone by")
    if share == 0:
        return forecaster.sample(horizon, n)
    now = forecaster.sample(1, n)[:, :, 0]
    so_far = np.asarray(so_far, float)
    expected, variance = now.mean(axis=1), now.var(axis=1) + 1.0
    extrapolated = np.maximum(so_far, 0.0) / share
    noise = np.maximum(so_far, 1.0) / share**2 * (1 - share) + 1e-9
    weight = np.where(np.isnan(so_far), 0.0, variance / (variance + noise))
    count = (1 - weight) * expected + weight * np.nan_to_num(extrapolated)
    if horizon == 1:
        return np.repeat(count[:, None, None], n, axis=1)
    later = forecaster.update(count).sample(horizon - 1, n)
    return np.concatenate([np.repeat(count[:, None, None], n, axis=1), later], axis=2)
