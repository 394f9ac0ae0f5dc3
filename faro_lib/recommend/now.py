"""Replicas for the minutes to come: one decision of the policy that runs live, put into words."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from faro_lib.policies import Faro, Observation, Plan
from faro_lib.policies.loops import fold_minutes
from faro_lib.policies.protocol import at_least_one_each
from faro_lib.utility import predicted_latency
from faro_lib.workload import Job, jobs_array
from faro_lib.workload.jobs import MINUTE_S


@dataclass(frozen=True, slots=True)
class Advice:
    """A plan and what it rests on; arrays (jobs,).

    Attributes
    ----------
    forecast_rps : mean of the coming minutes' rate; latency_s : the percentile of latency predicted from it.
    prediction_interval_rps : 10th and 90th percentile of the coming minutes' rate, shape (2, jobs).
    needed : replicas with which the job keeps its SLO at the expected rate, whatever the others get; 0 if no number does.
    one_less_s : predicted percentile of latency with one replica less.
    """

    jobs: tuple[Job, ...]
    capacity: float
    plan: Plan
    forecast_rps: np.ndarray
    prediction_interval_rps: np.ndarray
    latency_s: np.ndarray
    needed: np.ndarray
    one_less_s: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """Whether the job is predicted to keep its SLO, bool (jobs,)."""
        return self.latency_s <= jobs_array(self.jobs, "slo_s")

    @property
    def used(self) -> float:
        """Cores that the plan uses."""
        return float(self.plan.target @ jobs_array(self.jobs, "cores"))

    def why(self, job: int) -> str:
        """One clause for the number of replicas of a job."""
        if not self.kept[job]:
            needed = self.needed[job]
            return f"misses its SLO; {needed} would keep it" if needed else "misses its SLO; more would not help"
        if self.plan.target[job] <= max(1, self.jobs[job].min_replicas):
            return "its minimum suffices"
        if self.one_less_s[job] > self.jobs[job].slo_s:
            return f"one less would miss the SLO ({_ms(self.one_less_s[job])})"
        lost = np.nan if self.plan.marginal_value_down is None else self.plan.marginal_value_down[job]
        return f"one less would cost {lost:.3f} utility"

    def rows(self) -> list[dict]:
        """What is told of each job, in plain types."""
        plan, nothing = self.plan, np.full(len(self.jobs), np.nan)
        more, less = (nothing if v is None else v for v in (plan.marginal_value_up, plan.marginal_value_down))
        return [
            {
                "job": job.name,
                "replicas": int(plan.target[j]),
                "drop": round(float(plan.drop[j]), 4),
                "forecast_rps": _rounded(self.forecast_rps[j]),
                "prediction_interval_rps": [_rounded(value) for value in self.prediction_interval_rps[:, j]],
                "predicted_latency_s": _rounded(self.latency_s[j]),
                "slo_s": job.slo_s,
                "quantile": job.quantile,
                "kept": bool(self.kept[j]),
                "marginal_value_up": _rounded(more[j]),
                "marginal_value_down": _rounded(less[j]),
                "why": self.why(j),
            }
            for j, job in enumerate(self.jobs)
        ]


def advise(jobs: tuple[Job, ...], counts, policy: Faro, capacity: float, running=None) -> Advice:
    """What `policy` would ask for after these minutes.

    Parameters
    ----------
    counts : (jobs, minutes), requests per minute from minute 0 of the day on, NaN = missing.
    policy : with its forecaster fitted.
    running : (jobs,) replicas that serve now; None: nobody knows, so neither cold starts nor moves count.
    """
    counts = np.asarray(counts, float)
    if running is None:
        running, policy = at_least_one_each(jobs, capacity), replace(policy, cold_start_minutes=0.0, switching_cost=0.0)
    none, minutes = np.zeros(len(jobs)), counts.shape[1]
    seen = Observation(
        now_s=minutes * MINUTE_S, capacity=capacity, minute=minutes, arrivals_per_min=counts, mean_latency_s=none,
        tail_latency_s=none, ongoing=none, running=running, starting=none.astype(int), target=running, terminating=none.astype(int),
        changing=none.astype(bool), drop=none,
    )  # fmt: skip
    state = fold_minutes(policy.start(jobs), seen)
    plan = policy.plan(state, seen)
    paths = state.forecaster.sample(policy.horizon_minutes, policy.samples) / MINUTE_S
    forecast_rps = paths.mean(axis=(1, 2)) if plan.forecast_rps is None else plan.forecast_rps
    slo_s, most = jobs_array(jobs, "slo_s"), int(capacity / jobs_array(jobs, "cores").min())

    def latency_s(replicas):
        return predicted_latency(jobs, forecast_rps, replicas, drop=plan.drop, latency_model=policy.latency_model)

    keeps = np.stack([latency_s(np.full(len(jobs), x)) <= slo_s for x in range(1, 2 * most + 1)], axis=1)
    needed = np.where(keeps.any(axis=1), keeps.argmax(axis=1) + 1, 0)
    likely = np.quantile(paths, (0.1, 0.9), axis=(1, 2))
    one_less_s = latency_s(np.maximum(plan.target - 1, 0))
    return Advice(jobs, capacity, plan, forecast_rps, likely, latency_s(plan.target), needed, one_less_s)


def _rounded(value) -> float | None:
    """Four digits after the point; None where it is not a number."""
    return round(float(value), 4) if np.isfinite(value) else None


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if np.isfinite(seconds) else "no end of the queue"
