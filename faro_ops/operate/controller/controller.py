"""The controller of `faro run`: passes of the control loop, each with fixed settings."""

from __future__ import annotations

import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from faro_lib import protocol
from faro_lib.control import Step
from faro_lib.forecast import Forecaster
from faro_lib.policies import Cluster, Policy
from faro_lib.protocol import HISTORY_MINUTES
from faro_lib.workload import Job, pools_of
from faro_lib.workload.jobs import MINUTE_S
from faro_ops.files import check_writable
from faro_ops.jobs_table import read_served, read_unshared
from faro_ops.journal.writing import Journal
from faro_ops.log import say
from faro_ops.operate.clock import Clock, StopEvent
from faro_ops.operate.controller import backends
from faro_ops.operate.controller import model as models
from faro_ops.operate.controller.model import FreshModel, Source
from faro_ops.operate.job_states import JobStates
from faro_ops.operate.limits.authority import WithAuthority
from faro_ops.operate.limits.bounds import AsBounds, predicting
from faro_ops.operate.limits.brake import MinimaReport
from faro_ops.operate.limits.earned import announcing, recorded_authority
from faro_ops.operate.limits.fitting import report_orders
from faro_ops.operate.limits.pacing import paced
from faro_ops.operate.loop import loop
from faro_ops.operate.loop.service_report import ServiceTimesReport
from faro_ops.operate.loop.settings_change import Rejected, SettingsChange, reason_of
from faro_ops.operate.loop.surviving import Surviving
from faro_ops.operate.memory.overrides import Settings, Watched
from faro_ops.operate.startup import Check, Ensure, once, until_passed
from faro_ops.protocol import LiveGuardrails
from faro_ops.run_options import RunOptions

if TYPE_CHECKING:
    from faro_ops.operate.export.exporter import Exporter
    from faro_ops.operate.kube.operate import GatedJobs, KubeSession, NamespacedName
    from faro_ops.operate.kube.status import Condition
    from faro_ops.operate.rayserve.cluster import Lease
    from faro_ops.protocol import LiveCluster

# Reasons of failures: changed settings are unusable, or a refit of the forecaster fails.
CHANGES = "changes"
REFIT = "refit"
# /healthz fails if no tick ends for 5 periods plus this time, which allows for API calls of 60 s.
STALLED_S = 120.0
Listener = Callable[[Step], object]
Show = Callable[[tuple[Job, ...]], AbstractContextManager[Listener]]


@dataclass(frozen=True, slots=True)
class SetUp:
    """What passes of the control loop need of some settings.

    policy : made for the jobs of `settings`, with `forecaster`.
    gated : the cluster as `KubeSession` uses it; None without a FaroPlan.
    """

    settings: Settings
    policy: Policy
    forecaster: Forecaster
    cluster: Cluster
    gated: GatedJobs | None


def table_reader(backend: str, earn: bool) -> Callable[[Path], tuple[Job, ...]]:
    """How the jobs' table is read: only Ray Serve routes requests to replicas that jobs share."""
    if backend == "deployments":
        return read_unshared
    if not earn:
        return read_served

    def read_alone(path: Path) -> tuple[Job, ...]:
        jobs = read_served(path)
        for pool in pools_of(jobs):
            if pool.shared:
                problem = (
                    f"the jobs of pool {pool.name!r} change together, and --earn judges each alone"
                )
                raise ValueError(f"{path}: {problem}")
        return jobs

    return read_alone


class Controller:
    """Runs the control loop with the options of `faro run`.

    The constructor and `start` set up what lasts until the end: signals, metrics, the forecaster,
    journal, clock and backend, and in Kubernetes the lease and what belongs to it (`KubeSession`).
    `resources` closes them. `run` then makes passes. A pass has fixed settings (jobs, and orders of
    operators). Changed settings are set up beside the running pass, which goes on until the new
    set-up is complete; if it fails, the pass goes on.

    show : a context in which the steps of a pass with these jobs are shown.
    settings : of the running pass.
    """

    def __init__(self, options: RunOptions, resources: ExitStack, show: Show):
        self.options = options
        self.show = show
        self.job_states = JobStates()
        self.unreadable: Rejected | None = None  # why the table or the orders cannot be read
        self.minima: MinimaReport | None = None  # of the running pass
        self.service_times = ServiceTimesReport((), say)
        self.refit_requested = False
        self.started = False  # whether the first set-up is complete
        self.exporter: Exporter | None = None
        self.stop = resources.enter_context(stopped_by_signals(self.request_refit))
        self.wait_for: Ensure = until_passed(self.stop, self.on_wait) if options.wait else once
        self.home = backends.faro_plan(options)
        self.session = self._session(resources)
        # Metrics come early, so that a port in use ends the run before Ray starts, and that probes
        # are answered while the run waits for a server.
        self.exporter = self._exporter(resources)
        overrides = backends.overrides_of(
            self.home, options.journal, self.wait_for, restores=options.apply
        )
        source = self._source()
        read = source.with_bursts(table_reader(options.backend, options.earn))
        self.watched = Watched(options.jobs, overrides, read)
        self.settings = self.watched.known
        for order in self.settings.rejected:
            say(str(order))
        self.model = FreshModel(source, self.settings.jobs, self.on_refit)
        self.policy = self.policy_of(self.settings)
        if self.exporter:
            self.exporter.progress_deadline_s = STALLED_S + 5 * self.policy.tick_s

        self.journal = self._journal(resources)
        self.clock = run_clock(self.journal, self.stop)
        self.cluster_of = self._backend(resources)
        self.change: SettingsChange[Settings, SetUp] = SettingsChange(
            self.set_up, self.discard, self.on_rejected
        )
        self.next: SetUp | None = None  # changed settings that are ready to be used
        self.surviving = self._surviving()

        # The time of `--seconds` excludes the start of Ray.
        seconds = math.inf if options.seconds is None else options.seconds
        self.until_s = self.clock.now_s + seconds
        self.utc_offset_s = 0  # at the start of the pass

    def run(self) -> None:
        """Make passes until the run is stopped or its time is over."""
        now = self.start()
        changes = self.changes_since_recorded(now.settings)
        takes_over = self.session is not None
        while self.goes_on:
            self.use(now)
            self.run_pass(now, changes, takes_over)
            takes_over = False
            now, changes = self.following(now)
        if self.options.backend == "local":
            say("stopped")
        else:
            say("stopped; the replicas stay as they are")

    @property
    def goes_on(self) -> bool:
        return not self.stop.is_set() and self.clock.now_s < self.until_s

    # --- settings ------------------------------------------------------------------------------

    def start(self) -> SetUp:
        """The first set-up, once this controller leads. With --wait, it is repeated until it works.

        Raises ConfigurationError for a mistake that time does not correct, and without --wait
        ValueError or OSError if a server does not answer or no job can be scaled.
        """
        if self.session:
            self.wait_for(self.session.check)
        ready: list[SetUp] = []
        self.wait_for(lambda: ready.append(self.first_set_up()))
        first = ready[0]
        self.started = True
        if self.session and first.gated:
            self.session.use(first.gated)
            self.session.lead(first.gated.cluster.inner)
        return first

    def ensure(self, check: Check) -> None:
        """Run a check. With --wait, the start repeats it; changed settings are rejected instead."""
        (once if self.started else self.wait_for)(check)

    def first_set_up(self) -> SetUp:
        first = self.set_up(self.settings)
        if first.gated:
            from faro_ops.operate.kube.operate import check_some_job

            try:
                check_some_job(first.gated)
            except (ValueError, OSError):
                self.discard(first)
                raise
        return first

    def set_up(self, settings: Settings) -> SetUp:
        """Make the policy and the cluster for some settings; what runs stays as it is.

        Raises ValueError or OSError if the settings are unusable, or a server does not answer.
        """
        forecaster = self.model.fitted_to(settings.jobs)
        policy = self.policy if settings is self.settings else self.policy_of(settings)
        # Tried here, and made again when a pass begins, for the time at its start.
        self.planner_of(policy, settings).start(settings.jobs)
        cluster = self.cluster_of(settings)
        if self.session is None:
            return SetUp(settings, policy, forecaster, cluster, gated=None)
        gated = self.session.gated(cluster, settings.jobs)
        return SetUp(settings, policy, forecaster, gated.cluster, gated)

    def discard(self, unused: SetUp) -> None:
        """End what belongs to a set-up that is not used after all."""
        if self.session and unused.gated:
            self.session.discard(unused.gated)

    def use(self, new: SetUp) -> None:
        """Use this set-up, which may be that of the pass before, from now on."""
        self.settings, self.policy = new.settings, new.policy
        self.model.use(new.settings.jobs, new.forecaster)
        self.job_states.keep_only([job.name for job in new.settings.jobs])
        self.job_states.refuse_orders(orders_not_in_force(new.settings))
        if self.session and new.gated:
            self.session.use(new.gated)
        if self.exporter:
            self.exporter.use_jobs(new.settings.jobs)

    def following(self, now: SetUp) -> tuple[SetUp, tuple[str, ...]]:
        """The set-up of the next pass, and texts for the journal that say what has changed."""
        following, self.next = self.next, None
        if following is None:  # only the UTC offset has changed, or the run ends
            return now, self.changes_since_recorded(now.settings)
        return following, tuple(now.settings.changes(following.settings))

    def changes_since_recorded(self, settings: Settings) -> tuple[str, ...]:
        """One line per difference between these settings and the recorded run, if there is one."""
        guardrails = replace(self.options.guardrails, fixed=settings.fixed_jobs)
        return changes_since(self.journal, settings, guardrails, self.clock)

    def changed(self) -> bool:
        """Whether the pass ends: changed settings are ready, or the UTC offset has changed."""
        self.read_settings()
        self.next = self.change.ready()
        if self.exporter:
            self.exporter.reject_settings(self.rejected is not None)
        return self.next is not None or time.localtime().tm_gmtoff != self.utc_offset_s

    def read_settings(self) -> None:
        """Read the table and the orders, and have them set up if they have changed."""
        try:
            new = self.watched.new()
        # Any error, because neither a table nor an order may end the run.
        except Exception as error:
            reason = reason_of(error)
            before = self.unreadable
            if before is None or before.reason != reason:
                self.on_rejected(reason)
            self.unreadable = Rejected(reason, before.since_s if before else time.time())
            return
        if not self.watched.problem:
            self.unreadable = None
        if new is not None:
            # The running settings may be wanted again, after others were rejected.
            self.change.want(None if new == self.settings else new)

    @property
    def rejected(self) -> Rejected | None:
        """Why the newest settings are not in use; None if they are, or are still being set up."""
        return self.unreadable or self.change.rejected

    # --- a pass --------------------------------------------------------------------------------

    def run_pass(self, now: SetUp, changes: tuple[str, ...], takes_over: bool = False) -> None:
        """Run the control loop until the settings change.

        takes_over : whether another controller may have led since the last recorded tick.
        """
        self.utc_offset_s = time.localtime().tm_gmtoff
        forecaster = self.model.of(now.settings.jobs)
        planner = self.planner_of(models.with_model(now.policy, forecaster), now.settings)
        for change in changes:
            say(change)
        if self.exporter:
            self.exporter.begin()
        with ExitStack() as resources:
            loop.run(
                now.cluster,
                planner,
                now.settings.jobs,
                guardrails=replace(self.options.guardrails, fixed=now.settings.fixed_jobs),
                apply=self.options.apply,
                journal=self.journal,
                clock=self.clock,
                stop=self.stop,
                until_s=self.until_s,
                on_step=partial(tell, self.listeners(now.settings, resources)),
                on_failure=self.on_failure,
                changes=changes,
                changed=self.changed,
                newest=self.newer,
                # Not only of this pass: a freeze holds even if the newest settings are rejected.
                frozen=lambda: now.settings.frozen_by(self.watched.known),
                states=self.job_states,
                surviving=self.surviving,
                takes_over=takes_over,
            )

    # --- policies ------------------------------------------------------------------------------

    def request_refit(self) -> None:
        self.refit_requested = True

    def newer(self) -> Forecaster | None:
        """A newly fitted forecaster, if there is one (`FreshModel.newer`)."""
        if self.refit_requested:
            self.refit_requested = False
            self.model.wanted = True
        return self.model.newer()

    def policy_of(self, settings: Settings) -> Policy:
        """The policy for the jobs of `settings`.

        This may measure latencies or fit the forecaster, which takes time.
        """
        forecaster = self.model.fitted_to(settings.jobs)
        context = models.context_of(settings, forecaster, self.options.capacity)
        policy = models.named_policy(self.options.policy, context, not self.options.no_learning)
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

    def _session(self, resources: ExitStack) -> KubeSession | None:
        if self.home is None:
            return None
        from faro_ops.operate.kube.operate import KubeSession

        session = KubeSession(
            self.home,
            self.options.policy,
            self.stop,
            on_ray=self.options.backend != "deployments",
            act=self.options.apply,
            fixed=self.options.capacity is not None,
            report=say,
            states=self.job_states,
            conditions=self.conditions,
        )
        resources.callback(session.close)
        return session

    def _exporter(self, resources: ExitStack) -> Exporter | None:
        options, session = self.options, self.session
        if options.metrics_port is None:
            return None
        from faro_ops.operate.export.exporter import Exporter

        exporter = Exporter(
            (),
            options.metrics_port,
            options.metrics_address,
            applies=options.apply,
            states=self.job_states,
            leads=session.leads if session else lambda: None,
            pending=session.pending if session else lambda: None,
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
            from faro_ops.operate.kube.operate import DeploymentsBackend

            return DeploymentsBackend(
                self.home,
                prometheus=options.prometheus,
                token_path=options.prometheus_token,
                clock=self.clock,
                cores=options.capacity,
                ceilings=options.ceilings,
                act=options.apply,
                states=self.job_states,
            )
        lease = None
        if options.apply:
            lease = lease_of(self.home, options.journal, self.policy.tick_s, options.force)
        ray = backends.ray_serve(
            options,
            self.home,
            self.settings,
            self.policy,
            clock=self.clock,
            ensure=self.ensure,
            lease=lease,
            states=self.job_states,
        )
        return resources.enter_context(ray)

    def _surviving(self) -> Surviving | None:
        """What survives this process: in Kubernetes in the API, else next to the journal."""
        store = (
            backends.state_store(self.home, self.options.journal) if self.options.apply else None
        )
        return None if store is None else Surviving(store, say)

    # --- reports -------------------------------------------------------------------------------

    def listeners(self, settings: Settings, resources: ExitStack) -> list[Listener]:
        """The receivers of every step: the FaroPlan, the metrics, standard output and the log."""
        jobs = settings.jobs
        listeners: list[Listener] = []
        if self.session:
            listeners.append(self.session.publish)
        if self.exporter:
            listeners.append(self.exporter.step)
        listeners.append(resources.enter_context(self.show(jobs)))
        listeners.append(announcing(jobs))
        listeners.append(partial(report_orders, self.job_states, settings))
        self.minima = MinimaReport(jobs, self.job_states, say)
        listeners.append(self.minima)
        self.service_times.use_jobs(jobs)
        listeners.append(self.service_times)
        return listeners

    def conditions(self) -> list[Condition]:
        """Conditions of the FaroPlan besides those of the cluster."""
        from faro_ops.operate.kube.status import Condition

        rejected, refused = self.rejected, self.job_states.refused_orders()
        settings = Condition("SettingsAccepted", True, "Accepted")
        if rejected:
            settings = Condition("SettingsAccepted", False, "Rejected", rejected.reason)
        orders = Condition("OrdersInForce", True, "AllInForce")
        if refused:
            lines = "; ".join(f"{job}: {reason}" for job, reason in sorted(refused.items()))
            orders = Condition("OrdersInForce", False, "SomeAreNot", lines)
        minima = Condition("MinimaKept", True, "Enough")
        if self.minima and self.minima.short:
            names = f"below min_replicas: {', '.join(self.minima.short)}"
            minima = Condition("MinimaKept", False, "TooFewCores", names)
        return [settings, orders, minima]

    def on_rejected(self, reason: str) -> None:
        """Report that changed settings are not used."""
        self.on_failure(CHANGES, f"{reason}; the jobs stay as they are")

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


def orders_not_in_force(settings: Settings) -> dict[str, str]:
    """Job -> why an order for it is not in force (`Settings.rejected`), for status and metrics."""
    return {order.job: order.reason for order in settings.rejected}


def tell(listeners: Iterable[Listener], step: Step) -> None:
    for listener in listeners:
        listener(step)


def changes_since(
    journal: Journal | None, settings: Settings, guardrails: LiveGuardrails, clock: Clock
) -> tuple[str, ...]:
    """One line per change since the recorded run, if there is one.

    They are changes of time 0, of jobs, of fixed replicas, and of other guardrails.
    """
    header = journal.header if journal and journal.ticks else None
    if header is None:
        return ()
    lines = []
    if header.origin_s is not None and header.origin_s != clock.origin_s:
        moved = f"time 0 of the run moves from {_at(header.origin_s)} to {_at(clock.origin_s)}"
        lines.append(f"the clock was set back: {moved}, and the journal begins a new part")
    for one in fields(LiveGuardrails):
        before, after = getattr(header.guardrails, one.name), getattr(guardrails, one.name)
        if before != after and one.name != "fixed":
            lines.append(f"guardrail {one.name}: {before} -> {after}")
    if header.jobs != settings.jobs or header.guardrails.fixed != settings.fixed_jobs:
        recorded = replace(settings, jobs=header.jobs, fixed=())
        lines += recorded.changes(settings)
    return tuple(lines)


def _at(unix_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_s))


def lease_of(home: NamespacedName | None, journal: str | None, tick_s: float, force: bool) -> Lease:
    """This controller's lease on a Ray cluster.

    A restart with the same FaroPlan or journal keeps the lease.
    """
    from faro_ops.operate.rayserve.cluster import Lease

    host = socket.gethostname()
    if home:
        holder = f"{home.namespace}/{home.name}"
    elif journal:
        holder = f"{host}:{Path(journal).absolute()}"
    else:
        holder = f"{host}, process {os.getpid()}"
    return Lease(holder, max(30.0, 3 * tick_s), force)


@contextmanager
def stopped_by_signals(on_refit: Callable[[], object] | None) -> Iterator[threading.Event]:
    """Yield an event that SIGTERM and SIGINT set. SIGUSR1 calls `on_refit`, if it is given."""
    stop = StopEvent()

    def received(number: int, _: object) -> None:
        if number == signal.SIGUSR1:
            if on_refit is not None:
                on_refit()
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


def run_clock(journal: Journal | None, stop: threading.Event) -> Clock:
    """The clock of the run recorded in the journal, or a new one.

    Time 0 of a new one was HISTORY_MINUTES ago: the run may use counts from up to HISTORY_MINUTES
    before its start, and their times must be >= 0. If the last recorded tick is in the future, the
    wall clock has been set back. Time 0 then moves, so that the run goes on after that tick; nobody
    knows how long after, and the run begins as after a long gap.
    """
    header = journal.header if journal and journal.ticks else None
    if journal is None or header is None or header.origin_s is None:
        return Clock.starting_now(stop=stop, in_s=-HISTORY_MINUTES * MINUTE_S)
    clock = Clock(header.origin_s, header.scale, stop)
    last_s = journal.ticks[-1].step.observation.now_s
    if last_s - clock.now_s <= header.tick_s:
        return clock
    now_s = last_s + 2 * loop.long_gap_s(header.tick_s)
    return Clock.starting_now(header.scale, stop, -now_s / header.scale)
