"""Stage 20: relaxed latency (figure 6 of the paper), and half of the M/M/c wait for M/D/c."""

from pathlib import Path

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from faro_lib.figures.style import COLUMN_IN, PAGE_IN
from studies.figures.common import legend_out_of_the_panel
from studies.figures.drawing import Drawing, Drawings


def draw(results: Path) -> Drawings:
    names = ("half_against_exact", "relaxed_latency", "drop_penalty")
    ratios, latencies, penalties = (
        pd.read_csv(results / "queueing" / f"{name}.csv") for name in names
    )
    return {
        "half_wait": Drawing(
            half_against_exact(ratios),
            "The half-wait approximation and exact M/D/c",
            half_caption(ratios),
        ),
        "relaxations": Drawing(
            relaxations(latencies, penalties),
            "Relaxed latency and drop penalty",
            relaxations_caption(latencies),
        ),
    }


def half_against_exact(ratios: pd.DataFrame) -> Figure:
    """Plot `ratio` (half-wait latency / exact M/D/c latency) over `rho`, a line per `servers`."""
    figure, axis = plt.subplots(figsize=(COLUMN_IN, 2.5))
    names = {n: "1 replica" if n == 1 else f"{n} replicas" for n in ratios["servers"].unique()}
    ratios = ratios.assign(servers=ratios["servers"].map(names))
    lines = {"hue": "servers", "style": "servers", "palette": "viridis"}
    sns.lineplot(ratios, x="rho", y="ratio", ax=axis, **lines)
    axis.axhline(1.0, color="black", linewidth=0.6)
    axis.set(xlabel="utilisation", ylabel="half M/M/c over exact M/D/c")
    legend_out_of_the_panel(figure, axis, columns=3)
    return figure


def half_caption(ratios: pd.DataFrame) -> str:
    busy = ratios[ratios["rho"] >= 0.5]
    low, high = busy.loc[busy["ratio"].idxmin()], busy.loc[busy["ratio"].idxmax()]
    return (
        "Above a utilisation of 0.5, the half-wait tail latency differs from exact M/D/c by "
        f"{low['ratio'] - 1:+.1%} (replicas: {low['servers']:.0f}, utilisation {low['rho']:.2f}) "
        f"to {high['ratio'] - 1:+.1%} (replicas: {high['servers']:.0f}, utilisation "
        f"{high['rho']:.2f})."
    )


def relaxations(latencies: pd.DataFrame, penalties: pd.DataFrame) -> Figure:
    """Figure 6: latency (left) and drop penalty (right), each precise and relaxed.

    `latencies` has columns rho, latency_over_service, kind; `penalties` has drop, penalty, kind.
    """
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
    at, beyond = relaxed.iloc[relaxed.index.get_indexer([0.95, 1.5], "nearest")]
    return (
        "The relaxed latency of four replicas grows linearly beyond a utilisation of 0.95, from "
        f"{at:.1f} service times to {beyond:.1f} at 1.5, where the precise latency is infinite."
    )
