"""The table of generated families in docs/elsewhere.md."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd

from faro_lib.metrics.paired import unit_interval
from studies.families.run import FAMILIES, LEADER, STATIC
from studies.tables.pages import Part
from studies.tables.wording import markdown_table


def table(runs: pd.DataFrame) -> str:
    """A row per family: lost utility of Faro-Sum, and that of each rival minus it.

    The units of an interval are the worlds. A sentence counts the differences both ways, and
    another one names the families that are not recorded.
    """
    rivals = [name for name in runs["policy"].unique() if name != LEADER]
    rows, intervals = [], []
    for family, part in runs.groupby("family", sort=False):
        lost = part.pivot(index="seed", columns="policy", values="lost_utility")
        capacity = f"{part['capacity_cores'].iloc[0]:g}"
        of_family = [interval(lost[rival] - lost[LEADER]) for rival in rivals]
        cells = [difference(*one) for one in of_family]
        intervals += of_family
        rows.append((family, len(lost), capacity, f"{lost[LEADER].mean():.3f}", *cells))
    names = [rival if rival == STATIC else f"{rival} (tuned)" for rival in rivals]
    heads = ["family", "worlds", "cores", LEADER, *names]
    text = f"{markdown_table(heads, rows)}\n\n{textwrap.fill(counted(intervals), 100)}"
    missing = [name for name in FAMILIES if name not in set(runs["family"])]
    if missing:
        text += "\n\n" + textwrap.fill(f"Not recorded yet: {', '.join(missing)}.", 100)
    return text


def interval(by_world: pd.Series) -> tuple[float, float, float]:
    """Mean of a difference over worlds, and its 95 % interval."""
    values = by_world.to_numpy()[None, None]
    return unit_interval(values, np.ones_like(values))


def difference(mean: float, low: float, high: float) -> str:
    """Mean and interval: bold if the rival loses less, in italics if the interval holds zero."""
    text = f"{mean:+.3f} ({low:+.2f} to {high:+.2f})"
    if high < 0:
        return f"**{text}**"
    return f"*{text}*" if low <= 0 else text


def counted(intervals: list[tuple[float, float, float]]) -> str:
    """The sentence on how many rivals lose more, and how many lose less, than Faro-Sum."""
    more = sum(mean > 0 for mean, _, _ in intervals)
    less = len(intervals) - more
    clear_more = sum(low > 0 for _, low, _ in intervals)
    clear_less = sum(high < 0 for _, _, high in intervals)
    return (
        f"Of {len(intervals)} differences, the rival loses more than {LEADER} in {more} and less "
        f"in {less}; the interval excludes zero in {clear_more} and {clear_less} of them."
    )


PARTS = [Part("docs/elsewhere.md", "families", ["data/recorded-families/runs.csv"], table)]
