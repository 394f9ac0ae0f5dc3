"""The tables of docs/sharing.md, from the runs of benchmarks/sharing.py.

python benchmarks/sharing.py && python docs/sharing_tables.py
"""

from __future__ import annotations

from pathlib import Path

import marked
import pandas as pd

from faro_lib.metrics.paired import t_interval
from studies.sharing import EVERYWHERE, ISOLATED, LEADER, PLACED_ONCE
from studies.wording import markdown_table

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/sharing.md"
RUNS = ROOT / "data/recorded-sharing"
MARK = "losses: docs/sharing_tables.py writes this table"
LOSS = "lost_utility_published"
# (policy, models per replica, router) -> its row.
ROWS = {
    (ISOLATED, 1, "late"): "Faro-Sum, isolated replicas",
    (LEADER, 2, "late"): "Faro-Sum, two models per replica",
    (LEADER, 3, "late"): "Faro-Sum, three models",
    (LEADER, 3, "early"): "Faro-Sum, three models, bound early",
    (PLACED_ONCE, 2, "late"): "placed once (as AlpaServe), two models",
    (EVERYWHERE, 10, "late"): "everything everywhere (as Clockwork)",
}


def read_runs(folder: Path = RUNS) -> pd.DataFrame:
    """The runs on the published day."""
    parts = [folder / f"{part}.csv" for part in ("faro", "early", "rivals")]
    return pd.concat([pd.read_csv(path) for path in parts if path.exists()], ignore_index=True)


def table(runs: pd.DataFrame) -> str:
    """Mean lost utility and the half width of its 95 % interval over trials, by cores."""
    capacities = sorted(runs["cores"].unique(), reverse=True)
    lines = []
    for (policy, models, router), name in ROWS.items():
        chosen = (runs["policy"] == policy) & (runs["models"] == models)
        of_row = runs[chosen & (runs["router"] == router)]
        if of_row.empty:
            continue
        cells = [cell(of_row[of_row["cores"] == cores]) for cores in capacities]
        lines.append((name, of_row["trial"].nunique(), *cells))
    heads = ["lost utility of ten jobs", "trials", *(f"{cores} cores" for cores in capacities)]
    return markdown_table(heads, lines, right=heads[1:])


def cell(runs: pd.DataFrame) -> str:
    """Mean and half width over the trials of one capacity; "-" without runs."""
    if runs.empty:
        return "-"
    losses = runs.set_index("trial")[LOSS]
    mean, half = t_interval(losses, 0 * losses)
    return f"{mean:.3f}" + (f" ± {half:.3f}" if len(losses) > 1 else "")


def main() -> None:
    PAGE.write_text(marked.with_table(PAGE.read_text(), MARK, table(read_runs())))


if __name__ == "__main__":
    main()
