"""Forecasters of requests per minute, fitted offline and updated every minute.

Sampling takes milliseconds.

>>> forecaster = fit("ar", traces)                                  # doctest: +SKIP
>>> forecaster = forecaster.start(minute_of_day=0)                  # doctest: +SKIP
>>> forecaster = forecaster.update([120, 43])                       # doctest: +SKIP
>>> forecaster.sample(horizon=7, n=100).shape                       # doctest: +SKIP
(2, 100, 7)
"""

# Imported to register.
from faro_lib.forecast import auto, autoregression, kalman, naive, poisson, posterior  # noqa: F401
from faro_lib.forecast.conformal import recalibrated
from faro_lib.forecast.forecaster import (
    CONTEXT_MINUTES,
    HORIZON_MINUTES,
    Forecaster,
    fit,
    forecasters,
    register,
)
from faro_lib.forecast.posterior import Posterior, bayes_forecaster, load_posterior, save_posterior

__all__ = [
    "CONTEXT_MINUTES",
    "HORIZON_MINUTES",
    "Forecaster",
    "Posterior",
    "bayes_forecaster",
    "fit",
    "forecasters",
    "load_posterior",
    "recalibrated",
    "register",
    "save_posterior",
]
