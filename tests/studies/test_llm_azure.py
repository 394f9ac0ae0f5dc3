"""Exact times of language models: does one half hour predict the next, and what do bursts cost?"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from faro_lib.simulate import TRIAL_SEEDS
from faro_lib.workload.bursts import burst_arrivals
from studies.arrivals.world import AT_RANDOM, FITTED, TRUE, USUAL
from studies.llm.azure import (
    EXACT_TIMES,
    LOGGED,
    LOGNORMAL,
    REPLAYED,
    STEPS,
    Log,
    fitted_job,
    halves_of,
    read_logs,
    simulated,
    sizes_of,
    steps,
)
from studies.llm.bursts import (
    LOAD_KNOWN,
    SLO_S,
    WARM_UP,
    compared,
    rotated,
    services_of,
    sizes_by_first_half,
)
from studies.llm.lengths import lognormal

MINUTES = 12


def log_of(prompts, rng, dispersion=(1.0, 1.0, 1.0)):
    """A log of MINUTES minutes with 120 requests each, whose prompts are drawn from `prompts`."""
    time_s = burst_arrivals(np.full(MINUTES, 120), dispersion, rng)
    tokens = [rng.choice(prompts, len(time_s)), rng.integers(10, 60, len(time_s))]
    return Log(time_s, np.array(tokens, float))


def test_a_log_has_whole_minutes_and_lengths_of_at_least_one_token(tmp_path):
    begin = pd.Timestamp("2023-11-16T18:17:30")
    for name in ("code", "conv"):
        times = [f"{begin + pd.Timedelta(seconds=one)}" for one in (0.0, 40.25, 100.0, 180.0)]
        tokens = {"ContextTokens": [10, 9000, 20, 30], "GeneratedTokens": [1, 2, 0, 4]}
        table = pd.DataFrame({"TIMESTAMP": times, **tokens})
        table.to_csv(tmp_path / f"{name}.csv.gz", index=False)
    log = read_logs(tmp_path)["code"]
    assert log.time_s.round(6).tolist() == [30.0, 70.25, 130.0]
    assert log.tokens.tolist() == [[10, 9000, 20], [1, 2, 1]]
    assert log.between(60, 120).time_s.round(6).tolist() == [10.25]


def test_a_job_has_the_lengths_and_the_bursts_of_its_log():
    time_s = np.repeat(np.arange(0.0, 1800, 20), 20)  # 20 requests at once
    tokens = np.array([[100.0, 300.0], [10.0, 30.0]]).repeat(900, axis=1)
    job = fitted_job("a", Log(time_s, tokens))
    assert (job.replica.prompt_tokens, job.replica.output_tokens) == (200, 20)
    drawn = job.replica.lengths(np.random.default_rng(1), 10_000)
    assert drawn.min(axis=1).tolist() == [100, 10]
    assert drawn.max(axis=1).tolist() == [300, 30]
    assert job.dispersion_100ms > 10
    assert job.replica.slo_on == "first_token"


def test_sizes_grow_and_their_utilisation_is_at_most_the_wanted_one():
    assert sizes_of(8.0) == [10, 12, 16, 23, 32]
    assert sizes_of(0.1) == [1, 2, 3, 4, 5]


# --- what the error is made of ------------------------------------------------------------------


@pytest.fixture(scope="module")
def bounded():
    """One prompt in ten is long, none is longer."""
    return log_of([200] * 9 + [4000], np.random.default_rng(5))


def test_a_bounded_log_is_predicted_by_its_quantiles_and_not_by_lognormal_lengths(bounded):
    halves = halves_of("a", bounded)
    replicas = halves.sizes[-1]
    truth, _ = halves.replayed(1, replicas)
    job = halves.jobs[0]
    plain = replace(job, replica=lognormal(job.replica, halves.parts[0].tokens))
    of_log, of_lognormal = (
        np.mean([simulated(one, halves.counts[1], replicas, seed)[0] for seed in range(5)])
        for one in (job, plain)
    )
    assert of_log == pytest.approx(truth, rel=0.1)
    assert of_lognormal > 1.2 * truth


def test_given_times_and_lengths_leave_nothing_to_the_seed(bounded):
    halves = halves_of("a", bounded)
    exact = halves.parts[1].time_s, halves.parts[1].tokens
    one, other = (simulated(halves.jobs[0], halves.counts[1], 1, seed, *exact) for seed in (1, 2))
    assert one.tolist() == other.tolist() == halves.replayed(1, 1).tolist()


def test_too_many_dropped_requests_make_p99_infinite(bounded):
    job = fitted_job("a", bounded)
    assert np.isinf(simulated(job, np.array([20_000]), 1, 0)).all()


def test_the_steps_lead_from_lognormal_lengths_to_the_replay(bounded):
    found = pd.DataFrame(steps({"a": bounded}))
    for _, part in found.groupby("replicas"):
        assert tuple(part["step"]) == STEPS
    p99_s = found.pivot(index="replicas", columns="step", values="p99_s").iloc[-1]
    errors = (p99_s / p99_s[REPLAYED] - 1).abs()
    # Both halves are alike, so the lengths' distribution is all that the first has wrong.
    assert errors[LOGNORMAL] > 0.2
    assert errors[[LOGGED, EXACT_TIMES]].max() < 0.1


# --- planners in a world with bursts --------------------------------------------------------------


@pytest.fixture(scope="module")
def services():
    rng = np.random.default_rng(7)
    first = log_of([500, 1000], rng)
    second = log_of([500, 1000], rng, (20.0, 5.0, 1.5))
    later = Log(second.time_s + 60.0 * MINUTES, second.tokens)
    times = np.concatenate([first.time_s, later.time_s])
    return services_of({"a": Log(times, np.concatenate([first.tokens, later.tokens], axis=1))})


def test_rotated_requests_keep_their_second_of_the_minute_and_their_lengths(bounded):
    moved = rotated(bounded, 180.0, MINUTES * 60.0)
    assert (np.diff(moved.time_s) >= 0).all()
    before = dict(zip((bounded.time_s % 60).round(6), bounded.tokens[0]))
    assert all(
        before[at] == tokens for at, tokens in zip((moved.time_s % 60).round(6), moved.tokens[0])
    )


def test_services_have_the_first_half_and_the_true_planner_the_bursts_of_the_second(services):
    assert len(services.jobs) == 5
    assert {job.slo_s for job in services.jobs} == {SLO_S}
    planners = services.planners()
    assert not any(job.bursty for job in planners[AT_RANDOM].jobs)
    assert planners[FITTED].jobs == services.jobs
    for fitted, true in zip(planners[FITTED].jobs, planners[TRUE].jobs):
        assert true.dispersion_10s > 3 * fitted.dispersion_10s
        assert replace(true, name="x").replica == fitted.replica


def test_the_services_of_a_trial_have_other_rotations_of_the_same_requests(services):
    workload, draws = services.requests(1, 24)
    counts = workload.requests_per_min
    assert (counts.sum(axis=1) == counts[0].sum()).all()
    assert len({tuple(of_job - of_job[0]) for of_job in workload.arrival_s}) > 1
    ends = np.split(draws.prompt_tokens, draws.first[1:-1])
    assert len({of_job.sum() for of_job in ends}) == 1
    other, _ = services.requests(1, 32)
    assert any((a != b).any() for a, b in zip(workload.arrival_s, other.arrival_s))


def test_sizes_are_nearest_to_the_shares_that_meet():
    tried = pd.DataFrame(
        {"capacity_cores": [1, 1, 2, 3, 4], "missed": [5, 3, 2, 1, 0], "requests": 10}
    )
    assert sizes_by_first_half(tried, (0.95, 0.8, 0.6)) == [3, 2, 1]


@pytest.mark.slow
def test_every_planner_and_forecast_is_judged_on_the_same_requests_after_the_warm_up(services):
    found = compared(services, 1, (8,), 1, (AT_RANDOM, TRUE), report=lambda line: None)
    assert set(zip(found["forecast"], found["planner"])) == {
        (forecast, planner) for forecast in (USUAL, LOAD_KNOWN) for planner in (AT_RANDOM, TRUE)
    }
    workload, _ = services.requests(1, TRIAL_SEEDS[0])
    assert set(found["requests"]) == {workload.requests_per_min[:, WARM_UP:].sum()}
    assert (found["missed"] <= found["requests"]).all()
