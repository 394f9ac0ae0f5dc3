"""What the remaining loss is made of: one part of the problem at a time is replaced by its ideal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from faro_lib.experiments.compare import limits_of
from faro_lib.forecast.oracle import oracle
from faro_lib.metrics.limit import best_by_minute, most_replicas
from faro_lib.metrics.measures import lost_utility, summarize
from faro_lib.policies import PolicyContext
from faro_lib.policies.faro import tuned
from faro_lib.policies.protocol import Policy
from faro_lib.queueing import LatencyTable, service_class
from faro_lib.simulate import Draws, ServingModel, simulate
from faro_lib.simulate.cluster import PAPER
from faro_lib.workload import Workload
from faro_lib.workload.jobs import MINUTE_S

AS_IS, START, FORECAST, MOVES = "as it is", "start", "forecast", "moves"
ALL, CONSTANT, LIMIT = "all three", "constant rates", "limit"
# What each row of `remaining` replaces by its ideal.
IDEALS = {
    AS_IS: "our edition as it is",
    START: "it begins with the replicas that the first minute needs",
    FORECAST: "it knows the requests of the coming minutes",
    MOVES: "replicas move at once: no cold start, no idle pods",
    ALL: "all of these",
    CONSTANT: "no simulation: the best allocation of each minute, valued at what its rate was worth when it was constant",
    LIMIT: "the clairvoyant, who also knows how each minute's requests will fall",
}


@dataclass(frozen=True, slots=True)
class Beginning:
    """A policy that begins with other replicas (jobs,) than its own."""

    policy: Any
    replicas: np.ndarray

    @property
    def name(self) -> str:
        return self.policy.name

    @property
    def tick_s(self) -> float:
        return self.policy.tick_s

    def initial(self, jobs, capacity):
        return self.replicas

    def start(self, jobs):
        return self.policy.start(jobs)

    def decide(self, state, observation):
        return self.policy.decide(state, observation)


def values_at_constant_rates(workload: Workload, latency_model: LatencyTable, most: int) -> np.ndarray:
    """What each minute is worth on average with x replicas at its rate: (jobs, most + 1, minutes); column 0 nothing."""
    rates_rps = workload.requests_per_min / MINUTE_S
    columns = [
        [
            latency_model.read("relaxed", service_class(job), rate, x) if x else np.zeros(len(rate))
            for x in range(most + 1)
        ]
        for job, rate in zip(workload.jobs, rates_rps)
    ]
    return np.array(columns)


def remaining(
    workload: Workload,
    context: PolicyContext,
    capacity: int,
    draws: Draws,
    *,
    objective: str = "Sum",
    serving_model: ServingModel = PAPER,
) -> pd.DataFrame:
    """Lost utility of our edition with one part ideal, then all, then without any chance; rows in the order of IDEALS.

    Parameters
    ----------
    context : with a forecaster and a measured latency table.
    capacity : cores.
    draws : of the trial.

    Returns
    -------
    part, lost_utility, slo_violation_rate (NaN where nothing was simulated).
    """
    if context.latency_model is None:
        raise ValueError("context.latency_model=None: what constant rates are worth must have been measured")
    value = values_at_constant_rates(workload, context.latency_model, most_replicas(workload.jobs, capacity))
    best = best_by_minute(value, capacity, workload.jobs)
    knowing = replace(context, forecaster=oracle(workload))
    at_once = replace(workload, jobs=tuple(replace(job, cold_start_s=0.0) for job in workload.jobs))
    no_wait = replace(serving_model, idle_s=0.0, retry_s=1.0)
    # Decided in the last seconds of a minute, a move is there for the next one.
    ours, soon = tuned(context, objective), {"cold_start_minutes": 1.0}
    runs: dict[str, tuple[Workload, Policy, ServingModel]] = {
        AS_IS: (workload, ours, serving_model),
        START: (workload, Beginning(ours, best[:, 0]), serving_model),
        FORECAST: (workload, tuned(knowing, objective), serving_model),
        MOVES: (at_once, tuned(context, objective, **soon), no_wait),
        ALL: (at_once, Beginning(tuned(knowing, objective, **soon), best[:, 0]), no_wait),
    }
    rows = []
    for part, (day, policy, world) in runs.items():
        measured = summarize(simulate(day, policy, capacity, draws=draws, serving_model=world))
        rows.append((part, measured["lost_utility"], measured["slo_violation_rate"]))
    jobs, minutes = best.shape
    reached = np.full((jobs, minutes + 1), np.nan)  # the last bin is the overrun's, which no rate describes
    reached[:, :-1] = np.where(
        workload.requests_per_min > 0, value[np.arange(jobs)[:, None], best, np.arange(minutes)], np.nan
    )
    rows.append((CONSTANT, lost_utility(reached), np.nan))
    limit = limits_of(workload, draws, (capacity,), serving_model=serving_model)[0]
    rows.append((LIMIT, limit["lost_utility"], limit["slo_violation_rate"]))
    return pd.DataFrame(rows, columns=["part", "lost_utility", "slo_violation_rate"])
