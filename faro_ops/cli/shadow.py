"""`faro shadow`: compare the plans of a dry run with the replicas that ran."""

import json
from typing import Annotated

import typer

from faro_ops.cli.shared import option, text_table


def shadow(
    journal: Annotated[str, typer.Argument(help="Journal of `faro run` without --apply.")],
    as_json: Annotated[
        bool, option("Print one JSON object per job, and one for all.", "--json")
    ] = False,
) -> None:
    """Score the forecasts, predicted latencies and plans of a dry run."""
    from faro_ops.controller.journal import plain, with_same_jobs
    from faro_ops.recommend.shadow import plan_scores

    header, ticks = with_same_jobs(journal)
    if not ticks:
        raise ValueError(f"{journal}: no decision has been made yet")
    rows = plan_scores(header, ticks)
    if as_json:
        print(
            *(json.dumps({key: plain(value) for key, value in row.items()}) for row in rows),
            sep="\n",
        )
        return
    print(
        f"{header.policy}, utility lost per minute; a difference below zero is in favour of its plans"
    )
    print(text_table(rows))
    worse = [row["job"] for row in rows[:-1] if row["low"] > 0]
    better = (
        "better"
        if rows[-1]["high"] < 0
        else "worse"
        if rows[-1]["low"] > 0
        else "neither better nor worse"
    )
    print(
        f"over all services the plans would have been {better}; worse for: {', '.join(worse) or 'none'}"
    )
