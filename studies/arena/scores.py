"""The scores of the arena's entries: their regret, ranks and intervals, from the files of `faro
arena run`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from faro_lib.metrics.paired import unit_interval

Entry = dict[str, Any]  # the JSON of `faro arena run`


def read_entries(folder: str | Path) -> dict[str, Entry]:
    """Policy -> entry, in ascending order of mean regret over the quick set and its seeds."""
    entries = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]
    entries.sort(key=lambda entry: of_worlds(entry).mean())
    return {entry["policy"]: entry for entry in entries}


def read_scenario(folder: str | Path, scenario: str) -> dict[str, Entry]:
    """Policy -> entry, of those that are scored on one scenario alone."""
    paths = sorted((Path(folder) / scenario).glob("*.json"))
    return {path.stem: json.loads(path.read_text()) for path in paths}


def counted(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that count for means and ranks: not those of scenarios beyond the quick set.

    Rows of older files do not say it, and are all of the quick set.
    """
    return [row for row in rows if row.get("quick", True)]


def of_worlds(entry: Entry) -> np.ndarray:
    """Mean regret in each world, shape (scenarios, seeds). A world is a scenario with a seed.

    Only scenarios of the quick set count.
    """
    rows = pd.DataFrame(counted(entry["scenarios"]))
    return np.array([part["regret"] for _, part in rows.groupby("scenario", sort=False)])


def over_worlds(values: np.ndarray) -> tuple[float, float, float]:
    """Mean of values (scenarios, worlds), and its 95 % interval."""
    units = values[:, None, :]
    return unit_interval(units, np.ones_like(units))


def ranking(entries: Mapping[str, Entry]) -> pd.DataFrame:
    """A row per entry: regret and rank with their 95 % intervals, regret by seed, decision time.

    The units of intervals are worlds, and scenarios are strata. An entry may have the first rank
    after the entries that lose significantly less than it, and the last one before those that lose
    significantly more, both by the interval of the paired difference in the same worlds.
    """
    regret = np.array([of_worlds(entry) for entry in entries.values()])
    rows = []
    for n, (name, entry) in enumerate(entries.items()):
        mean, low, high = over_worlds(regret[n])
        differences = [over_worlds(other - regret[n]) for other in regret]
        better = sum(above < 0 for _, _, above in differences)
        worse = sum(below > 0 for _, below, _ in differences)
        rows.append(
            {
                "entry": name,
                "rank": n + 1,
                "first": 1 + better,
                "last": len(entries) - worse,
                "regret": mean,
                "low": low,
                "high": high,
                "public": entry["score"]["public"]["regret"],
                "hidden": entry["score"]["hidden"]["regret"],
                "decision_ms": np.median(
                    [row["decision_ms_p50"] for row in counted(entry["scenarios"])]
                ),
            }
        )
    return pd.DataFrame(rows).set_index("entry")


def by_scenario(entries: Mapping[str, Entry]) -> tuple[pd.DataFrame, pd.Series]:
    """Mean regret by scenario (row) and entry (column), and the clairvoyant's mean lost utility per
    job by scenario. NaN where an entry was not scored.
    """
    rows = {
        name: pd.DataFrame(entry["scenarios"]).groupby("scenario", sort=False)
        for name, entry in entries.items()
    }
    regret = pd.DataFrame({name: of_entry["regret"].mean() for name, of_entry in rows.items()})
    # The bound is the same for all entries.
    bounds = [of_entry["bound"].sum() / of_entry["jobs"].sum() for of_entry in rows.values()]
    return regret, pd.concat(bounds, axis=1).mean(axis=1)


def lowest(regret: pd.DataFrame) -> pd.DataFrame:
    """Whether an entry (column) has the least regret in a scenario (row); ties are all True."""
    return regret.eq(regret.min(axis=1), axis=0)
