"""Figures are legible in print and to colour-blind readers."""

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from faro_lib.figures import style
from faro_lib.workload import Job
from studies.comparison import figures as comparison
from studies.comparison import headline
from studies.comparison.tables import LIMIT, SUMMARY
from studies.figures import common
from studies.forecast import figures as forecast
from studies.sloppify import figures as sloppify
from studies.tables.pages import content

# Linear RGB as seen without one type of cone (Machado, Oliveira and Fernandes 2009, severity 1).
VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
# sRGB to XYZ, relative to the white of D65.
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
PALETTES = {
    "policies": style.COLOURS | {"limit": style.LIMIT},
    "solvers": sloppify.SOLVER_COLOURS,
    "forecasters": forecast.COLOURS,
    "cycle": {str(place): colour for place, colour in enumerate(style.CYCLE)},
}
JUST_TOLD_APART = 2.3  # distance in CIELAB at which adjacent colours are just distinguishable


def lab(colours, vision):
    """CIELAB coordinates (colours, 3) of colours "#RRGGBB" under a kind of vision."""
    srgb = np.array(
        [[int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)] for colour in colours]
    )
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    xyz = np.clip(linear @ np.array(vision).T, 0, 1) @ TO_XYZ.T / TO_XYZ.sum(axis=1)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack(
        [116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1
    )


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("palette", PALETTES)
def test_any_two_colours_of_a_palette_are_told_apart_also_by_the_colour_blind(palette, vision):
    colours = PALETTES[palette] | {f"spare {n}": spare for n, spare in enumerate(style.SPARE)}
    seen = dict(zip(colours, lab(colours.values(), VISION[vision])))
    distance = {
        (a, b): np.linalg.norm(seen[a] - seen[b]) for a, b in itertools.combinations(seen, 2)
    }
    closest = min(distance, key=distance.__getitem__)
    assert distance[closest] > 8 * JUST_TOLD_APART, closest


@pytest.mark.parametrize("palette", PALETTES)
def test_every_colour_stands_out_from_paper(palette):
    assert (lab(PALETTES[palette].values(), VISION["normal"])[:, 0] < 85).all()


def test_a_simulated_deuteranope_confuses_what_a_deuteranope_confuses():
    green, orange = lab(["#6E8B00", "#C06A00"], VISION["deuteranopia"])
    assert (
        np.linalg.norm(green - orange)
        < np.linalg.norm(np.subtract(*lab(["#6E8B00", "#C06A00"], np.eye(3)))) / 3
    )


def test_a_figure_that_would_be_shrunk_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"figure 'wide': width 7\.5 in"):
        style.save(Figure((7.5, 2)), tmp_path, "wide")


def test_a_figure_with_text_under_8_pt_is_refused(tmp_path):
    figure = Figure((style.COLUMN_IN, 2))
    figure.subplots().legend([], title="tiny", title_fontsize=6)
    with pytest.raises(ValueError, match="'tiny' has 6 pt; at least 8 pt"):
        style.save(figure, tmp_path, "small")
    assert not list(tmp_path.iterdir())


def test_a_name_of_a_plugin_has_a_colour_of_its_own():
    assert style.colour("Mine") in style.SPARE
    assert style.colour("Faro-Sum (paper)") == style.COLOURS["Faro-Sum"]


JOBS = (Job("a"),)
MANY = [f"{name}{edition}" for name in style.COLOURS for edition in ("", " (paper)")]


@pytest.fixture
def simulated():
    """A summary and the minutes of more policies than any configuration has."""
    rows = [(policy, size, trial) for policy in MANY for size in (36, 16) for trial in (0, 1)]
    summary = pd.DataFrame(rows, columns=["policy", "capacity_cores", "trial"])
    summary = summary.assign(lost_utility=summary.index / 10, slo_violation_rate=0.1)
    at = pd.DataFrame(
        [(policy, "a", minute) for policy in MANY for minute in range(5)],
        columns=["policy", "job", "minute"],
    )
    return summary, at.assign(utility=0.5, running=3)


def inside(figure) -> bool:
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    return (
        box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0 and box.y1 <= figure.bbox.height
    )


def test_a_legend_of_many_names_stays_on_the_page(simulated):
    summary, minutes = simulated
    style.use_style()
    assert inside(
        comparison.policies_by_capacity(
            summary, summary.groupby("capacity_cores", as_index=False).mean(numeric_only=True)
        )
    )
    assert inside(comparison.policy_timeline(minutes, minutes, JOBS, 36))


def test_policies_are_rows_with_their_values_and_capacities_are_panels(simulated):
    summary = simulated[0].assign(lost_utility_published=simulated[0]["lost_utility"])
    figure = comparison.policies_by_capacity(summary, None, summary[summary["trial"] == 0])
    sizes = sorted(summary["capacity_cores"].unique(), reverse=True)
    assert [axis.get_title() for axis in figure.axes] == [f"{size:g} cores" for size in sizes] * 2
    lost = figure.axes[0]
    assert [text.get_text() for text in lost.get_yticklabels()] == MANY
    mean = summary[summary["capacity_cores"] == sizes[0]].groupby("policy")["lost_utility"].mean()
    assert [text.get_text() for text in lost.texts] == [f"{mean[policy]:.2f}" for policy in MANY]
    assert all(text.get_text().endswith("%") for text in figure.axes[-1].texts)


def test_the_panels_of_a_job_have_the_same_scale(simulated):
    minutes = simulated[1].assign(running=2)
    minutes.loc[minutes["policy"] == "RayServe", "running"] = 20
    wasteful, ours = comparison.job_timelines(minutes, minutes, ["RayServe", "Faro-Sum"]).axes[:2]
    assert wasteful.get_yticks().tolist() == ours.get_yticks().tolist() == [0, 20]


def test_the_capacity_in_a_timeline_is_compared_with_cores_and_not_with_replicas(simulated):
    minutes = simulated[1][simulated[1]["policy"] == "AIAD"]
    used = comparison.policy_timeline(minutes, minutes, (Job("a", cores=4.0),), 36).axes[1].lines[0]
    assert set(used.get_ydata()) == {12.0}


def test_a_timeline_has_no_more_lines_than_the_eye_can_follow(simulated):
    figure = comparison.policy_timeline(simulated[1], simulated[1], JOBS, 36)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    followed = [name for name in MANY if name in comparison.FOLLOWED]
    assert names == [*followed, "capacity"]
    assert comparison.distinguishable(["x", "y", "x"]) == ["x", "y"]


def test_the_clairvoyant_has_a_line_of_its_own_among_policies(simulated):
    minutes = simulated[1][simulated[1]["policy"].isin(["AIAD", "Faro-Sum"])]
    limit = minutes[minutes["policy"] == "AIAD"].drop(columns="policy")
    timeline = comparison.policy_timeline(minutes, minutes, JOBS, 36, limit)
    assert common.CLAIRVOYANT in [text.get_text() for text in timeline.legends[0].get_texts()]
    columns = comparison.job_timelines(minutes, minutes, ["AIAD", "Faro-Sum"], limit).axes[:2]
    assert all(axis.lines[-1].get_color() == style.LIMIT for axis in columns)
    rows = comparison.spread_over_jobs(
        minutes.assign(capacity_cores=36), limit.assign(capacity_cores=36)
    ).axes[0]
    assert [text.get_text() for text in rows.get_yticklabels()] == [
        "AIAD",
        "Faro-Sum",
        common.CLAIRVOYANT,
    ]


def test_the_picture_of_the_readme_has_few_policies_and_one_measure():
    figure = headline.comparison(headline.SHOWN, content(SUMMARY), content(LIMIT))
    assert [axis.get_title() for axis in figure.axes] == ["36 cores", "32 cores", "16 cores"]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == headline.SHOWN
    style.check_legible(figure, "headline")
