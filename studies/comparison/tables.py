"""The tables and pictures of docs/comparison.md and README.md."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import pandas as pd
from scipy.stats import ttest_ind_from_stats

from studies.comparison.figures import published_main
from studies.comparison.headline import SHOWN, comparison
from studies.rivals.tables import with_tuned
from studies.tables.pages import ROOT, Part, Picture
from studies.tables.paired import t_interval
from studies.tables.wording import markdown_table

CAPACITIES = (36, 32, 16)
OBJECTIVES = ("Sum", "FairSum", "Fair", "PenaltySum", "PenaltyFairSum")
NAMES = {
    "FairShare": "FairShare",
    "Oneshot": "Oneshot",
    "AIAD": "AIAD",
    "MArk": "MArk/Cocktail/Barista",
    **{f"Faro-{one} (paper)": f"Faro-{one}, paper's variant" for one in OBJECTIVES},
    **{f"Faro-{one}": f"Faro-{one}, ours" for one in OBJECTIVES},
    "HPA": "Kubernetes HPA, target 80 %",
    "HPA-90": "Kubernetes HPA, 90 %",
    "HPA-30": "Kubernetes HPA, 30 %",
    "RayServe": "Ray Serve",
    "Cilantro": "Cilantro-like",
    "Static": "Static",
}
SOLVERS = {"SLSQP": "slsqp", "COBYLA": "cobyla", "DE": "differential-evolution"}
LOSS = "lost_utility_published"
VIOLATIONS = "slo_violation_rate"
SIGNIFICANT = 0.05  # p value below which two means are said to differ


def percent(share: float, digits: int) -> str:
    """The share in per cent, on one line."""
    return f"{100 * share:.{digits}f}\u00a0%"


def published_by_policy(measure: str) -> pd.Series:
    """The paper's values of a measure, by policy and capacity."""
    table = published_main(ROOT / "data/published")
    return table.set_index(["policy", "capacity_cores"])[measure]


def finding(summary: pd.DataFrame, limit: pd.DataFrame) -> str:
    """The page's first paragraph: what Faro-Sum loses, ours and published, and other policies."""
    ours = mean_losses(summary)
    published = published_by_policy(LOSS)["Faro-Sum (paper)"]
    means = limit.groupby("capacity_cores")[LOSS].mean()

    def each(values: pd.Series) -> str:
        *rest, last = [f"{values[capacity]:.3f}" for capacity in CAPACITIES]
        return f"{', '.join(rest)} and {last}"

    losses, names = strongest_rivals(ours)
    best = [f"{losses[c]:.3f} ({names[c]})" for c in CAPACITIES]
    text = (
        f"Of the utility of ten jobs, at most 10, our Faro-Sum loses {each(ours.loc['Faro-Sum'])} "
        f"with {CAPACITIES[0]}, {CAPACITIES[1]} and {CAPACITIES[2]} cores (a replica has one "
        f"core). The paper's Faro-Sum loses {each(published)}. The best replica counts of days 1 "
        f"to 10, which never change (Static), lose {each(ours.loc['Static'])}. The best autoscaler "
        f"here that is not a variant of Faro loses {', '.join(best[:-1])} and {best[-1]}. A policy "
        f"that knows all requests in advance would lose about {each(means)}."
    )
    return textwrap.fill(text, 100)


def mean_losses(summary: pd.DataFrame) -> pd.DataFrame:
    """Mean lost utility, with a row per policy and a column per capacity."""
    return summary.groupby(["policy", "capacity_cores"])[LOSS].mean().unstack()


def strongest_rivals(losses: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Least loss of the autoscalers that are not variants of Faro, and whose it is, by capacity.

    Rivals that are tuned on training days are among them, once they are recorded.
    """
    rivals = with_tuned(losses[~losses.index.str.startswith(("Faro", "Static"))])
    return rivals.min(), rivals.idxmin().map(lambda name: NAMES.get(name, name))


def headline(summary: pd.DataFrame, limit: pd.DataFrame) -> str:
    """The table of README.md: lost utility by capacity."""
    ours = mean_losses(summary)
    losses = {
        "Faro-Sum, which maximises the sum of the utilities": ours.loc["Faro-Sum"],
        "Faro-Sum, as published in the paper": published_by_policy(LOSS)["Faro-Sum (paper)"],
        "Static: the best replica counts of the training days, which never change": (
            ours.loc["Static"]
        ),
        "the strongest autoscaler here that is not a variant of Faro": strongest_rivals(ours)[0],
        "the rule of the Kubernetes HPA, with its default target of 80 %": ours.loc["HPA"],
        "MArk, which forecasts each job alone": ours.loc["MArk"],
        "clairvoyant limit: a policy that knows all requests in advance": (
            limit.groupby("capacity_cores")[LOSS].mean()
        ),
    }
    names = strongest_rivals(ours)[1]
    rows = []
    for text, of_policy in losses.items():
        cells = [f"{of_policy[capacity]:.2f}" for capacity in CAPACITIES]
        if text.startswith("the strongest"):
            cells = [f"{cell} ({names[capacity]})" for cell, capacity in zip(cells, CAPACITIES)]
        rows.append((text, *cells))
    first, *rest = CAPACITIES
    return markdown_table(["lost utility of ten jobs", f"{first} replicas", *map(str, rest)], rows)


def table(summary: pd.DataFrame, limit: pd.DataFrame, measure: str) -> str:
    """A row per policy: for each capacity the mean of our trials and the published value."""
    published = published_by_policy(measure)
    ours = summary.groupby(["policy", "capacity_cores"])[measure].agg(["mean", "std"])
    best = {capacity: ours["mean"].xs(capacity, level=1).min() for capacity in CAPACITIES}
    is_loss = measure == LOSS
    rows = []
    for policy, name in NAMES.items():
        cells = [name]
        for capacity in CAPACITIES:
            mean, deviation = ours.loc[policy, capacity]
            value = f"{mean:.3f}" if is_loss else percent(mean, 2)
            if mean == best[capacity]:
                value = f"**{value}**"
            known = "-"
            if (policy, capacity) in published:
                share = published[policy, capacity]
                known = f"{share:.3f}" if is_loss else percent(share, 1)
            cells += [f"{value} ({deviation:.3f})" if is_loss else value, known]
        rows.append(cells)
    if measure in limit:
        means = limit.groupby("capacity_cores")[measure].mean()
        cells = ["clairvoyant limit (see below)"]
        for capacity in CAPACITIES:
            cells += [f"{means[capacity]:.3f}", "-"]
        rows.append(cells)
    return markdown_table(["policy", *ours_and_published(CAPACITIES)], rows)


def reproduction(summary: pd.DataFrame) -> str:
    """How many means of the paper's variant differ from the published ones, and which.

    Welch's t test on the means of both, with the published deviations and trials.
    """
    published = pd.read_csv(ROOT / "data/published/published_main.csv")
    published = published[published["env"] == "simulation"].set_index(["system", "replicas"])
    differing = []
    for objective in OBJECTIVES:
        for capacity in CAPACITIES:
            policy = f"Faro-{objective}"
            at = (summary["policy"] == f"{policy} (paper)") & (
                summary["capacity_cores"] == capacity
            )
            ours = summary.loc[at, LOSS]
            theirs = published.loc[policy, capacity]
            mean, deviation = (
                theirs["lost_cluster_utility_mean"],
                theirs["lost_cluster_utility_std"],
            )
            test = ttest_ind_from_stats(
                ours.mean(),
                ours.std(),
                len(ours),
                mean,
                deviation,
                int(theirs["trials"]),
                equal_var=False,
            )
            if test.pvalue < SIGNIFICANT:
                differing.append(f"{objective} at {capacity} ({ours.mean() - mean:+.3f})")
    return textwrap.fill(
        f"By their means over the trials, {len(differing)} of the paper's variant's "
        f"{len(OBJECTIVES) * len(CAPACITIES)} values differ from the published ones (Welch's t "
        f"test, p < {SIGNIFICANT}): {', '.join(differing)}.",
        100,
    )


def ours_and_published(capacities: Iterable[int]) -> list[str]:
    """Two heads of columns for each capacity."""
    return [head for capacity in capacities for head in (f"{capacity} ours", "published")]


def ablation(summary: pd.DataFrame, steps: pd.DataFrame) -> str:
    """A row per step: our lost utility with its deviation, and the published one, by capacity."""
    published = pd.read_csv(ROOT / "data/published/published_ablation.csv")
    published = published.set_index(["system", "replicas"])["lost_cluster_utility_mean"]
    known = dict(steps[["variant", "published"]].dropna().itertuples(index=False))
    by = summary.groupby(["variant", "capacity_cores"], sort=False)[LOSS]
    lost, deviation = by.mean().unstack(), by.std().unstack()
    sizes = sorted(lost, reverse=True)
    rows = []
    for name, row in lost.iterrows():
        cells = [name]
        for size in sizes:
            theirs = f"{published[known[name], size]:.3f}" if name in known else "-"
            cells += [f"{row[size]:.3f} ({deviation.loc[name, size]:.3f})", theirs]
        rows.append(cells)
    return markdown_table(["step", *ours_and_published(sizes)], rows)


def regressions(summary: pd.DataFrame) -> str:
    """How many steps of the ablation change the loss clearly, and which of them raise it.

    A change is clear if the 95 % interval of the difference, paired by trial, excludes zero.
    """
    runs = summary.pivot_table(
        index=["capacity_cores", "trial"], columns="variant", values=LOSS, sort=False
    )
    raised, lowered, compared = [], 0, 0
    for before, step in zip(runs.columns, runs.columns[1:]):
        for capacity, part in runs.groupby("capacity_cores", sort=False):
            mean, half = t_interval(part[step], part[before])
            compared += 1
            lowered += mean < -half
            if mean > half:
                raised.append(f"`{step}` at {capacity} (by {mean:.3f} ± {half:.3f})")
    text = (
        f"Of {compared} differences between a step and the one before it, {lowered} lower the loss "
        f"and {len(raised)} raise it such that the 95 % interval, paired by trial, excludes zero. "
        f"The loss rises with {', '.join(raised)}."
    )
    return textwrap.fill(text, 100, break_on_hyphens=False)


def capacities(curve: pd.DataFrame) -> str:
    """A row per policy and start: the mean lost utility at each capacity.

    The least of each start is bold.
    """
    lost = curve.groupby(["start", "policy", "capacity_cores"], sort=False)[LOSS].mean().unstack()
    least = lost.groupby(level="start").transform("min")
    rows = []
    for (start, policy), row in lost.iterrows():
        cells = [f"{value:.2f}" for value in row]
        for n in np.flatnonzero(row == least.loc[start, policy]):
            cells[n] = f"**{cells[n]}**"
        rows.append((start, policy, *cells))
    return markdown_table(["start", "policy", *map(str, lost)], rows)


def start(curve: pd.DataFrame) -> str:
    """What the published start of one replica a job costs Faro-Sum, by capacity."""
    faro = curve[curve["policy"] == "Faro-Sum"]
    lost = faro.groupby(["start", "capacity_cores"])[LOSS].mean().unstack("start")
    cost = lost["one replica"] - lost["equal share"]
    *rest, last = [f"{cost[capacity]:.3f} at {capacity}" for capacity in sorted(cost.index)]
    return textwrap.fill(
        f"Started with one replica per job instead of an equal share, Faro-Sum loses "
        f"{', '.join(rest)} and {last} cores more.",
        100,
    )


def larger(sizes: pd.DataFrame) -> str:
    """Two tables of lost utility, a row per policy: mixed models, and more jobs."""
    mixed = sizes[sizes["variant"] == "mixed"]
    more = sizes[sizes["variant"].isin(["repeated", "shifted"])]
    return "\n\n".join(map(losses_by_cluster, (mixed, more)))


def losses_by_cluster(sizes: pd.DataFrame) -> str:
    """A row per policy, a column per cluster."""
    clusters = sizes.groupby(["variant", "jobs", "replicas"], sort=False)
    of_cluster = {
        f"{variant}, {jobs} jobs, {cores} cores": part.set_index("system")[
            "lost_cluster_utility_mean"
        ]
        for (variant, jobs, cores), part in clusters
    }
    rows = [
        (
            name,
            *(f"{losses[name]:.2f}" if name in losses else "-" for losses in of_cluster.values()),
        )
        for name in sizes["system"].unique()
    ]
    return markdown_table(["policy", *of_cluster], rows)


def solvers(answers: pd.DataFrame) -> str:
    """A row per formulation and solver: median time and mean utility, ours and published.

    The utility is relative to the optimum. The last column has the mean utility below it, per job.
    """
    published = pd.read_csv(ROOT / "data/published/published_solvers.csv")
    formulation = published["formulation"].str.split("(").str[0]
    published.index = pd.MultiIndex.from_arrays([formulation, published["solver"].replace(SOLVERS)])
    ten = answers.assign(share=answers["value"] / answers["optimum"])
    by = ten.groupby(["formulation", "solver"], sort=False)
    columns = {"seconds": "median", "share": "mean", "gap_per_job": "mean"}
    rows = []
    for name, row in by.agg(columns).iterrows():
        time, utility = "-", "-"
        if name in published.index:
            theirs = published.loc[name]
            time = f"{1000 * theirs['time_s_median']:.1f} ms"
            utility = f"{theirs['normalized_utility_mean']:.4f}"
        ours = f"{1000 * row['seconds']:.1f} ms"
        share, gap = f"{row['share']:.4f}", f"{row['gap_per_job']:.4f}"
        rows.append((*name, ours, time, share, utility, gap))
    of_time = ["time, ours", "published"]
    of_utility = ["utility, ours", "published", "below the optimum, per job"]
    heads = ["formulation", "solver", *of_time, *of_utility]
    return markdown_table(heads, rows)


def of(measure: str) -> Callable[[pd.DataFrame, pd.DataFrame], str]:
    return lambda summary, limit: table(summary, limit, measure)


SUMMARY, LIMIT, ABLATION, STEPS, CURVE, SIZES, SOLVED = (
    f"data/published-run/{name}.csv"
    for name in ("summary", "limit", "ablation", "steps", "curve", "sizes", "solvers")
)
PAGE = "docs/comparison.md"
PARTS = [
    Part(PAGE, "summary", [SUMMARY, LIMIT], finding),
    Part(PAGE, LOSS, [SUMMARY, LIMIT], of(LOSS)),
    Part(PAGE, VIOLATIONS, [SUMMARY, LIMIT], of(VIOLATIONS)),
    Part(PAGE, "reproduction", [SUMMARY], reproduction),
    Part(PAGE, "ablation", [ABLATION, STEPS], ablation),
    Part(PAGE, "regressions", [ABLATION], regressions),
    Part(PAGE, "capacities", [CURVE], capacities),
    Part(PAGE, "start", [CURVE], start),
    Part(PAGE, "larger clusters", [SIZES], larger),
    Part(PAGE, "solvers", [SOLVED], solvers),
    Part("README.md", "published workload", [SUMMARY, LIMIT], headline),
]
PICTURES = [
    Picture("docs/images/comparison.png", [SUMMARY, LIMIT], partial(comparison, SHOWN)),
    Picture("docs/images/comparison-all.png", [SUMMARY, LIMIT], partial(comparison, None)),
]
