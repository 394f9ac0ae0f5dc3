"""Stage 85: lost utility on a mix of serial, batched and token-generating replicas.

Services with a choice of configurations: utility by GPUs, and what the choice saves.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from faro_lib.figures.style import CYCLE, PAGE_IN, legend_above
from studies.figures.drawing import Drawing, Drawings
from studies.replicas.best_configurations import Configurations
from studies.replicas.configurations import BEST
from studies.replicas.run import ASSUMED, LEADER, SERVICES


def draw(results: Path) -> Drawings:
    """The stage's figure."""
    table = pd.read_csv(results / "replicas" / "paired.csv")
    title = (
        "Lost utility on a mix of replicas that serve one request at a time, in batches, or token "
        "by token"
    )
    return {"kinds_of_replica": Drawing(lost_by_service(table), title, finding(table))}


def lost_by_service(table: pd.DataFrame) -> Figure:
    """Plot lost utility by policy and service, one panel per capacity.

    `table` is from `studies.replicas.run.paired`.
    """
    capacities = table["capacity_cores"].unique()
    panels: dict[str, Any] = {
        "figsize": (PAGE_IN, 2.2),
        "sharex": True,
        "sharey": True,
        "squeeze": False,
    }
    figure, axes = plt.subplots(1, len(capacities), **panels)
    services = [name for name in SERVICES if f"lost_{name}" in table]
    for axis, capacity in zip(axes[0], capacities):
        part = table[table["capacity_cores"] == capacity]
        left = np.zeros(len(part))
        for name, color in zip(services, CYCLE):
            lost = part[f"lost_{name}"].to_numpy()
            axis.barh(part["policy"], lost, left=left, color=color, label=name, height=0.7)
            left += lost
        axis.set_title(f"{capacity:g} cores", loc="left")
        axis.set_xlabel("lost cluster utility")
    axes[0][0].invert_yaxis()
    legend_above(figure, *axes[0][0].get_legend_handles_labels())
    return figure


def finding(table: pd.DataFrame) -> str:
    """Compare the loss of LEADER with that of ASSUMED and of the best other policy."""
    sentences = []
    for capacity, part in table.groupby("capacity_cores", sort=False):
        rows = part.set_index("policy")
        assumed = rows.loc[ASSUMED]
        others = rows.drop(index=[ASSUMED, LEADER])
        best = others.loc[others["lost_utility"].idxmin()]
        sentences.append(
            f"With {capacity:g} cores, {LEADER} loses {rows.loc[LEADER, 'lost_utility']:.2f} with "
            f"the true kinds of replica, {assumed['lost_utility']:.2f} if it assumes serial ones "
            f"(difference {_interval(assumed)}), and the best of the others, {best.name}, loses "
            f"{best['lost_utility']:.2f} ({_interval(best)})."
        )
    return " ".join(sentences)


def _interval(row: pd.Series) -> str:
    half = f" ± {row['half']:.2f}" if np.isfinite(row["half"]) else ""
    return f"{row['difference']:.2f}{half}"


def by_gpus(
    parts: dict[str, Configurations], best: Configurations, compared: pd.DataFrame
) -> Figure:
    """Plot the utility of one service (left) and the lost utility of all (right) by GPUs."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE_IN, 2.5), width_ratios=(3, 2))

    def row(table: Configurations) -> tuple[np.ndarray, np.ndarray]:
        return np.arange(table.table.columns + 1) * table.table.jobs[0].cores, table.table.value[0]

    left.step(*row(best), where="post", color="black", alpha=0.2, linewidth=5, label=BEST)
    for (name, part), colour, line in zip(parts.items(), CYCLE, ("--", "-.", ":")):
        left.step(*row(part), line, where="post", color=colour, label=name)
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set(xlabel="GPUs", ylabel=f"expected utility of {best.table.jobs[0].name}", ylim=(0, 1.03))
    left.legend(frameon=False, loc="lower right")
    lost = compared.groupby(["choice", "capacity"], sort=False)["simulated"].sum()
    for choice, colour, marker in zip(compared["choice"].unique(), ("black", *CYCLE), "os^"):
        dots = {"color": colour, "marker": marker, "markersize": 3.5, "label": choice}
        right.plot(lost[choice].index, lost[choice], **dots)
    right.set(xlabel="GPUs", ylabel="lost utility, simulated", ylim=(0, None))
    right.set_xticks(sorted(compared["capacity"].unique()))
    right.legend(frameon=False, title="configuration")
    return figure


def choice_finding(compared: pd.DataFrame) -> str:
    """State the lost utility at each number of GPUs, with the best configurations and others."""
    lost = compared.groupby(["capacity", "choice"])["simulated"].sum().unstack()
    sentences = []
    for capacity, row in lost.iterrows():
        rows = compared[(compared["capacity"] == capacity) & (compared["choice"] == BEST)]
        chosen = ", ".join(
            f"{one.replicas} x {one.service} ({one.configuration})" for one in rows.itertuples()
        )
        others = "; ".join(
            f"{name}: {value:.2f}" for name, value in row.drop(BEST).dropna().items()
        )
        sentences.append(f"With {capacity:g} GPUs, {chosen} lose {row[BEST]:.2f} ({others}).")
    return " ".join(sentences)
