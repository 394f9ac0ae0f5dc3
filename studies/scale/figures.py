"""Stage 70: two models, more jobs, more capacities (table 8, figures 2, 14, 15 of the paper)."""

from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from faro_lib.figures.style import PAGE_IN, colour, legend_above
from studies.comparison.figures import capacity_caption, policies_by_capacity, published_main
from studies.figures import common
from studies.figures.barcharts import bar_rows, hatch_of
from studies.figures.common import trials_note
from studies.figures.drawing import Drawing, Drawings
from studies.scale.run import EQUAL, ONE
from studies.tables.wording import and_list

EFFECTIVE = {
    "lost_utility": "lost cluster utility",
    "lost_effective_utility": "lost effective utility",
}
MIXED = "mixed"  # the variant with two models
# The curve's caption names the capacity at which a policy loses at most this utility.
ACCEPTABLE = 0.5


def draw(results: Path, published: str | None = None, curve: bool = False) -> Drawings:
    """Draw a figure for each experiment that was run.

    `curve` adds the figure of lost utility by capacity.
    """
    paper = published_main(published) if published else None
    main = pd.read_csv(results / "simulate" / "summary.csv")
    floor = pd.read_csv(results / "simulate" / "limit.csv")
    figures = {
        "effective_utility": Drawing(
            policies_by_capacity(main, floor, paper, EFFECTIVE),
            "Lost utility and lost effective utility by policy",
            effective_caption(main, paper),
        )
    }
    summary = pd.read_csv(results / "scale" / "summary.csv")
    limit = pd.read_csv(results / "scale" / "limit.csv")
    mixed = summary[summary["variant"] == MIXED]
    if len(mixed):
        mixed_limit = limit[limit["variant"] == MIXED]
        figures["two_models"] = Drawing(
            policies_by_capacity(mixed, mixed_limit),
            "Two models in one cluster",
            mixed_caption(mixed, mixed_limit),
        )
    larger = summary[summary["variant"] != MIXED]
    if len(larger):
        figures["larger_clusters"] = Drawing(
            larger_clusters(larger, limit[limit["variant"] != MIXED]),
            "Lost utility per job in larger clusters",
            larger_caption(larger),
        )
    if curve:
        rows = pd.read_csv(results / "scale" / "curve.csv")
        limits = pd.read_csv(results / "scale" / "curve_limit.csv")
        figures["lost_utility_by_capacity"] = Drawing(
            lost_by_capacity(rows, limits), "Lost utility by capacity", curve_caption(rows)
        )
    return figures


def effective_caption(summary: pd.DataFrame, published: pd.DataFrame | None = None) -> str:
    columns = list(EFFECTIVE if published is None else common.as_published(EFFECTIVE))
    mean = summary.groupby(["policy", "capacity_cores"])[columns].mean()
    gap = mean[columns[0]] - mean[columns[1]]
    policy, capacity = gap.abs().idxmax()
    diamonds = "" if published is None else common.DIAMONDS
    return (
        f"Lost utility and lost effective utility differ by {gap.abs().median():.3f} in the "
        f"median, and most for {policy} at {capacity:g} cores ({gap[policy, capacity]:+.2f}). "
        f"Effective utility charges a drop its penalty.{diamonds}"
    )


def mixed_caption(summary: pd.DataFrame, limit: pd.DataFrame) -> str:
    return f"{capacity_caption(summary, limit)} Every other job serves ResNet18."


def larger_clusters(summary: pd.DataFrame, limit: pd.DataFrame) -> Figure:
    """Table 8: lost utility per job, one panel per larger cluster and one bar per policy."""
    key = ["variant", "jobs", "capacity_cores"]
    clusters = list(summary[key].drop_duplicates().itertuples(index=False, name=None))
    policies = list(dict.fromkeys(summary["policy"]))
    columns = min(4, len(clusters))
    rows = -(-len(clusters) // columns)
    size_in = (PAGE_IN, 0.3 + rows * (0.75 + 0.17 * len(policies)))
    figure, axes = plt.subplots(rows, columns, figsize=size_in, sharey=True, squeeze=False)
    runs = pd.MultiIndex.from_frame(summary[[*key, "policy"]])
    lost = (summary["lost_utility"] / summary["jobs"]).set_axis(runs)
    floor = {}
    if "lost_utility" in limit:  # the column is missing if no limit was computed
        per_job = limit["lost_utility"] / limit["jobs"]
        floor = per_job.groupby([limit[column] for column in key]).mean()
    for axis, cluster in zip(axes.flat, clusters):
        bar_rows(
            axis,
            lost.sort_index().loc[cluster],
            policies,
            [colour(policy.split(" (")[0]) for policy in policies],
            hatches=[hatch_of(policy) for policy in policies],
            limit=floor.get(cluster),
            number_format="{:.3f}",
        )
        variant, jobs, cores = cluster
        axis.set(title=f"{jobs:,} jobs, {cores:,}\ncores, {variant}", xlabel="lost utility per job")
    for axis in axes.flat[len(clusters) :]:
        axis.set_visible(False)
    legend_above(figure, *common.reference_handles(published=False, limit=True))
    return figure


def larger_caption(summary: pd.DataFrame) -> str:
    best = []
    clusters = summary.groupby(["variant", "jobs", "capacity_cores"], sort=False)
    for (way, jobs, cores), part in clusters:
        mean = part.groupby("policy")["lost_utility"].mean().sort_values()
        best.append(
            f"{mean.index[0]} at {jobs:,} jobs on {cores:,} cores ({way}; "
            f"{mean.iloc[0] / jobs:.3f} per job)"
        )
    return (
        f"The lowest loss is that of {and_list(best)}. "
        f"{trials_note(summary, ['variant', 'jobs', 'policy'])} Dashed: clairvoyant limit of the "
        "first trial."
    )


def lost_by_capacity(summary: pd.DataFrame, limit: pd.DataFrame) -> Figure:
    """Figure 2: lost utility by capacity, for each policy and the clairvoyant limit.

    Runs start as in the paper.
    """
    summary = summary[summary["start"] == ONE]
    figure, axis = plt.subplots(figsize=(PAGE_IN, 2.8))
    common.lost_by_policy(axis, summary, "capacity_cores")
    floor = limit.groupby("capacity_cores")["lost_utility"].mean()
    axis.plot(floor, label=common.CLAIRVOYANT, **common.LIMIT_LINE)
    axis.set(xlabel="capacity (cores)", ylabel="lost cluster utility", yscale="log")
    lost = pd.concat([summary["lost_utility"], limit["lost_utility"]])
    positive = lost[lost > 0]
    common.label_log_axis(axis.yaxis, positive.min(), positive.max())
    legend_above(figure, *axis.get_legend_handles_labels(), columns=4)
    return figure


def curve_caption(summary: pd.DataFrame) -> str:
    all_starts = summary
    summary = all_starts[all_starts["start"] == ONE]
    mean = summary.groupby(["policy", "capacity_cores"], sort=False)["lost_utility"].mean()
    needs = []
    for policy in dict.fromkeys(summary["policy"]):
        lost = mean[policy].sort_index()
        enough = lost.index[lost <= ACCEPTABLE]
        if len(enough):
            needs.append(f"{policy} {enough[0]:g}")
        else:
            needs.append(f"{policy} more than {lost.index.max():g}")
    ranked = mean.unstack("policy").sort_index()
    best = ", ".join(f"{capacity:g} {policy}" for capacity, policy in ranked.idxmin(axis=1).items())
    equal_start = all_starts[all_starts["start"] == EQUAL]
    equal = equal_start.groupby(["capacity_cores", "policy"])["lost_utility"].mean().unstack()
    lowest = ", ".join(
        f"{capacity:g} {row.idxmin()} ({row.min():.3f})"
        for capacity, row in equal.sort_index().iterrows()
    )
    offered = ""
    if lowest:
        offered = f" If every policy starts with an equal share of the replicas instead: {lowest}."
    return (
        f"To lose at most {ACCEPTABLE:g} utility, the policies need these cores (of those "
        f"simulated): {', '.join(needs)}. Jobs start with one replica, under FairShare with an "
        f"equal share. Lowest loss at each capacity: {best}.{offered} "
        f"{trials_note(summary, ['policy', 'capacity_cores'])}"
    )
