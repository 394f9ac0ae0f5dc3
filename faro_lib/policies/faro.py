"""Faro: forecast, table, exact solution; a long-term loop, and a reactive one in between (paper, section 4)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from faro_lib.allocate import solve
from faro_lib.policies.base import HOLD, PLANNED, REACT_UP, Observation, Plan, at_least_one_each
from faro_lib.policies.baselines import UP_AFTER_S
from faro_lib.policies.registry import register
from faro_lib.utility import build_table
from faro_lib.workload import Job, jobs_array
from faro_lib.workload.jobs import MINUTE_S


@dataclass(frozen=True, slots=True)
class FaroState:
    jobs: tuple[Job, ...]
    slo_s: np.ndarray
    most: np.ndarray
    forecaster: Any
    minute: int  # complete minutes that the forecaster has seen
    counter_s: np.ndarray  # seconds above the SLO since the last long-term decision
    last_s: float


@dataclass(frozen=True, slots=True)
class Faro:
    """Plan replicas from sample paths of the coming minutes.

    Attributes
    ----------
    forecaster : `forecast.Forecaster`, fitted; it sees each complete minute once.
    objective : a name in `allocate.OBJECTIVES`.
    performance : the latency model, as `utility.build_table` takes it.
    samples, horizon_min : sample paths and minutes of a forecast.
    first_s, interval_s : the long-term loop decides at first_s and at every multiple of interval_s.
    """

    forecaster: Any
    objective: str = "Sum"
    name: str = "Faro-Sum"
    performance: Any = "half-mmc"
    samples: int = 100
    horizon_min: int = 7
    first_s: float = 60.0
    interval_s: float = 300.0
    tick_s: float = 10.0

    def initial(self, jobs, capacity):
        return at_least_one_each(jobs, capacity)

    def start(self, jobs):
        n = len(jobs)
        forecaster = self.forecaster.start()
        return FaroState(
            jobs, jobs_array(jobs, "slo_s"), jobs_array(jobs, "max_replicas"), forecaster, 0, np.zeros(n), 0.0
        )

    def decide(self, state: FaroState, observation: Observation):
        state = fold_minutes(state, observation)
        if observation.now_s == self.first_s or observation.now_s % self.interval_s == 0:
            plan = self.plan(state, observation)
            state = replace(state, counter_s=np.zeros_like(state.counter_s), last_s=observation.now_s)
            return state, plan
        return react_up(state, observation)

    def plan(self, state: FaroState, observation: Observation) -> Plan:
        rates_rps = state.forecaster.sample(self.horizon_min, self.samples) / MINUTE_S
        table = build_table(
            state.jobs,
            rates_rps,
            observation.running,
            performance=self.performance,
            max_replicas=int(observation.capacity),
        )
        chosen = solve(table, observation.capacity, self.objective, current=observation.target)
        moved = chosen.replicas != observation.target
        return Plan(
            chosen.replicas,
            chosen.drop,
            tuple(PLANNED if m else HOLD for m in moved),
            tries=5,
            forecast_rps=rates_rps.mean(axis=(1, 2)),
        )


def fold_minutes(state: FaroState, observation: Observation) -> FaroState:
    """Show the forecaster every complete minute that it has not seen; minutes beyond the observed history are missing."""
    forecaster = state.forecaster
    history = observation.arrivals_per_min
    for minute in range(state.minute, observation.minute):
        back = observation.minute - minute  # 1 = the newest
        known = back <= history.shape[1]
        forecaster = forecaster.update(history[:, -back] if known else np.full(len(history), np.nan))
    return replace(state, forecaster=forecaster, minute=observation.minute)


def react_up(state: FaroState, observation: Observation) -> tuple[FaroState, Plan]:
    """The short-term loop: one replica more after 30 s above the SLO since the last long-term decision.

    Below the SLO, and during a change, the counter stands still.
    """
    elapsed_s = observation.now_s - state.last_s
    above = (observation.mean_latency_s > state.slo_s) & ~observation.changing
    counter_s = state.counter_s + elapsed_s * above
    up = counter_s >= UP_AFTER_S
    target = np.minimum(observation.target + up, np.maximum(state.most, observation.target))
    state = replace(state, counter_s=np.where(up, 0.0, counter_s), last_s=observation.now_s)
    return state, Plan(target, observation.drop, tuple(REACT_UP if u else HOLD for u in up))


@register("Faro-Sum")
def faro_sum(kit):
    return Faro(kit.need("forecaster", "Faro-Sum"))
