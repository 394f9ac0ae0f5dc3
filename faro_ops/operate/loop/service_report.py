"""Lines for the log about learned service times: said once, and again only after a return."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from faro_lib.control import Step
from faro_lib.policies.learning import UNKNOWN_ERROR
from faro_lib.workload import Job, pools_of
from faro_ops.operate.loop.common_change import MIN_CHANGE, split_change
from faro_ops.operate.loop.service_times import named
from faro_ops.protocol import live_plan

COMPARED_MINUTES = 15  # changes are those since that many minutes ago
SURE = 0.1  # a change is one of a factor that was known with this standard error, and still is


class ServiceTimesReport:
    """A listener of steps that says which services are slower or faster than assumed.

    It says when a learned time is surely outside the interval of the assumed one (two standard
    errors of both), and when services change: together, or alone. It also names the pools, in which
    latencies tell less about each service.

    say : called with each line.
    """

    def __init__(self, jobs: Sequence[Job], say: Callable[[str], object]):
        self._say = say
        self._outside: set[str] = set()  # jobs of which it was said
        self._shared: set[str] = set()  # pools of which it was said
        self._changed: set[str] = set()
        self._together = False
        self.use_jobs(jobs)

    def use_jobs(self, jobs: Sequence[Job]) -> None:
        """Report on these jobs from now on; what was said about them stays said."""
        self._jobs = tuple(jobs)
        # Minute -> (log factors, their errors), each (jobs,)
        self._known: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __call__(self, step: Step) -> None:
        plan, minute = live_plan(step.plan), step.observation.minute
        if plan.service_factor is None or plan.service_factor_error is None:
            return
        self._report_shared()
        if minute in self._known:
            return
        logs, errors = np.log(plan.service_factor), plan.service_factor_error
        first = minute - COMPARED_MINUTES
        self._known = {n: one for n, one in self._known.items() if first <= n < minute}
        self._known[minute] = logs, errors
        self._report_outside(logs, errors)
        if first in self._known:
            self._report_changes(logs, errors, *self._known[first])

    def _report_shared(self) -> None:
        for pool in pools_of(self._jobs):
            if pool.shared and pool.name not in self._shared:
                self._shared.add(pool.name)
                members = named([self._jobs[job].name for job in pool.jobs])
                self._say(
                    f"pool {pool.name!r}: {members} share replicas; Faro learns how much slower "
                    "they all are because of that, and the service time of each"
                )

    def _report_outside(self, logs: np.ndarray, errors: np.ndarray) -> None:
        for job, log, error in zip(self._jobs, logs.tolist(), errors.tolist()):
            stated = job.service_time_error or UNKNOWN_ERROR
            assumed = max(2 * stated, MIN_CHANGE)  # the latency model itself is not exact
            if abs(log) <= assumed:
                self._outside.discard(job.name)
            elif abs(log) - 2 * error > assumed and job.name not in self._outside:
                self._outside.add(job.name)
                factor = math.exp(log)
                self._say(
                    f"job {job.name!r}: its service times are {factor:.2f} times (+-{error:.0%}) "
                    f"those of the table, which are said to be right within {assumed:.0%}; "
                    "Faro uses the learned ones; measure the table again"
                )

    def _report_changes(
        self,
        logs: np.ndarray,
        errors: np.ndarray,
        logs_before: np.ndarray,
        errors_before: np.ndarray,
    ) -> None:
        sure = (errors <= SURE) & (errors_before <= SURE)
        change = np.where(sure, logs - logs_before, np.nan)
        common, own = split_change(change, np.hypot(errors, errors_before))
        if common and not self._together:
            sharing = int((np.abs(own) <= abs(common) / 2).sum())
            self._say(
                f"{sharing} of {len(self._jobs)} services are {_slower(common)} than "
                f"{COMPARED_MINUTES} minutes ago, at the same time: a slow node or interference, "
                "not a service of its own"
            )
        self._together = bool(common)

        surely = np.abs(own) > np.maximum(MIN_CHANGE, 2 * np.hypot(errors, errors_before))
        new = []
        for job, alone, of_job in zip(self._jobs, surely.tolist(), own.tolist()):
            if alone and job.name not in self._changed:
                self._changed.add(job.name)
                new.append(f"{job.name} ({_slower(of_job)})")
            elif not abs(of_job) > MIN_CHANGE / 2:
                self._changed.discard(job.name)
        if new:
            self._say(
                f"changed within {COMPARED_MINUTES} minutes, and most services have not: "
                f"{named(new)}; a new version, or requests of another kind"
            )


def _slower(log: float) -> str:
    """A change of the log service time in words, such as "30 % slower"."""
    if log > 0:
        return f"{100 * math.expm1(log):.0f} % slower"
    return f"{100 * math.expm1(-log):.0f} % faster"
