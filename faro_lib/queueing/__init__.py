"""Latency quantiles of queues by arrival rate and replica count, which are arrays that broadcast.

>>> float(half_mmc(10.0, 4, 0.180, 0.99).round(3))
0.284
"""

from faro_lib.queueing.constant_service import mdc, mgc
from faro_lib.queueing.formulas import erlang_c, half_mmc, mmc, mmc_wait, upper_bound
from faro_lib.queueing.latency_models import (
    RHO_MAX,
    Formula,
    LatencyModel,
    ModelLike,
    latency,
    model_of,
    relaxed,
    utility_of,
)
from faro_lib.queueing.latency_table import LatencyTable, latency_class

__all__ = [
    "RHO_MAX",
    "Formula",
    "LatencyModel",
    "LatencyTable",
    "ModelLike",
    "erlang_c",
    "half_mmc",
    "latency",
    "latency_class",
    "mdc",
    "mgc",
    "mmc",
    "mmc_wait",
    "model_of",
    "relaxed",
    "upper_bound",
    "utility_of",
]
