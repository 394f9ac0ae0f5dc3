"""Stage 40: utilities and solvers (figures 4a, 5, 7 of the paper), gain of relaxed utilities."""

from pathlib import Path

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from faro_lib.figures.style import COLUMN_IN, PAGE_IN, colour, legend_above
from studies.figures.common import legend_out_of_the_panel
from studies.figures.drawing import Drawing, Drawings
from studies.tables.wording import and_list

UTILITY_CAPTION = (
    "Precise utility is a step at the SLO; relaxed utility decreases beyond it, faster with a "
    "larger exponent."
)
# In solvers.csv, `window` ends with this in the rows that compare numbers of jobs.
ENLARGED = ", enlarged"

SOLVER_COLOURS = {
    "exact": "#0072B2",
    "milp": "#4AA2FF",
    "convex": "#C77CA9",
    "greedy": "#00D58F",
    "cobyla": "#D56100",
    "slsqp": "#FC9C00",
    "differential-evolution": "#8F7A6D",
    "hierarchical-exact": "#2E126B",
    "hierarchical-cobyla": "#BACB67",
}


def draw(results: Path) -> Drawings:
    """All figures of the stage; `solver_scaling` only if there are several numbers of jobs."""
    utilities, answers, scored = (
        pd.read_csv(results / "sloppify" / f"{name}.csv")
        for name in ("utility", "solvers", "scored")
    )
    more_jobs = answers["window"].str.endswith(ENLARGED)
    answers, scales = answers[~more_jobs], answers[more_jobs]
    figures = {
        "utility_of_latency": Drawing(
            utility_functions(utilities), "Utility of a latency", UTILITY_CAPTION
        ),
        "solver_time_and_gap": Drawing(
            solver_time_and_gap(answers),
            "Time of each solver, and utility per job below the optimum",
            solver_caption(answers),
        ),
        "sloppification": Drawing(
            sloppification(scored),
            "Decisions on precise and relaxed utilities",
            sloppification_caption(scored),
        ),
    }
    if scales["jobs"].nunique() > 1:
        figures["solver_scaling"] = Drawing(
            hierarchical(scales),
            "Utility and time of each solver by number of jobs",
            hierarchical_caption(scales),
        )
    return figures


def _palette(solvers: pd.Series) -> dict[str, str]:
    """Solver -> colour, in the order of SOLVER_COLOURS; solvers of plugins come last."""
    present = list(dict.fromkeys(solvers))
    names = [name for name in SOLVER_COLOURS if name in present]
    return {name: colour(name, SOLVER_COLOURS) for name in dict.fromkeys([*names, *present])}


def utility_functions(utilities: pd.DataFrame) -> Figure:
    """Figure 4a: utility by latency. Columns latency_over_slo, utility, kind."""
    figure, axis = plt.subplots(figsize=(COLUMN_IN, 2.3))
    sns.lineplot(utilities, x="latency_over_slo", y="utility", hue="kind", style="kind", ax=axis)
    axis.set(xlabel="latency / SLO", ylabel="utility", ylim=(-0.03, 1.05))
    legend_out_of_the_panel(figure, axis, columns=2)
    return figure


def time_and_gap(answers: pd.DataFrame) -> pd.DataFrame:
    """Median seconds and mean gap per job, by formulation, objective and solver.

    Only decisions that every solver has solved count.
    """
    window = ["formulation", "objective", "capacity_cores", "window"]
    solvers = answers.groupby(window)["solver"].transform("nunique")
    shared = answers[solvers == answers["solver"].nunique()]
    by = shared.groupby(["formulation", "objective", "solver"], as_index=False)
    table = by.agg({"seconds": "median", "gap_per_job": "mean"})
    gap = table["gap_per_job"].clip(lower=0)
    return table.assign(gap_per_job=gap, windows=len(shared.groupby(window[2:])))


def solver_time_and_gap(answers: pd.DataFrame) -> Figure:
    """Figure 5: median time and mean gap per job of each solver, precise and relaxed."""
    formulations = ["precise", "relaxed"]
    figure, axes = plt.subplots(1, 2, figsize=(PAGE_IN, 2.6), sharex=True, sharey=True)
    middle = time_and_gap(answers)
    palette = _palette(middle["solver"])
    dots = {"hue": "solver", "style": "objective", "hue_order": list(palette), "palette": palette}
    for axis, formulation in zip(axes, formulations):
        part = middle[middle["formulation"] == formulation]
        last = formulation == formulations[-1]
        sns.scatterplot(part, x="seconds", y="gap_per_job", ax=axis, legend=last, **dots)
        axis.set(xscale="log", title=formulation)
        axis.set(xlabel="seconds per decision", ylabel="utility below the optimum, per job")
        axis.set_yscale("symlog", linthresh=0.001)
    sns.move_legend(axes[-1], "upper left", bbox_to_anchor=(1, 1), title=None)
    return figure


def solver_caption(answers: pd.DataFrame) -> str:
    middle = time_and_gap(answers)
    first = "Sum" if "Sum" in set(middle["objective"]) else middle["objective"].iloc[0]
    rows = middle[middle["objective"] == first]
    gap = rows.pivot(index="solver", columns="formulation", values="gap_per_job")
    ms = 1000 * rows.pivot(index="solver", columns="formulation", values="seconds")
    others = [
        f"{name} {gap['precise'][name]:.4f} in {ms['precise'][name]:.1f} ms and "
        f"{gap['relaxed'][name]:.4f} in {ms['relaxed'][name]:.1f} ms"
        for name in ms.mean(axis=1).sort_values().index
        if name != "exact"
    ]
    sentences = []
    of = f"solvers on precise and relaxed utilities ({first})"
    if "exact" in ms.index:
        of = "others, in this order"
        sentences.append(
            f"The exact solver has no gap and takes {ms['precise']['exact']:.1f} ms on precise and "
            f"{ms['relaxed']['exact']:.1f} ms on relaxed utilities ({first})."
        )
    if others:
        sentences.append(
            f"Utility per job below the optimum, and times, of the {of}: {'; '.join(others)}."
        )
    decisions = middle["windows"].iloc[0]
    sentences.append(
        "Means and, for times, medians over all decisions that every solver solved "
        f"(n = {decisions})."
    )
    return " ".join(sentences)


def hierarchical(scales: pd.DataFrame) -> Figure:
    """Figure 7: utility and time by number of jobs. Columns jobs, solver, value, seconds."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE_IN, 2.2), sharex=True)
    per_job = scales.assign(per_job=scales["value"] / scales["jobs"])
    palette = _palette(scales["solver"])
    shared = {"x": "jobs", "hue": "solver", "style": "solver", "markers": True}
    shared |= {"hue_order": list(palette), "palette": palette}
    sns.lineplot(per_job, y="per_job", ax=left, legend=False, **shared)
    sns.lineplot(per_job, y="seconds", ax=right, **shared)
    counts = sorted(per_job["jobs"].unique())
    left.set(xscale="log", xlabel="jobs", ylabel="utility per job")
    right.set(xscale="log", yscale="log", xlabel="jobs", ylabel="seconds per decision")
    right.set_xticks(counts, [str(c) for c in counts])
    for axis in (left, right):
        axis.minorticks_off()
    legend_above(figure, *right.get_legend_handles_labels())
    right.get_legend().remove()
    return figure


def hierarchical_caption(scales: pd.DataFrame) -> str:
    most = scales["jobs"].max()
    largest = scales[scales["jobs"] == most]
    times = [
        f"{row.solver} takes {1000 * row.seconds:.1f} ms ({row.gap_per_job:.4f} utility per job "
        "below the optimum)"
        for row in largest.itertuples()
    ]
    return f"At {most} jobs, {and_list(times)}. One decision at each number of jobs."


def sloppification(scored: pd.DataFrame) -> Figure:
    """Lost utility of decisions by precise or relaxed utility.

    It is scored by relaxed (left) or precise (right) utility.
    """
    decided = scored["solver"] + ", " + scored["formulation"]
    scored = scored.assign(decided=decided, lost=(1 - scored["realised"]).round(9))
    figure, axes = plt.subplots(1, 2, figsize=(PAGE_IN, 2.4))
    for axis, scored_by in zip(axes, ("relaxed", "precise")):
        part = scored[scored["scored_by"] == scored_by]
        sns.barplot(part, x="capacity_cores", y="lost", hue="decided", errorbar=("se", 1), ax=axis)
        axis.set(xlabel="capacity (cores)", ylabel="lost utility per job")
        axis.set_title(f"scored by {scored_by} utility")
        axis.set_ylim(0, max(0.01, axis.get_ylim()[1]))  # for panels without loss
        axis.get_legend().remove()
    handles, labels = axes[0].get_legend_handles_labels()
    legend_above(figure, handles, labels, columns=4)
    return figure


def sloppification_caption(scored: pd.DataFrame) -> str:
    exact = scored[scored["solver"] == "exact"]
    by = exact.groupby(["capacity_cores", "scored_by", "formulation"])
    realised = by["realised"].mean().unstack()
    gain = realised["relaxed"] - realised["precise"]
    parts = [
        f"At {capacity} cores, deciding on relaxed instead of precise utilities changes a job's "
        f"relaxed utility by {gain[capacity, 'relaxed']:+.3f} and its precise utility by "
        f"{gain[capacity, 'precise']:+.3f}."
        for capacity in dict.fromkeys(exact["capacity_cores"])
    ]
    return (
        f"{' '.join(parts)} Solved exactly, scored under the actual rates; whiskers: one standard "
        "error."
    )
