"""`faro explain`: what a past decision was, and what it rested on."""

from __future__ import annotations

import json
import math
from typing import Annotated

import typer


def explain(
    journal: Annotated[str, typer.Argument(help="The journal of `faro run`.")],
    at: Annotated[float | None, typer.Option(help="Seconds since the run began; by default the last decision.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a job.")] = False,
) -> None:
    """Tell why a decision of `faro run` was as it was, job by job.

    What was seen, what was asked, and the reason, at the instant --at.
    """
    from faro_lib.control.explanation import explained, tick_at
    from faro_lib.control.journal import read

    header, ticks = read(journal)
    one = tick_at(ticks, at, journal)
    rows = explained(header, one)
    if as_json:
        for row in rows:
            print(json.dumps({key: _plain(value) for key, value in row.items()}))
        return
    seen = one.step.observation
    carried_out = (
        "only printed (dry run)" if not header.act else f"not carried out: {one.error}" if one.error else "applied"
    )
    cores = sum(row["replicas"] * job.cores for row, job in zip(rows, header.jobs))
    print(f"{header.policy} at {seen.now_s:g} s, {one.step.decision_s * 1e3:.0f} ms, {carried_out}")
    print(f"{cores:g} of {seen.capacity:g} cores asked for")
    width = max(4, *(len(row["job"]) for row in rows))
    print(
        f"{'job':<{width}}  was  now  drop   seen/s  expected/s  p99 seen  predicted      SLO  one more  one less  why"
    )
    for row in rows:
        print(
            f"{row['job']:<{width}}  {row['replicas_before']:>3}  {row['replicas']:>3}  {row['drop']:>4.0%}  "
            f"{_number(row['observed_rps'], '.1f'):>7}  {_number(row['forecast_rps'], '.1f'):>10}  "
            f"{_ms(row['observed_tail_latency_s']):>8}  {_ms(row['predicted_tail_latency_s']):>9}  {_ms(row['slo_s']):>7}  "
            f"{_number(row['marginal_value_up'], '+.3f'):>8}  {_number(row['marginal_value_down'], '.3f'):>8}  {row['reason']}"
        )


def _plain(value):
    """What JSON can hold: null where nothing is known, a word for what never ended."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf"
    return value


def _number(value: float, shape: str) -> str:
    return "-" if math.isnan(value) else format(value, shape)


def _ms(value_s: float) -> str:
    return "-" if math.isnan(value_s) else "refused" if math.isinf(value_s) else f"{1e3 * value_s:.0f} ms"
