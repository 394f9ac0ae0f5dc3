"""Shared by the figures of several stages: lines, legends, axes, and sentences of captions."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from faro_lib.figures.style import LIMIT, colour, legend_above

# Keyword arguments of matplotlib.
DIAMOND: dict[str, Any] = {"marker": "D", "ls": "", "ms": 3, "mfc": "white", "mec": "black"}
EDGE: dict[str, Any] = {"edgecolor": "black", "linewidth": 0.3}
LIMIT_LINE: dict[str, Any] = {"color": LIMIT, "linestyle": "--"}
CLAIRVOYANT = "clairvoyant limit"
DIAMONDS = " Diamonds: published values; losses are in the published convention."


def as_published(measures: Mapping[str, str]) -> dict[str, str]:
    """`measures` (column -> label), with losses in the published convention."""
    return {
        f"{name}_published" if "lost" in name else name: label for name, label in measures.items()
    }


def trials_note(summary: pd.DataFrame, by: list[str]) -> str:
    """A sentence on the smallest number of trials in a group of equal `by` columns."""
    trials = summary.groupby(by)["trial"].nunique().min()
    if trials <= 1:
        return "One trial."
    return f"Mean over {trials} trials; whiskers: one standard deviation."


def reference_handles(published: bool, limit: bool) -> tuple[list, list[str]]:
    """Legend handles and labels of the clairvoyant limit and the published values."""
    handles, labels = [], []
    if limit:
        handles.append(Line2D([], [], **LIMIT_LINE))
        labels.append(CLAIRVOYANT)
    if published:
        handles.append(Line2D([], [], **DIAMOND))
        labels.append("published (EuroSys'25)")
    return handles, labels


def lost_by_policy(axis: Axes, summary: pd.DataFrame, x: str) -> None:
    """Draw mean lost utility against column `x`: a line per policy, one deviation as whisker."""
    for marker, (policy, rows) in zip("os^Dvph", summary.groupby("policy", sort=False)):
        lost = rows.groupby(x)["lost_utility"]
        mean, deviation = lost.mean(), lost.std().fillna(0)
        dashes = "--" if "(paper" in policy else "-"
        line: dict[str, Any] = {
            "color": colour(policy),
            "linestyle": dashes,
            "marker": marker,
            "markersize": 3,
        }
        axis.errorbar(mean.index, mean, yerr=deviation, label=policy, **line)


def legend_out_of_the_panel(figure: Figure, axis: Axes, columns: int) -> None:
    """Move the legend of seaborn's lines from the panel, where it covers a line, to above it."""
    handles, labels = axis.get_legend_handles_labels()
    if legend := axis.get_legend():
        legend.remove()
    legend_above(figure, handles, labels, columns=columns)


def scale_losses(axis: Axes, direction: Literal["x", "y"], losses: pd.Series) -> None:
    """Scale an axis of mean losses, logarithmic if they differ more than threefold.

    The axis is linear from zero if they differ less, or if one is zero, which has no logarithm.
    """
    low, high = losses.min(), losses.max()
    if high > 3 * low > 0:
        axis.set(**{f"{direction}scale": "log"})
        label_log_axis(axis.xaxis if direction == "x" else axis.yaxis, low, high)
    else:
        end = high if high > 0 else 1.0
        # From below zero, where a marker at zero would be cut.
        axis.set(**{f"{direction}lim": (-0.03 * end, 1.05 * end)})


def label_log_axis(axis: Axis, low: float, high: float) -> None:
    """Label 1, 2 and 5 times the powers of ten from `low` to `high`; in a wide range the powers."""
    steps = (1, 2, 5) if high < 100 * low else (1,)
    exponents = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**exponent for exponent in exponents for step in steps]
    ticks = [tick for tick in ticks if low / 1.5 <= tick <= high * 1.5]
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
