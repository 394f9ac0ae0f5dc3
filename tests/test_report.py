"""The HTML report: correct numbers, a caption for each figure, and nothing loaded from other files."""

import hashlib
import json
import re

import numpy as np
import pandas as pd
import pytest

from faro_lib.config import Config
from faro_lib.report import MEASURES, write_report

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360f8cf500f0003860180"
    "5a347d6b0000000049454e44ae426082"
)


@pytest.fixture
def page(tmp_path):
    results = tmp_path / "my"
    (results / "simulate").mkdir(parents=True)
    (results / "figures").mkdir()
    rng = np.random.default_rng(5)
    rows = [
        {"policy": policy, "capacity_cores": size, "trial": trial}
        | {name: base + rng.random() / 100 for name in MEASURES}
        for size in (16, 36)
        for policy, base in (("AIAD", 0.5), ("<Faro>", 0.25))
        for trial in range(3)
    ]
    pd.DataFrame(rows).to_csv(results / "simulate" / "summary.csv", index=False)
    floor = pd.DataFrame({"capacity_cores": [16, 36], "trial": 0, "lost_utility": 0.125})
    floor.to_csv(results / "simulate" / "limit.csv", index=False)
    for folder, name in (("traces", "requests.parquet"), ("notebooks", "10_traces.ipynb")):
        (results / folder).mkdir()
        (results / folder / name).write_text("content")
    for name in ("second", "first", "of_another_run"):
        (results / "figures" / f"{name}.png").write_bytes(PIXEL)
    files = []
    for name, text in (("second", "Slower."), ("first", "Faster & <better>.")):
        files.append(results / "figures" / f"captions-{name}.json")
        files[-1].write_text(json.dumps({name: {"title": f"The {name}", "caption": text}}))
    write_report(results, Config().model_dump(), files, results / "report.html")
    return pd.DataFrame(rows), (results / "report.html").read_text()


def test_every_cell_is_mean_and_standard_deviation_over_trials_and_says_how_many(page):
    table, html = page
    trials = table[(table["policy"] == "AIAD") & (table["capacity_cores"] == 36)]["lost_utility"]
    row = re.search(r"<td>AIAD</td>.*?</tr>", html).group()
    assert f"<td>{trials.mean():.3f} ± {trials.std():.3f}</td>" in row
    assert row.endswith("<td>3</td></tr>")


def test_the_largest_cluster_comes_first(page):
    _, html = page
    assert re.findall(r'<h2 id="size-(\d+)"', html) == ["36", "16"]


def test_the_best_value_of_each_column_is_bold_and_no_other(page):
    _, html = page
    rows = re.findall(r"<tr><td>(.*?)</td>(.*?)</tr>", html)
    bold = {policy: cells.count("<b>") for policy, cells in rows}
    assert bold == {"AIAD": 0, "&lt;Faro&gt;": len(MEASURES), "clairvoyant limit": 0}


def test_the_difference_to_the_best_policy_is_paired_by_trial_and_has_an_interval(page):
    from scipy.stats import ttest_rel

    table, html = page
    at = table[table["capacity_cores"] == 36].pivot(index="trial", columns="policy", values="lost_utility")
    test = ttest_rel(at["AIAD"], at["<Faro>"])
    low, high = test.confidence_interval(0.95)
    row = re.search(r"<td>AIAD</td>.*?</tr>", html).group()
    assert f"<td>{(low + high) / 2:+.3f} ± {(high - low) / 2:.3f}</td>" in row
    best = re.search(r"<td>&lt;Faro&gt;</td>.*?</tr>", html).group()
    assert best.endswith("<td>-</td><td>3</td></tr>")


def test_the_limit_is_a_row_and_every_column_is_defined_below_the_table(page):
    _, html = page
    assert "<td>clairvoyant limit</td><td>0.125</td><td>-</td>" in html
    assert all(f"<i>{heading}</i>: {definition}." in html for heading, _, definition in MEASURES.values())


def test_the_figures_of_this_run_are_numbered_in_order_and_others_are_left_out(page):
    _, html = page
    assert re.findall(r'<figure id="(\w+)"', html) == ["second", "first"]
    assert "<b>Figure 2. The first.</b> Faster &amp; &lt;better&gt;." in html


def test_nothing_is_loaded_from_elsewhere_and_nothing_is_run(page):
    _, html = page
    assert "<script" not in html
    loaded = re.findall(r'<(?!a )[^>]*(?:src|href)="([^"#][^"]*)"', html)
    assert loaded
    assert all(source.startswith("data:") for source in loaded)


def test_the_page_links_the_executed_notebooks_and_names_code_and_data(page):
    _, html = page
    assert re.findall(r'<a href="([^"#]+)"', html) == ["notebooks/10_traces.ipynb"]
    assert hashlib.sha256(b"content").hexdigest() in html
    assert re.search(r"Git commit of the code: <code>([0-9a-f]{40}( \+ local changes)?|unknown)</code>", html)


def test_configuration_seeds_and_versions_stand_on_the_page(page):
    _, html = page
    assert "Trial seeds: 24, 32." in html
    assert "generated from seed 1." in html
    assert "capacities: [36, 32, 16]" in html
    assert f"numpy {np.__version__}" in html
