"""The two control loops of the forecasting policies: a long-term one, and a reactive one in between (paper, section 4)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from faro_lib.policies.baselines import UP_AFTER_S
from faro_lib.policies.protocol import HOLD, REACTIVE_UP, Observation, Plan, at_least_one_each
from faro_lib.utility import relaxed_utility
from faro_lib.workload import Job, jobs_array


@dataclass(frozen=True, slots=True)
class LoopState:
    """What both loops remember; arrays of shape (jobs,).

    minute : complete minutes that the forecaster has seen.
    since_minute : the minute of the last long-term decision.
    counter_s : seconds above the SLO since the last long-term decision.
    lost : utility that each job has lost so far, as its observed percentiles tell; an unknown one loses nothing.
    """

    jobs: tuple[Job, ...]
    slo_s: np.ndarray
    most: np.ndarray
    forecaster: Any
    counter_s: np.ndarray
    lost: np.ndarray
    minute: int = 0
    since_minute: int = 0
    last_s: float = 0.0


@dataclass(frozen=True, slots=True)
class TwoLoops:
    """A policy that plans now and then and reacts in between; `plan` says how it plans.

    Attributes
    ----------
    forecaster : `forecast.Forecaster`, fitted; it sees each complete minute once.
    first_s, interval_s, phase_s : the long-term loop decides at first_s and whenever now_s - phase_s is a multiple of
        interval_s, but not before first_s.
    reactive : whether the reactive loop runs.
    """

    forecaster: Any
    first_s: float = 60.0
    interval_s: float = 300.0
    phase_s: float = 0.0
    reactive: bool = True
    tick_s: float = 10.0

    def initial(self, jobs, capacity):
        return at_least_one_each(jobs, capacity)

    def start(self, jobs):
        most = np.maximum(jobs_array(jobs, "max_replicas"), 1)
        return LoopState(jobs, jobs_array(jobs, "slo_s"), most, self.forecaster.start(), *np.zeros((2, len(jobs))))

    def plan(self, state: LoopState, observation: Observation) -> Plan:
        raise NotImplementedError

    def decide(self, state: LoopState, observation: Observation):
        state = fold_minutes(state, observation)
        if self.is_long_term(observation.now_s):
            plan = self.plan(state, observation)
            cleared = np.zeros_like(state.counter_s)
            return replace(state, counter_s=cleared, last_s=observation.now_s, since_minute=observation.minute), plan
        return react_up(state, observation, steps=1 if self.reactive else 0)

    def is_long_term(self, now_s: float) -> bool:
        return now_s == self.first_s or (now_s > self.first_s and (now_s - self.phase_s) % self.interval_s == 0)


def fold_minutes(state: LoopState, observation: Observation) -> LoopState:
    """Show the forecaster every complete minute that it has not seen; minutes beyond the observed history are missing."""
    forecaster = state.forecaster
    history = observation.arrivals_per_min
    for minute in range(state.minute, observation.minute):
        back = observation.minute - minute  # 1 = the newest
        known = back <= history.shape[1]
        forecaster = forecaster.update(history[:, -back] if known else np.full(len(history), np.nan))
    lost = state.lost
    if observation.minute > state.minute:
        lost = (
            lost
            + 1
            - relaxed_utility(
                np.where(np.isnan(observation.tail_latency_s), 0.0, observation.tail_latency_s), state.slo_s
            )
        )
    return replace(state, forecaster=forecaster, lost=lost, minute=observation.minute)


def react_up(state: LoopState, observation: Observation, steps: int = 1) -> tuple[LoopState, Plan]:
    """The short-term loop: `steps` replicas more after 30 s above the SLO since the last long-term decision.

    Below the SLO, and during a change, the counter stands still.
    """
    elapsed_s = observation.now_s - state.last_s
    above = (observation.mean_latency_s > state.slo_s) & ~observation.changing
    counter_s = state.counter_s + elapsed_s * above
    up = (counter_s >= UP_AFTER_S) & (steps > 0)
    target = np.minimum(observation.target + steps * up, np.maximum(state.most, observation.target))
    state = replace(state, counter_s=np.where(up, 0.0, counter_s), last_s=observation.now_s)
    return state, Plan(target, observation.drop, tuple(REACTIVE_UP if u else HOLD for u in up))
