"""The tables and the picture of docs/disaggregated.md."""

from __future__ import annotations

import textwrap

import pandas as pd

from studies.disaggregated.figures import (
    APART,
    CHUNKS,
    POOL,
    draw,
    finding,
    interval,
    sustained,
)
from studies.tables.pages import Part, Picture
from studies.tables.wording import markdown_table

SYSTEMS = (POOL, CHUNKS, APART, "apart, 1:1", "apart, slow link")


def table(shares: pd.DataFrame) -> str:
    """A row for each mix and number of replicas: sustained rates, and the pair at that of APART."""
    rates = sustained(shares)
    rows = []
    for mix, replicas in shares[["mix", "replicas"]].drop_duplicates().itertuples(index=False):
        of_row = rates.loc[(mix, replicas)]
        mean = of_row.mean()
        better = POOL if mean[POOL] >= mean[CHUNKS] else CHUNKS
        gain, low, high = interval((of_row[APART] - of_row[better]).to_numpy() / mean[better])
        rows.append(
            (
                mix,
                str(replicas),
                *(f"{mean[system]:.2f}" for system in SYSTEMS),
                f"{gain:+.0%} ({low:+.0%} to {high:+.0%})",
                pair(shares, mix, replicas, mean[APART]),
            )
        )
    heads = ["requests", "replicas", *SYSTEMS, "apart against the better pool", "pair"]
    return markdown_table(heads, rows, right=heads[1:])


def pair(shares: pd.DataFrame, mix: str, replicas: int, rate_rps: float) -> str:
    """The pair that was chosen at the rate in the table nearest to `rate_rps` per replica."""
    of_row = shares[
        (shares["mix"] == mix) & (shares["replicas"] == replicas) & (shares["system"] == APART)
    ]
    nearest = of_row.loc[(of_row["rate_rps"] / replicas - rate_rps).abs().idxmin()]
    return f"{nearest['prefill']:.0f} + {replicas - nearest['prefill']:.0f}"


def day_table(day: pd.DataFrame) -> str:
    """A row for each capacity: what Faro loses on one pool per service and with roles."""
    rows = []
    for capacity, part in day.groupby("capacity", sort=True):
        pool, apart = (
            part[part["system"] == system].set_index("trial").sort_index()
            for system in (POOL, APART)
        )
        less, low, high = interval((apart["lost_utility"] - pool["lost_utility"]).to_numpy())
        lost = (f"{one['lost_utility'].mean():.3f}" for one in (pool, apart))
        late = (f"{one['slo_violation_rate'].mean():.1%}" for one in (pool, apart))
        difference = f"{less:+.3f} ({low:+.3f} to {high:+.3f})"
        rows.append((str(capacity), *lost, difference, *late))
    of_pool, of_apart = "one pool", "pairs or one pool"
    heads = ["replicas", f"lost, {of_pool}", f"lost, {of_apart}", "difference"]
    heads += [f"late, {of_pool}", f"late, {of_apart}"]
    return markdown_table(heads, rows, right=heads)


def filled(shares: pd.DataFrame) -> str:
    return textwrap.fill(finding(shares), 100)


PAGE = "docs/disaggregated.md"
RECORDED = "data/recorded-llm/disaggregated"
SHARES = f"{RECORDED}.csv"
PARTS = [
    Part(PAGE, "rates", [SHARES], table),
    Part(PAGE, "finding", [SHARES], filled),
    Part(PAGE, "day", [f"{RECORDED}-day.csv"], day_table),
]
PICTURES = [Picture("docs/images/disaggregated.png", [SHARES], lambda shares: draw(shares).figure)]
