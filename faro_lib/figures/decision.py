"""Figures of queueing, utilities and solvers: 4a, 5, 6 and 7 of the paper, and what is ours beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from faro_lib.figures.style import COLUMN_IN, PAGE_IN, colour, legend_above

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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


def _palette(solvers) -> dict[str, str]:
    """Solver -> colour, in the palette's order; those of plugins last."""
    present = dict.fromkeys(solvers)
    return {
        name: colour(name, SOLVER_COLOURS) for name in dict.fromkeys([*SOLVER_COLOURS, *present]) if name in present
    }


def utility_functions(utilities: pd.DataFrame) -> Figure:
    """Figure 4a: what a latency is worth. Columns latency_over_slo, utility, kind."""
    import seaborn as sns
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(COLUMN_IN, 2.0))
    sns.lineplot(utilities, x="latency_over_slo", y="utility", hue="kind", style="kind", ax=axis)
    axis.set(xlabel="latency / SLO", ylabel="utility", ylim=(-0.03, 1.05))
    axis.legend(title=None)
    return figure


def relaxations(latencies: pd.DataFrame, penalties: pd.DataFrame) -> Figure:
    """Figure 6: what "sloppified" means. Columns rho, latency_over_service, kind; and drop, penalty, kind."""
    import seaborn as sns
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE_IN, 2.1))
    sns.lineplot(latencies, x="rho", y="latency_over_service", hue="kind", style="kind", ax=left)
    left.set(xlabel="utilisation", ylabel="latency / service time")
    sns.lineplot(penalties, x="drop", y="penalty", hue="kind", style="kind", ax=right)
    right.set(xlabel="dropped fraction", ylabel="penalty factor", xlim=(0, 0.3))
    for axis in (left, right):
        axis.legend(title=None)
    return figure


def half_against_exact(ratios: pd.DataFrame) -> Figure:
    """Latency by half of M/M/c over exact M/D/c. Columns rho, servers, ratio."""
    import seaborn as sns
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(COLUMN_IN, 2.2))
    ratios = ratios.assign(servers=ratios["servers"].astype(str))
    sns.lineplot(ratios, x="rho", y="ratio", hue="servers", style="servers", palette="viridis", ax=axis)
    axis.axhline(1.0, color="black", linewidth=0.6)
    axis.set(xlabel="utilisation", ylabel="half M/M/c over exact M/D/c")
    axis.legend(title="capacity_cores", ncols=2)
    return figure


def solver_time_and_gap(solvers: pd.DataFrame) -> Figure:
    """Figure 5: time against optimality gap, precise and relaxed. Columns formulation, solver, seconds, gap, objective."""
    import seaborn as sns
    from matplotlib import pyplot as plt

    formulations = ["precise", "relaxed"]
    figure, axes = plt.subplots(1, 2, figsize=(PAGE_IN, 2.6), sharex=True, sharey=True, squeeze=False)
    # Gaps relative to an optimum near zero say nothing; the middle over the windows does.
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


def hierarchical(scales: pd.DataFrame) -> Figure:
    """Figure 7: value and time as the number of jobs grows. Columns jobs, solver, value, seconds."""
    import seaborn as sns
    from matplotlib import pyplot as plt

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


def sloppification(scored: pd.DataFrame) -> Figure:
    """Decide on one formulation, be scored on the other. Columns replicas, formulation, solver, judge, realised."""
    import seaborn as sns
    from matplotlib import pyplot as plt

    scored = scored.assign(decided=scored["solver"] + ", " + scored["formulation"], lost=1 - scored["realised"])
    figure, axes = plt.subplots(1, 2, figsize=(PAGE_IN, 2.4))
    for axis, judge in zip(axes, ("relaxed", "precise")):
        part = scored[scored["scored_by"] == judge]
        sns.barplot(part, x="capacity_cores", y="lost", hue="decided", errorbar=("se", 1), ax=axis)
        axis.set(xlabel="capacity_cores", ylabel="lost utility per job", title=f"scored by {judge} utility, as it came")
        axis.legend(title="decided by")
    return figure
