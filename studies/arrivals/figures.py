"""The picture of docs/arrivals.md: the dispersion of a log and of processes fitted to it."""

from __future__ import annotations

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from faro_lib.figures.style import CYCLE, PAGE_IN, legend_above
from studies.arrivals.world import BURSTS, GAMMA, WEIBULL


def dispersion_figure(table: pd.DataFrame) -> Figure:
    """The index of dispersion by the length of the window, a panel for each service."""
    services = table["service"].unique()
    figure, axes = plt.subplots(1, len(services), figsize=(PAGE_IN, 2.4), squeeze=False)
    for axis, service in zip(axes[0], services):
        part = table[table["service"] == service]
        log = part[part["process"] == BURSTS]
        axis.plot(log["window_s"], log["log"], "o", color="black", label="log")
        for process, color, dashes in zip((BURSTS, GAMMA, WEIBULL), CYCLE, ("-", "--", "-.")):
            of_process = part[part["process"] == process]
            line = {"color": color, "linestyle": dashes, "label": process}
            axis.plot(of_process["window_s"], of_process["found"], **line)
        axis.set(xscale="log", yscale="log", xlabel="length of the window (s)")
        axis.set_title(service, loc="left")
    axes[0][0].set_ylabel("index of dispersion")
    legend_above(figure, *axes[0][0].get_legend_handles_labels())
    return figure
