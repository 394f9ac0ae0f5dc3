"""The calibrator names the kind of a replica and its parameters, or refuses.

`reference_services` simulates the services.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from examples import SHARE
from reference_services import COLUMNS, SERVICES, found, profiled, recorded

from faro_lib.workload.replicas import SERIAL, Batched
from faro_ops.advise.calibrate import (
    CALIBRATED,
    LATENCY,
    NOT_REPRODUCED,
    TOGETHER,
    TOO_WIDE,
    Measurements,
    calibrate,
)
from faro_ops.advise.calibrate.fit import DISCREPANCIES, log_likelihoods
from faro_ops.advise.calibrate.population import Population
from faro_ops.advise.calibrate.predict import NEVER_S, Simulator
from faro_ops.advise.calibrate.priors import CalibratedService

SERIAL_100_MS, BATCHES_OF_8 = SERVICES[1], SERVICES[9]
WITHIN = 0.15


def answer(known, measurements, **options):
    limit = known.places
    return calibrate(
        measurements,
        max_ongoing_requests=limit,
        dispatch="round-robin",
        tokens=known.tokens,
        **options,
    )


def assert_found(known, calibration):
    assert calibration.kind == known.replica.kind
    assert calibration.verdict == CALIBRATED, calibration.reason
    wrong = {
        name: (value, found(calibration)[name])
        for name, value in known.parameters().items()
        if value and abs(found(calibration)[name] / value - 1) > WITHIN
    }
    assert not wrong


@pytest.mark.slow
@pytest.mark.parametrize("known", [SERIAL_100_MS, BATCHES_OF_8], ids=["serial", "batched"])
def test_the_kind_and_its_parameters_are_found(known):
    other = "concurrent" if known.replica.kind == "serial" else "serial"
    calibration = answer(known, profiled(known), kinds=(known.replica.kind, other))
    assert_found(known, calibration)
    assert sum(calibration.weights.values()) == pytest.approx(1)
    low, _, high = calibration.capacity_rps
    assert low < known.capacity_rps < high


@pytest.mark.study
@pytest.mark.parametrize("known", SERVICES, ids=str)
def test_each_of_sixteen_services_is_found(known):
    """`benchmarks/kinds.py` prints the same as a table.

    docs/replicas.md says which ones are expected to be refused.
    """
    calibration = answer(known, profiled(known))
    assert calibration.kind == known.replica.kind


class TestTailLatencyAlone:
    """Recorded p99 latencies tell a slow service from a variable one if the load varies much."""

    ONLY_TAIL = ((LATENCY, 0.99),)
    RATES = ((1, (0.3, 0.5)), (2, (0.4,)))

    @pytest.mark.parametrize("seed", range(round(8 * SHARE)))
    def test_the_answer_is_right_or_refused(self, seed):
        known = replace(SERVICES[2], requests=600)
        calibration = answer(
            known, recorded(known, self.ONLY_TAIL, self.RATES, seed), kinds=("serial",)
        )
        error = abs(calibration.intervals["service_time_s"][1] / known.service_time_s - 1)
        assert calibration.verdict == TOO_WIDE or error < WITHIN

    def test_the_refusal_names_a_measurement_that_narrows_the_interval(self):
        known = replace(SERVICES[2], requests=600)
        tail = answer(known, recorded(known, self.ONLY_TAIL, self.RATES), kinds=("serial",))
        assert tail.verdict == TOO_WIDE
        assert "measure the p50 latency" in tail.reason
        both = answer(
            known, recorded(known, (*self.ONLY_TAIL, (LATENCY, 0.5)), self.RATES), kinds=("serial",)
        )
        widths = [
            calibration.capacity_rps[2] - calibration.capacity_rps[0]
            for calibration in (tail, both)
        ]
        assert widths[1] < 0.6 * widths[0]
        assert both.verdict == CALIBRATED


@pytest.mark.slow
def test_a_service_whose_replicas_share_a_bottleneck_is_not_reproduced():
    """Two replicas are no faster than one, as behind a lock.

    The values are those of one replica at the total rate.
    """
    known = SERIAL_100_MS
    one = recorded(known, COLUMNS, ((1, (0.3, 0.5, 0.7, 0.85)),))
    locked = Measurements(one.rate_rps, [1, 1, 2, 2], one.requests, one.columns, one.values)
    calibration = answer(known, locked, kinds=("serial", "concurrent"), attempts=1)
    assert calibration.verdict == NOT_REPRODUCED
    assert "on 2 replicas" in calibration.reason
    assert "predicted" in calibration.reason


def test_a_value_that_is_wrong_by_a_factor_of_two_is_named():
    known = SERIAL_100_MS
    wrong = recorded(known, COLUMNS, ((1, (0.3, 0.5, 0.7)), (2, (0.5, 0.7))))
    values = wrong.values.copy()
    values[2, 0] *= 2.5
    calibration = answer(
        known,
        Measurements(wrong.rate_rps, wrong.replicas, wrong.requests, COLUMNS, values),
        kinds=("serial",),
    )
    assert calibration.verdict == NOT_REPRODUCED
    assert (
        f"the p50 latency at {wrong.rate_rps[2]:.3g} requests/s on 1 replica" in calibration.reason
    )


def test_the_sampling_errors_are_those_of_repeated_runs():
    """Simulated errors of the log quantiles of 400 requests, against the spread over 60 runs.

    The queue correlates them.
    """
    known = replace(SERVICES[2], requests=400)
    runs = [recorded(known, COLUMNS, ((1, (0.4, 0.75)),), seed=seed) for seed in range(60)]
    spread = np.std(np.log([run.values for run in runs]), axis=0)
    simulator = Simulator(runs[0], "round-robin", known.places, {}, 8000, seed=1)
    errors = simulator.errors(CalibratedService(SERIAL, known.service_time_s, known.cv**2))
    predicted = np.sqrt(np.diagonal(errors, axis1=1, axis2=2))
    assert np.all(np.abs(np.log(predicted / spread)) < np.log(1.6))
    assert np.all(
        spread[1, :2] > 2 * spread[0, :2]
    )  # near saturation, neighbouring requests are late together


def test_a_period_that_serves_no_request_has_the_longest_latencies(monkeypatch):
    columns = ((LATENCY, None), (LATENCY, 0.5))
    period = Measurements([5.0], [1], [100], columns, [[0.2, 0.1]])
    simulator = Simulator(period, "round-robin", 10, {}, 8000, seed=1)
    monkeypatch.setattr(
        Simulator,
        "_run",
        lambda self, service, draws, runs: {LATENCY: np.full((runs, 9000), np.inf)},
    )
    np.testing.assert_allclose(
        simulator.values(CalibratedService(SERIAL, 0.1, 0.0)), np.log(NEVER_S)
    )


def test_kinds_that_the_limit_of_requests_excludes_are_refused():
    known = SERIAL_100_MS
    measured = recorded(known, COLUMNS, ((1, (0.3, 0.5)),))
    with pytest.raises(
        ValueError, match=r"kinds=\['batched'\]: none is possible with max_ongoing_requests=1"
    ):
        calibrate(measured, kinds=("batched",), max_ongoing_requests=1)


def test_requests_that_end_together_are_a_batch_of_those_that_arrive_while_it_waits():
    """A batch that takes no time has 1 + rate x wait_s requests.

    They are the request that opens it, and those of the next `wait_s`.
    """
    measurements = Measurements(
        [10.0], [1], [1500], ((LATENCY, 0.5), (TOGETHER, None)), [[0.2, 3.0]]
    )
    simulator = Simulator(measurements, "least-outstanding", 100, {}, 6000, seed=1)
    batches = CalibratedService(Batched(50, 0.2, 0.0005, 0.0), 0.001, 0.0)
    assert np.exp(simulator.values(batches))[0, 1] == pytest.approx(1 + 10 * 0.2, rel=0.05)


def test_a_population_has_the_evidence_and_the_moments_of_a_normal_posterior():
    """Prior N(0, 1), observation 1.5 with error 0.5: the answers are known in closed form."""
    points = np.empty((0, 2))

    def log_likelihood(new):
        nonlocal points
        points = np.vstack([points, new])
        return -0.5 * ((points - 1.5) ** 2).sum(axis=1) / 0.25

    population = Population(log_likelihood, 2, np.random.default_rng(1))
    for number in (100, *(60,) * 8):
        population.draw(number)
    weights = np.exp(population.log_weights)
    mean = weights @ population.points / weights.sum()
    variance = weights @ (population.points - mean) ** 2 / weights.sum()
    assert mean == pytest.approx([1.5 / 1.25] * 2, abs=0.06)
    assert variance == pytest.approx([0.2] * 2, rel=0.25)
    assert population.log_evidence == pytest.approx(
        2 * (0.5 * np.log(0.2) - 0.5 * 2.25 / 1.25), abs=0.15
    )


def test_a_value_that_was_not_measured_does_not_change_the_likelihood():
    predicted = np.log(np.array([[[0.1, 0.2]], [[0.1, 0.9]]]))
    errors = np.array([[[0.01, 0.005], [0.005, 0.02]]])
    by_discrepancy = log_likelihoods(predicted, np.array([[0.11, np.nan]]), errors)
    assert by_discrepancy.shape == (2, len(DISCREPANCIES))
    np.testing.assert_allclose(by_discrepancy[0], by_discrepancy[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"columns": (("speed", 0.5),)},
            "column 'speed' is unknown; accepted: latency, first_token, per_token",
        ),
        ({"columns": ((LATENCY, 50.0),)}, "level=50.0 must lie strictly between 0 and 1"),
        ({"replicas": [0]}, "replicas must be > 0 in every row"),
        ({"values": [[-0.1]]}, "values must be finite and > 0 where measured"),
        ({"values": [[np.nan]]}, "at least one must be measured"),
        ({"values": [[0.1, 0.2]]}, r"values has shape \(1, 2\); expected \(1, 1\)"),
    ],
)
def test_measurements_that_cannot_be_are_refused(change, message):
    fields = {
        "rate_rps": [5.0],
        "replicas": [1],
        "requests": [100],
        "columns": ((LATENCY, 0.5),),
        "values": [[0.1]],
    }
    with pytest.raises(ValueError, match=message):
        Measurements(**(fields | change))
