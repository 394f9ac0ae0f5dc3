"""The pictures of the comparison on the published traces, for the README and docs/comparison.md."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from studies.comparison.figures import policies_by_capacity, published_main

SHOWN = ["FairShare", "Oneshot", "AIAD", "MArk", "Faro-Sum (paper)", "Faro-Sum"]
PUBLISHED = Path(__file__).parents[2] / "data/published"


def comparison(policies: list[str] | None, summary: pd.DataFrame, limit: pd.DataFrame) -> Figure:
    """Lost utility in the recorded run, beside published values and the clairvoyant limit.

    policies : None means all.
    """
    order = {policy: rank for rank, policy in enumerate(policies or summary["policy"].unique())}
    shown = summary[summary["policy"].isin(order)]
    shown = shown.sort_values("policy", key=lambda one: one.map(order), kind="stable")
    measures = {"lost_utility": "lost cluster utility (of 10)"}
    return policies_by_capacity(shown, limit, published_main(PUBLISHED), measures)
