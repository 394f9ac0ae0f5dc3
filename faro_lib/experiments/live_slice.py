"""One slice of a day under one policy, on real replicas and in the simulator's twin of them."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from faro_lib import control
from faro_lib.control import GuardrailConfig
from faro_lib.control.clock import Clock
from faro_lib.http import BUSY_RETRY_S, HttpClient
from faro_lib.policies import Faro, Policy
from faro_lib.policies.baselines import fair_share
from faro_lib.policies.loops import paced
from faro_lib.rayserve.cluster import RayServeCluster
from faro_lib.rayserve.deploy import STATS_ROUTE
from faro_lib.rayserve.load import OUTCOMES, SERVED, Generator, Script, Sent
from faro_lib.rayserve.machine import BackgroundLoad
from faro_lib.rayserve.profile import REPORTED_S
from faro_lib.rayserve.spec import ServeSpec
from faro_lib.rayserve.statistics import add_row, empty_row
from faro_lib.simulate import Draws, Run, ServingModel, draw, simulate
from faro_lib.simulate.run import Decisions, evaluate_run
from faro_lib.workload import Traces, Workload
from faro_lib.workload.jobs import MINUTE_S

LEAST_TICK_S = 30.0  # wall seconds between two decisions: a few replicas must be able to start
MOST_STARTS = 6  # replicas that a decision may start
RESET_S = 120.0
QUIET_S = 1.0


@dataclass(frozen=True, slots=True)
class Slice:
    """What is replayed, live and in the twin; times in seconds of the trace.

    workload : the jobs, with service and start times as measured, and their requests.
    scale : trace seconds in a wall second.
    tick_s : between two decisions.
    max_ongoing_requests : requests that a replica may hold.
    overhead_s : what a replica needs for a request beyond the service time drawn for it.
    """

    workload: Workload
    capacity: int
    scale: float
    tick_s: float
    max_ongoing_requests: int
    overhead_s: float = 0.0

    def __post_init__(self):
        if self.tick_s / self.scale < LEAST_TICK_S:
            raise ValueError(
                f"tick_s={self.tick_s:g} at scale={self.scale:g} is {self.tick_s / self.scale:g} s of wall time; "
                f"decisions must be at least {LEAST_TICK_S:g} s apart"
            )

    @property
    def initial(self) -> np.ndarray:
        """Every policy begins with an equal share: a run is too short to begin with one replica each."""
        return fair_share(self.workload.jobs, self.capacity)

    @property
    def guardrails(self) -> GuardrailConfig:
        return GuardrailConfig(max_scaling_actions=MOST_STARTS)

    @property
    def serving_model(self) -> ServingModel:
        return ServingModel("least-outstanding", max_ongoing_requests=self.max_ongoing_requests)

    def paced(self, policy: Policy) -> Policy:
        """The policy with this slice's tick; where it plans, a new replica is cold for the minute that it takes to start."""
        if not isinstance(policy, Faro):
            return paced(policy, self.tick_s)
        return paced(policy, self.tick_s, cold_start_minutes=1.0)

    def draws(self, seed: int) -> Draws:
        """The chance of a trial, the same for every policy, live and in the twin."""
        return draw(self.workload, seed, router=None)


def part_of(traces: Traces, jobs: Sequence[int], first_minute: int) -> Traces:
    """Some jobs only, and every day begun at `first_minute`: a forecaster that starts there knows what time it is.

    One training day is lost if first_minute > 0, as the days are cut anew.
    """
    chosen = list(jobs)
    train, evaluation_day = traces.train[:, :, chosen], traces.evaluation[:, chosen]
    if first_minute:
        days, samples, count, minutes = train.shape
        flat = train.transpose(1, 2, 0, 3).reshape(samples, count, days * minutes)
        cut = flat[..., first_minute : first_minute + (days - 1) * minutes] if days else flat
        train = cut.reshape(samples, count, max(days - 1, 0), minutes).transpose(2, 0, 1, 3)
        evaluation_day = evaluation_day[..., first_minute:]
        if not train.shape[0]:
            train = np.zeros((0, *evaluation_day.shape), np.int64)
    return Traces(tuple(traces.jobs[job] for job in chosen), train, evaluation_day)


def twin(one: Slice, policy: Policy, seed: int) -> Run:
    """The slice in the simulator: queues at the replicas behind a least-connections proxy, measured times, the same tick."""
    draws = one.draws(seed)
    draws = replace(draws, service_s=draws.service_s + one.overhead_s)
    return simulate(
        one.workload,
        one.paced(policy),
        one.capacity,
        draws=draws,
        serving_model=one.serving_model,
        guardrails=one.guardrails,
        initial=one.initial,
    )


@dataclass(frozen=True, slots=True)
class Notes:
    """What else there is to say of a live run.

    background_cpu, niced_cpu : processors kept busy by processes that are not ours, mean over the run; of them, by processes
        that give way to ours.
    served, dropped, failed, unsent : requests by outcome.
    send_lag_ms_p99 : how much later than due requests were sent.
    overhead_s, network_overhead_s : trace seconds that a request took beyond the service time drawn for it, in its replica and
        outside of it; NaN if the replicas did not tell.
    failures : what went wrong in the controller, (reason, one line).
    """

    background_cpu: float
    niced_cpu: float
    served: int
    dropped: int
    failed: int
    unsent: int
    send_lag_ms_p99: float
    overhead_s: float
    network_overhead_s: float
    failures: tuple[tuple[str, str], ...]


def script_of(one: Slice, draws: Draws, urls: Sequence[str]) -> tuple[Script, np.ndarray]:
    """The requests of a trial as the load generator sends them, and their max_ongoing_requests in the order of the draws."""
    job = np.repeat(np.arange(len(urls)), np.diff(draws.first))
    order = np.argsort(draws.arrival_s, kind="stable")
    wall = draws.arrival_s[order] / one.scale, draws.service_s[order] / one.scale
    return Script(tuple(urls), wall[0], job[order], wall[1]), order


def run_of(one: Slice, draws: Draws, order: np.ndarray, sent: Sent, decisions: Decisions, wall_s: float) -> Run:
    """The run as the simulator would have told it; latencies in trace seconds, whatever was not served refused."""
    latency_s = np.empty(len(order))
    latency_s[order] = np.where(sent.outcome == SERVED, sent.latency_s * one.scale, np.inf)
    minute_s = MINUTE_S * np.arange(one.workload.minutes + 2)
    minute_s[-1] = np.inf
    blocks = zip(draws.first[:-1], draws.first[1:])
    edges = np.array([a + np.searchsorted(draws.arrival_s[a:b], minute_s) for a, b in blocks])
    return evaluate_run(one.workload, one.capacity, latency_s, edges, one.initial, decisions, wall_s)


def live(
    one: Slice,
    policy: Policy,
    seed: int,
    served: tuple[ServeSpec, ...],
    ray: HttpClient,
    http: HttpClient,
    *,
    pids: Sequence[int] = (),
    journal: str | Path | None = None,
    max_rps: float = 200.0,
) -> tuple[Run, Notes]:
    """The slice on real replicas, from the same start and with the same requests for every policy.

    Parameters
    ----------
    pids : heads of our process trees, so that other load can be told from ours.
    """
    draws = one.draws(seed)
    urls = [http.address + job.route for job in served]
    script, order = script_of(one, draws, urls)
    reset(one, served, ray, http)
    clock = Clock.starting_now(one.scale, in_s=2.0)
    cluster = RayServeCluster(one.workload.jobs, served, ray, http, clock, one.capacity)
    decisions, failures = Decisions(), list[tuple[str, str]]()
    generator = Generator(script, clock.origin_s, max_rps=max_rps)
    began = time.perf_counter()
    try:
        with BackgroundLoad((*pids, generator.pid)) as others:
            control.run(
                cluster,
                one.paced(policy),
                one.workload.jobs,
                guardrails=one.guardrails,
                journal=journal,
                clock=clock,
                until_s=one.workload.minutes * MINUTE_S,
                on_step=decisions.append,
                on_failure=lambda reason, told: failures.append((reason, told)),
            )
        sent = generator.result(timeout_s=90)
    finally:
        generator.stop()
    run = run_of(one, draws, order, sent, decisions, time.perf_counter() - began)
    served_n, dropped, failed, unsent = (sent.count(outcome) for outcome in range(len(OUTCOMES)))
    late_ms = float(np.nanquantile(sent.send_lag_s, 0.99) * 1e3) if len(sent.send_lag_s) else 0.0
    overhead_s, network_overhead_s = beyond(one, draws, order, sent, http, clock)
    return run, Notes(
        others.processors,
        others.niced,
        served_n,
        dropped,
        failed,
        unsent,
        late_ms,
        overhead_s,
        network_overhead_s,
        tuple(failures),
    )


def beyond(one: Slice, draws: Draws, order, sent: Sent, http: HttpClient, clock: Clock) -> tuple[float, float]:
    """What requests took beyond the service times drawn for them, in the replicas and outside; trace seconds, means.

    The replicas' own sums are compared with the draws of those that were served.
    """
    time.sleep(REPORTED_S)
    told = http.get(f"{STATS_ROUTE}?since={clock.origin_s}", BUSY_RETRY_S)
    total = empty_row()
    for job in one.workload.jobs:
        for row in told.get(job.name, {}).get("seconds", {}).values():
            add_row(total, row)
    was_served = sent.outcome == SERVED
    if not total["done"] or not was_served.any():
        return math.nan, math.nan
    drawn_s = float(draws.service_s[order][was_served].mean())
    in_replica_s = total["latency_s"] / total["done"]
    network_overhead_s = (float(sent.latency_s[was_served].mean()) - in_replica_s) * one.scale
    return total["service_s"] / total["done"] * one.scale - drawn_s, network_overhead_s


def reset(one: Slice, served: tuple[ServeSpec, ...], ray: HttpClient, http: HttpClient) -> float:
    """Back to the state that every run starts from; returns when all replicas serve and nobody waits. Seconds it took."""
    clock = Clock.starting_now()
    cluster = RayServeCluster(one.workload.jobs, served, ray, http, clock, one.capacity)
    began, running = time.monotonic(), None
    while time.monotonic() - began < RESET_S:
        with suppress(OSError):  # no answer in time: ask again
            seen = cluster.observe()
            running = seen.running.tolist()
            cluster.apply(one.initial, np.zeros(len(served)))
            at_start = (
                (seen.running == one.initial).all()
                and (seen.target == one.initial).all()
                and not seen.terminating.any()
            )
            if at_start and not np.nansum(seen.ongoing):
                time.sleep(QUIET_S)
                return time.monotonic() - began
        time.sleep(0.5)
    raise ValueError(f"replicas are {running} after {RESET_S:g} s, not {one.initial.tolist()}")
