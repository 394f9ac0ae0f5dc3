"""`faro explain`: a past decision of `faro run` and its reasons."""

import json
import math
from typing import Annotated, Any

import typer

from faro_lib.cli.shared import milliseconds, option, text_table


def explain(
    journal: Annotated[str, typer.Argument(help="Journal of `faro run`.")],
    at: Annotated[
        float | None,
        option(
            "Time of the decision in seconds, as this command prints it.",
            default="the last decision that is not a hold",
        ),
    ] = None,
    as_json: Annotated[bool, option("Print one JSON object per job.", "--json")] = False,
) -> None:
    """Explain a past decision of `faro run`, job by job."""
    from faro_lib.control.explanation import decision_at, explained
    from faro_lib.control.journal import parts, plain, read
    from faro_lib.policies.protocol import HOLD

    # Reading the archives takes minutes; they are needed only if every decision in the current file is a hold.
    newest = [read(journal)] if at is None else []
    acts = any(set(one.step.plan.reason) != {HOLD} for _, ticks in newest for one in ticks)
    header, tick = decision_at(newest if acts else parts(journal), at, journal)
    rows = explained(header, tick)
    if as_json:
        for row in rows:
            print(json.dumps({key: plain(value) for key, value in row.items()}))
        return
    outcome = "dry run" if not header.apply else f"not applied: {tick.error}" if tick.error else "applied"
    observation, decision_ms = tick.step.observation, tick.step.decision_s * 1e3
    cores = sum(row["after"] * job.cores for row, job in zip(rows, header.jobs))
    print(f"{header.policy} at {observation.now_s:g} s, decided in {decision_ms:.0f} ms, {outcome}")
    for change in header.changes:
        print(change)
    print(f"{cores:g} of {observation.capacity:g} cores requested")
    print(text_table([_cells(row) for row in rows]))


def _cells(row: dict[str, Any]) -> dict[str, str]:
    return {
        "job": row["job"],
        "before": str(row["before"]),
        "after": str(row["after"]),
        "drop": f"{row['drop']:.0%}",
        "observed/s": _number(row["observed_rps"], ".1f"),
        "failed/min": _number(row["failed_per_min"], ".0f"),
        "forecast/s": _number(row["forecast_rps"], ".1f"),
        "observed latency": milliseconds(row["observed_tail_latency_s"], "dropped"),
        "predicted": milliseconds(row["predicted_tail_latency_s"]),
        "SLO": milliseconds(row["slo_s"]),
        "value of +1": _number(row["marginal_value_up"], "+.3f"),
        "of -1": _number(row["marginal_value_down"], ".3f"),
        "reason": row["reason"],
    }


def _number(value: float, spec: str) -> str:
    return "-" if math.isnan(value) else format(value, spec)
