"""Stage 70, two models, more jobs and more capacities: table 8 of the paper, and its figures 2, 7, 14 and 15, simulated."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from faro_lib.experiments.scale import EXACT, GROUPED
from faro_lib.figures.barcharts import grouped_bars
from faro_lib.figures.comparison import capacity_caption, policies_by_capacity, published_main
from faro_lib.figures.style import (
    CLAIRVOYANT,
    LIMIT,
    LIMIT_LINE,
    NONE_PUBLISHED,
    PAGE_IN,
    Captioned,
    colour,
    legend_above,
    published_note,
    trials_note,
)

EFFECTIVE = {"lost_utility": "lost cluster utility", "lost_effective_utility": "lost effective utility"}
MIXED = "mixed"  # the variant with two models
MARKERS = "os^Dvph"


def draw(results: Path, published: str | None = None, curve: bool = False) -> Captioned:
    """The figures of the parts that the stage has computed; `curve` says whether it has computed that one."""
    paper = published_main(published) if published else None
    main, floor = (pd.read_csv(results / "simulate" / f"{name}.csv") for name in ("summary", "limit"))
    floor = floor.groupby("capacity_cores", as_index=False).mean()
    figures = {"fig15_effective": (policies_by_capacity(main, floor, paper, EFFECTIVE), effective_caption(main, paper))}
    summary, limit = (pd.read_csv(results / "scale" / f"{name}.csv") for name in ("summary", "limit"))
    (mixed, larger), (mixed_limit, larger_limit) = (
        (table[table["variant"] == MIXED], table[table["variant"] != MIXED]) for table in (summary, limit)
    )
    if len(mixed):
        figures["fig14_mixed"] = (policies_by_capacity(mixed, mixed_limit), mixed_caption(mixed, mixed_limit))
    if len(larger):
        figures["fig70_larger_clusters"] = (larger_clusters(larger, larger_limit), larger_caption(larger))
    if GROUPED in set(larger["policy"]):
        figures["fig07b_hierarchical_simulated"] = (
            hierarchical_simulated(larger, larger_limit),
            hierarchical_caption(larger),
        )
    if curve:
        rows, limits = (pd.read_csv(results / "scale" / f"{name}.csv") for name in ("curve", "curve_limit"))
        figures["fig02_sizes"] = (lost_by_capacity(rows, limits), curve_caption(rows))
    return figures


def effective_caption(summary: pd.DataFrame, published: pd.DataFrame | None = None) -> str:
    """The difference of the two measures, and the policy for which it is largest."""
    mean = summary.groupby(["policy", "capacity_cores"])[list(EFFECTIVE)].mean()
    gap = mean["lost_utility"] - mean["lost_effective_utility"]
    policy, capacity = gap.abs().idxmax()
    return (
        f"Utility against effective utility, which counts a drop by its penalty: they differ by {gap.abs().median():.3f} "
        f"in the median and most for {policy} at {capacity:g} replicas ({gap[policy, capacity]:+.2f}). "
        f"{published_note(published)}"
    )


def mixed_caption(summary: pd.DataFrame, limit: pd.DataFrame) -> str:
    return f"With ResNet18 in every other job. {capacity_caption(summary, limit, None)}"


def larger_clusters(summary: pd.DataFrame, limit: pd.DataFrame) -> Figure:
    """Table 8: lost utility per job in larger clusters, one panel per way of making the jobs.

    Parameters
    ----------
    summary : columns variant, jobs, capacity_cores, policy, trial, lost_utility; limit : the same without policy.
    """
    size = ["jobs", "capacity_cores"]
    ways = list(dict.fromkeys(summary["variant"]))
    room = [len(summary.loc[summary["variant"] == way, size].drop_duplicates()) for way in ways]
    figure, axes = plt.subplots(1, len(ways), figsize=(PAGE_IN, 2.5), sharey=True, squeeze=False, width_ratios=room)
    for axis, way in zip(axes[0], ways):
        part = summary[summary["variant"] == way].assign(lost=lambda table: table["lost_utility"] / table["jobs"])
        clusters = list(part[size].drop_duplicates().itertuples(index=False, name=None))
        floor = limit[limit["variant"] == way].assign(lost=lambda table: table["lost_utility"] / table["jobs"])
        lost, floor = part.set_index(["policy", *size])["lost"], floor.groupby(size)["lost"].mean()
        grouped_bars(axis, lost, clusters, limit=floor, colour_of=lambda policy: colour(policy.split(" (")[0]))
        axis.set_xticks(range(len(clusters)), [f"{jobs:,.0f} jobs on\n{replicas:,.0f}" for jobs, replicas in clusters])
        axis.set(title=f"jobs {way}", xlabel="jobs on replicas")
    axes[0][0].set_ylabel("lost utility per job")
    handles, labels = axes[0][0].get_legend_handles_labels()
    legend_above(figure, handles, labels, 3)
    return figure


def larger_caption(summary: pd.DataFrame) -> str:
    """The best policy in each cluster."""
    best = []
    for (way, jobs, replicas), part in summary.groupby(["variant", "jobs", "capacity_cores"], sort=False):
        mean = part.groupby("policy")["lost_utility"].mean().sort_values()
        best.append(f"{jobs:,} jobs on {replicas:,} replicas ({way}): {mean.index[0]}, {mean.iloc[0] / jobs:.3f}")
    trials = summary.groupby(["variant", "jobs", "policy"])["trial"].nunique()
    most = trials.max()
    few = f" ({trials.idxmin()[1]:,} jobs: {trials.min()})" if trials.min() < most else ""
    return (
        f"Table 8: lost utility per job in larger clusters, mean over {most} trial{'s' if most > 1 else ''}{few}; the least: "
        f"{'; '.join(best)}. Dashed: the clairvoyant limit. {NONE_PUBLISHED}"
    )


def hierarchical_simulated(summary: pd.DataFrame, limit: pd.DataFrame) -> Figure:
    """Figure 7, simulated: utility per job and the slowest decisions as jobs grow, the same policy with two solvers.

    Parameters
    ----------
    summary, limit : as in `larger_clusters`, and decision_ms_p99.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE_IN, 2.2))
    styles = {GROUPED: ("o", "--", "hierarchical"), EXACT: ("s", "-", "exact")}
    for way, hue, dashes in zip(dict.fromkeys(summary["variant"]), ("#0072B2", "#D55E00"), ("--", ":")):
        for policy, (marker, line, label) in styles.items():
            part = summary[(summary["variant"] == way) & (summary["policy"] == policy)]
            style = {"marker": marker, "linestyle": line, "color": hue, "markersize": 3}
            left.plot(_utility_per_job(part), label=f"{label}, jobs {way}", **style)
            right.plot(part.groupby("jobs")["decision_ms_p99"].mean(), **style)
        best = {"color": LIMIT, "linestyle": dashes, "marker": "d", "markersize": 3}
        left.plot(_utility_per_job(limit[limit["variant"] == way]), label=f"{CLAIRVOYANT}, jobs {way}", **best)
    left.set(xscale="log", xlabel="jobs", ylabel="utility per job")
    right.set(xscale="log", yscale="log", xlabel="jobs", ylabel="p99 of a tick (ms)")
    counts = sorted(summary.loc[summary["policy"].isin(styles), "jobs"].unique())
    for axis in (left, right):
        axis.set_xticks(counts, [f"{count:g}" for count in counts])
        axis.minorticks_off()
    handles, labels = left.get_legend_handles_labels()
    legend_above(figure, handles, labels, 2)
    return figure


def _utility_per_job(table: pd.DataFrame) -> pd.Series:
    lost = table.groupby("jobs")["lost_utility"].mean()
    return 1 - lost / lost.index


def hierarchical_caption(summary: pd.DataFrame) -> str:
    """The loss and the extra time of grouping at the largest cluster."""
    jobs = summary.loc[summary["policy"] == GROUPED, "jobs"].max()
    mean = summary[summary["jobs"] == jobs].groupby("policy")[["lost_utility", "decision_ms_p99"]].mean()
    lost, times_ms = mean["lost_utility"], mean["decision_ms_p99"]
    return (
        f"The paper's variant with two solvers: at {jobs:,} jobs solving in ten groups (COBYLA inside) changes the lost "
        f"utility of a job by {(lost[GROUPED] - lost[EXACT]) / jobs:+.3f} against solving exactly, and its slowest decisions "
        f"take {times_ms[GROUPED] / times_ms[EXACT]:.1f} times as long. Red: the clairvoyant limit. {NONE_PUBLISHED}"
    )


def lost_by_capacity(summary: pd.DataFrame, limit: pd.DataFrame) -> Figure:
    """Lost utility against capacity, by policy, and the clairvoyant limit (as the paper's figure 2)."""
    figure, axis = plt.subplots(figsize=(PAGE_IN, 2.8))
    for marker, policy in zip(MARKERS, dict.fromkeys(summary["policy"])):
        lost = summary[summary["policy"] == policy].groupby("capacity_cores")["lost_utility"]
        mean, deviation = lost.mean(), lost.std(ddof=1).fillna(0)
        axis.errorbar(
            mean.index, mean, yerr=deviation, marker=marker, markersize=3, label=policy, color=colour(policy),
            linestyle="--" if "(paper" in policy else "-",
        )  # fmt: skip
    axis.plot(limit.groupby("capacity_cores")["lost_utility"].mean(), label=CLAIRVOYANT, **LIMIT_LINE)
    axis.set(xlabel="replicas", ylabel="lost cluster utility", yscale="log")
    legend_above(figure, *axis.get_legend_handles_labels(), columns=4)
    return figure


def curve_caption(summary: pd.DataFrame) -> str:
    """The replicas that each policy needs to lose no more than half a job's utility."""
    mean = summary.groupby(["policy", "capacity_cores"], sort=False)["lost_utility"].mean()
    needs = []
    for policy in dict.fromkeys(summary["policy"]):
        enough = [capacity for capacity, lost in mean[policy].sort_index().items() if lost <= 0.5]
        needs.append(f"{policy} {enough[0]:g}" if enough else f"{policy} more than {mean[policy].index.max():g}")
    ranked = mean.unstack("policy").sort_index()
    best = ", ".join(f"{capacity:g} {policy}" for capacity, policy in ranked.idxmin(axis=1).items())
    return (
        f"Lost cluster utility against replicas, {trials_note(summary, ['policy', 'capacity_cores'])}. Of the sizes tried, "
        f"losing no more than half a job's utility takes: {', '.join(needs)}. Least at each: {best}. {NONE_PUBLISHED}"
    )
