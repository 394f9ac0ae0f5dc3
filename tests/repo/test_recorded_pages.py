"""Pages whose tables come from recorded runs: what stands there is what the script writes."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.fixture
def script(monkeypatch):
    """A function that imports a script of docs/ by its name."""
    monkeypatch.setattr(sys, "path", [str(DOCS), *sys.path])
    return importlib.import_module


def between(page: str, mark: str) -> str:
    """What stands after the comment `mark` on a page of docs/."""
    _, rest = (DOCS / page).read_text().split(f"<!-- {mark} -->\n")
    return rest.split("<!-- end of table -->")[0].strip()


def test_the_page_of_learning_has_the_recorded_losses(script):
    tables = script("learning_tables")
    runs = pd.read_csv(tables.RUNS)
    assert between("learning.md", tables.MARK) == tables.table(runs)
    assert between("learning.md", tables.HOUR_MARK) == tables.hour_after(runs)
    assert between("learning.md", tables.SPREAD_MARK) == tables.spread_finding(runs)
    scaling = pd.read_csv(tables.SCALING)
    assert between("learning.md", tables.SCALING_MARK) == tables.scaling_table(scaling)
    published = runs[runs["workload"] == "published"]
    assert between("comparison.md", tables.FINDING_MARK) == tables.finding(published)
    assert between("learning.md", tables.LIVE_MARK) == tables.live_table(
        tables.live_tables(tables.TRIALS)
    )


def test_a_row_of_the_live_trials_has_the_slow_services_factors_and_who_missed_how_much(script):
    tables = script("learning_tables")
    key = {"trial": 0, "environment": "live"}
    factor = {1: 1.0, 2: 1.2, 5: 1.3, 10: 1.44, 12: 1.52}
    factors = pd.DataFrame(
        [
            key | {"minute": minute, "job": job, "true": true, "factor": value}
            for minute, slow in factor.items()
            for job, true, value in (("a", 1.0, 0.98), ("b", 1.0, 1.03), ("c", 1.5, slow))
        ]
    )
    shares = zip(tables.LIVE_COLUMNS, (0.031, 0.029, 0.3))
    runs = pd.DataFrame([key | {"policy": name, "missed_share": share} for name, share in shares])
    row = tables.live_table({"ray": (factors, runs)}).splitlines()[-1]
    assert row.split(" | ") == [
        *("| Ray Serve", "1", "live", "1.20, 1.30, 1.44, 1.52"),
        *("10 (±10%)", "0.98 and 1.03", "3.1%", "2.9%", "30.0% |"),
    ]


def test_the_page_of_the_papers_figures_has_the_published_and_the_recorded_numbers(script):
    tables = script("paper_figures")
    assert between("paper-figures.md", tables.HEADLINE) == tables.headline(tables.ratios())
    assert between("paper-figures.md", tables.FIGURES) == tables.figures()


def test_the_papers_headline_is_in_its_published_table(script):
    """The paper: 2.3 to 23 times fewer SLO violations. Its table has the upper end, rounded."""
    ratios = script("paper_figures").ratios()
    assert ratios["published"].max() == pytest.approx(23, abs=1)
    assert (ratios["ours"] > 1).all()


def test_the_page_of_gpus_has_the_fits_that_a_jobs_table_can_name(script):
    tables = script("gpus_tables")
    assert between("gpus.md", tables.MARK) == tables.table(tables.entries())
    assert between("gpus.md", tables.FINDING) == tables.finding(tables.entries())


def test_the_page_of_the_engine_has_what_is_recorded(script):
    tables = script("engine_tables")
    page = (ROOT / "docs/engine.md").read_text()
    assert tables.page(page, tables.read()) == page


def test_the_page_of_prefill_and_decode_apart_has_the_recorded_numbers(script):
    tables = script("disaggregated_tables")
    shares, solved = pd.read_csv(tables.SHARES), pd.read_csv(tables.SOLVED)
    assert between("disaggregated.md", tables.MARK) == tables.table(shares)
    assert between("disaggregated.md", tables.SOLVED_MARK) == tables.solved_table(solved)
    roles = tables.roles_table(pd.read_csv(tables.ROLES))
    assert between("disaggregated.md", tables.ROLES_MARK) == roles
    day = tables.day_table(pd.read_csv(tables.DAY))
    assert between("disaggregated.md", tables.DAY_MARK) == day
    written = between("disaggregated.md", tables.FINDING_MARK)
    assert " ".join(written.split()) == tables.finding(shares)


def test_the_fits_of_gpus_miss_what_they_have_not_seen_by_at_most_15_percent(script):
    errors = [
        np.abs(entry[name])
        for entry in script("gpus_tables").entries()
        for name in ("prompt_errors", "token_errors")
    ]
    assert np.median(np.concatenate(errors)) <= 0.05
    assert np.concatenate(errors).max() <= 0.15


def test_the_page_of_bursts_has_the_recorded_numbers(script):
    tables = script("arrivals_tables")
    assert between("arrivals.md", tables.DISPERSION) == tables.dispersion_table(
        tables.dispersions()
    )
    assert between("arrivals.md", tables.PLANNERS) == tables.planner_table(tables.planners())


def test_the_bursts_have_the_dispersion_of_the_log_and_renewal_processes_have_not(script):
    errors = script("arrivals_tables").dispersions().set_index(["process", "service", "window_s"])
    errors = errors["error"].abs()
    bursts = errors["bursts"].unstack()
    assert (bursts[[10.0, 60.0]] <= 0.15).all(axis=None)
    assert (bursts[1.0] <= 0.25).all()
    for family in ("gamma gaps", "Weibull gaps"):
        assert errors[family, "code", 10.0] > 0.5
        assert errors[f"{family}, in minutes", "code", 10.0] > 0.5


def test_the_page_of_language_models_has_the_recorded_numbers(script):
    tables = script("llm_tables")
    for name, (file, of) in tables.TABLES.items():
        assert between("llm.md", tables.marker(name)) == of(tables.table(file)), name


def test_the_first_half_hour_predicts_the_second_within_15_percent_at_three_sizes(script):
    rows = script("llm_tables").table("azure").set_index("service").loc["conv"]
    simulated = (rows["simulated_s"] / rows["second_s"] - 1).abs() <= 0.15
    predicted = (rows["predicted_minutes_s"] / rows["second_minutes_s"] - 1).abs() <= 0.15
    assert (simulated & predicted).sum() >= 3


def test_fitted_bursts_recover_half_of_what_the_assumption_loses_on_exact_times(script):
    tables = script("llm_tables")
    lost = []
    for _, part in tables.judged_planners(tables.table("azure-planners")):
        mean, low, _ = tables.missed_less(part, tables.TRUE)
        if low > 0:
            lost.append(mean)
            assert tables.missed_less(part, tables.FITTED)[0] >= 0.5 * mean
    assert lost


def test_policies_that_drop_requests_got_the_same_ones_and_drops_were_chosen_on_training_days(
    script,
):
    tables = script("llm_tables")
    key = ["day", "start_min", "capacity_cores", "policy"]
    with_drops, without = (tables.table(name).set_index(key) for name in ("drops", "compare"))
    assert with_drops.index.equals(without.index)
    assert with_drops["requests"].equals(without["requests"])
    assert tables.table("drops-training")["day"].max() <= 10
    assert len(tables.allowed(tables.table("compare"))) == len(without)


def test_policies_of_language_models_were_judged_on_the_same_requests_of_later_days(script):
    runs = script("llm_tables").table("compare")
    tried = script("llm_tables").table("tuning")
    requests = runs.groupby(["day", "start_min", "capacity_cores"])["requests"]
    assert (requests.nunique() == 1).all()
    assert (requests.size() == 6).all()
    assert runs["day"].min() > 10
    assert set(runs["capacity_cores"]) <= set(tried["capacity_cores"])
