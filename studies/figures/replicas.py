"""Stage 85: lost utility by policy on a mix of serial, batched and token-generating replicas."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from faro_lib.figures.style import CYCLE, PAGE_IN, legend_above
from studies.figures.drawing import Drawing, Drawings
from studies.replicas import ASSUMED, LEADER, SERVICES


def draw(results: Path) -> Drawings:
    """The stage's figure."""
    table = pd.read_csv(results / "replicas" / "paired.csv")
    title = (
        "Lost utility on a mix of replicas that serve one request at a time, in batches, or token "
        "by token"
    )
    return {"kinds_of_replica": Drawing(lost_by_service(table), title, finding(table))}


def lost_by_service(table: pd.DataFrame) -> Figure:
    """Plot lost utility by policy and service, one panel per capacity.

    `table` is from `studies.replicas.paired`.
    """
    capacities = table["capacity_cores"].unique()
    panels: dict[str, Any] = {
        "figsize": (PAGE_IN, 2.2),
        "sharex": True,
        "sharey": True,
        "squeeze": False,
    }
    figure, axes = plt.subplots(1, len(capacities), **panels)
    services = [name for name in SERVICES if f"lost_{name}" in table]
    for axis, capacity in zip(axes[0], capacities):
        part = table[table["capacity_cores"] == capacity]
        left = np.zeros(len(part))
        for name, color in zip(services, CYCLE):
            lost = part[f"lost_{name}"].to_numpy()
            axis.barh(part["policy"], lost, left=left, color=color, label=name, height=0.7)
            left += lost
        axis.set_title(f"{capacity:g} cores", loc="left")
        axis.set_xlabel("lost cluster utility")
    axes[0][0].invert_yaxis()
    legend_above(figure, *axes[0][0].get_legend_handles_labels())
    return figure


def finding(table: pd.DataFrame) -> str:
    """Compare the loss of LEADER with that of ASSUMED and of the best other policy."""
    sentences = []
    for capacity, part in table.groupby("capacity_cores", sort=False):
        rows = part.set_index("policy")
        assumed = rows.loc[ASSUMED]
        others = rows.drop(index=[ASSUMED, LEADER])
        best = others.loc[others["lost_utility"].idxmin()]
        sentences.append(
            f"With {capacity:g} cores, {LEADER} loses {rows.loc[LEADER, 'lost_utility']:.2f} with "
            f"the true kinds of replica, {assumed['lost_utility']:.2f} if it assumes serial ones "
            f"(difference {_interval(assumed)}), and the best of the others, {best.name}, loses "
            f"{best['lost_utility']:.2f} ({_interval(best)})."
        )
    return " ".join(sentences)


def _interval(row: pd.Series) -> str:
    half = f" ± {row['half']:.2f}" if np.isfinite(row["half"]) else ""
    return f"{row['difference']:.2f}{half}"
