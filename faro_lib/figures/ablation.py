"""What each step is worth: figure 16 of the paper, and our own steps after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from faro_lib.figures.captions import NONE_PUBLISHED
from faro_lib.figures.rows import draw_rows
from faro_lib.figures.style import COLOURS, LIMIT, PAGE_IN, PUBLISHED, legend_above

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SOURCE_COLOURS = {"paper": COLOURS["FairShare"], "ours": COLOURS["Faro-FairSum"]}

COSTLY = 0.02  # a step that loses no more than this is not said to cost anything


def published_ablation(path, steps: dict[str, str], environment: str = "simulation") -> pd.DataFrame:
    """The published ablation: columns variant, replicas, lost_utility, slo_violation_rate.

    Parameters
    ----------
    path : published_ablation.csv.
    steps : the published name of a step -> ours.
    """
    table = pd.read_csv(path)
    table = table[(table["env"] == environment) & table["system"].isin(list(steps))]
    return pd.DataFrame(
        {
            "variant": table["system"].map(steps),
            "capacity_cores": table["replicas"],
            "lost_utility": table["lost_cluster_utility_mean"],
            "slo_violation_rate": table["slo_violation_rate_mean"],
        }
    ).reset_index(drop=True)


def ablation(summary: pd.DataFrame, limit: pd.DataFrame, published: pd.DataFrame | None = None) -> Figure:
    """Figure 16: lost utility step by step, a panel a cluster size; the clairvoyant limit and the published values.

    Parameters
    ----------
    summary : columns variant, source, capacity_cores, trial, lost_utility; bars are means, whiskers standard deviations.
    limit : columns replicas, lost_utility.
    published : columns variant, replicas, lost_utility, or None.
    """
    from matplotlib import pyplot as plt
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    names = list(dict.fromkeys(summary["variant"]))
    sources = summary.drop_duplicates("variant").set_index("variant")["source"]
    sizes = sorted(summary["capacity_cores"].unique(), reverse=True)
    figure, axes = plt.subplots(1, len(sizes), figsize=(PAGE_IN, 0.7 + 0.2 * len(names)), sharey=True, squeeze=False)
    for axis, size in zip(axes[0], sizes):
        here = summary[summary["capacity_cores"] == size].set_index("variant")["lost_utility"]
        beside = None
        if published is not None:
            beside = published[published["capacity_cores"] == size].set_index("variant")["lost_utility"]
        draw_rows(
            axis,
            here,
            [SOURCE_COLOURS[sources[name]] for name in names],
            published=beside,
            limit=limit.loc[limit["capacity_cores"] == size, "lost_utility"].mean(),
        )
        axis.set(title=f"{size:g} replicas", xlabel="lost cluster utility")
    handles = [
        Patch(facecolor=SOURCE_COLOURS["paper"], edgecolor="black", label="the paper's steps"),
        Patch(facecolor=SOURCE_COLOURS["ours"], edgecolor="black", label="our steps"),
        Line2D([], [], color=LIMIT, linestyle="--", label="clairvoyant limit"),
    ]
    if published is not None:
        label = "published (EuroSys'25)"
        handles.append(
            Line2D([], [], marker="D", linestyle="", markerfacecolor="white", markeredgecolor=PUBLISHED, label=label)
        )
    legend_above(figure, handles, [handle.get_label() for handle in handles], 4)
    return figure


def caption(summary: pd.DataFrame, published: pd.DataFrame | None = None) -> str:
    """Where it begins and ends at each size, and which step of each source gains most."""
    mean = summary.groupby(["capacity_cores", "variant"], sort=False)["lost_utility"].mean()
    sources = summary.drop_duplicates("variant").set_index("variant")["source"]
    said = []
    for size in dict.fromkeys(summary["capacity_cores"]):
        lost = mean[size]
        gain = -lost.diff()
        last = sources[sources == "paper"].index[-1]
        ours = gain[sources[sources == "ours"].index]
        said.append(
            f"at {size:g} replicas from {lost.iloc[0]:.2f} to {lost[last]:.2f} by the paper's steps and to "
            f"{lost.iloc[-1]:.2f} by ours, of which {ours.idxmax().removeprefix('+ ')} gains most ({ours.max():.2f})"
        )
        if gain.min() < -COSTLY:
            said[-1] += f" and {gain.idxmin().removeprefix('+ ')} costs most ({-gain.min():.2f})"
    trials = summary.groupby(["capacity_cores", "variant"])["trial"].nunique().min()
    text = f"Lost cluster utility, each step with all those above it, mean over {trials} trial{'s' if trials > 1 else ''}: "
    beside = "Diamonds are the published values." if published is not None else NONE_PUBLISHED
    return text + "; ".join(said) + ". The limit is that of the first trial. " + beside
