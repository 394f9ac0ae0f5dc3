"""`faro run`: the autoscaling loop on a live cluster."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from faro_lib.cli import backends, shared
from faro_lib.cli.shared import option, say
from faro_lib.errors import message_of

if TYPE_CHECKING:
    from faro_lib.control import Step
    from faro_lib.control.clock import Clock
    from faro_lib.control.journal import Journal
    from faro_lib.control.overrides import Settings
    from faro_lib.kube.leader_gate import InterruptibleCluster
    from faro_lib.kube.operate import NamespacedName
    from faro_lib.policies import Cluster, Policy, PolicyContext
    from faro_lib.rayserve.cluster import Lease
    from faro_lib.workload import Job

PROMETHEUS = "prometheus"  # value of --history
CHANGES = "changes"  # reason of a failure: new settings are invalid
STALLED_S = 120.0  # the health check fails after this time plus five ticks without a tick; a call may take up to 60 s


def run(
    jobs: Annotated[str, option("Table of jobs, .yaml or .csv; a .yaml says how each job is served.")],
    backend: Annotated[str, option("local (starts Ray here), rayserve or deployments.")] = "rayserve",
    address: shared.Address = None,
    serve_address: shared.ServeAddress = None,
    policy: shared.PolicyName = shared.DEFAULT_POLICY,
    history: Annotated[
        str | None,
        option("Counts to learn from, a file (job, requests, minute[, day] or time), or `prometheus`: this run's own."),
    ] = None,
    forecaster: Annotated[str, option("Forecaster to fit to --history.")] = "auto",
    apply: Annotated[bool, option("Scale the jobs; without it, only print plans.", "--apply")] = False,
    journal: Annotated[str | None, option("File that records every tick; a run resumes from it.")] = None,
    tick: Annotated[float | None, option("Seconds between ticks.", default="the policy's own")] = None,
    capacity: Annotated[
        int | None,
        option("Cores that the jobs may use.", default="all cores of the cluster", maximum=shared.MAX_CAPACITY),
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
    prometheus: shared.PrometheusAddress = None,
    prometheus_token: shared.PrometheusToken = None,
    ca_file: shared.CaFile = None,
    log: shared.LogFormat = "text",
    force: Annotated[bool, option("Take over from another controller; overrule other clients.", "--force")] = False,
    start_timeout: Annotated[float, option("Seconds that a Ray started here, and its jobs, may take.")] = 180.0,
    wait: Annotated[bool, option("If jobs are not served yet, wait (unready) instead of exiting.", "--wait")] = False,
) -> None:
    """Run the autoscaling loop until SIGTERM or Ctrl-C; a dry run unless --apply. Replicas stay unchanged on exit."""
    # One function, because all parts share the options.
    from faro_lib import control
    from faro_lib.control import GuardrailConfig
    from faro_lib.control.journal import Journal
    from faro_lib.control.overrides import Watched
    from faro_lib.control.startup import once, until_passed
    from faro_lib.files import check_writable
    from faro_lib.policies import make
    from faro_lib.policies.loops import paced

    if backend not in backends.BACKENDS:
        raise ValueError(f"backend={backend!r} is unknown; accepted: {', '.join(backends.BACKENDS)}")
    home = backends.faro_plan(backend, plan, kubeconfig, context)
    watched = Watched(jobs, backends.overrides_of(home, journal))
    settings = watched.known
    learnt_on = date.today()
    guardrails = GuardrailConfig(fail_mode, max_scaling_actions, stale_after, deadline, force)

    def policy_of(settings: Settings) -> Policy:
        made = make(policy, context_of(settings, history, forecaster, capacity, prometheus, prometheus_token))
        return made if tick is None else paced(made, tick)

    chosen = policy_of(settings)
    with ExitStack() as stack:
        stop = stack.enter_context(stopped_by_signals())
        exporter = None
        if metrics_port is not None:  # before anything else, because the port may be in use
            from faro_lib.control.exporter import Exporter

            exporter = Exporter(settings.jobs, metrics_port, metrics_address, STALLED_S + 5 * chosen.tick_s)
            stack.callback(exporter.close)
            say(f"metrics at http://{metrics_address}:{exporter.port}/metrics")
        written = None
        if journal is not None:
            check_writable(journal)
            written = stack.enter_context(Journal(journal))
        changes = changes_since(written, settings)
        clock = clock_of(written, stop)

        def waiting(reason: str | None) -> None:
            if exporter:
                exporter.waits_for = reason
            if reason:
                say(f"waiting: {reason}")

        def on_failure(reason: str, message: str) -> None:
            if exporter:
                exporter.failure(reason, message)
            say(message, reason)

        def outdated() -> bool:
            return history == PROMETHEUS and date.today() > learnt_on

        def changed() -> bool:
            try:
                return watched.new() is not None or outdated()
            except (ValueError, OSError) as error:
                on_failure(CHANGES, f"{message_of(error)}; the jobs stay as they are")
                return False

        ensure = until_passed(stop, waiting) if wait else once
        cluster_of: Callable[[Settings], InterruptibleCluster]
        if home and backend == "deployments":
            cluster_of = partial(
                backends.deployments, home, prometheus=prometheus, token_path=prometheus_token, clock=clock,
                capacity=capacity, ensure=ensure,
            )  # fmt: skip
        else:
            ray = backends.ray_serve(
                home, backend, settings, address, serve_address, clock, capacity, chosen, ensure,
                lease_of(home, journal, chosen.tick_s, force) if apply else None, start_timeout,
            )  # fmt: skip
            cluster_of = stack.enter_context(ray)
        until_s = float("inf") if seconds is None else clock.now_s + seconds  # after Ray has started
        last = settings
        while not stop.is_set() and clock.now_s < until_s:  # one pass per change of the settings
            table, new = settings.jobs, settings is not last or outdated()
            learnt_on = date.today() if new else learnt_on
            with ExitStack() as inner:
                try:
                    made = policy_of(settings) if new else chosen
                    planner = at_time_of_day(expecting(made, settings, clock), clock.origin_s)
                    serving = cluster_of(settings)
                    cluster: Cluster = serving
                    publish = None
                    if home:
                        from faro_lib.kube.operate import gated_cluster

                        gated = gated_cluster(
                            home, serving, table, policy, stop, act=apply, fixed=capacity is not None, report=say,
                            ensure=ensure,
                        )  # fmt: skip
                        cluster, publish = inner.enter_context(gated)
                except ValueError as error:
                    if not new:
                        raise
                    on_failure(CHANGES, f"{error}; the jobs stay as they were")
                    settings, changes = last, ()
                    continue
                chosen = made
                if exporter:
                    exporter.use_jobs(table)
                for change in changes:
                    say(change)

                def on_step(step: Step, publish: Any = publish, table: tuple[Job, ...] = table) -> None:
                    for listener in (publish, exporter and exporter.step):
                        if listener:
                            listener(step)
                    print(json.dumps(summary_of(step, table, apply)), flush=True)

                control.run(
                    cluster, planner, table, guardrails=replace(guardrails, fixed=settings.fixed_jobs), apply=apply,
                    journal=written, clock=clock, stop=stop, until_s=until_s, on_step=on_step, on_failure=on_failure,
                    changes=changes, changed=changed,
                )  # fmt: skip
            last, settings = settings, watched.known
            changes = tuple(last.changes(settings))


def changes_since(journal: Journal | None, settings: Settings) -> tuple[str, ...]:
    """What has changed in the jobs since the run that the journal would resume; () if nothing, or if there is no such run."""
    header = journal.header if journal and journal.ticks else None
    if not header or (header.jobs, header.guardrails.fixed) == (settings.jobs, settings.fixed_jobs):
        return ()
    return tuple(replace(settings, jobs=header.jobs, fixed=()).changes(settings))


def expecting(policy: Policy, settings: Settings, clock: Clock) -> Policy:
    """The policy whose forecaster knows the operator's events; a policy without a forecaster is unchanged."""
    from faro_lib.forecast.expected import Event, expected
    from faro_lib.policies.loops import TwoLoops

    if not settings.events or not isinstance(policy, TwoLoops):
        return policy
    names = [job.name for job in settings.jobs]

    def minute(wall_s: float | None) -> float:
        return float("inf") if wall_s is None else (wall_s - clock.origin_s - clock.jump_s) * clock.scale / 60

    events = tuple(
        Event(names.index(one.job), minute(one.from_s), minute(one.until_s), one.load or 1.0) for one in settings.events
    )
    return replace(policy, forecaster=expected(policy.forecaster, events))


def lease_of(home: NamespacedName | None, journal: str | None, tick_s: float, force: bool) -> Lease:
    """This controller's lease. A controller that restarts with the same FaroPlan or journal has the same name in it."""
    from faro_lib.rayserve.cluster import Lease

    host = socket.gethostname()
    name = f"{host}:{Path(journal).absolute()}" if journal else f"{host}, process {os.getpid()}"
    return Lease(f"{home.namespace}/{home.name}" if home else name, max(30.0, 3 * tick_s), force)


def summary_of(step: Step, table: tuple[Job, ...], applied: bool) -> dict:
    """A tick as a mapping for JSON: time, whether it was applied, and each job's replicas, drop rate and reason."""
    plan = {
        job.name: {"replicas": int(target), "drop": round(float(drop), 4), "reason": reason}
        for job, target, drop, reason in zip(table, step.target, step.plan.drop, step.plan.reason)
    }
    return {"now_s": step.observation.now_s, "applied": applied, "plan": plan}


def context_of(
    settings: Settings,
    history: str | None,
    forecaster: str,
    capacity: float | None = None,
    prometheus: str | None = None,
    prometheus_token: str | None = None,
) -> PolicyContext:
    """The policy's inputs: jobs, latency table, and a forecaster fitted to `history`.

    history : a file of counts; PROMETHEUS: the counts that controllers have exported to the server `prometheus`; None: the
        forecaster is not fitted.
    """
    import numpy as np

    from faro_lib import forecast
    from faro_lib.policies import PolicyContext
    from faro_lib.rayserve.spec import ongoing_limits
    from faro_lib.recommend.load_history import exported_days
    from faro_lib.recommend.recommendation import LIVE
    from faro_lib.simulate.measure import measure
    from faro_lib.workload import Traces
    from faro_lib.workload.jobs import DAY_MINUTES
    from faro_lib.workload.readers import read_csv

    table = settings.jobs
    if history == PROMETHEUS:
        if prometheus is None:
            raise ValueError("history=prometheus needs --prometheus, the address of the server that scrapes Faro")
        traces = exported_days(prometheus, table, prometheus_token, say)
    else:
        traces = read_csv(history, table) if history else None
    if traces is not None:
        days = np.concatenate([traces.train, traces.evaluation[None]])  # include the newest day, which is also complete
        fitted = forecast.fit(forecaster, Traces(table, days, traces.evaluation))
    else:
        none = np.zeros((0, 1, len(table), DAY_MINUTES), int)
        fitted = forecast.fit("auto", Traces(table, none, np.zeros((1, len(table), DAY_MINUTES), int)))
    limits = ongoing_limits(table, settings.sections.get("serve", {}))
    measured = partial(measure, table, capacity=capacity, serving_model=replace(LIVE, own_limits=limits))
    return PolicyContext(table, fitted, measure=measured)


def at_time_of_day(policy: Policy, origin_s: float) -> Policy:
    """The policy whose forecaster starts at the local minute of the day at `origin_s` (Unix time), for days of 24 hours."""
    from faro_lib.policies.loops import TwoLoops
    from faro_lib.workload.jobs import DAY_MINUTES

    if not isinstance(policy, TwoLoops) or policy.forecaster.day_minutes != DAY_MINUTES:
        return policy
    local = time.localtime(origin_s)
    return replace(policy, forecaster=policy.forecaster.start(60 * local.tm_hour + local.tm_min))


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """A context with an event that SIGTERM and SIGINT set; the signal handlers are restored at the end."""
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
    """Handle a signal: stop after this tick, or at once at a second Ctrl-C, even while Ray is starting."""
    if number == signal.SIGINT and stop.is_set():
        raise KeyboardInterrupt
    stop.set()


def clock_of(journal: Journal | None, stop: threading.Event) -> Clock:
    """The clock of the run that the journal would resume; otherwise, a new clock that started HISTORY_MINUTES ago.

    So a new run can use counts from before its start, at times >= 0.
    """
    from faro_lib.control.clock import Clock
    from faro_lib.policies.protocol import HISTORY_MINUTES
    from faro_lib.workload.jobs import MINUTE_S

    header = journal.header if journal and journal.ticks else None
    if header and header.origin_s is not None:
        return Clock(header.origin_s, header.scale, stop)
    return Clock.starting_now(stop=stop, in_s=-HISTORY_MINUTES * MINUTE_S)
