"""A past turn, job by job: what was seen, what was asked for, and what it rested on."""

from __future__ import annotations

import math
from typing import Any

from faro_lib.control.journal import Header, Turn
from faro_lib.workload.jobs import MINUTE_S


def turn_at(turns: list[Turn], at_s: float | None = None, journal: str = "the journal") -> Turn:
    """The turn in force at an instant, the last one by default.

    Raises
    ------
    ValueError : there is none; one line.
    """
    if not turns:
        raise ValueError(f"{journal}: no decision has been taken yet")
    before = [one for one in turns if at_s is None or one.step.observation.now_s <= at_s]
    if not before:
        first_s = turns[0].step.observation.now_s
        raise ValueError(f"at={at_s:g} is before the first decision, at {first_s:g} s")
    return before[-1]


def explained(header: Header, turn: Turn) -> list[dict[str, Any]]:
    """One row a job; NaN where the plan or the cluster does not tell."""
    seen, plan, history = turn.step.observation, turn.step.plan, turn.step.observation.arrivals_per_min
    rows = []
    for place, job in enumerate(header.jobs):

        def of(column, place=place) -> float:
            return math.nan if column is None else float(column[place])

        rows.append(
            {
                "job": job.name,
                "replicas_before": int(seen.target[place]),
                "running": int(seen.running[place]),
                "replicas": int(turn.step.target[place]),
                "drop": float(plan.drop[place]),
                "reason": plan.reason[place],
                "seen_rps": float(history[place, -1]) / MINUTE_S if history.shape[1] else math.nan,
                "forecast_rps": of(plan.forecast_rps),
                "measured_p99_s": float(seen.p99_s[place]),
                "predicted_p99_s": of(plan.predicted_p99_s),
                "slo_s": job.slo_s,
                "value_more": of(plan.value_more),
                "value_less": of(plan.value_less),
            }
        )
    return rows
