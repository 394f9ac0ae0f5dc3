"""Stage 67: lost utility where services are not as stated."""

from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from faro_lib.figures.style import CYCLE, PAGE_IN, legend_above
from studies.figures.common import scale_losses
from studies.figures.drawing import Drawing, Drawings
from studies.misspecification.world import ASSUMING, FAROS, FIRST_MINUTES, KNOWING, LEARNING

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h")


def draw(results: Path) -> Drawings:
    """The stage's figure."""
    runs = pd.read_csv(results / "misspecification" / "runs.csv")
    title = "Lost utility where services are not as stated"
    return {"misspecification": Drawing(lost_by_world(runs), title, finding(runs))}


def lost_by_world(runs: pd.DataFrame) -> Figure:
    """Plot the mean lost utility after the first minutes by world, a panel for each capacity.

    `runs` is the first table of `studies.misspecification.world.compared`.
    """
    capacities = sorted(runs["capacity_cores"].unique(), reverse=True)
    worlds = list(dict.fromkeys(runs["world"]))
    policies = list(dict.fromkeys(runs["policy"]))
    height = 1.2 + 0.19 * len(worlds)
    figure, axes = plt.subplots(
        1, len(capacities), figsize=(PAGE_IN, height), sharey=True, squeeze=False
    )
    for axis, capacity in zip(axes[0], capacities):
        of_capacity = runs[runs["capacity_cores"] == capacity]
        _panel(axis, of_capacity, worlds, policies)
        axis.set_title(f"{capacity:g} cores", loc="left")
        axis.set_xlabel(f"lost cluster utility after {FIRST_MINUTES} minutes")
    axes[0][0].set_yticks(range(len(worlds)), worlds)
    # Half a row above and below, so that no marker is cut at the edge.
    axes[0][0].set_ylim(len(worlds) - 0.5, -0.5)
    handles, labels = axes[0][0].get_legend_handles_labels()
    legend_above(figure, handles, labels, columns=3)
    return figure


def _panel(axis: Axes, runs: pd.DataFrame, worlds: list[str], policies: list[str]) -> None:
    mean = runs.groupby(["policy", "world"])["lost_later"].mean()
    for index, policy in enumerate(policies):
        of_policy = mean[policy].reindex(worlds)
        axis.plot(
            of_policy,
            range(len(worlds)),
            linestyle="none",
            marker=MARKERS[index],
            markersize=4,
            color=CYCLE[index % len(CYCLE)],
            label=policy,
        )
    scale_losses(axis, "x", mean)


def finding(runs: pd.DataFrame) -> str:
    """Compare Faro that learns with Faro that knows, that believes, and with the best rival."""
    mean = runs.groupby(["capacity_cores", "world", "policy"])["lost_later"].mean().unstack()
    worst = mean.loc[(mean[ASSUMING] - mean[KNOWING]).idxmax()]
    capacity, world = worst.name
    rivals = mean.drop(columns=list(FAROS)).min(axis=1)
    error = runs.loc[runs["policy"] == LEARNING, "learned_error"].median()
    return (
        f"Where the assumption costs most ({world}, {capacity:g} cores), Faro-Sum loses "
        f"{worst[ASSUMING]:.3f} if it believes what is stated, {worst[LEARNING]:.3f} if it learns, "
        f"and {worst[KNOWING]:.3f} if it knows the truth. "
        f"Faro-Sum that learns loses less than the best rival in "
        f"{(mean[LEARNING] < rivals).sum()} of {len(mean)} cases; Faro-Sum that believes does in "
        f"{(mean[ASSUMING] < rivals).sum()}. "
        f"After {FIRST_MINUTES} minutes, the median error of a learned service time is {error:.1%}."
    )
