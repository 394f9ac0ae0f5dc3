"""The paper's edition: MArk/Cocktail/Barista, and Faro as its published code decides (paper/faro.md, section 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from faro_lib.allocate import solve_paper
from faro_lib.forecast import HORIZON_MINUTES
from faro_lib.policies.loops import LoopState, TwoLoops
from faro_lib.policies.protocol import HISTORY_MINUTES, HOLD, PLANNED, Observation, Plan
from faro_lib.policies.registry import register
from faro_lib.workload import jobs_array
from faro_lib.workload.jobs import MINUTE_S

OBJECTIVES = {
    "Faro-Sum": "Sum",
    "Faro-Fair": "Fair",
    "Faro-FairSum": "FairSum",
    "Faro-PenaltySum": "PenaltySum",
    "Faro-PenaltyFairSum": "PenaltyFairSum",
}


def counts_since(state: LoopState, observation: Observation) -> np.ndarray:
    """Requests per minute since the last long-term decision, (jobs, minutes): the forecast before there is one."""
    minutes = max(1, min(observation.minute - state.since_minute, observation.arrivals_per_min.shape[1]))
    return observation.arrivals_per_min[:, -minutes:]


@dataclass(frozen=True, slots=True)
class MArk(TwoLoops):
    """Predictive per job, each for itself: x = ceil(max forecast rate x service time / SLO), with the reactive step."""

    name: str = "MArk"
    horizon_minutes: int = HORIZON_MINUTES

    def plan(self, state, observation):
        if observation.minute < HISTORY_MINUTES:
            per_min = counts_since(state, observation)
        else:
            per_min = state.forecaster.mean(self.horizon_minutes)
        rate_rps = np.nanmax(per_min, axis=1) / MINUTE_S
        per_replica_rps = state.slo_s / jobs_array(state.jobs, "service_time_s")
        wanted = np.ceil(np.nan_to_num(rate_rps) / per_replica_rps - 1e-9).astype(np.int64)
        target = np.clip(wanted, np.maximum(1, jobs_array(state.jobs, "min_replicas")), state.most)
        return _long_term(target, np.zeros(len(target)), observation, rate_rps)


@dataclass(frozen=True, slots=True)
class PaperFaro(TwoLoops):
    """Faro by its published settings: one quantile of the forecast, COBYLA on the continuous relaxation, rounding, shrinking.

    Every field is a step of the paper's ablation (its Figure 16).

    Attributes
    ----------
    objective : a name that `allocate.solve_paper` knows.
    latency_model, utility : "upper-bound" or "half-mmc"; "precise" or "relaxed".
    predictive : False decides on the counts since the last decision.
    quantile : of the forecast, a minute at a time; with `adaptive` raised in steps of 0.1 to 0.9 while the solution leaves
        replicas free, keeping the last that left some. None: the mean, a point forecast.
    shrink : give back what is not worth 1e-4.
    method : "nlopt-cobyla" is Powell's code, as SciPy had it when the paper was written; SciPy 1.16 replaced it.
    """

    name: str = "Faro-Sum (paper)"
    objective: str = "Sum"
    latency_model: str = "half-mmc"
    utility: str = "relaxed"
    predictive: bool = True
    quantile: float | None = 0.6
    adaptive: bool = True
    shrink: bool = True
    method: str = "nlopt-cobyla"
    samples: int = 100
    horizon_minutes: int = HORIZON_MINUTES

    def plan(self, state, observation):
        if not self.predictive or observation.minute < HISTORY_MINUTES:
            per_min = np.nan_to_num(counts_since(state, observation).mean(axis=1, keepdims=True))
            chosen = self._solve(state, observation, per_min)
        elif self.quantile is None:
            per_min = state.forecaster.mean(self.horizon_minutes)
            chosen = self._solve(state, observation, per_min)
        else:
            per_min, chosen = self._quantiles(state, observation)
        return _long_term(chosen.replicas, chosen.drop, observation, per_min.mean(axis=1) / MINUTE_S)

    def _quantiles(self, state, observation):
        samples = state.forecaster.sample(self.horizon_minutes, self.samples)
        per_min = np.quantile(samples, self.quantile, axis=1)
        chosen = self._solve(state, observation, per_min)
        cores = jobs_array(state.jobs, "cores")
        level = self.quantile
        while self.adaptive and level < 0.89 and chosen.replicas @ cores < observation.capacity:
            level += 0.1
            higher = np.quantile(samples, level, axis=1)
            raised = self._solve(state, observation, higher)
            if raised.replicas @ cores >= observation.capacity:
                break
            per_min, chosen = higher, raised
        return per_min, chosen

    def _solve(self, state, observation, per_min) -> Any:
        return solve_paper(
            state.jobs,
            np.maximum(per_min, 1.0) / MINUTE_S,
            np.maximum(observation.running, 1),
            observation.capacity,
            self.objective,
            current=observation.target,
            method=self.method,
            latency_model=self.latency_model,
            utility=self.utility,
            shrink=self.shrink,
            cold_start=None if self.predictive else False,
        )


def _long_term(target, drop, observation, forecast_rps) -> Plan:
    reason = tuple(PLANNED if moved else HOLD for moved in target != observation.target)
    return Plan(target, drop, reason, attempts=5, forecast_rps=forecast_rps)


register("MArk")(lambda context: MArk(context.require("forecaster", "MArk")))


def _edition(name: str, objective: str):
    paper_name = f"{name} (paper)"
    register(paper_name)(
        lambda context: PaperFaro(context.require("forecaster", paper_name), name=paper_name, objective=objective)
    )


for _name, _objective in OBJECTIVES.items():
    _edition(_name, _objective)
