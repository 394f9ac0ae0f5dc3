"""Stage 87: small generated services, the settings of each size, and what the figure says."""

import numpy as np
import pandas as pd
import pytest
import yaml
from checkouts import ROOT
from faro_pipeline.settings import load

from studies.llm.figures import finding, missed_by_policy
from studies.llm.servegen import arrivals_of_day, lengths_at
from studies.llm.stage import (
    FEW,
    LEADER,
    POLICIES,
    compared,
    described,
    few_clients,
    scaled,
    shares,
    tuned,
    untuned,
)
from studies.llm.world import services_of

TUNING = ROOT / "data/recorded-llm/tuning.csv"


def test_generated_services_have_the_rates_the_lengths_and_the_bursts_that_they_state():
    clients = few_clients()
    rng = np.random.default_rng(0)
    level, tail = rng.random(100_000), rng.standard_exponential(100_000)
    for n, (mean_rps, *tokens) in enumerate(FEW.values()):
        assert clients.rate_rps[n].mean() == pytest.approx(mean_rps)
        for kind, mean in enumerate(tokens):
            lengths = lengths_at(clients.lengths[n, 0, kind], level, tail)
            assert lengths.mean() == pytest.approx(mean, rel=0.05)
    for n, bursty in enumerate((True, False, False)):
        gaps = np.diff(arrivals_of_day(clients, n, 1))
        assert (gaps.std() / gaps.mean() > 1.5) == bursty


def test_scaled_clients_have_more_requests_and_the_same_gaps():
    clients = few_clients(days=1)
    twice = scaled(clients, 2.0)
    np.testing.assert_array_equal(twice.rate_rps, 2 * clients.rate_rps)
    np.testing.assert_array_equal(twice.shape, clients.shape)


def test_every_policy_has_the_one_setting_that_was_chosen_for_a_size():
    capacity = int(pd.read_csv(TUNING).query("rival == @LEADER")["capacity_cores"].iloc[0])
    choices, rates = tuned(TUNING, [capacity])
    assert sorted(choices["rival"]) == sorted(POLICIES)
    assert rates > 0
    for name, policy in POLICIES.items():
        row = choices[choices["rival"] == name].iloc[0]
        for key, offered in policy.settings.items():
            assert row[key] in offered


def test_settings_are_those_of_the_rates_for_which_faro_was_tuned(tmp_path):
    rows = [("KEDA, waiting requests", 12, 1), ("KEDA, waiting requests", 12, 2), (LEADER, 12, 2)]
    table = pd.DataFrame(rows, columns=["rival", "capacity_cores", "rates"]).assign(chosen=True)
    table.to_csv(tmp_path / "tuning.csv", index=False)
    choices, rates = tuned(tmp_path / "tuning.csv", [12])
    assert rates == 2
    assert choices["rates"].tolist() == [2, 2]


def test_a_size_without_settings_is_refused_with_those_at_hand():
    with pytest.raises(ValueError, match=r"no settings for 13 replicas; at hand: \d+"):
        tuned(TUNING, [13])


def test_the_settings_of_the_stage_name_sizes_that_were_tuned():
    settings = load(yaml.safe_load((ROOT / "config/llm.yaml").read_text())).llm
    choices, _ = tuned(TUNING, settings.capacities)
    assert set(choices["capacity_cores"]) == set(settings.capacities)
    assert load({}).llm.capacities == [], "the default run has no such stage"


@pytest.mark.parametrize("wrong", [{"days": [9]}, {"starts": [30]}, {"days": []}])
def test_days_of_tuning_and_blocks_without_an_hour_before_them_are_refused(wrong):
    with pytest.raises(ValueError, match=f"llm.{next(iter(wrong))}"):
        load({"llm": wrong})


def runs_of(missed):
    """Two blocks of 100 requests; `missed` has the misses of each policy in a block."""
    rows = [
        {"day": 11, "start_min": start, "capacity_cores": 12, "policy": name}
        | {"requests": 100, "missed": missed.get(name, 50)}
        for start in (180, 660)
        for name in POLICIES
    ]
    return pd.DataFrame(rows)


def test_the_finding_names_the_best_rival_and_what_was_compared():
    runs = runs_of({LEADER: 10, "Ray Serve": 20})
    assert shares(runs).loc[12, LEADER] == 0.1
    assert finding(runs) == (
        "With 12 replicas, Faro-Sum misses 10.0% of the requests, and the best rival, Ray Serve, "
        "20.0%. All policies serve the same requests: 2 blocks of half an hour on day 11."
    )
    (axis,) = missed_by_policy(runs).axes
    assert axis.get_yticklabels()[0].get_text() == LEADER


@pytest.mark.slow
def test_the_policies_serve_the_same_requests_of_the_small_services():
    services = services_of(few_clients())
    assert described(services)["burstiness"].idxmax() == "chat"
    runs = compared(services, untuned([5]), [9], [600], report=lambda line: None)
    assert set(runs["policy"]) == set(POLICIES)
    assert runs["requests"].nunique() == 1
    assert (runs["missed"] <= runs["requests"]).all()
    assert runs["missed"].min() < runs["missed"].max()
