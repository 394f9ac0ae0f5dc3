"""`faro explain`: a past decision of `faro run` and its reasons."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from faro_ops.cli.shared import milliseconds, number, option, text_table

if TYPE_CHECKING:
    from faro_ops.journal.ticks import Header, Tick


def explain(
    journal: Annotated[str, typer.Argument(help="Journal of `faro run`.")],
    at: Annotated[
        str | None,
        option(
            "Time of the decision: seconds, as this command prints them, or 19:05.",
            default="the last plan",
        ),
    ] = None,
    as_json: Annotated[bool, option("Print one JSON object per job.", "--json")] = False,
) -> None:
    """Explain a past decision of `faro run`, job by job."""
    from faro_ops.journal.reading import last_decision, newest, parts_at
    from faro_ops.journal.ticks import decided, plain
    from faro_ops.operate.export.explanation import decision_at, explained, placements_explained
    from faro_ops.operate.job_states import FINE

    if at is None:
        header, tick = decision_at([last_decision(journal)], None, journal)
    else:
        at_s = _seconds(at, *newest(journal))
        header, tick = decision_at(parts_at(journal, at_s), at_s, journal)
    rows = explained(header, tick)
    if as_json:
        for row in rows:
            print(json.dumps({key: plain(value) for key, value in row.items()}))
        return
    print(_summary(header, tick))
    if at is None and not decided(tick.step.plan):
        print(
            "no plan has been made yet since the start or the last change; "
            "a first plan takes about two minutes"
        )
    for change in header.changes:
        print(change)
    cores = sum(row["after"] * job.cores for row, job in zip(rows, header.jobs))
    print(f"{cores:g} of {tick.step.observation.capacity:g} cores requested")
    print(text_table([_cells(row) for row in rows]))
    if any(not math.isnan(row["first_token_s"]) for row in rows):
        print("latencies of tokens at the SLO's quantile, their limits, and goodput:")
        print(text_table([_tokens(row) for row in rows if not math.isnan(row["first_token_s"])]))
    if any(not math.isnan(row["service_factor"]) for row in rows):
        print("service times, as in the table and as learned from latencies:")
        print(text_table([_times(row) for row in rows]))
    for pool in placements_explained(header, tick):
        for line in _placement_lines(pool):
            print(line)
    for row in rows:
        if row["state"] != FINE:
            since = f"{datetime.fromtimestamp(row['state_since_s']):%Y-%m-%d %H:%M:%S}"
            print(f"job {row['job']!r} is {row['state']}: {row['state_reason']}; since {since}")


def _placement_lines(pool: dict[str, Any]) -> list[str]:
    """Lines that say which models the replicas of a pool hold, and which jobs decide that."""
    kinds = (f"{count} x {' + '.join(models)}" for models, count in pool["replicas"].items())
    lines = [f"pool {pool['pool']!r}: {', '.join(kinds)}"]
    for name, (load, copies) in pool["loads"].items():
        lines.append(f"  {name}: load {number(load, '.2f')}, its model is in {copies} replicas")
    if pool["tightest"]:
        jobs, reach = ", ".join(pool["tightest"]), pool["reach"]
        lines.append(f"  tightest: {jobs} need {pool['need']:.1f} of {reach} replicas")
    return lines


def _summary(header: Header, tick: Tick) -> str:
    """A line that says which policy decided, when, how fast, and whether the plan was applied."""
    now_s = tick.step.observation.now_s
    decision_ms = tick.step.decision_s * 1e3
    clock = "" if header.origin_s is None else f" ({_wall_time(header, tick):%Y-%m-%d %H:%M:%S})"
    if not header.apply:
        outcome = "dry run"
    elif tick.error:
        outcome = f"not applied: {tick.error}"
    else:
        outcome = "applied"
    return f"{header.policy} at {now_s:g} s{clock}, decided in {decision_ms:.0f} ms, {outcome}"


def _wall_time(header: Header, tick: Tick) -> datetime:
    return datetime.fromtimestamp(
        (header.origin_s or 0) + tick.step.observation.now_s / header.scale
    )


def _seconds(at: str, header: Header, ticks: list[Tick]) -> float:
    """Convert `at` to seconds on the run's clock.

    For example, 19:05 is the latest 19:05 before the last tick.
    """
    with suppress(ValueError):
        return float(at)
    try:
        clock = time.fromisoformat(at)
    except ValueError:
        raise ValueError(f"at={at!r} must be seconds or a clock time such as 19:05") from None
    if header.origin_s is None or not ticks:
        raise ValueError(f"at={at!r}: the journal has no clock times")
    last = _wall_time(header, ticks[-1])
    then = datetime.combine(last, clock)
    then -= timedelta(days=then > last)
    return (then.timestamp() - header.origin_s) * header.scale


def _tokens(row: dict[str, Any]) -> dict[str, Any]:
    both = not math.isnan(row["per_token_slo_s"])
    return {
        "job": row["job"],
        "to first token": milliseconds(row["first_token_s"], "dropped"),
        "limit": milliseconds(row["slo_s"] if both else math.nan),
        "per later token": milliseconds(row["per_token_s"], "dropped"),
        "its limit": milliseconds(row["per_token_slo_s"]),
        "goodput/s": number(row["goodput_rps"], ".2f"),
        "observed/s": number(row["observed_rps"], ".2f"),
    }


def _times(row: dict[str, Any]) -> dict[str, Any]:
    factor, error = row["service_factor"], row["service_factor_error"]
    assumed_ms = 1e3 * row["assumed_service_s"]
    return {
        "job": row["job"],
        "assumed": f"{assumed_ms:.3g} ms",
        "learned": f"{assumed_ms * factor:.3g} ms",
        "factor": number(factor, ".2f"),
        "error": f"+-{100 * error:.0f} %",
    }


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "job": row["job"],
        "before": row["before"],
        "after": row["after"],
        "drop": f"{row['drop']:.0%}",
        "observed/s": number(row["observed_rps"], ".1f"),
        "failed/min": number(row["failed_per_min"], ".0f"),
        "forecast/s": number(row["forecast_rps"], ".1f"),
        "observed latency": milliseconds(row["observed_tail_latency_s"], "dropped"),
        "predicted": milliseconds(row["predicted_tail_latency_s"]),
        "SLO": milliseconds(row["slo_s"]),
        "value of +1": number(row["marginal_value_up"], "+.3f"),
        "of -1": number(row["marginal_value_down"], ".3f"),
        "reason": row["reason"],
    }
