"""`faro run`: the autoscaling loop on a live cluster."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from faro_lib.cli import backends
from faro_lib.cli.shared import (
    DEFAULT_POLICY,
    MAX_CAPACITY,
    Address,
    Policy,
    Prometheus,
    PrometheusToken,
    ServeAddress,
    option,
    say,
)

if TYPE_CHECKING:
    from faro_lib.control import Step
    from faro_lib.control.clock import Clock
    from faro_lib.kube.leader_gate import InterruptibleCluster
    from faro_lib.policies import Cluster, PolicyContext
    from faro_lib.policies import Policy as PolicyOf
    from faro_lib.workload import Job

STALLED_S = 120.0  # the health check fails this time plus five ticks after the last tick; one call takes up to 60 s


def run(
    jobs: Annotated[str, option("Table of jobs, .yaml or .csv; a .yaml says how each job is served.")],
    backend: Annotated[str, option("local (starts Ray here), rayserve or deployments.")] = "rayserve",
    address: Address = None,
    serve_address: ServeAddress = None,
    policy: Policy = DEFAULT_POLICY,
    history: Annotated[
        str | None, option("Counts to learn from, .csv, .csv.gz or .parquet: job, requests, minute[, day] or time.")
    ] = None,
    forecaster: Annotated[str, option("Forecaster to fit to --history.")] = "auto",
    apply: Annotated[bool, option("Scale the jobs; without it, only print plans.", "--apply")] = False,
    journal: Annotated[str | None, option("File that records every tick; a run resumes from it.")] = None,
    tick: Annotated[float | None, option("Seconds between ticks.", default="the policy's own")] = None,
    capacity: Annotated[
        int | None, option("Cores that the jobs may use.", default="all cores of the cluster", most=MAX_CAPACITY)
    ] = None,
    fail_mode: Annotated[str, option("Response to missing data or a failed policy: hold or fair-share.")] = "hold",
    max_scaling_actions: Annotated[int | None, option("Replicas that one tick may add or remove.")] = None,
    stale_after: Annotated[float, option("Seconds without a job's data until the fail mode applies.")] = 60.0,
    deadline: Annotated[float | None, option("Seconds after which a decision is discarded.", default="never")] = None,
    metrics_port: Annotated[int | None, option("Port that serves Prometheus metrics; 0: any.")] = None,
    metrics_address: Annotated[str, option("Network address of the metrics port.")] = "127.0.0.1",
    seconds: Annotated[float | None, option("Seconds after which the run stops.", default="never")] = None,
    plan: Annotated[str | None, option("NAMESPACE/NAME of the FaroPlan and its Lease (Kubernetes).")] = None,
    kubeconfig: Annotated[str | None, option("kubeconfig file.", default="in a pod its ServiceAccount")] = None,
    context: Annotated[str | None, option("kubeconfig context.", default="the current one")] = None,
    prometheus: Prometheus = None,
    prometheus_token: PrometheusToken = None,
    wait: Annotated[bool, option("Wait, unready, for jobs that are not served yet; else exit.", "--wait")] = False,
) -> None:
    """Run the autoscaling loop until SIGTERM or Ctrl-C; a dry run unless --apply. Replicas stay unchanged on exit."""
    from faro_lib import control
    from faro_lib.control import GuardrailConfig
    from faro_lib.control.journal import check_unlocked
    from faro_lib.control.startup import once, until_passed
    from faro_lib.files import check_writable
    from faro_lib.policies import make
    from faro_lib.policies.loops import paced
    from faro_lib.workload.readers import read_jobs

    if backend not in backends.BACKENDS:
        raise ValueError(f"backend={backend!r} is unknown; accepted: {', '.join(backends.BACKENDS)}")
    table = read_jobs(jobs)
    guardrails = GuardrailConfig(fail_mode, max_scaling_actions, stale_after, deadline)
    chosen = make(policy, context_of(table, history, forecaster, jobs, capacity))
    chosen = chosen if tick is None else paced(chosen, tick)
    with ExitStack() as stack:
        stop = stack.enter_context(stopped_by_signals())
        exporter = None
        if metrics_port is not None:  # first, because the port may be in use
            from faro_lib.control.exporter import Exporter

            exporter = Exporter(table, metrics_port, metrics_address, STALLED_S + 5 * chosen.tick_s)
            stack.callback(exporter.close)
            say(f"metrics at http://{metrics_address}:{exporter.port}/metrics")
        if journal is not None:
            check_writable(journal)
            check_unlocked(journal)
        clock, publish = clock_of(journal, stop), None
        chosen = at_time_of_day(chosen, clock.origin_s)
        home = backends.faro_plan(backend, plan, kubeconfig, context)

        def waiting(reason: str | None) -> None:
            if exporter:
                exporter.waits_for = reason
            if reason:
                say(f"waiting: {reason}")

        ensure = until_passed(stop, waiting) if wait else once
        serving: InterruptibleCluster
        if home and backend == "deployments":
            serving = backends.deployments(home, jobs, table, prometheus, prometheus_token, clock, capacity, ensure)
        else:
            ray = backends.ray_serve(
                home, backend, jobs, table, address, serve_address, clock, capacity, chosen, ensure
            )
            serving = stack.enter_context(ray)
        cluster: Cluster = serving
        if home:
            from faro_lib.kube.operate import gated_cluster

            fixed = capacity is not None
            gated = gated_cluster(home, serving, table, policy, stop, act=apply, fixed=fixed, report=say, ensure=ensure)
            cluster, publish = stack.enter_context(gated)

        def on_step(step: Step) -> None:
            for listener in (publish, exporter and exporter.step):
                if listener:
                    listener(step)
            print(json.dumps(summary_of(step, table, apply)), flush=True)

        def on_failure(reason: str, message: str) -> None:
            if exporter:
                exporter.failure(reason, message)
            say(f"faro: {reason}: {message}")

        control.run(
            cluster, chosen, table, guardrails=guardrails, apply=apply, journal=journal, clock=clock, stop=stop,
            until_s=float("inf") if seconds is None else clock.now_s + seconds, on_step=on_step, on_failure=on_failure,
        )  # fmt: skip


def summary_of(step: Step, table: tuple[Job, ...], applied: bool) -> dict:
    """One tick for JSON: time, whether it was applied, and each job's replicas, drop rate and reason."""
    plan = {
        job.name: {"replicas": int(target), "drop": round(float(drop), 4), "reason": reason}
        for job, target, drop, reason in zip(table, step.target, step.plan.drop, step.plan.reason)
    }
    return {"now_s": step.observation.now_s, "applied": applied, "plan": plan}


def context_of(
    table: tuple[Job, ...], history: str | None, forecaster: str, path: str, capacity: float | None = None
) -> PolicyContext:
    """The policy's inputs: jobs, latency table, and a forecaster fitted to the file `history` (None: not fitted)."""
    import numpy as np

    from faro_lib import forecast
    from faro_lib.policies import PolicyContext
    from faro_lib.rayserve.spec import MAX_ONGOING_REQUESTS, ongoing_limits
    from faro_lib.simulate import ServingModel
    from faro_lib.simulate.measure import measure
    from faro_lib.workload import Traces
    from faro_lib.workload.jobs import DAY_MINUTES
    from faro_lib.workload.readers import read_csv, read_sections

    if history:
        traces = read_csv(history, table)
        days = np.concatenate([traces.train, traces.evaluation[None]])  # the newest day too: it is over
        fitted = forecast.fit(forecaster, Traces(table, days, traces.evaluation))
    else:
        none = np.zeros((0, 1, len(table), DAY_MINUTES), int)
        fitted = forecast.fit("auto", Traces(table, none, np.zeros((1, len(table), DAY_MINUTES), int)))
    serving_model = ServingModel("least-outstanding", max_ongoing_requests=MAX_ONGOING_REQUESTS)
    limits = ongoing_limits(table, read_sections(path, "serve"))
    latency_model = measure(table, capacity=capacity, serving_model=serving_model, max_ongoing_requests=limits)
    return PolicyContext(table, forecaster=fitted, latency_model=latency_model)


def at_time_of_day(policy: PolicyOf, origin_s: float) -> PolicyOf:
    """The policy with its forecaster at the local minute of the day at `origin_s` (Unix time), for days of 24 hours."""
    from faro_lib.policies.loops import TwoLoops
    from faro_lib.workload.jobs import DAY_MINUTES

    if not isinstance(policy, TwoLoops) or policy.forecaster.day_minutes != DAY_MINUTES:
        return policy
    local = time.localtime(origin_s)
    return replace(policy, forecaster=policy.forecaster.start(60 * local.tm_hour + local.tm_min))


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set; restores the signal handlers on exit."""
    from faro_lib.control.clock import StopEvent

    stop = StopEvent()
    signals = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda number, _: request_stop(stop, number)) for number in signals]
    try:
        yield stop
    finally:
        for number, handler in zip(signals, before):
            signal.signal(number, handler)
        stop.close()


def request_stop(stop: threading.Event, number: int) -> None:
    """Stop after this tick; a second Ctrl-C stops at once, also while Ray is starting."""
    if number == signal.SIGINT and stop.is_set():
        raise KeyboardInterrupt
    stop.set()


def clock_of(journal: str | None, stop: threading.Event) -> Clock:
    """A wall clock that starts where the journal starts.

    Without a journal it starts HISTORY_MINUTES ago, so that counts from before the controller have times >= 0.
    """
    from faro_lib.control.clock import Clock
    from faro_lib.control.journal import read
    from faro_lib.policies.protocol import HISTORY_MINUTES
    from faro_lib.workload.jobs import MINUTE_S

    if journal and Path(journal).exists() and Path(journal).stat().st_size:
        header, ticks = read(journal)
        if ticks and header.origin_s is not None:
            return Clock(header.origin_s, header.scale, stop)
    return Clock.starting_now(stop=stop, in_s=-HISTORY_MINUTES * MINUTE_S)
