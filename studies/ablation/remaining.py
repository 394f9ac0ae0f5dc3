"""Decomposition of the remaining loss: make one part of the problem ideal at a time."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from faro_lib.allocate import best_by_minute
from faro_lib.experiments.limits import max_replicas_of_any
from faro_lib.experiments.trials import run_trials
from faro_lib.metrics.measures import lost_utility, summarize
from faro_lib.policies import PolicyContext
from faro_lib.policies.faro import tuned
from faro_lib.queueing import LatencyModel, model_of
from faro_lib.simulate import Draws
from faro_lib.simulate.cluster import PAPER
from faro_lib.workload import Workload
from faro_lib.workload.jobs import MINUTE_S
from studies.comparison.run import limits_of
from studies.forecast.oracle import oracle

AS_IS, START, FORECAST, MOVES = "as it is", "start", "forecast", "moves"
ALL, CONSTANT, LIMIT = "all three", "constant rates", "limit"
# Row of the table that `remaining` returns -> what this row assumes.
IDEALS = {
    AS_IS: "nothing",
    START: "the run starts with the replicas that the first minute needs",
    FORECAST: "the requests of the coming minutes are known",
    MOVES: "replicas start and stop instantly",
    ALL: "all three",
    CONSTANT: "the optimal allocation of each minute at its mean rate, without simulation",
    LIMIT: "the optimal allocation of each minute for its actual arrivals",
}


def values_at_constant_rates(
    workload: Workload, latency_model: LatencyModel, max_replicas: int
) -> np.ndarray:
    """Expected utility of each minute at its mean rate, (jobs, max_replicas + 1, minutes)."""
    rates_rps = workload.requests_per_min / MINUTE_S
    value = np.zeros((len(workload.jobs), max_replicas + 1, workload.minutes))
    for of_job, job, rate in zip(value, workload.jobs, rates_rps):
        for replicas in range(1, max_replicas + 1):
            of_job[replicas] = latency_model.expected_utility(job, rate, replicas, "relaxed")
    return value


def remaining(
    workload: Workload, context: PolicyContext, capacity: int, draws: Draws
) -> pd.DataFrame:
    """Loss of Faro-Sum with one part of the problem made ideal at a time: a row for each of IDEALS.

    Parameters
    ----------
    context : must have a forecaster and a measured latency table.
    capacity : cores.

    Returns
    -------
    Columns part, lost_utility and slo_violation_rate, which is NaN for CONSTANT and LIMIT, because
    they are not simulated.
    """
    if context.latency_model is None:
        raise ValueError(
            "context.latency_model=None: the value at constant rates needs a measured latency table"
        )
    value = values_at_constant_rates(
        workload, model_of(context.latency_model), max_replicas_of_any(workload.jobs, capacity)
    )
    best = best_by_minute(value, workload.jobs, capacity)
    informed = replace(context, forecaster=oracle(workload))
    at_once = replace(workload, jobs=tuple(replace(job, cold_start_s=0.0) for job in workload.jobs))
    no_wait = replace(PAPER, idle_s=0.0, retry_s=1.0)
    # Faro decides at the end of the forecast's first minute. Replicas that start instantly serve
    # from the next minute.
    soon: dict[str, Any] = {"cold_start_minutes": 1.0}
    first = best[:, 0]
    cases = [
        (AS_IS, workload, tuned(context), PAPER, None),
        (START, workload, tuned(context), PAPER, first),
        (FORECAST, workload, tuned(informed), PAPER, None),
        (MOVES, at_once, tuned(context, **soon), no_wait, None),
        (ALL, at_once, tuned(informed, **soon), no_wait, first),
    ]
    rows = []
    for part, day, policy, model, initial in cases:
        (trial,) = run_trials(
            day, {part: policy}, capacity, [draws], serving_model=model, initial=initial
        )
        measures = summarize(trial.run)
        rows.append((part, measures["lost_utility"], measures["slo_violation_rate"]))
    jobs, minutes = best.shape
    reached = np.full((jobs, minutes + 1), np.nan)  # `lost_utility` ignores the last column
    of_best = value[np.arange(jobs)[:, None], best, np.arange(minutes)]
    reached[:, :-1] = np.where(workload.requests_per_min > 0, of_best, np.nan)
    rows.append((CONSTANT, lost_utility(reached), np.nan))
    rows.append((LIMIT, limits_of(workload, draws, (capacity,))["lost_utility"].item(), np.nan))
    return pd.DataFrame(rows, columns=["part", "lost_utility", "slo_violation_rate"])
