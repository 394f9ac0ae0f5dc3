"""Faro, our edition: sample paths, one table, the exact solution."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from faro_lib.allocate import OBJECTIVES, marginal_values, solve
from faro_lib.forecast import HORIZON_MINUTES
from faro_lib.forecast.nowcast import nowcast
from faro_lib.policies.loops import LoopState, TwoLoops
from faro_lib.policies.protocol import HOLD, PLANNED, Observation, Plan
from faro_lib.policies.registry import PolicyContext, register
from faro_lib.utility import DROPS, UtilityTable, build_table, predicted_latency
from faro_lib.workload.jobs import MINUTE_S, jobs_array


@dataclass(frozen=True, slots=True)
class Faro(TwoLoops):
    """Plan replicas from sample paths of the coming minutes; every field is a choice that the ablation can switch.

    Attributes
    ----------
    objective : a name in `allocate.OBJECTIVES`.
    latency_model : the latency model, as `utility.build_table` takes it.
    service_time_s : replaces the jobs' own planning value, or None.
    samples, horizon_minutes : sample paths and minutes of a forecast.
    nowcast : whether the count of the minute that is going on is used.
    cold_start_minutes : minutes of the horizon in which a grown job is still served by its old count.
    switching_cost : utility that changing a job's count costs in the table, so that only moves that pay are made.
    gamma : weight of the spread in FairSum and PenaltyFairSum; the number of jobs if None.
    deficit_weighting : a job's loss counts (its loss so far / the mean job's) ** deficit_weighting; 0 looks ahead only, see `deficit_weighted`.
    """

    name: str = "Faro-Sum"
    objective: str = "Sum"
    latency_model: Any = "half-mmc"
    service_time_s: float | None = None
    samples: int = 100
    horizon_minutes: int = HORIZON_MINUTES
    nowcast: bool = False
    cold_start_minutes: float = 1.0
    switching_cost: float = 0.0
    gamma: float | None = None
    deficit_weighting: float = 0.0

    def plan(self, state: LoopState, observation: Observation) -> Plan:
        rates_rps = self._paths(state, observation) / MINUTE_S
        jobs, target_now = state.jobs, observation.target
        drops = DROPS if OBJECTIVES.find(self.objective).effective else None
        if self.service_time_s is not None:
            jobs = tuple(replace(job, service_time_s=self.service_time_s) for job in jobs)
        table = build_table(
            jobs,
            rates_rps,
            target_now,
            latency_model=self.latency_model,
            drops=drops,
            cold_start_minutes=self.cold_start_minutes,
            switching_cost=self.switching_cost,
            max_replicas=int(observation.capacity / jobs_array(jobs, "cores").min()),
        )
        if self.deficit_weighting:
            table = deficit_weighted(table, state.lost, self.deficit_weighting)
        chosen = solve(table, observation.capacity, self.objective, current=target_now, gamma=self.gamma)
        target, drop = chosen.replicas, chosen.drop
        forecast_rps = rates_rps.mean(axis=(1, 2))
        marginals = marginal_values(
            table, replace(chosen, replicas=np.minimum(target, table.columns)), gamma=self.gamma
        )
        return Plan(
            target,
            drop,
            tuple(PLANNED if moved else HOLD for moved in target != target_now),
            attempts=5,
            forecast_rps=forecast_rps,
            predicted_tail_latency_s=predicted_latency(
                jobs, forecast_rps, target, drop=drop, latency_model=self.latency_model
            ),
            marginal_value_up=marginals.more,
            marginal_value_down=marginals.less,
        )

    def _paths(self, state, observation):
        """Requests per minute (jobs, samples, minutes)."""
        elapsed_s = observation.now_s - MINUTE_S * observation.minute
        if not self.nowcast or observation.arrivals_now is None or not 0 < elapsed_s <= MINUTE_S:
            return state.forecaster.sample(self.horizon_minutes, self.samples)
        share = elapsed_s / MINUTE_S
        return nowcast(state.forecaster, observation.arrivals_now, share, self.horizon_minutes, self.samples)


def deficit_weighted(table: UtilityTable, lost: np.ndarray, exponent: float) -> UtilityTable:
    """The table with 1 - w (1 - U) for U: who has lost most so far is helped most, so that no job is last all day long.

    w_j is proportional to (L_j + 2)^exponent, with mean 1; L_j is the utility that job j has lost so far. Where a sum of
    utilities is maximised, exponent 1 makes it descend on the sum of the squares of all losses.

    Parameters
    ----------
    lost : (jobs,), >= 0.
    """
    weight = (lost + PRIOR_LOST) ** exponent
    weight = (weight / weight.mean())[:, None]
    return replace(table, value=1 - weight * (1 - table.value), effective=1 - weight * (1 - table.effective))


# Chosen on days 9 and 10 of the published traces, the forecaster fitted on days 1-8: docs/choices.md has the measurements.
CHOSEN = {
    "first_s": 10.0,
    "interval_s": 60.0,
    "phase_s": 50.0,
    "nowcast": True,
    "cold_start_minutes": 2.0,
    "switching_cost": 0.01,
}
CHOSEN_FAIR = {
    "switching_cost": 0.06,
    "gamma": 1.0,
    "deficit_weighting": 1.0,
}  # besides, where the worst-off job counts on its own
PRIOR_LOST = 2.0  # what every job is taken to have lost before the day, so that its first minutes do not decide it
FALLBACK = "mgc"  # the latency model where nothing was measured


def chosen_options(objective: str = "Sum") -> dict[str, Any]:
    """The options chosen on training days for this objective."""
    found = OBJECTIVES.get(objective)  # one that does not exist is refused by whoever takes the options
    fair = found is not None and (found.leximin or found.spread is not None)
    return CHOSEN | CHOSEN_FAIR if fair else dict(CHOSEN)


def chosen(context: PolicyContext, objective: str = "Sum", **changes: Any) -> Faro:
    """Our edition with the options chosen on training days; `changes` override single ones."""
    name = f"Faro-{objective}"
    latency_model = FALLBACK if context.latency_model is None else context.latency_model
    options = chosen_options(objective) | {"latency_model": latency_model} | changes
    return Faro(context.require("forecaster", name), name=name, objective=objective, **options)


def _enter(objective: str) -> None:
    register(f"Faro-{objective}")(lambda context: chosen(context, objective))


for _objective in ("Sum", "Fair", "FairSum", "PenaltySum", "PenaltyFairSum"):
    _enter(_objective)
