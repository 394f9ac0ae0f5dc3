"""How well simulations agree with live runs: differences of policies, rankings, lost utility."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

LIVE, SIMULATION = "live", "simulation"  # values of the column `environment`


def pairs(summary: pd.DataFrame, measure: str = "slo_violation_rate") -> pd.DataFrame:
    """Difference of `measure` between two policies (`policy` - `other`): one row per pair.

    live, simulation : mean difference over trials.
    live_error, simulation_error : standard error of that mean; NaN for one trial.
    decided : whether the live and the simulated mean are both more than two standard errors away
        from zero.
    agree : whether the live and the simulated mean have the same sign.
    """
    run = ["environment", "trial"]
    wide = summary.pivot_table(index=run, columns="policy", values=measure, sort=False)
    rows = []
    for policy, other in combinations(dict.fromkeys(summary["policy"]), 2):
        row: dict = {"policy": policy, "other": other, "decided": True}
        for environment in (LIVE, SIMULATION):
            difference = (wide[policy] - wide[other]).loc[environment]
            mean, error = difference.mean(), difference.sem()
            row |= {environment: mean, f"{environment}_error": error}
            row["decided"] &= bool(abs(mean) > 2 * error)
        rows.append(row | {"agree": np.sign(row[LIVE]) == np.sign(row[SIMULATION])})
    errors = [LIVE, f"{LIVE}_error", SIMULATION, f"{SIMULATION}_error"]
    columns = ["policy", "other", *errors, "decided", "agree"]
    return pd.DataFrame(rows, columns=columns).astype({"decided": bool, "agree": bool})


def ranking_distance(summary: pd.DataFrame) -> float:
    """Share of the pairs of policies whose order differs between live and simulated.

    It is the normalised Kendall tau distance.
    """
    table = pairs(summary, "lost_utility")
    return float((~table["agree"]).mean()) if len(table) else 0.0


def published_distance(folder: str | None, policies: list[str]) -> float | None:
    """The paper's own mean `ranking_distance` over capacities.

    None without `folder`, or if the paper has fewer than 3 of the policies.
    """
    if folder is None:
        return None
    table = pd.read_csv(Path(folder) / "published_main.csv")
    names = {"system": {"MArk/Cocktail/Barista": "MArk"}, "env": {"cluster": LIVE}}
    columns = {"system": "policy", "env": "environment"}
    columns["lost_cluster_utility_mean"] = "lost_utility"
    table = table.replace(names).rename(columns=columns)
    table = table[table["policy"].isin(policies)].assign(trial=0)
    if table["policy"].nunique() < 3:
        return None
    return float(np.mean([ranking_distance(part) for _, part in table.groupby("replicas")]))


def lost_utility_error(summary: pd.DataFrame) -> pd.DataFrame:
    """Mean lost utility by policy: columns policy, live, simulation, error (simulation - live)."""
    by = {"index": "policy", "columns": "environment", "values": "lost_utility"}
    mean = summary.pivot_table(**by, sort=False)
    return mean.assign(error=mean[SIMULATION] - mean[LIVE]).reset_index()
