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
    """Draw the figure for the workloads named in `worlds`.

    All other policies are compared with `leader`.
    """
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
    figure, axes = plt.subplots(
        len(parts),
        1,
        figsize=(PAGE_IN, 0.6 + sum(0.22 * n + 0.45 for n in rows)),
        height_ratios=rows,
        squeeze=False,
    )
    for axis, (name, part) in zip(axes[:, 0], parts.items()):
        policies, capacities = part["policy"].unique(), sorted(part["capacity_cores"].unique())
        for n, capacity in enumerate(capacities):
            at = part[part["capacity_cores"] == capacity].set_index("policy").reindex(policies)
            place = np.arange(len(policies)) + 0.6 * ((n + 0.5) / len(capacities) - 0.5)
            error = (at["difference"] - at["low"]).clip(0), (at["high"] - at["difference"]).clip(0)
            label = SIZES[n] if len(capacities) == len(SIZES) else f"{capacity:g}"
            axis.errorbar(
                at["difference"],
                place,
                xerr=error,
                fmt="os^Dvph"[n % 7],
                ms=3,
                color=CYCLE[n % 7],
                label=label,
            )
        axis.axvline(0, color="black", linewidth=0.6)
        axis.set_xscale("symlog", linthresh=0.1)
        axis.set(
            yticks=range(len(policies)), yticklabels=policies, ylim=(len(policies) - 0.5, -0.5)
        )
        sizes = ", ".join(f"{capacity:g}" for capacity in capacities)
        axis.set_title(f"{name} ({sizes} cores)", loc="left")
    axes[-1, 0].set_xlabel(f"lost utility minus that of {leader}; right of 0, {leader} is better")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    legend_above(
        figure,
        handles,
        [f"{label} cluster" if label in SIZES else f"{label} cores" for label in labels],
    )
    return figure


def others(table: pd.DataFrame, leader: str) -> pd.DataFrame:
    """The rows for all days together, without those of `leader` and of the clairvoyant."""
    return table[(table["day"] == "all") & ~table["policy"].isin([leader, CLAIRVOYANT])]


def finding(tables: Mapping[str, pd.DataFrame], leader: str) -> str:
    """Say how often `leader` loses less utility than another policy.

    Name its worst significant defeat, if any.
    """
    pairs = pd.concat([others(table, leader).assign(world=name) for name, table in tables.items()])
    better, clear = pairs["difference"] > 0, pairs["low"] > 0
    text = (
        f"{leader} loses less utility than the other policy in {better.sum()} of {len(pairs)} "
        f"comparisons; the 95 % interval excludes zero in {clear.sum()}."
    )
    worse = pairs[pairs["high"] < 0].sort_values("difference")
    for row in worse.head(1).itertuples():
        text += (
            f" It loses more in {len(worse)}, most against {row.policy} on {row.world} with "
            f"{row.capacity_cores:g} cores ({-row.difference:.2f})."
        )
    return text
