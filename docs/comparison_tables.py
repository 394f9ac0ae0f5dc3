"""The tables of docs/comparison.md, from results of `make figures CONFIG=config/paper.yaml` (`make readme` runs it).

The rows come from data/published-run, a copy of the run's summary.csv and limit.csv, which a new run replaces.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import marked
import pandas as pd

from notebooks.figures.comparison import published_main

ROOT = Path(__file__).parent.parent
PAGE, KEPT = ROOT / "docs/comparison.md", ROOT / "data/published-run"
RESULTS = ROOT / "results/faro-10jobs/simulate"
CAPACITIES = (36, 32, 16)
OBJECTIVES = ("Sum", "FairSum", "Fair", "PenaltySum", "PenaltyFairSum")
NAMES = {
    "FairShare": "FairShare", "Oneshot": "Oneshot", "AIAD": "AIAD", "MArk": "MArk/Cocktail/Barista",
    **{f"Faro-{one} (paper)": f"Faro-{one}, paper's variant" for one in OBJECTIVES},
    **{f"Faro-{one}": f"Faro-{one}, ours" for one in OBJECTIVES},
    "HPA": "Kubernetes HPA", "RayServe": "Ray Serve", "Cilantro": "Cilantro-like",
}  # fmt: skip
LOSS, VIOLATIONS = "lost_utility_published", "slo_violation_rate"


def table(summary: pd.DataFrame, limit: pd.DataFrame, measure: str) -> str:
    """A Markdown table: a row per policy, and for each capacity the mean of our trials and the published value."""
    published = published_main(ROOT / "data/published").set_index(["policy", "capacity_cores"])[measure]
    ours = summary.groupby(["policy", "capacity_cores"])[measure].agg(["mean", "std"])
    head = "| policy |" + "".join(f" {capacity} ours | published |" for capacity in CAPACITIES)
    lines = [head, "| --- |" + " --- | --- |" * len(CAPACITIES)]
    best = {capacity: ours["mean"].xs(capacity, level=1).min() for capacity in CAPACITIES}
    for policy, name in NAMES.items():
        cells = []
        for capacity in CAPACITIES:
            mean, deviation = ours.loc[policy, capacity]
            value = f"{mean:.3f}" if measure == LOSS else f"{mean:.2%}".replace("%", " %")
            value = f"**{value}**" if mean == best[capacity] else value
            known = published.get((policy, capacity))
            cells += [f"{value} ({deviation:.3f})" if measure == LOSS else value]
            cells += [
                "-" if known is None else f"{known:.3f}" if measure == LOSS else f"{known:.1%}".replace("%", " %")
            ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    if measure in limit:
        means = limit.groupby("capacity_cores")[measure].mean()
        lines.append(
            "| clairvoyant limit (see below) | " + " | ".join(f"{means[c]:.3f} | -" for c in CAPACITIES) + " |"
        )
    return "\n".join(lines)


def with_tables(page: str, summary: pd.DataFrame, limit: pd.DataFrame) -> str:
    """The page with its two tables replaced."""
    for measure in (LOSS, VIOLATIONS):
        mark = f"{measure}: docs/comparison_tables.py writes this table"
        page = marked.with_table(page, mark, table(summary, limit, measure))
    return page


def kept() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Summary and limit of the run that the page shows."""
    return pd.read_csv(KEPT / "summary.csv"), pd.read_csv(KEPT / "limit.csv")


if __name__ == "__main__":
    KEPT.mkdir(exist_ok=True)
    for name in ("summary", "limit"):
        shutil.copy(RESULTS / f"{name}.csv", KEPT / f"{name}.csv")
    PAGE.write_text(with_tables(PAGE.read_text(), *kept()))
    print(PAGE)
