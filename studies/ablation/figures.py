"""Stage 60: the gain of each step (figure 16 of the paper), remaining loss, learned latencies."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from faro_lib.figures import style
from faro_lib.figures.style import COLOURS, COLUMN_IN, PAGE_IN, legend_above
from studies.ablation.remaining import ALL, AS_IS, CONSTANT, FORECAST, IDEALS, MOVES, START
from studies.ablation.remaining import LIMIT as BEST
from studies.figures import common
from studies.figures.barcharts import bar_rows
from studies.figures.common import trials_note
from studies.figures.drawing import Drawing, Drawings

SOURCE_COLOURS = {"paper": COLOURS["FairShare"], "ours": COLOURS["Faro-FairSum"]}
PLANNER = "Faro-Sum"  # the policy whose remaining loss is shown
COSTLY = 0.02  # the caption reports steps that increase lost utility by more than this


def draw(results: Path, published: str | None = None) -> Drawings:
    names = ("summary", "limit", "steps", "remaining", "learning")
    summary, limit, steps, parts, curves = (
        pd.read_csv(results / "ablation" / f"{name}.csv") for name in names
    )
    paper = None
    if published:
        known = steps.dropna(subset="published")
        paper = published_ablation(Path(published), dict(zip(known["published"], known["variant"])))
    return {
        "ablation": Drawing(
            ablation(summary, limit, paper),
            "Ablation: lost utility after each step",
            ablation_caption(summary, paper),
        ),
        "remaining_loss": Drawing(
            remaining_loss(parts), "Decomposition of the remaining loss", remaining_caption(parts)
        ),
        "learned_latency": Drawing(
            learning(curves), "Error of a learned latency model", learning_caption(curves)
        ),
    }


def published_ablation(directory: Path, steps: dict[str, str]) -> pd.DataFrame:
    """The paper's simulated ablation.

    Columns variant, capacity_cores, lost_utility_published and slo_violation_rate. `steps` maps the
    paper's names of the variants to ours.
    """
    table = pd.read_csv(directory / "published_ablation.csv")
    table = table[(table["env"] == "simulation") & table["system"].isin(list(steps))]
    columns = {
        "replicas": "capacity_cores",
        "lost_cluster_utility_mean": "lost_utility_published",
        "slo_violation_rate_mean": "slo_violation_rate",
    }
    table = table.assign(variant=table["system"].map(steps)).rename(columns=columns)
    return table[["variant", *columns.values()]].reset_index(drop=True)


def lost_column(published: pd.DataFrame | None) -> str:
    """The column of lost utility to draw: with `published` values, the loss by the paper's rule."""
    return "lost_utility" if published is None else "lost_utility_published"


def ablation(
    summary: pd.DataFrame, limit: pd.DataFrame, published: pd.DataFrame | None = None
) -> Figure:
    """Figure 16: lost utility after each step, one panel per capacity."""
    lost = lost_column(published)
    sources = summary.drop_duplicates("variant").set_index("variant")["source"]
    capacities = sorted(summary["capacity_cores"].unique(), reverse=True)
    size_in = (PAGE_IN, 0.7 + 0.2 * len(sources))
    figure, axes = plt.subplots(1, len(capacities), figsize=size_in, sharey=True, squeeze=False)
    colours = [SOURCE_COLOURS[source] for source in sources]

    def at(table: pd.DataFrame, capacity: float) -> pd.Series:
        return table[table["capacity_cores"] == capacity].set_index("variant")[lost]

    for axis, capacity in zip(axes[0], capacities):
        here = at(summary, capacity)
        known = None if published is None else at(published, capacity)
        floor = limit.loc[limit["capacity_cores"] == capacity, lost].mean()
        bar_rows(axis, here, list(sources.index), colours, published=known, limit=floor)
        axis.set(title=f"{capacity:g} cores", xlabel="lost cluster utility")
    steps = {"paper": "the paper's steps", "ours": "our steps"}
    bars = [Patch(facecolor=SOURCE_COLOURS[source], edgecolor="black") for source in steps]
    handles, labels = common.reference_handles(published is not None, limit=True)
    legend_above(figure, bars + handles, [*steps.values(), *labels], 4)
    return figure


def ablation_caption(summary: pd.DataFrame, published: pd.DataFrame | None = None) -> str:
    mean = summary.groupby(["capacity_cores", "variant"], sort=False)[lost_column(published)].mean()
    sources = summary.drop_duplicates("variant").set_index("variant")["source"]
    last = sources[sources == "paper"].index[-1]
    findings = []
    for capacity in dict.fromkeys(summary["capacity_cores"]):
        lost = mean[capacity]
        gain = -lost.diff()
        ours = gain[sources[sources == "ours"].index]
        costs = ""
        if gain.min() < -COSTLY:
            costs = f"; {gain.idxmin().removeprefix('+ ')} costs most ({-gain.min():.2f})"
        findings.append(
            f"At {capacity:g} cores, the paper's steps change the lost utility from "
            f"{lost.iloc[0]:.2f} to {lost[last]:.2f}, and ours to {lost.iloc[-1]:.2f}. Of our "
            f"steps, {ours.idxmax().removeprefix('+ ')} gains most ({ours.max():.2f}){costs}."
        )
    diamonds = "" if published is None else common.DIAMONDS
    return (
        f"{' '.join(findings)} Each step includes all steps above it. "
        f"{trials_note(summary, ['capacity_cores', 'variant'])} Dashed: clairvoyant limit of the "
        f"first trial.{diamonds}"
    )


def remaining_loss(parts: pd.DataFrame) -> Figure:
    """Lost utility when one part of the problem is made ideal at a time.

    Columns part, lost_utility.
    """
    figure, axis = plt.subplots(figsize=(COLUMN_IN, 2.2))
    special = {AS_IS: "#0072B2", CONSTANT: "#C2C5CA", BEST: style.LIMIT}
    colours = [special.get(part, COLOURS["Faro-PenaltySum"]) for part in parts["part"]]
    bar_rows(axis, parts.set_index("part")["lost_utility"], list(parts["part"]), colours)
    axis.set_xlabel("lost cluster utility")
    return figure


def remaining_caption(parts: pd.DataFrame) -> str:
    lost = parts.set_index("part")["lost_utility"]
    capacity = parts["capacity_cores"].iloc[0]
    saved = (lost[AS_IS] - lost[[START, FORECAST, MOVES]]).sort_values(ascending=False)
    ideals = "; ".join(f"{part}: {IDEALS[part]} (saves {saved[part]:.3f})" for part in saved.index)
    return (
        f"Of the {lost[AS_IS]:.2f} utility that {PLANNER} loses at {capacity:g} cores, an ideal "
        f"{saved.index[0]} saves {saved.iloc[0]:.2f}, and all three ideals together save "
        f"{lost[AS_IS] - lost[ALL]:.2f}. {ideals}. Constant rates: {IDEALS[CONSTANT]} "
        f"({lost[CONSTANT]:.2f}). Limit: {IDEALS[BEST]} ({lost[BEST]:.2f}). First trial."
    )


def learning(curves: pd.DataFrame) -> Figure:
    """Error of a learned latency model by minutes of learning.

    Columns capacity_cores, minute, log_error.
    """
    figure, axis = plt.subplots(figsize=(COLUMN_IN, 2.0))
    error_pct = 100 * np.expm1(curves["log_error"])
    for (capacity, rows), marker in zip(curves.groupby("capacity_cores"), "osD^vPX"):
        label = f"{capacity:g} cores"
        axis.plot(rows["minute"] + 1, error_pct[rows.index], marker=marker, ms=3, lw=1, label=label)
    axis.set(xscale="log", yscale="log")
    axis.set(xlabel="minutes of learning + 1", ylabel="latency error (%)")
    common.label_log_axis(axis.xaxis, 1, curves["minute"].max() + 1)
    common.label_log_axis(axis.yaxis, error_pct.min(), error_pct.max())
    axis.legend(frameon=False)
    return figure


def learning_caption(curves: pd.DataFrame) -> str:
    by_minute = curves.groupby("minute")["log_error"].mean()
    percent = 100 * np.expm1(by_minute)
    first, last = percent.iloc[0], percent.iloc[-1]
    return (
        f"After {by_minute.index[-1]} minutes of learning, the tail latency that Cilantro predicts "
        f"is off by {last:.0f} %, against {first:.0f} % without any observation (geometric mean "
        "over job-minutes of another trial, and over capacities)."
    )
