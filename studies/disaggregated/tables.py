"""The tables and the picture of docs/disaggregated.md."""

from __future__ import annotations

import textwrap

import pandas as pd

from studies.disaggregated.figures import (
    APART,
    CHUNKS,
    PAIR_BY_RATE,
    PAIR_FOR_ALL,
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


def solved_table(solved: pd.DataFrame) -> str:
    """A row for each load and choice: what each service gets, and the sum of the shares."""
    rows = []
    for (load, system), part in solved.groupby(["load", "system"], sort=False):
        of_mix = part.drop_duplicates("mix")
        total, low, high = interval(part.groupby("seed")["share"].sum().to_numpy())
        held = [
            f"{row.prefill} + {row.decode}" if row.prefill else f"{row.decode}"
            for row in of_mix.itertuples()
        ]
        rows.append((f"{load:g}", system, *held, f"{total:.3f} ({low:.3f} to {high:.3f})"))
    heads = ["load", "replicas are", *solved["mix"].unique(), "sum of shares"]
    return markdown_table(heads, rows, right=heads[2:])


def roles_table(roles: pd.DataFrame) -> str:
    """A row for each mix and number of replicas: sustained rates with either choice of the pair."""
    rates = sustained(roles)
    rows = []
    for mix, replicas in roles[["mix", "replicas"]].drop_duplicates().itertuples(index=False):
        of_row = rates.loc[(mix, replicas)]
        by_rate, for_all = of_row[PAIR_BY_RATE].mean(), of_row[PAIR_FOR_ALL].mean()
        lost = (of_row[PAIR_FOR_ALL] - of_row[PAIR_BY_RATE]).to_numpy() / by_rate
        gain, low, high = interval(lost)
        difference = f"{gain:+.1%} ({low:+.1%} to {high:+.1%})"
        one = roles[
            (roles["mix"] == mix)
            & (roles["replicas"] == replicas)
            & (roles["system"] == PAIR_FOR_ALL)
        ]
        prefill = int(one["prefill"].iloc[0])
        held = f"{prefill} + {replicas - prefill}"
        rows.append((mix, str(replicas), held, f"{by_rate:.2f}", f"{for_all:.2f}", difference))
    heads = ["requests", "replicas", "pair for all", PAIR_BY_RATE, PAIR_FOR_ALL, "difference"]
    return markdown_table(heads, rows, right=heads[1:])


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
    Part(PAGE, "solver", [f"{RECORDED}-solver.csv"], solved_table),
    Part(PAGE, "day", [f"{RECORDED}-day.csv"], day_table),
    Part(PAGE, "roles", [f"{RECORDED}-roles.csv"], roles_table),
]
PICTURES = [Picture("docs/images/disaggregated.png", [SHARES], lambda shares: draw(shares).figure)]
