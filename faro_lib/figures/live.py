"""Stage 80, real requests next to simulated ones: table 7 of the paper, and the same minute by minute."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from faro_lib.figures.style import EDGE, MEASURES, NONE_PUBLISHED, PAGE_IN, Captioned, colour, legend_above, trials_note
from faro_lib.metrics.agreement import (
    LIVE,
    SIMULATION,
    lost_utility_error,
    pairs,
    published_distance,
    ranking_distance,
)
from faro_lib.metrics.frames import read_tables

HATCHES = {LIVE: None, SIMULATION: "///"}
LINES: dict[str, tuple[Literal["-", "--"], str]] = {LIVE: ("-", "o"), SIMULATION: ("--", "x")}


def draw(results: Path, backend: str, published: str | None = None) -> Captioned:
    tables = read_tables(results / "live" / backend)
    return {
        "fig80_live": (side_by_side(tables.summary), live_caption(tables.summary, distance(tables.summary, published))),
        "fig80_live_minutes": (lost_by_minute(tables.minutes), minutes_caption(tables.minutes)),
    }


def distance(summary: pd.DataFrame, published: str | None) -> float | None:
    """Ranking distance between the paper's simulator and cluster for these policies, if there are more than two."""
    policies = list(dict.fromkeys(summary["policy"]))
    if published is None or len(policies) < 3:
        return None
    return published_distance(pd.read_csv(Path(published) / "published_main.csv"), policies)


def side_by_side(summary: pd.DataFrame) -> Figure:
    """Each measure by policy: a plain bar live, a hatched one in simulation; whiskers are standard deviations over trials.

    Parameters
    ----------
    summary : columns environment, policy, trial and MEASURES.
    """
    policies = list(dict.fromkeys(summary["policy"]))
    figure, axes = plt.subplots(1, len(MEASURES), figsize=(PAGE_IN, 2.4), squeeze=False)
    for axis, (measure, label) in zip(axes[0], MEASURES.items()):
        grouped = summary.groupby(["environment", "policy"])[measure]
        mean, deviation = grouped.mean(), grouped.std(ddof=1).fillna(0)
        for offset, (environment, hatch) in zip((-0.2, 0.2), HATCHES.items()):
            keys = [(environment, policy) for policy in policies]
            axis.bar(
                np.arange(len(policies)) + offset, mean.reindex(keys), 0.38, yerr=deviation.reindex(keys),
                color=[colour(policy) for policy in policies], hatch=hatch, error_kw={"linewidth": 0.8}, **EDGE,
            )  # fmt: skip
        axis.set_xticks(np.arange(len(policies)), policies)
        axis.set(ylabel=label, ylim=(0, None))
        axis.locator_params(axis="y", nbins=4)  # as in the first guess of the height by the layout, so that labels fit
        axis.grid(axis="x", visible=False)
    handles = [Patch(facecolor="white", edgecolor="black", hatch=hatch) for hatch in HATCHES.values()]
    legend_above(figure, handles, list(HATCHES), 2)
    return figure


def live_caption(summary: pd.DataFrame, published: float | None = None) -> str:
    """Lost utility live and simulated, the distance of the two rankings, and the load of the machine.

    Parameters
    ----------
    published : the ranking distance between the paper's simulator and cluster.
    """
    live, errors = summary[summary["environment"] == LIVE], lost_utility_error(summary)
    losses = ", ".join(
        f"{row.policy} {getattr(row, LIVE):.2f} ({getattr(row, SIMULATION):.2f})" for row in errors.itertuples()
    )
    decided = pairs(summary).query("decided")
    agreed, ranking = "no pair differs by two standard errors in both, so no ranking is claimed", ""
    if len(decided):
        agreed = f"{int(decided['agree'].sum())} of the {len(decided)} pairs that differ by two standard errors in both"
        paper = "" if published is None else f" (the paper's simulator and cluster: {published:.2f})"
        ranking = f" Ranking distance (normalised Kendall tau) {ranking_distance(summary):.2f}{paper}."
    return (
        f"A slice of the day on Ray Serve, {summary['scale'].iloc[0]:g} times as fast, {trials_note(live, ['policy'])}, and "
        f"the same requests in the simulator. Lost utility live (simulated): {losses}; largest difference "
        f"{errors['error'].abs().max():.2f}. Agreement on which policy has fewer violations: {agreed}.{ranking} "
        f"{machine_note(live)}{'' if published is not None else ' ' + NONE_PUBLISHED}"
    )


def machine_note(live: pd.DataFrame) -> str:
    """Background load of the machine, and requests without an answer."""
    noisy = int(live["noisy_host"].astype(bool).sum())
    runs = f"{noisy} of {len(live)} runs are" if noisy else "no run is"
    return (
        f"Other processes kept {live['background_cpu'].mean():.1f} processors busy, {live['niced_cpu'].mean():.1f} of them at "
        f"low priority; {runs} marked for it. Of {int(live['requests'].sum()):,} requests "
        f"{int((live['failed'] + live['unsent']).sum())} were lost."
    )


def lost_by_minute(minutes: pd.DataFrame) -> Figure:
    """Utility lost in every minute, by policy: live and simulated, mean over trials.

    Parameters
    ----------
    minutes : columns environment, policy, trial, job, minute, utility.
    """
    policies = list(dict.fromkeys(minutes["policy"]))
    inside = minutes[minutes["minute"] < minutes["minute"].max()]  # the last bin holds what overran the last minute
    lost = (1 - inside["utility"]).groupby([inside[c] for c in ("environment", "policy", "minute", "trial")]).sum()
    lost = lost.groupby(["environment", "policy", "minute"]).mean()
    figure, axes = plt.subplots(1, len(policies), figsize=(PAGE_IN, 1.9), sharey=True, squeeze=False)
    for axis, policy in zip(axes[0], policies):
        for environment, (line, marker) in LINES.items():
            axis.plot(lost[environment, policy], line, marker=marker, markersize=3, color=colour(policy))
        axis.set(title=policy, xlabel="minute")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0][0].set(ylabel="lost utility", ylim=(0, None))
    handles = [Line2D([], [], color="black", ls=line, marker=marker, ms=3) for line, marker in LINES.values()]
    legend_above(figure, handles, list(LINES), 2)
    return figure


def minutes_caption(minutes: pd.DataFrame) -> str:
    """The difference between live and simulated job-minutes."""
    key = ["policy", "trial", "job", "minute"]
    wide = minutes.pivot_table(index=key, columns="environment", values="utility").dropna()
    error = (wide[LIVE] - wide[SIMULATION]).abs()
    return (
        "Utility lost in each minute, live (line) and in simulation (dashed). The utilities of the same job-minute differ by "
        f"{error.mean():.3f} on average, by less than 0.05 in {(error < 0.05).mean():.0%} of {len(error)} job-minutes. "
        f"{NONE_PUBLISHED}"
    )
