"""Cilantro: its prior, what it learns from observations, and that its error falls."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from observations import observed

from faro_lib.queueing import latency
from faro_lib.simulate import simulate
from faro_lib.workload import Job
from faro_lib.workload.synthetic import synthetic
from studies.paper.cilantro import LOADS, SIZES, Cilantro, LearnedLatency, learn, learning_curve
from studies.tables.prediction_errors import prediction_errors
from studies.tables.run_tables import decisions_frame, minutes_frame

JOB = Job("a")
KIND = JOB.model


def learned(rate_rps, replicas, latency_s):
    many = len(rate_rps)
    return LearnedLatency.prior([KIND]).learn(
        [KIND] * many,
        np.full(many, JOB.slo_s),
        np.array(rate_rps),
        np.array(replicas),
        np.array(latency_s),
    )


def test_the_prior_is_that_a_request_keeps_a_replica_busy_for_one_slo():
    prior = LearnedLatency.prior([KIND])
    assert prior.latency_s(KIND, JOB.slo_s, 3 / JOB.slo_s, 3) == pytest.approx(JOB.slo_s)
    assert prior.latency_s(KIND, JOB.slo_s, 30 / JOB.slo_s, 3) == pytest.approx(10 * JOB.slo_s)


@st.composite
def observations(draw):
    one = st.tuples(
        st.floats(0.01, 200), st.integers(1, 40), st.one_of(st.floats(0.01, 100), st.just(np.inf))
    )
    rows = draw(st.lists(one, min_size=1, max_size=60))
    return [np.array(column) for column in zip(*rows)]


@given(observations())
@settings(deadline=None)
def test_latency_never_falls_with_the_load_and_never_rises_with_the_replicas(rows):
    model = learned(*rows)
    rates_rps = np.geomspace(0.01, 400, 200)
    estimate_s = model.latency_s(KIND, JOB.slo_s, rates_rps[:, None], np.arange(1, 41))
    assert np.isfinite(estimate_s).all()
    assert (np.diff(estimate_s, axis=0) >= -1e-9).all()
    assert (np.diff(model.log_latency, axis=1) <= 1e-9).all()  # at the same load per replica
    assert (np.diff(estimate_s, axis=1) <= 1e-9).all()  # at the same rate


def test_many_observations_outweigh_the_prior():
    # Observations of an M/D/c queue at random loads; the model knows nothing of queues.
    rng = np.random.default_rng(0)
    replicas = rng.choice(SIZES[:6], 4000)
    rates_rps = rng.uniform(0.1, 0.9, 4000) * replicas / JOB.service_time_s
    truth_s = np.array(
        [latency("mdc", rate, c, JOB.service_time_s, 0.99) for rate, c in zip(rates_rps, replicas)]
    )
    model = learned(rates_rps, replicas, truth_s)
    estimate_s = model.latency_s(KIND, JOB.slo_s, rates_rps, replicas)
    assert np.median(np.abs(np.log(estimate_s / truth_s))) < 0.1  # about the width of a cell


def test_low_latency_at_a_high_load_lowers_the_estimate_at_all_lower_loads():
    model = learned([5.0] * 20, [1] * 20, [0.3] * 20)
    assert (model.latency_s(KIND, JOB.slo_s, np.array([1.5, 3.0, 4.5]), 1) < JOB.slo_s).all()


def minute_with(**fields):
    fields = {"arrivals_per_min": np.array([[120.0]]), "tail_latency_s": np.array([0.4])} | fields
    return observed([2], **fields)


@pytest.mark.parametrize(
    ("minute", "learns"),
    [
        (minute_with(), True),
        (minute_with(tail_latency_s=np.array([np.inf])), True),  # drops are informative
        (minute_with(arrivals_per_min=np.array([[np.nan]])), False),
        (minute_with(tail_latency_s=np.array([np.nan])), False),
        (minute_with(arrivals_per_min=np.array([[0.0]])), False),
        (minute_with(changing=[True]), False),
    ],
)
def test_it_learns_only_from_complete_data_at_a_constant_replica_count(minute, learns):
    state = learn(Cilantro().start((JOB,)), minute)
    assert state.model.count.sum() == (1 if learns else 0)


def test_it_does_not_learn_from_a_minute_in_which_the_replicas_changed():
    state = replace(Cilantro().start((JOB,)), running=np.array([1]))
    assert learn(state, minute_with()).model.count.sum() == 0


def test_a_job_of_unknown_load_keeps_its_replicas():
    jobs = (Job("a"), Job("b"))
    observation = observed(
        [3, 3],
        capacity=9,
        arrivals_per_min=np.array([[np.nan], [1200.0]]),
        tail_latency_s=np.array([0.3, 0.9]),
    )
    _, plan = Cilantro().decide(Cilantro().start(jobs), observation)
    assert plan.target.tolist() == [3, 6]
    assert np.isnan(plan.predicted_tail_latency_s[0])


def test_a_missing_load_is_the_last_known_one_not_zero():
    state, plans = Cilantro().start((Job("a"), Job("b"))), []
    for minute, count in ((1, 600.0), (2, np.nan), (3, 0.0)):
        counts = np.array([[count], [600.0]])
        overloaded = dict(arrivals_per_min=counts, tail_latency_s=np.array([2.0, 2.0]))
        observation = observed([3, 3], capacity=9, minute=minute, now_s=60.0 * minute, **overloaded)
        state, plan = Cilantro().decide(state, observation)
        plans.append(plan.target.tolist())
    assert plans[0][0] > 1
    assert plans[1][0] == plans[0][0]
    assert plans[2][0] == 1


@pytest.fixture(scope="module")
def runs():
    day = synthetic(seed=1).workload()
    return [simulate(day, Cilantro(), 36, seed) for seed in (24, 32)]


@pytest.mark.slow
def test_the_error_on_another_trial_falls_during_the_run(runs):
    curve = learning_curve(*runs, after_minutes=(0, 15, 60, 360))
    error = curve.log_error.to_numpy()
    assert (np.diff(error) < 0).all()
    assert error[-1] < error[0] / 4
    assert curve.observations.is_monotonic_increasing


@pytest.mark.slow
def test_predictions_are_better_in_the_second_hour_than_in_the_first_minutes(runs):
    run = runs[0]
    errors = prediction_errors(decisions_frame(run), minutes_frame(run), run.workload.jobs)
    first, second_hour = errors[errors.minute < 15], errors[errors.minute.between(60, 119)]
    assert second_hour.log_error.mean() < first.log_error.mean()
    assert (errors.predicted_tail_latency_s > 0).all()


@pytest.mark.slow
def test_every_planned_decision_has_its_forecast_and_predicted_latency(runs):
    decisions = decisions_frame(runs[0])
    assert decisions.columns[:5].tolist() == [
        "time_s",
        "job",
        "replicas_target",
        "drop_target",
        "reason",
    ]
    planned = decisions[decisions.reason == "planned"]
    assert planned[["forecast_rps", "predicted_tail_latency_s"]].notna().all(axis=None)
    assert (decisions[decisions.time_s > 0].groupby("time_s").size() == 10).all()
    assert (decisions.marginal_value_down.dropna() >= 0).all()


def test_the_load_axis_covers_the_capacity_of_a_replica():
    true_service_s = 0.154
    assert LOADS[0] < 0.1 * JOB.slo_s / true_service_s < JOB.slo_s / true_service_s < LOADS[-1]
