"""A slice of a day under one policy, on real replicas and in a matched simulation."""

import json
import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from faro_lib import control
from faro_lib.control import PolicyFailed
from faro_lib.experiments.trials import policy_failures_raised
from faro_lib.policies import Faro, Policy
from faro_lib.policies.loops import TwoLoops
from faro_lib.protocol import FAILED, Cluster, Wrapper
from faro_lib.simulate import Draws, Run, ServingModel, draw, simulate
from faro_lib.simulate.run import Decisions, evaluate_run
from faro_lib.workload import Traces, Workload, arrays_of
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.shares import fair_share
from faro_ops.advise.profile.load_generator import OUTCOMES, SERVED, Script, Sent
from faro_ops.advise.profile.profile import REPORTED_S
from faro_ops.http import BUSY_RETRY_S, HttpClient
from faro_ops.operate.clock import Clock
from faro_ops.operate.limits.pacing import paced
from faro_ops.operate.loop import loop
from faro_ops.operate.rayserve.backend import Endpoint
from faro_ops.operate.rayserve.cluster import RayServeCluster
from faro_ops.operate.rayserve.deploy import STATS_ROUTE
from faro_ops.operate.rayserve.spec import ServeSpec
from faro_ops.operate.rayserve.statistics import add_row, empty_row
from faro_ops.protocol import LiveGuardrails
from studies.live.generator import Generator
from studies.live.lost_worker import LostWorker, recovery_table
from studies.live.machine import NOISY_CPUS, BackgroundLoad

MIN_TICK_S = 30.0  # wall seconds between two decisions, enough for a few replicas to start
MAX_STARTS = 6  # replicas that one decision may start
RESET_S = 120.0
QUIET_S = 1.0


@dataclass(frozen=True, slots=True)
class Slice:
    """Part of a day that is replayed live and in simulation; times are in seconds of the trace."""

    workload: Workload  # jobs, with measured service and start times, and their requests
    capacity: int  # cores
    scale: float  # trace seconds per wall second
    tick_s: float  # time between two decisions
    max_ongoing_requests: int  # requests that a replica may hold
    # Time per request that a replica needs in addition to the drawn service time.
    overhead_s: float = 0.0
    # Requests before the slice, with which forecasts start, (jobs, minutes).
    before: np.ndarray | None = None
    # True / stated service time, (jobs,); None = as stated.
    factor: np.ndarray | None = None
    min_tick_s: float = MIN_TICK_S  # wall seconds

    def __post_init__(self):
        wall_s = self.tick_s / self.scale
        if wall_s < self.min_tick_s:
            raise ValueError(
                f"tick_s={self.tick_s:g} at scale={self.scale:g} is {wall_s:g} s of wall time; "
                f"decisions must be at least {self.min_tick_s:g} s apart"
            )

    @property
    def initial(self) -> np.ndarray:
        """Initial replicas (jobs,): equal shares, because a run is too short to start from one."""
        return fair_share(self.workload.jobs, self.capacity)

    @property
    def guardrails(self) -> LiveGuardrails:
        return LiveGuardrails(max_scaling_actions=MAX_STARTS)

    @property
    def serving_model(self) -> ServingModel:
        return ServingModel("least-outstanding", max_ongoing_requests=self.max_ongoing_requests)

    def paced(self, policy: Policy) -> Policy:
        """The policy, or the policy inside a `Wrapper`, with the tick and history of this slice.

        Faro assumes a cold start of one minute.
        """
        if isinstance(policy, Wrapper):
            return replace(policy, policy=self.paced(policy.policy))
        changes: dict[str, Any] = {"before": self.before} if isinstance(policy, TwoLoops) else {}
        changes |= {"cold_start_minutes": 1.0} if isinstance(policy, Faro) else {}
        return paced(policy, self.tick_s, **changes)

    def draws(self, seed: int) -> Draws:
        """Arrivals and service times of a trial, the same for all policies, live and simulated."""
        draws = draw(self.workload, seed, router=None)
        if self.factor is None:
            return draws
        of_requests = np.repeat(self.factor, np.diff(draws.first))
        return replace(draws, service_s=draws.service_s * of_requests)


def part_of(traces: Traces, jobs: Sequence[int], first_minute: int) -> Traces:
    """Select the traces of `jobs` (indices), and let every day start at minute `first_minute`.

    If first_minute > 0, training days continue into the next day, and the last is lost. The
    evaluation day is shorter.
    """
    chosen = list(jobs)
    train = traces.train[:, :, chosen]  # (days, samples, jobs, minutes)
    evaluation = traces.evaluation[:, chosen, first_minute:]
    if first_minute:
        days, samples, count, minutes = train.shape
        joint = train.transpose(1, 2, 0, 3).reshape(samples, count, days * minutes)
        shifted = joint[..., first_minute : first_minute + (days - 1) * minutes]
        if days > 1:
            train = shifted.reshape(samples, count, days - 1, minutes).transpose(2, 0, 1, 3)
        else:
            train = np.zeros((0, *evaluation.shape), np.int64)
    return Traces(tuple(traces.jobs[job] for job in chosen), train, evaluation)


def limit_rate(workload: Workload, scale: float, max_rps: float) -> tuple[Workload, float]:
    """Scale requests down to at most `max_rps` per wall second in any minute.

    Return (workload, share kept).
    """
    peak_rps = float(workload.requests_per_min.sum(axis=0).max()) / MINUTE_S * scale
    share = min(1.0, max_rps / peak_rps) if peak_rps else 1.0
    counts = np.floor(workload.requests_per_min * share).astype(np.int64)
    return replace(workload, requests_per_min=counts), share


def matched_simulation(
    one: Slice, policy: Policy, seed: int, capacity_steps: tuple[tuple[float, float], ...] = ()
) -> Run:
    """Simulate the slice with the requests, dispatch, tick and capacity of a live run."""
    draws = one.draws(seed)
    draws = replace(draws, service_s=draws.service_s + one.overhead_s)
    with policy_failures_raised():
        return simulate(
            one.workload,
            one.paced(policy),
            one.capacity,
            draws=draws,
            serving_model=one.serving_model,
            guardrails=one.guardrails,
            initial=one.initial,
            capacity_steps=capacity_steps,
        )


def script_of(one: Slice, draws: Draws, urls: Sequence[str]) -> tuple[Script, np.ndarray]:
    """(the requests of a trial for the load generator, each request's index in `draws`)."""
    job = np.repeat(np.arange(len(urls)), np.diff(draws.first))
    order = np.argsort(draws.arrival_s, kind="stable")
    due_s = draws.arrival_s[order] / one.scale
    service_s = draws.service_s[order] / one.scale
    return Script(tuple(urls), due_s, job[order], service_s), order


def run_of(
    one: Slice, draws: Draws, order: np.ndarray, sent: Sent, decisions: Decisions, wall_s: float
) -> Run:
    """A live run as a `Run`, in trace seconds; requests that were not served count as dropped."""
    latency_s = np.empty(len(order))
    latency_s[order] = np.where(sent.outcome == SERVED, sent.latency_s * one.scale, np.inf)
    minute_s = MINUTE_S * np.arange(one.workload.minutes + 2)
    minute_s[-1] = np.inf
    blocks = zip(draws.first[:-1], draws.first[1:])
    edges = np.array([a + np.searchsorted(draws.arrival_s[a:b], minute_s) for a, b in blocks])
    outcome = (latency_s, edges, one.initial, decisions, wall_s)
    return evaluate_run(one.workload, one.capacity, *outcome)


def run_live(
    one: Slice,
    policy: Policy,
    seed: int,
    served: tuple[ServeSpec, ...],
    endpoint: Endpoint,
    journal: Path,
    max_rps: float,
    lose_worker: bool = False,
) -> tuple[Run, dict[str, Any], pd.DataFrame]:
    """Run the slice on real replicas. The jobs start with `one.initial` replicas.

    Parameters
    ----------
    lose_worker : delete a Ray worker halfway. The capacity is then the CPUs of Ray's nodes, not
        `one.capacity`.

    Returns
    -------
    The run, additional columns for the summary, and the table `recovery` (empty unless a worker is
    deleted). Columns are those of `Served.columns`, and:

    - overhead_s, network_overhead_s: see `overheads`.
    - capacity_steps: (time in s, cores) of each change of the capacity, as JSON.
    """
    draws = one.draws(seed)
    ray, http = endpoint.ray, endpoint.http
    script, order = script_of(one, draws, [http.address + job.route for job in served])
    reset(one, served, ray, http)
    clock = Clock.starting_now(one.scale, in_s=2.0)
    cores = None if lose_worker else one.capacity
    cluster = RayServeCluster(one.workload.jobs, served, ray, http, clock, cores)
    lost: LostWorker | None = None
    if lose_worker and endpoint.workers:
        half_s = one.workload.minutes * MINUTE_S / one.scale / 2
        lost = LostWorker(endpoint.workers, clock.origin_s, half_s)
    done = serve_script(
        one,
        policy,
        script,
        cluster,
        clock,
        journal,
        max_rps,
        pids=endpoint.pids,
        beside=lost,
    )
    run = run_of(one, draws, order, done.sent, done.decisions, done.wall_s)
    columns = done.columns()
    inside_s, outside_s = overheads(one, draws, order, done.sent, http, clock)
    columns |= {"overhead_s": inside_s, "network_overhead_s": outside_s}
    columns["capacity_steps"] = json.dumps(changes_of(done.steps, one.capacity))
    recovery = pd.DataFrame()
    if lost:
        slo_s = arrays_of(one.workload.jobs).slo_s
        recovery = recovery_table(lost, script, done.sent, slo_s, done.steps, one.scale)
    return run, columns, recovery


@dataclass(frozen=True, slots=True)
class Served:
    """What happened while a script was sent and a policy scaled the jobs."""

    sent: Sent
    decisions: Decisions
    steps: list[control.Step]
    failures: int  # of the controller
    others: BackgroundLoad
    wall_s: float

    def columns(self) -> dict[str, Any]:
        """Columns for the summary.

        - background_cpu, niced_cpu: mean number of processors that other processes used, in total
          and at low priority.
        - served, dropped, failed, unsent: number of requests by outcome.
        - send_lag_ms_p99: 99 % quantile of the delay between a request's due time and its sending.
        - failures: number of controller failures.
        - noisy_host: whether other processes of normal priority used more than NOISY_CPUS
          processors.
        """
        lag_s = self.sent.send_lag_s
        of_normal_priority = self.others.processors - self.others.niced
        return {
            "background_cpu": self.others.processors,
            "niced_cpu": self.others.niced,
            **{outcome: self.sent.count(n) for n, outcome in enumerate(OUTCOMES)},
            "send_lag_ms_p99": np.nanquantile(lag_s, 0.99) * 1e3 if len(lag_s) else 0.0,
            "failures": self.failures,
            "noisy_host": of_normal_priority > NOISY_CPUS,
        }


def serve_script(
    one: Slice,
    policy: Policy,
    script: Script,
    cluster: Cluster,
    clock: Clock,
    journal: Path,
    max_rps: float,
    *,
    pids: Sequence[int] = (),
    beside: AbstractContextManager[Any] | None = None,
) -> Served:
    """Send the script while the policy scales the jobs, until every request is answered.

    A policy that fails raises PolicyFailed.

    pids : roots of the process trees that serve the jobs.
    beside : a context that is entered meanwhile.
    """
    decisions = Decisions()
    steps: list[control.Step] = []
    failures = 0

    def on_step(step: control.Step) -> None:
        decisions.append(step)
        steps.append(step)

    def on_failure(reason: str, message: str) -> None:
        nonlocal failures
        if reason == FAILED:
            raise PolicyFailed(message)
        failures += 1

    generator = Generator(script, clock.origin_s, max_rps=max_rps)
    began = time.perf_counter()
    try:
        with BackgroundLoad((*pids, generator.pid)) as others, beside or nullcontext():
            loop.run(
                cluster,
                one.paced(policy),
                one.workload.jobs,
                guardrails=one.guardrails,
                journal=journal,
                clock=clock,
                until_s=one.workload.minutes * MINUTE_S,
                on_step=on_step,
                on_failure=on_failure,
            )
        sent = generator.result(timeout_s=90)
    finally:
        generator.stop()
    return Served(sent, decisions, steps, failures, others, time.perf_counter() - began)


def changes_of(steps: Sequence[control.Step], capacity: float) -> tuple[tuple[float, float], ...]:
    """(time in s, cores) of each tick at which the capacity has changed.

    Before the first tick, it is `capacity`.
    """
    changes = []
    before = capacity
    for step in steps:
        cores = float(step.observation.capacity)
        if cores != before:
            changes.append((float(step.observation.now_s), cores))
        before = cores
    return tuple(changes)


def overheads(
    one: Slice, draws: Draws, order, sent: Sent, http: HttpClient, clock: Clock
) -> tuple[float, float]:
    """Mean overheads of served requests in trace seconds; NaN without statistics.

    Inside the replica: service time minus drawn service time. Outside: the client's latency minus
    the replica's latency.
    """
    time.sleep(REPORTED_S)
    statistics = http.get(f"{STATS_ROUTE}?since={clock.origin_s}", BUSY_RETRY_S)
    total = empty_row()
    for job in one.workload.jobs:
        for row in statistics.get(job.name, {}).get("seconds", {}).values():
            add_row(total, row)
    was_served = sent.outcome == SERVED
    if not total["done"] or not was_served.any():
        return math.nan, math.nan
    drawn_s = float(draws.service_s[order][was_served].mean())
    inside_s = total["service_s"] / total["done"] * one.scale - drawn_s
    in_replica_s = total["latency_s"] / total["done"]
    outside_s = (float(sent.latency_s[was_served].mean()) - in_replica_s) * one.scale
    return inside_s, outside_s


def reset(one: Slice, served: tuple[ServeSpec, ...], ray: HttpClient, http: HttpClient) -> None:
    """Restore the initial replicas, and wait until all of them serve and no request is ongoing."""
    clock = Clock.starting_now()
    cluster = RayServeCluster(one.workload.jobs, served, ray, http, clock, one.capacity)
    running = None
    began = time.monotonic()
    while time.monotonic() - began < RESET_S:
        with suppress(OSError):  # no answer in time: try again
            seen = cluster.observe()
            running = seen.running.tolist()
            cluster.apply(one.initial, np.zeros(len(served)))
            started = (seen.running == one.initial) & (seen.target == one.initial)
            restored = started & (seen.terminating == 0)
            if restored.all() and not np.nansum(seen.ongoing):
                time.sleep(QUIET_S)
                return
        time.sleep(0.5)
    raise ValueError(f"replicas are {running} after {RESET_S:g} s, not {one.initial.tolist()}")
