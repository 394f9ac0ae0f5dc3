"""Simulate one trial: a workload under one policy."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from faro_lib import control
from faro_lib.protocol import Policy
from faro_lib.simulate.cluster import PAPER, CapacityStep, Lifetime, ServingModel, SimulatedCluster
from faro_lib.simulate.draws import Draws, draw
from faro_lib.simulate.latencies import by_minute
from faro_lib.workload import Placement, Workload, arrays_of
from faro_lib.workload.jobs import MINUTE_S

# Fields of a `Plan` that explain it.
EXPLANATIONS = (
    "forecast_rps",
    "predicted_tail_latency_s",
    "marginal_value_up",
    "marginal_value_down",
)


@dataclass(slots=True)
class Decisions:
    """Observations and decisions of a run: one list per quantity with one entry per tick.

    An entry is a scalar or an array (jobs,).
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
    placement: list[Mapping[str, Placement] | None] = field(default_factory=list)

    def append(self, step: control.Step) -> None:
        observation, plan = step.observation, step.plan
        self.time_s.append(observation.now_s)
        self.target.append(step.target)
        self.drop.append(plan.drop)
        self.running.append(observation.running)
        self.reason.append(plan.reason)
        self.seconds.append(step.decision_s)
        self.placement.append(plan.placement)
        for name in EXPLANATIONS:
            getattr(self, name).append(getattr(plan, name))


@dataclass(frozen=True, slots=True)
class Run:
    """Result of a trial.

    Arrays (jobs, minutes + 1) have a column per minute of arrival, and one for later arrivals.
    """

    workload: Workload
    capacity: float  # cores at the start
    requests: np.ndarray  # number of requests
    dropped: np.ndarray  # number of requests dropped
    slo_missed: np.ndarray  # number of served requests slower than the SLO
    # Latency at the job's quantile, with dropped requests as inf; NaN without requests.
    tail_latency_s: np.ndarray
    # Latency at the job's quantile over served requests only; NaN if none was served.
    served_tail_latency_s: np.ndarray
    initial: np.ndarray  # (jobs,) replicas at the start
    decisions: Decisions
    wall_s: float  # duration of the simulation


def simulate(
    workload: Workload,
    policy: Policy,
    capacity: float,
    seed: int | None = None,
    *,
    draws: Draws | None = None,
    serving_model: ServingModel = PAPER,
    capacity_steps: tuple[CapacityStep, ...] = (),
    lifetimes: tuple[Lifetime, ...] = (),
    guardrails: control.GuardrailConfig = control.GUARDRAILS,
    initial: np.ndarray | None = None,
    on_step: Callable[[control.Step], None] | None = None,
    make_cluster: Callable[..., SimulatedCluster] = SimulatedCluster,
) -> Run:
    """Simulate a workload under a policy until every request has ended.

    Parameters
    ----------
    capacity : cores of the cluster.
    seed, draws : `draws` are the trial's random numbers; if None, `seed` generates them. ValueError
        if both are None.
    capacity_steps : (time in s, cores) pairs, ascending; ((7200, 24),) changes the capacity to 24
        cores after two hours.
    lifetimes : (job index, from_s, until_s); ((0, 6000, np.inf),) adds job 0 at 6000 s. Unlisted
        jobs always exist.
    initial : (jobs,) replicas at the start, within the capacity; None = the policy's default.
    on_step : called after every tick.
    make_cluster : a subclass, whose policies observe more, or a function with its arguments.
    """
    began = time.perf_counter()
    if draws is None:
        if seed is None:
            raise ValueError("seed=None: a trial needs a seed or its draws")
        draws = draw(workload, seed, router=serving_model.router)
    initial = np.array(policy.initial(workload.jobs, capacity) if initial is None else initial)
    first_s: dict[int, float] = {}  # job index -> when it first exists
    for job, from_s, _ in lifetimes:
        first_s[job] = min(from_s, first_s.get(job, np.inf))
    initial[[job for job, from_s in first_s.items() if from_s > 0]] = 0
    cluster = make_cluster(
        workload,
        draws,
        capacity,
        initial,
        serving_model,
        capacity_steps=capacity_steps,
        lifetimes=lifetimes,
    )
    decisions = Decisions()

    def record(step: control.Step) -> None:
        decisions.append(step)
        if on_step:
            on_step(step)

    end_s = workload.minutes * MINUTE_S
    control.run(cluster, policy, workload.jobs, end_s, on_step=record, guardrails=guardrails)
    cluster.finish()
    wall_s = time.perf_counter() - began
    return evaluate_run(
        workload, capacity, cluster.latency_s, cluster.minute_edges, initial, decisions, wall_s
    )


def evaluate_run(
    workload: Workload,
    capacity: float,
    latency_s: np.ndarray,
    edges: np.ndarray,
    initial: np.ndarray,
    decisions: Decisions,
    wall_s: float,
) -> Run:
    """The `Run` of a simulated or live run, from the latencies of its requests.

    `latency_s` is sorted by job and arrival, inf for a dropped request. Job j's minute m begins at
    request edges[j, m].
    """
    jobs = arrays_of(workload.jobs)
    dropped, slo_missed, tail_s, served_tail_s = by_minute(
        latency_s, edges, jobs.slo_s, jobs.quantile
    )
    return Run(
        workload=workload,
        capacity=capacity,
        requests=np.diff(edges, axis=1),
        dropped=dropped,
        slo_missed=slo_missed,
        tail_latency_s=tail_s,
        served_tail_latency_s=served_tail_s,
        initial=initial,
        decisions=decisions,
        wall_s=wall_s,
    )
