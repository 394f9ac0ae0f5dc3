"""Stage 30: forecasts (figure 8 of the paper), coverage, scores, a posterior predictive check."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from faro_lib.figures.style import COLUMN_IN, PAGE_IN, colour, legend_above
from studies.figures.common import EDGE
from studies.figures.drawing import Drawing, Drawings
from studies.forecast.scores import scores_caption

COLOURS = {
    "bayes": "#0072B2",
    "bayes (not recalibrated)": "#8569F1",
    "ar": "#D45E00",
    "kalman": "#D873A4",
    "structural": "#7A4B2A",
    "persistence": "#E3B300",
    "seasonal": "#00CF72",
    "auto": "#000000",
}
MARKERS = dict(zip(COLOURS, "osD^*vPX"))
SHOWN_MINUTES = 120  # length of the plotted part of a forecast


def draw(results: Path, published: str | None = None) -> Drawings:
    folder = results / "forecast"
    table, coverage, gains = (
        pd.read_csv(folder / f"{name}.csv") for name in ("scores", "coverage", "gains")
    )
    bands, steps = (pd.read_parquet(folder / f"{name}.parquet") for name in ("bands", "steps"))
    rmse = pd.read_csv(Path(published) / "published_forecast_rmse.csv") if published else None
    return {
        "forecast": Drawing(
            point_and_probabilistic(bands[bands["shown"]]),
            "Point forecast and prediction interval",
            point_caption(bands),
        ),
        "coverage": Drawing(
            coverage_by_minute(coverage),
            "Coverage of the prediction intervals",
            coverage_caption(table),
        ),
        "forecast_scores": Drawing(
            scores(table, rmse), "Scores of the forecasters", scores_caption(gains)
        ),
        "predictive_check": Drawing(
            posterior_predictive(steps),
            "Changes from minute to minute, replicated and observed",
            predictive_caption(steps),
        ),
    }


def point_and_probabilistic(bands: pd.DataFrame) -> Figure:
    """Figure 8: requests, mean forecast and 80 % interval of each job around its busiest minute."""
    jobs = list(dict.fromkeys(bands["job"]))
    size_in = (PAGE_IN, 0.4 + 1.4 * len(jobs))
    figure, axes = plt.subplots(len(jobs), 1, figsize=size_in, squeeze=False)
    for axis, job in zip(axes[:, 0], jobs):
        rows = bands[bands["job"] == job]
        busiest = int(rows["requests"].to_numpy().argmax())
        first = max(0, min(busiest - SHOWN_MINUTES // 2, len(rows) - SHOWN_MINUTES))
        rows = rows.iloc[first : first + SHOWN_MINUTES]
        band = {"color": "#56B4E9", "alpha": 0.45, "lw": 0, "label": "80 % interval"}
        axis.fill_between(rows["minute"], rows["low"], rows["high"], **band)
        dashes = {"color": "#D55E00", "lw": 0.9, "ls": "--", "label": "point forecast (mean)"}
        axis.plot(rows["minute"], rows["mean"], **dashes)
        axis.plot(rows["minute"], rows["requests"], color="black", lw=0.7, label="actual")
        axis.set_title(str(job), pad=2)
    axes[0, 0].legend(ncol=3, loc="lower center", bbox_to_anchor=(0.5, 1.15), frameon=False)
    axes[-1, 0].set_xlabel("minute")
    figure.supylabel("requests per minute", fontsize=8)
    return figure


def point_caption(bands: pd.DataFrame) -> str:
    above_mean = (bands["requests"] > bands["mean"]).mean()
    above_interval = (bands["requests"] > bands["high"]).mean()
    return (
        f"Four minutes ahead, provisioning for the mean forecast falls short in {above_mean:.0%} "
        "of the job-minutes, provisioning for the upper end of the 80 % interval in "
        f"{above_interval:.0%}. Shown: up to {SHOWN_MINUTES} minutes around the peak of two jobs."
    )


def coverage_by_minute(coverage: pd.DataFrame) -> Figure:
    """Empirical coverage by minutes ahead, one panel per level.

    Columns forecaster, minute, level, coverage.
    """
    levels = sorted(coverage["level"].unique())
    lowest = coverage["coverage"].min()
    figure, axes = plt.subplots(1, len(levels), figsize=(PAGE_IN, 2.2), sharey=True, squeeze=False)
    for axis, level in zip(axes[0], levels):
        axis.axhline(level, color="black", ls=":", lw=0.9)
        for name, rows in coverage[coverage["level"] == level].groupby("forecaster", sort=False):
            line = {"color": colour(name, COLOURS), "marker": MARKERS.get(name, "*"), "ms": 3}
            axis.plot(rows["minute"], rows["coverage"], label=name, **line)
        axis.set(xlabel="minutes ahead", title=f"{level:.0%} interval")
        axis.set_ylim(min(0.2, lowest - 0.05), 1.02)
    axes[0, 0].set_ylabel("empirical coverage")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=4, frameon=False)
    return figure


def coverage_caption(table: pd.DataFrame) -> str:
    held = table[table["forecaster"] == "bayes"].set_index("job")["coverage_80"]
    by_job = held.drop("all")
    return (
        f"The 80 % interval of bayes covers {held['all']:.1%} of the actual values, and between "
        f"{by_job.min():.0%} and {by_job.max():.0%} of those of a single job. Dotted: nominal "
        "coverage."
    )


def scores(table: pd.DataFrame, published: pd.DataFrame | None = None) -> Figure:
    """RMSE, CRPS and WQL of every forecaster over all jobs.

    `published` has columns model and rmse_requests_per_min.
    """
    shown = (table["job"] == "all") & (table["forecaster"] != "oracle")
    everything = table[shown].sort_values("crps_per_min")
    labels = {
        "rmse_per_min": "RMSE (requests/min)",
        "crps_per_min": "CRPS (requests/min)",
        "wql": "WQL",
    }
    figure, axes = bars_by_forecaster(everything, labels)
    if published is not None:
        for style, (_, row) in zip((":", "--", "-."), published.iterrows()):
            label = f"{row['model']} (published)"
            rmse = row["rmse_requests_per_min"]
            axes[0].axvline(rmse, color="black", lw=0.9, ls=style, label=label)
        axes[0].legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), frameon=False)
    return figure


def posterior_predictive(steps: pd.DataFrame) -> Figure:
    """Plot quantiles of the change per minute: in sample paths (replicated) against in actuals."""
    figure, axis = plt.subplots(figsize=(COLUMN_IN, COLUMN_IN))
    for job, rows in steps.groupby("job", sort=False):
        axis.plot(rows["observed"], rows["replicated"], marker="o", ms=2, lw=0.8, label=job)
    edge = float(np.abs(steps[["observed", "replicated"]]).max().max())
    axis.plot([-edge, edge], [-edge, edge], color="black", ls=":", lw=0.9)
    # The log scale is linear up to 50 requests, where even the sign of a change is noise.
    axis.set_xscale("symlog", linthresh=50)
    axis.set_yscale("symlog", linthresh=50)
    axis.set(xlabel="observed change (requests/min)", ylabel="replicated change (requests/min)")
    for direction in (axis.xaxis, axis.yaxis):
        direction.set_ticks([-100, 0, 100], ["-100", "0", "100"])
    legend_above(figure, *axis.get_legend_handles_labels(), columns=3)
    return figure


def predictive_caption(steps: pd.DataFrame) -> str:
    tails = steps[steps["level"].isin([0.05, 0.95])]
    size = tails[["replicated", "observed"]].abs().groupby(tails["job"], sort=False).sum()
    ratio = size["replicated"].sum() / size["observed"].sum()
    by_job = (size["replicated"] / size["observed"])[size["observed"] > 0]
    return (
        f"At the 5 % and 95 % quantiles, replicated changes are {ratio:.2f} times as large as "
        f"observed ones over all jobs, and between {by_job.min():.2f} ({by_job.idxmin()}) and "
        f"{by_job.max():.2f} times ({by_job.idxmax()}) for a job."
    )


def error_and_regret(table: pd.DataFrame) -> Figure:
    """CRPS of the total requests, and regret of the decisions, of every forecaster.

    `table` has columns forecaster, crps_of_sum and regret, as notebook 35 makes it.
    """
    labels = {"crps_of_sum": "CRPS (requests in seven minutes)", "regret": "regret (utility)"}
    return bars_by_forecaster(table, labels)[0]


def bars_by_forecaster(table: pd.DataFrame, labels: dict[str, str]) -> tuple[Figure, np.ndarray]:
    """A panel for each column in `labels`, with a bar for each forecaster: (figure, axes)."""
    figure, axes = plt.subplots(1, len(labels), figsize=(PAGE_IN, 2.3), sharey=True)
    rows = np.arange(len(table))
    colours = [colour(name, COLOURS) for name in table["forecaster"]]
    for axis, (column, label) in zip(axes, labels.items()):
        axis.barh(rows, table[column], color=colours, **EDGE)
        axis.set_xlabel(label)
    axes[0].set_yticks(rows, table["forecaster"])
    axes[0].invert_yaxis()
    return figure, axes
