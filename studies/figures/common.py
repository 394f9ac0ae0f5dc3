"""Shared by the figures of several stages: lines, markers, legends, axes, and sentences of their
captions.
"""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.lines import Line2D

from faro_lib.figures.style import LIMIT, colour

# Keyword arguments of matplotlib.
DIAMOND: dict[str, Any] = {"marker": "D", "ls": "", "ms": 3, "mfc": "white", "mec": "black"}
EDGE: dict[str, Any] = {"edgecolor": "black", "linewidth": 0.3}
LIMIT_LINE: dict[str, Any] = {"color": LIMIT, "linestyle": "--"}
CLAIRVOYANT = "clairvoyant limit"
DIAMONDS = " Diamonds: published values; losses are in the published convention."


def as_published(measures: Mapping[str, str]) -> dict[str, str]:
    """`measures` (column -> label), with the columns of losses replaced by those in the published
    convention.
    """
    return {
        f"{name}_published" if "lost" in name else name: label for name, label in measures.items()
    }


def trials_note(summary: pd.DataFrame, by: list[str]) -> str:
    """A sentence on the number of trials per group of equal `by` columns; the smallest number if
    groups differ.
    """
    trials = summary.groupby(by)["trial"].nunique().min()
    return (
        f"Mean over {trials} trials; whiskers: one standard deviation."
        if trials > 1
        else "One trial."
    )


def reference_handles(published: bool, limit: bool) -> tuple[list, list[str]]:
    """Legend handles and labels of the clairvoyant limit and the published values."""
    handles = [Line2D([], [], **LIMIT_LINE)] if limit else []
    handles += [Line2D([], [], **DIAMOND)] if published else []
    return handles, [CLAIRVOYANT] * limit + ["published (EuroSys'25)"] * published


def lost_by_policy(axis: Axes, summary: pd.DataFrame, x: str) -> None:
    """Draw mean lost utility against column `x`, with one line per policy and one standard
    deviation as whisker.
    """
    for marker, (policy, rows) in zip("os^Dvph", summary.groupby("policy", sort=False)):
        lost = rows.groupby(x)["lost_utility"]
        line = {
            "marker": marker,
            "markersize": 3,
            "label": policy,
            "linestyle": "--" if "(paper" in policy else "-",
        }
        axis.errorbar(
            lost.mean().index, lost.mean(), yerr=lost.std().fillna(0), color=colour(policy), **line
        )


def label_log_axis(axis: Axis, low: float, high: float) -> None:
    """Label 1, 2 and 5 times the powers of ten between `low` and `high`; only the powers if the
    range is wide.
    """
    steps = (1, 2, 5) if high < 30 * low else (1,)
    exponents = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**exponent for exponent in exponents for step in steps]
    ticks = [tick for tick in ticks if low / 1.5 <= tick <= high * 1.5]
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
