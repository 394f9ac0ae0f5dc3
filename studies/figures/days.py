"""Stage 75: paired differences of the lost utility on several days and workloads."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from faro_lib.figures.style import CYCLE, PAGE_IN, Drawing, Drawings, legend_above
from studies.days import CLAIRVOYANT

SIZES = ("smallest", "middle", "largest")  # labels of three capacities


def draw(results: Path, worlds: Sequence[str], leader: str) -> Drawings:
    """Draw the figure for the workloads named in `worlds`, with policies compared to `leader`."""
    tables = {
        name: pd.read_csv(results / "days" / name / "paired.csv", dtype={"day": str})
        for name in worlds
    }
    title = f"Lost utility of other policies minus that of {leader}"
    return {"days_and_workloads": Drawing(forest(tables, leader), title, finding(tables, leader))}


def forest(tables: Mapping[str, pd.DataFrame], leader: str) -> Figure:
    """Plot mean differences from `leader` over all days.

    `tables` maps a workload to its table of `days.paired`.
    """
    parts = {name: others(table, leader) for name, table in tables.items()}
    rows = [part["policy"].nunique() for part in parts.values()]
    size_in = (PAGE_IN, 0.6 + sum(0.22 * n + 0.45 for n in rows))
    figure, axes = plt.subplots(len(parts), 1, figsize=size_in, height_ratios=rows, squeeze=False)
    for axis, (name, part) in zip(axes[:, 0], parts.items()):
        policies = part["policy"].unique()
        capacities = sorted(part["capacity_cores"].unique())
        for n, capacity in enumerate(capacities):
            at = part[part["capacity_cores"] == capacity].set_index("policy").reindex(policies)
            place = np.arange(len(policies)) + 0.6 * ((n + 0.5) / len(capacities) - 0.5)
            below = (at["difference"] - at["low"]).clip(0)
            above = (at["high"] - at["difference"]).clip(0)
            label = SIZES[n] if len(capacities) == len(SIZES) else f"{capacity:g}"
            dots = {"fmt": "os^Dvph"[n % 7], "ms": 3, "color": CYCLE[n % 7], "label": label}
            axis.errorbar(at["difference"], place, xerr=(below, above), **dots)
        axis.axvline(0, color="black", linewidth=0.6)
        axis.set_xscale("symlog", linthresh=0.1)
        axis.set_yticks(range(len(policies)), policies)
        axis.set_ylim(len(policies) - 0.5, -0.5)
        sizes = ", ".join(f"{capacity:g}" for capacity in capacities)
        axis.set_title(f"{name} ({sizes} cores)", loc="left")
    axes[-1, 0].set_xlabel(f"lost utility minus that of {leader}; right of 0, {leader} is better")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    labels = [f"{label} cluster" if label in SIZES else f"{label} cores" for label in labels]
    legend_above(figure, handles, labels)
    return figure


def others(table: pd.DataFrame, leader: str) -> pd.DataFrame:
    """The rows for all days together, without those of `leader` and of the clairvoyant."""
    return table[(table["day"] == "all") & ~table["policy"].isin([leader, CLAIRVOYANT])]


def finding(tables: Mapping[str, pd.DataFrame], leader: str) -> str:
    """State how often `leader` loses less than another policy, and its worst significant defeat."""
    pairs = pd.concat([others(table, leader).assign(world=name) for name, table in tables.items()])
    better = pairs["difference"] > 0
    clear = pairs["low"] > 0
    text = (
        f"{leader} loses less utility than the other policy in {better.sum()} of {len(pairs)} "
        f"comparisons; the 95 % interval excludes zero in {clear.sum()}."
    )
    worse = pairs[pairs["high"] < 0].sort_values("difference")
    if len(worse):
        worst = worse.iloc[0]
        text += (
            f" It loses more in {len(worse)}, most against {worst['policy']} on {worst['world']} "
            f"with {worst['capacity_cores']:g} cores ({-worst['difference']:.2f})."
        )
    return text
