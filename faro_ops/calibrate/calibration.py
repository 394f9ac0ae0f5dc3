"""Infer a service's kind of replica and the kind's parameters from measured latencies, with intervals and a verdict.

The kinds serial, concurrent, batched and continuous (`workload.replicas`) are compared by their marginal likelihoods.
For each kind, parameter points are simulated (`predict`) and weighted. Later points are drawn near points of large
weight (`population`). The verdict is NOT_REPRODUCED if no kind fits, TOO_WIDE if the capacity is too uncertain.

    measurements = Measurements(rate_rps, replicas, requests, (("latency", 0.5), ("latency", 0.99)), values)
    calibration = calibrate(measurements, max_ongoing_requests=10)
    if calibration.verdict != CALIBRATED:
        print(calibration.reason)                       # one line: why, and if TOO_WIDE, what to measure next
    job = replace(job, **calibration.service.job_fields)
    for draw in calibration.draws:                      # posterior draws, for an interval of any derived quantity
        job = replace(job, **draw.job_fields)

The logarithms of measured and simulated values are assumed to differ by normal errors, as in a synthetic likelihood
(Wood, 2010). Sampling errors are correlated within a row of measurements. The model's own errors are independent. Their
standard deviation, called discrepancy, is fitted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import softmax

from faro_ops.calibrate.fit import DISCREPANCIES, EXPECTED_DISCREPANCY, Fit
from faro_ops.calibrate.measurements import LATENCY, Column, Measurements
from faro_ops.calibrate.predict import Simulator
from faro_ops.calibrate.priors import PRIORS, CalibratedService, Prior

CALIBRATED, NOT_REPRODUCED, TOO_WIDE = "calibrated", "not reproduced", "too wide"  # verdicts
MAX_DISCREPANCY = (
    0.15  # relative error of the model beyond which a service counts as not reproduced
)
MAX_HALF_WIDTH = (
    0.15  # largest accepted half-width of the 90 % interval of capacity_rps, relative to the median
)
# Among the kinds with at least 1 / STRONG of the largest probability, the one with the fewest parameters is chosen.
STRONG = 10.0  # Bayes factor that counts as strong evidence (Jeffreys, 1961)
OUTLIER = (
    3.0  # largest accepted distance of a measured value from its prediction, in standard deviations
)
ROUNDS = (
    32,
    *(12,) * 18,
)  # points per parameter dimension in each round; the length is the maximum number of rounds
LEAST_ROUNDS, ENOUGH = (
    8,
    40.0,
)  # after 1 + LEAST_ROUNDS rounds, a fit ends if its effective sample size reaches ENOUGH
REQUESTS, TOKEN_REQUESTS = (
    2000,
    500,
)  # simulated requests per row; fewer for `Continuous`, which is slower to simulate
# A kind gets no more points if its best log likelihood is this much below that of the best kind.
HOPELESS = 30.0  # early rounds use a multiple of this limit
DRAWS = 64  # posterior draws in a `Calibration`
INTERVAL = np.array([0.05, 0.5, 0.95])
OTHER_COLUMNS: tuple[Column, ...] = (
    (LATENCY, 0.5),
    (LATENCY, 0.9),
    (LATENCY, 0.99),
)  # suggested if not yet measured
HIGHER_RATE = (
    1.25  # suggested rate to measure, as a multiple of the largest measured rate per replica
)


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """The result of `calibrate`. An interval is the posterior's (5 %, 50 %, 95 %) quantiles."""

    kind: str  # the simplest kind of replica that explains the measurements
    weights: Mapping[str, float]  # posterior probability of each kind; they sum to 1
    service: (
        CalibratedService  # a service of that kind, with the posterior medians as its parameters
    )
    intervals: Mapping[str, np.ndarray]  # parameter -> interval, given that the kind is `kind`
    capacity_rps: (
        np.ndarray
    )  # interval of one replica's largest sustainable rate, with the kinds mixed by `weights`
    draws: tuple[
        CalibratedService, ...
    ]  # equally likely posterior draws, with kinds in proportion to `weights`
    predicted: np.ndarray  # interval of each value that `kind` predicts, shape (rows, columns, 3)
    discrepancy: float  # posterior median of the model's relative error beyond sampling errors
    verdict: str  # CALIBRATED, NOT_REPRODUCED or TOO_WIDE
    reason: str  # one line that says why the verdict is not CALIBRATED, or "" if it is

    def lines(self) -> list[str]:
        """The result as text: the kind, its parameters with 90 % intervals, and the verdict."""
        likely = sorted(self.weights, key=lambda kind: -self.weights[kind])
        kinds = ", ".join(f"{kind} {self.weights[kind]:.2f}" for kind in likely)
        capacity = "{1:.3g} ({0:.3g} to {2:.3g})".format(*self.capacity_rps)
        varying = {
            name: one
            for name, one in self.intervals.items()
            if one[2] > 0 and name != "capacity_rps"
        }
        parameters = [
            f"{name}={one[1]:.3g} ({one[0]:.3g} to {one[2]:.3g})" for name, one in varying.items()
        ]
        return [
            f"replica {self.kind} (probabilities: {kinds}), capacity {capacity} requests/s",
            f"{', '.join(parameters)}; model error {100 * self.discrepancy:.0f} %",
            f"{self.verdict}: {self.reason}" if self.reason else self.verdict,
        ]


def calibrate(
    measurements: Measurements,
    *,
    max_ongoing_requests: int = 10,
    dispatch: str = "least-outstanding",
    kinds: Sequence[str] = tuple(PRIORS),
    tokens: Mapping[str, Any] | None = None,
    max_overhead_s: float = 0.0,
    overhead_probability: float = 1.0,
    seed: int = 1,
    attempts: int = 2,
) -> Calibration:
    """Infer the kind of replica that explains the measurements, its parameters with 90 % intervals, and a verdict.

    Parameters
    ----------
    max_ongoing_requests, dispatch : configured request limit per replica and load balancing (fields of `ServingModel`).
    kinds : the kinds of replica to compare, keys of PRIORS.
    tokens : fields of `Continuous` by name, at least output_tokens and prompt_tokens. If None, continuous is left out.
    max_overhead_s : upper bound of the fitted constant overhead per request outside the replicas; 0 = no overhead.
    overhead_probability : prior probability that there is an overhead.
    attempts : number of searches, each with different random numbers, before a service counts as not reproduced.
    """
    extended = _with_values_to_measure(measurements)
    tokens = (
        {"max_tokens": 2048.0} | {name: float(value) for name, value in tokens.items()}
        if tokens
        else {}
    )
    latencies = measurements.values[
        :, [quantity == LATENCY for quantity, _ in measurements.columns]
    ]
    typical_s = [np.nanmedian(row) for row in latencies if np.isfinite(row).any()]
    if not typical_s:
        raise ValueError(f"no value of {LATENCY!r} was measured; at least one is needed")
    scale_s = float(min(typical_s))
    fits: list[Fit] = []
    for kind in kinds:
        if (kind != "continuous" or tokens) and (kind == "serial" or max_ongoing_requests > 1):
            requests = TOKEN_REQUESTS if kind == "continuous" else REQUESTS
            simulator = Simulator(extended, dispatch, max_ongoing_requests, tokens, requests, seed)
            prior = Prior(
                kind, scale_s, max_ongoing_requests, tokens, max_overhead_s, overhead_probability
            )
            fits.append(Fit(prior, simulator, extended, seed))
    if not fits:
        raise ValueError(
            f"kinds={list(kinds)}: none is possible with max_ongoing_requests={max_ongoing_requests}"
        )
    refined = fits
    for done, points in enumerate(ROUNDS):
        for fit in refined:
            if done <= LEAST_ROUNDS or 1 / (fit.weights**2).sum() < ENOUGH:
                fit.draw(points * fit.prior.dimensions)
        best = max(fits, key=lambda fit: fit.log_likelihood.max())
        lowest = best.log_likelihood.max() - HOPELESS * max(1, LEAST_ROUNDS - done)
        refined = [fit for fit in refined if fit.log_likelihood.max() > lowest]
    for fit in fits:  # recompute all likelihoods with the best fit's sampling errors, to make the kinds comparable
        fit.population.weigh(fit.score(best.errors))
    answer = _answer(measurements, extended, fits, seed)
    if answer.verdict != NOT_REPRODUCED or attempts == 1:
        return answer
    again = calibrate(
        measurements,
        max_ongoing_requests=max_ongoing_requests,
        dispatch=dispatch,
        kinds=kinds,
        tokens=tokens or None,
        max_overhead_s=max_overhead_s,
        overhead_probability=overhead_probability,
        seed=seed + 1,
        attempts=attempts - 1,
    )
    return again if again.verdict != NOT_REPRODUCED else answer


def _answer(
    measurements: Measurements, extended: Measurements, fits: list[Fit], seed: int
) -> Calibration:
    """The `Calibration` from the fits of all kinds: the kind chosen, posterior intervals, and the verdict."""
    weights = softmax([fit.population.log_evidence for fit in fits])
    fewest = sorted(zip(fits, weights), key=lambda one: one[0].prior.dimensions)
    chosen = next(fit for fit, weight in fewest if STRONG * weight >= weights.max())
    of_points = chosen.weights
    parameters = [service.parameters() for service in chosen.services]
    intervals = {
        name: _interval(np.array([one[name] for one in parameters]), of_points)
        for name in parameters[0]
    }
    predicted = np.exp(_interval(chosen.predicted, of_points))
    given_point = np.exp(chosen.by_discrepancy - chosen.log_likelihood[:, None])
    discrepancy = float(_interval(DISCREPANCIES, of_points @ given_point)[1])
    everything = np.concatenate([weight * fit.weights for weight, fit in zip(weights, fits)])
    services = [service for fit in fits for service in fit.services]
    capacity = np.array([service.capacity_rps for service in services])
    capacity_rps = _interval(capacity, everything)
    median = _interval(chosen.population.points, of_points)[:, 1]
    rows, columns = measurements.values.shape
    verdict, reason = CALIBRATED, ""
    half_width = (capacity_rps[2] - capacity_rps[0]) / 2 / capacity_rps[1]
    if off := _off(measurements, predicted[:rows, :columns, 1], chosen.errors, discrepancy):
        verdict, reason = NOT_REPRODUCED, f"no kind of replica reproduces the measurements: {off}"
    elif half_width > MAX_HALF_WIDTH:
        every = np.concatenate([fit.predicted for fit in fits])
        verdict, reason = (
            TOO_WIDE,
            (
                f"the capacity of a replica is known to +-{100 * half_width:.0f} % only ({capacity_rps[0]:.3g} to "
                f"{capacity_rps[2]:.3g} requests/s), more than {100 * MAX_HALF_WIDTH:.0f} %; measure "
                f"{_next(extended, np.log(capacity), every, everything, chosen.errors)}"
            ),
        )
    drawn = np.random.default_rng(seed).choice(
        len(services), size=DRAWS, p=everything / everything.sum()
    )
    return Calibration(
        kind=chosen.prior.kind,
        weights={fit.prior.kind: float(weight) for fit, weight in zip(fits, weights)},
        service=chosen.prior.service(median),
        intervals=intervals,
        capacity_rps=capacity_rps,
        draws=tuple(services[n] for n in drawn),
        predicted=predicted[:rows, :columns],
        discrepancy=discrepancy,
        verdict=verdict,
        reason=reason,
    )


def _off(
    measurements: Measurements, predicted: np.ndarray, errors: np.ndarray, discrepancy: float
) -> str:
    """Describe the measured value that is farthest from its prediction. Return "" if all values are reproduced.

    They are reproduced if `discrepancy` <= MAX_DISCREPANCY and none is more than OUTLIER standard deviations away.
    """
    rows, columns = predicted.shape
    variances = np.diagonal(errors, axis1=1, axis2=2)[:rows, :columns]
    apart = np.abs(np.log(measurements.values / predicted)) / np.sqrt(
        variances + MAX_DISCREPANCY**2
    )
    if discrepancy <= MAX_DISCREPANCY and not np.nanmax(apart) > OUTLIER:
        return ""
    row, column = np.unravel_index(np.nanargmax(apart), apart.shape)
    named, value = (
        _named(measurements, int(row), measurements.columns[column]),
        measurements.values[row, column],
    )
    return f"{named} is {value:.4g}, predicted {predicted[row, column]:.4g}"


def _next(
    extended: Measurements,
    target: np.ndarray,
    predicted: np.ndarray,
    weights: np.ndarray,
    errors: np.ndarray,
) -> str:
    """Name the value whose measurement most reduces the variance of `target`, the log capacity of each parameter point.

    Let q be the points' predictions of a value and s^2 the variance of its error (sampling plus discrepancy). A linear
    regression of `target` on the measured value reduces the variance by cov(target, q)^2 / (var(q) + s^2).
    """
    apart, target = predicted - np.tensordot(weights, predicted, 1), target - weights @ target
    covariance, variance = (
        np.tensordot(weights * target, apart, 1),
        np.tensordot(weights, apart**2, 1),
    )
    explained = covariance**2 / (
        variance + np.diagonal(errors, axis1=1, axis2=2) + EXPECTED_DISCREPANCY**2
    )
    explained[np.isfinite(extended.values)] = 0.0
    row, column = np.unravel_index(explained.argmax(), explained.shape)
    return _named(extended, int(row), extended.columns[column])


def _with_values_to_measure(measurements: Measurements) -> Measurements:
    """The measurements plus NaN for values that could also be measured: OTHER_COLUMNS and a row at a higher rate."""
    more = tuple(column for column in OTHER_COLUMNS if column not in measurements.columns)
    return Measurements(
        np.append(
            measurements.rate_rps,
            HIGHER_RATE * (measurements.rate_rps / measurements.replicas).max(),
        ),
        np.append(measurements.replicas, 1),
        np.append(measurements.requests, int(np.median(measurements.requests))),
        (*measurements.columns, *more),
        np.pad(measurements.values, ((0, 1), (0, len(more))), constant_values=np.nan),
        np.append(measurements.periods, 1),
    )


def _interval(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(5 %, 50 %, 95 %) quantiles over the first axis of values (points, ...), shape (..., 3)."""
    return np.moveaxis(
        np.quantile(values, INTERVAL, axis=0, weights=weights, method="inverted_cdf"), 0, -1
    )


def _named(measurements: Measurements, row: int, column: Column) -> str:
    quantity, level = column
    of = "mean" if level is None else f"p{100 * level:g}"
    replicas = measurements.replicas[row]
    at = f"{measurements.rate_rps[row]:.3g} requests/s on {replicas} replica{'s' if replicas > 1 else ''}"
    return f"the {of} {quantity.replace('_', ' ')} at {at}"
