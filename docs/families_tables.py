"""The table of generated families in docs/elsewhere.md, from data/recorded-families.

`python benchmarks/families.py` records the runs.
"""

from __future__ import annotations

import runpy
import textwrap
from pathlib import Path

import marked
import numpy as np
import pandas as pd

from faro_lib.metrics.paired import unit_interval
from studies.wording import markdown_table

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/elsewhere.md"
RUNS = ROOT / "data/recorded-families/runs.csv"
LEADER = "Faro-Sum"
FAMILIES = runpy.run_path(str(ROOT / "benchmarks/families.py"))["FAMILIES"]
MARK = "families: docs/families_tables.py writes this table"
MISSING = "Not recorded yet."


def table(runs: pd.DataFrame) -> str:
    """A row per family: lost utility of Faro-Sum, and that of each rival minus it.

    The units of an interval are the worlds. A sentence names the families that are not recorded.
    """
    rivals = [name for name in runs["policy"].unique() if name != LEADER]
    rows = []
    for family, part in runs.groupby("family", sort=False):
        lost = part.pivot(index="seed", columns="policy", values="lost_utility")
        capacity = f"{part['capacity_cores'].iloc[0]:g}"
        cells = [difference(lost[rival] - lost[LEADER]) for rival in rivals]
        rows.append((family, len(lost), capacity, f"{lost[LEADER].mean():.3f}", *cells))
    heads = ["family", "worlds", "cores", LEADER, *(f"{rival} (tuned)" for rival in rivals)]
    text = markdown_table(heads, rows)
    missing = [name for name in FAMILIES if name not in set(runs["family"])]
    if missing:
        text += "\n\n" + textwrap.fill(f"Not recorded yet: {', '.join(missing)}.", 100)
    return text


def difference(by_world: pd.Series) -> str:
    """Mean and interval: bold if the rival loses less, in italics if the interval holds zero."""
    values = by_world.to_numpy()[None, None]
    mean, low, high = unit_interval(values, np.ones_like(values))
    text = f"{mean:+.3f} ({low:+.2f} to {high:+.2f})"
    if high < 0:
        return f"**{text}**"
    return f"*{text}*" if low <= 0 else text


def with_table(page: str) -> str:
    """docs/elsewhere.md with its table of families replaced."""
    return marked.with_table(page, MARK, table(pd.read_csv(RUNS)) if RUNS.exists() else MISSING)


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
    print(PAGE)
