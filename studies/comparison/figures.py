"""Stage 90: comparison of policies (figures 1, 10, 11, 12 and 13 of the paper)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from faro_lib.figures import style
from faro_lib.figures.style import PAGE_IN, colour, legend_above
from faro_lib.workload import Job
from faro_lib.workload.readers import read_jobs
from studies.figures import common
from studies.figures.barcharts import bar_rows, hatch_of
from studies.figures.common import trials_note
from studies.figures.drawing import Drawing, Drawings
from studies.figures.prediction import errors_of, predicted_against_simulated, prediction_caption
from studies.tables.frames import Tables, read_tables

MAX_LINES = 6
# Policies drawn if there are more than MAX_LINES.
FOLLOWED = ("FairShare", "AIAD", "MArk", "HPA", "Cilantro", "Faro-Sum")
MAX_STEPS = 240  # maximum number of points of a line in a small panel
NUMBER_FORMATS = {"slo_violation_rate": "{:.1%}"}


def draw(results: Path, published: str | None = None) -> Drawings:
    tables = read_tables(results / "simulate")
    jobs = read_jobs(results / "traces" / "jobs.csv")
    return figures_of(tables, jobs, published_main(published) if published else None)


def figures_of(
    tables: Tables, jobs: tuple[Job, ...], published: pd.DataFrame | None = None
) -> Drawings:
    """All figures of a comparison.

    Figures over the time of day show the first trial at the middle capacity.
    """
    summary = tables.summary
    capacities = sorted(summary["capacity_cores"].unique())
    capacity = capacities[len(capacities) // 2]

    def shown(frame: pd.DataFrame) -> pd.DataFrame:
        return frame[(frame["capacity_cores"] == capacity) & (frame["trial"] == 0)]

    minutes, running, best = map(shown, (tables.minutes, tables.running, tables.clairvoyant))
    at_middle = summary[summary["capacity_cores"] == capacity]
    ranked = at_middle.groupby("policy")["lost_utility"].mean().sort_values().index
    extremes = [ranked[-1], ranked[0]]
    figures = {
        "policies": Drawing(
            policies_by_capacity(summary, tables.limit, published),
            "Lost utility and SLO violations by policy",
            capacity_caption(summary, tables.limit, published),
        ),
        "spread_over_jobs": Drawing(
            spread_over_jobs(tables.minutes, tables.clairvoyant),
            "Lost utility of each job",
            spread_caption(tables.minutes),
        ),
        "lost_utility_over_the_day": Drawing(
            policy_timeline(minutes, running, jobs, capacity, best),
            "Lost utility and cores in use over the day",
            timeline_caption(minutes, capacity),
        ),
        "replicas_by_job": Drawing(
            job_timelines(minutes, running, extremes, best),
            "Replicas and lost utility of each job over the day",
            job_caption(minutes, extremes, capacity),
        ),
    }
    errors = errors_of(tables, jobs)
    if len(errors):
        figures["predicted_latency"] = Drawing(
            predicted_against_simulated(errors),
            "Predicted and simulated tail latency",
            prediction_caption(errors),
        )
    return figures


def published_main(directory: str | Path, environment: str = "simulation") -> pd.DataFrame:
    """The paper's results: columns policy, capacity_cores, and measures in its convention.

    A Faro policy has its results twice: under our policy's name and with the suffix " (paper)".
    """
    table = pd.read_csv(Path(directory) / "published_main.csv")
    table = table[table["env"] == environment]
    table = table.replace({"system": {"MArk/Cocktail/Barista": "MArk"}})
    columns = {
        "system": "policy",
        "replicas": "capacity_cores",
        "lost_cluster_utility_mean": "lost_utility_published",
        "slo_violation_rate_mean": "slo_violation_rate",
        "lost_effective_utility_mean": "lost_effective_utility_published",
    }
    table = table.rename(columns=columns)
    faro = table[table["policy"].str.startswith("Faro")]
    both = pd.concat([table, faro.assign(policy=faro["policy"] + " (paper)")], ignore_index=True)
    return both[list(columns.values())]


def policies_by_capacity(
    summary: pd.DataFrame,
    limit: pd.DataFrame | None = None,
    published: pd.DataFrame | None = None,
    measures: Mapping[str, str] = style.MEASURES,
) -> Figure:
    """Figures 10 and 13: one panel per measure and capacity, with a bar per policy.

    `measures` maps columns to labels. Panels of a measure that `limit` lacks show no limit.
    """
    measures = measures if published is None else common.as_published(measures)
    policies = list(dict.fromkeys(summary["policy"]))
    capacities = sorted(summary["capacity_cores"].unique(), reverse=True)
    rows, columns = len(measures), len(capacities)
    size_in = (PAGE_IN, 0.3 + rows * (0.65 + 0.17 * len(policies)))
    figure, axes = plt.subplots(rows, columns, figsize=size_in, sharey=True, squeeze=False)
    colours = [colour(policy) for policy in policies]
    hatches = [hatch_of(policy) for policy in policies]

    def at(table: pd.DataFrame, capacity: float, measure: str) -> pd.Series:
        return table[table["capacity_cores"] == capacity].set_index("policy")[measure]

    for band, (measure, label) in zip(axes, measures.items()):
        for axis, capacity in zip(band, capacities):
            floor = None
            if limit is not None and measure in limit:
                floor = limit.loc[limit["capacity_cores"] == capacity, measure].mean()
            bar_rows(
                axis,
                at(summary, capacity, measure),
                policies,
                colours,
                hatches=hatches,
                published=None if published is None else at(published, capacity, measure),
                limit=floor,
                number_format=NUMBER_FORMATS.get(measure, "{:.2f}"),
            )
            axis.set(title=f"{capacity:g} cores", xlabel=label)
    if published is not None or limit is not None:
        legend_above(figure, *common.reference_handles(published is not None, limit is not None))
    return figure


def capacity_caption(
    summary: pd.DataFrame, limit: pd.DataFrame, published: pd.DataFrame | None = None
) -> str:
    measures = style.MEASURES if published is None else common.as_published(style.MEASURES)
    lost = next(iter(measures))
    findings = []
    for capacity, part in sorted(summary.groupby("capacity_cores"), reverse=True):
        mean = part.groupby("policy")[lost].mean().sort_values()
        floor = limit.loc[limit["capacity_cores"] == capacity, lost].mean()
        worst = f", {mean.index[-1]} the most ({mean.iloc[-1]:.2f})" if len(mean) > 1 else ""
        findings.append(
            f"At {capacity:g} cores, {mean.index[0]} loses the least utility "
            f"({mean.iloc[0]:.2f}){worst}; the clairvoyant limit is {floor:.2f}."
        )
    diamonds = "" if published is None else common.DIAMONDS
    return f"{' '.join(findings)} {trials_note(summary, ['policy', 'capacity_cores'])}{diamonds}"


def spread_over_jobs(minutes: pd.DataFrame, limit: pd.DataFrame | None = None) -> Figure:
    """Figure 12: mean lost utility of jobs, with a dot per job and a box per policy.

    `limit` adds the clairvoyant.
    """
    if limit is not None:
        minutes = pd.concat([minutes, limit.assign(policy=common.CLAIRVOYANT)], ignore_index=True)
    utility = minutes.groupby(["policy", "capacity_cores", "job"])["utility"].mean()
    lost = (1 - utility).rename("lost").reset_index()
    capacities = sorted(lost["capacity_cores"].unique(), reverse=True)
    policies = list(dict.fromkeys(minutes["policy"]))
    size_in = (PAGE_IN, 0.6 + 0.24 * len(policies))
    figure, axes = plt.subplots(1, len(capacities), figsize=size_in, sharey=True, squeeze=False)
    palette = {policy: colour(policy) for policy in policies}
    if common.CLAIRVOYANT in palette:
        palette[common.CLAIRVOYANT] = style.LIMIT
    box = {"hue": "policy", "palette": palette, "fliersize": 0, "linewidth": 0.7, "legend": False}
    for axis, capacity in zip(axes[0], capacities):
        part = lost[lost["capacity_cores"] == capacity]
        shared = {"data": part, "x": "lost", "y": "policy", "order": policies, "ax": axis}
        sns.boxplot(**shared, **box)
        sns.stripplot(**shared, color="black", size=2.2, jitter=0.15)
        axis.set(title=f"{capacity:g} cores", xlabel="mean lost utility of a job", ylabel="")
    return figure


def spread_caption(minutes: pd.DataFrame) -> str:
    utility = minutes.groupby(["capacity_cores", "policy", "job"])["utility"].mean()
    worst = utility.groupby(["capacity_cores", "policy"]).min().unstack("capacity_cores")
    findings = [
        f"At {size:g} cores, the worst-off job does best under {worst[size].idxmax()}, with a mean "
        f"utility of {worst[size].max():.2f}."
        for size in sorted(worst, reverse=True)
    ]
    return (
        f"{' '.join(findings)} Each dot is a job, mean over its minutes with requests and over "
        "trials."
    )


def distinguishable(policies: Sequence[str]) -> list[str]:
    """The policies to draw as lines in one panel: at most MAX_LINES, or those in FOLLOWED."""
    names = list(dict.fromkeys(policies))
    if len(names) <= MAX_LINES:
        return names
    followed = [name for name in names if name in FOLLOWED]
    return followed or names[:MAX_LINES]


def policy_timeline(
    minutes: pd.DataFrame,
    running: pd.DataFrame,
    jobs: tuple[Job, ...],
    capacity: float,
    limit: pd.DataFrame | None = None,
) -> Figure:
    """Figure 1: lost utility and cores in use over the day, by policy, in one run of each.

    `minutes`, `running` and `limit` (`clairvoyant`) are tables of `studies.tables.frames.Tables`.
    """
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(PAGE_IN, 3.2), sharex=True)
    # Window of the moving mean in minutes; longer for a long day, whose lines would otherwise blur
    # into bands.
    width = max(5, (int(running["minute"].max()) + 1) // 72)
    shown = distinguishable(minutes["policy"])
    between = max(1, running["minute"].nunique() // 8)  # minutes between two markers of a line
    for n, (policy, marker) in enumerate(zip(shown, "os^Dvph")):
        lost = _lost(minutes[minutes["policy"] == policy], width)
        cores = _cores(running[running["policy"] == policy], jobs, width)
        line: dict[str, Any] = {"color": colour(policy), "marker": marker, "markersize": 3.5}
        line["markevery"] = (n * between // len(shown), between)
        top.plot(lost, label=policy, **line)
        bottom.plot(cores, **line)
    if limit is not None:
        top.plot(_lost(limit, width), linewidth=1.0, label=common.CLAIRVOYANT, **common.LIMIT_LINE)
        bottom.plot(_cores(limit, jobs, width).iloc[:-1], linewidth=1.0, **common.LIMIT_LINE)
    dotted: dict[str, Any] = {"color": "black", "linestyle": ":", "linewidth": 1.0}
    bottom.axhline(capacity, label="capacity", **dotted)
    top.set(ylabel=f"lost utility\n({width}-minute mean)")
    bottom.set(ylabel=f"cores in use\n({width}-minute mean)", xlabel="minute")
    handles, labels = top.get_legend_handles_labels()
    more_handles, more_labels = bottom.get_legend_handles_labels()
    legend_above(figure, handles + more_handles, labels + more_labels, columns=6)
    return figure


def _lost(minutes: pd.DataFrame, width: int) -> pd.Series:
    """Moving mean over `width` minutes of the lost utility, summed over jobs.

    Arrivals after the day are left out.
    """
    lost = 1 - minutes.pivot(index="minute", columns="job", values="utility")
    by_minute = lost.sum(axis=1).iloc[:-1]
    return by_minute.rolling(width, center=True, min_periods=1).mean()


def _cores(running: pd.DataFrame, jobs: tuple[Job, ...], width: int) -> pd.Series:
    """Moving mean over `width` minutes of the cores of all running replicas, by minute."""
    cores = running["running"] * running["job"].map({job.name: job.cores for job in jobs})
    return cores.groupby(running["minute"]).sum().rolling(width, center=True, min_periods=1).mean()


def timeline_caption(minutes: pd.DataFrame, capacity: float) -> str:
    minutes = minutes[minutes["policy"].isin(distinguishable(minutes["policy"]))]
    minutes = minutes[minutes["minute"] < minutes["minute"].max()]
    lost = (1 - minutes["utility"]).groupby(minutes["policy"], sort=False).sum()
    lost /= minutes["minute"].nunique()
    most = ""
    if len(lost) > 1:
        most = f" (least of the policies shown), and {lost.max():.2f} under {lost.idxmax()} (most)"
    return (
        f"At {capacity:g} cores, the cluster loses {lost.min():.2f} utility on average under "
        f"{lost.idxmin()}{most}. Dashed: clairvoyant limit; dotted: capacity. First trial."
    )


def job_timelines(
    minutes: pd.DataFrame,
    running: pd.DataFrame,
    policies: Sequence[str],
    limit: pd.DataFrame | None = None,
) -> Figure:
    """Figure 11: replicas (line) and lost utility (strip), a row per job and a column per policy.

    All panels of a job have the same scale. They show means over at most MAX_STEPS equal intervals
    of the day. `minutes`, `running` and `limit` are as in `policy_timeline`. The limit is a thin
    line in every panel.
    """
    jobs = list(dict.fromkeys(minutes["job"]))
    size_in = (PAGE_IN, 0.9 + 0.42 * len(jobs))
    shape = (len(jobs), len(policies))
    figure, axes = plt.subplots(*shape, figsize=size_in, sharex=True, sharey="row", squeeze=False)
    last = int(running["minute"].max())
    for row, job in enumerate(jobs):
        replicas, utility = (frame[frame["job"] == job] for frame in (running, minutes))
        heights = [1, replicas.loc[replicas["policy"].isin(policies), "running"].max()]
        best = None
        if limit is not None:
            best = _binned(limit[limit["job"] == job], "running", last)
            heights.append(best.max())
        top = int(np.ceil(max(heights)))
        for axis, policy in zip(axes[row], policies):
            line = {"drawstyle": "steps-post", "color": colour(policy), "linewidth": 0.9}
            axis.plot(_binned(replicas[replicas["policy"] == policy], "running", last), **line)
            if best is not None:
                axis.plot(best, **line | {"color": style.LIMIT, "linewidth": 0.4, "alpha": 0.8})
            strip = 1 - _binned(utility[utility["policy"] == policy], "utility", last).to_numpy()
            extent = (0, last, -0.35 * top, -0.05 * top)
            picture = axis.imshow(
                strip[None], extent=extent, aspect="auto", cmap="Greys", vmin=0, vmax=1
            )
            axis.set(ylim=(-0.35 * top, 1.1 * top))
            axis.set_yticks([0, top])
            axis.grid(visible=False)
        axes[row][0].set_ylabel(job, rotation=0, ha="right", va="center")
    for column, policy in enumerate(policies):
        axes[0][column].set_title(policy)
        axes[-1][column].set_xlabel("minute")
    below: dict[str, Any] = {"location": "bottom", "fraction": 0.02, "shrink": 0.4}
    figure.colorbar(picture, ax=axes, label="lost utility (strip)", **below)
    return figure


def _binned(frame: pd.DataFrame, column: str, last: int) -> pd.Series:
    """Mean of a column over up to MAX_STEPS equal intervals of minutes 0..last, by first minute."""
    width = max(1, -(-(last + 1) // MAX_STEPS))
    inside = frame[frame["minute"] <= last]
    return inside[column].groupby(inside["minute"] // width * width).mean()


def job_caption(minutes: pd.DataFrame, policies: Sequence[str], capacity: float) -> str:
    lost = 1 - minutes.groupby(["policy", "job"])["utility"].mean()
    findings = [
        f"under {policy}, {lost[policy].idxmax()} loses most ({lost[policy].max():.2f} of its "
        "utility)"
        for policy in dict.fromkeys(policies)
    ]
    sentence = "; ".join(findings)
    return (
        f"{sentence[0].upper()}{sentence[1:]}, at {capacity:g} cores. Shown are the policies that "
        "lose most and least in total. Line: replicas of the job; red: replicas that the "
        "clairvoyant allocates; strip: lost utility. Losses are means over minutes with requests. "
        "First trial."
    )
