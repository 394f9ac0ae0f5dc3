"""Stage 75: paired differences of the lost utility on several days and workloads."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from faro_lib.figures.style import CYCLE, PAGE_IN, legend_above
from studies.days.run import CLAIRVOYANT, tally
from studies.figures.drawing import Drawing, Drawings

SIZES = ("smallest", "middle", "largest")  # labels of three capacities
CLEAR = "A difference is clear if its 95 % interval excludes zero."


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
    """Count how often `leader` loses less, as much and more than rivals and than variants of Faro.

    Names the comparison in which another policy's lead over `leader` is largest and clear.
    """
    pairs = pd.concat([others(table, leader).assign(world=name) for name, table in tables.items()])
    variant = pairs["policy"].str.startswith("Faro")
    groups = {
        "policies that are not variants of Faro": pairs[~variant],
        "other variants of Faro": pairs[variant],
    }
    sentences = [
        f"Against {group}, {leader} {of_group}."
        for group, part in groups.items()
        if (of_group := count_sentence(part))
    ]
    worse = pairs[pairs["high"] < 0].sort_values("difference")
    if len(worse):
        worst = worse.iloc[0]
        sentences.append(
            f"The clearest defeat is by {worst['policy']} on {worst['world']} with "
            f"{worst['capacity_cores']:g} cores ({-worst['difference']:.2f})."
        )
    return " ".join([*sentences, CLEAR])


def count_sentence(pairs: pd.DataFrame) -> str:
    """The predicate of a sentence with all counts of `tally`; empty without comparisons."""
    if pairs.empty:
        return ""
    counts = tally(pairs)
    return (
        f"loses less utility in {counts.less} of {len(pairs)} comparisons ({counts.clearly_less} "
        f"clear), as much in {counts.equal}, and more in {counts.more} ({counts.clearly_more} "
        "clear)"
    )
