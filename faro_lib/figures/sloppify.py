"""Stage 40, utilities and solvers: figures 4a, 5 and 7 of the paper, and the value of relaxing."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from faro_lib.figures.style import COLUMN_IN, PAGE_IN, Captioned, colour, legend_above

ENLARGED = ", enlarged"  # ends the `window` of the answers with more jobs in solvers.csv

SOLVER_COLOURS = {
    "exact": "#0072B2",
    "milp": "#4AA2FF",
    "convex": "#C77CA9",
    "greedy": "#00D58F",
    "cobyla": "#D56100",
    "nlopt-cobyla": "#AF1800",
    "slsqp": "#FC9C00",
    "differential-evolution": "#8F7A6D",
    "hierarchical-exact": "#2E126B",
    "hierarchical-cobyla": "#BACB67",
}


def draw(results: Path) -> Captioned:
    utilities, answers, scored = (
        pd.read_csv(results / "sloppify" / f"{name}.csv") for name in ("utility", "solvers", "scored")
    )
    more_jobs = answers["window"].str.endswith(ENLARGED)
    answers, scales = answers[~more_jobs], answers[more_jobs]
    return {
        "fig04_utility": (utility_functions(utilities), utility_caption()),
        "fig05_solvers": (solver_time_and_gap(answers), solver_caption(answers)),
        "fig07_hierarchical": (hierarchical(scales), hierarchical_caption(scales)),
        "fig40_sloppification": (sloppification(scored), sloppification_caption(scored)),
    }


def _palette(solvers: pd.Series) -> dict[str, str]:
    """Solver -> colour, in the order of the palette; solvers of plugins last."""
    present = list(dict.fromkeys(solvers))
    names = [name for name in SOLVER_COLOURS if name in present]
    return {name: colour(name, SOLVER_COLOURS) for name in dict.fromkeys([*names, *present])}


def utility_functions(utilities: pd.DataFrame) -> Figure:
    """Figure 4a: what a latency is worth. Columns latency_over_slo, utility, kind."""
    figure, axis = plt.subplots(figsize=(COLUMN_IN, 2.0))
    sns.lineplot(utilities, x="latency_over_slo", y="utility", hue="kind", style="kind", ax=axis)
    axis.set(xlabel="latency / SLO", ylabel="utility", ylim=(-0.03, 1.05))
    axis.legend(title=None)
    return figure


def utility_caption() -> str:
    return "Precise utility is a step; relaxed utility falls with the latency, the faster the larger the exponent."


def solver_time_and_gap(solvers: pd.DataFrame) -> Figure:
    """Figure 5: time against optimality gap, precise and relaxed. Columns formulation, solver, seconds, gap, objective."""
    formulations = ["precise", "relaxed"]
    figure, axes = plt.subplots(1, 2, figsize=(PAGE_IN, 2.6), sharex=True, sharey=True, squeeze=False)
    # A gap relative to an optimum near zero is meaningless, so take the median over the windows.
    middle = solvers.groupby(["formulation", "solver", "objective"], as_index=False)[["seconds", "gap"]].median()
    middle["gap"] = 100 * middle["gap"].clip(lower=0)
    palette = _palette(middle["solver"])
    for axis, formulation in zip(axes.flat, formulations):
        part = middle[middle["formulation"] == formulation]
        sns.scatterplot(
            part, x="seconds", y="gap", hue="solver", style="objective", hue_order=list(palette), palette=palette, ax=axis,
            legend=formulation == formulations[-1],
        )  # fmt: skip
        axis.set(xscale="log", title=formulation, xlabel="seconds per decision", ylabel="optimality gap (%)")
        axis.set_yscale("symlog", linthresh=0.1)
    sns.move_legend(axes.flat[-1], "upper left", bbox_to_anchor=(1, 1), title=None)
    return figure


def solver_caption(answers: pd.DataFrame) -> str:
    on_sum = answers[answers["objective"] == "Sum"]
    gap = on_sum.groupby(["solver", "formulation"])["gap"].mean().unstack().mean(axis=1)
    seconds = on_sum.groupby(["solver", "formulation"])["seconds"].mean().unstack().mean(axis=1)
    others = [f"{name}: {gap[name]:.2%} in {1000 * seconds[name]:.1f} ms" for name in gap.index if name != "exact"]
    return f"Exact has no gap. {'; '.join(others)}."


def hierarchical(scales: pd.DataFrame) -> Figure:
    """Figure 7: value and time as the number of jobs grows. Columns jobs, solver, value, seconds."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE_IN, 2.2), sharex=True)
    per_job = scales.assign(per_job=scales["value"] / scales["jobs"])
    palette = _palette(scales["solver"])
    shared = dict(x="jobs", hue="solver", style="solver", hue_order=list(palette), palette=palette, markers=True)
    sns.lineplot(per_job, y="per_job", ax=left, legend=False, **shared)
    sns.lineplot(per_job, y="seconds", ax=right, **shared)
    counts = sorted(per_job["jobs"].unique())
    left.set(xscale="log", xlabel="jobs", ylabel="utility per job")
    right.set(xscale="log", yscale="log", xlabel="jobs", ylabel="seconds per decision")
    right.set_xticks(counts, [str(c) for c in counts])
    right.minorticks_off()
    left.minorticks_off()
    legend_above(figure, *right.get_legend_handles_labels())
    right.get_legend().remove()
    return figure


def hierarchical_caption(scales: pd.DataFrame) -> str:
    most = scales["jobs"].max()
    largest = scales[scales["jobs"] == most]
    times = [f"{row.solver} {1000 * row.seconds:.1f} ms, gap {row.gap:.1%}" for row in largest.itertuples()]
    return f"At {most} jobs: {'; '.join(times)}."


def sloppification(scored: pd.DataFrame) -> Figure:
    """Decide on one formulation, be scored on the other.

    Parameters
    ----------
    scored : columns capacity_cores, formulation, solver, scored_by, realised.
    """
    scored = scored.assign(decided=scored["solver"] + ", " + scored["formulation"], lost=1 - scored["realised"])
    figure, axes = plt.subplots(1, 2, figsize=(PAGE_IN, 2.4))
    for axis, scored_by in zip(axes, ("relaxed", "precise")):
        part = scored[scored["scored_by"] == scored_by]
        sns.barplot(part, x="capacity_cores", y="lost", hue="decided", errorbar=("se", 1), ax=axis)
        axis.set(xlabel="replicas", ylabel="lost utility per job", title=f"scored by {scored_by} utility, as it came")
        axis.legend(title="decided by")
    return figure


def sloppification_caption(scored: pd.DataFrame) -> str:
    exact = scored[scored["solver"] == "exact"]
    realised = exact.groupby(["capacity_cores", "scored_by", "formulation"])["realised"].mean().unstack()
    gain = realised["relaxed"] - realised["precise"]
    parts = [
        f"at {capacity} replicas deciding on the relaxed table changes the realised relaxed utility of a job by "
        f"{gain[capacity, 'relaxed']:+.3f} and the realised precise utility by {gain[capacity, 'precise']:+.3f}"
        for capacity in dict.fromkeys(exact["capacity_cores"])
    ]
    return f"Solved exactly: {'; '.join(parts)}."
