"""The scores of the arena's entries: their regret, ranks and intervals, from the files of `faro
arena run`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

Entry = dict[str, Any]  # the JSON of `faro arena run`
DRAWS = 2000
INTERVAL = (0.025, 0.975)


def read_entries(folder: str | Path) -> dict[str, Entry]:
    """Policy -> entry, in ascending order of mean regret over all scenarios and seeds."""
    entries = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]
    entries.sort(key=lambda entry: per_minute(entry).mean())
    return {entry["policy"]: entry for entry in entries}


def per_minute(entry: Entry) -> np.ndarray:
    """Regret per minute and job, shape (scenarios x seeds, blocks).

    A block is a stretch of consecutive minutes.
    """
    return np.array([np.array(row["blocks"]) / row["minutes"] for row in entry["scenarios"]])


def ranking(entries: Mapping[str, Entry]) -> pd.DataFrame:
    """A row per entry: regret and rank with their 95 % intervals, regret by seed, decision time.

    The intervals come from a bootstrap over blocks of minutes. All entries have the same blocks in
    a draw, because they serve the same requests.
    """
    regret = np.array([per_minute(entry) for entry in entries.values()])
    _, runs, blocks = regret.shape
    chosen = np.random.default_rng(0).integers(blocks, size=(DRAWS, runs, blocks))
    # Mean regret by draw and entry, (DRAWS, entries).
    draws = regret[:, np.arange(runs)[None, :, None], chosen].mean(axis=(2, 3)).T
    ranks = draws.argsort(axis=1).argsort(axis=1) + 1
    rows = []
    for n, (name, entry) in enumerate(entries.items()):
        low, high = np.quantile(draws[:, n], INTERVAL)
        first, last = (int(rank) for rank in np.quantile(ranks[:, n], INTERVAL, method="nearest"))
        rows.append(
            {
                "entry": name,
                "rank": n + 1,
                "first": first,
                "last": last,
                "regret": regret[n].mean(),
                "low": low,
                "high": high,
                "public": entry["score"]["public"]["regret"],
                "hidden": entry["score"]["hidden"]["regret"],
                "decision_ms": np.median([row["decision_ms_p50"] for row in entry["scenarios"]]),
            }
        )
    return pd.DataFrame(rows).set_index("entry")


def by_scenario(entries: Mapping[str, Entry]) -> tuple[pd.DataFrame, pd.Series]:
    """Mean regret by scenario (row) and entry (column), and the clairvoyant's mean lost utility per
    job by scenario.
    """
    rows = {
        name: pd.DataFrame(entry["scenarios"]).groupby("scenario", sort=False)
        for name, entry in entries.items()
    }
    of_any = next(iter(rows.values()))  # the bound is the same for all entries
    regret = pd.DataFrame({name: of_entry["regret"].mean() for name, of_entry in rows.items()})
    return regret, of_any["bound"].sum() / of_any["jobs"].sum()


def lowest(regret: pd.DataFrame) -> pd.DataFrame:
    """Whether an entry (column) has the least regret in a scenario (row); ties are all True."""
    return regret.eq(regret.min(axis=1), axis=0)
