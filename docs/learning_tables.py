"""The table of docs/learning.md, from the runs of benchmarks/misspecification.py.

python benchmarks/misspecification.py && python docs/learning_tables.py
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import marked
import numpy as np
import pandas as pd

from faro_lib.figures import style
from faro_lib.files import atomic_write
from faro_lib.metrics.paired import unit_interval
from studies.figures.misspecification import finding, lost_by_world
from studies.misspecification import (
    ASSUMING,
    BLOCK_MINUTES,
    FAROS,
    FIRST_MINUTES,
    KNOWING,
    LEARNING,
    RIVALS,
)
from studies.wording import markdown_table

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/learning.md"
COMPARISON = ROOT / "docs/comparison.md"
PICTURE = ROOT / "docs/images/misspecification.png"
RUNS = ROOT / "data/recorded-misspecification/runs.csv"
SCALING = ROOT / "data/recorded-misspecification/scaling.csv"
SCALING_MARK = "scaling: docs/learning_tables.py writes this table"
HOUR_MARK = "hour: docs/learning_tables.py writes this table"
ROLL_OUT, NOON = "roll-out at noon", 180  # the published day has 360 minutes
SPREAD_MARK = "spread: docs/learning_tables.py writes this sentence"
SPREAD = "spread twice as large"
MARK = "losses: docs/learning_tables.py writes this table"
FINDING_MARK = "finding: docs/learning_tables.py writes these sentences"
COLUMNS = {ASSUMING: "believes", LEARNING: "learns", KNOWING: "knows"} | {
    one: one for one in RIVALS
}


def table(runs: pd.DataFrame) -> str:
    """A row for each workload, world and capacity; losses are means over trials."""
    lines = []
    for (workload, world, cores), part in runs.groupby(
        ["workload", "world", "capacity_cores"], sort=False
    ):
        mean = part.groupby("policy")["lost_later"].mean()
        best = mean.drop(list(FAROS)).idxmin()
        difference, low, high = against(part, best)
        lines.append(
            (
                workload,
                world,
                f"{cores:g}",
                part["trial"].nunique(),
                *(f"{mean[policy]:.3f}" for policy in COLUMNS),
                f"{difference:+.3f} ({low:+.3f} to {high:+.3f})",
            )
        )
    heads = ["workload", "world", "cores", "trials", *COLUMNS.values(), "learns minus best rival"]
    if runs["workload"].nunique() == 1:  # the page says which
        heads = heads[1:]
        lines = [line[1:] for line in lines]
    return markdown_table(heads, lines, right=heads[1:])


def against(runs: pd.DataFrame, rival: str) -> tuple[float, float, float]:
    """Mean difference per minute of LEARNING minus `rival`, and its interval from blocks."""
    blocks = [name for name in runs if name.startswith("lost_") and name[5:].isdigit()]
    by_policy = runs.set_index(["policy", "trial"])[blocks].dropna(axis=1)
    differences = (by_policy.loc[LEARNING] - by_policy.loc[rival]).to_numpy()
    return unit_interval(differences[None], np.full(differences[None].shape, BLOCK_MINUTES))


def hour_after(runs: pd.DataFrame) -> str:
    """Losses per minute in the hour after the roll-out at noon, means over trials."""
    of_world = runs[(runs["workload"] == "published") & (runs["world"] == ROLL_OUT)]
    first = (NOON - FIRST_MINUTES) // BLOCK_MINUTES
    hour = of_world[[f"lost_{first}", f"lost_{first + 1}"]].sum(axis=1) / (2 * BLOCK_MINUTES)
    mean = of_world.assign(hour=hour).groupby(["capacity_cores", "policy"])["hour"].mean()
    rows = [
        (f"{cores:g}", *(f"{mean[cores, policy]:.3f}" for policy in COLUMNS))
        for cores in sorted(of_world["capacity_cores"].unique(), reverse=True)
    ]
    heads = ["cores", *COLUMNS.values()]
    return markdown_table(heads, rows, right=heads)


def spread_finding(runs: pd.DataFrame) -> str:
    """What the policy that learns loses where means are right and only the spread is wrong."""
    of_world = runs[(runs["workload"] == "published") & (runs["world"] == SPREAD)]
    parts = []
    for cores, part in of_world.groupby("capacity_cores", sort=False):
        lost = part.groupby("policy")["lost_later"].mean()
        error = part["learned_error"].mean()  # NaN for the policies that do not learn
        parts.append(
            f"With {cores:g} cores, the learned factor is wrong by {error:.0%} (median), and Faro "
            f"loses {lost[LEARNING]:.3f} instead of {lost[ASSUMING]:.3f}."
        )
    return textwrap.fill(" ".join(parts), 100)


def scaling_table(errors: pd.DataFrame) -> str:
    """A row for each factor."""
    rows = [
        (f"{factor:g}", f"{median:.1%}", f"{largest:.1%}")
        for factor, median, largest in errors.itertuples(index=False)
    ]
    heads = ["true / stated time", "median error", "largest error"]
    return markdown_table(heads, rows, right=heads)


def main() -> None:
    runs = pd.read_csv(RUNS)
    page = marked.with_table(PAGE.read_text(), MARK, table(runs))
    page = marked.with_table(page, HOUR_MARK, hour_after(runs))
    page = marked.with_table(page, SPREAD_MARK, spread_finding(runs))
    page = marked.with_table(page, SCALING_MARK, scaling_table(pd.read_csv(SCALING)))
    PAGE.write_text(page)
    published = runs[runs["workload"] == "published"]
    compared = marked.with_table(COMPARISON.read_text(), FINDING_MARK, finding(published))
    COMPARISON.write_text(compared)
    style.use_style()
    figure = lost_by_world(published)
    with atomic_write(PICTURE) as partial:
        figure.savefig(partial, metadata={"Software": None})


if __name__ == "__main__":
    main()
