"""The tables of docs/comparison.md, from results of `make figures CONFIG=config/paper.yaml` (`make
readme` runs it).

The rows come from data/published-run, a copy of tables of the run, which a new run replaces.
"""

from __future__ import annotations

import shutil
import textwrap
from pathlib import Path

import marked
import pandas as pd

from studies.figures.comparison import published_main

ROOT = Path(__file__).parent.parent
PAGE, KEPT = ROOT / "docs/comparison.md", ROOT / "data/published-run"
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
LOSS, VIOLATIONS = "lost_utility_published", "slo_violation_rate"


def percent(share: float, digits: int) -> str:
    """The share in per cent, on one line."""
    return f"{100 * share:.{digits}f}\u00a0%"


def finding(summary: pd.DataFrame, limit: pd.DataFrame) -> str:
    """The page's first paragraph: lost utility of Faro-Sum, ours and published, of the best other
    policy, and the limit.
    """
    ours = summary.groupby(["policy", "capacity_cores"])[LOSS].mean().unstack()
    published = published_main(ROOT / "data/published").set_index(["policy", "capacity_cores"])[
        LOSS
    ]["Faro-Sum (paper)"]
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
    """A Markdown table: a row per policy, and for each capacity the mean of our trials and the
    published value.
    """
    published = published_main(ROOT / "data/published").set_index(["policy", "capacity_cores"])[
        measure
    ]
    ours = summary.groupby(["policy", "capacity_cores"])[measure].agg(["mean", "std"])
    head = "| policy |" + "".join(f" {capacity} ours | published |" for capacity in CAPACITIES)
    lines = [head, "| --- |" + " --- | --- |" * len(CAPACITIES)]
    best = {capacity: ours["mean"].xs(capacity, level=1).min() for capacity in CAPACITIES}
    for policy, name in NAMES.items():
        cells = []
        for capacity in CAPACITIES:
            mean, deviation = ours.loc[policy, capacity]
            value = f"{mean:.3f}" if measure == LOSS else percent(mean, 2)
            value = f"**{value}**" if mean == best[capacity] else value
            known = published.get((policy, capacity))
            cells += [f"{value} ({deviation:.3f})" if measure == LOSS else value]
            cells += [
                "-" if known is None else f"{known:.3f}" if measure == LOSS else percent(known, 1)
            ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    if measure in limit:
        means = limit.groupby("capacity_cores")[measure].mean()
        lines.append(
            "| clairvoyant limit (see below) | "
            + " | ".join(f"{means[c]:.3f} | -" for c in CAPACITIES)
            + " |"
        )
    return "\n".join(lines)


def ablation(summary: pd.DataFrame, steps: pd.DataFrame) -> str:
    """A row per step: the lost utility of our trials and the published one, for each capacity."""
    published = pd.read_csv(ROOT / "data/published/published_ablation.csv")
    published = published.set_index(["system", "replicas"])["lost_cluster_utility_mean"]
    known = dict(steps[["variant", "published"]].dropna().itertuples(index=False))
    lost = summary.groupby(["variant", "capacity_cores"], sort=False)[LOSS].mean().unstack()
    sizes = sorted(lost, reverse=True)
    lines = [
        "| step |" + "".join(f" {size} ours | published |" for size in sizes),
        "| --- " * (1 + 2 * len(sizes)) + "|",
    ]
    for name, row in lost.iterrows():
        cells = [
            f"{row[size]:.3f} | {f'{published[known[name], size]:.3f}' if name in known else '-'}"
            for size in sizes
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def capacities(curve: pd.DataFrame) -> str:
    """A row per policy and start: the mean lost utility at each capacity; the least of each start
    is bold.
    """
    lost = curve.groupby(["start", "policy", "capacity_cores"], sort=False)[LOSS].mean().unstack()
    least = lost.groupby(level="start").transform("min")
    lines = [
        f"| start | policy | {' | '.join(map(str, lost))} |",
        "| --- " * (2 + len(lost.columns)) + "|",
    ]
    for (start, policy), row in lost.iterrows():
        cells = [
            f"**{value:.2f}**" if value == low else f"{value:.2f}"
            for value, low in zip(row, least.loc[start, policy])
        ]
        lines.append(f"| {start} | {policy} | {' | '.join(cells)} |")
    return "\n".join(lines)


def larger(sizes: pd.DataFrame) -> str:
    """A row per cluster and policy of the runs with mixed models and with more jobs: lost utility
    of all jobs.
    """
    lines = [
        "| traces | jobs | cores | policy | trials | lost utility | SLO violations |",
        "| --- " * 7 + "|",
    ]
    for row in sizes[sizes["variant"] != "ten traces"].itertuples():
        lost = f"{row.lost_cluster_utility_mean:.2f}" + (
            "" if row.trials == 1 else f" ({row.lost_cluster_utility_std:.2f})"
        )
        rate = percent(row.slo_violation_rate_mean, 2)
        lines.append(
            f"| {row.variant} | {row.jobs} | {row.replicas} | {row.system} | {row.trials} | {lost} "
            f"| {rate} |"
        )
    return "\n".join(lines)


def solvers(answers: pd.DataFrame) -> str:
    """A row per formulation and solver: median time and mean utility relative to the optimum,
    beside the published ones.
    """
    published = pd.read_csv(ROOT / "data/published/published_solvers.csv")
    key = (
        published["formulation"].str.split("(").str[0] + " " + published["solver"].replace(SOLVERS)
    )
    published = published.set_index(key)[["time_s_median", "normalized_utility_mean"]]
    ten = answers.assign(share=answers["value"] / answers["optimum"])
    rows = ten.groupby(["formulation", "solver"], sort=False)[["seconds", "share"]].agg(
        {"seconds": "median", "share": "mean"}
    )
    lines = [
        "| formulation | solver | time, ours | published | utility, ours | published |",
        "| --- " * 6 + "|",
    ]
    for (formulation, solver), row in rows.iterrows():
        theirs = (
            published.loc[name] if (name := f"{formulation} {solver}") in published.index else None
        )
        times = f"{1000 * row['seconds']:.1f} ms | {'-' if theirs is None else f'{1000 * theirs.iloc[0]:.1f} ms'}"
        shares = f"{row['share']:.4f} | {'-' if theirs is None else f'{theirs.iloc[1]:.4f}'}"
        lines.append(f"| {formulation} | {solver} | {times} | {shares} |")
    return "\n".join(lines)


def with_tables(page: str, run: dict[str, pd.DataFrame]) -> str:
    """The page with its tables replaced; `run` is that of `kept`."""
    written = {
        measure: table(run["summary"], run["limit"], measure) for measure in (LOSS, VIOLATIONS)
    }
    written |= {
        "ablation": ablation(run["ablation"], run["steps"]),
        "capacities": capacities(run["curve"]),
    }
    written |= {"larger clusters": larger(run["sizes"]), "solvers": solvers(run["solvers"])}
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
    answers = pd.read_csv(
        KEPT / "solvers.csv"
    )  # the page shows only decisions for Sum with ten jobs
    ten = answers[(answers["objective"] == "Sum") & ~answers["window"].str.contains("enlarged")]
    ten.to_csv(KEPT / "solvers.csv", index=False)
    PAGE.write_text(with_tables(PAGE.read_text(), kept()))
    print(PAGE)
