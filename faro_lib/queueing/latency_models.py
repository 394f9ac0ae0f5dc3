"""Latency formulas, selected by name. Above utilisation RHO_MAX they are linear, because solvers need finite slopes."""

from collections.abc import Callable

import numpy as np

from faro_lib.queueing.constant_service import mdc, mgc
from faro_lib.queueing.formulas import checked, half_mmc, mmc, upper_bound

RHO_MAX = 0.95


def relaxed(
    model: Callable, rate_rps, replicas, service_time_s, quantile, *, rho_max: float = RHO_MAX
) -> np.ndarray:
    """Latency of `model` in seconds. Above utilisation rho_max, it grows in proportion to the utilisation.

    `model` is a latency function of this package. The extension above rho_max is from EuroSys'25,
    section 4.

    >>> bool(np.isfinite(relaxed(half_mmc, 100.0, 1, 0.18, 0.99)))
    True
    """
    if not 0 < rho_max < 1:
        raise ValueError(f"rho_max={rho_max} must lie strictly between 0 and 1")
    rate_rps, replicas, service_time_s, quantile = checked(
        rate_rps, replicas, service_time_s, quantile
    )
    rho = rate_rps * service_time_s / replicas
    stable_rps = np.where(rho > rho_max, rho_max * replicas / service_time_s, rate_rps)
    return model(stable_rps, replicas, service_time_s, quantile) * np.maximum(1.0, rho / rho_max)


def latency(
    model: str, rate_rps, replicas, service_time_s, quantile, *, service_scv=0.0
) -> np.ndarray:
    """Latency quantile in seconds by the formula `model`: half-mmc, mmc, mdc, mgc (uses service_scv) or upper-bound.

    All formulas but the upper bound are `relaxed`. A ValueError names an unknown model.

    >>> float(latency("upper-bound", 10.0, 2, 0.2, 0.99))
    1.0
    """
    if model == "upper-bound":
        return upper_bound(rate_rps, replicas, service_time_s, quantile)
    functions = {
        "half-mmc": half_mmc,
        "mmc": mmc,
        "mdc": mdc,
        "mgc": lambda *a: mgc(*a, service_scv=service_scv),
    }
    if model not in functions:
        raise ValueError(
            f"latency_model={model!r} is not a model; accepted: upper-bound, {', '.join(functions)}"
        )
    return relaxed(functions[model], rate_rps, replicas, service_time_s, quantile)
