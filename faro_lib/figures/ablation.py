"""Stage 60, what each step is worth: figure 16 of the paper, what the remaining loss consists of, and Cilantro's learner."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from faro_lib.experiments.remaining import ALL, AS_IS, CONSTANT, FORECAST, IDEALS, MOVES, START
from faro_lib.experiments.remaining import LIMIT as BEST
from faro_lib.figures.barcharts import rows_of_bars
from faro_lib.figures.style import (
    COLOURS,
    COLUMN_IN,
    LIMIT,
    NONE_PUBLISHED,
    PAGE_IN,
    Captioned,
    legend_above,
    published_note,
    reference_handles,
    trials_note,
)

SOURCE_COLOURS = {"paper": COLOURS["FairShare"], "ours": COLOURS["Faro-FairSum"]}
PLANNER = "Faro-Sum"  # the policy whose remaining loss is shown
COSTLY = 0.02  # steps that add more lost utility than this are reported as costly


def draw(results: Path, published: str | None = None) -> Captioned:
    names = ("summary", "limit", "steps", "remaining", "learning")
    summary, limit, steps, parts, curves = (pd.read_csv(results / "ablation" / f"{name}.csv") for name in names)
    paper = None
    if published:
        known = steps.dropna(subset="published")
        paper = published_ablation(Path(published), dict(zip(known["published"], known["variant"])))
    return {
        "fig16_ablation": (ablation(summary, limit, paper), ablation_caption(summary, paper)),
        "fig60_remaining": (remaining(parts), remaining_caption(parts)),
        "fig02_learning": (learning(curves), learning_caption(curves)),
    }


def published_ablation(directory: Path, steps: dict[str, str]) -> pd.DataFrame:
    """The published ablation in simulation: columns variant, capacity_cores, lost_utility, slo_violation_rate.

    Parameters
    ----------
    directory : the folder that contains published_ablation.csv.
    steps : maps the published name of a step to our name for it.
    """
    table = pd.read_csv(directory / "published_ablation.csv")
    table = table[(table["env"] == "simulation") & table["system"].isin(list(steps))]
    columns = {
        "replicas": "capacity_cores",
        "lost_cluster_utility_mean": "lost_utility",
        "slo_violation_rate_mean": "slo_violation_rate",
    }
    table = table.assign(variant=table["system"].map(steps)).rename(columns=columns)
    return table[["variant", *columns.values()]].reset_index(drop=True)


def ablation(summary: pd.DataFrame, limit: pd.DataFrame, published: pd.DataFrame | None = None) -> Figure:
    """Figure 16: lost utility step by step, one panel per capacity; the clairvoyant limit and the published values.

    Parameters
    ----------
    summary : columns variant, source, capacity_cores, trial, lost_utility.
    limit : columns capacity_cores, lost_utility.
    published : columns variant, capacity_cores, lost_utility.
    """
    sources = summary.drop_duplicates("variant").set_index("variant")["source"]
    size_in = (PAGE_IN, 0.7 + 0.2 * len(sources))
    figure, axes = plt.subplots(1, summary["capacity_cores"].nunique(), figsize=size_in, sharey=True, squeeze=False)
    colours, measure = [SOURCE_COLOURS[source] for source in sources], ("lost_utility", "lost cluster utility")
    rows_of_bars(axes[0], summary, "variant", measure, colours, published=published, limit=limit)
    steps = {"paper": "the paper's steps", "ours": "our steps"}
    bars = [Patch(facecolor=SOURCE_COLOURS[source], edgecolor="black") for source in steps]
    handles, labels = reference_handles(published is not None, limit=True)
    legend_above(figure, bars + handles, [*steps.values(), *labels], 4)
    return figure


def ablation_caption(summary: pd.DataFrame, published: pd.DataFrame | None = None) -> str:
    """The first and last loss at each capacity, and which of our steps gains most."""
    mean = summary.groupby(["capacity_cores", "variant"], sort=False)["lost_utility"].mean()
    sources = summary.drop_duplicates("variant").set_index("variant")["source"]
    last = sources[sources == "paper"].index[-1]
    parts = []
    for capacity in dict.fromkeys(summary["capacity_cores"]):
        lost = mean[capacity]
        gain = -lost.diff()
        ours = gain[sources[sources == "ours"].index]
        parts.append(
            f"at {capacity:g} replicas from {lost.iloc[0]:.2f} to {lost[last]:.2f} by the paper's steps and to "
            f"{lost.iloc[-1]:.2f} by ours, of which {ours.idxmax().removeprefix('+ ')} gains most ({ours.max():.2f})"
        )
        if gain.min() < -COSTLY:
            parts[-1] += f" and {gain.idxmin().removeprefix('+ ')} costs most ({-gain.min():.2f})"
    return (
        f"Lost cluster utility, each step with all those above it, {trials_note(summary, ['capacity_cores', 'variant'])}: "
        f"{'; '.join(parts)}. The limit is that of the first trial. {published_note(published)}"
    )


def remaining(parts: pd.DataFrame) -> Figure:
    """Lost utility with one part of the problem ideal at a time, one bar each. Columns part, lost_utility."""
    figure, axis = plt.subplots(figsize=(COLUMN_IN, 2.2))
    colours = {AS_IS: "#0072B2", CONSTANT: "#C2C5CA", BEST: LIMIT}
    parts = parts[::-1]
    colour = [colours.get(part, COLOURS["Faro-PenaltySum"]) for part in parts["part"]]
    axis.bar_label(axis.barh(parts["part"], parts["lost_utility"], color=colour), fmt="%.2f", padding=2)
    axis.margins(x=0.12)
    axis.set_xlabel("lost cluster utility")
    axis.grid(axis="y", visible=False)
    return figure


def remaining_caption(parts: pd.DataFrame) -> str:
    lost, capacity = parts.set_index("part")["lost_utility"], parts["capacity_cores"].iloc[0]
    saved = [f"{part}: {IDEALS[part]} (saves {lost[AS_IS] - lost[part]:.3f})" for part in (START, FORECAST, MOVES)]
    return (
        f"What {PLANNER} loses at {capacity:g} replicas, {lost[AS_IS]:.2f} in one trial, with one part ideal at a time. "
        f"{', '.join(saved)}. With all three {lost[ALL]:.2f} remain: the best allocation of every minute loses "
        f"{lost[CONSTANT]:.2f} at constant rates, as requests do not come evenly; only the clairvoyant, who knows when each "
        f"request arrives, loses {lost[BEST]:.2f}. {NONE_PUBLISHED}"
    )


def learning(curves: pd.DataFrame) -> Figure:
    """Error of a learned latency model by minutes of observation, one line per capacity.

    Parameters
    ----------
    curves : columns capacity_cores, minute, log_error: `metrics.learning_curve`, one row per checkpoint.
    """
    figure, axis = plt.subplots(figsize=(COLUMN_IN, 2.0))
    for (capacity, rows), marker in zip(curves.groupby("capacity_cores"), "osD^vPX"):
        error_pct = 100 * np.expm1(rows["log_error"])
        axis.plot(rows["minute"] + 1, error_pct, marker=marker, ms=3, lw=1, label=f"{capacity} replicas")
    axis.set(xscale="log", yscale="log", xlabel="minutes learned from, plus one", ylabel="error of predicted p99 (%)")
    axis.set_xticks([1, 10, 100], ["1", "10", "100"])
    axis.set_yticks([20, 50, 100, 200], ["20", "50", "100", "200"])
    axis.minorticks_off()
    axis.legend(frameon=False)
    return figure


def learning_caption(curves: pd.DataFrame) -> str:
    by_minute = curves.groupby("minute")["log_error"].mean()
    first, last = (100 * np.expm1(by_minute.iloc[place]) for place in (0, -1))
    return (
        "Error of the p99 that Cilantro's latency model predicts, by minutes of observation and always on the same "
        f"job-minutes of another trial: from {first:.0f} % without any observation to {last:.0f} % after "
        f"{by_minute.index[-1]} minutes, mean over the capacities. {NONE_PUBLISHED}"
    )
