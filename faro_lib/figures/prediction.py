"""Whether predicted percentiles of latency came true."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from faro_lib.figures.captions import NONE_PUBLISHED
from faro_lib.figures.style import COLUMN_IN, colour
from faro_lib.metrics.prediction import WORST

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BAND = (0.1, 0.9)


def bands(errors: pd.DataFrame) -> pd.DataFrame:
    """Simulated over predicted p99: columns replicas, ratio (median), low and high (80 % of the minutes), minutes.

    Parameters
    ----------
    errors : `metrics.prediction_errors` of several runs, with a column replicas.
    """
    ratio = errors["tail_latency_s"].clip(upper=WORST * errors["slo_s"]) / errors["predicted_tail_latency_s"].clip(
        upper=WORST * errors["slo_s"]
    )
    by_size = ratio.groupby(errors["capacity_cores"])
    table = by_size.quantile((BAND[0], 0.5, BAND[1])).unstack()
    table.columns = ["low", "ratio", "high"]
    return table.assign(minutes=by_size.size()).reset_index().sort_values("capacity_cores", ascending=False)


def predicted_against_simulated(errors: pd.DataFrame, policy: str) -> Figure:
    """Median and 80 % band of the simulated p99 by the predicted one, both in SLOs, all sizes together."""
    import matplotlib.pyplot as plt

    slo_s = errors["slo_s"]
    predicted = (errors["predicted_tail_latency_s"] / slo_s).clip(upper=WORST)
    simulated = (errors["tail_latency_s"] / slo_s).clip(upper=WORST)
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, 21)))
    place = np.clip(np.searchsorted(edges, predicted, side="right") - 1, 0, max(len(edges) - 2, 0))
    groups = simulated.groupby(place)
    middle = predicted.groupby(place).median()
    figure, axis = plt.subplots(figsize=(COLUMN_IN, 2.6))
    axis.fill_between(
        middle, groups.quantile(BAND[0]), groups.quantile(BAND[1]), color=colour(policy), alpha=0.25, lw=0
    )
    axis.plot(middle, groups.median(), color=colour(policy), marker="o", ms=3, label="simulated, median and 80 %")
    reach = [predicted.min(), predicted.max()]
    axis.plot(reach, reach, color="#555555", lw=0.8, ls="--", label="as predicted")
    axis.set_xscale("log")
    axis.set_yscale("log")
    ticks = [tick for tick in (0.3, 0.5, 1, 2, 5, 10) if reach[0] * 0.9 <= tick <= WORST]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_yticks([0.3, 0.5, 1, 2, 5, 10], ["0.3", "0.5", "1", "2", "5", "10"])
    axis.minorticks_off()
    axis.set_xlabel("predicted p99 (SLOs)")
    axis.set_ylabel("simulated p99 (SLOs)")
    axis.legend(frameon=False, loc="lower right")
    return figure


def prediction_caption(errors: pd.DataFrame, policy: str) -> str:
    said = [
        f"{row.ratio:.2f} ({row.low:.2f} to {row.high:.2f}) at {row.replicas:g} replicas"
        for row in bands(errors).itertuples()
    ]
    return (
        f"Predicted p99 of {policy}'s plans against the simulated one of the first whole minute after, {len(errors)} "
        f"minutes of jobs that were not moved, cut at {WORST:g} SLOs. Simulated over predicted, median and 80 % band: "
        + "; ".join(said)
        + f". {NONE_PUBLISHED}"
    )
