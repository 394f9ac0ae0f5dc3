"""Infer a service's kind of replica and its parameters from latencies, with a verdict.

The kinds serial, concurrent, batched and continuous (`workload.replicas`) are compared by their
marginal likelihoods. For each kind, parameter points are simulated (`predict`) and weighted. Later
points are drawn near points of large weight (`population`). The verdict is NOT_REPRODUCED if no
kind fits, TOO_WIDE if the capacity is too uncertain.

    columns = (("latency", 0.5), ("latency", 0.99))
    measurements = Measurements(rate_rps, replicas, requests, columns, values)
    calibration = calibrate(measurements, max_ongoing_requests=10)
    if calibration.verdict != CALIBRATED:
        print(calibration.reason)     # one line: why, and if TOO_WIDE, what to measure next
    job = replace(job, **calibration.service.job_fields)
    for draw in calibration.draws:    # posterior draws, for an interval of any derived quantity
        job = replace(job, **draw.job_fields)

The logarithms of measured and simulated values are assumed to differ by normal errors, as in a
synthetic likelihood (Wood, 2010). Sampling errors are correlated within a row of measurements. The
model's own errors are independent. Their standard deviation, called discrepancy, is fitted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from scipy.special import softmax

from faro_ops.advise.calibrate.fit import DISCREPANCIES, EXPECTED_DISCREPANCY, Fit
from faro_ops.advise.calibrate.measurements import LATENCY, Column, Measurements
from faro_ops.advise.calibrate.predict import Simulator
from faro_ops.advise.calibrate.priors import PRIORS, CalibratedService, Prior

CALIBRATED, NOT_REPRODUCED, TOO_WIDE = "calibrated", "not reproduced", "too wide"  # verdicts
# Relative error of the model beyond which a service counts as not reproduced.
MAX_DISCREPANCY = 0.15
# Largest accepted half-width of the 90 % interval of capacity_rps, relative to the median.
MAX_HALF_WIDTH = 0.15
# Among the kinds with at least 1 / STRONG of the largest probability, the one with the fewest
# parameters is chosen.
STRONG = 10.0  # Bayes factor that counts as strong evidence (Jeffreys, 1961)
# Largest accepted distance of a measured value from its prediction, in standard deviations.
OUTLIER = 3.0
# Points per parameter dimension in each round. The length is the maximum number of rounds.
ROUNDS = (32, *(12,) * 18)
# After 1 + LEAST_ROUNDS rounds, a fit ends if its effective sample size reaches ENOUGH.
LEAST_ROUNDS, ENOUGH = 8, 40.0
# Simulated requests per row; fewer for `Continuous`, which is slower to simulate.
REQUESTS, TOKEN_REQUESTS = 2000, 500
# A kind gets no more points if its best log likelihood is this much below that of the best kind.
# Early rounds use a multiple of this limit.
HOPELESS = 30.0
DRAWS = 64  # posterior draws in a `Calibration`
INTERVAL = np.array([0.05, 0.5, 0.95])
# Suggested as the next to measure, if not measured yet: these columns, and a rate that is this
# multiple of the largest measured rate per replica.
OTHER_COLUMNS: tuple[Column, ...] = ((LATENCY, 0.5), (LATENCY, 0.9), (LATENCY, 0.99))
HIGHER_RATE = 1.25


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """The result of `calibrate`. An interval is the posterior's (5 %, 50 %, 95 %) quantiles."""

    kind: str  # the simplest kind of replica that explains the measurements
    weights: Mapping[str, float]  # posterior probability of each kind; they sum to 1
    service: CalibratedService  # of that kind, with the posterior medians as its parameters
    intervals: Mapping[str, np.ndarray]  # parameter -> interval, given that the kind is `kind`
    # Interval of one replica's largest sustainable rate, with the kinds mixed by `weights`.
    capacity_rps: np.ndarray
    # Equally likely posterior draws, with kinds in proportion to `weights`.
    draws: tuple[CalibratedService, ...]
    predicted: np.ndarray  # interval of each value that `kind` predicts, shape (rows, columns, 3)
    discrepancy: float  # posterior median of the model's relative error beyond sampling errors
    verdict: str  # CALIBRATED, NOT_REPRODUCED or TOO_WIDE
    reason: str  # one line that says why the verdict is not CALIBRATED, or "" if it is

    @property
    def service_time_error(self) -> float:
        """Relative standard error of the busy time of a request, with the model's own error.

        A factor on all times of a replica divides its capacity, whose 90 % interval is known.
        """
        low, middle, high = self.capacity_rps
        standard_error = (high - low) / middle / (2 * NormalDist().inv_cdf(INTERVAL[-1]))
        return float(np.hypot(standard_error, self.discrepancy))

    def lines(self) -> list[str]:
        """The result as text: the kind, its parameters with 90 % intervals, and the verdict."""
        likely = sorted(self.weights, key=lambda kind: -self.weights[kind])
        kinds = ", ".join(f"{kind} {self.weights[kind]:.2f}" for kind in likely)
        capacity = "{1:.3g} ({0:.3g} to {2:.3g})".format(*self.capacity_rps)
        parameters = [
            f"{name}={middle:.3g} ({low:.3g} to {high:.3g})"
            for name, (low, middle, high) in self.intervals.items()
            if high > 0 and name != "capacity_rps"
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
    """Infer the kind of replica that explains the measurements, and its parameters.

    The parameters have 90 % intervals, and the result has a verdict.

    Parameters
    ----------
    max_ongoing_requests, dispatch : configured request limit per replica and load balancing (fields
        of `ServingModel`).
    kinds : the kinds of replica to compare, keys of PRIORS.
    tokens : fields of `Continuous` by name, at least output_tokens and prompt_tokens. If None,
        continuous is left out.
    max_overhead_s : upper bound of the fitted constant overhead per request outside the replicas;
        0 = no overhead.
    overhead_probability : prior probability that there is an overhead.
    attempts : number of searches, each with different random numbers, before a service counts as
        not reproduced.
    """
    extended = _with_values_to_measure(measurements)
    of_tokens: dict[str, float] = {}
    if tokens:
        of_tokens = {"max_tokens": 2048.0} | {name: float(tokens[name]) for name in tokens}
    scale_s = _typical_s(measurements)
    fits: list[Fit] = []
    for kind in kinds:
        if kind == "continuous" and not of_tokens:
            continue
        if kind != "serial" and max_ongoing_requests <= 1:
            continue
        requests = TOKEN_REQUESTS if kind == "continuous" else REQUESTS
        simulator = Simulator(extended, dispatch, max_ongoing_requests, of_tokens, requests, seed)
        prior = Prior(
            kind, scale_s, max_ongoing_requests, of_tokens, max_overhead_s, overhead_probability
        )
        fits.append(Fit(prior, simulator, extended, seed))
    if not fits:
        problem = f"none is possible with max_ongoing_requests={max_ongoing_requests}"
        raise ValueError(f"kinds={list(kinds)}: {problem}")
    _search(fits)
    answer = _answer(measurements, extended, fits, seed)
    if answer.verdict != NOT_REPRODUCED or attempts == 1:
        return answer
    again = calibrate(
        measurements,
        max_ongoing_requests=max_ongoing_requests,
        dispatch=dispatch,
        kinds=kinds,
        tokens=tokens,
        max_overhead_s=max_overhead_s,
        overhead_probability=overhead_probability,
        seed=seed + 1,
        attempts=attempts - 1,
    )
    return again if again.verdict != NOT_REPRODUCED else answer


def _typical_s(measurements: Measurements) -> float:
    """The smallest of the rows' median latencies; ValueError if no latency was measured."""
    is_latency = [quantity == LATENCY for quantity, _ in measurements.columns]
    latencies = measurements.values[:, is_latency]  # (rows, columns of latencies)
    medians = [np.nanmedian(row) for row in latencies if np.isfinite(row).any()]
    if not medians:
        raise ValueError(f"no value of {LATENCY!r} was measured; at least one is needed")
    return float(min(medians))


def _search(fits: list[Fit]) -> None:
    """Draw the points of all kinds, in rounds. A kind that fits too badly gets no more points."""
    refined = fits
    for done, points in enumerate(ROUNDS):
        for fit in refined:
            if done <= LEAST_ROUNDS or 1 / (fit.weights**2).sum() < ENOUGH:
                fit.draw(points * fit.prior.dimensions)
        best = max(fits, key=lambda fit: fit.log_likelihood.max())
        lowest = best.log_likelihood.max() - HOPELESS * max(1, LEAST_ROUNDS - done)
        refined = [fit for fit in refined if fit.log_likelihood.max() > lowest]
    # With the best fit's sampling errors in all likelihoods, the kinds are comparable.
    for fit in fits:
        fit.population.weigh(fit.score(best.errors))


def _answer(
    measurements: Measurements, extended: Measurements, fits: list[Fit], seed: int
) -> Calibration:
    """The `Calibration` from the fits of all kinds: the kind chosen, intervals and verdict."""
    weights = softmax([fit.population.log_evidence for fit in fits])  # (kinds,)
    fewest = sorted(zip(fits, weights), key=lambda one: one[0].prior.dimensions)
    chosen = next(fit for fit, weight in fewest if STRONG * weight >= weights.max())
    # Of the chosen kind:
    of_points = chosen.weights  # (points,)
    parameters = [service.parameters() for service in chosen.services]
    intervals = {
        name: _interval(np.array([one[name] for one in parameters]), of_points)
        for name in parameters[0]
    }
    median = _interval(chosen.population.points, of_points)[:, 1]  # (dimensions,)
    rows, columns = measurements.values.shape
    predicted = np.exp(_interval(chosen.predicted, of_points))[:rows, :columns]
    given_point = np.exp(chosen.by_discrepancy - chosen.log_likelihood[:, None])
    discrepancy = float(_interval(DISCREPANCIES, of_points @ given_point)[1])
    # Of all kinds together:
    services = [service for fit in fits for service in fit.services]
    of_services = np.concatenate([weight * fit.weights for weight, fit in zip(weights, fits)])
    capacity = np.array([service.capacity_rps for service in services])  # (services,)
    capacity_rps = _interval(capacity, of_services)
    rng = np.random.default_rng(seed)
    drawn = rng.choice(len(services), size=DRAWS, p=of_services / of_services.sum())

    verdict, reason = CALIBRATED, ""
    low, middle, high = capacity_rps
    half_width = (high - low) / 2 / middle
    if off := _off(measurements, predicted[..., 1], chosen.errors, discrepancy):
        verdict = NOT_REPRODUCED
        reason = f"no kind of replica reproduces the measurements: {off}"
    elif half_width > MAX_HALF_WIDTH:
        verdict = TOO_WIDE
        every = np.concatenate([fit.predicted for fit in fits])  # (services, rows, columns)
        to_measure = _next(extended, np.log(capacity), every, of_services, chosen.errors)
        known = f"+-{100 * half_width:.0f} % only ({low:.3g} to {high:.3g} requests/s)"
        limit = f"{100 * MAX_HALF_WIDTH:.0f} %"
        reason = (
            f"the capacity of a replica is known to {known}, more than {limit}; "
            f"measure {to_measure}"
        )
    return Calibration(
        kind=chosen.prior.kind,
        weights={fit.prior.kind: float(weight) for fit, weight in zip(fits, weights)},
        service=chosen.prior.service(median),
        intervals=intervals,
        capacity_rps=capacity_rps,
        draws=tuple(services[n] for n in drawn),
        predicted=predicted,
        discrepancy=discrepancy,
        verdict=verdict,
        reason=reason,
    )


def _off(
    measurements: Measurements, predicted: np.ndarray, errors: np.ndarray, discrepancy: float
) -> str:
    """Describe the measured value that is farthest from its prediction; "" if all are reproduced.

    They are reproduced if `discrepancy` <= MAX_DISCREPANCY and none is more than OUTLIER standard
    deviations away.
    """
    rows, columns = predicted.shape
    variances = np.diagonal(errors, axis1=1, axis2=2)[:rows, :columns]
    deviations = np.sqrt(variances + MAX_DISCREPANCY**2)  # (rows, columns)
    apart = np.abs(np.log(measurements.values / predicted)) / deviations
    if discrepancy <= MAX_DISCREPANCY and not np.nanmax(apart) > OUTLIER:
        return ""
    row, column = np.unravel_index(np.nanargmax(apart), apart.shape)
    named = _named(measurements, int(row), measurements.columns[column])
    value = measurements.values[row, column]
    return f"{named} is {value:.4g}, predicted {predicted[row, column]:.4g}"


def _next(
    extended: Measurements,
    target: np.ndarray,
    predicted: np.ndarray,
    weights: np.ndarray,
    errors: np.ndarray,
) -> str:
    """Name the value whose measurement most reduces the variance of `target`, the log capacity.

    Let q be the points' predictions of a value and s^2 the variance of its error (sampling plus
    discrepancy). A linear regression of `target` on the measured value reduces the variance by
    cov(target, q)^2 / (var(q) + s^2).

    Parameters
    ----------
    target, weights : log capacity and posterior weight of each point, shape (points,).
    predicted : logarithms of the predicted values, shape (points, rows, columns).
    errors : covariance of the sampling errors, shape (rows, columns, columns).
    """
    target = target - weights @ target
    predicted = predicted - np.tensordot(weights, predicted, 1)
    covariance = np.tensordot(weights * target, predicted, 1)  # (rows, columns)
    variance = np.tensordot(weights, predicted**2, 1)
    sampling = np.diagonal(errors, axis1=1, axis2=2)
    explained = covariance**2 / (variance + sampling + EXPECTED_DISCREPANCY**2)
    explained[np.isfinite(extended.values)] = 0.0
    row, column = np.unravel_index(explained.argmax(), explained.shape)
    return _named(extended, int(row), extended.columns[column])


def _with_values_to_measure(measurements: Measurements) -> Measurements:
    """The measurements, plus NaN for values that could also be measured.

    These are OTHER_COLUMNS, and a row for one replica at a higher rate.
    """
    more = tuple(column for column in OTHER_COLUMNS if column not in measurements.columns)
    rate_rps = HIGHER_RATE * (measurements.rate_rps / measurements.replicas).max()
    return Measurements(
        np.append(measurements.rate_rps, rate_rps),
        np.append(measurements.replicas, 1),
        np.append(measurements.requests, int(np.median(measurements.requests))),
        (*measurements.columns, *more),
        np.pad(measurements.values, ((0, 1), (0, len(more))), constant_values=np.nan),
        np.append(measurements.periods, 1),
    )


def _interval(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(5 %, 50 %, 95 %) quantiles over the first axis of values (points, ...), shape (..., 3)."""
    quantiles = np.quantile(values, INTERVAL, axis=0, weights=weights, method="inverted_cdf")
    return np.moveaxis(quantiles, 0, -1)


def _named(measurements: Measurements, row: int, column: Column) -> str:
    quantity, level = column
    of = "mean" if level is None else f"p{100 * level:g}"
    replicas = measurements.replicas[row]
    on = f"{replicas} replica{'s' if replicas > 1 else ''}"
    rate = f"{measurements.rate_rps[row]:.3g} requests/s"
    return f"the {of} {quantity.replace('_', ' ')} at {rate} on {on}"
