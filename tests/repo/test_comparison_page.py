"""docs/comparison.md shows the run in data/published-run, and its table marks the best policy."""

import runpy

import pandas as pd
import pytest
from checkouts import ROOT

PAGE = runpy.run_path(str(ROOT / "docs/comparison_tables.py"))


def test_the_page_has_the_tables_of_the_kept_run():
    page = PAGE["PAGE"].read_text()
    assert PAGE["with_tables"](page, PAGE["kept"]()) == page


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
    solvers = PAGE["solvers"](run["solvers"])
    cobyla = next(row for row in solvers.splitlines() if row.startswith("| relaxed | cobyla |"))
    assert [cell.strip() for cell in cobyla.split("|")[4:7:2]] == ["83.4 ms", "0.9994"]


def test_the_kubernetes_page_has_the_table_of_the_recorded_trials():
    recorded = runpy.run_path(str(ROOT / "docs/recorded_trials.py"))
    page = recorded["PAGE"].read_text()
    table = recorded["table"](recorded["pd"].read_csv(recorded["SUMMARY"]))
    assert recorded["marked"].with_table(page, recorded["MARK"], table) == page
    assert table.count("Faro-Sum") == 3


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


def test_a_policy_that_loses_less_than_the_leader_is_bold_and_an_open_comparison_in_italics():
    elsewhere = runpy.run_path(str(ROOT / "docs/elsewhere_tables.py"))
    row = pd.Series({"difference": -0.3, "low": -0.5, "high": -0.1})
    assert elsewhere["_difference"](row) == "**-0.300 (-0.50 to -0.10)**"
    assert elsewhere["_difference"](row.replace({-0.1: 0.1})) == "*-0.300 (-0.50 to +0.10)*"
    assert (
        elsewhere["_difference"](-row.rename({"low": "high", "high": "low"}))
        == "+0.300 (+0.10 to +0.50)"
    )


def test_the_page_of_sharing_has_the_table_of_the_recorded_runs():
    sharing = runpy.run_path(str(ROOT / "docs/sharing_tables.py"))
    page = sharing["PAGE"].read_text()
    runs = sharing["read_runs"]()
    assert sharing["marked"].with_table(page, sharing["MARK"], sharing["table"](runs)) == page
    live, costs = sharing["read_live"](), sharing["read_live"]("-path")
    if len(live):
        table = sharing["live_table"](live)
        assert sharing["marked"].with_table(page, sharing["LIVE_MARK"], table) == page
        table = sharing["path_table"](costs, live)
        assert sharing["marked"].with_table(page, sharing["PATH_MARK"], table) == page
    mean = runs.groupby(["policy", "models", "cores"])[sharing["LOSS"]].mean()
    shown = " / ".join(f"{mean['Faro-Sum', 2, cores]:.2f}" for cores in (36, 32, 16))
    assert f"| {shown} |" in (ROOT / "README.md").read_text()
