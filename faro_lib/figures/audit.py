"""The pictures of `faro audit`: recorded and simulated latencies, policies, and spare cores by hour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from faro_lib.figures.style import CYCLE, LIMIT, MEASURES, PAGE_IN, colour

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 2
ROW_IN = 1.5


def pictures(audit: Any) -> Figure:
    """A panel per service with recorded latencies on the band of the backcast; below, the policies and the hours.

    `audit` is a `recommend.audit.Audit`.
    """
    from matplotlib import pyplot as plt

    rows = -(-len(audit.services) // COLUMNS)
    figure = plt.figure(figsize=(PAGE_IN, ROW_IN * rows + (2.2 if audit.policies else 0)))
    grid = figure.add_gridspec(
        rows + bool(audit.policies), COLUMNS, height_ratios=[1] * rows + [1.4] * bool(audit.policies)
    )
    for n, one in enumerate(audit.services):
        axis, tail_s = figure.add_subplot(grid[n // COLUMNS, n % COLUMNS]), audit.records.tail_s[n, audit.minutes]
        minute = audit.minutes.start + np.arange(len(tail_s))
        low, middle, high = one.predicted_tail_s.T
        axis.fill_between(minute, low, high, color=CYCLE[0], alpha=0.3, linewidth=0, label="simulated, 90 %")
        axis.plot(minute, tail_s, color="black", linewidth=0.6, label="recorded")
        axis.axhline(one.job.slo_s, color=LIMIT, linestyle="--", linewidth=0.8, label="SLO")
        title = f"{one.job.name}: {'no advice' if one.refusal else 'reproduced'}"
        axis.set(yscale="log", title=title, xlabel="minute", ylabel=f"p{100 * one.job.quantile:g} (s)")
        if n == 0:
            axis.legend(ncols=3, fontsize=8, loc="upper left", frameon=False)
    if audit.policies:
        axis = figure.add_subplot(grid[rows, 0])
        names = list(audit.policies)
        low, middle, high = np.array([audit.policies[name]["lost_utility"] for name in names]).T
        low = np.maximum(low, 0)
        errors = np.abs([middle - low, high - middle])
        axis.barh(
            names,
            middle,
            xerr=errors,
            color=[colour(name) for name in names],
            error_kw={"lw": 0.8},
            edgecolor="black",
            linewidth=0.3,
        )
        axis.invert_yaxis()
        axis.set(xlabel=f"{MEASURES['lost_utility']} (90 % interval)", xlim=(0, None))
        axis = figure.add_subplot(grid[rows, 1])
        hours = audit.hours()
        at = np.arange(len(hours))
        axis.step(at, [row["used"] for row in hours], where="mid", color="black", label="occupied")
        axis.step(at, [row["required"] for row in hours], where="mid", color=CYCLE[0], label="needed at the peak")
        every = max(1, len(at) // 6)
        axis.set_xticks(at[::every], [row["from"] for row in hours][::every])
        axis.set(xlabel="hour", ylabel="cores", ylim=(0, None))
        axis.legend(frameon=False, fontsize=8)
    return figure
