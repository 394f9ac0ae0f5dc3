"""One trial: a policy meets a day of requests."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from faro_lib import control
from faro_lib.policies.protocol import Policy
from faro_lib.simulate.cluster import PAPER, ServingModel, SimulatedCluster
from faro_lib.simulate.draws import Draws, draw
from faro_lib.simulate.latencies import dropped_and_missed, percentile_of, percentiles
from faro_lib.workload import Workload
from faro_lib.workload.jobs import MINUTE_S, jobs_array

EXPLANATIONS = (
    "forecast_rps",
    "predicted_tail_latency_s",
    "marginal_value_up",
    "marginal_value_down",
)  # of a plan, where it tells


@dataclass(slots=True)
class Decisions:
    """The ticks of the loop, column by column; lists over ticks of scalars or of arrays (jobs,).

    forecast_rps, predicted_tail_latency_s, marginal_value_up, marginal_value_down : as in `Plan`; None in ticks whose plan does not tell.
    """

    time_s: list[float] = field(default_factory=list)
    target: list[np.ndarray] = field(default_factory=list)
    drop: list[np.ndarray] = field(default_factory=list)
    running: list[np.ndarray] = field(default_factory=list)
    reason: list[tuple[str, ...]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    forecast_rps: list[np.ndarray | None] = field(default_factory=list)
    predicted_tail_latency_s: list[np.ndarray | None] = field(default_factory=list)
    marginal_value_up: list[np.ndarray | None] = field(default_factory=list)
    marginal_value_down: list[np.ndarray | None] = field(default_factory=list)

    def append(self, step: control.Step) -> None:
        self.time_s.append(step.observation.now_s)
        self.target.append(step.target)
        self.drop.append(step.plan.drop)
        self.running.append(step.observation.running)
        self.reason.append(step.plan.reason)
        self.seconds.append(step.decision_s)
        for column in EXPLANATIONS:
            getattr(self, column).append(getattr(step.plan, column))


@dataclass(frozen=True, slots=True)
class Run:
    """What came of a trial. Minute arrays have shape (jobs, minutes + 1): the last bin holds what overran the last minute.

    requests, dropped, slo_missed : counts by minute of arrival; slo_missed = served, but after the SLO.
    tail_latency_s : the job's percentile of latency; inf where refusals reach into it, NaN without requests.
    served_tail_latency_s : the same of the requests that were served; NaN without any.
    initial : (jobs,) replicas at the beginning.
    """

    workload: Workload
    capacity: float
    requests: np.ndarray
    dropped: np.ndarray
    slo_missed: np.ndarray
    tail_latency_s: np.ndarray
    served_tail_latency_s: np.ndarray
    initial: np.ndarray
    decisions: Decisions
    wall_s: float


def simulate(
    workload: Workload,
    policy: Policy,
    capacity: float,
    seed: int | None = None,
    *,
    draws: Draws | None = None,
    serving_model: ServingModel = PAPER,
    capacity_steps: tuple[tuple[float, float], ...] = (),
    lifetimes: tuple[tuple[int, float, float], ...] = (),
    guardrails: control.GuardrailConfig = control.GUARDRAILS,
    initial: np.ndarray | None = None,
) -> Run:
    """Replay a workload under a policy, until every request has ended.

    Parameters
    ----------
    capacity : cores of the cluster.
    seed, draws : the trial; draws made once may be shared by many policies.
    capacity_steps, lifetimes : cores, and jobs, that come and go (`SimulatedCluster`).
    guardrails : the guardrails.
    initial : (jobs,) replicas to begin with; None leaves that to the policy.
    """
    began = time.perf_counter()
    if draws is None:
        if seed is None:
            raise ValueError("seed=None: a trial needs a seed or its draws")
        draws = draw(workload, seed, router=serving_model.router)
    initial = np.array(policy.initial(workload.jobs, capacity) if initial is None else initial)
    initial[[job for job, from_s, _ in lifetimes if from_s > 0]] = 0
    cluster = SimulatedCluster(
        workload, draws, capacity, initial, serving_model, capacity_steps=capacity_steps, lifetimes=lifetimes
    )
    decisions = Decisions()
    control.run(
        cluster, policy, workload.jobs, workload.minutes * MINUTE_S, on_step=decisions.append, guardrails=guardrails
    )
    cluster.finish()

    wall_s = time.perf_counter() - began
    return evaluate_run(workload, capacity, cluster.latency_s, cluster.minute_edges, initial, decisions, wall_s)


def evaluate_run(
    workload: Workload, capacity: float, latency_s, edges, initial, decisions: Decisions, wall_s: float
) -> Run:
    """What requests and decisions amount to, wherever they were made.

    Parameters
    ----------
    latency_s : (requests,), job after job by arrival; inf = dropped.
    edges : int (jobs, minutes + 2), where the arrivals of each minute begin; the last bin is the overrun.
    """
    dropped, slo_missed = dropped_and_missed(latency_s, edges, jobs_array(workload.jobs, "slo_s"))
    percentile = jobs_array(workload.jobs, "quantile")
    tail_latency_s = percentiles(latency_s, edges, percentile)
    served_tail_latency_s = _served(latency_s, edges, percentile, tail_latency_s, dropped)
    requests = np.diff(edges, axis=1)
    return Run(
        workload,
        capacity,
        requests,
        dropped,
        slo_missed,
        tail_latency_s,
        served_tail_latency_s,
        initial,
        decisions,
        wall_s,
    )


def _served(latency_s, edges, percentile, tail_latency_s, dropped):
    """The percentile without the refused; where none was refused it is tail_latency_s."""
    served = tail_latency_s.copy()
    for job, minute in np.argwhere(dropped > 0):
        ended = latency_s[edges[job, minute] : edges[job, minute + 1]]
        served[job, minute] = percentile_of(ended[np.isfinite(ended)], percentile[job])
    return served
