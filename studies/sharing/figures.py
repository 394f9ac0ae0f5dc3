"""Stage 45: lost utility with replicas that hold one or several models, and their placement."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from faro_lib.figures.style import CYCLE, PAGE_IN
from studies.figures.barcharts import bar_rows
from studies.figures.common import scale_losses
from studies.figures.drawing import Drawing, Drawings
from studies.sharing.world import EVERYWHERE, ISOLATED, LEADER, LEAST_RECENT, PLACED_ONCE

MARKERS = ("o", "s", "^", "D", "v")


def draw(results: Path) -> Drawings:
    """The stage's figures."""
    runs = pd.read_csv(results / "sharing" / "runs.csv")
    held = pd.read_csv(results / "sharing" / "placement.csv")
    losses = "Lost utility of replicas that hold one, two or more models"
    placement = "Which models each replica holds"
    return {
        "shared_replicas": Drawing(loss_by_cores(runs), losses, finding(runs)),
        "placement_of_models": Drawing(placement_graph(held), placement, placement_finding(held)),
    }


def loss_by_cores(runs: pd.DataFrame) -> Figure:
    """Plot the mean lost utility by capacity, as lines, or as bars if there is one capacity.

    Left: Faro by models per replica. Right: Faro and its rivals with the most models per replica
    that all policies have. `runs` is from `studies.sharing.world.compared`.
    """
    models = min(runs.loc[runs["policy"] == LEAST_RECENT, "models"], default=1)
    panels = {
        "Faro-Sum, by models per replica": _by_models(runs),
        f"{models} models per replica, by policy": _by_policy(runs, models),
    }
    if runs["capacity_cores"].nunique() == 1:
        return _bars(panels, runs["capacity_cores"].iloc[0])
    return _lines(panels)


def _by_models(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Label of a series -> its runs, by models per replica of Faro."""
    late = runs[(runs["router"] == "late") & runs["policy"].isin([LEADER, ISOLATED])]
    return {
        "isolated" if models == 1 else f"{models} models per replica": part
        for models, part in late.groupby("models")
    }


def _by_policy(runs: pd.DataFrame, models: int) -> dict[str, pd.DataFrame]:
    """Label of a series -> its runs, by policy that holds so many models per replica."""
    shown = [
        (LEADER, "late"),
        (PLACED_ONCE, "late"),
        (LEADER, "early"),
        (LEAST_RECENT, "lru"),
    ]
    series = {}
    for policy, router in shown:
        of_policy = (runs["policy"] == policy) & (runs["router"] == router)
        part = runs[of_policy & (runs["models"] == models)]
        if len(part):
            early = ", bound early" if router == "early" else ""
            series[policy + early] = part
    everywhere = runs[runs["policy"] == EVERYWHERE]
    if len(everywhere):
        series[EVERYWHERE] = everywhere
    return series


def _bars(panels: dict[str, dict[str, pd.DataFrame]], capacity: float) -> Figure:
    rows = max(len(series) for series in panels.values())
    figure, axes = plt.subplots(1, len(panels), figsize=(PAGE_IN, 0.7 + 0.2 * rows))
    # Room between the numbers of a panel and the names of the next.
    figure.set_layout_engine("constrained", w_pad=0.12)
    for axis, (title, series) in zip(axes, panels.items()):
        lost = pd.concat({name: part["lost_utility"] for name, part in series.items()})
        bar_rows(axis, lost, list(series), CYCLE[: len(series)])
        axis.set_title(title, loc="left")
        axis.set_xlabel(f"lost cluster utility with {capacity:g} cores")
    return figure


def _lines(panels: dict[str, dict[str, pd.DataFrame]]) -> Figure:
    options: dict[str, Any] = {"figsize": (PAGE_IN, 3.2), "sharey": True, "layout": "constrained"}
    figure, axes = plt.subplots(1, len(panels), **options)
    means = []
    for axis, (title, series) in zip(axes, panels.items()):
        for (label, part), color, marker in zip(series.items(), CYCLE, MARKERS):
            mean = part.groupby("capacity_cores")["lost_utility"].mean()
            axis.plot(mean.index, mean, color=color, marker=marker, markersize=4, label=label)
            means.append(mean)
        axis.set_title(title, loc="left")
        axis.set_xlabel("cores")
        axis.set_xticks(sorted(set().union(*(part["capacity_cores"] for part in series.values()))))
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    scale_losses(axes[0], "y", pd.concat(means))
    axes[0].set_ylabel("lost cluster utility")
    return figure


def placement_graph(held: pd.DataFrame) -> Figure:
    """Draw jobs (top) and replicas (bottom), with a line for each model that a replica holds.

    `held` has the columns replica, home, job, and a row for each model in a replica.
    """
    figure, axis = plt.subplots(figsize=(PAGE_IN, 1.8))
    jobs = list(dict.fromkeys(held["home"])) + [
        job for job in dict.fromkeys(held["job"]) if job not in set(held["home"])
    ]
    replicas = held["replica"].nunique()
    place = {job: (index + 0.5) / len(jobs) * replicas for index, job in enumerate(jobs)}
    for row in held.itertuples():
        own = row.home == row.job
        color = CYCLE[jobs.index(row.job) % len(CYCLE)]
        axis.plot(
            [place[row.job], row.replica + 0.5],
            [1, 0],
            color=color,
            linewidth=1.6 if own else 0.9,
            linestyle="-" if own else ":",
        )
    for job, x in place.items():
        axis.text(x, 1.06, job, ha="center", va="bottom")
    axis.plot(np.arange(replicas) + 0.5, np.zeros(replicas), "s", color="black", markersize=3)
    axis.text(replicas / 2, -0.12, f"{replicas} replicas", ha="center", va="top")
    axis.set_ylim(-0.3, 1.25)
    axis.axis("off")
    return figure


def finding(runs: pd.DataFrame) -> str:
    """Compare Faro with shared and with isolated replicas."""
    late = runs[runs["router"] == "late"]
    mean = late.groupby(["policy", "models", "capacity_cores"])["lost_utility"].mean()
    isolated = mean[ISOLATED].droplevel("models")
    shared = mean[LEADER].unstack("capacity_cores")
    sentences = []
    for capacity in shared.columns:
        found = " and ".join(
            f"{shared.loc[models, capacity]:.3f} with {models}" for models in shared.index
        )
        sentences.append(
            f"With {capacity:g} cores, Faro-Sum loses {isolated[capacity]:.3f} if each replica "
            f"holds one model, and {found} models."
        )
    return " ".join(sentences)


def placement_finding(held: pd.DataFrame) -> str:
    """How many replicas hold the model of each job, by the home of the replicas."""
    homes = held[held["home"] == held["job"]].groupby("job")["replica"].nunique()
    holding = held.groupby("job")["replica"].nunique()
    ratio = holding.sum() / max(homes.sum(), 1)
    return (
        f"The {held['replica'].nunique()} replicas hold {ratio:.1f} models on average. Solid lines "
        "lead to the replicas at home with a job, dotted ones to those that also hold its model. "
        f"A job can use {holding.min()} to {holding.max()} replicas, and {homes.min()} to "
        f"{homes.max()} are at home with it."
    )
