"""What is known of the coming minutes, and how far it can be trusted: the paper's figure 8, checks, calibration, scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from faro_lib.figures.style import COLUMN_IN, PAGE_IN, colour

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {
    "bayes": "#0072B2",
    "bayes (not recalibrated)": "#8569F1",
    "ar": "#D45E00",
    "kalman": "#D873A4",
    "persistence": "#E3B300",
    "seasonal": "#00CF72",
    "autoets": "#7F7C5D",
}
MARKERS = dict(zip(COLOURS, "osD^vPX"))


def point_and_probabilistic(bands: pd.DataFrame) -> Figure:
    """Figure 8: what came, a forecast's mean, and its 80 % interval, one panel a job.

    Parameters
    ----------
    bands : columns job, minute, requests, mean, low, high: forecasts of `minute`, made some minutes before.
    """
    import matplotlib.pyplot as plt

    jobs = list(dict.fromkeys(bands["job"]))
    figure, axes = plt.subplots(len(jobs), 1, figsize=(PAGE_IN, 0.4 + 1.4 * len(jobs)), sharex=True, squeeze=False)
    for axis, job in zip(axes[:, 0], jobs):
        rows = bands[bands["job"] == job]
        axis.fill_between(
            rows["minute"], rows["low"], rows["high"], color="#56B4E9", alpha=0.45, lw=0, label="80 % interval"
        )
        axis.plot(rows["minute"], rows["mean"], color="#D55E00", lw=0.9, ls="--", label="point forecast (mean)")
        axis.plot(rows["minute"], rows["requests"], color="black", lw=0.7, label="what came")
        axis.set_title(f"job {job}", pad=2)
    axes[0, 0].legend(ncol=3, loc="lower center", bbox_to_anchor=(0.5, 1.15), frameon=False)
    axes[-1, 0].set_xlabel("minute")
    figure.supylabel("requests per minute", fontsize=8)
    return figure


def coverage_by_minute(coverage: pd.DataFrame) -> Figure:
    """How often intervals held what came, by minutes ahead; dotted: what they promise.

    Parameters
    ----------
    coverage : columns forecaster, minute, level, coverage.
    """
    import matplotlib.pyplot as plt

    levels = sorted(coverage["level"].unique())
    figure, axes = plt.subplots(1, len(levels), figsize=(PAGE_IN, 2.2), sharey=True, squeeze=False)
    for axis, level in zip(axes[0], levels):
        axis.axhline(level, color="black", ls=":", lw=0.9)
        for name, rows in coverage[coverage["level"] == level].groupby("forecaster", sort=False):
            axis.plot(
                rows["minute"],
                rows["coverage"],
                color=colour(name, COLOURS),
                marker=MARKERS.get(name, "*"),
                ms=3,
                label=name,
            )
        axis.set(xlabel="minutes ahead", title=f"{level:.0%} interval", ylim=(0.2, 1.02))
    axes[0, 0].set_ylabel("share held")
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="upper center", ncol=4, bbox_to_anchor=(0.5, 0.0), frameon=False
    )
    return figure


def pit_histogram(pit: pd.DataFrame, bins: int = 20) -> Figure:
    """Where in the forecast distribution the truth fell: flat if calibrated, U-shaped if too sure, a hump if too timid.

    Parameters
    ----------
    pit : columns forecaster, pit.
    """
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(pit["forecaster"]))
    figure, axes = plt.subplots(1, len(names), figsize=(PAGE_IN, 1.8), sharey=True, squeeze=False)
    for axis, name in zip(axes[0], names):
        values = pit.loc[pit["forecaster"] == name, "pit"]
        axis.hist(values, bins=bins, range=(0, 1), density=True, color=colour(name, COLOURS), edgecolor="white", lw=0.3)
        axis.axhline(1, color="black", ls=":", lw=0.9)
        axis.set(title=name, xlabel="PIT")
    axes[0, 0].set_ylabel("density")
    return figure


def scores(table: pd.DataFrame, published: pd.DataFrame | None = None) -> Figure:
    """RMSE, CRPS and WQL of every forecaster over all jobs; with the published RMSE where there are some.

    Parameters
    ----------
    table : forecast/scores.csv.
    published : columns model, rmse_requests_per_min, or None.
    """
    import matplotlib.pyplot as plt

    everything = table[(table["job"] == "all") & (table["forecaster"] != "oracle")].sort_values("crps_per_min")
    labels = {"rmse_per_min": "RMSE (requests/min)", "crps_per_min": "CRPS (requests/min)", "wql": "WQL"}
    figure, axes = plt.subplots(1, 3, figsize=(PAGE_IN, 2.3), sharey=True)
    place = np.arange(len(everything))
    for axis, (column, label) in zip(axes, labels.items()):
        colours = [colour(name, COLOURS) for name in everything["forecaster"]]
        axis.barh(place, everything[column], color=colours, edgecolor="black", linewidth=0.3)
        axis.set_xlabel(label)
    axes[0].set_yticks(place, everything["forecaster"])
    axes[0].invert_yaxis()
    if published is not None:
        for style, (_, row) in zip((":", "--", "-."), published.iterrows()):
            axes[0].axvline(
                row["rmse_requests_per_min"], color="black", lw=0.9, ls=style, label=f"{row['model']} (published)"
            )
        axes[0].legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), frameon=False)
    else:
        axes[1].set_title("no published values for this workload")
    return figure


def posterior_predictive(steps: pd.DataFrame) -> Figure:
    """Quantiles of the change from one minute to the next: replicated by the model against observed, one line a job.

    Parameters
    ----------
    steps : columns job, level, observed, replicated (requests per minute).
    """
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(COLUMN_IN, COLUMN_IN))
    for job, rows in steps.groupby("job", sort=False):
        axis.plot(rows["observed"], rows["replicated"], marker="o", ms=2, lw=0.8, label=job)
    edge = float(np.abs(steps[["observed", "replicated"]]).max().max())
    axis.plot([-edge, edge], [-edge, edge], color="black", ls=":", lw=0.9)
    # Linear within 50 requests, where the sign of a change means nothing.
    axis.set_xscale("symlog", linthresh=50)
    axis.set_yscale("symlog", linthresh=50)
    axis.set(xlabel="observed change (requests/min)", ylabel="replicated change (requests/min)")
    axis.legend(ncol=5, title="job", loc="upper center", bbox_to_anchor=(0.5, -0.2), columnspacing=1.0)
    return figure
