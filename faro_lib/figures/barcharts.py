"""Bars with whiskers, published values and the clairvoyant limit: side by side, or in rows with their values."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from faro_lib.figures.style import DIAMOND, EDGE, LIMIT_LINE, colour


def hatch_of(policy: str) -> str | None:
    """Slashes for the paper's variant of a policy, dots if it is solved exactly; its colour is our variant's."""
    if "(paper" not in policy:
        return None
    return "..." if "exact" in policy else "//"


def grouped_bars(
    axis: Axes,
    values: pd.Series,
    groups: Sequence[tuple],
    *,
    published: pd.Series | None = None,
    limit: pd.Series | None = None,
    colour_of: Callable[[str], str] = colour,
) -> None:
    """Draw a group of bars per entry of `groups`, with a bar per policy: the mean, and one standard deviation as whisker.

    Parameters
    ----------
    values : one value per trial, indexed by (policy, *group).
    published : indexed as `values`, one value each, drawn as diamonds.
    limit : indexed by group, drawn as a dashed line across it.
    """
    policies = list(dict.fromkeys(values.index.get_level_values(0)))
    by_bar = values.groupby(level=list(range(values.index.nlevels)))
    mean, deviation = by_bar.mean(), by_bar.std(ddof=1).fillna(0)
    width = 0.85 / len(policies)
    for number, policy in enumerate(policies):
        x = np.arange(len(groups)) + (number - (len(policies) - 1) / 2) * width
        keys = pd.MultiIndex.from_tuples([(policy, *group) for group in groups])
        axis.bar(
            x, mean.reindex(keys), width, yerr=deviation.reindex(keys), color=colour_of(policy), label=policy,
            hatch=hatch_of(policy), error_kw={"linewidth": 0.8}, **EDGE,
        )  # fmt: skip
        if published is not None:
            axis.plot(x, published.reindex(keys), **DIAMOND, markeredgewidth=0.8)
    if limit is not None:
        for number, group in enumerate(groups):
            value = limit.get(group if len(group) > 1 else group[0], np.nan)
            axis.hlines(value, number - 0.45, number + 0.45, linewidth=1.2, **LIMIT_LINE)
    axis.grid(visible=False, axis="x")


def rows_of_bars(
    band: Sequence[Axes],
    summary: pd.DataFrame,
    key: str,
    measure: tuple[str, str],
    colours: Sequence[str],
    *,
    published: pd.DataFrame | None = None,
    limit: pd.DataFrame | None = None,
    hatches: Sequence[str | None] = (),
    number_format: str = "{:.2f}",
) -> None:
    """Draw one panel of `band` per capacity, the largest first, with a row per name: the mean as a bar and as a number.

    Whiskers are one standard deviation over trials, diamonds published values, the dashed line the mean limit.

    Parameters
    ----------
    summary, published, limit : columns capacity_cores, `key` (not in the limit) and the measure.
    measure : column and label.
    colours, hatches : one per row.
    """
    column, label = measure
    for axis, capacity in zip(band, sorted(summary["capacity_cores"].unique(), reverse=True)):
        here = summary[summary["capacity_cores"] == capacity]
        by_name = here.groupby(key, sort=False)[column]
        mean, deviation = by_name.mean(), by_name.std(ddof=1).fillna(0)
        rows = range(len(mean))
        bars = axis.barh(rows, mean, xerr=deviation, color=colours, error_kw={"linewidth": 0.8}, **EDGE)
        for bar, hatch in zip(bars, hatches):
            bar.set_hatch(hatch)
        numbers = [number_format.format(value) for value in mean]
        for row, number in zip(rows, numbers):  # at the edge of the panel, clear of bars and diamonds
            axis.annotate(
                number, (1, row), (-2, 0), axis.get_yaxis_transform(),
                textcoords="offset points", ha="right", va="center",
            )  # fmt: skip
        widest = float((mean + deviation).max())
        if published is not None:
            known = published[published["capacity_cores"] == capacity].set_index(key)[column].reindex(mean.index)
            widest = max(widest, float(known.max())) if known.notna().any() else widest
            axis.plot(known, rows, **DIAMOND)
        if limit is not None and column in limit:
            axis.axvline(limit.loc[limit["capacity_cores"] == capacity, column].mean(), linewidth=1.0, **LIMIT_LINE)
        room = 0.12 + 0.05 * max(map(len, numbers))
        axis.set(xlim=(0, (1 + room) * (widest or 1.0)), ylim=(len(mean) - 0.4, -0.6))
        axis.set_yticks(rows, mean.index)
        axis.grid(visible=False, axis="y")
        axis.set(title=f"{capacity:g} replicas", xlabel=label)
