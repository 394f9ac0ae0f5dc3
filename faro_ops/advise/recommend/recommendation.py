"""A recommendation from a load history: replicas now, and the capacity that the SLOs need."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from faro_lib.allocate import OBJECTIVES
from faro_lib.experiments.checks import over_the_router
from faro_lib.experiments.trials import Report
from faro_lib.policies import Faro, PolicyContext
from faro_lib.policies.faro import tuned
from faro_lib.queueing import LatencyModel
from faro_lib.simulate import LIVE, ServingModel
from faro_lib.simulate.measure import measure
from faro_lib.workload import Job, arrays_of
from faro_lib.workload.replicas import Disaggregated
from faro_lib.workload.shares import at_least_one_each
from faro_ops.advise.recommend.advice import Advice, advise
from faro_ops.advise.recommend.pairs import with_pairs
from faro_ops.advise.recommend.savings import Saving, groups, savings
from faro_ops.advise.recommend.simulated_days import SimulatedDays, days_to_simulate, simulate_days
from faro_ops.advise.recommend.sizing import required_replicas
from faro_ops.advise.recommend.suspicions import overloads, silences
from faro_ops.advise.sources.history import MIN_HISTORY_MINUTES, History


@dataclass(frozen=True, slots=True, eq=False)
class Recommendation:
    """Replicas for the coming minutes, and the capacity that the simulated days need.

    Attributes
    ----------
    advice : replicas for the coming minutes.
    max_violation_rate : largest accepted share of a job's requests that violate its SLO; None = 1 -
        the SLO's quantile.
    replicas_now : replica counts that serve now, (jobs,), NaN = unknown; None if unknown for every
        job.
    simulated : what simulations of recorded days show; None if no day was simulated.
    savings : the capacity that the last simulated day needs if jobs share; () if not asked.
    """

    advice: Advice
    max_violation_rate: float | None
    replicas_now: np.ndarray | None = None
    simulated: SimulatedDays | None = None
    savings: tuple[Saving, ...] = ()

    @property
    def slo_met(self) -> bool:
        """Whether the capacity meets the SLOs over the simulated days.

        If no day was simulated: whether it is predicted to meet them in the coming minutes.
        """
        if self.simulated is None:
            return bool(self.advice.slo_met.all())
        return self.simulated.slo_met

    @property
    def marks(self) -> dict[int, str]:
        """Text that marks the required capacity in the curve, {capacity: text}."""
        required = self.simulated.required_cores if self.simulated else None
        if required is None:
            return {}
        if self.max_violation_rate is None:
            return {required: "meets every SLO"}
        return {required: f"meets {100 * self.max_violation_rate:g} % for every job"}

    def rows(self) -> list[dict[str, Any]]:
        """The rows of `plain_rows`, each with `replicas_now`; None = unknown."""
        rows = plain_rows(self.advice)
        if self.replicas_now is None:
            return [row | {"replicas_now": None} for row in rows]
        now = [int(count) if np.isfinite(count) else None for count in self.replicas_now]
        return [row | {"replicas_now": count} for row, count in zip(rows, now)]

    def to_dict(self) -> dict[str, Any]:
        """The recommendation in plain types, for JSON."""
        plain: dict[str, Any] = {
            "capacity": self.advice.capacity,
            "used": self.advice.used,
            "slo_met": self.slo_met,
            "jobs": self.rows(),
        }
        if self.simulated is not None:
            plain["max_violation_rate"] = self.max_violation_rate
            plain |= self.simulated.to_dict()
        if self.savings:
            plain["sharing"] = [{"models": one.models, "cores": one.cores} for one in self.savings]
        return plain


def recommend(
    history: History,
    capacity: int | None = None,
    *,
    with_curve: bool = False,
    max_violation_rate: float | None = None,
    objective: str = "Sum",
    forecaster: str | None = None,
    serving_model: ServingModel = LIVE,
    with_sharing: bool = False,
    report: Report = print,
    on_plan: Callable[[Recommendation], None] = lambda plan: None,
) -> Recommendation:
    """Recommend replicas on `capacity` cores or, if None, on the smallest that meets every SLO.

    If `capacity` is None or `with_curve`, recorded days are simulated at several capacities.
    `with_sharing` also simulates the last day with replicas that hold the models of several jobs.
    `max_violation_rate` is the largest accepted share of a job's requests that miss its SLO; None =
    1 - its quantile.
    on_plan : called with the plan for the coming minutes as soon as it is known; before the
        simulations if `capacity` is given. Without it, a first estimate is reported before them.
    """
    _check(history, capacity, with_curve or with_sharing, max_violation_rate, objective)
    if with_sharing:
        groups(history.jobs)  # fails before minutes of work
    fitted = history.forecaster(forecaster)  # an unknown name fails before minutes of work
    for line in (*overloads(history, capacity), *silences(history)):
        report(line)
    if capped := over_the_router(serving_model, history.jobs, history.today):
        report(capped)
    jobs = with_pairs(history.jobs, capacity, serving_model, report)
    history = replace(history, jobs=jobs, traces=replace(history.traces, jobs=jobs))
    report("measuring latencies of each model and SLO at constant rates")
    latency_model = measure(history.jobs, capacity=capacity, serving_model=serving_model)

    def policy_for(past: History, sharing: tuple[Job, ...] = (), cores: int | None = None) -> Faro:
        """Faro with a forecaster that has learnt from `past`, whose jobs may share `cores`."""
        forecasts = fitted if past is history else past.forecaster(forecaster)
        table = latency_model
        if sharing:
            table = measure(sharing, capacity=cores, serving_model=serving_model)
        return tuned(PolicyContext(sharing or past.jobs, forecasts, table), objective)

    def planned(cores: float) -> Recommendation:
        """The plan for the coming minutes on so many cores."""
        advice = advise(history.jobs, history.today, policy_for(history), cores)
        return Recommendation(advice, max_violation_rate, history.replicas)

    plan = None if capacity is None else planned(capacity)
    if plan is not None:
        on_plan(plan)
        if not (with_curve or with_sharing):
            return plan
    else:
        report(_first_estimate(planned(_busiest_cores(history, latency_model)).advice))

    accepted = accepted_rates(history.jobs, max_violation_rate)
    simulated = simulate_days(history, policy_for, capacity, accepted, serving_model, report)
    shared: list[Saving] = []
    if with_sharing:
        alone = simulated.required_cores or simulated.capacity
        last = days_to_simulate(history).last
        policy_of = partial(policy_for, last, cores=alone)
        workload = last.traces.workload()
        shared = savings(workload, policy_of, alone, accepted, serving_model, report)
    if plan is None:
        report(f"planning the next minutes on {simulated.capacity} cores")
        plan = planned(simulated.capacity)
        on_plan(plan)
    return replace(plan, simulated=simulated, savings=tuple(shared))


def _busiest_cores(history: History, latency_model: LatencyModel) -> float:
    """Cores with which every job is predicted to meet its SLO in its busiest minute of today."""
    counts = required_replicas(history.traces.workload(), latency_model).max(axis=1)  # (jobs,)
    arrays = arrays_of(history.jobs)
    return float(np.maximum(counts, np.maximum(arrays.min_replicas, 1)) @ arrays.cores)


def _first_estimate(advice: Advice) -> str:
    """The plan in a line, before the simulations say on how many cores it must fit."""
    counts = ", ".join(
        f"{job.name} {count}" for job, count in zip(advice.jobs, advice.plan.target.tolist())
    )
    estimate = f"{counts} ({advice.used:g} cores)"
    return f"first estimate of the replicas now, before the simulations: {estimate}"


def _check(
    history: History,
    capacity: int | None,
    with_curve: bool,
    max_violation_rate: float | None,
    objective: str,
) -> None:
    """Raise ValueError for arguments of `recommend` that cannot succeed."""
    if max_violation_rate is not None and not 0 <= max_violation_rate < 1:
        raise ValueError(f"max_violation_rate={max_violation_rate} must be a share in [0, 1)")
    if capacity is not None:
        at_least_one_each(history.jobs, capacity)
    OBJECTIVES.find(objective)
    if history.short and (capacity is None or with_curve):
        raise ValueError(
            f"{history.today.shape[1]} minutes of counts; "
            f"a simulation needs at least {MIN_HISTORY_MINUTES}; --capacity needs none"
        )


def accepted_rates(jobs: tuple[Job, ...], max_violation_rate: float | None) -> np.ndarray:
    """The largest accepted share of each job's requests that violate its SLO, (jobs,)."""
    if max_violation_rate is None:
        return 1 - arrays_of(jobs).quantile
    return np.full(len(jobs), max_violation_rate)


def plain_rows(advice: Advice) -> list[dict[str, Any]]:
    """One mapping per job in plain types; numbers that are infinite or unknown are None."""
    plan, unknown = advice.plan, np.full(len(advice.jobs), np.nan)
    up = unknown if plan.marginal_value_up is None else plan.marginal_value_up
    down = unknown if plan.marginal_value_down is None else plan.marginal_value_down
    return [
        {
            "job": job.name,
            "replicas": int(plan.target[j]),
            "prefill_replicas": _prefill_of(job, int(plan.target[j])),
            "drop": round(float(plan.drop[j]), 4),
            "forecast_rps": _rounded(advice.forecast_rps[j]),
            "prediction_interval_rps": list(map(_rounded, advice.prediction_interval_rps[:, j])),
            "predicted_tail_latency_s": _rounded(advice.tail_latency_s[j]),
            "slo_s": job.slo_s,
            "quantile": job.quantile,
            "slo_met": bool(advice.slo_met[j]),
            "marginal_value_up": _rounded(up[j]),
            "marginal_value_down": _rounded(down[j]),
            "reason": advice.reason(j),
        }
        for j, job in enumerate(advice.jobs)
    ]


def _prefill_of(job: Job, replicas: int) -> int | None:
    """How many of so many replicas do prefill; None if the kind has no roles."""
    if isinstance(job.replica, Disaggregated):
        return job.replica.prefill_of(replicas)
    return None


def _rounded(value: float) -> float | None:
    """The value rounded to four decimals; None if it is not finite."""
    return round(float(value), 4) if np.isfinite(value) else None
