"""The tables of tuned rivals.

docs/comparison.md has the published day, docs/elsewhere.md azure-2019, docs/tuning.md the choices.
"""

from __future__ import annotations

import textwrap
from functools import partial

import numpy as np
import pandas as pd

from faro_lib.metrics.paired import unit_interval
from studies.days.run import MIN_DAYS
from studies.rivals.autoscalers import RIVALS
from studies.rivals.run import LEADER, STATIC
from studies.rivals.tuning import edges
from studies.tables.pages import Part, content
from studies.tables.paired import t_interval
from studies.tables.wording import markdown_table

LOSSES = {"published": "lost_utility_published", "azure-2019": "lost_utility"}
TUNED = ", tuned"
# Policies of data/published-run that have a rival's rule with other settings.
PUBLISHED_RUN = "data/published-run/summary.csv"
UNTUNED = {"HPA": ("HPA", "HPA-90", "HPA-30"), "RayServe": ("RayServe",), "MArk": ("MArk",)}


def runs_of(world: str) -> str:
    return f"data/recorded-rivals/{world}.csv"


def table(world: str, runs: pd.DataFrame, untuned: pd.DataFrame | None = None) -> str:
    """A row per policy: lost utility by capacity, and minus that of Faro-Sum with its interval.

    A rival has its setting among the chosen one and those of UNTUNED that loses least. `untuned`
    has the runs of the latter, of day 11, and the same trials.
    """
    loss = LOSSES[world]
    capacities = sorted(runs["capacity_cores"].unique(), reverse=True)
    rows = []
    for policy in [name for name in (LEADER, STATIC, *RIVALS) if name in set(runs["policy"])]:
        cells = []
        for capacity in capacities:
            at = runs[runs["capacity_cores"] == capacity].set_index(["day", "trial", "policy"])
            lost = at[loss].unstack("policy")
            own, least, note = lost[policy], lost.mean().min(), ""
            for other in UNTUNED.get(policy, ()) if untuned is not None else ():
                of_other = losses_of(untuned, other, capacity, loss).reindex(own.index)
                if of_other.mean() < own.mean():
                    own, note = of_other, f" ({other}, not tuned)"
            text = f"{own.mean():.3f}{note}"
            if policy != LEADER:
                difference, low, high = interval(own, lost[LEADER])
                text += f", {difference:+.3f} ({low:+.2f} to {high:+.2f})"
            cells.append(f"**{text}**" if own.mean() == least else text)
        rows.append((policy if policy in (LEADER, STATIC) else policy + TUNED, *cells))
    return markdown_table(["policy", *(f"{capacity:g} cores" for capacity in capacities)], rows)


def losses_of(runs: pd.DataFrame, policy: str, capacity: float, loss: str) -> pd.Series:
    """Losses of a policy on day 11, by day and trial."""
    own = runs[(runs["policy"] == policy) & (runs["capacity_cores"] == capacity)]
    return own.assign(day=11).set_index(["day", "trial"])[loss]


def interval(lost: pd.Series, reference: pd.Series) -> tuple[float, float, float]:
    """(mean difference, low, high): over days if there are MIN_DAYS, else over the trials."""
    of_day = (lost - reference).groupby(level="day").mean()
    if len(of_day) >= MIN_DAYS:
        values = of_day.to_numpy()[None, None]
        return unit_interval(values, np.ones_like(values))
    mean, half = t_interval(lost, reference)
    return mean, mean - half, mean + half


def choices(*tables: pd.DataFrame) -> str:
    """A row per workload, rival and capacity: the chosen settings, and which are at the edge.

    A sentence names the rivals that have not been tuned yet. tables : those of LOSSES, in order.
    """
    rows, missing = [], []
    for world, tried in zip(LOSSES, tables):
        for name, rival in RIVALS.items():
            of_rival = tried[tried["rival"] == name]
            if of_rival.empty:
                missing.append(f"{name} on {world}")
                continue
            for row in of_rival[of_rival["chosen"]].to_dict("records"):
                capacity = row["capacity_cores"]
                settings = ", ".join(f"{key} {float(row[key]):g}" for key in rival.settings)
                number = (of_rival["capacity_cores"] == capacity).sum()
                edge = edges(row, rival.settings) or "-"
                lost = f"{row['lost_utility']:.3f}"
                rows.append((world, name, capacity, settings, lost, number, edge))
    heads = [
        "workload",
        "rival",
        "cores",
        "chosen",
        "lost utility",
        "settings tried",
        "at the edge",
    ]
    text = markdown_table(heads, rows)
    if missing:
        text += "\n\n" + textwrap.fill(f"Not tuned yet: {', '.join(missing)}.", 100)
    return text


def with_tuned(losses: pd.DataFrame) -> pd.DataFrame:
    """`losses` (a row per policy, a column per capacity) with the tuned rivals on day 11 added."""
    runs = content(runs_of("published"))
    own = runs[~runs["policy"].isin((LEADER, STATIC))].groupby(["policy", "capacity_cores"])
    tuned = own[LOSSES["published"]].mean().unstack()
    return pd.concat([losses, tuned.rename(index=lambda name: name + TUNED)])


PARTS = [
    Part(
        "docs/comparison.md",
        "tuned rivals",
        [runs_of("published"), PUBLISHED_RUN],
        partial(table, "published"),
    ),
    Part(
        "docs/elsewhere.md", "tuned rivals", [runs_of("azure-2019")], partial(table, "azure-2019")
    ),
    Part("docs/tuning.md", "choices", [runs_of(f"{world}-tuning") for world in LOSSES], choices),
]
