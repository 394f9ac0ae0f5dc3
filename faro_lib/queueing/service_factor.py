"""How much slower or faster a service is than assumed: a posterior of the factor on its times.

If all service times of a job are f times as long as assumed, time runs f times slower for it. At
rate r, it has f times the latency that the assumed service has at rate f r. So one latency model
describes the job at every factor, and nothing is measured again. (The router's time and the length
of a minute do not scale; docs/learning.md has the error.)

The posterior is a histogram over FACTORS. Each minute, the factor may drift or change, and then the
minute's latency multiplies the histogram by its likelihood: a discrete Bayes filter.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr

from faro_lib.queueing.latency_models import LatencyModel
from faro_lib.workload import Job
from faro_lib.workload.jobs import MINUTE_S

STEP = 0.05  # between the logarithms of two factors
FACTORS = np.exp(STEP * np.arange(-28, 29))  # 0.25 to 4
# Standard deviation of log(observed / predicted latency) of a minute, besides the differences
# between the minutes of a measured table.
MODEL_ERROR = 0.1
# Probability of a minute that no factor explains, such as one with requests of another kind, and
# the density of its log latency.
OUTLIER = 0.02
OUTLIER_DENSITY = 0.2
BUSY_ERROR = 0.05  # standard deviation of log(measured / true busy seconds per request)
# Density of measurements that are wrong. They are far rarer than latencies that no factor explains,
# so a minute's busy seconds outweigh its latency.
BUSY_OUTLIER = 1e-5
SLACK = 2.0  # standard errors by which a factor may exceed what the served requests allow


def prior(relative_error: np.ndarray) -> np.ndarray:
    """Posterior (jobs, factors) before any observation: lognormal around 1.

    `relative_error` (jobs,) is the standard deviation of the log factor, >= 0.
    """
    spread = np.maximum(relative_error, STEP / 2)[:, None]
    return normalised(np.exp(-0.5 * (np.log(FACTORS) / spread) ** 2))


def normalised(weight: np.ndarray) -> np.ndarray:
    """The weights (jobs, factors) with sum 1 for each job."""
    return weight / weight.sum(axis=1, keepdims=True)


def drifted(weight: np.ndarray, drift: float, change: np.ndarray) -> np.ndarray:
    """The posterior one minute later, (jobs, factors).

    The log factor makes a random step with standard deviation `drift`. With probability `change`
    (jobs,), it becomes any of FACTORS.
    """
    moves = min(0.5, (drift / STEP) ** 2 / 2)  # probability of one step up, and of one step down
    padded = np.pad(weight, ((0, 0), (1, 1)), mode="edge")
    stepped = (1 - 2 * moves) * weight + moves * (padded[:, :-2] + padded[:, 2:])
    change = change[:, None]
    return normalised((1 - change) * stepped + change / len(FACTORS))


def likelihood(
    model: LatencyModel,
    jobs: Sequence[Job],
    rate_rps: np.ndarray,
    replicas: np.ndarray,
    tail_latency_s: np.ndarray,
) -> np.ndarray:
    """Likelihood of a minute's latency quantiles at each factor, (jobs, factors).

    Parameters
    ----------
    rate_rps : (jobs,) requests per second that arrived in the minute and were not refused.
    replicas : (jobs,) replicas that served.
    tail_latency_s : (jobs,) > 0, latency at each job's quantile; inf if too many requests were
        dropped.

    """
    predicted_s = model.minutes_s(jobs, rate_rps[:, None] * FACTORS, replicas[:, None])
    predicted_s = predicted_s * FACTORS[:, None]
    lost = np.isinf(tail_latency_s)
    observed = np.log(np.where(lost, 1.0, tail_latency_s))[:, None, None]
    deviation = (observed - np.log(predicted_s)) / MODEL_ERROR  # -inf where all is lost
    density = np.exp(-0.5 * deviation**2) / (MODEL_ERROR * np.sqrt(2 * np.pi))
    of_served = (1 - OUTLIER) * density.mean(axis=2) + OUTLIER * OUTLIER_DENSITY
    of_lost = (1 - OUTLIER) * np.isinf(predicted_s).mean(axis=2) + OUTLIER
    return np.where(lost[:, None], of_lost, of_served)


def work_likelihood(
    saturated_s: np.ndarray, served_per_min: np.ndarray, replicas: np.ndarray
) -> np.ndarray:
    """Likelihood that the replicas could serve so many requests in a minute, (jobs, factors).

    Replicas do not serve more work than their time: served requests x factor x saturated_s <=
    replicas x 60 s. So the counts of a minute are an upper bound on the factor, whatever happened
    to its other requests. The bound is soft by MODEL_ERROR and by the randomness of the work, and
    lies SLACK of these errors above the counted work, because the error of a model is the same in
    all minutes of a service.

    Parameters
    ----------
    saturated_s : (jobs,) seconds per request at factor 1 (`LatencyModel.saturated_s`).
    served_per_min : (jobs,) requests that were served in the minute; NaN or 0 tells nothing.
    replicas : (jobs,) largest number of replicas that served in the minute.

    """
    tells = (served_per_min > 0) & (replicas > 0)
    served = np.where(tells, served_per_min, 1.0)
    most = np.where(tells, replicas, 1.0) * MINUTE_S / (served * saturated_s)  # the largest factor
    error = np.hypot(MODEL_ERROR, 1 / np.sqrt(served))
    possible = ndtr(SLACK + (np.log(most)[:, None] - np.log(FACTORS)) / error[:, None])
    return np.where(tells[:, None], (1 - OUTLIER) * possible + OUTLIER, 1.0)


def busy_likelihood(
    saturated_s: np.ndarray, busy_s: np.ndarray, served_per_min: np.ndarray
) -> np.ndarray:
    """Likelihood of the busy seconds per request that were measured, (jobs, factors).

    They are factor x saturated_s, whatever the latencies of the minute were: a lognormal density
    with the error BUSY_ERROR of such measurements and the randomness of the requests.

    Parameters
    ----------
    saturated_s : (jobs,) seconds per request at factor 1 (`LatencyModel.saturated_s`).
    busy_s : (jobs,) measured; NaN or 0 tells nothing.
    served_per_min : (jobs,) requests behind them; NaN or 0 tells nothing.

    """
    tells = (busy_s > 0) & (served_per_min > 0)
    ratio = np.where(tells, busy_s, 1.0) / saturated_s
    error = np.hypot(BUSY_ERROR, 1 / np.sqrt(np.where(tells, served_per_min, 1.0)))[:, None]
    deviation = (np.log(ratio)[:, None] - np.log(FACTORS)) / error
    density = np.exp(-0.5 * deviation**2) / (error * np.sqrt(2 * np.pi))
    return np.where(tells[:, None], density + BUSY_OUTLIER, 1.0)


def faded(weight: np.ndarray, towards: np.ndarray, half_life_minutes: float) -> np.ndarray:
    """The posterior (jobs, factors) after a minute that told nothing, a step nearer to `towards`.

    After `half_life_minutes` such minutes, half of the weight is that of `towards`.
    """
    kept = 0.5 ** (1 / half_life_minutes)
    return kept * weight + (1 - kept) * towards


def mean_factor(weight: np.ndarray) -> np.ndarray:
    """Geometric mean of the factor, (jobs,)."""
    return np.exp(weight @ np.log(FACTORS))


def relative_error(weight: np.ndarray) -> np.ndarray:
    """Standard deviation of the log factor, (jobs,)."""
    logs = np.log(FACTORS)
    variance = weight @ logs**2 - (weight @ logs) ** 2
    return np.sqrt(np.maximum(variance, 0.0))


def quantile_factors(weight: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Factors (jobs, probabilities) at these probabilities of the posterior; each in FACTORS."""
    below = weight.cumsum(axis=1)
    index = (below[:, None, :] < probabilities[:, None]).sum(axis=2)
    return FACTORS[np.minimum(index, len(FACTORS) - 1)]
