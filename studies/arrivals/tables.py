"""The tables and the figure of docs/arrivals.md."""

from __future__ import annotations

import pandas as pd

from studies.arrivals.figures import dispersion_figure
from studies.arrivals.world import AT_RANDOM, BURSTS, FITTED, TRUE
from studies.tables.pages import Part, Picture
from studies.tables.paired import t_interval
from studies.tables.wording import markdown_table

FITTED_TO_S = (1.0, 10.0, 60.0)
HEADS = ["service", "process", "log likelihood of the gaps"]
PLANNER_HEADS = [
    *("world", "cores", "forecast", "at random times"),
    *("bursts, assuming random times", "bursts, fitted ones known"),
    *("saved by knowing (95 %)", "of what bursts cost", "bursts, true ones known"),
]


def dispersion_table(table: pd.DataFrame) -> str:
    """A row for each service and process: its index of dispersion, and its error."""
    rows = []
    for (service, process), part in table.groupby(["service", "process"], sort=False):
        by_window = part.set_index("window_s")
        likelihood = by_window["log_likelihood"].iloc[0]
        cells = [service, process, "" if pd.isna(likelihood) else f"{likelihood:,.0f}"]
        for window_s in FITTED_TO_S:
            row = by_window.loc[window_s]
            cells.append(f"{row['found']:.3g} ({row['error']:+.0%})")
        rows.append(tuple(cells))
    logs = table[table["process"] == BURSTS].set_index(["service", "window_s"])["log"]
    for service in table["service"].unique()[::-1]:
        of_log = [f"{logs[service, window_s]:.3g}" for window_s in FITTED_TO_S]
        first = next(n for n, row in enumerate(rows) if row[0] == service)
        rows.insert(first, (service, "the log", "", *of_log))
    heads = [*HEADS, *(f"{window_s:g} s" for window_s in FITTED_TO_S)]
    return markdown_table(heads, rows, right=heads[2:])


def losses(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each world and capacity: mean losses, and what the assumption costs."""
    rows = []
    keys = ["world", "capacity_cores", "forecast"]
    for (world, cores, forecast), part in table.groupby(keys, sort=False):
        lost = part.pivot(index="trial", columns=["bursts", "planner"], values="lost_utility")
        assuming, knowing = lost[True, AT_RANDOM], lost[True, FITTED]
        saved, half = t_interval(assuming, knowing)
        random = lost[False, AT_RANDOM]
        row = {"world": world, "cores": cores, "forecast": forecast, "random": random.mean()}
        row |= {"assuming": assuming.mean(), "knowing": knowing.mean(), "saved": saved}
        row |= {"half": half, "share": saved / (assuming.mean() - random.mean())}
        row["true"] = lost[True, TRUE].mean() if TRUE in set(part["planner"]) else float("nan")
        rows.append(row)
    return pd.DataFrame(rows)


def planner_table(table: pd.DataFrame) -> str:
    """The rows of `losses` as text."""
    rows = []
    for row in losses(table).to_dict("records"):
        interval = f"{row['saved'] - row['half']:.3f} to {row['saved'] + row['half']:.3f}"
        rows.append(
            (
                row["world"],
                f"{row['cores']:g}",
                row["forecast"],
                *(f"{row[name]:.3f}" for name in ("random", "assuming", "knowing")),
                f"{row['saved']:.3f} ({interval})",
                f"{row['share']:.0%}",
                "" if pd.isna(row["true"]) else f"{row['true']:.3f}",
            )
        )
    return markdown_table(PLANNER_HEADS, rows, right=[PLANNER_HEADS[1], *PLANNER_HEADS[3:]])


PAGE = "docs/arrivals.md"
DISPERSION = "data/recorded-arrivals/dispersion.csv"
PLANNERS = "data/recorded-arrivals/planners.csv"
PARTS = [
    Part(PAGE, "dispersion", [DISPERSION], dispersion_table),
    Part(PAGE, "planners", [PLANNERS], planner_table),
]
PICTURES = [Picture("docs/images/arrivals.png", [DISPERSION], dispersion_figure)]
