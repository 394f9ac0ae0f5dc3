"""Stage 87: requests of language models that miss an SLO, by policy and number of replicas."""

from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from faro_lib.figures.style import CYCLE, PAGE_IN
from studies.figures.barcharts import bar_rows
from studies.figures.drawing import Drawing, Drawings
from studies.llm.stage import LEADER, shares


def draw(results: Path) -> Drawings:
    """The stage's figure."""
    runs = pd.read_csv(results / "llm" / "runs.csv")
    title = "Requests to language models that miss an SLO"
    return {"language_models": Drawing(missed_by_policy(runs), title, finding(runs))}


def missed_by_policy(runs: pd.DataFrame) -> Figure:
    """Plot the share of requests that miss an SLO, a panel per capacity and a bar per policy.

    `runs` is from `studies.llm.stage.compared`.
    """
    missed = shares(runs).sort_index(ascending=False)
    policies = list(missed.columns)
    height = 0.6 + 0.22 * len(policies)
    figure, axes = plt.subplots(
        1, len(missed), figsize=(PAGE_IN, height), sharey=True, squeeze=False
    )
    colours = [CYCLE[0] if name == LEADER else CYCLE[-1] for name in policies]
    for axis, (capacity, row) in zip(axes[0], missed.iterrows()):
        bar_rows(axis, row, policies, colours, number_format="{:.1%}")
        axis.set_title(f"{capacity} replicas", loc="left")
        axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.set_xlabel("requests that miss an SLO")
    return figure


def finding(runs: pd.DataFrame) -> str:
    """Compare Faro with the best rival of each capacity, and say what was compared."""
    sentences = []
    for capacity, row in shares(runs).sort_index(ascending=False).iterrows():
        rivals = row.drop(LEADER)
        sentences.append(
            f"With {capacity} replicas, {LEADER} misses {row[LEADER]:.1%} of the requests, and the "
            f"best rival, {rivals.idxmin()}, {rivals.min():.1%}."
        )
    count = runs[["day", "start_min"]].drop_duplicates()
    blocks = "block" if len(count) == 1 else "blocks"
    days = f"{len(count)} {blocks} of half an hour on {_days(count['day'].unique())}"
    return f"{' '.join(sentences)} All policies serve the same requests: {days}."


def _days(days) -> str:
    if len(days) == 1:
        return f"day {days[0]}"
    return f"days {', '.join(map(str, days[:-1]))} and {days[-1]}"
