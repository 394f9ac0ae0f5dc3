"""Plugin for the policies `Faro-* (paper)`, Faro as in EuroSys'25.

Two subclasses of `PaperFaro` use other solvers.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from faro_lib.allocate import Allocation, solve
from faro_lib.forecast import HORIZON_MINUTES
from faro_lib.policies.baselines import counts_since
from faro_lib.policies.factories import PolicyContext, PolicyFactory, register
from faro_lib.policies.loops import LoopState, TwoLoops
from faro_lib.protocol import HISTORY_MINUTES, PLAN_ATTEMPTS, Observation, Plan, reasons
from faro_lib.utility import DROPS, build_table
from faro_lib.workload import Job, arrays_of
from faro_lib.workload.jobs import MINUTE_S
from studies.paper.hierarchical import solve_hierarchical
from studies.paper.solver import shrink, solve_paper

# Maximum and step of the adaptive forecast quantile.
MAX_QUANTILE = 0.9
QUANTILE_STEP = 0.1


@dataclass(frozen=True, slots=True)
class PaperState(LoopState):
    """State of `PaperFaro`; the arrays have shape (jobs,)."""

    # Drop rates of the last plan that are not in force yet; NaN = none.
    pending_drop: np.ndarray = field(default_factory=lambda: np.empty(0))
    # Target replicas before the last plan.
    target_before: np.ndarray = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True, slots=True)
class PaperFaro(TwoLoops):
    """Faro as published: a forecast quantile, COBYLA on the relaxation, rounding and shrinking.

    The fields are the steps of the paper's ablation (Figure 16).
    """

    name: str = "Faro-Sum (paper)"
    objective: str = "Sum"  # an objective that `solver.solve_paper` accepts
    latency_model: str = "half-mmc"  # or "upper-bound"
    utility: str = "relaxed"  # or "precise"
    predictive: bool = True  # False uses the counts since the last decision instead of a forecast
    quantile: float | None = 0.6  # quantile of each minute's forecast; None: the mean
    # Raise the quantile by 0.1 up to 0.9 while the solution leaves replicas free.
    adaptive: bool = True
    shrink: bool = True  # remove replicas worth less than 1e-4
    # SciPy's COBYLA. SciPy 1.16 replaced Powell's code, which the paper used.
    method: str = "cobyla"
    samples: int = 100
    horizon_minutes: int = HORIZON_MINUTES

    def start(self, jobs: tuple[Job, ...]) -> PaperState:
        loops = TwoLoops.start(self, jobs)
        values = {f.name: getattr(loops, f.name) for f in fields(loops)}
        none = np.full(len(jobs), np.nan)
        return PaperState(**values, pending_drop=none, target_before=np.zeros(len(jobs)))

    def decide(self, state: LoopState, observation: Observation) -> tuple[LoopState, Plan]:
        """The plan of both loops, with drop rates applied by the published rule.

        If a long-term plan changes a job's replicas, the job's new drop rate applies once that
        change is complete. Otherwise, the job keeps its old drop rate.
        """
        assert isinstance(state, PaperState)
        changed = (observation.target != state.target_before) & ~observation.changing
        complete = changed & ~np.isnan(state.pending_drop)
        drop = np.where(complete, state.pending_drop, observation.drop)
        pending = np.where(complete, np.nan, state.pending_drop)
        state, plan = TwoLoops.decide(self, replace(state, pending_drop=pending), observation)
        if self.is_long_term(observation.now_s):
            pending = np.where(plan.target != observation.target, plan.drop, np.nan)
            changes: dict[str, Any] = {"pending_drop": pending, "target_before": observation.target}
            state = replace(state, **changes)
        return state, replace(plan, drop=drop)

    def plan(self, state: LoopState, observation: Observation) -> Plan:
        if not self.predictive or observation.minute < HISTORY_MINUTES:
            per_min = np.nan_to_num(counts_since(state, observation))
            allocation = self.allocate(state, observation, per_min)
        elif self.quantile is None:
            per_min = state.forecaster.mean(self.horizon_minutes)
            allocation = self.allocate(state, observation, per_min)
        else:
            per_min, allocation = self.allocate_adaptively(state, observation, self.quantile)
        reason = reasons(allocation.replicas, observation.target)
        forecast_rps = per_min.mean(axis=1) / MINUTE_S
        return Plan(allocation.replicas, allocation.drop, reason, PLAN_ATTEMPTS, forecast_rps)

    def allocate_adaptively(
        self, state: LoopState, observation: Observation, quantile: float
    ) -> tuple[np.ndarray, Allocation]:
        """Allocate at the highest quantile that leaves cores free, or at `quantile`.

        Returns (forecast, allocation).
        """
        quantiles = np.array([quantile])
        if self.adaptive:
            quantiles = np.arange(quantile, MAX_QUANTILE + 0.01, QUANTILE_STEP)
        samples = state.forecaster.sample(self.horizon_minutes, self.samples * len(quantiles))
        # Each quantile is computed from new samples, as published.
        fresh = np.split(samples, len(quantiles), axis=1)
        per_min = np.quantile(fresh[0], quantiles[0], axis=1)
        allocation = self.allocate(state, observation, per_min)
        cores = arrays_of(state.jobs).cores
        for higher_quantile, drawn in zip(quantiles[1:], fresh[1:]):
            if allocation.replicas @ cores >= observation.capacity:
                break
            higher = np.quantile(drawn, higher_quantile, axis=1)
            raised = self.allocate(state, observation, higher)
            if raised.replicas @ cores >= observation.capacity:
                break
            per_min, allocation = higher, raised
        return per_min, allocation

    def allocate(
        self, state: LoopState, observation: Observation, per_min: np.ndarray
    ) -> Allocation:
        """The allocation for the forecast requests per minute (jobs, minutes)."""
        return solve_paper(
            state.jobs,
            np.maximum(per_min, 1.0) / MINUTE_S,
            np.maximum(observation.running, 1),
            observation.capacity,
            self.objective,
            current=observation.running,
            method=self.method,
            latency_model=self.latency_model,
            utility=self.utility,
            shrink=self.shrink,
            cold_start=None if self.predictive else False,
        )

    def table_inputs(
        self, state: LoopState, observation: Observation, per_min: np.ndarray
    ) -> dict[str, Any]:
        """Arguments of `utility.build_table` for the paper's formulation."""
        running = np.maximum(observation.running, 1)
        jobs = arrays_of(state.jobs)
        full = bool(running @ jobs.cores >= observation.capacity)
        return {
            "jobs": state.jobs,
            "rates_rps": np.maximum(per_min, 1.0)[:, None] / MINUTE_S,
            "running": running,
            "latency_model": self.latency_model,
            "utility": self.utility,
            "drops": DROPS if self.objective.startswith("Penalty") else None,
            "cold_start_minutes": 1.0 if self.predictive and full else 0.0,
            "max_replicas": int(jobs.replicas_within(observation.capacity).max()),
        }


@dataclass(frozen=True, slots=True)
class ExactPaperFaro(PaperFaro):
    """`PaperFaro` with the exact integer solution instead of COBYLA."""

    name: str = "Faro-Sum (paper, exact)"

    def allocate(
        self, state: LoopState, observation: Observation, per_min: np.ndarray
    ) -> Allocation:
        table = build_table(**self.table_inputs(state, observation, per_min))
        allocation = solve(table, observation.capacity, self.objective, current=observation.target)
        return shrink(table, allocation, observation.capacity) if self.shrink else allocation


@dataclass(frozen=True, slots=True)
class GroupedPaperFaro(PaperFaro):
    """`PaperFaro` solved between groups and then within each group (section 4.4), not shrunk."""

    name: str = "Faro-Sum (paper, hierarchical)"
    groups: int = 10
    solver: str = "cobyla"  # a name in `allocate.SOLVERS`, used at both levels

    def allocate(
        self, state: LoopState, observation: Observation, per_min: np.ndarray
    ) -> Allocation:
        return solve_hierarchical(
            budget=observation.capacity,
            groups=min(self.groups, len(state.jobs)),
            objective=self.objective,
            solver=self.solver,
            **self.table_inputs(state, observation, per_min),
        )


def _factory(name: str, objective: str) -> PolicyFactory:
    def make(context: PolicyContext) -> PaperFaro:
        return PaperFaro(context.require("forecaster", name), name=name, objective=objective)

    return make


for _objective in ("Sum", "Fair", "FairSum", "PenaltySum", "PenaltyFairSum"):
    _name = f"Faro-{_objective} (paper)"
    register(_name)(_factory(_name, _objective))
