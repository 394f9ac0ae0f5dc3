"""The figure of `faro recommend --curve`: SLO violations by capacity."""

from collections.abc import Mapping

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from faro_lib.figures.style import COLOURS, COLUMN_IN, LIMIT
from faro_lib.metrics.measures import share_of_accepted


def capacity_curve(curve: pd.DataFrame, notes: Mapping[int, str], knee: int | None = None) -> Figure:
    """Worst job's violation rate in % of the accepted one, by cores; `notes` are capacities to mark, with their texts."""
    figure, axis = plt.subplots(figsize=(COLUMN_IN, 2.3))
    rate = 100 * share_of_accepted(curve.set_index("capacity_cores"))
    axis.plot(rate.index, rate, color=COLOURS["Faro-Sum"], marker="o", markersize=3)
    axis.axhline(100, color=LIMIT, linestyle="--", linewidth=1.0)
    heights_pt = (22, 9)[-len(notes) :]  # different heights, so that labels of neighbouring capacities do not overlap
    for capacity, above_pt in zip(notes, heights_pt):
        point = (capacity, rate[capacity])
        axis.plot(*point, "D" if capacity == knee else "s", color="black", markersize=5, markerfacecolor="white")
        axis.annotate(
            f"{notes[capacity]}: {capacity}", point, xytext=(5, above_pt), textcoords="offset points",
            bbox={"color": "white", "pad": 0.5},
        )  # fmt: skip
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(xlabel="capacity (cores)", ylabel="violations / accepted, worst job (%)", ylim=(-2, None))
    return figure
