"""docs/comparison.md shows the run in data/published-run, and its table marks the best policy."""

import re
import runpy

import pandas as pd
import pytest
from checkouts import ROOT

PAGE = runpy.run_path(str(ROOT / "docs/comparison_tables.py"))


def test_the_page_has_the_tables_of_the_kept_run():
    page = PAGE["PAGE"].read_text()
    assert PAGE["with_tables"](page, PAGE["kept"]()) == page


@pytest.mark.parametrize("page", PAGE["FIRST_PAGES"], ids=lambda page: page.name)
def test_the_first_pages_have_the_table_of_the_kept_run(page):
    docs = PAGE["FIRST_PAGES"][page]
    assert PAGE["with_headline"](page.read_text(), PAGE["kept"](), docs) == page.read_text()


def test_the_first_pages_name_the_strongest_rival_of_each_column():
    losses = PAGE["mean_losses"](PAGE["kept"]()["summary"])
    least, names = PAGE["strongest_rivals"](losses)
    text = (ROOT / "README.md").read_text()
    for capacity in PAGE["CAPACITIES"]:
        rivals = losses[capacity].drop([one for one in losses.index if one.startswith("Faro")])
        assert least[capacity] <= rivals.min()
        assert f"{least[capacity]:.2f} ({names[capacity]})" in text


def test_means_that_differ_and_steps_that_raise_the_loss_are_named():
    run = PAGE["kept"]()
    summary = run["summary"]
    shifted = summary.copy()
    at = (shifted["policy"] == "Faro-Fair (paper)") & (shifted["capacity_cores"] == 36)
    assert "Fair at 36" not in PAGE["reproduction"](summary).replace("\n", " ")
    shifted.loc[at, PAGE["LOSS"]] += 0.2
    assert "Fair at 36 (+0.209)" in PAGE["reproduction"](shifted).replace("\n", " ")
    assert "`+ exact solver` at 32 (by 0.098" in PAGE["regressions"](run["ablation"])


@pytest.mark.parametrize("measure", ["lost_utility_published", "slo_violation_rate"])
def test_one_policy_is_best_at_each_capacity(measure):
    run = PAGE["kept"]()
    rows = PAGE["table"](run["summary"], run["limit"], measure).splitlines()
    assert sum(row.count("**") for row in rows) == 2 * len(PAGE["CAPACITIES"])
    assert len(rows) >= 2 + len(PAGE["NAMES"])


def test_steps_of_the_ablation_and_solvers_stand_beside_their_published_values():
    run = PAGE["kept"]()
    steps = PAGE["ablation"](run["ablation"], run["steps"])
    first = next(row for row in steps.splitlines() if row.startswith("| no relaxation |"))
    assert [cell.strip() for cell in first.split("|")[3:8:2]] == ["1.292", "1.475", "2.113"]
    assert re.fullmatch(r"\d\.\d{3} \(\d\.\d{3}\)", first.split("|")[2].strip())
    solvers = PAGE["solvers"](run["solvers"])
    cobyla = next(row for row in solvers.splitlines() if row.startswith("| relaxed | cobyla |"))
    assert [cell.strip() for cell in cobyla.split("|")[4:7:2]] == ["83.4 ms", "0.9994"]


def test_the_kubernetes_page_has_the_table_of_the_recorded_trials():
    recorded = runpy.run_path(str(ROOT / "docs/recorded_trials.py"))
    page = recorded["PAGE"].read_text()
    table = recorded["table"](recorded["pd"].read_csv(recorded["SUMMARY"]))
    assert recorded["marked"].with_table(page, recorded["MARK"], table) == page
    assert table.count("Faro-Sum") == 3


def test_the_live_page_has_the_table_of_the_recorded_long_run():
    recorded = runpy.run_path(str(ROOT / "docs/recorded_trials.py"))
    page = recorded["LIVE_PAGE"].read_text()
    assert recorded["with_long_run"](page) == page


@pytest.mark.parametrize("name", ["index.md", "limits.md", "live.md"])
def test_pages_that_name_the_recorded_trials_also_tell_the_one_with_a_lost_worker(name):
    recorded = runpy.run_path(str(ROOT / "docs/recorded_trials.py"))
    page = (ROOT / "docs" / name).read_text()
    assert recorded["with_finding"](page) == page
    assert "1.96 against\n1.67" in page or "1.96 against 1.67" in page


def test_the_page_of_replicas_has_the_table_of_the_live_runs_whose_p99_is_within_15_percent():
    twins = runpy.run_path(str(ROOT / "docs/twins.py"))
    page = twins["PAGE"].read_text()
    runs = twins["pd"].read_csv(twins["RECORDED"])
    assert twins["marked"].with_table(page, twins["MARK"], twins["table"](runs)) == page
    assert runs.groupby(["service", "load"])["trial"].nunique().eq(3).all()
    assert (runs["live_p99_s"] / runs["twin_p99_s"] - 1).abs().max() < 0.15
    assert (runs["live_rps"] / runs["twin_rps"] - 1).abs().max() < 0.05
    assert runs["requests_per_s"].max() > 120


def test_the_page_of_other_workloads_has_the_tables_of_the_kept_run():
    elsewhere = runpy.run_path(str(ROOT / "docs/elsewhere_tables.py"))
    worlds = elsewhere["kept"]()
    page = elsewhere["PAGE"].read_text()
    assert "published" in worlds
    assert elsewhere["with_tables"](page, worlds) == page


def test_pages_have_the_tables_of_the_recorded_rivals_and_of_their_settings():
    rivals = runpy.run_path(str(ROOT / "docs/rivals_tables.py"))
    choices = rivals["CHOICES"].read_text()
    assert rivals["with_choices"](choices) == choices
    for world in rivals["recorded"]():
        page = rivals["PAGES"][world].read_text()
        assert rivals["with_table"](page, world) == page


def test_the_worlds_of_a_family_are_the_units_of_its_intervals():
    families = runpy.run_path(str(ROOT / "docs/families_tables.py"))
    page = families["PAGE"].read_text()
    assert families["with_table"](page) == page
    lost = {"Faro-Sum": [0.1, 0.2, 0.3], "HPA": [0.2, 0.4, 0.6], "MArk": [0.1, 0.1, 0.1]}
    rows = [
        ("flash-crowd", seed, 20, policy, value)
        for policy, values in lost.items()
        for seed, value in enumerate(values)
    ]
    columns = ["family", "seed", "capacity_cores", "policy", "lost_utility"]
    text = families["table"](pd.DataFrame(rows, columns=columns))
    # 0.2 +- t(0.975, 2 degrees) 0.1 / sqrt(3)
    assert "| flash-crowd | 3 | 20 | 0.200 | *+0.200 (-0.05 to +0.45)* |" in text
    assert "| *-0.100 (-0.35 to +0.15)* |" in text


def test_a_tuned_rival_is_compared_with_faro_on_the_same_trials():
    rivals = runpy.run_path(str(ROOT / "docs/rivals_tables.py"))
    lost = {"Faro-Sum": (0.2, 0.4), "HPA": (0.5, 0.7)}  # the trials differ, the difference does not
    rows = [
        (11, policy, 36, trial, value)
        for policy, values in lost.items()
        for trial, value in enumerate(values)
    ]
    columns = ["day", "policy", "capacity_cores", "trial", "lost_utility_published"]
    table = rivals["table"]("published", pd.DataFrame(rows, columns=columns))
    assert "| Faro-Sum | **0.300** |" in table
    assert "| HPA, tuned | 0.600, +0.300 (+0.30 to +0.30) |" in table


def test_an_earlier_run_has_intervals_over_its_days_and_says_which_are_of_the_earlier_method():
    elsewhere = runpy.run_path(str(ROOT / "docs/elsewhere_tables.py"))
    columns = ["day", "capacity_cores", "policy", "difference", "low", "high"]
    days = [(str(day), 9, "A", 1.0 + day, 0.0, 9.0) for day in range(3)]
    table = pd.DataFrame([("all", 9, "A", 2.0, 1.9, 2.1), *days], columns=columns)
    low, high = elsewhere["over_days"](table).loc[0, ["low", "high"]]
    assert (low, high) == pytest.approx((2 - 2.484, 2 + 2.484), abs=1e-3)  # t of 2 degrees: 4.303
    assert "earlier method" in elsewhere["method"]({"one": table})
    assert "earlier" not in elsewhere["method"]({"one": table.assign(units="days")})


def test_a_policy_that_loses_less_than_the_leader_is_bold_and_an_open_comparison_in_italics():
    elsewhere = runpy.run_path(str(ROOT / "docs/elsewhere_tables.py"))
    row = pd.Series({"difference": -0.3, "low": -0.5, "high": -0.1})
    assert elsewhere["_difference"](row) == "**-0.300 (-0.50 to -0.10)**"
    assert elsewhere["_difference"](row.replace({-0.1: 0.1})) == "*-0.300 (-0.50 to +0.10)*"
    assert (
        elsewhere["_difference"](-row.rename({"low": "high", "high": "low"}))
        == "+0.300 (+0.10 to +0.50)"
    )


def test_the_page_of_sharing_has_the_tables_of_the_recorded_runs():
    sharing = runpy.run_path(str(ROOT / "docs/sharing_tables.py"))
    page = sharing["PAGE"].read_text()
    assert sharing["with_tables"](page) == page
    mean = sharing["read_runs"]().groupby(["policy", "models", "cores"])[sharing["LOSS"]].mean()
    shown = " | ".join(f"{mean['Faro-Sum', 2, cores]:.2f}" for cores in (36, 32, 16))
    assert f"| {shown} |" in (ROOT / "README.md").read_text()
