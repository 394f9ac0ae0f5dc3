"""Where does the lead end? One panel a circumstance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from faro_lib.experiments.sensitivity import CIRCUMSTANCES, leads, where_it_ends
from faro_lib.figures.style import PAGE_IN, colour, legend_above

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = "os^Dv"
NOTHING_PUBLISHED = "The paper has no such figure."


def where_the_lead_ends(summary: pd.DataFrame) -> Figure:
    """Lost utility of each policy against each circumstance, mean over trials.

    Parameters
    ----------
    summary : columns circumstance, value, policy, trial, lost_utility.
    """
    from matplotlib import pyplot as plt

    names = [name for name in CIRCUMSTANCES if name in set(summary["circumstance"])]
    figure, axes = plt.subplots(1, len(names), figsize=(PAGE_IN, 2.3), sharey=True, squeeze=False)
    for axis, name in zip(axes[0], names):
        part = summary[summary["circumstance"] == name]
        for marker, policy in zip(MARKERS, dict.fromkeys(part["policy"])):
            lost = part[part["policy"] == policy].groupby("value")["lost_utility"]
            mean, deviation = lost.mean(), lost.std(ddof=1).fillna(0)
            axis.errorbar(
                mean.index, mean, yerr=deviation, marker=marker, markersize=3, color=colour(policy), label=policy
            )
        values = sorted(part["value"].unique())
        axis.set_xticks(values, [f"{value:g}" if value in sparse(values) else "" for value in values])
        axis.set_xlabel(CIRCUMSTANCES[name].replace(" (", "\n("))
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
    """For each circumstance: where the leader's lead ends, or how small it gets."""
    table = leads(summary, leader)
    said = []
    for name, (kept, lost) in where_it_ends(table).items():
        label = CIRCUMSTANCES[name]
        part = table[table["circumstance"] == name].set_index("value")["lead"]
        if lost is None:
            said.append(f"{label}: nowhere; the lead is least, {part.min():.2f}, at {part.idxmin():g}")
        elif kept is None:
            said.append(f"{label}: there is none at {lost:g} already")
        else:
            said.append(f"{label}: between {kept:g} and {lost:g}")
    trials = summary.groupby(["circumstance", "value", "policy"])["trial"].nunique().min()
    return (
        f"Where the lead of {leader} over the best other policy ends, in lost utility, "
        f"mean over {trials} trial{'s' if trials > 1 else ''}. {'; '.join(said)}. {NOTHING_PUBLISHED}"
    )
