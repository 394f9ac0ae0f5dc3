"""report.html as its reader sees it: a real browser, wide and on a phone, without a network."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from faro_pipeline.settings import Config

from faro_lib.figures import use_style
from faro_lib.workload.synthetic import synthetic
from faro_ops.advise.recommend.figure import capacity_curve
from faro_ops.cli.figure_page import page_of
from studies.figures.captions import save_all
from studies.figures.comparison import policies_by_capacity
from studies.figures.drawing import Drawing
from studies.report.page import write_report
from studies.report.tables import MEASURES
from studies.traces import write_traces

PHONE, DESKTOP = 390, 1280
MARKED = {16: "meets 1 %"}
POLICIES = ("FairShare", "AIAD", "Faro-FairSum (paper)", "Faro-PenaltyFairSum (paper)")
COLUMNS = (*MEASURES, "requests", "decision_ms_p50", "decision_ms_p99")
CURVE = pd.DataFrame(
    {
        "capacity_cores": [4, 8, 12, 16],
        "slo_violation_rate": [0.9, 0.4, 0.05, 0.0],
        "accepted_rate": 0.01,
    }
)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A page with a figure of a page's width, one of a column's, and tables with long names."""
    matplotlib.use("agg")
    use_style()
    results = tmp_path_factory.mktemp("results") / "a_workload_with_a_long_name_of_its_own"
    (results / "simulate").mkdir(parents=True)
    rng = np.random.default_rng(3)
    rows = [
        {"policy": policy, "capacity_cores": size, "trial": trial}
        | {name: rng.random() for name in COLUMNS}
        for size in (16, 36)
        for policy in POLICIES
        for trial in range(2)
    ]
    summary = pd.DataFrame(rows)
    summary.to_csv(results / "simulate" / "summary.csv", index=False)
    keys = [
        (policy, size, minute) for policy in POLICIES for size in (16, 36) for minute in range(10)
    ]
    minutes = pd.DataFrame(keys, columns=["policy", "capacity_cores", "minute"])
    minutes = minutes.assign(trial=0, job="a", utility=rng.random(len(keys)))
    minutes.to_parquet(results / "simulate" / "minutes.parquet")
    limit = summary[summary["policy"] == POLICIES[0]][["capacity_cores", "trial", "lost_utility"]]
    limit.to_csv(results / "simulate" / "limit.csv", index=False)
    drawn = {
        "policies": Drawing(policies_by_capacity(summary), "Policies", "A <b>bold</b> caption."),
        "curve": Drawing(
            capacity_curve(CURVE, MARKED),
            "Violations by capacity",
            "At 16 cores, the rate is accepted.",
        ),
    }
    write_traces(synthetic(seed=1, days=1, minutes=10), results / "traces")
    save_all(drawn, results / "figures" / "captions-my.json")
    write_report(
        results,
        Config().model_dump(),
        {"my": ["notebooks/10_traces.ipynb"]},
        results / "report.html",
    )
    return results / "report.html"


@pytest.fixture(scope="module")
def curve_page(tmp_path_factory):
    path = tmp_path_factory.mktemp("curve") / "curve.html"
    path.write_text(page_of(capacity_curve(CURVE, {}), "How many replicas?", "wide " * 60))
    return path


@pytest.fixture(params=["report", "curve_page"])
def page(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_every_figure_loads_and_nothing_complains(browser, page, width):
    browser.load(page, width)
    shown = browser.evaluate(
        "[...document.images].map(image => image.complete && image.naturalWidth > 0)"
    )
    assert shown
    assert all(shown)
    assert browser.complaints == []


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_the_page_is_no_wider_than_the_screen(browser, page, width):
    browser.load(page, width)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width


def test_text_on_a_phone_is_large_enough_to_read(browser, report):
    browser.load(report, PHONE)
    sizes = browser.evaluate(
        "[...document.querySelectorAll('p, td, figcaption')].map(e => "
        "parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(sizes) >= 14


def test_every_link_leads_somewhere_on_the_page(browser, report):
    browser.load(report, DESKTOP)
    lost = browser.evaluate(
        "[...document.querySelectorAll(`a[href^='#']`)].map(a => a.getAttribute('href'))"
        ".filter(h => !document.querySelector(h))"
    )
    assert lost == []


def test_every_picture_says_what_it_shows_to_who_cannot_see_it(browser, report):
    browser.load(report, DESKTOP)
    assert all(browser.evaluate("[...document.images].map(image => image.alt.length > 10)"))


def test_everything_that_scrolls_can_be_reached_by_the_keyboard(browser, report):
    browser.load(report, PHONE)
    scrolls = (
        "[...document.querySelectorAll('div')].filter(one => one.scrollWidth > one.clientWidth)"
    )
    assert browser.evaluate(f"{scrolls}.length") > 0
    assert browser.evaluate(
        f"{scrolls}.every(one => one.tabIndex === 0 && one.getAttribute('aria-label'))"
    )
    assert browser.evaluate(
        f"{scrolls}.every(one => getComputedStyle(one, '::after').content.includes('sideways'))"
    )
    assert browser.evaluate("document.querySelectorAll('main').length") == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_differs_from_its_background_in_both_colour_schemes(browser, report, scheme):
    browser.colours(scheme)
    browser.load(report, DESKTOP)
    style = "getComputedStyle(document.body)"
    text, ground = (
        browser.evaluate(f"{style}.{name}.match(/\\d+/g).map(Number)")
        for name in ("color", "backgroundColor")
    )
    browser.colours("")
    assert (sum(text) < sum(ground)) == (scheme == "light")
    assert abs(sum(text) - sum(ground)) > 450


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_nothing_seriously_hinders_a_reader_who_uses_other_senses(browser, page, width, scheme):
    """The rules of axe-core: contrast, names, order of headings, keyboard."""
    browser.colours(scheme)
    browser.load(page, width)
    barriers = browser.barriers()
    browser.colours("")
    assert barriers == []


def test_a_page_with_a_barrier_is_noticed(browser, tmp_path):
    (tmp_path / "bad.html").write_text(
        '<html><p style="color: #ccc; background: white">pale</p><img src=""></html>'
    )
    browser.load(tmp_path / "bad.html", DESKTOP)
    assert {one.split(":")[0] for one in browser.barriers()} >= {"color-contrast", "image-alt"}


def test_a_page_that_asks_for_something_else_is_noticed(browser, tmp_path):
    (tmp_path / "bad.html").write_text(
        '<html><img src="none.png"><script>throw new Error("no")</script></html>'
    )
    browser.load(tmp_path / "bad.html", DESKTOP)
    assert len(browser.complaints) >= 2


def test_a_click_on_a_heading_sorts_the_table_by_value_and_a_second_one_turns_it_over(
    browser, report
):
    browser.load(report, DESKTOP)
    cells = (
        "[...document.querySelector('tbody').rows].map(row => parseFloat(row.cells[1].textContent))"
    )
    click = "document.querySelector('th:nth-child(2) button').click()"
    browser.evaluate(click)
    up = browser.evaluate(cells)
    browser.evaluate(click)
    assert up == sorted(up)
    assert browser.evaluate(cells) == up[::-1]


def test_the_chart_shows_another_capacity_and_only_the_policies_that_are_chosen(browser, report):
    browser.load(report, DESKTOP)
    bars = "[...document.querySelectorAll('#chart .mark-rect.role-mark path')]"
    assert browser.evaluate(f"{bars}.length") == 2 * len(POLICIES)
    before = browser.evaluate(f"{bars}.map(bar => bar.getAttribute('d'))")
    browser.evaluate(
        "(() => { const menu = document.querySelector('#chart select'); menu.value = 36;"
        " menu.dispatchEvent(new Event('change')) })()"
    )
    browser.evaluate("new Promise(done => setTimeout(done, 500))")
    assert browser.evaluate(f"{bars}.map(bar => bar.getAttribute('d'))") != before
    entry = browser.evaluate(
        "(() => { const symbol = document.querySelector('#chart .role-legend-symbol path');"
        " symbol.scrollIntoView();"
        " const at = symbol.getBoundingClientRect();"
        " return [at.x + at.width / 2, at.y + at.height / 2] })()"
    )
    for kind in ("mousePressed", "mouseReleased"):
        browser.ask(
            "Input.dispatchMouseEvent",
            type=kind,
            x=entry[0],
            y=entry[1],
            button="left",
            clickCount=1,
        )
    browser.evaluate("new Promise(done => setTimeout(done, 500))")
    assert browser.evaluate(f"{bars}.length") == 2
    assert browser.complaints == []
