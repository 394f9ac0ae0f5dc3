"""Infer from latencies how a service's replicas work: serially, in batches, ...

The method is a Bayesian comparison of models.
"""

from faro_ops.advise.calibrate.calibration import (
    CALIBRATED,
    NOT_REPRODUCED,
    TOO_WIDE,
    Calibration,
    calibrate,
)
from faro_ops.advise.calibrate.measurements import (
    FIRST_TOKEN,
    LATENCY,
    PER_TOKEN,
    TOGETHER,
    Measurements,
    requests_together,
)
from faro_ops.advise.calibrate.priors import CalibratedService, tokens_of

__all__ = [
    "CALIBRATED",
    "FIRST_TOKEN",
    "LATENCY",
    "NOT_REPRODUCED",
    "PER_TOKEN",
    "TOGETHER",
    "TOO_WIDE",
    "CalibratedService",
    "Calibration",
    "Measurements",
    "calibrate",
    "requests_together",
    "tokens_of",
]
