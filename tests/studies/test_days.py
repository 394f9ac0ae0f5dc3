"""Several judged days: forecasters know only the days before, and differences come with intervals
that cover the truth as often as they say.
"""

import numpy as np
import pandas as pd
import pytest
from faro_pipeline.settings import load

from faro_lib import forecast
from faro_lib.metrics.paired import unit_interval
from faro_lib.workload.changes import CHANGES, changed
from faro_lib.workload.synthetic import synthetic
from studies.days import figures as draw
from studies.days.run import BLOCK_MINUTES, CLAIRVOYANT, by_units, over_days, paired, tally


@pytest.fixture(scope="module")
def traces():
    return synthetic(seed=3, jobs=3, days=3, minutes=36)


@pytest.fixture(scope="module")
def blocks(traces):
    return over_days(
        traces,
        [3, 4],
        [9],
        ["FairShare", "Faro-Sum"],
        2,
        forecasters=["auto", "ar"],
        report=lambda _: None,
    )


@pytest.mark.slow
def test_every_policy_and_the_clairvoyant_have_the_same_blocks_in_each_run(blocks):
    runs = blocks.groupby(["day", "capacity_cores", "policy", "trial"])
    assert set(blocks["policy"]) == {"FairShare", "Faro-Sum", "Faro-Sum, ar", CLAIRVOYANT}
    days, capacities, policies, trials = 2, 1, 3, 2
    assert len(runs) == days * capacities * (policies * trials + 1)  # the clairvoyant runs once
    assert (runs["block"].count() == 4).all()
    assert (runs["minutes"].sum() == 36).all()


@pytest.mark.slow
def test_a_day_is_judged_with_a_forecaster_that_was_fitted_to_the_days_before_it(
    traces, monkeypatch
):
    seen = []
    fit = forecast.fit
    monkeypatch.setattr(
        forecast,
        "fit",
        lambda name, known, **options: seen.append(known.days) or fit(name, known, **options),
    )
    over_days(traces, [2, 4], [9], ["Faro-Sum"], 1, report=lambda _: None)
    assert seen == [1, 3]


@pytest.mark.slow
def test_the_leader_differs_from_itself_by_nothing_and_days_are_shown_by_themselves(blocks):
    table = paired(blocks, "Faro-Sum")
    own = table[table["policy"] == "Faro-Sum"]
    assert (own[["difference", "low", "high"]] == 0).all(axis=None)
    assert set(table["day"]) == {"all", "3", "4"}
    of_days, overall = (
        table[table["day"] != "all"],
        table[table["day"] == "all"].set_index("policy"),
    )
    mean = of_days.groupby("policy")["difference"].mean()
    np.testing.assert_allclose(overall["difference"], mean[overall.index], atol=1e-12)
    assert (overall["low"] <= overall["difference"]).all()
    assert (overall["difference"] <= overall["high"]).all()


def correlated(rng, runs, minutes=360, correlation_min=2.0, spread=1.0):
    """Skewed values with mean 1, correlated over some minutes, shape (runs, minutes)."""
    keep = np.exp(-1 / correlation_min)
    normals = rng.normal(size=(runs, minutes))
    for minute in range(1, minutes):
        normals[:, minute] *= np.sqrt(1 - keep**2)
        normals[:, minute] += keep * normals[:, minute - 1]
    return np.exp(spread * normals - spread**2 / 2)


def coverage(intervals, truth=1.0):
    return np.mean([low <= truth <= high for _, low, high in intervals])


@pytest.mark.parametrize("trials", [1, 2])
@pytest.mark.parametrize("correlation_min", [2.0, 5.0])
def test_the_interval_of_a_day_covers_the_true_mean_as_often_as_it_says(correlation_min, trials):
    rng = np.random.default_rng(0)
    intervals = []
    for of_minute in correlated(rng, 1000, correlation_min=correlation_min):
        noise = rng.exponential(1.0, (trials, len(of_minute)))  # the load is common to all trials
        hours = np.split(of_minute * noise, len(of_minute) // BLOCK_MINUTES, axis=1)
        lost = np.stack([hour.sum(axis=1) for hour in hours], axis=-1)[None]
        intervals.append(unit_interval(lost, np.full(lost.shape, BLOCK_MINUTES)))
    assert 0.90 <= coverage(intervals) <= 0.97


@pytest.mark.parametrize("days", [3, 4, 20])
def test_the_interval_over_days_covers_the_mean_over_days_that_differ(days):
    rng = np.random.default_rng(0)
    intervals = []
    for _ in range(1000):
        load = rng.gamma(8.0, 1 / 8, (days, 1, 1))
        lost = 60 * load * rng.gamma(2.0, 1 / 2, (days, 2, 6))
        intervals.append(unit_interval(*by_units(lost, np.full(lost.shape, 60))))
    assert 0.90 <= coverage(intervals) <= 0.97


def test_the_interval_over_blocks_of_scenarios_does_not_contain_how_scenarios_differ():
    rng = np.random.default_rng(0)
    intervals = []
    for _ in range(1000):
        of_scenario = np.array([0.1, 1.0, 1.9])[:, None, None]
        lost = 30 * of_scenario * rng.gamma(2.0, 1 / 2, (3, 1, 12))
        intervals.append(unit_interval(lost, np.full(lost.shape, 30)))
    assert 0.90 <= coverage(intervals) <= 0.97
    assert np.mean([high - low for _, low, high in intervals]) < 0.8


def test_trials_of_the_same_load_are_not_taken_for_independent_observations():
    of_block = np.random.default_rng(1).normal(0, 1, (1, 1, 12))
    few, many = (
        unit_interval(np.repeat(of_block, n, axis=1), np.ones((1, n, 12))) for n in (1, 50)
    )
    assert many == pytest.approx(few)


def test_a_long_and_a_short_block_count_by_their_minutes():
    mean, low, high = unit_interval(np.array([[[10.0, 60.0, 30.0]]]), np.array([[[10, 60, 30]]]))
    assert (mean, low, high) == (1.0, 1.0, 1.0)


def test_a_single_unit_has_a_mean_and_no_interval():
    mean, low, high = unit_interval(np.array([[[30.0]]]), np.array([[[60]]]))
    assert mean == 0.5
    assert np.isnan([low, high]).all()


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_not_in_the_training_days_unless_it_concerns_all_days(change):
    traces = synthetic(seed=3, jobs=3, days=6, minutes=36)
    after = changed(traces, change)
    assert (after.train == traces.train).all() == (
        change in ("none", "double", "flash", "stop", "drift", "bursts")
    )
    if change == "flash":
        assert after.evaluation.max() == pytest.approx(5 * traces.evaluation[:, 0].max(), rel=0.5)
    if change == "launch":
        assert not after.train[:, :, 0].any()
        assert not after.evaluation[:, 0, :12].any()
        assert after.evaluation[:, 0, 12:].any()
    if change == "stop":
        assert after.evaluation[:, 0, :12].any()
        assert not after.evaluation[:, 0, 12:].any()
    if change not in ("weekend", "drift", "giant", "sparse"):
        assert (after.evaluation[:, 1:] == traces.evaluation[:, 1:]).all()


PAIR = ["day", "capacity_cores", "policy", "difference", "low", "high"]


def test_every_comparison_is_counted_once_as_less_equal_or_more():
    rows = [
        ("all", 9, "A", 0.4, 0.1, 0.7),
        ("all", 9, "B", 0.1, -0.1, 0.2),
        ("all", 9, "C", 0.0, -0.1, 0.1),
        ("all", 9, "D", 0.0, 0.0, 0.0),
        ("all", 9, "E", -0.1, -0.3, 0.1),
        ("all", 9, "F", -0.3, -0.5, -0.1),
        ("all", 9, "G", -0.3, -0.5, 0.0),
    ]
    counts = tally(pd.DataFrame(rows, columns=PAIR))
    assert counts == (2, 2, 3, 1, 1)
    assert counts.less + counts.equal + counts.more == len(rows)


def test_exchanging_two_policies_exchanges_the_counts_of_less_and_more():
    difference = np.random.default_rng(2).normal(size=30).round(1)
    table = pd.DataFrame({"difference": difference, "low": difference - 1, "high": difference + 1})
    turned = pd.DataFrame({"difference": -difference, "low": -table["high"], "high": -table["low"]})
    less, equal, more, clearly_less, clearly_more = tally(table)
    assert tally(turned) == (more, equal, less, clearly_more, clearly_less)


def test_the_caption_counts_rivals_apart_from_variants_of_faro_and_names_the_worst():
    rows = [
        ("all", 9, "A", 0.4, 0.1, 0.7),
        ("all", 9, "B", 0.1, -0.1, 0.2),
        ("all", 9, "Faro-Fair", -0.1, -0.3, 0.1),
        ("all", 9, "Faro-Sum, ar", -0.3, -0.5, -0.1),
        ("all", 9, "Faro-Sum", 0, 0, 0),
        ("3", 9, "A", 9, 9, 9),
    ]
    text = draw.finding({"small": pd.DataFrame(rows, columns=PAIR)}, "Faro-Sum")
    assert text == (
        "Against policies that are not variants of Faro, Faro-Sum loses less utility in 2 of 2 "
        "comparisons (1 clear), as much in 0, and more in 0 (0 clear). Against other variants of "
        "Faro, Faro-Sum loses less utility in 0 of 2 comparisons (0 clear), as much in 0, and more "
        "in 2 (1 clear). The clearest defeat is by Faro-Sum, ar on small with 9 cores (0.30). A "
        "difference is clear if its 95 % interval excludes zero."
    )


def test_a_world_with_an_unknown_setting_is_refused_in_one_line():
    with pytest.raises(
        ValueError,
        match=r"^config: unknown key 'days.worlds.0.workloads'; did you mean 'workload'\?$",
    ):
        load({"days": {"worlds": [{"name": "a", "workloads": "x.csv", "capacities": [12]}]}})


@pytest.mark.parametrize("names", [["a", "a"], ["synthetic"]])
def test_a_workload_named_like_another_would_replace_its_results(names):
    worlds = [{"name": name, "capacities": [36]} for name in names]
    with pytest.raises(ValueError, match=f"days.worlds: two workloads have the name '{names[0]}'"):
        load({"days": {"worlds": worlds}})
