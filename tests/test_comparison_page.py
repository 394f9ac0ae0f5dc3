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
