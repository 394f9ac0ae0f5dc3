"""A past decision job by job: observation, request and reason."""

import math
from typing import Any

from faro_lib.control.journal import Header, Tick
from faro_lib.policies.protocol import HOLD
from faro_lib.workload.jobs import MINUTE_S


def tick_at(header: Header, ticks: list[Tick], at_s: float | None = None, journal: str = "the journal") -> Tick:
    """The last tick at or before `at_s`; if None, the last one that does more than hold, or else the last one.

    ValueError if there is no decision yet, or none at this time.
    """
    if not ticks:
        raise ValueError(f"{journal}: no decision has been made yet")
    if at_s is None:
        return next((one for one in reversed(ticks) if set(one.step.plan.reason) != {HOLD}), ticks[-1])
    first_s, last_s = (ticks[n].step.observation.now_s for n in (0, -1))
    if at_s < first_s:
        raise ValueError(f"at={at_s:g} is before the first decision, at {first_s:g} s")
    if at_s >= last_s + header.tick_s:
        raise ValueError(f"at={at_s:g} is after the last decision, at {last_s:g} s")
    return [one for one in ticks if one.step.observation.now_s <= at_s][-1]


def decision_at(
    parts: list[tuple[Header, list[Tick]]], at_s: float | None = None, journal: str = "the journal"
) -> tuple[Header, Tick]:
    """The decision that `tick_at` finds in the parts of a journal, with the header of its part."""
    known = [(header, ticks) for header, ticks in parts if ticks] or parts
    begun = [part for part in known[1:] if at_s is None or part[1][0].step.observation.now_s <= at_s]
    part = begun[-1] if begun else known[0]
    header, ticks = part
    if at_s is not None and ticks and part is not known[-1]:  # until the next part begins
        at_s = min(at_s, ticks[-1].step.observation.now_s) if at_s >= ticks[0].step.observation.now_s else at_s
    return header, tick_at(header, ticks, at_s, journal)


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
