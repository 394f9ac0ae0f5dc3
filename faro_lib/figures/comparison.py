"""Policies side by side: figures 10, 12 and 13 of the paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from faro_lib.figures.rows import draw_rows
from faro_lib.figures.style import LIMIT, PAGE_IN, PUBLISHED, colour, legend_above

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_LINES = 6
MOST_BARS = 8  # side by side
CLAIRVOYANT = "clairvoyant limit"
FOLLOWED = ("FairShare", "AIAD", "MArk", "HPA", "Cilantro", "Faro-Sum")
SHADE = "#C2C5CA"
WRITTEN = {"slo_violation_rate": "{:.1%}"}
MEASURES = {"lost_utility": "lost cluster utility", "slo_violation_rate": "SLO violation rate"}


def policies_by_size(
    summary: pd.DataFrame, limit: pd.DataFrame | None = None, published: pd.DataFrame | None = None, measures=MEASURES
) -> Figure:
    """Figure 10: bars of each measure by cluster size and policy, the clairvoyant limit, and the published values.

    More policies than can be told apart by colour stand in rows, with their values in figures.

    Parameters
    ----------
    summary : columns policy, replicas, trial and the measures; bars are means, whiskers standard deviations over trials.
    limit : columns replicas and the measures (those that it has are drawn), or None.
    published : columns policy, replicas and the measures, or None.
    """
    import matplotlib.pyplot as plt

    policies = list(dict.fromkeys(summary["policy"]))
    sizes = sorted(summary["capacity_cores"].unique(), reverse=True)
    if len(policies) > MOST_BARS:
        return _in_rows(summary, limit, published, measures, policies, sizes)
    figure, axes = plt.subplots(1, len(measures), figsize=(PAGE_IN, 2.5), squeeze=False)
    width = 0.85 / len(policies)
    for axis, (measure, label) in zip(axes[0], measures.items()):
        grouped = summary.groupby(["policy", "capacity_cores"])[measure]
        mean, deviation = grouped.mean(), grouped.std(ddof=1).fillna(0)
        for place, policy in enumerate(policies):
            x = np.arange(len(sizes)) + (place - (len(policies) - 1) / 2) * width
            keys = [(policy, size) for size in sizes]
            axis.bar(
                x, mean.reindex(keys), width, yerr=deviation.reindex(keys), color=colour(policy), label=policy,
                edgecolor="black", linewidth=0.3, hatch=_hatch(policy),
                error_kw={"linewidth": 0.8},
            )  # fmt: skip
            if published is not None:
                values = published.set_index(["policy", "capacity_cores"])[measure].reindex(keys)
                axis.plot(
                    x,
                    values,
                    "D",
                    markersize=3,
                    markerfacecolor="white",
                    markeredgecolor=PUBLISHED,
                    markeredgewidth=0.8,
                )
        if limit is not None and measure in limit:
            for place, size in enumerate(sizes):
                value = limit.set_index("capacity_cores")[measure].get(size, np.nan)
                axis.hlines(value, place - 0.45, place + 0.45, color=LIMIT, linewidth=1.2, linestyle="--")
        axis.set_xticks(range(len(sizes)), [f"{size:g} replicas" for size in sizes])
        axis.set_ylabel(label)
        axis.grid(visible=False, axis="x")
    handles, labels = axes[0][0].get_legend_handles_labels()
    _legend(figure, handles, labels, published is not None, limit is not None)
    return figure


def _hatch(policy: str) -> str | None:
    """Of the paper's edition, which has the colour of ours."""
    return "//" if policy.endswith("(paper)") else None


def _in_rows(summary, limit, published, measures, policies, sizes):
    """A row a policy, a column of panels a size, a band of panels a measure."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        len(measures), len(sizes), figsize=(PAGE_IN, 0.3 + len(measures) * (0.5 + 0.17 * len(policies))),
        sharey=True, squeeze=False,
    )  # fmt: skip
    for band, (measure, label) in zip(axes, measures.items()):
        for axis, size in zip(band, sizes):
            of = lambda frame, by: frame[frame["capacity_cores"] == size].set_index(by)[measure]  # noqa: B023, E731
            draw_rows(
                axis,
                of(summary, "policy"),
                [colour(policy) for policy in policies],
                hatches=[_hatch(policy) for policy in policies],
                published=None if published is None else of(published, "policy"),
                limit=None if limit is None or measure not in limit else of(limit, "capacity_cores").mean(),
                written=WRITTEN.get(measure, "{:.2f}"),
            )
            axis.set(title=f"{size:g} replicas", xlabel=label)
    _legend(figure, [], [], published is not None, limit is not None)
    return figure


def _legend(figure, handles, labels, with_published, with_limit):
    from matplotlib.lines import Line2D

    if with_limit:
        handles.append(Line2D([], [], color=LIMIT, linestyle="--"))
        labels.append(CLAIRVOYANT)
    if with_published:
        handles.append(
            Line2D([], [], marker="D", linestyle="", markerfacecolor="white", markeredgecolor=PUBLISHED, markersize=3)
        )
        labels.append("published (EuroSys'25)")
    if handles:
        legend_above(figure, handles, labels)


def spread_over_jobs(minutes: pd.DataFrame, limit: pd.DataFrame | None = None) -> Figure:
    """Figure 12: each job's mean lost utility (a dot a job, mean over trials) by policy, one panel a cluster size.

    Parameters
    ----------
    minutes : columns policy, replicas, job, utility.
    limit : the same of the clairvoyant, without policy, or None; it is the last row.
    """
    import matplotlib.pyplot as plt
    import seaborn as sns

    if limit is not None:
        minutes = pd.concat([minutes, limit.assign(policy=CLAIRVOYANT)], ignore_index=True)
    lost = (1 - minutes.groupby(["policy", "capacity_cores", "job"])["utility"].mean()).rename("lost").reset_index()
    sizes = sorted(lost["capacity_cores"].unique(), reverse=True)
    policies = list(dict.fromkeys(minutes["policy"]))
    figure, axes = plt.subplots(
        1, len(sizes), figsize=(PAGE_IN, 0.6 + 0.24 * len(policies)), sharey=True, squeeze=False
    )
    for axis, size in zip(axes[0], sizes):
        part = lost[lost["capacity_cores"] == size]
        colours = {policy: LIMIT if policy == CLAIRVOYANT else colour(policy) for policy in policies}
        sns.boxplot(
            part, x="lost", y="policy", order=policies, hue="policy", palette=colours, ax=axis, fliersize=0,
            linewidth=0.7, legend=False,
        )  # fmt: skip
        sns.stripplot(part, x="lost", y="policy", order=policies, ax=axis, color="black", size=2.2, jitter=0.15)
        axis.set(title=f"{size:g} replicas", xlabel="a job's mean lost utility", ylabel="")
    return figure


def told_apart(policies) -> list[str]:
    """The policies that the eye can follow as lines in one panel, in their order: all of a few, else those of FOLLOWED."""
    names = list(dict.fromkeys(policies))
    followed = [name for name in names if name in FOLLOWED]
    return names if len(names) <= MOST_LINES else followed or names[:MOST_LINES]


def policy_timeline(
    minutes: pd.DataFrame, running: pd.DataFrame, capacity: float, limit: pd.DataFrame | None = None
) -> Figure:
    """Figure 1: the cluster's utility and the replicas in use over the day, by policy, one cluster size and trial.

    Parameters
    ----------
    minutes : columns policy, job, minute, utility.
    running : columns policy, job, minute, running.
    limit : of the clairvoyant, columns job, minute, utility, running; or None.
    """
    import matplotlib.pyplot as plt

    figure, (top, bottom) = plt.subplots(2, 1, figsize=(PAGE_IN, 3.2), sharex=True)
    for policy in told_apart(minutes["policy"]):
        top.plot(_lost(minutes[minutes["policy"] == policy]), color=colour(policy), label=policy)
        used = running[running["policy"] == policy].groupby("minute")["running"].sum()
        bottom.plot(used, color=colour(policy), label=policy)
    if limit is not None:
        top.plot(_lost(limit), color=LIMIT, linestyle="--", linewidth=1.0, label=CLAIRVOYANT)
        bottom.plot(limit.groupby("minute")["running"].sum().iloc[:-1], color=LIMIT, linestyle="--", linewidth=1.0)
    bottom.axhline(capacity, color="black", linestyle=":", linewidth=1.0)
    top.set(ylabel="lost utility\n(5-minute mean)")
    bottom.set(ylabel="replicas serving", xlabel="minute")
    legend_above(figure, *top.get_legend_handles_labels())
    return figure


def _lost(minutes: pd.DataFrame) -> pd.Series:
    """Utility lost by all jobs together, minute by minute, smoothed over five; without the bin of what overran the day."""
    lost = (1 - minutes.pivot(index="minute", columns="job", values="utility")).sum(axis=1).iloc[:-1]
    return lost.rolling(5, center=True, min_periods=1).mean()


def job_timelines(
    minutes: pd.DataFrame, running: pd.DataFrame, policies: list[str], limit: pd.DataFrame | None = None
) -> Figure:
    """Figure 11: each job's replicas (line) and its lost utility (shade) over the day, a column a policy, a row a job.

    Columns have scales of their own, as some policies go far beyond what others need.

    Parameters
    ----------
    limit : as in `policy_timeline`; its replicas are a thin line in every panel.
    """
    import matplotlib.pyplot as plt

    jobs = list(dict.fromkeys(minutes["job"]))
    figure, axes = plt.subplots(
        len(jobs), len(policies), figsize=(PAGE_IN, 0.45 + 0.42 * len(jobs)), sharex=True, sharey="col", squeeze=False
    )
    for column, policy in enumerate(policies):
        shown = [running[running["policy"] == policy], *([limit] if limit is not None else [])]
        most = max(1, *(frame["running"].max() for frame in shown))
        for row, job in enumerate(jobs):
            axis = axes[row][column]
            of = lambda frame: frame[(frame["policy"] == policy) & (frame["job"] == job)]  # noqa: B023, E731
            replicas = of(running)
            axis.step(replicas["minute"], replicas["running"], where="post", color=colour(policy), linewidth=0.9)
            lost = of(minutes)
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
