"""The HTML report: correct numbers, a caption for each figure, and nothing loaded from files."""

import hashlib
import json
import re

import numpy as np
import pandas as pd
import pytest
from faro_pipeline.settings import Config

from faro_lib.workload.synthetic import synthetic
from studies.report import findings
from studies.report.page import write_report
from studies.report.tables import MEASURES
from studies.tables.paired import t_interval
from studies.traces.files import write_traces

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
    "0000000d49444154789c6360f8cf500f00038601805a347d6b"
    "0000000049454e44ae426082"
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The folder of a pipeline's results."""
    return tmp_path_factory.mktemp("report") / "my"


@pytest.fixture(scope="module")
def page(results):
    (results / "simulate").mkdir(parents=True)
    (results / "figures").mkdir()
    rng = np.random.default_rng(5)
    rows = [
        {"policy": policy, "capacity_cores": size, "trial": trial, "requests": 1000}
        | {name: base + rng.random() / 100 for name in MEASURES}
        | {"decision_ms_p50": 10 * base, "decision_ms_p99": 40 * base}
        for size in (16, 36)
        for policy, base in (("AIAD", 0.5), ("<Faro>", 0.25))
        for trial in range(3)
    ]
    pd.DataFrame(rows).to_csv(results / "simulate" / "summary.csv", index=False)
    key = {"policy": ["AIAD", "<Faro>"], "capacity_cores": 16, "trial": 0, "job": "a"}
    minutes = [pd.DataFrame(key | {"minute": minute, "utility": 0.5}) for minute in range(3)]
    pd.concat(minutes).to_parquet(results / "simulate" / "minutes.parquet")
    floor = pd.DataFrame({"capacity_cores": [16, 36], "trial": 0, "lost_utility": 0.125})
    floor.to_csv(results / "simulate" / "limit.csv", index=False)
    write_traces(synthetic(seed=1, days=2, minutes=60).first_jobs(3), results / "traces")
    (results / "notebooks").mkdir()
    (results / "notebooks" / "10_traces.ipynb").write_text("content")
    for name in ("half_wait", "policies", "kubernetes", "of_another_run"):
        (results / "figures" / f"{name}.png").write_bytes(PIXEL)
    sources = {}
    for name, text, links in (
        ("kubernetes", "Elsewhere.", []),
        ("half_wait", "Slower.", []),
        ("policies", "Faster & <better>.", ["simulate/summary.csv"]),
    ):
        sources[f"stage_of_{name}"] = links
        texts = {"title": f"The {name}", "caption": text, "recorded": name == "kubernetes"}
        (results / "figures" / f"captions-stage_of_{name}.json").write_text(
            json.dumps({name: texts})
        )
    for stale in ("50_simulation-999.ipynb", "50_simulation-16.partial.ipynb"):
        (results / "notebooks" / stale).write_text("of another run")
    run = [str(results / "notebooks" / "10_traces.ipynb")]
    write_report(results, Config().model_dump(), sources, results / "report.html", run)
    return pd.DataFrame(rows), (results / "report.html").read_text()


def test_every_cell_is_mean_and_standard_deviation_over_trials_and_says_how_many(page):
    table, html = page
    trials = table[(table["policy"] == "AIAD") & (table["capacity_cores"] == 36)]["lost_utility"]
    row = re.search(r"<td>AIAD</td>.*?</tr>", html).group()
    assert f"<td>{trials.mean():.3f} ± {trials.std():.3f}</td>" in row
    assert row.endswith("<td>3</td></tr>")


def test_the_largest_cluster_comes_first(page):
    _, html = page
    assert re.findall(r'<h3 id="size-(\d+)"', html) == ["36", "16"]


def test_the_best_value_of_each_column_is_bold_and_no_other(page):
    _, html = page
    rows = re.findall(r"<tr><td>(.*?)</td>(.*?)</tr>", html)
    bold = {policy: cells.count("<b>") for policy, cells in rows}
    assert bold == {"AIAD": 0, "&lt;Faro&gt;": len(MEASURES), "clairvoyant limit": 0}


def test_the_difference_to_the_best_policy_is_paired_by_trial_and_has_an_interval(page):
    from scipy.stats import ttest_rel

    table, html = page
    at = table[table["capacity_cores"] == 36].pivot(
        index="trial", columns="policy", values="lost_utility"
    )
    test = ttest_rel(at["AIAD"], at["<Faro>"])
    low, high = test.confidence_interval(0.95)
    row = re.search(r"<td>AIAD</td>.*?</tr>", html).group()
    assert f"<td>{(low + high) / 2:+.3f} ± {(high - low) / 2:.3f}</td>" in row
    best = re.search(r"<td>&lt;Faro&gt;</td>.*?</tr>", html).group()
    assert best.endswith("<td>-</td><td>3</td></tr>")


def test_the_limit_is_a_row_and_every_column_is_defined_below_the_table(page):
    _, html = page
    assert "<td>clairvoyant limit</td><td>0.125</td><td>-</td>" in html
    assert all(
        f"<i>{heading}</i>: {definition}." in html for heading, _, definition in MEASURES.values()
    )


def test_figures_are_numbered_by_question_without_those_of_another_configuration(page):
    _, html = page
    assert re.findall(r'<figure id="(\w+)"', html) == ["policies", "half_wait", "kubernetes"]
    assert "<b>Figure 1. The policies.</b> Faster &amp; &lt;better&gt;." in html
    assert html.index("Which policy wins?</h2>") < html.index("Figure 1.") < html.index("Why?</h2>")


def test_recorded_runs_have_a_section_of_their_own_at_the_end(page):
    _, html = page
    _, recorded = html.split("Recorded earlier: not results of this run</h2>")
    assert re.findall(r'<figure id="(\w+)"', recorded) == ["kubernetes"]


def test_the_page_begins_with_sizes_and_findings(page):
    table, html = page
    assert (
        "3 jobs, 60 minutes, 1,000 requests, 2 policies and 2 trials per policy and capacity (36, "
        "16 cores)" in html
    )
    found = re.findall(r"<li>(.*?)</li>", html)
    assert len(found) == 5
    mean = table[table["capacity_cores"] == 36].groupby("policy")["lost_utility"].mean()
    assert found[0].startswith(
        f"The lowest lost cluster utility is {mean['<Faro>']:.3f} at 36 cores, under &lt;Faro&gt;, "
    )
    assert (
        found[3] == "No forecast was scored, because the workload has fewer than two training days."
    )
    assert found[4].startswith("Decisions are slowest under AIAD: 5.0 ms in the median and 20.0 ms")


def test_nothing_is_loaded_from_elsewhere(page):
    _, html = page
    # The scripts of the chart can load files, but its data are in the page; a browser without a
    # network shows that.
    html = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    assert not re.search(r"<script|url\(|@import|fetch|http", html)
    loaded = re.findall(r'<(?!a )[^>]*(?:src|href)="([^"#][^"]*)"', html)
    assert loaded
    assert all(source.startswith("data:") for source in loaded)


def test_the_page_links_data_and_the_notebooks_of_this_run_and_names_code_and_data(page, results):
    _, html = page
    links = re.findall(r'<a href="([^"#]+)"', html)
    assert links == [
        "simulate/summary.csv",
        "simulate/minutes.parquet",
        "simulate/summary.csv",
        "notebooks/10_traces.ipynb",
    ]
    assert (
        hashlib.sha256((results / "traces" / "requests.parquet").read_bytes()).hexdigest() in html
    )
    assert re.search(
        r"Git commit of the code: <code>([0-9a-f]{40}( \+ local changes)?|unknown)</code>", html
    )


def test_configuration_seeds_and_versions_stand_on_the_page(page):
    _, html = page
    assert "Trial seeds: 24, 32." in html
    assert "generated from seed 1." in html
    assert "capacities: [36, 32, 16]" in html
    assert f"numpy {np.__version__}" in html


def trials(**lost):
    """A summary at 8 cores with the lost utility of each policy by trial."""
    rows = [
        {
            "policy": policy,
            "capacity_cores": 8,
            "trial": trial,
            "lost_utility": value,
            "slo_violation_rate": value,
        }
        for policy, values in lost.items()
        for trial, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_a_policy_that_is_better_in_every_trial_by_the_same_margin_is_named_the_winner():
    summary = trials(A=[0.5, 0.6, 0.7], B=[0.2, 0.3, 0.41])
    text = findings.lowest(summary, "lost_utility")
    assert text == (
        "The lowest lost cluster utility is 0.303 at 8 cores, under B, 0.297 ± 0.014 below the "
        "next policy, A."
    )
    violations = findings.lowest(summary, "slo_violation_rate")
    assert (
        "30.33% at 8 cores, under B, 29.67 ± 1.43 percentage points below the next policy, A."
        in violations
    )


def test_no_policy_is_called_better_if_the_interval_includes_a_tie():
    text = findings.lowest(
        trials(A=[0.5, 0.3, 0.4], B=[0.4, 0.4, 0.3], C=[2.0, 2.0, 2.0]), "lost_utility"
    )
    assert text.endswith(
        "(no policy is clearly better, because the interval against A includes zero)."
    )
    assert "clearly" in findings.lowest(trials(A=[0.5, 0.5], B=[0.5, 0.5]), "slo_violation_rate"), (
        "equal"
    )
    single = findings.lowest(trials(A=[0.5], B=[0.4]), "lost_utility")
    assert single.endswith(
        "0.100 below the next policy, A (a single trial, so no policy is clearly better)."
    )
    assert findings.lowest(trials(A=[0.5]), "lost_utility").endswith(
        "is 0.500 at 8 cores, under A."
    )


def test_the_distance_to_the_limit_is_paired_by_trial():
    limit = pd.DataFrame({"capacity_cores": 8, "trial": [0, 1], "lost_utility": [0.1, 0.3]})
    text = findings.above_the_limit(trials(A=[0.2, 0.4], B=[0.9, 0.9]), limit)
    assert text.endswith("limit: 0.100 ± 0.000 more than 0.200 at 8 cores (A).")


def test_days_and_not_their_trials_are_the_observations_if_there_are_several_days():
    index = pd.MultiIndex.from_product([[1, 2], range(50)], names=["day", "trial"])
    values = pd.Series([1.0] * 50 + [2.0] * 50, index)
    mean, half_width = t_interval(values, values * 0)
    assert (mean, half_width) == pytest.approx((1.5, 0.5 * 12.706), rel=1e-3)
