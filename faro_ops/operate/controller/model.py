"""The forecaster of `faro run`: what it is fitted to, and when it is refitted."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np

from faro_lib.forecast import Forecaster, fit
from faro_lib.policies import Faro, Policy, PolicyContext, make
from faro_lib.policies.learning import Learner
from faro_lib.policies.loops import TwoLoops
from faro_lib.workload import Job, Traces
from faro_lib.workload.jobs import DAY_MINUTES
from faro_lib.workload.log_lengths import lengths_of, with_lengths
from faro_lib.workload.log_traces import dispersed, dispersion_of, tell_bursts, traces_of_log
from faro_lib.workload.readers import read_csv
from faro_lib.workload.request_log import TIME, is_request_log, read_request_log
from faro_ops.errors import message_of
from faro_ops.log import say
from faro_ops.operate.background import in_child, in_thread
from faro_ops.operate.clock import Clock
from faro_ops.operate.loop.expected import Event, expected
from faro_ops.operate.loop.renewal import fitted, renewal
from faro_ops.operate.memory.overrides import Settings
from faro_ops.recorded_days import exported_days, journal_days

# Values of --history for counts that controllers recorded.
PROMETHEUS = "prometheus"
JOURNAL = "journal"
OWN = (PROMETHEUS, JOURNAL)
REFIT_S = 1800.0  # limit on the time of a refit
REFIT_GB = 2.0  # limit on the memory of a refit
# Start of the nightly refit; by then, yesterday's counts are complete.
REFIT_AFTER_MIDNIGHT_S = 600.0
# A refit is reverted if the policy fails within this time after the refit was accepted.
PROBATION_S = 600.0
# Outcomes of a refit.
ACCEPTED = "accepted"
REFUSED = "refused"
FAILED = "failed"
REVERTED = "reverted"

ReadTable = Callable[[Path], tuple[Job, ...]]


@dataclass(frozen=True, slots=True)
class Source:
    """The source of the request counts to which the forecaster is fitted."""

    # File of counts, or PROMETHEUS or JOURNAL for counts that controllers recorded.
    history: str | None = None
    forecaster: str = "auto"
    prometheus: str | None = None
    token_path: str | None = None
    journal: str | None = None
    # Regular expression for the namespaces of the controllers that recorded the counts.
    namespace: str = ".*"
    # Whether jobs of a request log that are not in the table are left out, instead of an error.
    ignore_others: bool = False

    def __post_init__(self) -> None:
        for name in OWN:
            if self.history == name and getattr(self, name) is None:
                raise ValueError(
                    f"history={name} needs --{name}, where this controller's counts are"
                )

    def days(self, jobs: tuple[Job, ...]) -> Traces:
        """Read the jobs' requests per minute on complete days.

        Raises ValueError or OSError if there is no such day.
        """
        if not self.history:
            raise ValueError("--history does not name any counts to learn from")
        if self.history == PROMETHEUS:
            return exported_days(str(self.prometheus), jobs, self.token_path, self.namespace)
        if self.history == JOURNAL:
            return journal_days(str(self.journal), jobs)
        if is_request_log(self.history):
            others = self.ignore_others
            return traces_of_log(self.history, jobs, say, ignore_others=others, tell=False)
        return read_csv(self.history, jobs)

    def with_bursts(self, read: ReadTable) -> ReadTable:
        """A function that reads the jobs' table as `read` does, with a log's bursts and lengths.

        Without a log it is `read` itself. The log is read once, now.
        """
        if self.history in (None, *OWN) or not is_request_log(str(self.history)):
            return read
        log = read_request_log(str(self.history), None, say, keep=TIME, lengths=True)
        tell_bursts(log, say, known=True)
        index, lengths = dispersion_of(log), lengths_of(log)
        return lambda path: with_lengths(dispersed(read(path), index), lengths)

    def model(self, jobs: tuple[Job, ...]) -> Forecaster:
        """Fit a forecaster to `days`.

        It is untrained without `history`, or if a controller's counts are unusable.
        """
        if self.history:
            try:
                return fitted(self.forecaster, self.days(jobs))
            except (ValueError, OSError) as error:
                if self.history not in OWN:
                    raise
                say(f"nothing is learnt from earlier days: {message_of(error)}")
        no_days = np.zeros((0, 1, len(jobs), DAY_MINUTES), int)  # (days, samples, jobs, minutes)
        no_requests = np.zeros((1, len(jobs), DAY_MINUTES), int)
        return fit("auto", Traces(jobs, no_days, no_requests))

    def renewal(self, jobs: tuple[Job, ...], serving: Forecaster) -> tuple[Forecaster | None, str]:
        """Read `days` again and call `renewal.renewal`."""
        return renewal(self.forecaster, self.days(jobs), serving)


class FreshModel:
    """The forecaster in use, and its refits in a child process.

    A refit starts when requested. If controllers recorded the counts, a refit also starts every
    night.
    report : called with the outcome of each refit and its reason.
    """

    def __init__(self, source: Source, jobs: tuple[Job, ...], report: Callable[[str, str], object]):
        self._source = replace(source, ignore_others=True)
        self._report = report
        self._begin(jobs, source.model(jobs))

    def _begin(self, jobs: tuple[Job, ...], forecaster: Forecaster) -> None:
        """Use the forecaster of these jobs; forget a refit that has begun for other jobs."""
        self._serving = forecaster
        self._jobs = jobs
        self._given = self._serving  # the forecaster that `of` last returned
        # The forecaster before the last refit, to restore on failure.
        self._before: Forecaster | None = None
        self._accepted_s = 0.0
        self.wanted = False  # whether a refit is requested; a signal handler sets it
        self._day = _learning_day()  # day on which the last fit began
        self._refit: Future[tuple[Forecaster | None, str]] | None = None

    def fitted_to(self, jobs: tuple[Job, ...]) -> Forecaster:
        """The forecaster of these jobs, fitted now if their names differ from those in use.

        This changes nothing that is in use, so another thread may call it.
        """
        return self._serving if self._serves(jobs) else self._source.model(jobs)

    def use(self, jobs: tuple[Job, ...], forecaster: Forecaster) -> None:
        """Use what `fitted_to` returned. If the names are the same, a newer refit stays."""
        if not self._serves(jobs):
            self._begin(jobs, forecaster)

    def of(self, jobs: tuple[Job, ...]) -> Forecaster:
        """The forecaster of these jobs. If their names have changed, it is fitted now."""
        self.use(jobs, self.fitted_to(jobs))
        self._given = self._serving
        return self._serving

    def _serves(self, jobs: tuple[Job, ...]) -> bool:
        return [job.name for job in jobs] == [job.name for job in self._jobs]

    def newer(self) -> Forecaster | None:
        """Start a due refit and apply a finished one.

        Returns the forecaster, or None if `of` already returned it.
        """
        nightly = self._source.history in OWN and _learning_day() > self._day
        if self._refit is None and (self.wanted or nightly):
            self._start_refit()
        if self._refit and self._refit.done():
            refit, self._refit = self._refit, None
            self._apply(refit)
        return None if self._serving is self._given else self.of(self._jobs)

    def _start_refit(self) -> None:
        self.wanted = False
        self._day = _learning_day()
        work = partial(self._source.renewal, self._jobs, self._serving)
        self._refit = in_thread(partial(in_child, work, REFIT_S, REFIT_GB))

    def _apply(self, refit: Future[tuple[Forecaster | None, str]]) -> None:
        """Use the forecaster of a finished refit, unless the refit failed or refused it."""
        if error := refit.exception():
            self._report(FAILED, f"{message_of(error)}; the earlier model stays")
            return
        new, reason = refit.result()
        if new is None:
            self._report(REFUSED, reason)
            return
        self._before, self._serving = self._serving, new
        self._accepted_s = time.monotonic()
        self._report(ACCEPTED, reason)

    def policy_failed(self) -> None:
        """Restore the previous forecaster if the present one is on probation (PROBATION_S)."""
        if self._before and time.monotonic() < self._accepted_s + PROBATION_S:
            self._serving, self._before = self._before, None
            self._report(
                REVERTED, "the policy failed with the new model; the earlier one serves again"
            )


def _learning_day() -> date:
    """The local date, which here changes REFIT_AFTER_MIDNIGHT_S after midnight."""
    return date.fromtimestamp(time.time() - REFIT_AFTER_MIDNIGHT_S)


def context_of(
    settings: Settings, forecaster: Forecaster, capacity: float | None = None
) -> PolicyContext:
    """The inputs of a policy.

    A latency table for `capacity` cores is simulated only when the policy needs one.
    """
    from faro_lib.simulate import LIVE
    from faro_lib.simulate.measure import measure
    from faro_ops.operate.rayserve.spec import ongoing_limits

    limits = ongoing_limits(settings.jobs, settings.sections.get("serve", {}))
    model = replace(LIVE, own_limits=limits)
    measured = partial(measure, settings.jobs, capacity=capacity, serving_model=model)
    return PolicyContext(settings.jobs, forecaster, latency_model=measured)


def named_policy(name: str, context: PolicyContext, learning: bool) -> Policy:
    """The policy `name`; if it is a `Faro` and `learning`, it also learns service times.

    A `Faro` begins with the best constant counts of its history, where nothing runs yet.

    ValueError if the name is unknown, or one of a policy that learns although `learning` is False.
    """
    policy = make(name, context)
    if not isinstance(policy, Faro):
        return policy
    policy = replace(policy, starts_from_past=True)
    if learning:
        return replace(policy, learner=policy.learner or Learner())
    if policy.learner is not None:
        raise ValueError(f"policy={name} learns service times; leave out --no-learning")
    return policy


def with_model(policy: Policy, forecaster: Forecaster) -> Policy:
    """The policy with this forecaster; unchanged if it has none.

    A refit may have replaced the forecaster since the policy was made.
    """
    return replace(policy, forecaster=forecaster) if isinstance(policy, TwoLoops) else policy


def expecting(policy: Policy, settings: Settings, clock: Clock) -> Policy:
    """Return the policy with announced load changes in its forecasts.

    A policy without a forecaster stays unchanged.
    """
    if not settings.events or not isinstance(policy, TwoLoops):
        return policy
    names = [job.name for job in settings.jobs]

    def minute(wall_s: float | None) -> float:
        """The minute of the run at a Unix time; None = never."""
        if wall_s is None:
            return float("inf")
        return (wall_s - clock.origin_s - clock.jump_s) * clock.scale / 60

    events = tuple(
        Event(names.index(one.job), minute(one.from_s), minute(one.until_s), one.load or 1.0)
        for one in settings.events
    )
    return replace(policy, forecaster=expected(policy.forecaster, events))


def at_time_of_day(policy: Policy, origin_s: float) -> Policy:
    """Start the policy's forecaster at the local time of day of `origin_s` (Unix time).

    Today's UTC offset applies. The policy is unchanged if it has no forecaster, or if the
    forecaster's days have fewer than DAY_MINUTES minutes.
    """
    if not isinstance(policy, TwoLoops) or policy.forecaster.day_minutes != DAY_MINUTES:
        return policy
    local_minute = int(origin_s + time.localtime().tm_gmtoff) // 60
    return replace(policy, forecaster=policy.forecaster.start(local_minute))
