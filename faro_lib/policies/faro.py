"""Faro: forecast sample paths, one utility table, the exact allocation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from faro_lib.allocate import OBJECTIVES, marginal_values, solve
from faro_lib.forecast import HORIZON_MINUTES
from faro_lib.forecast.nowcast import nowcast
from faro_lib.policies.factories import PolicyContext, PolicyFactory, register, register_family
from faro_lib.policies.loops import LoopState, TwoLoops
from faro_lib.policies.protocol import PLAN_ATTEMPTS, Observation, Plan, reasons
from faro_lib.queueing import LatencyTable
from faro_lib.utility import DROPS, UtilityTable, build_table, predicted_latency
from faro_lib.workload import arrays_of
from faro_lib.workload.jobs import MINUTE_S

FALLBACK_MODEL = "mgc"  # the latency model if nothing was measured
PRIOR_LOST = (
    2.0  # utility each job is assumed to have lost at the start, so that its first minutes do not decide the day
)

# Tuned on days 9 and 10 of the published traces with a forecaster fitted on days 1-8; docs/tuning.md has the measurements.
TUNED_DEFAULTS = {
    "first_s": 10.0,
    "interval_s": 60.0,
    "phase_s": 50.0,
    "nowcast": True,
    "cold_start_minutes": 2.0,
    "switching_cost": 0.01,
}
TUNED_FOR_FAIRNESS = {"switching_cost": 0.06, "gamma": 1.0, "deficit_weighting": 1.0}


@dataclass(frozen=True, slots=True)
class Faro(TwoLoops):
    """Maximise the objective over the expected utility of every replica count; the ablation switches single fields.

    Attributes
    ----------
    objective : a name in `allocate.OBJECTIVES`.
    latency_model : the name of a queueing formula or a measured table, as in `utility.build_table`.
    samples, horizon_minutes : number and length of the sample paths of a forecast.
    nowcast : whether the forecast uses the count of the current minute.
    cold_start_minutes : minutes of the horizon in which a job that grows is still served by its old replicas.
    switching_cost : utility subtracted for changing a job's count, so that only changes worth more are made.
    gamma : weight of the spread in FairSum and PenaltyFairSum; None is the number of jobs.
    deficit_weighting : exponent of the weight of past losses, see `deficit_weighted`; 0 looks only ahead.
    """

    name: str = "Faro-Sum"
    objective: str = "Sum"
    latency_model: str | LatencyTable = "half-mmc"
    samples: int = 100
    horizon_minutes: int = HORIZON_MINUTES
    nowcast: bool = False
    cold_start_minutes: float = 1.0
    switching_cost: float = 0.0
    gamma: float | None = None
    deficit_weighting: float = 0.0

    def plan(self, state: LoopState, observation: Observation) -> Plan:
        """Forecast, build the table, solve it, and explain the solution."""
        rates_rps = self.forecast_paths(state, observation) / MINUTE_S
        table = self.table(state, observation, rates_rps)
        now = observation.target
        allocation = solve(table, observation.capacity, self.objective, current=now, gamma=self.gamma)
        forecast_rps = rates_rps.mean(axis=(1, 2))
        latency_s = predicted_latency(
            state.jobs, forecast_rps, allocation.replicas, drop=allocation.drop, latency_model=self.latency_model
        )
        # Spare capacity may have taken jobs beyond the table, where one replica more or less is worth nothing.
        inside = replace(allocation, replicas=np.minimum(allocation.replicas, table.columns))
        marginal = marginal_values(table, inside, gamma=self.gamma)
        return Plan(
            target=allocation.replicas,
            drop=allocation.drop,
            reason=reasons(allocation.replicas, now),
            attempts=PLAN_ATTEMPTS,
            forecast_rps=forecast_rps,
            predicted_tail_latency_s=latency_s,
            marginal_value_up=marginal.more,
            marginal_value_down=marginal.less,
        )

    def forecast_paths(self, state: LoopState, observation: Observation) -> np.ndarray:
        """Requests per minute (jobs, samples, minutes), from the current minute on if `nowcast` is set."""
        elapsed_s = observation.now_s - MINUTE_S * observation.minute
        if not self.nowcast or observation.arrivals_now is None or not 0 < elapsed_s <= MINUTE_S:
            return state.forecaster.sample(self.horizon_minutes, self.samples)
        elapsed = elapsed_s / MINUTE_S
        return nowcast(state.forecaster, observation.arrivals_now, elapsed, self.horizon_minutes, self.samples)

    def table(self, state: LoopState, observation: Observation, rates_rps: np.ndarray) -> UtilityTable:
        """The expected utility of every replica count of each job."""
        table = build_table(
            state.jobs,
            rates_rps,
            observation.target,
            latency_model=self.latency_model,
            drops=DROPS if OBJECTIVES.find(self.objective).effective else None,
            cold_start_minutes=self.cold_start_minutes,
            switching_cost=self.switching_cost,
            max_replicas=int(observation.capacity / arrays_of(state.jobs).cores.min()),
        )
        return deficit_weighted(table, state.lost, self.deficit_weighting) if self.deficit_weighting else table


def deficit_weighted(table: UtilityTable, lost: np.ndarray, exponent: float) -> UtilityTable:
    """Replace each utility U by 1 - w (1 - U), so that a job that has already lost much weighs more.

    w_j is proportional to (L_j + 2)^exponent and has mean 1; L_j is the utility that job j has lost so far. With
    exponent 1, maximising the sum of utilities is a greedy descent step on the sum of the squares of L_j + 2.

    Parameters
    ----------
    lost : (jobs,) utility lost so far, >= 0.
    """
    weight = (lost + PRIOR_LOST) ** exponent
    weight = (weight / weight.mean())[:, None]
    return replace(table, value=1 - weight * (1 - table.value), effective=1 - weight * (1 - table.effective))


def tuned_options(objective: str = "Sum") -> dict[str, Any]:
    """The hyperparameters of `Faro` tuned for this objective; `Faro` itself refuses an unknown one."""
    known = OBJECTIVES.get(objective)
    fair = known is not None and (known.leximin or known.spread is not None)
    return TUNED_DEFAULTS | (TUNED_FOR_FAIRNESS if fair else {})


def tuned(context: PolicyContext, objective: str = "Sum", **changes: Any) -> Faro:
    """Faro with its tuned hyperparameters; `changes` override single ones."""
    name = f"Faro-{objective}"
    latency_model = FALLBACK_MODEL if context.latency_model is None else context.latency_model
    options = tuned_options(objective) | {"latency_model": latency_model} | changes
    return Faro(context.require("forecaster", name), name=name, objective=objective, **options)


def _factory(objective: str) -> PolicyFactory:
    return lambda context: tuned(context, objective)


for _objective in ("Sum", "Fair", "FairSum", "PenaltySum", "PenaltyFairSum"):
    register(f"Faro-{_objective}")(_factory(_objective))
register_family("Faro-", OBJECTIVES.knows, _factory)  # one policy for every objective that a plugin registers
