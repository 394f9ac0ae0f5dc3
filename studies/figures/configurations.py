"""Services with a choice of configurations: utility by GPUs, and what the choice saves."""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from faro_lib.figures.style import CYCLE, PAGE_IN
from studies.best_configurations import Configurations
from studies.configurations import BEST


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
