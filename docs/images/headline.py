"""The pictures of the comparison on the published traces, for the README and docs/comparison.md.

`make readme` runs it.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from faro_lib.figures.style import check_legible, use_style
from faro_lib.files import atomic_write
from studies.comparison.figures import policies_by_capacity, published_main

SHOWN = ["FairShare", "Oneshot", "AIAD", "MArk", "Faro-Sum (paper)", "Faro-Sum"]
ROOT = Path(__file__).parents[2]


def comparison(policies: list[str] | None = None) -> Figure:
    """Lost utility in the recorded run, beside published values and the clairvoyant limit.

    policies : None means all.
    """
    summary = pd.read_csv(ROOT / "data/published-run/summary.csv")
    limit = pd.read_csv(ROOT / "data/published-run/limit.csv")
    order = {policy: rank for rank, policy in enumerate(policies or summary["policy"].unique())}
    shown = summary[summary["policy"].isin(order)]
    shown = shown.sort_values("policy", key=lambda one: one.map(order), kind="stable")
    measures = {"lost_utility": "lost cluster utility (of 10)"}
    return policies_by_capacity(shown, limit, published_main(ROOT / "data/published"), measures)


if __name__ == "__main__":
    use_style()
    for name, policies in (("comparison", SHOWN), ("comparison-all", None)):
        figure = comparison(policies)
        picture = ROOT / f"docs/images/{name}.png"
        check_legible(figure, name)
        with atomic_write(picture) as partial:
            figure.savefig(partial, metadata={"Software": None})
        print(picture)
