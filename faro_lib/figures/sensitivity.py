"""Where does the margin end? One panel a parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from faro_lib.experiments.sensitivity import PARAMETERS, margins, where_it_ends
from faro_lib.figures.style import PAGE_IN, colour, legend_above

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = "os^Dv"
NOTHING_PUBLISHED = "The paper has no such figure."


def where_the_lead_ends(summary: pd.DataFrame) -> Figure:
    """Lost utility of each policy against each parameter, mean over trials.

    Parameters
    ----------
    summary : columns parameter, value, policy, trial, lost_utility.
    """
    from matplotlib import pyplot as plt

    names = [name for name in PARAMETERS if name in set(summary["parameter"])]
    figure, axes = plt.subplots(1, len(names), figsize=(PAGE_IN, 2.3), sharey=True, squeeze=False)
    for axis, name in zip(axes[0], names):
        part = summary[summary["parameter"] == name]
        for marker, policy in zip(MARKERS, dict.fromkeys(part["policy"])):
            lost = part[part["policy"] == policy].groupby("value")["lost_utility"]
            mean, deviation = lost.mean(), lost.std(ddof=1).fillna(0)
            axis.errorbar(
                mean.index, mean, yerr=deviation, marker=marker, markersize=3, color=colour(policy), label=policy
            )
        values = sorted(part["value"].unique())
        axis.set_xticks(values, [f"{value:g}" if value in sparse(values) else "" for value in values])
        axis.set_xlabel(PARAMETERS[name].replace(" (", "\n("))
    axes[0][0].set(ylabel="lost cluster utility", ylim=(0, None))  # of all panels, once all are drawn
    legend_above(figure, *axes[0][0].get_legend_handles_labels())
    return figure


def sparse(values: list[float], apart: float = 0.19) -> list[float]:
    """Those of the ascending `values` whose labels find room on an axis that spans them all; the last always does.

    >>> sparse([5, 20, 35, 60, 120])
    [5, 35, 60, 120]
    >>> sparse([30, 60, 300])
    [30, 300]
    """
    room = apart * (values[-1] - values[0])
    kept = values[-1:]
    for value in reversed(values[:-1]):
        if kept[0] - value >= room and (value - values[0] >= room or value == values[0]):
            kept.insert(0, value)
    return kept


def caption(summary: pd.DataFrame, leader: str) -> str:
    """For each parameter: where the leader's margin ends, or how small it gets."""
    table = margins(summary, leader)
    said = []
    for name, (kept, lost) in where_it_ends(table).items():
        label = PARAMETERS[name]
        part = table[table["parameter"] == name].set_index("value")["margin"]
        if lost is None:
            said.append(f"{label}: nowhere; the margin is least, {part.min():.2f}, at {part.idxmin():g}")
        elif kept is None:
            said.append(f"{label}: there is none at {lost:g} already")
        else:
            said.append(f"{label}: between {kept:g} and {lost:g}")
    trials = summary.groupby(["parameter", "value", "policy"])["trial"].nunique().min()
    return (
        f"Where the margin of {leader} over the best other policy ends, in lost utility, "
        f"mean over {trials} trial{'s' if trials > 1 else ''}. {'; '.join(said)}. {NOTHING_PUBLISHED}"
    )
