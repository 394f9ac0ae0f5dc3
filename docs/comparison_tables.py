"""The tables of docs/comparison.md, from results of `make figures CONFIG=config/paper.yaml`.

`make readme` runs both. The rows come from data/published-run, a copy of tables of the run, which a
new run replaces.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable
from pathlib import Path

import marked
import numpy as np
import pandas as pd

from studies.figures.comparison import published_main
from studies.wording import markdown_table

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/comparison.md"
KEPT = ROOT / "data/published-run"
RESULTS = ROOT / "results/faro-10jobs"
# Name of the copy -> the table of the run.
TABLES = {
    "summary": "simulate/summary.csv",
    "limit": "simulate/limit.csv",
    "ablation": "ablation/summary.csv",
    "steps": "ablation/steps.csv",
    "curve": "scale/curve.csv",
    "sizes": "scale/sizes.csv",
    "solvers": "sloppify/solvers.csv",
}
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
}
SOLVERS = {"SLSQP": "slsqp", "COBYLA": "cobyla", "DE": "differential-evolution"}
LOSS = "lost_utility_published"
VIOLATIONS = "slo_violation_rate"


def percent(share: float, digits: int) -> str:
    """The share in per cent, on one line."""
    return f"{100 * share:.{digits}f}\u00a0%"


def published_by_policy(measure: str) -> pd.Series:
    """The paper's values of a measure, by policy and capacity."""
    table = published_main(ROOT / "data/published")
    return table.set_index(["policy", "capacity_cores"])[measure]


def finding(summary: pd.DataFrame, limit: pd.DataFrame) -> str:
    """The page's first paragraph: what Faro-Sum loses, ours and published, and other policies."""
    ours = summary.groupby(["policy", "capacity_cores"])[LOSS].mean().unstack()
    published = published_by_policy(LOSS)["Faro-Sum (paper)"]
    baselines = ours[~ours.index.str.startswith("Faro")]
    means = limit.groupby("capacity_cores")[LOSS].mean()

    def each(values: pd.Series) -> str:
        *rest, last = [f"{values[capacity]:.3f}" for capacity in CAPACITIES]
        return f"{', '.join(rest)} and {last}"

    best = [f"{baselines[c].min():.3f} ({NAMES[baselines[c].idxmin()]})" for c in CAPACITIES]
    text = (
        f"Of the utility of ten jobs, at most 10, our Faro-Sum loses {each(ours.loc['Faro-Sum'])} "
        f"with {CAPACITIES[0]}, {CAPACITIES[1]} and {CAPACITIES[2]} cores (a replica has one "
        f"core). The paper's Faro-Sum loses {each(published)}. The best policy here that is not a "
        f"variant of Faro loses {', '.join(best[:-1])} and {best[-1]}. A policy that knows all "
        f"requests in advance would lose about {each(means)}."
    )
    return textwrap.fill(text, 100)


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


def ours_and_published(capacities: Iterable[int]) -> list[str]:
    """Two heads of columns for each capacity."""
    return [head for capacity in capacities for head in (f"{capacity} ours", "published")]


def ablation(summary: pd.DataFrame, steps: pd.DataFrame) -> str:
    """A row per step: the lost utility of our trials and the published one, for each capacity."""
    published = pd.read_csv(ROOT / "data/published/published_ablation.csv")
    published = published.set_index(["system", "replicas"])["lost_cluster_utility_mean"]
    known = dict(steps[["variant", "published"]].dropna().itertuples(index=False))
    lost = summary.groupby(["variant", "capacity_cores"], sort=False)[LOSS].mean().unstack()
    sizes = sorted(lost, reverse=True)
    rows = []
    for name, row in lost.iterrows():
        cells = [name]
        for size in sizes:
            theirs = f"{published[known[name], size]:.3f}" if name in known else "-"
            cells += [f"{row[size]:.3f}", theirs]
        rows.append(cells)
    return markdown_table(["step", *ours_and_published(sizes)], rows)


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


def larger(sizes: pd.DataFrame) -> str:
    """A row per cluster and policy of the runs with mixed models and with more jobs."""
    rows = []
    for row in sizes[sizes["variant"] != "ten traces"].itertuples():
        lost = f"{row.lost_cluster_utility_mean:.2f}"
        if row.trials > 1:
            lost += f" ({row.lost_cluster_utility_std:.2f})"
        rate = percent(row.slo_violation_rate_mean, 2)
        rows.append((row.variant, row.jobs, row.replicas, row.system, row.trials, lost, rate))
    heads = ["traces", "jobs", "cores", "policy", "trials", "lost utility", "SLO violations"]
    return markdown_table(heads, rows)


def solvers(answers: pd.DataFrame) -> str:
    """A row per formulation and solver: median time and mean utility, ours and published.

    The utility is relative to the optimum.
    """
    published = pd.read_csv(ROOT / "data/published/published_solvers.csv")
    formulation = published["formulation"].str.split("(").str[0]
    published.index = pd.MultiIndex.from_arrays([formulation, published["solver"].replace(SOLVERS)])
    ten = answers.assign(share=answers["value"] / answers["optimum"])
    by = ten.groupby(["formulation", "solver"], sort=False)[["seconds", "share"]]
    rows = []
    for name, row in by.agg({"seconds": "median", "share": "mean"}).iterrows():
        time, utility = "-", "-"
        if name in published.index:
            theirs = published.loc[name]
            time = f"{1000 * theirs['time_s_median']:.1f} ms"
            utility = f"{theirs['normalized_utility_mean']:.4f}"
        ours = f"{1000 * row['seconds']:.1f} ms"
        rows.append((*name, ours, time, f"{row['share']:.4f}", utility))
    heads = ["formulation", "solver", "time, ours", "published", "utility, ours", "published"]
    return markdown_table(heads, rows)


def with_tables(page: str, run: dict[str, pd.DataFrame]) -> str:
    """The page with its tables replaced; `run` is that of `kept`."""
    written = {
        LOSS: table(run["summary"], run["limit"], LOSS),
        VIOLATIONS: table(run["summary"], run["limit"], VIOLATIONS),
        "ablation": ablation(run["ablation"], run["steps"]),
        "capacities": capacities(run["curve"]),
        "larger clusters": larger(run["sizes"]),
        "solvers": solvers(run["solvers"]),
    }
    mark = "summary: docs/comparison_tables.py writes it"
    page = marked.with_table(page, mark, finding(run["summary"], run["limit"]))
    for name, text in written.items():
        page = marked.with_table(page, f"{name}: docs/comparison_tables.py writes this table", text)
    return page


def kept() -> dict[str, pd.DataFrame]:
    """Name -> table of the run that the page shows."""
    return {name: pd.read_csv(KEPT / f"{name}.csv") for name in TABLES}


if __name__ == "__main__":
    KEPT.mkdir(exist_ok=True)
    for name, source in TABLES.items():
        shutil.copy(RESULTS / source, KEPT / f"{name}.csv")
    answers = pd.read_csv(KEPT / "solvers.csv")
    # The page shows only decisions for Sum with ten jobs.
    ten = answers[(answers["objective"] == "Sum") & ~answers["window"].str.contains("enlarged")]
    ten.to_csv(KEPT / "solvers.csv", index=False)
    PAGE.write_text(with_tables(PAGE.read_text(), kept()))
    print(PAGE)
