"""Real requests beside simulated ones: the paper's Table 7, and what every minute was like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from faro_lib.figures.captions import NONE_PUBLISHED
from faro_lib.figures.comparison import MEASURES
from faro_lib.figures.style import PAGE_IN, colour, legend_above
from faro_lib.metrics.agreement import LIVE, SIMULATION, lost_utility_error, pairs, ranking_distance

# Of lines: live, in simulation.
STYLES: tuple[tuple[Literal["-", "--"], str], ...] = (("-", "o"), ("--", "x"))

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def side_by_side(summary: pd.DataFrame, measures=MEASURES) -> Figure:
    """Each measure by policy: a full bar live, a hatched one in simulation; whiskers are standard deviations over trials.

    Parameters
    ----------
    summary : columns environment, policy, trial and the measures.
    """
    from matplotlib import pyplot as plt
    from matplotlib.patches import Patch

    policies = list(dict.fromkeys(summary["policy"]))
    figure, axes = plt.subplots(1, len(measures), figsize=(PAGE_IN, 2.4), squeeze=False)
    for axis, (measure, label) in zip(axes[0], measures.items()):
        grouped = summary.groupby(["environment", "policy"])[measure]
        mean, deviation = grouped.mean(), grouped.std(ddof=1).fillna(0)
        for place, (environment, hatch) in enumerate(((LIVE, None), (SIMULATION, "///"))):
            keys = [(environment, policy) for policy in policies]
            axis.bar(
                np.arange(len(policies)) + 0.4 * place - 0.2, mean.reindex(keys), 0.38, yerr=deviation.reindex(keys),
                color=[colour(policy) for policy in policies], hatch=hatch, edgecolor="black", linewidth=0.3,
                error_kw={"linewidth": 0.8},
            )  # fmt: skip
        axis.set_xticks(np.arange(len(policies)), policies)
        axis.set(ylabel=label, ylim=(0, None))
        axis.locator_params(
            axis="y", nbins=4
        )  # as many as in the layout's first guess of the height, so that labels fit
        axis.grid(axis="x", visible=False)
    handles = [Patch(facecolor="white", edgecolor="black", label=LIVE)]
    handles += [Patch(facecolor="white", edgecolor="black", hatch="///", label=SIMULATION)]
    legend_above(figure, handles, [handle.get_label() for handle in handles], 2)
    return figure


def caption(summary: pd.DataFrame, scale: float, published: float | None = None) -> str:
    """Who lost how much where, how far the two orders of the policies are apart, and what the machine did meanwhile.

    Parameters
    ----------
    scale : trace seconds in a wall second.
    published : the ranking distance of the paper's own simulator and cluster, where it is at hand.
    """
    table, live = pairs(summary), summary[summary["environment"] == LIVE]
    trials = int(live.groupby("policy")["trial"].nunique().min())
    errors = lost_utility_error(summary)
    said = ", ".join(
        f"{row.policy} {getattr(row, LIVE):.2f} ({getattr(row, SIMULATION):.2f})" for row in errors.itertuples()
    )
    decided = table[table["decided"]]
    if len(decided):
        agreed = f"{int(decided['agree'].sum())} of the {len(decided)} pairs that differ by two standard errors in both"
    else:
        agreed = "no pair differs by two standard errors in both, so no ranking is claimed"
    distance = ""
    if len(decided):
        theirs = "" if published is None else f" (the paper's simulator and cluster: {published:.2f})"
        distance = f" Ranking distance (normalised Kendall tau) {ranking_distance(summary):.2f}{theirs}."
    return (
        f"A slice of the day on Ray Serve, {scale:g} times as fast, mean of {trials} trial{'s' if trials > 1 else ''}, "
        f"and the same requests in the simulator. Lost utility live (simulated): {said}; largest difference "
        f"{errors['error'].abs().max():.2f}. Agreement on who has fewer violations: {agreed}.{distance} "
        f"{load_told(live)}{'' if published is not None else ' ' + NONE_PUBLISHED}"
    )


def load_told(live: pd.DataFrame) -> str:
    """What else the machine did, and what became of the requests."""
    lost = int((live["failed"] + live["unsent"]).sum())
    marked = int(live["noisy_host"].astype(bool).sum())
    busy, niced = live["background_cpu"].mean(), live["niced_cpu"].mean()
    runs = f"{marked} of {len(live)} runs are" if marked else "no run is"
    return (
        f"Other processes kept {busy:.1f} processors busy, {niced:.1f} of them at low priority; {runs} marked for it. "
        f"Of {int(live['requests'].sum()):,} requests {lost} were lost."
    )


def minutes(table: pd.DataFrame, policies: list[str] | None = None) -> Figure:
    """Utility lost in every minute, by policy: live and simulated, mean over trials.

    Parameters
    ----------
    table : columns environment, policy, trial, job, minute, utility.
    """
    from matplotlib import pyplot as plt
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    chosen = policies or list(dict.fromkeys(table["policy"]))
    proper = table[table["minute"] < table["minute"].max()]  # the last bin holds what overran the last minute
    lost = (1 - proper["utility"]).groupby([proper[c] for c in ("environment", "policy", "minute", "trial")]).sum()
    lost = lost.groupby(["environment", "policy", "minute"]).mean()
    figure, axes = plt.subplots(1, len(chosen), figsize=(PAGE_IN, 1.9), sharey=True, squeeze=False)
    for axis, policy in zip(axes[0], chosen):
        for environment, (line, marker) in zip((LIVE, SIMULATION), STYLES):
            series = lost[environment, policy]
            axis.plot(series.index, series, line, marker=marker, markersize=3, color=colour(policy))
        axis.set(title=policy, xlabel="minute")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0][0].set(ylabel="lost utility", ylim=(0, None))
    styles = [Line2D([], [], color="black", linestyle=line, marker=marker, markersize=3) for line, marker in STYLES]
    legend_above(figure, styles, [LIVE, SIMULATION], 2)
    return figure


def minutes_caption(table: pd.DataFrame) -> str:
    """How far live and simulated job-minutes are apart."""
    key = ["policy", "trial", "job", "minute"]
    wide = table.pivot_table(index=key, columns="environment", values="utility").dropna()
    apart = (wide[LIVE] - wide[SIMULATION]).abs()
    return (
        f"Utility lost in each minute, live (line) and in simulation (dashed). The utilities of the same job-minute differ by "
        f"{apart.mean():.3f} on average, by less than 0.05 in {(apart < 0.05).mean():.0%} of {len(apart)} job-minutes. "
        f"{NONE_PUBLISHED}"
    )
