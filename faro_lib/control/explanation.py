"""A past tick, job by job: what was seen, what was asked for, and what it rested on."""

from __future__ import annotations

import math
from typing import Any

from faro_lib.control.journal import Header, Tick
from faro_lib.workload.jobs import MINUTE_S


def tick_at(ticks: list[Tick], at_s: float | None = None, journal: str = "the journal") -> Tick:
    """The tick in force at an instant, the last one by default.

    Raises
    ------
    ValueError : there is none; one line.
    """
    if not ticks:
        raise ValueError(f"{journal}: no decision has been taken yet")
    before = [one for one in ticks if at_s is None or one.step.observation.now_s <= at_s]
    if not before:
        first_s = ticks[0].step.observation.now_s
        raise ValueError(f"at={at_s:g} is before the first decision, at {first_s:g} s")
    return before[-1]


def explained(header: Header, tick: Tick) -> list[dict[str, Any]]:
    """One row a job; NaN where the plan or the cluster does not tell."""
    seen, plan, history = tick.step.observation, tick.step.plan, tick.step.observation.arrivals_per_min
    rows = []
    for place, job in enumerate(header.jobs):

        def of(column, place=place) -> float:
            return math.nan if column is None else float(column[place])

        rows.append(
            {
                "job": job.name,
                "replicas_before": int(seen.target[place]),
                "running": int(seen.running[place]),
                "replicas": int(tick.step.target[place]),
                "drop": float(plan.drop[place]),
                "reason": plan.reason[place],
                "observed_rps": float(history[place, -1]) / MINUTE_S if history.shape[1] else math.nan,
                "forecast_rps": of(plan.forecast_rps),
                "observed_tail_latency_s": float(seen.tail_latency_s[place]),
                "predicted_tail_latency_s": of(plan.predicted_tail_latency_s),
                "slo_s": job.slo_s,
                "marginal_value_up": of(plan.marginal_value_up),
                "marginal_value_down": of(plan.marginal_value_down),
            }
        )
    return rows
