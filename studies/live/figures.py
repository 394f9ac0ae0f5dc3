"""Stage 80: live runs and their simulation (table 7 of the paper)."""

from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from faro_lib.figures.style import MEASURES, PAGE_IN, colour
from studies.figures.barcharts import bar_rows
from studies.figures.common import trials_note
from studies.figures.drawing import Drawing, Drawings
from studies.live.agreement import (
    LIVE,
    SIMULATION,
    lost_utility_error,
    pairs,
    published_distance,
    ranking_distance,
)
from studies.tables.frames import read_tables


def draw(results: Path, backend: str, published: str | None = None) -> Drawings:
    summary = read_tables(results / "live" / backend).summary
    policies = list(dict.fromkeys(summary["policy"]))
    caption = live_caption(summary, published_distance(published, policies))
    title = "Live runs on Ray Serve and their simulation"
    figure = live_and_simulated(summary)
    return {"live": Drawing(figure, title, caption, recorded=backend == "recorded")}


def live_and_simulated(summary: pd.DataFrame) -> Figure:
    """One panel per measure, with a plain bar (live) and a hatched bar (simulated) per policy."""
    policies = list(dict.fromkeys(summary["policy"]))
    rows, colours = [], []
    for policy in policies:
        rows += [f"{policy}, {LIVE}", f"{policy}, {SIMULATION}"]
        colours += [colour(policy)] * 2
    hatches = [None, "///"] * len(policies)
    size_in = (PAGE_IN, 0.5 + 0.17 * len(rows))
    figure, axes = plt.subplots(1, len(MEASURES), figsize=size_in, sharey=True)
    for axis, (measure, label) in zip(axes, MEASURES.items()):
        values = summary[measure].set_axis(summary["policy"] + ", " + summary["environment"])
        bar_rows(axis, values, rows, colours, hatches=hatches, number_format="{:.3f}")
        axis.set_xlabel(label)
    return figure


def live_caption(summary: pd.DataFrame, published: float | None = None) -> str:
    """Caption on the agreement of live and simulated runs.

    `published` is the result of `published_distance`.
    """
    live = summary[summary["environment"] == LIVE]
    errors = lost_utility_error(summary)
    worst = errors.loc[errors["error"].abs().idxmax()]
    decided = pairs(summary).query("decided")
    agreed = "no pair differs by two standard errors in both, so no ranking is claimed"
    ranking = ""
    if len(decided):
        agreed = (
            f"{int(decided['agree'].sum())} of the {len(decided)} pairs that differ by two "
            "standard errors in both"
        )
        paper = ""
        if published is not None:
            paper = f" (the paper's simulator and cluster: {published:.2f})"
        distance = ranking_distance(summary)
        ranking = f" Ranking distance (normalised Kendall tau): {distance:.2f}{paper}."
    return (
        "The simulated lost utility differs from the live one by at most "
        f"{abs(worst['error']):.2f} ({worst['policy']}: {worst[LIVE]:.2f} live, "
        f"{worst[SIMULATION]:.2f} simulated). Agreement on the policy with fewer violations: "
        f"{agreed}.{ranking} A slice of the day, {summary['scale'].iloc[0]:g} times as fast. "
        f"{trials_note(live, ['policy'])} {machine_note(live)}"
    )


def machine_note(live: pd.DataFrame) -> str:
    """Sentences on the background load of the machine and on lost requests."""
    noisy = int(live["noisy_host"].astype(bool).sum())
    return (
        f"Other processes used {live['background_cpu'].mean():.1f} processors, "
        f"{live['niced_cpu'].mean():.1f} of them at low priority; {noisy} of {len(live)} runs are "
        f"marked as disturbed. Of {int(live['requests'].sum()):,} requests, "
        f"{int((live['failed'] + live['unsent']).sum())} were lost."
    )
