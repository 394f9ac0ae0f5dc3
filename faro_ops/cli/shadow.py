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
    from faro_ops.advise.audit.shadow import plan_scores
    from faro_ops.journal.reading import with_same_jobs
    from faro_ops.journal.ticks import plain

    header, recorded = with_same_jobs(journal)
    ticks = list(recorded)
    if not ticks:
        raise ValueError(f"{journal}: no decision has been made yet")
    rows = plan_scores(header, ticks)
    if as_json:
        for row in rows:
            print(json.dumps({key: plain(value) for key, value in row.items()}))
        return
    print(
        f"{header.policy}, utility lost per minute; "
        "a difference below zero is in favour of its plans"
    )
    print(text_table(rows))
    *of_jobs, of_all = rows
    if of_all["high"] < 0:
        verdict = "better"
    elif of_all["low"] > 0:
        verdict = "worse"
    else:
        verdict = "neither better nor worse"
    worse = [row["job"] for row in of_jobs if row["low"] > 0]
    print(
        f"over all services the plans would have been {verdict}; "
        f"worse for: {', '.join(worse) or 'none'}"
    )
