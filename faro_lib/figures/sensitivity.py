"""Stage 65: where the margin over simpler policies ends, one panel per parameter."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from faro_lib.experiments.sensitivity import PARAMETERS, margins, where_it_ends
from faro_lib.figures.style import PAGE_IN, Captioned, colour, legend_above, trials_note

MARKERS = "os^Dv"
NOTHING_PUBLISHED = "The paper has no such figure."


def draw(results: Path) -> Captioned:
    summary = pd.read_csv(results / "sensitivity" / "summary.csv")
    return {"fig65_sensitivity": (where_the_margin_ends(summary), margin_caption(summary))}


def where_the_margin_ends(summary: pd.DataFrame) -> Figure:
    """Lost utility of each policy against each parameter, mean over trials.

    Parameters
    ----------
    summary : columns parameter, value, policy, trial, lost_utility.
    """
    names = [name for name in PARAMETERS if name in set(summary["parameter"])]
    figure, axes = plt.subplots(1, len(names), figsize=(PAGE_IN, 2.3), sharey=True, squeeze=False)
    for axis, name in zip(axes[0], names):
        part = summary[summary["parameter"] == name]
        for marker, policy in zip(MARKERS, dict.fromkeys(part["policy"])):
            lost = part[part["policy"] == policy].groupby("value")["lost_utility"]
            mean, deviation = lost.mean(), lost.std(ddof=1).fillna(0)
            line = {"marker": marker, "markersize": 3, "color": colour(policy), "label": policy}
            axis.errorbar(mean.index, mean, yerr=deviation, **line)
        values = sorted(part["value"].unique())
        axis.set_xticks(values, [f"{value:g}" if value in sparse(values) else "" for value in values])
        axis.set_xlabel(PARAMETERS[name].replace(" (", "\n("))
    axes[0][0].set(ylabel="lost cluster utility", ylim=(0, None))  # of all panels, once all are drawn
    legend_above(figure, *axes[0][0].get_legend_handles_labels())
    return figure


def sparse(values: list[float], spacing: float = 0.19) -> list[float]:
    """The ascending `values` whose tick labels do not overlap, `spacing` of the axis apart; always the last one.

    >>> sparse([5, 20, 35, 60, 120])
    [5, 35, 60, 120]
    >>> sparse([30, 60, 300])
    [30, 300]
    """
    room = spacing * (values[-1] - values[0])
    kept = values[-1:]
    for value in reversed(values[:-1]):
        if kept[0] - value >= room and (value - values[0] >= room or value == values[0]):
            kept.insert(0, value)
    return kept


def margin_caption(summary: pd.DataFrame) -> str:
    """For each parameter: where the margin of the last policy ends, or how small it gets."""
    leader = summary["policy"].iloc[-1]
    table = margins(summary, leader)
    parts = []
    for name, (kept, lost) in where_it_ends(table).items():
        label = PARAMETERS[name]
        margin = table[table["parameter"] == name].set_index("value")["margin"]
        if lost is None:
            parts.append(f"{label}: positive throughout; smallest {margin.min():.2f}, at {margin.idxmin():g}")
        elif kept is None:
            parts.append(f"{label}: none, already at {lost:g}")
        else:
            parts.append(f"{label}: between {kept:g} and {lost:g}")
    trials = trials_note(summary, ["parameter", "value", "policy"])
    return (
        f"Where the margin of {leader} over the best baseline ends, in lost utility, {trials}. {'; '.join(parts)}. "
        f"{NOTHING_PUBLISHED}"
    )
