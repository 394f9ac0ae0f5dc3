"""The tables of docs/comparison.md with the paper's headline and figures beside ours."""

from __future__ import annotations

import numpy as np
import pandas as pd

from studies.comparison.tables import (
    CAPACITIES,
    NAMES,
    VIOLATIONS,
    published_by_policy,
)
from studies.rivals.autoscalers import RIVALS
from studies.rivals.tables import TUNED, runs_of
from studies.tables.pages import Part, content
from studies.tables.wording import markdown_table

SUMMARY = "data/published-run/summary.csv"
TUNED_RUNS = runs_of("published")
FARO = "Faro-Sum"
EFFECTIVE = "lost_effective_utility_published"
PENALTY = ("Faro-PenaltySum", "Faro-PenaltyFairSum")
OTHERS = ("FairShare", "Oneshot", "AIAD", "MArk", "HPA", "Cilantro", "Static")


def ratios() -> pd.DataFrame:
    """SLO violation rate of a policy / that of Faro-Sum: policy, cores, published, ours.

    `published` is NaN for policies that the paper does not have. Tuned rivals are divided by the
    Faro-Sum that ran with them.
    """
    ours = means(VIOLATIONS)
    published = published_by_policy(VIOLATIONS)
    rows = [
        (
            policy,
            cores,
            published.get((policy, cores), np.nan) / published[f"{FARO} (paper)", cores],
            ours[policy, cores] / ours[FARO, cores],
        )
        for policy in OTHERS
        for cores in CAPACITIES
    ]
    tuned = content(TUNED_RUNS).groupby(["policy", "capacity_cores"])[VIOLATIONS].mean()
    rows += [
        (rival + TUNED, cores, np.nan, tuned[rival, cores] / tuned[FARO, cores])
        for rival in RIVALS
        for cores in CAPACITIES
    ]
    return pd.DataFrame(rows, columns=["policy", "cores", "published", "ours"])


def means(measure: str) -> pd.Series:
    """Means of our recorded trials, by policy and capacity."""
    return content(SUMMARY).groupby(["policy", "capacity_cores"])[measure].mean()


def headline(table: pd.DataFrame) -> str:
    """A row for each policy: how many times more of its requests violate their SLO."""
    rows = []
    for policy, part in table.groupby("policy", sort=False):
        cells = [NAMES.get(policy, policy)]
        for row in part.itertuples():
            published = "-" if np.isnan(row.published) else f"{row.published:.1f} x"
            cells += [published, f"{row.ours:.1f} x"]
        rows.append(cells)
    heads = ["policy"]
    for cores in CAPACITIES:
        heads += [f"{cores} cores, published", "ours"]
    return markdown_table(heads, rows, right=heads[1:])


def effective() -> str:
    """Lost effective utility of the objectives with drops, published and ours."""
    ours = means(EFFECTIVE)
    published = published_by_policy(EFFECTIVE)
    rows = []
    for policy in PENALTY:
        for cores in CAPACITIES:
            variant = f"{policy} (paper)", cores
            losses = published[variant], ours[variant], ours[policy, cores]
            rows.append((policy, cores, *(f"{loss:.3f}" for loss in losses)))
    heads = ["policy", "cores", "published", "paper's variant", "ours"]
    return markdown_table(heads, rows, right=heads[1:])


PAGE = "docs/comparison.md"
PARTS = [
    Part(
        PAGE, "violations", [SUMMARY, TUNED_RUNS, "data/published"], lambda *_: headline(ratios())
    ),
    Part(PAGE, "effective utility", [SUMMARY, "data/published"], lambda *_: effective()),
]
