"""Stage 86: ranks of the arena's entries, and their regret in each scenario."""

from collections.abc import Mapping

import numpy as np
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from faro_lib.figures.style import PAGE_IN
from studies.arena.scores import Entry, by_scenario, lowest, ranking, read_entries
from studies.figures.drawing import Drawing, Drawings
from studies.tables.wording import and_list

TITLE = "Autoscalers in the arena"


def draw(results: str, entries: str) -> Drawings:
    recorded = read_entries(entries)
    figure = ranks_and_scenarios(recorded)
    return {"arena": Drawing(figure, TITLE, arena_caption(recorded), recorded=True)}


def ranks_and_scenarios(entries: Mapping[str, Entry]) -> Figure:
    """Left: mean regret of each entry, with 95 % intervals.

    Right: its regret in each scenario, in per cent.
    """
    table = ranking(entries)
    regret, _ = by_scenario(entries)
    height = 0.9 + 0.24 * len(table)
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE_IN, height), width_ratios=(1, 1.7))
    rows = np.arange(len(table)) + 0.5
    percent = 100 * table[["regret", "low", "high"]]
    apart = np.abs(percent[["low", "high"]].sub(percent["regret"], axis=0)).T.to_numpy()
    dots = {"fmt": "o", "color": "black", "markersize": 3, "linewidth": 1}
    left.errorbar(percent["regret"], rows, xerr=apart, **dots)
    left.set_yticks(rows, table.index)
    left.set(xlabel="mean regret (% of all utility)", xlim=(0, None), ylim=(len(table), 0))
    left.grid(axis="y", visible=False)
    shown = 100 * regret.T.rename(columns=lambda name: name.rsplit("-v", 1)[0])
    cells = {"cmap": "Blues", "vmax": 30, "annot": True, "fmt": ".0f", "linewidths": 0.5}
    sns.heatmap(shown, ax=right, cbar=False, **cells)
    right.set(xlabel="regret in each scenario (%)", ylabel="", yticks=[])
    right.tick_params(axis="x", rotation=90)
    return figure


def arena_caption(entries: Mapping[str, Entry]) -> str:
    table = ranking(entries)
    regret, bound = by_scenario(entries)
    first, second = table.index[:2]
    wins = and_list(f"{name} in {count}" for name, count in lowest(regret).sum().items() if count)
    best, next_best = table.loc[first], table.loc[second]
    return (
        f"{first} has the least regret, {best['regret']:.1%} ({best['low']:.1%} to "
        f"{best['high']:.1%}), before {second} with {next_best['regret']:.1%} "
        f"({next_best['low']:.1%} to {next_best['high']:.1%}). Of {len(regret)} scenarios, the "
        f"least regret is reached by {wins}. Regret is the lost utility minus that of the "
        f"clairvoyant, which loses {bound.min():.1%} to {bound.max():.1%}; a dot is the mean over "
        "all scenarios and both seeds, with a 95 % interval over worlds (seeds). "
        f"A decision takes {table['decision_ms'].min():.1f} to "
        f"{table['decision_ms'].max():.1f} ms in the median."
    )
