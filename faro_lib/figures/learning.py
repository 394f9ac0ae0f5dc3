"""How a policy that learns its latency_model model gets better over a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from faro_lib.figures.captions import NONE_PUBLISHED
from faro_lib.figures.style import COLUMN_IN

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def learning(curves: pd.DataFrame) -> Figure:
    """Error of the learned latency model after so many minutes, a line for each cluster size.

    Parameters
    ----------
    curves : columns replicas, minute, log_error: `metrics.learning_curve`, a row a checkpoint.
    """
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(COLUMN_IN, 2.0))
    for (replicas, rows), marker in zip(curves.groupby("capacity_cores"), "osD^vPX"):
        error_pct = 100 * np.expm1(rows["log_error"])
        axis.plot(rows["minute"] + 1, error_pct, marker=marker, ms=3, lw=1, label=f"{replicas} replicas")
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks([1, 10, 100], ["1", "10", "100"])
    axis.set_yticks([20, 50, 100, 200], ["20", "50", "100", "200"])
    axis.minorticks_off()
    axis.set_xlabel("minutes learned from, plus one")
    axis.set_ylabel("error of predicted p99 (%)")
    axis.legend(frameon=False)
    return figure


def learning_caption(curves: pd.DataFrame) -> str:
    by_minute = curves.groupby("minute")["log_error"].mean()
    first, last = (100 * np.expm1(by_minute.iloc[place]) for place in (0, -1))
    return (
        f"Error of the p99 that Cilantro's latency model believes in, after so many minutes of a run and always on the same "
        f"job-minutes of another trial: from {first:.0f} % without any observation to {last:.0f} % after "
        f"{by_minute.index[-1]} minutes, mean over the cluster sizes. {NONE_PUBLISHED}"
    )
