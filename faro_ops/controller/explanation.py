"""Explain a past decision: the observation, the requested replicas and the reason, for each job."""

import math
from typing import Any

from faro_lib.protocol import HOLD, OVERRIDE
from faro_lib.workload.jobs import MINUTE_S
from faro_ops.controller.job_states import FINE
from faro_ops.controller.journal import Header, Tick
from faro_ops.policies.protocol import live_observation, live_plan


def decision_at(
    parts: list[tuple[Header, list[Tick]]], at_s: float | None = None, journal: str = "the journal"
) -> tuple[Header, Tick]:
    """(header, tick) of the last tick at or before `at_s`, in seconds since time 0 of the run.

    `parts` holds (header, ticks) of each part of a journal, oldest first. If `at_s` is None, use
    only the last part with ticks. Return its last tick that decided anything (see `decided`), or
    its last tick if none did. Raises ValueError if there are no ticks, or if `at_s` is before the
    first or at least `header.tick_s` after the last tick.
    """
    decisions = [(header, tick) for header, ticks in parts for tick in ticks]
    if not decisions:
        raise ValueError(f"{journal}: no decision has been made yet")
    header, last = decisions[-1]
    if at_s is None:
        acting = [tick for of, tick in decisions if of is header and decided(tick)]
        return header, acting[-1] if acting else last
    first_s, last_s = _now_s(decisions[0][1]), _now_s(last)
    if at_s < first_s:
        raise ValueError(f"at={at_s:g} is before the first decision, at {first_s:g} s")
    if not at_s < last_s + header.tick_s:
        raise ValueError(f"at={at_s:g} is after the last decision, at {last_s:g} s")
    return next((of, tick) for of, tick in reversed(decisions) if _now_s(tick) <= at_s)


def _now_s(tick: Tick) -> float:
    return tick.step.observation.now_s


def decided(tick: Tick) -> bool:
    """Whether a tick's plan has a forecast or, for some job, a reason besides HOLD and OVERRIDE."""
    plan = tick.step.plan
    return plan.forecast_rps is not None or not set(plan.reason) <= {HOLD, OVERRIDE}


def explained(header: Header, tick: Tick) -> list[dict[str, Any]]:
    """One dict per job with replicas, measurements, predictions, SLO and reason; unknown is NaN.

    `state` and `state_reason` say what was wrong with the job at the tick, if anything.
    """
    observation, plan = live_observation(tick.step.observation), live_plan(tick.step.plan)
    history = observation.arrivals_per_min
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
        "service_factor": plan.service_factor,
        "service_factor_error": plan.service_factor_error,
    }
    rows = []
    for n, job in enumerate(header.jobs):
        row: dict[str, Any] = {"job": job.name}
        for name, column in columns.items():
            row[name] = math.nan if column is None else column[n].item()
        state, why = tick.troubled.get(job.name, (FINE, ""))
        row["assumed_service_s"] = job.busy_s
        row |= {"slo_s": job.slo_s, "reason": plan.reason[n], "state": state, "state_reason": why}
        rows.append(row)
    return rows
