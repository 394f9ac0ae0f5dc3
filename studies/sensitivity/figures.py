"""Stage 65: sensitivity of lost utility and of the margin over the best other policy."""

from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from faro_lib.figures.style import PAGE_IN, legend_above
from studies.figures.common import lost_by_policy, trials_note
from studies.figures.drawing import Drawing, Drawings
from studies.sensitivity.run import PARAMETERS, margins
from studies.tables.wording import and_list


def draw(results: Path) -> Drawings:
    """The stage's figure, or an empty mapping if no parameter has two values."""
    summary = pd.read_csv(results / "sensitivity" / "summary.csv")
    if not varied(summary):
        return {}
    title = "Sensitivity of the lost utility to each parameter"
    return {"sensitivity": Drawing(lost_by_parameter(summary), title, margin_caption(summary))}


def varied(summary: pd.DataFrame) -> list[str]:
    """The parameters with at least two values."""
    values = summary.groupby("parameter")["value"].nunique()
    return [name for name in PARAMETERS if values.get(name, 0) > 1]


def lost_by_parameter(summary: pd.DataFrame) -> Figure:
    """Lost utility of each policy by parameter.

    Columns parameter, value, policy, trial, lost_utility.
    """
    names = varied(summary)
    figure, axes = plt.subplots(1, len(names), figsize=(PAGE_IN, 2.3), sharey=True, squeeze=False)
    for axis, name in zip(axes[0], names):
        part = summary[summary["parameter"] == name]
        values = sorted(part["value"].unique())
        lost_by_policy(axis, part.assign(place=part["value"].map(values.index)), "place")
        axis.set_xticks(range(len(values)), [f"{value:g}" for value in values])
        axis.set_xlabel(PARAMETERS[name].replace(" (", "\n("))
    # After the loop, because all panels share this axis.
    axes[0][0].set(ylabel="lost cluster utility", ylim=(0, None))
    legend_above(figure, *axes[0][0].get_legend_handles_labels())
    return figure


def margin_caption(summary: pd.DataFrame) -> str:
    """State how often the last policy of `summary` beats the best of the others; least margin."""
    leader = summary["policy"].iloc[-1]
    table = margins(summary[summary["parameter"].isin(varied(summary))], leader)
    least = table.loc[table["margin"].idxmin()]
    others = and_list(list(summary["policy"].drop_duplicates())[:-1])
    better, worse = (table["margin"] > 0).sum(), (table["margin"] < 0).sum()
    return (
        f"{leader} loses less utility than the best of {others} in {better} of {len(table)} "
        f"settings, and more in {worse}. Its margin is smallest, {least['margin']:.2f}, at "
        f"{PARAMETERS[least['parameter']]} = {least['value']:g}, against {least['best_other']}. "
        f"{trials_note(summary, ['parameter', 'value', 'policy'])}"
    )
