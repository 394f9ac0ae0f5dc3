"""More jobs, and more sizes: table 8 and the simulation's side of figures 7 and 2, and utility against effective utility."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from faro_lib.figures.captions import NONE_PUBLISHED
from faro_lib.figures.comparison import CLAIRVOYANT, policies_by_size
from faro_lib.figures.style import LIMIT, PAGE_IN, colour, legend_above

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EFFECTIVE = {"lost_utility": "lost cluster utility", "lost_effective_utility": "lost effective utility"}
MARKERS = "os^Dvph"


def effective(
    summary: pd.DataFrame, limit: pd.DataFrame | None = None, published: pd.DataFrame | None = None
) -> Figure:
    """Figure 15: lost utility beside lost effective utility, by cluster size and policy."""
    return policies_by_size(summary, limit, published, EFFECTIVE)


def effective_caption(summary: pd.DataFrame, published: pd.DataFrame | None = None) -> str:
    """By how much the two measures differ, and for whom most."""
    mean = summary.groupby(["policy", "capacity_cores"])[list(EFFECTIVE)].mean()
    gap = mean["lost_utility"] - mean["lost_effective_utility"]
    policy, size = gap.abs().idxmax()
    beside = "Diamonds are the published values." if published is not None else NONE_PUBLISHED
    return (
        f"Utility against effective utility, which counts a refusal by its penalty: they differ by {gap.abs().median():.3f} "
        f"in the median and most for {policy} at {size:g} replicas ({gap[policy, size]:+.2f}). {beside}"
    )


def larger_clusters(summary: pd.DataFrame, limit: pd.DataFrame) -> Figure:
    """Table 8: lost utility a job in larger clusters, a panel a way of making the jobs.

    Parameters
    ----------
    summary : columns variant, jobs, replicas, policy, trial, lost_utility; limit : the same without policy.
    """
    from matplotlib import pyplot as plt

    policies = list(dict.fromkeys(summary["policy"]))
    ways = list(dict.fromkeys(summary["variant"]))
    room = [len(summary.loc[summary["variant"] == way, ["jobs", "capacity_cores"]].drop_duplicates()) for way in ways]
    figure, axes = plt.subplots(
        1, len(ways), figsize=(PAGE_IN, 2.5), sharey=True, squeeze=False, gridspec_kw={"width_ratios": room}
    )
    width = 0.85 / len(policies)
    for axis, way in zip(axes[0], ways):
        part = summary[summary["variant"] == way]
        clusters = list(dict.fromkeys(zip(part["jobs"], part["capacity_cores"])))
        lost = (part["lost_utility"] / part["jobs"]).groupby([part["policy"], part["jobs"], part["capacity_cores"]])
        mean, deviation = lost.mean(), lost.std(ddof=1).fillna(0)
        for place, policy in enumerate(policies):
            keys = pd.MultiIndex.from_tuples([(policy, *cluster) for cluster in clusters])
            x = np.arange(len(clusters)) + (place - (len(policies) - 1) / 2) * width
            axis.bar(
                x, mean.reindex(keys), width, yerr=deviation.reindex(keys), color=colour_of(policy), label=policy,
                edgecolor="black", linewidth=0.3, hatch=hatch_of(policy),
                error_kw={"linewidth": 0.8},
            )  # fmt: skip
        floors = limit[limit["variant"] == way].groupby(["jobs", "capacity_cores"])["lost_utility"].mean()
        for place, (jobs, replicas) in enumerate(clusters):
            floor = floors.get((jobs, replicas), np.nan) / jobs
            axis.hlines(floor, place - 0.45, place + 0.45, color=LIMIT, linewidth=1.2, linestyle="--")
        axis.set_xticks(range(len(clusters)), [f"{jobs:,.0f} jobs on\n{replicas:,.0f}" for jobs, replicas in clusters])
        axis.set(title=f"jobs {way}", xlabel="jobs on replicas")
        axis.grid(visible=False, axis="x")
    axes[0][0].set_ylabel("lost utility a job")
    handles, labels = axes[0][0].get_legend_handles_labels()
    legend_above(figure, handles, labels, 3)
    return figure


def colour_of(policy: str) -> str:
    """A policy's colour, whatever solver its edition is said to have."""
    return colour(policy.split(" (")[0])


def hatch_of(policy: str) -> str | None:
    """Slashes for the paper's edition, dots where it is solved exactly."""
    if "(paper" not in policy:
        return None
    return "..." if "exact" in policy else "//"


def larger_caption(summary: pd.DataFrame) -> str:
    """Who loses least in each cluster, and how long the slowest decisions took."""
    said = []
    for (way, jobs, replicas), part in summary.groupby(["variant", "jobs", "capacity_cores"], sort=False):
        mean = part.groupby("policy")["lost_utility"].mean().sort_values()
        said.append(f"{jobs:,} jobs on {replicas:,} replicas ({way}): {mean.index[0]}, {mean.iloc[0] / jobs:.3f}")
    trials = summary.groupby(["variant", "jobs", "policy"])["trial"].nunique()
    most = trials.max()
    few = f" ({trials.idxmin()[1]:,} jobs: {trials.min()})" if trials.min() < most else ""
    return (
        f"Table 8: lost utility a job in larger clusters, mean over {most} trial{'s' if most > 1 else ''}{few}; least have "
        + "; ".join(said)
        + f". Dashed: the clairvoyant limit. {NONE_PUBLISHED}"
    )


def hierarchical_simulated(
    summary: pd.DataFrame, grouped: str, exact: str, limit: pd.DataFrame | None = None
) -> Figure:
    """Figure 7, simulated: utility a job and the slowest decisions as jobs grow, the same edition with two solvers.

    Parameters
    ----------
    limit : of the clairvoyant, columns variant, jobs, lost_utility; or None.
    """
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE_IN, 2.2))
    styles = {grouped: ("o", "--", "hierarchical"), exact: ("s", "-", "exact")}
    for way, hue, dashes in zip(dict.fromkeys(summary["variant"]), ("#0072B2", "#D55E00"), ("--", ":")):
        for policy, (marker, line, label) in styles.items():
            part = summary[(summary["variant"] == way) & (summary["policy"] == policy)].groupby("jobs")
            style = {"marker": marker, "linestyle": line, "color": hue, "markersize": 3}
            utility = _utility_a_job(part)
            left.plot(utility.index, utility, label=f"{label}, jobs {way}", **style)
            right.plot(utility.index, part["decision_ms_p99"].mean(), **style)
        if limit is not None:
            best = _utility_a_job(limit[limit["variant"] == way].groupby("jobs"))
            label = f"{CLAIRVOYANT}, jobs {way}"
            left.plot(best.index, best, color=LIMIT, linestyle=dashes, marker="d", markersize=3, label=label)
    left.set(xscale="log", xlabel="jobs", ylabel="utility a job")
    right.set(xscale="log", yscale="log", xlabel="jobs", ylabel="p99 of a turn (ms)")
    counts = sorted(summary.loc[summary["policy"].isin(styles), "jobs"].unique())
    for axis in (left, right):
        axis.set_xticks(counts, [f"{count:g}" for count in counts])
        axis.minorticks_off()
    handles, labels = left.get_legend_handles_labels()
    legend_above(figure, handles, labels, 2)
    return figure


def _utility_a_job(by_jobs) -> pd.Series:
    lost = by_jobs["lost_utility"].mean()
    return 1 - lost / lost.index


def hierarchical_caption(summary: pd.DataFrame, grouped: str, exact: str) -> str:
    """What grouping loses and how much longer it takes at the largest cluster."""
    jobs = summary.loc[summary["policy"] == grouped, "jobs"].max()
    mean = summary[summary["jobs"] == jobs].groupby("policy")[["lost_utility", "decision_ms_p99"]].mean()
    more = (mean.loc[grouped, "lost_utility"] - mean.loc[exact, "lost_utility"]) / jobs
    times = mean.loc[grouped, "decision_ms_p99"] / mean.loc[exact, "decision_ms_p99"]
    return (
        f"The paper's edition with two solvers: at {jobs:,} jobs solving in ten groups (COBYLA inside) changes the lost "
        f"utility of a job by {more:+.3f} against solving exactly, and its slowest decisions take {times:.1f} times as long. "
        f"Red: the clairvoyant limit. {NONE_PUBLISHED}"
    )


def curve(summary: pd.DataFrame, limit: pd.DataFrame) -> Figure:
    """Lost utility against the cluster's size, by policy, and the clairvoyant limit (as the paper's figure 2)."""
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(PAGE_IN, 2.8))
    for marker, policy in zip(MARKERS, dict.fromkeys(summary["policy"])):
        lost = summary[summary["policy"] == policy].groupby("capacity_cores")["lost_utility"]
        line = "--" if "(paper" in policy else "-"
        axis.errorbar(
            lost.mean().index, lost.mean(), yerr=lost.std(ddof=1).fillna(0), marker=marker, markersize=3,
            linestyle=line, color=colour(policy), label=policy,
        )  # fmt: skip
    floor = limit.groupby("capacity_cores")["lost_utility"].mean()
    axis.plot(floor.index, floor, color=LIMIT, linestyle="--", label=CLAIRVOYANT)
    axis.set(xlabel="capacity_cores", ylabel="lost cluster utility", yscale="log")
    legend_above(figure, *axis.get_legend_handles_labels(), 4)
    return figure


def curve_caption(summary: pd.DataFrame) -> str:
    """How many replicas each policy needs to lose no more than half a job's utility."""
    mean = summary.groupby(["policy", "capacity_cores"], sort=False)["lost_utility"].mean()
    said = []
    for policy in dict.fromkeys(summary["policy"]):
        enough = [size for size, lost in mean[policy].sort_index().items() if lost <= 0.5]
        said.append(f"{policy} {enough[0]:g}" if enough else f"{policy} more than {mean[policy].index.max():g}")
    trials = summary.groupby(["policy", "capacity_cores"])["trial"].nunique().min()
    ranked = mean.unstack("policy").sort_index()
    least = ", ".join(f"{size:g} {policy}" for size, policy in ranked.idxmin(axis=1).items())
    return (
        f"Lost cluster utility against replicas, mean over {trials} trial{'s' if trials > 1 else ''}. Of the sizes tried, to "
        f"lose no more than half a job's utility it takes: {', '.join(said)}. Least at each: {least}. {NONE_PUBLISHED}"
    )
