"""The tables of docs/elsewhere.md, from results of `make figures CONFIG=config/wide.yaml`.

The rows come from data/wide-run, a copy of the run's tables `paired.csv`, which a new run replaces.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping
from pathlib import Path

import marked
import pandas as pd

from studies.days import CLAIRVOYANT as LIMIT
from studies.figures.days import finding, others

ROOT = Path(__file__).parent.parent
PAGE, KEPT, RESULTS = (
    ROOT / "docs/elsewhere.md",
    ROOT / "data/wide-run",
    ROOT / "results/wide/azure-2019/days",
)
LEADER = "Faro-Sum"


def table(worlds: Mapping[str, pd.DataFrame], day: str | None = "all") -> str:
    """A row per workload, day and capacity: lost utility of leader and limit, and each policy's
    difference from the leader.

    day : "all" shows the mean over days, None each day by itself.
    """
    policies = [
        name
        for name in worlds[next(iter(worlds))]["policy"].unique()
        if name not in (LEADER, LIMIT)
    ]
    heads = ["workload", *(["day"] if day is None else []), "cores", LEADER, LIMIT, *policies]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for name, rows in worlds.items():
        chosen = rows[rows["day"] == day] if day else rows[rows["day"] != "all"]
        for (of_day, capacity), part in chosen.groupby(["day", "capacity_cores"], sort=False):
            at = part.set_index("policy")
            cells = [name, *([of_day] if day is None else []), f"{capacity:g}"]
            cells += [f"{at.loc[one, 'lost_utility']:.3f}" for one in (LEADER, LIMIT)]
            cells += [_difference(at.loc[policy]) for policy in policies]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _difference(row: pd.Series) -> str:
    """Mean and interval; bold if the policy loses less than the leader, in italics if the interval
    contains zero.
    """
    text = f"{row['difference']:+.3f} ({row['low']:+.2f} to {row['high']:+.2f})"
    return f"**{text}**" if row["high"] < 0 else f"*{text}*" if row["low"] <= 0 else text


def with_tables(page: str, worlds: Mapping[str, pd.DataFrame]) -> str:
    """The page with its summary and its two tables replaced."""
    pairs = pd.concat([others(rows, LEADER) for rows in worlds.values()])
    pairs = pairs[~pairs["policy"].str.startswith("Faro")]
    below = (
        f"{finding(worlds, LEADER)} Against the policies that are not Faro's, it loses less in "
        f"{(pairs['difference'] > 0).sum()} of {len(pairs)}, and the interval excludes zero in "
        f"{(pairs['low'] > 0).sum()}."
    )
    page = marked.with_table(
        page, "summary: docs/elsewhere_tables.py writes it", textwrap.fill(below, 100)
    )
    for name, day in (("all days", "all"), ("each day", None)):
        mark = f"{name}: docs/elsewhere_tables.py writes this table"
        several = {one: rows for one, rows in worlds.items() if rows["day"].nunique() > 2}
        page = marked.with_table(page, mark, table(worlds if day else several, day))
    return page


def kept() -> dict[str, pd.DataFrame]:
    """The table of each workload that has been run, in the order of config/wide.yaml."""
    import yaml

    config = yaml.safe_load((ROOT / "config/wide.yaml").read_text())
    names = [
        Path(config["workload"]).name.removesuffix(".csv.gz"),
        *(one["name"] for one in config["days"]["worlds"]),
    ]
    tables = {name: KEPT / f"{name}.csv" for name in names}
    return {
        name: pd.read_csv(path, dtype={"day": str})
        for name, path in tables.items()
        if path.exists()
    }


if __name__ == "__main__":
    KEPT.mkdir(exist_ok=True)
    for path in RESULTS.glob("*/paired.csv"):
        shutil.copy(path, KEPT / f"{path.parent.name}.csv")
    PAGE.write_text(with_tables(PAGE.read_text(), kept()))
    print(PAGE)
