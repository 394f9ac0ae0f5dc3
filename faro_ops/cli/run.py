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
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from faro_ops.cli import backends, shared
from faro_ops.cli.shared import cores, option, say
from faro_ops.cli.trust import announcing, recorded_authority
from faro_ops.errors import message_of

if TYPE_CHECKING:
    from faro_lib.control import Step
    from faro_lib.policies import Cluster, Policy
    from faro_lib.workload import Job
    from faro_ops.cli.model import FreshModel
    from faro_ops.controller.clock import Clock
    from faro_ops.controller.exporter import Exporter
    from faro_ops.controller.journal import Journal
    from faro_ops.controller.overrides import Settings
    from faro_ops.kube.leader_gate import InterruptibleCluster
    from faro_ops.kube.operate import NamespacedName
    from faro_ops.rayserve.cluster import Lease

CHANGES, REFIT = (
    "changes",
    "refit",
)  # failure reasons: CHANGES if new settings are unusable, REFIT if a refit fails
RETRY_S = 60.0  # seconds until changed settings are tried again after they failed with an OSError
STALLED_S = 120.0  # /healthz fails if no tick ends for 5 periods plus this time, which allows for API calls of 60 s


def run(
    jobs: Annotated[
        str, option("Table of jobs, .yaml or .csv; a .yaml says how each job is served.")
    ],
    backend: Annotated[
        str, option("local (starts Ray here), rayserve or deployments.")
    ] = "rayserve",
    address: shared.Address = None,
    serve_address: shared.ServeAddress = None,
    policy: shared.PolicyName = shared.DEFAULT_POLICY,
    history: Annotated[
        str | None,
        option(
            "Counts to learn from: a file (job, requests, minute[, day] or time), or `prometheus` or `journal`."
        ),
    ] = None,
    forecaster: Annotated[str, option("Forecaster to fit to --history.")] = "auto",
    apply: Annotated[
        bool, option("Scale the jobs; without it, only print plans.", "--apply")
    ] = False,
    act: Annotated[
        str,
        option(
            "What --apply changes: replicas, or ceilings, the bounds of HorizontalPodAutoscalers."
        ),
    ] = "replicas",
    earn: Annotated[
        bool, option("Change a service only as far as it has earned (faro trust).", "--earn")
    ] = False,
    journal: Annotated[
        str | None, option("File that records every tick; a run resumes from it.")
    ] = None,
    tick: Annotated[
        float | None, option("Seconds between ticks.", default="the policy's own")
    ] = None,
    capacity: Annotated[
        int | None, cores("Cores that the jobs may use.", default="all cores of the cluster")
    ] = None,
    fail_mode: Annotated[
        str, option("Response to missing data or a failed policy: hold or fair-share.")
    ] = "hold",
    max_scaling_actions: Annotated[
        int | None, option("Replicas that one tick may add or remove.")
    ] = None,
    stale_after: Annotated[
        float, option("Seconds without a job's data until the fail mode applies.")
    ] = 60.0,
    deadline: Annotated[
        float | None, option("Seconds after which a decision is discarded.", default="never")
    ] = None,
    metrics_port: Annotated[
        int | None, option("Port that serves Prometheus metrics; 0: any.")
    ] = None,
    metrics_address: Annotated[str, option("Network address of the metrics port.")] = "127.0.0.1",
    seconds: Annotated[
        float | None, option("Seconds after which the run stops.", default="never")
    ] = None,
    plan: Annotated[
        str | None, option("NAMESPACE/NAME of the FaroPlan and its Lease (Kubernetes).")
    ] = None,
    kubeconfig: Annotated[
        str | None, option("kubeconfig file.", default="in a pod its ServiceAccount")
    ] = None,
    context: Annotated[str | None, option("kubeconfig context.", default="the current one")] = None,
    prometheus: shared.PrometheusAddress = None,
    prometheus_token: shared.PrometheusToken = None,
    ca_file: shared.CaFile = None,
    log: shared.LogFormat = "text",
    force: Annotated[
        bool, option("Take over from another controller; overrule other clients.", "--force")
    ] = False,
    start_timeout: Annotated[
        float, option("Seconds that a Ray started here, and its jobs, may take.")
    ] = 180.0,
    watch: Annotated[
        bool,
        option("Draw the jobs after every tick instead of printing a line of JSON.", "--watch"),
    ] = False,
    wait: Annotated[
        bool, option("If jobs are not served yet, wait (unready) instead of exiting.", "--wait")
    ] = False,
) -> None:
    """Run the autoscaling loop; without --apply, only print its plans.

    SIGTERM or Ctrl-C stops the loop; the replicas then stay as they are.
    """
    # One long function, because all its parts use the options.
    from faro_lib.control import GuardrailConfig
    from faro_lib.policies import make, protocol
    from faro_lib.policies.loops import paced
    from faro_ops.cli.model import FAILED, FreshModel, Source, at_time_of_day, context_of, expecting
    from faro_ops.controller import loop
    from faro_ops.controller.journal import Journal
    from faro_ops.controller.overrides import Watched
    from faro_ops.controller.startup import once, until_passed
    from faro_ops.files import check_writable
    from faro_ops.policies.authority import WithAuthority
    from faro_ops.policies.bounds import AsBounds

    if watch:
        from faro_ops.cli.view import check_terminal, watching

        check_terminal()
    if backend not in backends.BACKENDS:
        raise ValueError(
            f"backend={backend!r} is unknown; accepted: {', '.join(backends.BACKENDS)}"
        )
    ceilings = backends.sets_ceilings(act, backend)
    home = backends.faro_plan(backend, plan, kubeconfig, context)
    watched = Watched(jobs, backends.overrides_of(home, journal))
    settings = watched.known
    guardrails = GuardrailConfig(fail_mode, max_scaling_actions, stale_after, deadline, force)

    exporter: Exporter | None = None

    def on_refit(outcome: str, reason: str) -> None:
        if exporter:
            exporter.refit(outcome)
        say(f"refit {outcome}: {reason}", REFIT if outcome == FAILED else "")

    source = Source(
        history, forecaster, prometheus, prometheus_token, journal, home.namespace if home else ".*"
    )
    model = FreshModel(source, settings.jobs, on_refit)

    def policy_of(settings: Settings) -> Policy:
        made = make(policy, context_of(settings, model.of(settings.jobs), capacity))
        return made if tick is None else paced(made, tick)

    chosen = policy_of(settings)
    with ExitStack() as stack:
        stop = stack.enter_context(stopped_by_signals(model))
        if (
            metrics_port is not None
        ):  # opened early, so that a port in use ends the run before Ray starts
            from faro_ops.controller.exporter import Exporter

            exporter = Exporter(
                settings.jobs, metrics_port, metrics_address, STALLED_S + 5 * chosen.tick_s, apply
            )
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
            if reason == protocol.FAILED:
                model.policy_failed()

        def changed() -> bool:
            try:
                again = time.localtime().tm_gmtoff != offset_s or time.monotonic() > retry_s
                return watched.new() is not None or again
            except (ValueError, OSError) as error:
                on_failure(CHANGES, f"{message_of(error)}; the jobs stay as they are")
                return False

        waits, new = until_passed(stop, waiting) if wait else once, False

        def ensure(check: Callable[[], object]) -> None:
            (once if new else waits)(
                check
            )  # Changed settings do not wait. They are rejected if the check fails.

        cluster_of: Callable[[Settings], InterruptibleCluster]
        if home and backend == "deployments":
            from faro_ops.kube.operate import connect_deployments

            cluster_of = partial(
                connect_deployments,
                home,
                prometheus=prometheus,
                token_path=prometheus_token,
                clock=clock,
                cores=capacity,
                ensure=ensure,
                ceilings=ceilings,
                act=apply,
            )
        else:
            ray = backends.ray_serve(
                home,
                backend,
                settings,
                address,
                serve_address,
                clock,
                capacity,
                chosen,
                ensure,
                lease_of(home, journal, chosen.tick_s, force) if apply else None,
                start_timeout,
            )
            cluster_of = stack.enter_context(ray)
        until_s = (
            float("inf") if seconds is None else clock.now_s + seconds
        )  # `seconds` excludes the start of Ray
        last, retry_s = settings, float("inf")
        while (
            not stop.is_set() and clock.now_s < until_s
        ):  # a new pass begins when settings or the UTC offset change
            table, new, offset_s = settings.jobs, settings is not last, time.localtime().tm_gmtoff
            if exporter:
                exporter.use_jobs(table)
            with ExitStack() as inner:
                try:
                    made = policy_of(settings) if new else chosen
                    planner = at_time_of_day(expecting(made, settings, clock), clock.origin_s)
                    if ceilings:
                        planner = AsBounds.of(planner)
                    if earn:
                        past = (written.header, written.ticks) if written else (None, [])
                        planner = WithAuthority.of(planner, recorded_authority(*past, table))
                    serving = cluster_of(settings)
                    cluster: Cluster = serving
                    publish = None
                    if home:
                        from faro_ops.kube.operate import gated_cluster

                        gated = gated_cluster(
                            home,
                            serving,
                            table,
                            policy,
                            stop,
                            act=apply,
                            fixed=capacity is not None,
                            report=say,
                            ensure=ensure,
                        )
                        cluster, publish = inner.enter_context(gated)
                except (ValueError, OSError) as error:
                    if not new:
                        raise
                    on_failure(CHANGES, f"{message_of(error)}; the jobs stay as they were")
                    settings, changes = last, ()
                    retry_s = (
                        time.monotonic() + RETRY_S if isinstance(error, OSError) else float("inf")
                    )
                    chosen = policy_of(
                        settings
                    )  # rebuilt, because the rejected settings may have refitted `model`
                    continue
                chosen = made
                for change in changes:
                    say(change)
                title = f"{policy}{'' if apply else ', dry run'}"
                announce = announcing(table)
                show = (
                    inner.enter_context(watching(table, title))
                    if watch
                    else partial(print_step, table, apply)
                )

                def on_step(
                    step: Step,
                    listeners: Any = (publish, exporter and exporter.step, show, announce),
                ) -> None:
                    for listener in filter(None, listeners):
                        listener(step)

                loop.run(
                    cluster,
                    planner,
                    table,
                    guardrails=replace(guardrails, fixed=settings.fixed_jobs),
                    apply=apply,
                    journal=written,
                    clock=clock,
                    stop=stop,
                    until_s=until_s,
                    on_step=on_step,
                    on_failure=on_failure,
                    changes=changes,
                    changed=changed,
                    renewed=model.newer,
                )
            last, settings, retry_s = settings, watched.known, float("inf")
            changes = (
                changes_since(written, settings)
                if settings is last
                else tuple(last.changes(settings))
            )
        say("stopped" if backend == "local" else "stopped; the replicas stay as they are")


def changes_since(journal: Journal | None, settings: Settings) -> tuple[str, ...]:
    """One line per change of jobs or fixed replicas since the recorded run; () if none changed or there is no run."""
    header = journal.header if journal and journal.ticks else None
    if not header or (header.jobs, header.guardrails.fixed) == (settings.jobs, settings.fixed_jobs):
        return ()
    return tuple(replace(settings, jobs=header.jobs, fixed=()).changes(settings))


def lease_of(home: NamespacedName | None, journal: str | None, tick_s: float, force: bool) -> Lease:
    """This controller's lease on a Ray cluster. A restart with the same FaroPlan or journal keeps the lease."""
    from faro_ops.rayserve.cluster import Lease

    host = socket.gethostname()
    name = f"{host}:{Path(journal).absolute()}" if journal else f"{host}, process {os.getpid()}"
    return Lease(f"{home.namespace}/{home.name}" if home else name, max(30.0, 3 * tick_s), force)


def print_step(table: tuple[Job, ...], applied: bool, step: Step) -> None:
    """Print a tick as a line of JSON: times, whether it was applied, and each job's replicas, drop rate and reason."""
    plan = {
        job.name: {"replicas": int(target), "drop": round(float(drop), 4), "reason": reason}
        for job, target, drop, reason in zip(table, step.target, step.plan.drop, step.plan.reason)
    }
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    tick = {
        "time": now,
        "now_s": step.observation.now_s,
        "applied": applied and step.error is None,
        "plan": plan,
    }
    print(json.dumps(tick), flush=True)


@contextmanager
def stopped_by_signals(model: FreshModel) -> Iterator[threading.Event]:
    """Context manager that yields an event, which SIGTERM and SIGINT set. SIGUSR1 requests a refit of `model`."""
    from faro_ops.controller.clock import StopEvent

    stop = StopEvent()

    def received(number: int, _: object) -> None:
        if number == signal.SIGUSR1:
            model.wanted = True
        elif (
            number == signal.SIGINT and stop.is_set()
        ):  # a second Ctrl-C does not wait for the tick or for Ray
            raise KeyboardInterrupt
        else:
            stop.set()

    before = {
        number: signal.signal(number, received)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop.close()


def clock_of(journal: Journal | None, stop: threading.Event) -> Clock:
    """Return the clock of the run recorded in the journal, or else a new clock whose time 0 was HISTORY_MINUTES ago.

    A new run may use counts from up to HISTORY_MINUTES before its start, and their times must be >= 0.
    """
    from faro_lib.policies.protocol import HISTORY_MINUTES
    from faro_lib.workload.jobs import MINUTE_S
    from faro_ops.controller.clock import Clock

    header = journal.header if journal and journal.ticks else None
    if header and header.origin_s is not None:
        return Clock(header.origin_s, header.scale, stop)
    return Clock.starting_now(stop=stop, in_s=-HISTORY_MINUTES * MINUTE_S)
