"""Panels of horizontal bars, with numbers, whiskers, published values and the clairvoyant limit."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from studies.figures.common import DIAMOND, EDGE, LIMIT_LINE


def hatch_of(policy: str) -> str | None:
    """The hatch of a policy's bar: slashes for "(paper)", dots for "(paper, exact)", else None."""
    if "(paper" not in policy:
        return None
    return "..." if "exact" in policy else "//"


def bar_rows(
    axis: Axes,
    values: pd.Series,
    rows: Sequence[str],
    colours: Sequence[str],
    *,
    hatches: Sequence[str | None] = (),
    published: pd.Series | None = None,
    limit: float | None = None,
    number_format: str = "{:.2f}",
) -> None:
    """Draw one bar per row: the mean over trials, with one standard deviation as whisker.

    `values` has one value per trial, with the row as index. `published` has one value per row,
    drawn as a diamond. `limit` is drawn as a dashed line.
    """
    by_row = values.groupby(level=0)
    mean = by_row.mean().reindex(rows)
    deviation = by_row.std().reindex(rows).fillna(0)
    place = range(len(rows))
    whisker = {"linewidth": 0.8}
    bars = axis.barh(place, mean, xerr=deviation, color=colours, error_kw=whisker, **EDGE)
    for bar, hatch in zip(bars, hatches):
        bar.set_hatch(hatch)
    numbers = [number_format.format(value) if value == value else "" for value in mean]
    # The numbers are right of the panel, where no bar, diamond or line of the grid crosses them.
    edge: dict[str, Any] = {
        "xycoords": axis.get_yaxis_transform(),
        "textcoords": "offset points",
    }
    for row, number in zip(place, numbers):
        axis.annotate(number, (1, row), (3, 0), va="center", **edge)
    known = pd.Series(dtype=float) if published is None else published.reindex(rows)
    if known.notna().any():
        axis.plot(known, place, **DIAMOND)
    if limit is not None:
        axis.axvline(limit, linewidth=1.0, **LIMIT_LINE)
    widest = max([float((mean + deviation).max()), limit or 0.0, *known.dropna()])
    axis.set(xlim=(0, 1.05 * (widest or 1.0)), ylim=(len(rows) - 0.4, -0.6))
    axis.set_yticks(place, rows)
    axis.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    if number_format.endswith("%}"):
        axis.xaxis.set_major_formatter(PercentFormatter(1))
    axis.grid(visible=False, axis="y")
