"""A past decision job by job: observation, request and reason."""

import math
from typing import Any

from faro_lib.control.journal import Header, Tick
from faro_lib.workload.jobs import MINUTE_S


def tick_at(ticks: list[Tick], at_s: float | None = None, journal: str = "the journal") -> Tick:
    """The last tick, or the last one at or before `at_s`; ValueError if there is none."""
    if not ticks:
        raise ValueError(f"{journal}: no decision has been made yet")
    before = [one for one in ticks if at_s is None or one.step.observation.now_s <= at_s]
    if not before:
        raise ValueError(f"at={at_s:g} is before the first decision, at {ticks[0].step.observation.now_s:g} s")
    return before[-1]


def explained(header: Header, tick: Tick) -> list[dict[str, Any]]:
    """One row per job; unknown values are NaN."""
    observation, plan, history = tick.step.observation, tick.step.plan, tick.step.observation.arrivals_per_min
    columns = {
        "before": observation.target,
        "running": observation.running,
        "after": tick.step.target,
        "drop": plan.drop,
        "observed_rps": history[:, -1] / MINUTE_S if history.shape[1] else None,
        "failed_per_min": observation.failed_per_min,
        "forecast_rps": plan.forecast_rps,
        "observed_tail_latency_s": observation.tail_latency_s,
        "predicted_tail_latency_s": plan.predicted_tail_latency_s,
        "marginal_value_up": plan.marginal_value_up,
        "marginal_value_down": plan.marginal_value_down,
    }
    return [
        {"job": job.name}
        | {name: math.nan if column is None else column[n].item() for name, column in columns.items()}
        | {"slo_s": job.slo_s, "reason": plan.reason[n]}
        for n, job in enumerate(header.jobs)
    ]
