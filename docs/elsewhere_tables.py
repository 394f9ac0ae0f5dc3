"""The tables of docs/elsewhere.md, from results of `make figures CONFIG=config/wide.yaml`.

The rows come from data/wide-run, a copy of the run's tables `paired.csv`, which a new run replaces.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping
from pathlib import Path

import marked
import numpy as np
import pandas as pd

from faro_lib.metrics.paired import unit_interval
from studies.days.figures import finding
from studies.days.run import CLAIRVOYANT as LIMIT
from studies.days.run import MIN_DAYS
from studies.tables.wording import markdown_table

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/elsewhere.md"
KEPT = ROOT / "data/wide-run"
RESULTS = ROOT / "results/wide/azure-2019/days"
LEADER = "Faro-Sum"


def table(worlds: Mapping[str, pd.DataFrame], day: str | None = "all") -> str:
    """A row per workload, day and capacity: what leader, limit and other policies lose.

    The other policies are shown by their difference from the leader. day : "all" shows the mean
    over days, None each day by itself.
    """
    first = next(iter(worlds.values()))
    policies = [name for name in first["policy"].unique() if name not in (LEADER, LIMIT)]
    rows = []
    for name, pairs in worlds.items():
        chosen = pairs[pairs["day"] == day] if day else pairs[pairs["day"] != "all"]
        for (of_day, capacity), part in chosen.groupby(["day", "capacity_cores"], sort=False):
            at = part.set_index("policy")
            key = [name, f"{capacity:g}"] if day else [name, of_day, f"{capacity:g}"]
            lost = [f"{at.loc[one, 'lost_utility']:.3f}" for one in (LEADER, LIMIT)]
            rows.append([*key, *lost, *(_difference(at.loc[policy]) for policy in policies)])
    key = ["workload", "cores"] if day else ["workload", "day", "cores"]
    return markdown_table([*key, LEADER, LIMIT, *policies], rows)


def _difference(row: pd.Series) -> str:
    """Mean and interval: bold if the policy loses less than the leader, in italics if unclear."""
    text = f"{row['difference']:+.3f} ({row['low']:+.2f} to {row['high']:+.2f})"
    if row["high"] < 0:
        return f"**{text}**"
    if row["low"] <= 0:
        return f"*{text}*"
    return text


def with_tables(page: str, worlds: Mapping[str, pd.DataFrame]) -> str:
    """The page with its summary and its two tables replaced."""
    several = {one: rows for one, rows in worlds.items() if rows["day"].nunique() > 2}
    written = {
        "method: docs/elsewhere_tables.py writes it": method(worlds),
        "summary: docs/elsewhere_tables.py writes it": textwrap.fill(finding(worlds, LEADER), 100),
        "all days: docs/elsewhere_tables.py writes this table": table(worlds),
        "each day: docs/elsewhere_tables.py writes this table": table(several, day=None),
    }
    for mark, text in written.items():
        page = marked.with_table(page, mark, text)
    return page


def over_days(pairs: pd.DataFrame) -> pd.DataFrame:
    """A table of an earlier run, with intervals over MIN_DAYS days or more taken from its days.

    Such a table has no column `units`, and intervals of a bootstrap of blocks.
    """
    pairs = pairs.copy()
    for (_, _), part in pairs.groupby(["capacity_cores", "policy"], sort=False):
        days = part[part["day"] != "all"]
        if len(days) >= MIN_DAYS:
            of_day = days["difference"].to_numpy()[None, None]
            _, low, high = unit_interval(of_day, np.ones_like(of_day))
            pairs.loc[part.index[part["day"] == "all"], ["low", "high"]] = low, high
    return pairs


def method(worlds: Mapping[str, pd.DataFrame]) -> str:
    """How the intervals were computed."""
    text = (
        "The intervals are by Student's t. Where three or more days are judged together, the days "
        "are its units: it speaks of days like these. "
    )
    if all("units" in pairs for pairs in worlds.values()):
        text += (
            "Otherwise, the units are blocks of an hour of simulated time, a sixth of a generated "
            "or published day and a 24th of a day of azure-2019. Such an interval speaks of that "
            "day only, and each generated workload is one world."
        )
    else:
        text += (
            "Those of single days, and so of the generated workloads, are still from an earlier "
            "method: a bootstrap of trials and of twelve blocks of the day, which are two hours of "
            "azure-2019 and half an hour of simulated time elsewhere. They are too narrow, until a "
            "new run of config/wide.yaml replaces them. Such an interval speaks of that day only, "
            "and each generated workload is one world."
        )
    return textwrap.fill(text, 100)


def kept() -> dict[str, pd.DataFrame]:
    """The table of each workload that has been run, in the order of config/wide.yaml."""
    import yaml

    config = yaml.safe_load((ROOT / "config/wide.yaml").read_text())
    own = Path(config["workload"]).name.removesuffix(".csv.gz")
    tables = {}
    for name in (own, *(world["name"] for world in config["days"]["worlds"])):
        path = KEPT / f"{name}.csv"
        if path.exists():
            pairs = pd.read_csv(path, dtype={"day": str})
            tables[name] = pairs if "units" in pairs else over_days(pairs)
    return tables


if __name__ == "__main__":
    KEPT.mkdir(exist_ok=True)
    for path in RESULTS.glob("*/paired.csv"):
        shutil.copy(path, KEPT / f"{path.parent.name}.csv")
    PAGE.write_text(with_tables(PAGE.read_text(), kept()))
    print(PAGE)
