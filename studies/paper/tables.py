"""The tables of docs/paper-figures.md: the paper's results and ours."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from studies.comparison.tables import (
    CAPACITIES,
    LOSS,
    NAMES,
    VIOLATIONS,
    published_by_policy,
)
from studies.tables.pages import Part, content
from studies.tables.wording import markdown_table

SUMMARY, SOLVERS, ABLATION = (
    f"data/published-run/{name}.csv" for name in ("summary", "solvers", "ablation")
)
PUBLISHED_SOLVERS, PUBLISHED_ABLATION = (
    f"data/published/published_{name}.csv" for name in ("solvers", "ablation")
)
FARO = "Faro-Sum"
EFFECTIVE = "lost_effective_utility_published"
PENALTY = ("PenaltySum", "PenaltyFairSum")
OTHERS = ("FairShare", "Oneshot", "AIAD", "MArk")


def ratios() -> pd.DataFrame:
    """SLO violation rate of a policy / that of Faro-Sum: policy, cores, published, ours."""
    ours = means(VIOLATIONS)
    published = published_by_policy(VIOLATIONS)
    rows = [
        (
            policy,
            cores,
            published[policy, cores] / published[f"{FARO} (paper)", cores],
            ours[policy, cores] / ours[FARO, cores],
        )
        for policy in OTHERS
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
        cells = [NAMES[policy]]
        for row in part.itertuples():
            cells += [f"{row.published:.1f} x", f"{row.ours:.1f} x"]
        rows.append(cells)
    heads = ["policy"]
    for cores in CAPACITIES:
        heads += [f"{cores} cores, published", "ours"]
    return markdown_table(heads, rows, right=heads[1:])


def of_policies(measure: str, digits: int, objectives: Sequence[str] = ("Sum", "FairSum")) -> str:
    """Published and own means of Faro at all capacities, for each objective."""
    ours = means(measure)
    published = published_by_policy(measure)
    scale = 100 if measure == VIOLATIONS else 1

    def each(of: pd.Series, policy: str) -> str:
        return " / ".join(f"{scale * of[policy, cores]:.{digits}f}" for cores in CAPACITIES)

    parts = []
    for one in objectives:
        theirs = each(published, f"Faro-{one} (paper)")
        variant, best = each(ours, f"Faro-{one} (paper)"), each(ours, f"Faro-{one}")
        parts.append(f"{one}: {theirs} published, {variant} the paper's variant here, {best} ours")
    return "; ".join(parts)


def solvers() -> str:
    """Mean utility of COBYLA relative to the optimum, published and ours."""
    published = content(PUBLISHED_SOLVERS).set_index(["solver", "formulation"])
    answers = content(SOLVERS)
    cobyla = answers[answers["solver"] == "cobyla"]
    share = (cobyla["value"] / cobyla["optimum"]).groupby(cobyla["formulation"]).mean()
    parts = []
    for ours, theirs in (("relaxed", "relaxed(inverse)"), ("precise", "precise(step)")):
        utility = published.loc[("COBYLA", theirs), "normalized_utility_mean"]
        parts.append(f"{ours}: {utility:.3f} published, {share[ours]:.3f} here")
    return f"COBYLA's share of the optimum, {'; '.join(parts)}"


def ablation() -> str:
    """Lost utility with the first and the last step of the paper at 32 replicas."""
    published = content(PUBLISHED_ABLATION)
    published = published[published["replicas"] == 32]["lost_cluster_utility_mean"]
    runs = content(ABLATION)
    runs = runs[(runs["capacity_cores"] == 32) & (runs["source"] == "paper")]
    ours = runs.groupby("variant", sort=False)[LOSS].mean()
    return (
        f"from {published.iloc[0]:.2f} to {published.iloc[-1]:.2f} published, from "
        f"{ours.iloc[0]:.2f} to {ours.iloc[-1]:.2f} here, at 32 replicas"
    )


def figures() -> str:
    """A row for each figure and table of the paper."""
    no_numbers = "no numbers published"
    rows = [
        ("figure 1", "losses and replicas over the day", no_numbers, "`lost_utility_over_the_day`"),
        ("figure 2", "Cilantro", no_numbers, "`learned_latency`, [our reading](comparison.md)"),
        (
            "figure 4",
            "utility of a latency; requests",
            "arrivals agree to the request",
            "`utility_of_latency`, `requests_by_job`",
        ),
        ("figure 5", "solvers", solvers(), "`solver_time_and_gap`"),
        ("figure 6", "relaxations", "the same formulas", "`relaxations`"),
        ("figure 7", "many jobs, hierarchical", no_numbers, "`solver_scaling`"),
        ("figure 8", "point and interval forecasts", no_numbers, "`forecast`"),
        ("figures 10 and 13", "lost utility", of_policies(LOSS, 3), "`policies`"),
        ("figures 10 and 13", "SLO violations in %", of_policies(VIOLATIONS, 1), "`policies`"),
        ("figure 11", "replicas by job", no_numbers, "`replicas_by_job`"),
        ("figure 12", "spread over jobs", no_numbers, "`spread_over_jobs`"),
        ("figure 14", "two models", no_numbers, "`two_models`"),
        (
            "figure 15",
            "effective utility",
            of_policies(EFFECTIVE, 3, PENALTY),
            "`effective_utility`",
        ),
        ("figure 16", "ablation", ablation(), "`ablation`"),
        ("table 7", "simulator against cluster", "ranks agree, see [live](live.md)", "`live`"),
        ("table 8", "20 and 100 jobs", no_numbers, "`larger_clusters`"),
    ]
    return markdown_table(["in the paper", "content", "published and here", "our figure"], rows)


PAGE = "docs/paper-figures.md"
RECORDED = [SUMMARY, SOLVERS, ABLATION, PUBLISHED_SOLVERS, PUBLISHED_ABLATION, "data/published"]
PARTS = [
    Part(PAGE, "violations", [SUMMARY, "data/published"], lambda *_: headline(ratios())),
    Part(PAGE, "figures", RECORDED, lambda *_: figures()),
]
