"""Stage 90, policies compared: figures 1, 10, 11, 12 and 13 of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from faro_lib.figures.barcharts import grouped_bars, hatch_of, rows_of_bars
from faro_lib.figures.prediction import errors_of, predicted_against_simulated, prediction_caption
from faro_lib.figures.style import (
    CLAIRVOYANT,
    LIMIT,
    LIMIT_LINE,
    MEASURES,
    NONE_PUBLISHED,
    PAGE_IN,
    Captioned,
    colour,
    legend_above,
    published_note,
    reference_handles,
    trials_note,
)
from faro_lib.metrics.frames import Tables, read_tables
from faro_lib.workload import Job
from faro_lib.workload.readers import read_jobs

MAX_LINES = 6
MAX_BARS = 8  # side by side
FOLLOWED = ("FairShare", "AIAD", "MArk", "HPA", "Cilantro", "Faro-Sum")  # drawn if there are more than MAX_LINES
SHADE = "#C2C5CA"
NUMBER_FORMATS = {"slo_violation_rate": "{:.1%}"}


def draw(results: Path, published: str | None = None) -> Captioned:
    tables, jobs = read_tables(results / "simulate"), read_jobs(results / "traces" / "jobs.csv")
    return figures_of(tables, jobs, published_main(published) if published else None)


def figures_of(tables: Tables, jobs: tuple[Job, ...], published: pd.DataFrame | None = None) -> Captioned:
    """The figures of a comparison, name -> (figure, caption); the timelines are of the middle capacity, first trial."""
    summary = tables.summary
    limit = tables.limit.groupby("capacity_cores", as_index=False).mean()
    capacities = sorted(summary["capacity_cores"].unique())
    capacity = capacities[len(capacities) // 2]
    minutes, running, best = (
        frame[(frame["capacity_cores"] == capacity) & (frame["trial"] == 0)]
        for frame in (tables.minutes, tables.running, tables.clairvoyant)
    )
    ranked = summary[summary["capacity_cores"] == capacity].groupby("policy")["lost_utility"].mean().sort_values().index
    extremes = [ranked[-1], ranked[0]]
    figures = {
        "fig01_timeline": (
            policy_timeline(minutes, running, capacity, best),
            timeline_caption(minutes, capacity),
        ),
        "fig10_policies": (
            policies_by_capacity(summary, limit, published),
            capacity_caption(summary, tables.limit, published),
        ),
        "fig11_jobs": (job_timelines(minutes, running, extremes, best), job_caption(extremes, capacity)),
        "fig12_spread": (spread_over_jobs(tables.minutes, tables.clairvoyant), spread_caption(tables.minutes)),
    }
    errors = errors_of(tables, jobs)
    if len(errors):
        figures["fig91_prediction"] = (predicted_against_simulated(errors), prediction_caption(errors))
    return figures


def published_main(directory: str | Path, environment: str = "simulation") -> pd.DataFrame:
    """The published comparison: columns policy, capacity_cores, lost_utility, slo_violation_rate, lost_effective_utility.

    The values of a published Faro objective are given for our policy and for "(paper)", its published variant.
    """
    table = pd.read_csv(Path(directory) / "published_main.csv")
    table = table[table["env"] == environment].replace({"system": {"MArk/Cocktail/Barista": "MArk"}})
    measures = ["lost_utility", "slo_violation_rate", "lost_effective_utility"]
    published = ["lost_cluster_utility_mean", "slo_violation_rate_mean", "lost_effective_utility_mean"]
    table = table.rename(columns={"system": "policy", "replicas": "capacity_cores", **dict(zip(published, measures))})
    faro = table[table["policy"].str.startswith("Faro")]
    both = pd.concat([table, faro.assign(policy=faro["policy"] + " (paper)")], ignore_index=True)
    return both[["policy", "capacity_cores", *measures]]


def policies_by_capacity(
    summary: pd.DataFrame,
    limit: pd.DataFrame | None = None,
    published: pd.DataFrame | None = None,
    measures: Mapping[str, str] = MEASURES,
) -> Figure:
    """Figures 10 and 13: each measure by capacity and policy, with the clairvoyant limit and the published values.

    More than MAX_BARS policies are drawn as rows with their values in numbers.

    Parameters
    ----------
    summary : columns policy, capacity_cores, trial and the measures.
    limit : columns capacity_cores and some of the measures.
    published : columns policy, capacity_cores and the measures.
    measures : column -> label.
    """
    key = ["policy", "capacity_cores"]
    policies = list(dict.fromkeys(summary["policy"]))
    capacities = sorted(summary["capacity_cores"].unique(), reverse=True)
    handles, labels = reference_handles(published is not None, limit is not None)
    if len(policies) > MAX_BARS:
        size_in = (PAGE_IN, 0.3 + len(measures) * (0.5 + 0.17 * len(policies)))
        figure, axes = plt.subplots(len(measures), len(capacities), figsize=size_in, sharey=True, squeeze=False)
        colours, hatches = [colour(policy) for policy in policies], [hatch_of(policy) for policy in policies]
        for band, (measure, label) in zip(axes, measures.items()):
            rows_of_bars(
                band, summary, "policy", (measure, label), colours, published=published, limit=limit, hatches=hatches,
                number_format=NUMBER_FORMATS.get(measure, "{:.2f}"),
            )  # fmt: skip
    else:
        figure, axes = plt.subplots(1, len(measures), figsize=(PAGE_IN, 2.5), squeeze=False)
        for axis, (measure, label) in zip(axes[0], measures.items()):
            grouped_bars(
                axis, summary.set_index(key)[measure], [(capacity,) for capacity in capacities],
                published=None if published is None else published.set_index(key)[measure],
                limit=limit.set_index("capacity_cores")[measure] if limit is not None and measure in limit else None,
            )  # fmt: skip
            axis.set_xticks(range(len(capacities)), [f"{capacity:g} replicas" for capacity in capacities])
            axis.set_ylabel(label)
        bars, names = axes[0][0].get_legend_handles_labels()
        handles, labels = bars + handles, names + labels
    if handles:
        legend_above(figure, handles, labels)
    return figure


def capacity_caption(summary: pd.DataFrame, limit: pd.DataFrame, published: pd.DataFrame | None) -> str:
    best = []
    for capacity, part in summary.groupby("capacity_cores", sort=False):
        mean = part.groupby("policy")["lost_utility"].mean().sort_values()
        floor = limit.loc[limit["capacity_cores"] == capacity, "lost_utility"].mean()
        best.append(
            f"at {capacity:g} replicas {mean.index[0]} loses least, {mean.iloc[0]:.2f} (limit {floor:.2f}, worst "
            f"{mean.iloc[-1]:.2f})"
        )
    trials = trials_note(summary, ["policy", "capacity_cores"])
    return (
        f"Lost cluster utility and SLO violation rate, {trials}, whiskers one standard deviation: {'; '.join(best)}. "
        f"{published_note(published)}"
    )


def spread_over_jobs(minutes: pd.DataFrame, limit: pd.DataFrame | None = None) -> Figure:
    """Figure 12: mean lost utility of each job (a dot, mean over trials) by policy, one panel per capacity.

    Parameters
    ----------
    minutes : columns policy, capacity_cores, job, utility.
    limit : the same of the clairvoyant, without policy; the last row.
    """
    if limit is not None:
        minutes = pd.concat([minutes, limit.assign(policy=CLAIRVOYANT)], ignore_index=True)
    lost = (1 - minutes.groupby(["policy", "capacity_cores", "job"])["utility"].mean()).rename("lost").reset_index()
    capacities = sorted(lost["capacity_cores"].unique(), reverse=True)
    policies = list(dict.fromkeys(minutes["policy"]))
    size_in = (PAGE_IN, 0.6 + 0.24 * len(policies))
    figure, axes = plt.subplots(1, len(capacities), figsize=size_in, sharey=True, squeeze=False)
    palette = {policy: LIMIT if policy == CLAIRVOYANT else colour(policy) for policy in policies}
    for axis, capacity in zip(axes[0], capacities):
        shared = {"data": lost[lost["capacity_cores"] == capacity], "x": "lost", "y": "policy", "order": policies}
        sns.boxplot(**shared, hue="policy", palette=palette, ax=axis, fliersize=0, linewidth=0.7, legend=False)
        sns.stripplot(**shared, ax=axis, color="black", size=2.2, jitter=0.15)
        axis.set(title=f"{capacity:g} replicas", xlabel="mean lost utility of a job", ylabel="")
    return figure


def spread_caption(minutes: pd.DataFrame) -> str:
    utility = minutes.groupby(["capacity_cores", "policy", "job"])["utility"].mean()
    worst = utility.groupby(["capacity_cores", "policy"]).min().unstack("capacity_cores")
    best = [
        f"{size:g} replicas, {worst[size].idxmax()} ({worst[size].max():.2f})" for size in sorted(worst, reverse=True)
    ]
    return (
        "Mean lost utility of each job; last, under the clairvoyant. The worst-off job fares best under: "
        f"{'; '.join(best)}. {NONE_PUBLISHED}"
    )


def distinguishable(policies: Sequence[str]) -> list[str]:
    """The policies to draw as lines in one panel, in order: all if there are at most MAX_LINES, else those in FOLLOWED."""
    names = list(dict.fromkeys(policies))
    followed = [name for name in names if name in FOLLOWED]
    return names if len(names) <= MAX_LINES else followed or names[:MAX_LINES]


def policy_timeline(
    minutes: pd.DataFrame, running: pd.DataFrame, capacity: float, limit: pd.DataFrame | None = None
) -> Figure:
    """Figure 1: lost utility of the cluster and the replicas in use over the day, by policy; one capacity and trial.

    Parameters
    ----------
    minutes : columns policy, job, minute, utility.
    running : columns policy, job, minute, running.
    limit : the clairvoyant limit, with columns job, minute, utility, running.
    """
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(PAGE_IN, 3.2), sharex=True)
    for policy in distinguishable(minutes["policy"]):
        top.plot(_lost(minutes[minutes["policy"] == policy]), color=colour(policy), label=policy)
        used = running[running["policy"] == policy].groupby("minute")["running"].sum()
        bottom.plot(used, color=colour(policy), label=policy)
    if limit is not None:
        top.plot(_lost(limit), linewidth=1.0, label=CLAIRVOYANT, **LIMIT_LINE)
        bottom.plot(limit.groupby("minute")["running"].sum().iloc[:-1], linewidth=1.0, **LIMIT_LINE)
    bottom.axhline(capacity, color="black", linestyle=":", linewidth=1.0)
    top.set(ylabel="lost utility\n(5-minute mean)")
    bottom.set(ylabel="replicas serving", xlabel="minute")
    legend_above(figure, *top.get_legend_handles_labels())
    return figure


def _lost(minutes: pd.DataFrame) -> pd.Series:
    """Utility lost by all jobs together, by minute, smoothed over five; without the last bin, which overran the day."""
    lost = (1 - minutes.pivot(index="minute", columns="job", values="utility")).sum(axis=1).iloc[:-1]
    return lost.rolling(5, center=True, min_periods=1).mean()


def timeline_caption(minutes: pd.DataFrame, capacity: float) -> str:
    minutes = minutes[minutes["policy"].isin(distinguishable(minutes["policy"]))]
    lost = (1 - minutes["utility"]).groupby(minutes["policy"], sort=False).sum() / minutes["minute"].nunique()
    return (
        f"Utility lost over the day at {capacity:g} replicas and the replicas that serve (dotted: capacity; dashed: the "
        f"clairvoyant), one trial; from {lost.min():.2f} on average under {lost.idxmin()} to {lost.max():.2f} under "
        f"{lost.idxmax()}. {NONE_PUBLISHED}"
    )


def job_timelines(
    minutes: pd.DataFrame, running: pd.DataFrame, policies: Sequence[str], limit: pd.DataFrame | None = None
) -> Figure:
    """Figure 11: replicas (line) and lost utility (shade) of each job over the day, a column per policy, a row per job.

    Each column has its own scale, as some policies go far beyond what others need.

    Parameters
    ----------
    minutes, running, limit : as in `policy_timeline`; the limit is a thin line in every panel.
    """
    jobs = list(dict.fromkeys(minutes["job"]))
    size_in = (PAGE_IN, 0.45 + 0.42 * len(jobs))
    figure, axes = plt.subplots(len(jobs), len(policies), figsize=size_in, sharex=True, sharey="col", squeeze=False)
    for column, policy in enumerate(policies):
        of_policy, running_of_policy = (frame[frame["policy"] == policy] for frame in (minutes, running))
        shown = [running_of_policy, *([limit] if limit is not None else [])]
        most = max(1, *(frame["running"].max() for frame in shown))
        for row, job in enumerate(jobs):
            axis = axes[row][column]
            replicas, lost = (frame[frame["job"] == job] for frame in (running_of_policy, of_policy))
            axis.step(replicas["minute"], replicas["running"], where="post", color=colour(policy), linewidth=0.9)
            axis.fill_between(lost["minute"], 0, most * (1 - lost["utility"]), color=SHADE, linewidth=0)
            if limit is not None:
                best = limit[limit["job"] == job].iloc[:-1]
                axis.step(best["minute"], best["running"], where="post", color=LIMIT, linewidth=0.4, alpha=0.8)
            axis.set_yticks([0, int(most)])
            if column == 0:
                axis.set_ylabel(job, rotation=0, ha="right", va="center")
        axes[0][column].set_title(policy)
        axes[-1][column].set_xlabel("minute")
    return figure


def job_caption(policies: Sequence[str], capacity: float) -> str:
    return (
        f"Replicas of each job (line) and its lost utility (shade) at {capacity:g} replicas under the policy that loses "
        f"most, {policies[0]}, and the one that loses least, {policies[-1]}; thin and red, the replicas that the clairvoyant "
        f"gives it minute by minute. {NONE_PUBLISHED}"
    )
