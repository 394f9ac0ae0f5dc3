"""Arrivals in bursts: their dispersion, their fit, exact times, and what they do to latencies."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kstest

from faro_lib.policies import Fixed
from faro_lib.queueing import latency_class
from faro_lib.simulate import ServingModel, draw, simulate
from faro_lib.simulate.measure import measure
from faro_lib.workload import Job, Traces, Workload
from faro_lib.workload.bursts import burst_arrivals, dispersion, fit_dispersion, fit_hours

DISPERSION = (20.0, 4.0, 1.5)
LIVE = ServingModel("least-outstanding")
BURSTY = Job("bursty", dispersion_10s=20.0, dispersion_1s=4.0, dispersion_100ms=1.5)


def counted(arrival_s, length_s, minutes):
    return np.bincount((arrival_s / length_s).astype(int), minlength=round(60 * minutes / length_s))


@pytest.mark.parametrize("asked", [DISPERSION, (1.0, 1.0, 1.0), (1.0, 6.0, 1.0)])
def test_the_counts_in_windows_have_the_dispersion_that_was_asked_for(asked):
    minutes = 600
    arrival_s = burst_arrivals(np.full(minutes, 300), asked, np.random.default_rng(1))
    for (length_s, parts), index in zip([(10.0, 6), (1.0, 10), (0.1, 10)], asked):
        counts = counted(arrival_s, length_s, minutes)[None]
        assert dispersion(counts, parts)[0] == pytest.approx(index, rel=0.1)


def test_every_minute_keeps_its_count():
    counts = np.array([0, 1, 2, 50, 0, 400])
    arrival_s = burst_arrivals(counts, (40.0, 5.0, 2.0), np.random.default_rng(2))
    assert counted(arrival_s, 60.0, 6).tolist() == counts.tolist()
    assert (np.diff(arrival_s) >= 0).all()


def test_without_dispersion_the_times_are_uniform():
    arrival_s = burst_arrivals(np.array([5000]), (1.0, 1.0, 1.0), np.random.default_rng(3))
    assert kstest(arrival_s / 60, "uniform").pvalue > 0.01


def test_the_fit_finds_the_dispersion_of_each_hour():
    """Also where a window often has fewer requests than its index, which bounds what is seen."""
    hours = [DISPERSION, (60.0, 1.0, 3.0)]
    counts = np.full(120, 200)
    of_minute = np.repeat(hours, 60, axis=0)
    arrival_s = burst_arrivals(counts, of_minute, np.random.default_rng(4))
    found, mean = fit_hours(arrival_s, 2)
    np.testing.assert_allclose(found, hours, rtol=0.25)
    np.testing.assert_allclose(mean, np.mean(found, axis=0))


def test_an_hour_with_few_requests_takes_the_dispersion_of_all():
    rng = np.random.default_rng(5)
    counts = np.repeat([300, 0], [120, 60])
    counts[120:122] = 2
    found, mean = fit_hours(burst_arrivals(counts, DISPERSION, rng), 3)
    np.testing.assert_allclose(found[2], mean, rtol=0.01)


def test_idle_windows_do_not_change_the_fit():
    counts = np.random.default_rng(6).poisson([[1], [9], [30]], (3, 6))
    idle = np.concatenate([counts, np.zeros((50, 6), int)])
    assert fit_dispersion(4 * idle) == fit_dispersion(4 * counts) > 1


def test_a_fit_needs_no_requests():
    found, mean = fit_hours(np.empty(0), 2)
    assert (found == 1).all()
    assert (mean == 1).all()
    assert fit_dispersion(np.zeros((3, 6), int)) == 1


def test_another_jobs_bursts_leave_a_jobs_arrivals_as_they_are():
    counts = np.full((2, 3), 50)
    before = draw(Workload((Job("a"), Job("b")), counts), seed=24)
    after = draw(Workload((Job("a"), replace(BURSTY, name="b")), counts), seed=24)
    np.testing.assert_array_equal(before.arrival_s[:150], after.arrival_s[:150])
    assert not np.array_equal(before.arrival_s[150:], after.arrival_s[150:])
    np.testing.assert_array_equal(before.service_s, after.service_s)


def test_exact_times_are_replayed_whatever_the_seed():
    times = (np.array([0.5, 70.0, 70.0]), np.array([119.0]))
    workload = Workload((Job("a"), BURSTY), [[1, 2], [0, 1]], times)
    for seed in (1, 2):
        np.testing.assert_array_equal(draw(workload, seed).arrival_s, np.concatenate(times))
    (a, b) = workload.between(1, 2).arrival_s
    assert (a.tolist(), b.tolist()) == ([10.0, 10.0], [59.0])


def test_times_that_do_not_belong_to_the_counts_are_refused():
    with pytest.raises(ValueError, match="arrival_s has other requests per minute"):
        Workload((Job("a"),), [[1, 2]], (np.array([0.5, 1.0, 70.0]),))


def test_the_times_of_the_evaluation_day_are_those_of_its_workload_only():
    traces = Traces((Job("a"),), [[[[5]]]], [[[2]]], (np.array([1.0, 2.0]),))
    assert len(traces.workload().arrival_s) == 1
    assert traces.workload(1).arrival_s == ()
    assert len(traces.first_jobs(1).arrival_s) == 1


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
def test_a_dispersion_below_1_is_refused(value):
    with pytest.raises(ValueError, match=r"dispersion_1s=.* must be a finite number >= 1"):
        Job("a", dispersion_1s=value)


def test_only_a_job_with_bursts_is_in_a_class_of_its_own():
    assert latency_class(Job("a")) == "resnet34 of 0.18 s, p99"
    assert latency_class(BURSTY) == "resnet34 of 0.18 s, p99, dispersion 20 4 1.5"


@pytest.mark.slow
def test_the_measured_latency_of_a_job_with_bursts_is_that_of_simulated_minutes():
    """Against a simulation of other minutes, by the median minute."""
    replicas, rate_rps, minutes = 6, 24.0, 240
    jobs = (Job("a"), BURSTY)
    table = measure(jobs, (replicas,), serving_model=LIVE)
    predicted_s = [table.tail_latency_s(job, rate_rps, replicas) for job in jobs]
    assert predicted_s[1] > 1.5 * predicted_s[0]
    fixed = replace(BURSTY, min_replicas=replicas, max_replicas=replicas)
    workload = Workload((fixed,), [[round(60 * rate_rps)] * minutes])
    run = simulate(workload, Fixed(replicas), replicas, seed=9, serving_model=LIVE)
    found_s = np.median(run.tail_latency_s[0, 5:minutes])
    assert predicted_s[1] == pytest.approx(found_s, rel=0.15)
