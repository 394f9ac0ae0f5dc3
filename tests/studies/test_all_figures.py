"""Every figure, drawn for jobs that all differ: legible, complete, and with captions that tell the
truth.
"""

import itertools
import re

import matplotlib
import numpy as np
import pandas as pd
import pytest
from checkouts import ROOT
from different_jobs import CAPACITIES, JOBS, write_all_tables
from matplotlib import pyplot as plt
from matplotlib.text import Text

from faro_lib.figures import style
from faro_lib.figures.style import COLUMN_IN, FONT_PT, PAGE_IN
from faro_lib.workload import Job
from faro_lib.workload.replicas import Batched
from faro_lib.workload.service import true_busy_s
from studies.ablation import figures as ablation
from studies.arena import figures as arena
from studies.comparison import figures as comparison
from studies.days import figures as days
from studies.figures.drawing import Drawing
from studies.forecast import figures as forecast
from studies.kubernetes import figures as kubernetes
from studies.live import figures as live
from studies.llm import figures as llm
from studies.misspecification import figures as misspecification
from studies.queueing import figures as queueing
from studies.replicas import figures as replicas
from studies.scale import figures as scale
from studies.sensitivity import figures as sensitivity
from studies.sharing import figures as sharing
from studies.sharing.world import ISOLATED
from studies.sloppify import figures as sloppify
from studies.tables.pages import content, declaring
from studies.traces import figures as traces

pytestmark = pytest.mark.slow
# Pictures of docs/images by their paths. `make pages` draws them, not the pipeline.
OF_PAGES = {picture.path: picture for one in declaring() for picture in one.pictures}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results") / "six"
    write_all_tables(folder)
    return folder


@pytest.fixture(scope="module")
def drawings(results):
    """Every figure by name."""
    matplotlib.use("agg")
    style.use_style()
    matplotlib.rcParams["figure.max_open_warning"] = 0
    drawn = dict(traces.draw(results, CAPACITIES))
    for module in (queueing, forecast, comparison, sloppify, ablation, sensitivity):
        drawn |= module.draw(results)
    drawn |= scale.draw(results, curve=True)
    drawn |= days.draw(results, worlds=["six", "other"], leader="Faro-Sum")
    drawn |= replicas.draw(results)
    drawn |= sharing.draw(results)
    drawn |= llm.draw(results)
    drawn |= misspecification.draw(results)
    drawn |= live.draw(results, backend="local")
    drawn |= kubernetes.draw(results, tables=str(ROOT / "data" / "recorded-kubernetes"))
    drawn |= arena.draw(results, entries=str(ROOT / "data" / "arena"))
    for path, picture in OF_PAGES.items():
        drawn[path] = Drawing(picture.draw(*map(content, picture.files)), path, "")
    for drawing in drawn.values():
        drawing.figure.draw_without_rendering()
    yield drawn
    plt.close("all")


def each(drawings, fault):
    """Name -> faults of the figures that have any."""
    faults = {name: list(fault(drawing)) for name, drawing in drawings.items()}
    return {name: found for name, found in faults.items() if found}


def test_every_figure_of_the_pipeline_is_drawn(drawings):
    page = (ROOT / "docs" / "comparison.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert set(drawings) - set(OF_PAGES) == set(rows)


def test_no_title_or_caption_lacks_a_number_or_a_name(drawings):
    def fault(drawing):
        yield from re.findall(r"\bnan\b|\bNaN\b|\bNone\b|  ", f"{drawing.title}. {drawing.caption}")

    assert not each(drawings, fault)


def test_every_text_has_one_size_at_print_width(drawings):
    def fault(drawing):
        if drawing.figure.get_size_inches()[0] not in (COLUMN_IN, PAGE_IN):
            yield drawing.figure.get_size_inches()
        yield from {
            (text.get_text(), text.get_fontsize())
            for text in drawing.figure.findobj(Text)
            if text.get_visible() and text.get_text() and text.get_fontsize() != FONT_PT
        }

    assert not each(drawings, fault)


def test_no_line_or_bar_leaves_its_axes(drawings):
    def fault(drawing):
        for axis in drawing.figure.axes:
            (left, right), (low, high) = map(sorted, (axis.get_xlim(), axis.get_ylim()))
            for line in axis.lines:
                points = (
                    line.get_xydata()
                    if line.get_transform() == axis.transData
                    else np.empty((0, 2))
                )
                x, y = points[np.isfinite(points).all(axis=1)].T
                if ((x < left) | (x > right) | (y < low) | (y > high)).any():
                    yield (
                        axis.get_title() or axis.get_ylabel(),
                        line.get_label(),
                        (low, high),
                        (y.min(), y.max()),
                    )
            for bar in axis.patches:
                box = bar.get_bbox() if hasattr(bar, "get_bbox") else None
                if box is not None and (box.x1 > right + 1e-9 or box.y1 > high + 1e-9):
                    yield axis.get_title(), box

    assert not each(drawings, fault)


def test_no_marker_is_cut_at_the_edge_of_its_axes(drawings):
    def fault(drawing):
        for axis in drawing.figure.axes:
            box = axis.get_window_extent()
            for line in axis.lines:
                if line.get_marker() in ("None", "", None) or not line.get_clip_on():
                    continue
                points = line.get_xydata().astype(float)
                x, y = axis.transData.transform(points[np.isfinite(points).all(axis=1)]).T
                radius = line.get_markersize() / 2 / 72 * drawing.figure.dpi
                inside = (x - radius > box.x0 - 1) & (x + radius < box.x1 + 1)
                inside &= (y - radius > box.y0 - 1) & (y + radius < box.y1 + 1)
                if not inside.all():
                    yield axis.get_title() or axis.get_ylabel(), line.get_label()

    assert not each(drawings, fault)


def test_no_legend_covers_a_line(drawings):
    def fault(drawing):
        for axis in drawing.figure.axes:
            if (legend := axis.get_legend()) is None:
                continue
            box = legend.get_window_extent()
            for line in axis.lines:
                path = line.get_path().transformed(line.get_transform())
                if len(path) and path.intersects_bbox(box, filled=False):
                    yield axis.get_title() or axis.get_ylabel(), line.get_label()

    assert not each(drawings, fault)


def test_no_grid_line_or_bar_crosses_the_number_of_a_bar(drawings):
    def fault(drawing):
        for axis in drawing.figure.axes:
            if not any(hasattr(one, "patches") for one in axis.containers):
                continue
            edge = axis.get_window_extent().x1
            for text in axis.texts:
                is_number = re.fullmatch(r"[\d.]+%?", text.get_text())
                if is_number and text.get_window_extent().x0 < edge:
                    yield axis.get_title(), text.get_text()

    assert not each(drawings, fault)


def test_every_line_of_a_page_has_a_marker_a_dash_or_a_width_of_its_own(drawings):
    def fault(drawing):
        if drawing.title not in OF_PAGES:
            return
        for axis in drawing.figure.axes:
            named = [one for one in axis.lines if not str(one.get_label()).startswith("_")]
            looks = [(one.get_marker(), one.get_linestyle(), one.get_linewidth()) for one in named]
            if len(set(looks)) < len(looks):
                yield axis.get_title() or axis.get_ylabel(), looks

    assert not each(drawings, fault)


def test_no_line_is_a_single_point_without_a_marker(drawings):
    def fault(drawing):
        for axis in drawing.figure.axes:
            for line in axis.lines:
                if (
                    line.get_visible()
                    and len(line.get_xdata()) == 1
                    and line.get_marker() in ("None", "", None)
                ):
                    yield axis.get_title(), line.get_label()

    assert not each(drawings, fault)


def test_no_two_texts_overlap_and_none_is_cut_off(drawings):
    def fault(drawing):
        figure = drawing.figure
        beyond = {
            id(label)
            for axis in figure.axes
            for way in (axis.xaxis, axis.yaxis)
            for tick in [*way.get_major_ticks(), *way.get_minor_ticks()]
            for label in (tick.label1, tick.label2)
            if not min(way.get_view_interval()) <= tick.get_loc() <= max(way.get_view_interval())
        }
        shown = [
            (text.get_text(), text.get_window_extent())
            for text in figure.findobj(Text)
            if text.get_visible() and text.get_text().strip() and id(text) not in beyond
            if text.axes is None or text.axes.get_visible()
        ]
        for text, box in shown:
            if (
                box.x0 < -1
                or box.y0 < -1
                or box.x1 > figure.bbox.width + 1
                or box.y1 > figure.bbox.height + 1
            ):
                yield "cut off", text
        for (text, box), (other, second) in itertools.combinations(shown, 2):
            if box.padded(-1).overlaps(second.padded(-1)):
                yield text, other

    assert not each(drawings, fault)


def test_the_load_is_in_cores_and_its_peak_is_the_one_in_the_caption(drawings, results):
    requests = pd.read_parquet(results / "traces" / "requests.parquet")
    day = requests[requests["split"] == "eval"].pivot(
        index="minute", columns="job", values="requests"
    )
    busy = sum(day[job.name] / 60 * job.service_time_s * job.cores for job in JOBS)
    drawing = drawings["offered_load"]
    np.testing.assert_allclose(drawing.figure.axes[0].lines[0].get_ydata(), busy)
    for capacity in CAPACITIES:
        mean, peak = busy.mean() / capacity, busy.max() / capacity
        sentence = (
            f"At {capacity} cores, the offered load is {mean:.0%} of capacity on average and "
            f"{peak:.0%} in the busiest minute."
        )
        assert sentence in drawing.caption


def test_the_load_of_a_batched_job_is_what_its_full_batches_keep_busy():
    job = Job("images", cores=2.0, replica=Batched(4, 0.1, 0.5, 0.1))
    requests = pd.DataFrame(
        {"split": "eval", "sample": 0, "minute": [0], "job": ["images"], "requests": [60]}
    )
    assert traces.offered_load(requests, [job]).tolist() == pytest.approx(
        [true_busy_s(job) * job.cores]
    )


def test_every_job_has_a_panel_with_a_scale_of_its_own_and_minutes_below_its_column(drawings):
    panels = [axis for axis in drawings["requests_by_job"].figure.axes if axis.get_visible()]
    assert [panel.get_title() for panel in panels] == [job.name for job in JOBS]
    tallest = [panel.lines[0].get_ydata().max() for panel in panels]
    assert all(0.5 < most / panel.get_ylim()[1] < 1 for most, panel in zip(tallest, panels))


def test_the_caption_of_the_comparison_has_the_extremes_of_the_table_and_its_bars_their_numbers(
    drawings, results
):
    summary = pd.read_csv(results / "simulate" / "summary.csv")
    drawing = drawings["policies"]
    panels = {(axis.get_title(), axis.get_xlabel()): axis for axis in drawing.figure.axes}
    for capacity, part in summary.groupby("capacity_cores"):
        mean = part.groupby("policy", sort=False)["lost_utility"].mean()
        sentence = (
            f"At {capacity} cores, {mean.idxmin()} loses the least utility ({mean.min():.2f}), "
        )
        assert (
            f"{sentence}{mean.idxmax()} the most ({mean.max():.2f}); the clairvoyant limit is 0.20."
            in drawing.caption
        )
        bars = panels[f"{capacity} cores", "lost cluster utility"]
        assert [text.get_text() for text in bars.texts] == [f"{lost:.2f}" for lost in mean]
        np.testing.assert_allclose([bar.get_width() for bar in bars.patches], mean)


def test_the_loss_in_the_caption_of_the_timeline_is_that_of_the_table_of_the_comparison(
    drawings, results
):
    summary = pd.read_csv(results / "simulate" / "summary.csv")
    shown = summary[
        (summary["capacity_cores"] == CAPACITIES[0]) & (summary["trial"] == 0)
    ].set_index("policy")["lost_utility"]
    caption = drawings["lost_utility_over_the_day"].caption
    assert f"loses {shown.min():.2f} utility on average under {shown.idxmin()}" in caption
    assert f"and {shown.max():.2f} under {shown.idxmax()}" in caption


def test_a_full_day_is_smoothed_until_lines_are_lines(drawings):
    losses = drawings["lost_utility_over_the_day"].figure.axes[0]
    assert losses.get_ylabel() == "lost utility\n(20-minute mean)"
    assert np.median(np.abs(np.diff(losses.lines[0].get_ydata()))) < 0.05 * np.ptp(
        losses.get_ylim()
    )
    panels = drawings["replicas_by_job"].figure.axes
    assert (
        max(len(line.get_xdata()) for panel in panels for line in panel.lines)
        <= comparison.MAX_STEPS
    )


def test_the_dots_of_the_solvers_are_the_medians_in_the_caption(drawings):
    drawing = drawings["solver_time_and_gap"]
    numbers = re.search(r"greedy ([\d.]+) in ([\d.]+) ms and", drawing.caption).groups()
    dots = np.concatenate([dots.get_offsets() for dots in drawing.figure.axes[0].collections])
    gap, seconds = float(numbers[0]), float(numbers[1]) / 1000
    assert np.isclose(dots, [seconds, gap], atol=[1e-4, 1e-4]).all(axis=1).any()


@pytest.mark.parametrize("missing", [{"objective": "Sum"}, {"solver": "exact"}])
def test_the_solvers_are_drawn_without_the_objective_sum_and_without_the_exact_solver(
    missing, results
):
    ((column, name),) = missing.items()
    answers = pd.read_csv(results / "sloppify" / "solvers.csv")
    answers = answers[
        ~answers["window"].str.endswith(sloppify.ENLARGED) & (answers[column] != name)
    ]
    caption = sloppify.solver_caption(answers)
    assert ("exact solver" in caption, "(Sum)" in caption) == (
        column == "objective",
        column == "solver",
    )
    assert re.search(r"greedy [\d.]+ in [\d.]+ ms and", caption)


def test_a_job_whose_changes_are_replicated_badly_is_named(drawings, results):
    steps = pd.read_parquet(results / "forecast" / "steps.parquet")
    bad = steps["replicated"].where(steps["job"] != "fraud", 9 * steps["observed"])
    assert "9.00 times (fraud)" in forecast.predictive_caption(steps.assign(replicated=bad))
    assert "over all jobs, and between 1.10 (" in drawings["predictive_check"].caption


def test_the_margin_in_the_caption_of_the_sensitivity_is_the_smallest_of_the_table(
    drawings, results
):
    table = pd.read_csv(results / "sensitivity" / "summary.csv")
    table = table[table["parameter"] != "slo_factor"]  # a single value is not drawn
    mean = table.groupby(["parameter", "value", "policy"])["lost_utility"].mean().unstack()
    margin = mean.drop(columns="Faro-Sum").min(axis=1) - mean["Faro-Sum"]
    drawing = drawings["sensitivity"]
    assert len(drawing.figure.axes) == 2
    assert (
        f"in {(margin > 0).sum()} of {len(margin)} settings, and more in {(margin < 0).sum()}. "
        f"Its margin is smallest, "
        f"{margin.min():.2f}," in drawing.caption
    )


def test_larger_clusters_are_drawn_without_a_limit_if_none_was_computed(results):
    summary = pd.read_csv(results / "scale" / "summary.csv")
    without = pd.DataFrame(columns=["variant", "jobs", "capacity_cores"])
    assert len(scale.larger_clusters(summary, without).axes) == 3


def test_shared_replicas_at_one_capacity_are_bars_with_their_numbers_and_not_lines_of_one_point(
    results,
):
    runs = pd.read_csv(results / "sharing" / "runs.csv")
    one = runs[runs["capacity_cores"] == 8]
    left, right = sharing.loss_by_cores(one).axes
    assert not [line for axis in (left, right) for line in axis.lines if line.get_marker() == "o"]
    isolated = one.loc[one["policy"] == ISOLATED, "lost_utility"].iloc[0]
    assert left.texts[0].get_text() == f"{isolated:.2f}"
    assert left.get_xlabel() == "lost cluster utility with 8 cores"
    assert right.get_yticklabels()[0].get_text() == "Faro-Sum"


def test_without_capacities_the_caption_of_the_load_has_its_mean_and_its_peak_in_cores():
    load = pd.Series([10.0, 20.0])
    assert (
        traces.load_caption(load, [])
        == "The offered load is 15.0 cores on average and 20.0 in the busiest minute."
    )
    assert len(traces.load_against_capacity(load, []).axes[0].lines) == 1


def test_decisions_that_lose_nothing_are_not_drawn_as_bars():
    rows = [
        ("exact", form, by, 18, 1 - 1e-16)
        for form in ("relaxed", "precise")
        for by in ("relaxed", "precise")
    ]
    scored = pd.DataFrame(
        rows, columns=["solver", "formulation", "scored_by", "capacity_cores", "realised"]
    )
    for axis in sloppify.sloppification(scored).axes:
        assert max(bar.get_height() for bar in axis.patches) < 0.01 * axis.get_ylim()[1]
