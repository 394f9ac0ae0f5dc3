"""The tables of docs/comparison.md and docs/elsewhere.md mark the best policy and what is open."""

import re

import pandas as pd
import pytest
from checkouts import ROOT

from studies.comparison import tables as comparison
from studies.days import tables as elsewhere
from studies.families import tables as families
from studies.replicas.tables import RUNS
from studies.rivals import tables as rivals
from studies.tables.pages import content


def test_the_first_pages_name_the_strongest_rival_of_each_column():
    losses = comparison.mean_losses(content(comparison.SUMMARY))
    least, names = comparison.strongest_rivals(losses)
    text = (ROOT / "README.md").read_text()
    for capacity in comparison.CAPACITIES:
        others = [one for one in losses.index if one.startswith("Faro") or one == "Static"]
        assert least[capacity] <= losses[capacity].drop(others).min()
        assert f"{least[capacity]:.2f} ({names[capacity]})" in text
    standing = " | ".join(f"{losses.loc['Static', c]:.2f}" for c in comparison.CAPACITIES)
    assert f"which never change | {standing} |" in text


def test_means_that_differ_and_steps_that_raise_the_loss_are_named():
    summary = content(comparison.SUMMARY)
    shifted = summary.copy()
    at = (shifted["policy"] == "Faro-Fair (paper)") & (shifted["capacity_cores"] == 36)
    assert "Fair at 36" not in comparison.reproduction(summary).replace("\n", " ")
    shifted.loc[at, comparison.LOSS] += 0.2
    assert "Fair at 36 (+0.209)" in comparison.reproduction(shifted).replace("\n", " ")
    assert "`+ exact solver` at 32 (by 0.098" in comparison.regressions(
        content(comparison.ABLATION)
    )


@pytest.mark.parametrize("measure", ["lost_utility_published", "slo_violation_rate"])
def test_one_policy_is_best_at_each_capacity(measure):
    rows = comparison.table(
        content(comparison.SUMMARY), content(comparison.LIMIT), measure
    ).splitlines()
    assert sum(row.count("**") for row in rows) == 2 * len(comparison.CAPACITIES)
    assert len(rows) >= 2 + len(comparison.NAMES)


def test_steps_of_the_ablation_and_solvers_stand_beside_their_published_values():
    steps = comparison.ablation(content(comparison.ABLATION), content(comparison.STEPS))
    first = next(row for row in steps.splitlines() if row.startswith("| no relaxation |"))
    assert [cell.strip() for cell in first.split("|")[3:8:2]] == ["1.292", "1.475", "2.113"]
    assert re.fullmatch(r"\d\.\d{3} \(\d\.\d{3}\)", first.split("|")[2].strip())
    solvers = comparison.solvers(content(comparison.SOLVED))
    cobyla = next(row for row in solvers.splitlines() if row.startswith("| relaxed | cobyla |"))
    assert [cell.strip() for cell in cobyla.split("|")[4:7:2]] == ["83.4 ms", "0.9994"]


def test_the_page_about_limits_tells_the_recorded_trial_with_a_lost_worker():
    page = (ROOT / "docs/limits.md").read_text()
    assert "1.96 against\n1.67" in page or "1.96 against 1.67" in page


def test_the_p99_of_recorded_live_services_is_within_15_percent_of_their_twins():
    (runs,) = map(content, RUNS)
    assert runs.groupby(["service", "load"])["trial"].nunique().eq(3).all()
    assert (runs["live_p99_s"] / runs["twin_p99_s"] - 1).abs().max() < 0.15
    assert (runs["live_rps"] / runs["twin_rps"] - 1).abs().max() < 0.05
    assert runs["requests_per_s"].max() > 120


def test_the_worlds_of_a_family_are_the_units_of_its_intervals():
    lost = {"Faro-Sum": [0.1, 0.2, 0.3], "HPA": [0.2, 0.4, 0.6], "MArk": [0.1, 0.1, 0.1]}
    rows = [
        ("flash-crowd", seed, 20, policy, value)
        for policy, values in lost.items()
        for seed, value in enumerate(values)
    ]
    columns = ["family", "seed", "capacity_cores", "policy", "lost_utility"]
    text = families.table(pd.DataFrame(rows, columns=columns))
    # 0.2 +- t(0.975, 2 degrees) 0.1 / sqrt(3)
    assert "| flash-crowd | 3 | 20 | 0.200 | *+0.200 (-0.05 to +0.45)* |" in text
    assert "| *-0.100 (-0.35 to +0.15)* |" in text


def test_a_tuned_rival_is_compared_with_faro_on_the_same_trials():
    lost = {"Faro-Sum": (0.2, 0.4), "HPA": (0.5, 0.7)}  # the trials differ, the difference does not
    rows = [
        (11, policy, 36, trial, value)
        for policy, values in lost.items()
        for trial, value in enumerate(values)
    ]
    columns = ["day", "policy", "capacity_cores", "trial", "lost_utility_published"]
    table = rivals.table("published", pd.DataFrame(rows, columns=columns))
    assert "| Faro-Sum | **0.300** |" in table
    assert "| HPA, tuned | 0.600, +0.300 (+0.30 to +0.30) |" in table


def test_a_tuned_rival_that_loses_more_than_with_other_settings_has_those():
    columns = ["day", "policy", "capacity_cores", "trial", "lost_utility_published"]
    rows = [(11, "Faro-Sum", 16, 0, 5.0), (11, "HPA", 16, 0, 7.3), (11, "Static", 16, 0, 6.0)]
    untuned = pd.DataFrame([("HPA", 16, 0, 7.0), ("HPA-90", 16, 0, 7.1)], columns=columns[1:])
    table = rivals.table("published", pd.DataFrame(rows, columns=columns), untuned)
    assert "| HPA, tuned | 7.000 (HPA, not tuned), +2.000" in table
    assert "| Static | 6.000, +1.000" in table


def test_the_page_shows_no_tuned_rival_that_loses_more_than_the_same_rule_on_the_same_page():
    losses = comparison.mean_losses(content(comparison.SUMMARY))
    page = (ROOT / "docs/comparison.md").read_text().split("## Rivals at their best")[1]
    cells = next(row for row in page.splitlines() if row.startswith("| HPA, tuned |")).split("|")
    for capacity, cell in zip(comparison.CAPACITIES, cells[2:]):
        assert float(cell.split()[0].rstrip(",")) <= losses.loc["HPA", capacity] + 0.0005


def test_an_earlier_run_has_intervals_over_its_days_and_says_which_are_a_bootstrap():
    columns = ["day", "capacity_cores", "policy", "difference", "low", "high"]
    days = [(str(day), 9, "A", 1.0 + day, 0.0, 9.0) for day in range(3)]
    table = pd.DataFrame([("all", 9, "A", 2.0, 1.9, 2.1), *days], columns=columns)
    low, high = elsewhere.over_days(table).loc[0, ["low", "high"]]
    assert (low, high) == pytest.approx((2 - 2.484, 2 + 2.484), abs=1e-3)  # t of 2 degrees: 4.303
    assert "bootstrap" in elsewhere.method({"one": table})
    assert "bootstrap" not in elsewhere.method({"one": table.assign(units="days")})


def test_a_policy_that_loses_less_than_the_leader_is_bold_and_an_open_comparison_in_italics():
    row = pd.Series({"difference": -0.3, "low": -0.5, "high": -0.1})
    assert elsewhere._difference(row) == "**-0.300 (-0.50 to -0.10)**"
    assert elsewhere._difference(row.replace({-0.1: 0.1})) == "*-0.300 (-0.50 to +0.10)*"
    assert (
        elsewhere._difference(-row.rename({"low": "high", "high": "low"}))
        == "+0.300 (+0.10 to +0.50)"
    )
