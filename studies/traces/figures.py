"""Stage 10: requests of each job (figure 4b of the paper), and offered load against capacity."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from faro_lib.figures.style import PAGE_IN
from faro_lib.workload import Job
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.readers import read_jobs
from faro_lib.workload.service import true_busy_s
from studies.figures.drawing import Drawing, Drawings


def draw(results: Path, capacities: Sequence[int]) -> Drawings:
    requests = pd.read_parquet(results / "traces" / "requests.parquet")
    load = offered_load(requests, read_jobs(results / "traces" / "jobs.csv"))
    return {
        "requests_by_job": Drawing(
            workload_by_job(requests),
            "Requests of each job over the day",
            workload_caption(requests),
        ),
        "offered_load": Drawing(
            load_against_capacity(load, capacities),
            "Offered load and capacity",
            load_caption(load, capacities),
        ),
    }


def _day(requests: pd.DataFrame, split: str = "eval") -> pd.DataFrame:
    return requests[(requests["split"] == split) & (requests["sample"] == 0)]


def workload_by_job(requests: pd.DataFrame) -> Figure:
    """Figure 4b: each job's requests on the evaluation day, and the middle 80 % before it."""
    day, before = _day(requests), _day(requests, "train")
    jobs = list(dict.fromkeys(day["job"]))
    rows = -(-len(jobs) // 5)
    columns = -(-len(jobs) // rows)
    size_in = (PAGE_IN, 0.4 + 1.05 * rows)
    # No shared scale, because jobs may differ by orders of magnitude.
    figure, axes = plt.subplots(rows, columns, figsize=size_in, sharex=True, squeeze=False)
    area = {"color": "#56B4E9", "alpha": 0.4, "linewidth": 0}
    for axis, job in zip(axes.flat, jobs):
        if len(before):
            by_minute = before[before["job"] == job].groupby("minute")["requests"]
            band = by_minute.quantile([0.1, 0.9]).unstack()
            axis.fill_between(band.index, band[0.1], band[0.9], **area)
        line = day[day["job"] == job]
        axis.plot(line["minute"], line["requests"], color="#0072B2", linewidth=0.7)
        axis.set_title(str(job), pad=2)
        axis.set_ylim(0, None)
    for place in range(len(jobs), rows * columns):
        axes.flat[place].set_visible(False)
        axes.flat[place - columns].tick_params(labelbottom=True)
    figure.supxlabel("minute", fontsize=8)
    figure.supylabel("requests per minute", fontsize=8)
    return figure


def workload_caption(requests: pd.DataFrame) -> str:
    by_job = _day(requests).pivot(index="minute", columns="job", values="requests")
    swing = by_job.max() / by_job.mean()
    return (
        f"The peak load of a job is between {swing.min():.1f} times ({swing.idxmin()}) and "
        f"{swing.max():.1f} times ({swing.idxmax()}) its mean load. Line: evaluation day; band: "
        "middle 80 % of the training days. Each panel has its own scale."
    )


def offered_load(requests: pd.DataFrame, jobs: Sequence[Job]) -> pd.Series:
    """Offered load in cores by minute of the day.

    It is requests/s x seconds per request x cores, summed over the jobs.
    """
    by_job = _day(requests).pivot(index="minute", columns="job", values="requests")
    return sum(by_job[job.name] / MINUTE_S * true_busy_s(job) * job.cores for job in jobs)


def load_against_capacity(load: pd.Series, capacities: Sequence[int]) -> Figure:
    """The offered load in cores, and a dotted line per capacity."""
    figure, axis = plt.subplots(figsize=(PAGE_IN, 1.8))
    axis.plot(load.index, load, color="#0072B2")
    for capacity in capacities:
        axis.axhline(capacity, color="black", linestyle=":", linewidth=0.9)
        right_of_axis = axis.get_yaxis_transform()
        axis.text(1.01, capacity, f"{capacity} cores", transform=right_of_axis, va="center")
    axis.set(xlabel="minute", ylabel="busy cores", ylim=(0, 1.12 * max([load.max(), *capacities])))
    return figure


def load_caption(load: pd.Series, capacities: Sequence[int]) -> str:
    if not capacities:
        return (
            f"The offered load is {load.mean():.1f} cores on average and {load.max():.1f} in the "
            "busiest minute."
        )
    return " ".join(
        f"At {capacity} cores, the offered load is {load.mean() / capacity:.0%} of capacity on "
        f"average and {load.max() / capacity:.0%} in the busiest minute."
        for capacity in capacities
    )
