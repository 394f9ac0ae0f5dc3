"""docs/comparison.md shows the run in data/published-run, and its table marks the best policy."""

import runpy

import pytest
from checkouts import ROOT

PAGE = runpy.run_path(str(ROOT / "docs/comparison_tables.py"))


def test_the_page_has_the_tables_of_the_kept_run():
    page = PAGE["PAGE"].read_text()
    assert PAGE["with_tables"](page, *PAGE["kept"]()) == page


@pytest.mark.parametrize("measure", ["lost_utility_published", "slo_violation_rate"])
def test_one_policy_is_best_at_each_capacity(measure):
    rows = PAGE["table"](*PAGE["kept"](), measure).splitlines()
    assert sum(row.count("**") for row in rows) == 2 * len(PAGE["CAPACITIES"])
    assert len(rows) >= 2 + len(PAGE["NAMES"])


def test_the_kubernetes_page_has_the_table_of_the_recorded_trials():
    recorded = runpy.run_path(str(ROOT / "docs/recorded_trials.py"))
    page, table = recorded["PAGE"].read_text(), recorded["table"](recorded["pd"].read_csv(recorded["SUMMARY"]))
    assert recorded["marked"].with_table(page, recorded["MARK"], table) == page
    assert table.count("Faro-Sum") == 3
