"""The controller of `faro run`: passes of the control loop, each with fixed settings."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from faro_lib import protocol
from faro_lib.control import GuardrailConfig, Step
from faro_lib.policies import Cluster, Policy, make
from faro_lib.policies.loops import paced
from faro_lib.protocol import HISTORY_MINUTES
from faro_lib.workload import Job
from faro_lib.workload.jobs import MINUTE_S
from faro_ops.cli import backends
from faro_ops.cli import model as models
from faro_ops.cli.model import FreshModel, Source
from faro_ops.cli.shared import say
from faro_ops.cli.trust import announcing, recorded_authority
from faro_ops.controller import loop
from faro_ops.controller.brake import MinimaReport
from faro_ops.controller.clock import Clock, StopEvent
from faro_ops.controller.job_states import JobStates
from faro_ops.controller.journal import Journal
from faro_ops.controller.overrides import Settings, Watched
from faro_ops.controller.startup import Check, Ensure, once, until_passed
from faro_ops.errors import message_of
from faro_ops.files import check_writable
from faro_ops.policies.authority import WithAuthority
from faro_ops.policies.bounds import AsBounds, predicting

if TYPE_CHECKING:
    from faro_ops.controller.exporter import Exporter
    from faro_ops.kube.operate import NamespacedName
    from faro_ops.policies.protocol import LiveCluster
    from faro_ops.rayserve.cluster import Lease

# Reasons of failures: changed settings are unusable, or a refit of the forecaster fails.
CHANGES = "changes"
REFIT = "refit"
RETRY_S = 60.0  # seconds until changed settings are tried again after they failed with an OSError
# /healthz fails if no tick ends for 5 periods plus this time, which allows for API calls of 60 s.
STALLED_S = 120.0
Listener = Callable[[Step], object]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of `faro run`; its help explains them.

    Raises ValueError if two do not go together.
    """

    jobs: str
    backend: str
    address: str | None
    serve_address: str | None
    policy: str
    history: str | None
    forecaster: str
    apply: bool
    act: str
    earn: bool
    journal: str | None
    tick_s: float | None
    capacity: int | None
    guardrails: GuardrailConfig
    metrics_port: int | None
    metrics_address: str
    seconds: float | None
    plan: str | None
    kubeconfig: str | None
    context: str | None
    prometheus: str | None
    prometheus_token: str | None
    force: bool
    start_timeout_s: float
    watch: bool
    wait: bool

    def __post_init__(self) -> None:
        if self.backend not in backends.BACKENDS:
            raise ValueError(
                f"backend={self.backend!r} is unknown; accepted: {', '.join(backends.BACKENDS)}"
            )
        backends.sets_ceilings(self.act, self.backend)

    @property
    def ceilings(self) -> bool:
        """Whether Faro sets bounds of HorizontalPodAutoscalers instead of replicas."""
        return backends.sets_ceilings(self.act, self.backend)


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass of the control loop works with.

    policy : made for the jobs of `settings`; the next pass uses it again if they have not changed.
    planner : `policy` with the events, the time of day and the authority at the start of the pass.
    publish : publishes a step in the FaroPlan, if there is one.
    """

    settings: Settings
    policy: Policy
    planner: Policy
    cluster: Cluster
    publish: Listener | None


class Controller:
    """Runs the control loop with the options of `faro run`.

    The constructor sets up what lasts until the end: the forecaster, signals, metrics, journal,
    clock and backend. `resources` closes them. `run` then makes passes. A pass has fixed settings
    (jobs, and overrides of operators) and ends when they change. If the changed settings cannot be
    used, the next pass has the earlier ones again.

    settings, policy : of the newest pass that could be set up.
    wanted : settings of the next pass; they differ from `settings` if they have changed.
    changes : texts for the journal that say how `wanted` differs from what the last pass had.
    """

    def __init__(self, options: RunOptions, resources: ExitStack):
        self.options = options
        self.exporter: Exporter | None = None
        self.job_states = JobStates()
        self.home = backends.faro_plan(
            options.backend, options.plan, options.kubeconfig, options.context
        )
        overrides = backends.overrides_of(self.home, options.journal)
        self.watched = Watched(options.jobs, overrides)
        self.settings = self.wanted = self.watched.known
        self.model = FreshModel(self._source(), self.settings.jobs, self.on_refit)
        self.policy = self.policy_of(self.settings)

        self.stop = resources.enter_context(stopped_by_signals(self.model))
        self.wait_for: Ensure = until_passed(self.stop, self.on_wait) if options.wait else once
        # Metrics come early, so that a port in use ends the run before Ray starts.
        self.exporter = self._exporter(resources)
        self.journal = self._journal(resources)
        self.changes = changes_since(self.journal, self.settings)
        self.clock = clock_of(self.journal, self.stop)
        self.cluster_of = self._backend(resources)

        # The time of `--seconds` excludes the start of Ray.
        seconds = math.inf if options.seconds is None else options.seconds
        self.until_s = self.clock.now_s + seconds
        self.utc_offset_s = 0  # at the start of the pass
        self.retry_s = math.inf  # value of time.monotonic() at which rejected settings are retried

    def run(self) -> None:
        """Make passes until the run is stopped or its time is over."""
        while not self.stop.is_set() and self.clock.now_s < self.until_s:
            with ExitStack() as resources:  # of this pass, such as the lease
                prepared = self.prepared(resources)
                if prepared is not None:
                    self.run_pass(prepared, resources)
        if self.options.backend == "local":
            say("stopped")
        else:
            say("stopped; the replicas stay as they are")

    # --- a pass --------------------------------------------------------------------------------

    def prepared(self, resources: ExitStack) -> Pass | None:
        """Set up a pass with the `wanted` settings; None if they have changed and are rejected."""
        self.utc_offset_s = time.localtime().tm_gmtoff
        if self.exporter:
            self.exporter.use_jobs(self.wanted.jobs)
        try:
            prepared = self.set_up(self.wanted, resources)
        except (ValueError, OSError) as error:
            if not self.changing:
                raise
            self.reject(error)
            return None
        self.settings, self.policy = prepared.settings, prepared.policy
        return prepared

    def set_up(self, settings: Settings, resources: ExitStack) -> Pass:
        """Make the policy and the cluster of a pass.

        Raises ValueError or OSError if the settings are unusable.
        """
        policy = self.policy_of(settings) if self.changing else self.policy
        planner = self.planner_of(policy, settings)
        serving = self.cluster_of(settings)
        if self.home is None:
            return Pass(settings, policy, planner, serving, publish=None)
        from faro_ops.kube.operate import gated_cluster

        gated = gated_cluster(
            self.home,
            serving,
            settings.jobs,
            self.options.policy,
            self.stop,
            act=self.options.apply,
            fixed=self.options.capacity is not None,
            report=say,
            ensure=self.ensure,
            states=self.job_states,
        )
        cluster, publish = resources.enter_context(gated)
        return Pass(settings, policy, planner, cluster, publish)

    def reject(self, error: ValueError | OSError) -> None:
        """Return to the settings of the last pass.

        Settings that met an OSError are tried again after RETRY_S.
        """
        self.on_failure(CHANGES, f"{message_of(error)}; the jobs stay as they were")
        self.retry_s = time.monotonic() + RETRY_S if isinstance(error, OSError) else math.inf
        self.wanted, self.changes = self.settings, ()
        # The policy is made again, because the rejected settings may have refitted the forecaster.
        self.policy = self.policy_of(self.settings)

    def run_pass(self, prepared: Pass, resources: ExitStack) -> None:
        """Run the control loop until the settings change; find the settings of the next pass."""
        for change in self.changes:
            say(change)
        listeners = self.listeners(prepared, resources)
        loop.run(
            prepared.cluster,
            prepared.planner,
            prepared.settings.jobs,
            guardrails=replace(self.options.guardrails, fixed=prepared.settings.fixed_jobs),
            apply=self.options.apply,
            journal=self.journal,
            clock=self.clock,
            stop=self.stop,
            until_s=self.until_s,
            on_step=partial(tell, listeners),
            on_failure=self.on_failure,
            changes=self.changes,
            changed=self.changed,
            newest=self.model.newer,
        )
        self.retry_s = math.inf
        self.wanted = self.watched.known
        if self.changing:
            self.changes = tuple(self.settings.changes(self.wanted))
        else:  # only the UTC offset has changed, or the run ends
            self.changes = changes_since(self.journal, self.settings)

    @property
    def changing(self) -> bool:
        """Whether the `wanted` settings differ from those of the last pass."""
        return self.wanted is not self.settings

    def changed(self) -> bool:
        """Whether the pass ends: settings or the UTC offset have changed, or a retry is due."""
        try:
            new = self.watched.new() is not None
        except (ValueError, OSError) as error:
            self.on_failure(CHANGES, f"{message_of(error)}; the jobs stay as they are")
            return False
        moved = time.localtime().tm_gmtoff != self.utc_offset_s
        return new or moved or time.monotonic() > self.retry_s

    def ensure(self, check: Check) -> None:
        """Run a check.

        With --wait, repeat it until it passes; changed settings are not waited for but rejected.
        """
        if self.changing:
            once(check)
        else:
            self.wait_for(check)

    # --- policies ------------------------------------------------------------------------------

    def policy_of(self, settings: Settings) -> Policy:
        """The policy for the jobs of `settings`.

        This may measure latencies or fit the forecaster, which takes time.
        """
        forecaster = self.model.of(settings.jobs)
        context = models.context_of(settings, forecaster, self.options.capacity)
        policy = make(self.options.policy, context)
        if self.options.ceilings:
            predicting(policy)  # only such a policy can set bounds
        if self.options.tick_s is not None:
            policy = paced(policy, self.options.tick_s)
        return policy

    def planner_of(self, policy: Policy, settings: Settings) -> Policy:
        """The policy with announced events, the present time of day and its recorded authority."""
        planner = models.expecting(policy, settings, self.clock)
        planner = models.at_time_of_day(planner, self.clock.origin_s)
        if self.options.ceilings:
            planner = AsBounds.of(planner)
        if self.options.earn:
            header = self.journal.header if self.journal else None
            ticks = self.journal.ticks if self.journal else []
            planner = WithAuthority.of(planner, recorded_authority(header, ticks, settings.jobs))
        return planner

    # --- what is set up once -------------------------------------------------------------------

    def _source(self) -> Source:
        options = self.options
        return Source(
            options.history,
            options.forecaster,
            options.prometheus,
            options.prometheus_token,
            options.journal,
            self.home.namespace if self.home else ".*",
        )

    def _exporter(self, resources: ExitStack) -> Exporter | None:
        options = self.options
        if options.metrics_port is None:
            return None
        from faro_ops.controller.exporter import Exporter

        exporter = Exporter(
            self.settings.jobs,
            options.metrics_port,
            options.metrics_address,
            STALLED_S + 5 * self.policy.tick_s,
            options.apply,
        )
        resources.callback(exporter.close)
        say(f"metrics at http://{options.metrics_address}:{exporter.port}/metrics")
        return exporter

    def _journal(self, resources: ExitStack) -> Journal | None:
        if self.options.journal is None:
            return None
        check_writable(self.options.journal)
        return resources.enter_context(Journal(self.options.journal))

    def _backend(self, resources: ExitStack) -> Callable[[Settings], LiveCluster]:
        """A function that makes the cluster of some settings.

        With the backend `local`, Ray starts now.
        """
        options = self.options
        if self.home and options.backend == "deployments":
            from faro_ops.kube.operate import connect_deployments

            return partial(
                connect_deployments,
                self.home,
                prometheus=options.prometheus,
                token_path=options.prometheus_token,
                clock=self.clock,
                cores=options.capacity,
                ensure=self.ensure,
                ceilings=options.ceilings,
                act=options.apply,
                states=self.job_states,
            )
        lease = None
        if options.apply:
            lease = lease_of(self.home, options.journal, self.policy.tick_s, options.force)
        ray = backends.ray_serve(
            self.home,
            options.backend,
            self.settings,
            options.address,
            options.serve_address,
            self.clock,
            options.capacity,
            self.policy,
            self.ensure,
            lease,
            options.start_timeout_s,
        )
        return resources.enter_context(ray)

    # --- reports -------------------------------------------------------------------------------

    def listeners(self, prepared: Pass, resources: ExitStack) -> list[Listener]:
        """The receivers of every step: the FaroPlan, the metrics, standard output and the log."""
        options = self.options
        jobs = prepared.settings.jobs
        listeners: list[Listener] = []
        if prepared.publish:
            listeners.append(prepared.publish)
        if self.exporter:
            listeners.append(self.exporter.step)
        if options.watch:
            from faro_ops.cli.view import watching

            title = options.policy if options.apply else f"{options.policy}, dry run"
            listeners.append(resources.enter_context(watching(jobs, title)))
        else:
            listeners.append(partial(print_step, jobs, options.apply))
        listeners.append(announcing(jobs))
        listeners.append(MinimaReport(jobs, self.job_states, say))
        return listeners

    def on_failure(self, reason: str, message: str) -> None:
        """Report a failure to the metrics and the log. A failed policy may revert a refit."""
        if self.exporter:
            self.exporter.failure(reason, message)
        say(message, reason)
        if reason == protocol.FAILED:
            self.model.policy_failed()

    def on_refit(self, outcome: str, reason: str) -> None:
        """Report the outcome of a refit to the metrics and the log."""
        if self.exporter:
            self.exporter.refit(outcome)
        say(f"refit {outcome}: {reason}", REFIT if outcome == models.FAILED else "")

    def on_wait(self, reason: str | None) -> None:
        """Report what the start waits for; None: it waits no longer."""
        if self.exporter:
            self.exporter.waits_for = reason
        if reason:
            say(f"waiting: {reason}")


def tell(listeners: Iterable[Listener], step: Step) -> None:
    for listener in listeners:
        listener(step)


def changes_since(journal: Journal | None, settings: Settings) -> tuple[str, ...]:
    """One line per change of jobs or fixed replicas since the recorded run, if there is one."""
    header = journal.header if journal and journal.ticks else None
    if header is None:
        return ()
    if header.jobs == settings.jobs and header.guardrails.fixed == settings.fixed_jobs:
        return ()
    recorded = replace(settings, jobs=header.jobs, fixed=())
    return tuple(recorded.changes(settings))


def lease_of(home: NamespacedName | None, journal: str | None, tick_s: float, force: bool) -> Lease:
    """This controller's lease on a Ray cluster.

    A restart with the same FaroPlan or journal keeps the lease.
    """
    from faro_ops.rayserve.cluster import Lease

    host = socket.gethostname()
    if home:
        holder = f"{home.namespace}/{home.name}"
    elif journal:
        holder = f"{host}:{Path(journal).absolute()}"
    else:
        holder = f"{host}, process {os.getpid()}"
    return Lease(holder, max(30.0, 3 * tick_s), force)


def print_step(jobs: tuple[Job, ...], applied: bool, step: Step) -> None:
    """Print a tick as a line of JSON: its time, whether it was applied, and each job's plan."""
    plan = {
        job.name: {"replicas": int(target), "drop": round(float(drop), 4), "reason": reason}
        for job, target, drop, reason in zip(jobs, step.target, step.plan.drop, step.plan.reason)
    }
    tick = {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "now_s": step.observation.now_s,
        "applied": applied and step.error is None,
        "plan": plan,
    }
    print(json.dumps(tick), flush=True)


@contextmanager
def stopped_by_signals(model: FreshModel) -> Iterator[threading.Event]:
    """Yield an event that SIGTERM and SIGINT set. SIGUSR1 requests a refit of `model`."""
    stop = StopEvent()

    def received(number: int, _: object) -> None:
        if number == signal.SIGUSR1:
            model.wanted = True
        elif number == signal.SIGINT and stop.is_set():
            raise KeyboardInterrupt  # a second Ctrl-C does not wait for the tick or for Ray
        else:
            stop.set()

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = {number: signal.signal(number, received) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop.close()


def clock_of(journal: Journal | None, stop: threading.Event) -> Clock:
    """The clock of the run recorded in the journal, or a new one.

    Time 0 of a new one was HISTORY_MINUTES ago: the run may use counts from up to HISTORY_MINUTES
    before its start, and their times must be >= 0.
    """
    header = journal.header if journal and journal.ticks else None
    if header and header.origin_s is not None:
        return Clock(header.origin_s, header.scale, stop)
    return Clock.starting_now(stop=stop, in_s=-HISTORY_MINUTES * MINUTE_S)
