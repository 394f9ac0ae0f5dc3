"""The figure of `faro profile`: latency by arrival rate, as measured and as fitted."""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from faro_lib.figures.style import COLUMN_IN, CYCLE, PAGE_IN, legend_above, use_style
from faro_ops.advise.calibrate import LATENCY, Calibration, Measurements


def latency_by_rate(measurements: Measurements, calibration: Calibration) -> Figure:
    """Plot latency quantiles by rate per replica, measured and fitted (with 90 % bands).

    There is one panel per replica count.
    """
    use_style()
    counts = np.unique(measurements.replicas)
    width = COLUMN_IN if len(counts) == 1 else PAGE_IN
    figure, axes = plt.subplots(1, len(counts), figsize=(width, 2.6), sharey=True, squeeze=False)
    quantiles = [
        (n, level) for n, (of, level) in enumerate(measurements.columns) if of == LATENCY and level
    ]
    for axis, count in zip(axes[0], counts):
        rows = np.flatnonzero(measurements.replicas == count)
        rows = rows[np.argsort(measurements.rate_rps[rows])]
        rate = measurements.rate_rps[rows] / count
        for (column, level), colour, marker in zip(quantiles, CYCLE, "osD^v"):
            low, middle, high = calibration.predicted[rows, column].T
            axis.fill_between(rate, low, high, color=colour, alpha=0.25, linewidth=0)
            axis.plot(rate, middle, color=colour, label=f"p{100 * level:g}, fitted")
            measured = measurements.values[rows, column]
            label = f"p{100 * level:g}, measured"
            axis.plot(rate, measured, marker, color=colour, markersize=3.5, label=label)
        title = f"{count} replica{'s' if count > 1 else ''}"
        axis.set(xlabel="requests/s per replica", yscale="log", title=title)
    first = axes[0, 0]
    first.set(ylabel="latency (s)")
    ticks = LogLocator(subs=(1, 2, 3, 5))
    first.yaxis.set(major_locator=ticks, major_formatter="{x:g}", minor_formatter=NullFormatter())
    handles, labels = first.get_legend_handles_labels()
    legend_above(figure, handles, labels, columns=4)
    return figure
