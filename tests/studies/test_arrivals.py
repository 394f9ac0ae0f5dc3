"""The study of bursts: its processes, and its worlds, whose planners meet the same requests."""

import numpy as np
import pandas as pd
import pytest

from faro_lib.workload.bursts import burst_arrivals
from faro_lib.workload.synthetic import synthetic
from studies.arrivals.world import (
    AT_RANDOM,
    BURSTS,
    FITTED,
    GAMMA,
    TRUE,
    agreement,
    counts_of,
    generated,
    planned,
    read_azure,
    replayed,
)

RNG = np.random.default_rng(1)
INDEX = (30.0, 4.0, 1.5)


@pytest.fixture(scope="module")
def logs():
    counts = RNG.poisson(60, 20)
    return {name: burst_arrivals(counts, INDEX, RNG) for name in ("code", "conv")}


def test_the_files_of_the_trace_are_whole_minutes_from_the_first_one_on(logs, tmp_path):
    begin = pd.Timestamp("2023-11-16T18:17:30")
    for name in logs:
        seconds = [0.0, 40.25, 100.0, 180.0]
        times = [f"{begin + pd.Timedelta(seconds=one)}" for one in seconds]
        table = pd.DataFrame({"TIMESTAMP": times, "ContextTokens": 1, "GeneratedTokens": 1})
        table.to_csv(tmp_path / f"AzureLLMInferenceTrace_{name}.csv", index=False)
    found = read_azure(tmp_path)
    assert found["code"].round(6).tolist() == [30.0, 70.25, 130.0]


def test_a_trace_that_is_not_there_names_the_command_that_fetches_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="fetch azure-llm-2023"):
        read_azure(tmp_path)


def test_bursts_agree_with_a_bursty_log_where_gamma_gaps_do_not(logs):
    error = agreement(logs, seeds=5).set_index(["process", "service", "window_s"])["error"].abs()
    assert (error[BURSTS].unstack()[[1.0, 10.0]] < 0.25).all(axis=None)
    assert (error[GAMMA].unstack()[10.0] > 0.5).all()


def test_a_replayed_trial_has_the_later_times_rotated_by_whole_minutes(logs):
    world = replayed(logs, (20,))
    one, other = world.requests(1, False), world.requests(2, False)
    later = logs["code"][logs["code"] >= 600] - 600
    of_minute = np.sort(later % 60)
    for workload in (one, other):
        np.testing.assert_allclose(np.sort(workload.arrival_s[0] % 60), of_minute, atol=1e-6)
    assert not np.array_equal(one.requests_per_min, other.requests_per_min)
    assert one.requests_per_min.sum() == other.requests_per_min.sum()
    at_random = world.requests(1, True)
    np.testing.assert_array_equal(one.requests_per_min, at_random.requests_per_min)
    assert at_random.arrival_s == ()


def test_planners_of_a_generated_world_differ_in_every_other_job():
    world = generated("w", synthetic(seed=1, jobs=4, days=2, minutes=60), 30, (8,), arrivals, INDEX)
    for name in (FITTED, TRUE):
        assert [job.bursty for job in world.planners[name]] == [True, False, True, False]
    assert not any(job.bursty for job in world.planners[AT_RANDOM])
    np.testing.assert_allclose(world.planners[FITTED][0].dispersion, INDEX, rtol=0.3)
    workload = world.requests(1, False)
    assert counts_of(workload.arrival_s[0], 60.0, 30).tolist() == (
        workload.requests_per_min[0].tolist()
    )


def arrivals(counts, rng):
    return burst_arrivals(counts, INDEX, rng)


@pytest.mark.slow
@pytest.mark.usefixtures("coarse_tables")
def test_a_row_for_each_forecast_planner_and_trial(logs):
    world = replayed({name: time_s[time_s < 1200] for name, time_s in logs.items()}, (20,))
    rows = pd.DataFrame(planned(world, 2, report=lambda line: None))
    assert len(rows) == 2 * 2 * 2 * 2
    assert rows["lost_utility"].between(0, 10).all()
    assert set(rows["planner"]) == {AT_RANDOM, FITTED}
