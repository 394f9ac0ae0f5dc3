"""The tables of docs/elsewhere.md about the run of config/wide.yaml."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from faro_lib.files import read_yaml
from faro_lib.metrics.paired import unit_interval
from studies.days.figures import finding
from studies.days.run import CLAIRVOYANT as LIMIT
from studies.days.run import MIN_DAYS
from studies.tables.pages import Part
from studies.tables.wording import markdown_table

LEADER = "Faro-Sum"


def table(worlds: Mapping[str, pd.DataFrame]) -> str:
    """A row per workload and capacity: what leader, limit and other policies lose, over all days.

    The other policies are shown by their difference from the leader.
    """
    first = next(iter(worlds.values()))
    policies = [name for name in first["policy"].unique() if name not in (LEADER, LIMIT)]
    rows = []
    for name, pairs in worlds.items():
        of_all = pairs[pairs["day"] == "all"]
        for capacity, part in of_all.groupby("capacity_cores", sort=False):
            at = part.set_index("policy")
            lost = [f"{at.loc[one, 'lost_utility']:.3f}" for one in (LEADER, LIMIT)]
            differences = [_difference(at.loc[policy]) for policy in policies]
            rows.append([name, f"{capacity:g}", *lost, *differences])
    return markdown_table(["workload", "cores", LEADER, LIMIT, *policies], rows)


def _difference(row: pd.Series) -> str:
    """Mean and interval: bold if the policy loses less than the leader, in italics if unclear."""
    text = f"{row['difference']:+.3f} ({row['low']:+.2f} to {row['high']:+.2f})"
    if row["high"] < 0:
        return f"**{text}**"
    if row["low"] <= 0:
        return f"*{text}*"
    return text


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
            "Those of the generated workloads are a bootstrap of trials and of twelve blocks of "
            "the day, half an hour of simulated time each, and are too narrow. Such an interval "
            "speaks of that day only, and each generated workload is one world."
        )
    return textwrap.fill(text, 100)


def kept(folder: Path, settings: Path) -> dict[str, pd.DataFrame]:
    """The table of each workload that has been run, in the order of the settings of the run."""
    config = read_yaml(settings)
    own = Path(config["workload"]).name.removesuffix(".csv.gz")
    tables = {}
    for name in (own, *(world["name"] for world in config["days"]["worlds"])):
        path = folder / f"{name}.csv"
        if path.exists():
            pairs = pd.read_csv(path, dtype={"day": str})
            tables[name] = pairs if "units" in pairs else over_days(pairs)
    return tables


def summary(worlds: Mapping[str, pd.DataFrame]) -> str:
    single = [
        frame for frame in worlds.values() if frame.loc[~over_all(frame), "day"].nunique() == 1
    ]
    of_one_day = sum((over_all(frame) & is_rival(frame)).sum() for frame in single)
    text = (
        f"{finding(worlds, LEADER)} {of_one_day} of the comparisons with rivals are of one "
        "generated day, and their intervals are too narrow. All rivals have their defaults here. "
        "Static, and rivals that are tuned for the workload, are in the next two sections."
    )
    return textwrap.fill(text, 100)


def over_all(frame: pd.DataFrame) -> pd.Series:
    """Which rows are about all days."""
    return frame["day"].astype(str) == "all"


def is_rival(frame: pd.DataFrame) -> pd.Series:
    """Which rows compare a policy that is not a variant of Faro."""
    own = frame["policy"].str.startswith("Faro")
    return ~own & frame["difference"].notna() & (frame["policy"] != "clairvoyant")


def part(name: str, text: Callable[[Mapping[str, pd.DataFrame]], str]) -> Part:
    files = ["data/wide-run", "config/wide.yaml"]
    return Part("docs/elsewhere.md", name, files, lambda *paths: text(kept(*paths)))


PARTS = [
    part("method", method),
    part("summary", summary),
    part("all days", table),
]
