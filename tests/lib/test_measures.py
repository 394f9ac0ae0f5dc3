"""Measures of a run, against values computed by hand."""

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from faro_lib.metrics.measures import (
    lost_utility,
    lost_utility_published,
    minute_effective_utility,
    minute_utility,
    slo_violation_rate,
    summarize,
)
from faro_lib.policies import FairShare
from faro_lib.simulate import simulate
from faro_lib.simulate.run import Decisions, evaluate_run
from faro_lib.workload import Job, Workload

SLO_S, DROPPED = 0.5, np.inf


def run_of(*jobs, decisions=None):
    """A run of jobs whose bins, the minutes and the overrun, are lists of latencies."""
    minutes = len(jobs[0]) - 1
    latency_s = np.array([latency for job in jobs for minute in job for latency in minute], float)
    counts = np.array([[len(minute) for minute in job] for job in jobs])
    first = np.concatenate([[0], np.cumsum(counts.sum(axis=1))])[:-1]
    edges = first[:, None] + np.cumsum(np.column_stack([np.zeros(len(jobs), int), counts]), axis=1)
    named = tuple(Job(str(n), slo_s=SLO_S) for n in range(len(jobs)))
    workload = Workload(named, np.zeros((len(jobs), minutes), int))
    return evaluate_run(
        workload, 4, latency_s, edges, np.ones(len(jobs), int), decisions or Decisions(), 1.0
    )


IN_TIME, TWICE = [0.1] * 4, [1.0] * 4  # every request in time; all of them take twice the SLO


def test_a_minute_at_twice_the_slo_has_utility_one_half_and_one_with_a_drop_zero():
    utility = minute_utility(run_of([IN_TIME, TWICE, [0.1, 0.1, 0.1, DROPPED], []]))
    np.testing.assert_array_equal(utility, [[1.0, 0.5, 0.0, np.nan]])


def test_only_the_published_convention_counts_minutes_without_requests_as_lost():
    utility = minute_utility(run_of([IN_TIME, [], TWICE, []], [IN_TIME, IN_TIME, IN_TIME, IN_TIME]))
    assert lost_utility_published(utility) == 2 - (1 + 0.5 + 4) / 4
    assert lost_utility(utility) == pytest.approx(0.5 / 3)


@examples(25)
@given(
    counts=st.lists(st.lists(st.integers(0, 300), min_size=5, max_size=5), min_size=1, max_size=4),
    idle=st.floats(0, 1),
    seed=st.integers(0, 9),
)
def test_nothing_is_lost_with_enough_replicas_whatever_the_share_of_idle_minutes(
    counts, idle, seed
):
    counts = np.array(counts)
    counts[np.random.default_rng(seed).random(counts.shape) < idle] = 0
    workload = Workload(tuple(Job(str(n)) for n in range(len(counts))), counts)
    measures = summarize(simulate(workload, FairShare(), 8 * len(counts), seed))
    assert (
        measures["lost_utility"]
        == measures["lost_effective_utility"]
        == measures["slo_violation_rate"]
        == 0
    )


def test_measures_in_the_published_convention_are_computed_only_on_demand():
    run = run_of([IN_TIME, []])
    assert not [name for name in summarize(run) if name.endswith("published")]
    assert summarize(run, published=True)["lost_utility_published"] == 0.5


def test_the_violation_rate_averages_over_jobs_first_and_over_minutes_then():
    run = run_of([IN_TIME, TWICE, []], [[1.0, 0.1, 0.1, DROPPED], [], []])
    assert slo_violation_rate(run) == ((0 + 0.5) / 2 + 1.0) / 2, (
        "jobs and minutes without requests are left out"
    )


def test_a_dropped_request_costs_its_penalty_and_does_not_count_as_late_too():
    four_percent = [0.1] * 96 + [DROPPED] * 4
    run = run_of([four_percent, [1.0] * 96 + [DROPPED] * 4, [DROPPED], []])
    np.testing.assert_array_equal(minute_utility(run)[0, :3], [0.0, 0.0, 0.0])
    np.testing.assert_array_equal(minute_effective_utility(run), [[0.75, 0.375, 0.0, np.nan]])


def decisions_of(seconds, planned):
    decisions = Decisions()
    for tick, (took_s, has_forecast) in enumerate(zip(seconds, planned)):
        decisions.time_s.append(10.0 * tick)
        decisions.seconds.append(took_s)
        decisions.running.append(np.ones(1, int))
        decisions.forecast_rps.append(np.ones(1) if has_forecast else None)
    return decisions


@pytest.mark.parametrize(
    ("planned", "median_ms"), [((True, False, False), 30.0), ((False, False, False), 1.0)]
)
def test_decision_times_are_those_of_planning_ticks_where_there_are_any(planned, median_ms):
    measures = summarize(
        run_of([IN_TIME, []], decisions=decisions_of((0.030, 0.001, 0.001), planned))
    )
    assert measures["decision_ms_p50"] == pytest.approx(median_ms)


def test_the_summary_has_the_columns_of_the_table():
    assert list(summarize(run_of([IN_TIME, []]))) == [
        "lost_utility",
        "slo_violation_rate",
        "lost_effective_utility",
        "drop_rate",
        "replicas_used_mean",
        "decision_ms_p50",
        "decision_ms_p99",
        "requests",
        "wall_s",
    ]
