"""Stage 10, the load on the cluster: figure 4b of the paper, and the offered load against capacity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from faro_lib.figures.style import PAGE_IN, Captioned
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.readers import read_jobs
from faro_lib.workload.service import true_service_time


def draw(results: Path, capacities: Sequence[int]) -> Captioned:
    requests = pd.read_parquet(results / "traces" / "requests.parquet")
    jobs = read_jobs(results / "traces" / "jobs.csv")
    load = offered_load(requests, sum(true_service_time(job).mean_s for job in jobs) / len(jobs))
    return {
        "fig04_workload": (workload_by_job(requests), workload_caption(requests)),
        "fig04_load": (load_against_capacity(load, capacities), load_caption(load, capacities)),
    }


def _day(requests: pd.DataFrame, split: str = "eval") -> pd.DataFrame:
    return requests[(requests["split"] == split) & (requests["sample"] == 0)]


def workload_by_job(requests: pd.DataFrame) -> Figure:
    """Figure 4b: requests per minute of each job on the evaluation day, over the middle 80 % of its training days.

    Parameters
    ----------
    requests : columns split (train, eval), sample, day, minute, job, requests.
    """
    day, before = _day(requests), _day(requests, "train")
    jobs = list(dict.fromkeys(day["job"]))
    columns = min(5, len(jobs))
    rows = int(np.ceil(len(jobs) / columns))
    size_in = (PAGE_IN, 0.4 + 1.05 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size_in, sharex=True, sharey=True, squeeze=False)
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


def workload_caption(requests: pd.DataFrame) -> str:
    by_job = _day(requests).pivot(index="minute", columns="job", values="requests")
    swing = by_job.max() / by_job.mean()
    calm, wild = (name.removeprefix("job") for name in (swing.idxmin(), swing.idxmax()))
    return (
        f"The peak of a job is {swing.min():.1f} (job {calm}) to {swing.max():.1f} (job {wild}) times its mean: static shares "
        f"sized for every peak need {by_job.max().sum() / by_job.sum(axis=1).max():.1f} times the capacity that all jobs "
        "together ever use."
    )


def offered_load(requests: pd.DataFrame, service_time_s: float) -> pd.Series:
    """Total offered load (rate x mean service time) in busy replicas, by minute of the evaluation day."""
    return _day(requests).groupby("minute")["requests"].sum() / MINUTE_S * service_time_s


def load_against_capacity(load: pd.Series, capacities: Sequence[int]) -> Figure:
    """The total offered load, and a dotted line per capacity."""
    figure, axis = plt.subplots(figsize=(PAGE_IN, 1.8))
    axis.plot(load.index, load, color="#0072B2")
    for capacity in capacities:
        axis.axhline(capacity, color="black", linestyle=":", linewidth=0.9)
        right_of_axis = axis.get_yaxis_transform()
        axis.text(1.01, capacity, f"{capacity} replicas", transform=right_of_axis, va="center")
    axis.set(xlabel="minute", ylabel="busy replicas", ylim=(0, max(capacities) * 1.12))
    return figure


def load_caption(load: pd.Series, capacities: Sequence[int]) -> str:
    return " ".join(
        f"At {capacity} replicas the load is {load.mean() / capacity:.0%} of capacity on average and "
        f"{load.max() / capacity:.0%} at its peak."
        for capacity in capacities
    )
