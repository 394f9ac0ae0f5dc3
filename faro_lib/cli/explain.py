"""`faro explain`: a past decision of `faro run`, job by job."""

from __future__ import annotations

import json
import math
from typing import Annotated

import typer


def explain(
    journal: Annotated[str, typer.Argument(help="The journal of `faro run`.")],
    at: Annotated[float | None, typer.Option(help="Seconds since the run began; default: the last decision.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per job.")] = False,
) -> None:
    """Explain a past decision of `faro run`, job by job: observation, forecast, prediction and reason."""
    from faro_lib.control.explanation import explained, tick_at
    from faro_lib.control.journal import read

    header, ticks = read(journal)
    one = tick_at(ticks, at, journal)
    rows = explained(header, one)
    if as_json:
        for row in rows:
            print(json.dumps({key: _plain(value) for key, value in row.items()}))
        return
    applied = "dry run" if not header.apply else f"not applied: {one.error}" if one.error else "applied"
    cores = sum(row["after"] * job.cores for row, job in zip(rows, header.jobs))
    observation = one.step.observation
    print(f"{header.policy} at {observation.now_s:g} s, decided in {one.step.decision_s * 1e3:.0f} ms, {applied}")
    print(f"{cores:g} of {observation.capacity:g} cores requested")
    width = max(4, *(len(row["job"]) for row in rows))
    print(
        f"{'job':<{width}}  before  after  drop  observed rps  forecast rps  observed latency  predicted      SLO  "
        "+1 replica  -1 replica  reason"
    )
    for row in rows:
        print(
            f"{row['job']:<{width}}  {row['before']:>6}  {row['after']:>5}  {row['drop']:>4.0%}  "
            f"{_number(row['observed_rps'], '.1f'):>12}  {_number(row['forecast_rps'], '.1f'):>12}  "
            f"{_ms(row['observed_tail_latency_s'], 'dropped'):>16}  "
            f"{_ms(row['predicted_tail_latency_s'], 'unbounded'):>9}  {_ms(row['slo_s'], ''):>7}  "
            f"{_number(row['marginal_value_up'], '+.3f'):>10}  {_number(row['marginal_value_down'], '.3f'):>10}  "
            f"{row['reason']}"
        )


def _plain(value):
    """The value as JSON can hold it: null for NaN, "inf" for infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf"
    return value


def _number(value: float, shape: str) -> str:
    return "-" if math.isnan(value) else format(value, shape)


def _ms(value_s: float, infinite: str) -> str:
    return "-" if math.isnan(value_s) else infinite if math.isinf(value_s) else f"{1e3 * value_s:.0f} ms"
