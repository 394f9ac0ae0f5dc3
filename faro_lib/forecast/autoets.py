"""statsforecast's AutoETS as an optional baseline; it needs the extra `autoets`, in an environment of its own."""

from dataclasses import dataclass

import numpy as np

from faro_lib.forecast.forecaster import CONTEXT_MINUTES, HORIZON_MINUTES, Forecaster, register, training_counts
from faro_lib.forecast.regression import from_root, root
from faro_lib.workload import Traces

Z_90 = 1.2815515655446004  # standard normal quantile at the upper end of an 80 % interval


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoETS(Forecaster):
    """Exponential smoothing of root counts, selected by AICc every minute on the last 2 x CONTEXT_MINUTES minutes.

    The model gives a mean and an 80 % interval for each minute. Paths are normal with that spread and
    correlated over minutes like a random walk, corr(h, k) = sqrt(min / max).
    """

    # Mean and standard deviation of the roots over the training days (jobs,), for a day's first CONTEXT_MINUTES minutes.
    level: np.ndarray
    spread: np.ndarray

    def sample(self, horizon: int = HORIZON_MINUTES, n: int = 100) -> np.ndarray:
        self.check_horizon(horizon, n)
        mean = np.repeat(root(self.last_known(from_root(self.level)))[:, None], horizon, axis=1)
        spread = np.repeat(self.spread[:, None], horizon, axis=1)
        for job, counts in enumerate(self.counts):
            known = root(counts[~np.isnan(counts)])
            if len(known) >= CONTEXT_MINUTES and np.ptp(known) > 0:
                forecast = _auto_ets().forecast(y=known, h=horizon, level=[80])
                mean[job] = forecast["mean"]
                spread[job] = np.maximum(forecast["hi-80"] - forecast["mean"], 0) / Z_90
        minute = np.arange(1, horizon + 1)
        correlation = np.sqrt(np.minimum.outer(minute, minute) / np.maximum.outer(minute, minute))
        normal = self.rng().standard_normal((len(mean), n, horizon)) @ np.linalg.cholesky(correlation).T
        return from_root(mean[:, None] + spread[:, None] * normal)


def _auto_ets():
    try:
        from statsforecast.models import AutoETS as Model
    except ImportError:
        raise ValueError(
            "forecaster='autoets' needs statsforecast, which is not installed: pip install 'faro_lib[autoets]' "
            "(in an environment with pandas < 3)"
        ) from None
    return Model(season_length=1)


@register("autoets")
def autoets(traces: Traces, *, seed: int = 0) -> AutoETS:
    """AutoETS, fitted online; the training days give the forecast of a day's first minutes alone."""
    _auto_ets()
    y = root(training_counts(traces))
    level, spread = y.mean(axis=(0, 1, 3)), y.std(axis=(0, 1, 3))
    return AutoETS(jobs=traces.names, seed=seed, day_minutes=y.shape[-1], level=level, spread=spread)
