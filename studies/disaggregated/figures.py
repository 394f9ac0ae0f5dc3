"""The picture of docs/disaggregated.md: requests within both SLOs by rate, apart or on one pool."""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from faro_lib.figures.style import CYCLE, PAGE_IN, legend_above
from faro_lib.metrics.paired import unit_interval
from studies.figures.common import LIMIT_LINE
from studies.figures.drawing import Drawing

POOL, CHUNKS, APART = "one pool", "one pool, chunks", "apart"
PAIR_BY_RATE, PAIR_FOR_ALL = "a pair for each rate", "one pair for all rates"
ASKED = 0.99  # share of the requests that shall meet both SLOs
COLUMNS = 3  # of panels
MARKERS = ("o", "s", "^", "D", "v")


def draw(shares: pd.DataFrame) -> Drawing:
    """The figure of `shares`, the first table that studies/disaggregated/run.py writes."""
    replicas = shares["replicas"].max()
    title = f"Requests within both SLOs, on {replicas} replicas"
    return Drawing(shares_by_rate(shares), title, finding(shares))


def shares_by_rate(shares: pd.DataFrame) -> Figure:
    """Plot the share of requests within both SLOs by rate: a panel per mix, the most replicas."""
    shares = shares[shares["replicas"] == shares["replicas"].max()]
    mixes = shares["mix"].unique()
    rows = -(-len(mixes) // COLUMNS)
    size = PAGE_IN, 0.4 + 2 * rows
    figure, axes = plt.subplots(rows, COLUMNS, figsize=size, sharey=True, squeeze=False)
    for axis, mix in zip(axes.flat, mixes):
        _panel(axis, shares[shares["mix"] == mix])
        axis.set_title(mix, loc="left")
        axis.set_xlabel("requests/s")
    for axis in axes.flat[len(mixes) :]:
        axis.set_visible(False)
    for axis in axes[:, 0]:
        axis.set_ylabel("share within both SLOs")
    axes[0][0].set_ylim(-0.02, 1.03)
    handles, labels = axes[0][0].get_legend_handles_labels()
    legend_above(figure, handles, labels, columns=6)
    return figure


def _panel(axis: Axes, shares: pd.DataFrame) -> None:
    for index, (system, rows) in enumerate(shares.groupby("system", sort=False)):
        by_seed = rows.pivot(index="rate_rps", columns="seed", values="share")
        bounds = np.array([interval(values) for values in by_seed.to_numpy()])
        mean, low, high = bounds.T
        axis.errorbar(
            by_seed.index,
            mean,
            yerr=[mean - low, high - mean],
            color=CYCLE[index],
            marker=MARKERS[index],
            markersize=3,
            label=system,
        )
    axis.axhline(ASKED, label=f"asked: {ASKED:.0%}", **LIMIT_LINE)


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """(mean over seeds, lower and upper bound of its 95 % interval) of values (seeds,)."""
    return unit_interval(values[None, None], np.ones((1, 1, len(values))))


def sustained(shares: pd.DataFrame) -> pd.DataFrame:
    """The largest rate per replica at which ASKED of the requests meet both SLOs.

    Rows are for a mix, number of replicas and seed, columns for a system. Between rates, the share
    is interpolated linearly, from 1 at rate 0. The first rate at which it is too small counts.
    """
    keys = ["mix", "replicas", "seed", "system"]
    rates = {
        key: _crossing(rows["rate_rps"].to_numpy(), rows["share"].to_numpy()) / key[1]
        for key, rows in shares.sort_values("rate_rps").groupby(keys, sort=False)
    }
    return pd.Series(rates).rename_axis(keys).unstack()


def _crossing(rate_rps: np.ndarray, share: np.ndarray) -> float:
    """Rate at which `share` falls below ASKED; the last one if it does not."""
    rate_rps, share = np.append(0.0, rate_rps), np.append(1.0, share)
    too_small = share < ASKED
    if not too_small.any():
        return rate_rps[-1]
    k = int(np.argmax(too_small))
    weight = (share[k - 1] - ASKED) / (share[k - 1] - share[k])
    return rate_rps[k - 1] + weight * (rate_rps[k] - rate_rps[k - 1])


def finding(shares: pd.DataFrame) -> str:
    """By how much apart sustains more or less than the better pool, on the most replicas."""
    rates = sustained(shares).xs(shares["replicas"].max(), level="replicas")
    parts = []
    for mix in shares["mix"].unique():
        of_mix = rates.loc[mix]
        pool = of_mix[[POOL, CHUNKS]]
        better = pool[pool.mean().idxmax()]
        gain, low, high = interval((of_mix[APART] - better).to_numpy() / better.mean())
        parts.append(f"{mix}: {gain:+.0%} ({low:+.0%} to {high:+.0%})")
    return (
        f"On {shares['replicas'].max()} replicas, the rate at which {ASKED:.0%} of the requests "
        f"meet both SLOs differs, if prefill and decode are apart, from that of the better pool as "
        f"follows. {'; '.join(parts)}."
    )
