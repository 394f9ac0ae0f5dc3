"""What is asked of the cluster: the workload half of figure 4."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from faro_lib.figures.style import PAGE_IN

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def workload_by_job(requests: pd.DataFrame) -> Figure:
    """Figure 4 (workload): requests per minute of each job over the evaluation day, over the band of its training days.

    Parameters
    ----------
    requests : columns split (train, eval), sample, day, minute, job, requests.
    """
    import matplotlib.pyplot as plt

    day = requests[(requests["split"] == "eval") & (requests["sample"] == 0)]
    before = requests[(requests["split"] == "train") & (requests["sample"] == 0)]
    jobs = list(dict.fromkeys(day["job"]))
    columns = min(5, len(jobs))
    rows = int(np.ceil(len(jobs) / columns))
    figure, axes = plt.subplots(
        rows, columns, figsize=(PAGE_IN, 0.4 + 1.05 * rows), sharex=True, sharey=True, squeeze=False
    )
    for axis, job in zip(axes.flat, jobs):
        if len(before):
            band = before[before["job"] == job].groupby("minute")["requests"].quantile([0.1, 0.9]).unstack()
            axis.fill_between(band.index, band[0.1], band[0.9], color="#56B4E9", alpha=0.4, linewidth=0)
        line = day[day["job"] == job]
        axis.plot(line["minute"], line["requests"], color="#0072B2", linewidth=0.7)
        axis.set_title(str(job), pad=2)
    for axis in axes.flat[len(jobs) :]:
        axis.set_visible(False)
    figure.supxlabel("minute", fontsize=8)
    figure.supylabel("requests per minute", fontsize=8)
    return figure


def offered_load(requests: pd.DataFrame, service_time_s: float, sizes: list[int]) -> Figure:
    """The jobs' total offered load (rate x mean service time, in busy replicas) against the cluster sizes."""
    import matplotlib.pyplot as plt

    day = requests[(requests["split"] == "eval") & (requests["sample"] == 0)]
    load = day.groupby("minute")["requests"].sum() / 60 * service_time_s
    figure, axis = plt.subplots(figsize=(PAGE_IN, 1.8))
    axis.plot(load.index, load, color="#0072B2")
    for size in sizes:
        axis.axhline(size, color="black", linestyle=":", linewidth=0.9)
        beside = axis.get_yaxis_transform()  # right of the axes, at the line's height
        axis.text(1.01, size, f"{size} replicas", transform=beside, va="center")
    axis.set(xlabel="minute", ylabel="busy replicas", ylim=(0, max(sizes) * 1.12))
    return figure
