"""Predicted against simulated tail latencies."""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from faro_lib.figures.style import COLUMN_IN, colour
from faro_lib.workload import Job
from studies.figures.common import label_log_axis
from studies.tables.frames import Tables
from studies.tables.prediction_errors import WORST, prediction_errors

PLANNER = "Faro-Sum"  # the policy whose predictions are checked
BAND = (0.1, 0.9)


def errors_of(tables: Tables, jobs: tuple[Job, ...]) -> pd.DataFrame:
    """`prediction_errors` of PLANNER in the first trial, with a column capacity_cores.

    The table is empty without PLANNER.
    """

    def of_planner(frame: pd.DataFrame) -> pd.DataFrame:
        return frame[(frame["policy"] == PLANNER) & (frame["trial"] == 0)]

    minutes = of_planner(tables.minutes)
    parts = []
    for capacity, decisions in of_planner(tables.decisions).groupby("capacity_cores"):
        errors = prediction_errors(decisions, minutes[minutes["capacity_cores"] == capacity], jobs)
        parts.append(errors.assign(capacity_cores=capacity))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def error_bands(errors: pd.DataFrame) -> pd.DataFrame:
    """Simulated / predicted tail latency by capacity.

    Columns capacity_cores, ratio (median), low and high (80 % band).
    """
    cap_s = WORST * errors["slo_s"]
    predicted_s = errors["predicted_tail_latency_s"].clip(upper=cap_s)
    ratio = errors["tail_latency_s"].clip(upper=cap_s) / predicted_s
    table = ratio.groupby(errors["capacity_cores"]).quantile((BAND[0], 0.5, BAND[1])).unstack()
    table.columns = ["low", "ratio", "high"]
    return table.reset_index().sort_values("capacity_cores", ascending=False)


def predicted_against_simulated(errors: pd.DataFrame) -> Figure:
    """Plot simulated (median, 80 % band) against predicted tail latency, in multiples of SLOs."""
    predicted = (errors["predicted_tail_latency_s"] / errors["slo_s"]).clip(upper=WORST)
    simulated = (errors["tail_latency_s"] / errors["slo_s"]).clip(upper=WORST)
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, 21)))
    bins = np.clip(np.searchsorted(edges, predicted, side="right") - 1, 0, max(len(edges) - 2, 0))
    groups = simulated.groupby(bins)
    middle = predicted.groupby(bins).median()
    figure, axis = plt.subplots(figsize=(COLUMN_IN, 2.6))
    low, high = groups.quantile(BAND[0]), groups.quantile(BAND[1])
    axis.fill_between(middle, low, high, color=colour(PLANNER), alpha=0.25, lw=0)
    label = "simulated, median and 80 %"
    axis.plot(middle, groups.median(), color=colour(PLANNER), marker="o", ms=3, label=label)
    reach = [middle.min(), middle.max()]
    axis.plot(reach, reach, color="#555555", lw=0.8, ls="--", label="as predicted")
    axis.set(xscale="log", yscale="log")
    axis.set(xlabel="predicted tail latency / SLO", ylabel="simulated tail latency / SLO")
    label_log_axis(axis.xaxis, *reach)
    label_log_axis(axis.yaxis, min(reach[0], low.min()), max(reach[1], high.max()))
    axis.legend(frameon=False, loc="lower right")
    return figure


def prediction_caption(errors: pd.DataFrame) -> str:
    ratios = [
        f"{row.ratio:.2f} at {row.capacity_cores:g} cores (80 %: {row.low:.2f} to {row.high:.2f})"
        for row in error_bands(errors).itertuples()
    ]
    return (
        f"The simulated tail latency divided by the prediction of {PLANNER} has a median of "
        f"{'; '.join(ratios)}. First full minute after each prediction, {len(errors)} job-minutes "
        f"without a change of replicas; capped at {WORST:g} SLOs."
    )
