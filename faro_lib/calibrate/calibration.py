"""The calibrator: from measured latencies to a kind of replica and its parameters, with intervals, or a refusal.

For each kind, a population of parameter points is simulated (`predict`), weighted by its likelihood and refined around
the best points (`population`). The marginal likelihoods of the kinds are compared; a verdict says whether the service can
be reproduced, and how well its parameters are known.

    measurements = Measurements(rate_rps, replicas, requests, (("latency", 0.5), ("latency", 0.99)), values)
    calibration = calibrate(measurements, max_ongoing_requests=10)
    if calibration.verdict != CALIBRATED: print(calibration.reason)   # one line, what is off and what to measure
    job = replace(job, **calibration.job_fields)                      # replica, service_time_s, service_scv
    for one in calibration.draws: ...                                 # posterior draws, for an interval of what follows
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from faro_lib.calibrate.measurements import Measurements

CALIBRATED, NOT_REPRODUCED, TOO_WIDE = "calibrated", "not reproduced", "too wide"  # verdicts


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """The answer of `calibrate`. An interval is (5 %, 50 %, 95 %) of the posterior of the chosen kind."""

    kind: str
    weights: Mapping[str, float]  # posterior probability of each kind; they sum to 1
    job_fields: Mapping[str, Any]  # fields of `Job` at the posterior medians: replica, service_time_s, service_scv
    overhead_s: float  # posterior median of the constant time outside the replicas
    intervals: Mapping[str, tuple[float, float, float]]  # parameter -> interval; also capacity_rps of one replica
    draws: tuple[Mapping[str, Any], ...]  # equally likely draws of (job_fields | {"overhead_s": ...})
    predicted: np.ndarray  # interval of each measured value under the posterior, shape (rows, columns, 3)
    discrepancy: float  # posterior median of the model's relative error beyond sampling errors
    verdict: str  # CALIBRATED, NOT_REPRODUCED or TOO_WIDE
    reason: str  # one line: why it was refused and what to measure; "" if calibrated


def calibrate(
    measurements: Measurements,
    *,
    max_ongoing_requests: int = 10,
    dispatch: str = "least-outstanding",
    kinds: tuple[str, ...] = ("serial", "concurrent", "batched", "continuous"),
    tokens: Mapping[str, float] | None = None,
    max_overhead_s: float = 0.0,
    seed: int = 1,
) -> Calibration:
    """The kind of replica that explains the measurements, its parameters with 90 % intervals, and a verdict.

    Parameters
    ----------
    max_ongoing_requests, dispatch : as of `ServingModel`; known from the configuration of the service.
    kinds : the kinds to compare.
    tokens : prompt_tokens, prompt_cv, output_tokens and output_cv of the requests; the kind continuous needs them and is
        left out without.
    max_overhead_s : upper bound of a constant time per request outside the replicas, which is fitted; 0 = there is none.
    """
    raise NotImplementedError
