"""Stage 20, latency formulas: figure 6 of the paper, and half of M/M/c against exact M/D/c."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from faro_lib.figures.style import COLUMN_IN, PAGE_IN, Captioned


def draw(results: Path) -> Captioned:
    names = ("half_against_exact", "relaxed_latency", "drop_penalty")
    ratios, latencies, penalties = (pd.read_csv(results / "queueing" / f"{name}.csv") for name in names)
    return {
        "fig20_half_against_exact": (half_against_exact(ratios), half_caption(ratios)),
        "fig06_relaxations": (relaxations(latencies, penalties), relaxations_caption(latencies)),
    }


def half_against_exact(ratios: pd.DataFrame) -> Figure:
    """Latency by half of M/M/c over exact M/D/c. Columns rho, servers, ratio."""
    figure, axis = plt.subplots(figsize=(COLUMN_IN, 2.2))
    ratios = ratios.assign(servers=ratios["servers"].astype(str))
    sns.lineplot(ratios, x="rho", y="ratio", hue="servers", style="servers", palette="viridis", ax=axis)
    axis.axhline(1.0, color="black", linewidth=0.6)
    axis.set(xlabel="utilisation", ylabel="half M/M/c over exact M/D/c")
    axis.legend(title="replicas", ncols=2)
    return figure


def half_caption(ratios: pd.DataFrame) -> str:
    busy = ratios[ratios["rho"] >= 0.5]
    low, high = busy.loc[busy["ratio"].idxmin()], busy.loc[busy["ratio"].idxmax()]
    return (
        f"From a utilisation of 0.5 on, half of M/M/c is between {low['ratio'] - 1:+.1%} (at {low['servers']:.0f} replicas, "
        f"utilisation {low['rho']:.2f}) and {high['ratio'] - 1:+.1%} (at {high['servers']:.0f}, {high['rho']:.2f}) of exact "
        "M/D/c."
    )


def relaxations(latencies: pd.DataFrame, penalties: pd.DataFrame) -> Figure:
    """Figure 6: precise and relaxed. Columns rho, latency_over_service, kind; and drop, penalty, kind."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE_IN, 2.1))
    sns.lineplot(latencies, x="rho", y="latency_over_service", hue="kind", style="kind", ax=left)
    left.set(xlabel="utilisation", ylabel="latency / service time")
    sns.lineplot(penalties, x="drop", y="penalty", hue="kind", style="kind", ax=right)
    right.set(xlabel="dropped fraction", ylabel="penalty factor", xlim=(0, 0.3))
    for axis in (left, right):
        axis.legend(title=None)
    return figure


def relaxations_caption(latencies: pd.DataFrame) -> str:
    relaxed = latencies[latencies["kind"] == "relaxed"].set_index("rho")["latency_over_service"]
    at, beyond = (relaxed.iloc[relaxed.index.get_indexer([rho], "nearest")[0]] for rho in (0.95, 1.5))
    return (
        f"At a utilisation of 0.95 four replicas answer within {at:.1f} service times; at 1.5, where the queue grows without "
        f"bound, the relaxed latency is {beyond:.1f}."
    )
