"""The figures of `faro recommend --curve` (SLO violations by capacity) and of `faro audit`."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from faro_lib.figures.style import (
    COLOURS,
    COLUMN_IN,
    CYCLE,
    LIMIT,
    MEASURES,
    PAGE_IN,
    colour,
    legend_above,
)
from faro_ops.advise.audit.audit import Audit
from faro_ops.advise.recommend.sizing import share_of_accepted

COLUMNS = 2  # service panels per row
ROW_IN = 1.5  # height of a row in inches


def capacity_curve(curve: pd.DataFrame, marks: Mapping[int, str]) -> Figure:
    """Plot the worst job's violation rate by capacity, in % of its accepted rate.

    `marks` maps capacity to label.
    """
    figure, axis = plt.subplots(figsize=(COLUMN_IN, 2.3))
    rate = 100 * share_of_accepted(curve.set_index("capacity_cores"))
    axis.plot(rate.index, rate, color=COLOURS["Faro-Sum"], marker="o", markersize=3)
    axis.axhline(100, color=LIMIT, linestyle="--", linewidth=1.0)
    for capacity, text in marks.items():
        point = (capacity, rate[capacity])
        axis.plot(*point, "s", color="black", markersize=5, markerfacecolor="white")
        label = f"{text}: {capacity}"
        box = {"color": "white", "pad": 0.5}
        axis.annotate(label, point, xytext=(5, 9), textcoords="offset points", bbox=box)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(xlabel="capacity (cores)", ylabel="violations / accepted, worst job (%)")
    axis.set_ylim(-2, None)
    return figure


def pictures(audit: Audit) -> Figure:
    """Draw each service's latencies and, if policies were compared, lost utility and cores."""
    rows = math.ceil(len(audit.services) / COLUMNS)
    heights = [1.0] * rows
    height_in = ROW_IN * rows
    if audit.policies:
        heights.append(1.4)
        height_in += 2.2
    figure = plt.figure(figsize=(PAGE_IN, height_in))
    grid = figure.add_gridspec(len(heights), COLUMNS, height_ratios=heights)
    for n in range(len(audit.services)):
        axis = figure.add_subplot(grid[n // COLUMNS, n % COLUMNS])
        _draw_latencies(axis, audit, n)
        if n == 0:
            legend_above(figure, *axis.get_legend_handles_labels(), columns=3)
    if audit.policies:
        _draw_lost_utility(figure.add_subplot(grid[rows, 0]), audit)
        _draw_cores(figure.add_subplot(grid[rows, 1]), audit)
    return figure


def _draw_latencies(axis: Axes, audit: Audit, n: int) -> None:
    """The recorded latencies of service n, and the 90 % band of simulated ones."""
    service = audit.services[n]
    tail_s = audit.serving.tail_s[n, audit.minutes]  # (minutes,)
    minute = audit.minutes.start + np.arange(len(tail_s))
    low_s, _, high_s = service.predicted_tail_s.T
    axis.fill_between(
        minute, low_s, high_s, color=CYCLE[0], alpha=0.3, linewidth=0, label="simulated, 90 %"
    )
    axis.plot(minute, tail_s, color="black", linewidth=0.6, label="recorded")
    axis.axhline(service.job.slo_s, color=LIMIT, linestyle="--", linewidth=0.8, label="SLO")
    axis.set(
        yscale="log",
        title=f"{service.job.name}: {'no advice' if service.refusal else 'reproduced'}",
        ylabel=f"p{100 * service.job.quantile:g} (s)",
    )
    axis.tick_params(which="minor", labelleft=False)
    _label_minutes(axis, audit, minute[0], minute[-1])


def _draw_lost_utility(axis: Axes, audit: Audit) -> None:
    """A bar for each policy, with the 90 % interval of its lost utility."""
    names = list(audit.policies)
    intervals = np.array([audit.policies[name]["lost_utility"] for name in names])
    low, middle, high = intervals.T
    axis.barh(
        names,
        middle,
        xerr=np.abs([middle - np.maximum(low, 0), high - middle]),
        color=[colour(name) for name in names],
        error_kw={"lw": 0.8},
        edgecolor="black",
        linewidth=0.3,
    )
    axis.invert_yaxis()
    axis.set(xlabel=f"{MEASURES['lost_utility']} (90 % interval)", xlim=(0, None))
    for name, value, end in zip(names, middle, high):
        axis.annotate(
            f"{value:.2g}", (end, name), xytext=(3, 0), textcoords="offset points", va="center"
        )


def _draw_cores(axis: Axes, audit: Audit) -> None:
    """The cores that the reproduced services used and needed in each minute of the day."""
    minute = np.arange(len(audit.used))
    axis.plot(minute, audit.used, color="black", label="used")
    axis.plot(minute, audit.required, color=CYCLE[0], label="needed")
    _label_minutes(axis, audit, 0, len(minute))
    axis.set(ylabel="cores", ylim=(0, 1.3 * max(audit.used.max(), audit.required.max())))
    axis.legend(frameon=False, ncols=2, loc="upper left")


def _label_minutes(axis: Axes, audit: Audit, first: int, last: int) -> None:
    """Label the x axis with times of day, or with minutes if the records have no times of day."""
    history = audit.serving.history
    at = np.linspace(first, last, 5).astype(int).tolist()
    axis.set_xticks(at, [history.clock(minute).removeprefix("minute ") for minute in at])
    if history.end_minute is None:
        axis.set_xlabel("minute")
