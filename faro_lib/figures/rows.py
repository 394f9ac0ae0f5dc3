"""Rows of bars with their values beside them: where there are more than can be told apart by colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from faro_lib.figures.style import LIMIT, PUBLISHED

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_rows(
    axis: Axes,
    values: pd.Series,
    colours: Sequence[str],
    *,
    published: pd.Series | None = None,
    limit: float | None = None,
    hatches: Sequence[str | None] | None = None,
    written: str = "{:.2f}",
) -> None:
    """A row for each name: the mean as a bar and as a number, the standard deviation, and the published value.

    Parameters
    ----------
    values : indexed by name, a value a trial; rows stand in order of first appearance, from above.
    colours, hatches : one a row.
    published : indexed by name, or None.
    limit : drawn through all rows, or None.
    written : how a value is formatted.
    """
    names = list(dict.fromkeys(values.index))
    by_name = values.groupby(level=0)
    mean, deviation = by_name.mean().reindex(names), by_name.std(ddof=1).reindex(names).fillna(0)
    bars = axis.barh(
        range(len(names)), mean, xerr=deviation, color=list(colours), edgecolor="black", linewidth=0.3,
        error_kw={"linewidth": 0.8},
    )  # fmt: skip
    for bar, hatch in zip(bars, hatches or ()):
        bar.set_hatch(hatch)
    for place, value in enumerate(mean):  # at the panel's edge, clear of bars and diamonds
        axis.annotate(
            written.format(value), (1, place), (-2, 0), axis.get_yaxis_transform(),
            textcoords="offset points", ha="right", va="center",
        )  # fmt: skip
    widest = float((mean + deviation).max())
    if published is not None:
        beside = published.reindex(names)
        widest = max(widest, float(beside.max())) if beside.notna().any() else widest
        axis.plot(beside, range(len(names)), "D", markersize=3, markerfacecolor="white", markeredgecolor=PUBLISHED)
    if limit is not None:
        axis.axvline(limit, color=LIMIT, linestyle="--", linewidth=1.0)
    room = 0.12 + 0.05 * max(len(written.format(value)) for value in mean)  # for the numbers
    axis.set(xlim=(0, (1 + room) * (widest or 1.0)), ylim=(len(names) - 0.4, -0.6))
    axis.set_yticks(range(len(names)), names)
    axis.grid(visible=False, axis="y")
