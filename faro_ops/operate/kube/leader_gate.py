"""A cluster whose capacity follows Kubernetes, and which only the leader scales.

If something is wrong with one job (job_checks.py), or its pod template prevents scaling, Faro holds
the job: it keeps its replicas. The board of job states has the reason.

If the lease is lost to another controller, `apply` raises LostLease, which ends the process. If the
lease merely could not be renewed, `apply` changes nothing, and the next tick tries again.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from faro_lib.protocol import Observation, SharingCluster
from faro_lib.workload import Job
from faro_ops.operate.job_states import MISCONFIGURED, JobStates
from faro_ops.operate.kube.capacity import EPSILON, Capacity
from faro_ops.operate.kube.deployments import Deployments
from faro_ops.operate.kube.job_checks import Checks, Finding, problems_of
from faro_ops.operate.kube.lease import NOBODY, Leadership
from faro_ops.operate.limits.steady_capacity import MEASURED, SHRUNK, VANISHED, SteadyCapacity
from faro_ops.protocol import LiveCluster, LiveObservation, live_observation

LOG = logging.getLogger(__name__)
SOURCE = "templates"  # of reports to the board of job states
# Assumed duration of an API call in `apply`. A call starts only if the leadership lasts that long.
ACT_S = 2.0


class LostLease(SystemExit):
    """Another controller has become the leader.

    This process exits, and Kubernetes restarts it as a candidate.
    """


class LeaderGatedCluster:
    """The cluster `inner` with its capacity measured in Kubernetes, scaled only by the leader.

    capacity : returns the current capacity; None: use that of `inner`.
    leadership : this controller's state in the leader election; None: no election, every plan is
        applied.
    diagnose : called if the cluster cannot be observed; raises ValueError with the reason if it
        finds one.
    jobs : the jobs of `inner`; needed with `capacity` and `checks`.
    states : board on which the problems of single jobs are reported.
    now_s : returns the time on a clock that never jumps.
    checks : called after every observation of `inner`; returns what is wrong with single jobs.
    """

    def __init__(
        self,
        inner: LiveCluster,
        capacity: Callable[[], Capacity] | None = None,
        leadership: Leadership | None = None,
        diagnose: Callable[[], None] = lambda: None,
        jobs: Sequence[Job] = (),
        states: JobStates | None = None,
        now_s: Callable[[], float] = time.monotonic,
        checks: Checks = tuple,
    ):
        self.inner = inner
        self._jobs = tuple(jobs)
        self._states = states or JobStates()
        self._now_s = now_s
        self._capacity = capacity
        self._leadership = leadership
        self._diagnose = diagnose
        self.advance = inner.advance
        self.writer_of = inner.writer_of
        if isinstance(inner, SharingCluster):
            self.place = inner.place  # it takes effect with `apply`
        self._checks = checks
        self._problems: dict[str, str] = {}  # job that is held or gone -> its problem
        # The capacity that counted at the last observation; None before the first.
        self.steady: SteadyCapacity | None = None

    def follow(self, before: "LeaderGatedCluster") -> None:
        """Continue after a change of settings: the capacity that counts, drop rates, log lines."""
        self.steady = before.steady
        self._problems = before._problems
        if isinstance(self.inner, Deployments) and isinstance(before.inner, Deployments):
            self.inner.follow(before.inner)

    def problems(self) -> dict[int, str]:
        """Index of each job that Faro would not scale now -> the reason. Nothing is reported."""
        if not isinstance(self.inner, Deployments):
            return {}
        self.inner.refresh()
        templates = self._capacity().problems if self._capacity else {}
        return {**templates, **problems_of(self._checks())}

    def observe(self) -> Observation:
        try:
            observation = self.inner.observe()
        except OSError as error:
            try:
                self._diagnose()
            except ValueError as reason:
                raise OSError(f"{error}; {reason}") from None
            raise
        seen = live_observation(observation)
        findings = self._checks()
        held = np.zeros(len(seen.target), bool)  # an application of Ray may be held already
        if seen.held is not None:
            held |= seen.held
        for finding in findings:
            held[list(finding.reasons)] |= finding.held
        if self._capacity is None:
            self._report({}, findings)
            return replace(seen, held=held) if held.any() else seen
        measured = self._capacity()
        self._report(measured.problems, findings)
        return self._with_capacity(seen, measured, held)

    def _with_capacity(
        self, seen: LiveObservation, measured: Capacity, held: np.ndarray
    ) -> LiveObservation:
        """The observation with the capacity that counts, and the jobs that are held.

        held : bool (jobs,), jobs that are held for a reason other than their pod templates.
        """
        cores = np.array([job.cores for job in self._jobs]) * seen.target  # (jobs,) in use
        apart = np.zeros(len(cores), bool)  # jobs whose pods count as other pods
        apart[list(measured.problems)] = True
        before = self.steady
        steady = (before or SteadyCapacity()).after(
            self._now_s(), measured, float(cores[~apart].sum())
        )
        self.steady = steady
        log_change(before, steady, measured)

        held = np.ones(len(cores), bool) if steady.reason == VANISHED else apart | held
        # Where less is left than the jobs use, replicas that fit on no node may find room soon.
        by_node = steady.reason in (MEASURED, SHRUNK)
        placed = measured.placed if by_node else None
        if placed is not None and placed.shape[1] and held.any():
            # The cores of a job that is held are not free, so none of its replicas needs room.
            placed = placed.copy()
            placed[held] = 0
            placed[held, 0] = seen.target[held]
        return replace(
            seen,
            capacity=steady.cores + float(cores[apart].sum()),
            free_cores=measured.free_cores if by_node else None,
            placed=placed,
            held=held if held.any() else None,
            capacity_age_s=measured.age_s,
        )

    def _report(self, templates: Mapping[int, str], findings: Sequence[Finding]) -> None:
        """Report what is wrong with single jobs, and log each new problem once.

        templates : problems of the pod templates, by index of the job.
        """
        found = [*findings, Finding(SOURCE, MISCONFIGURED, templates, held=True)]
        problems: dict[str, str] = {}
        for one in found:
            reasons = {self._jobs[n].name: reason for n, reason in one.reasons.items()}
            self._states.report_all(one.state, reasons, by=one.source)
            kept = "; its replicas stay as they are" if one.held else ""
            for job, reason in reasons.items():
                problems.setdefault(job, f"{reason}{kept}")
        for problem in problems.values():
            if problem not in self._problems.values():
                LOG.warning("%s", problem)
        for job in self._problems.keys() - problems.keys():
            LOG.info("job %r is as it should be again", job)
        self._problems = problems

    def apply(self, target: np.ndarray, drop: np.ndarray, **floor: np.ndarray) -> None:
        """Apply the plan if this controller is the leader.

        floor : minReplicas (jobs,), given if Faro sets the bounds of HPAs.

        Raises LostLease if another controller holds the lease, and OSError if the lease merely
        could not be renewed.
        """
        lease = self._leadership
        apply: Callable[..., None] = self.inner.apply
        if lease is None:  # no leader election
            apply(target, drop, lambda: True, **floor)
        elif lease.is_leader(ACT_S):
            # Asked again before each call, because the lease may expire between the calls.
            apply(target, drop, lambda: lease.is_leader(ACT_S), **floor)
        elif lease.holder not in ("", NOBODY, lease.candidate.identity):
            raise LostLease(f"lease {lease.name} is held by {lease.holder}")
        else:
            raise OSError(f"lease {lease.name} could not be renewed; this tick changes nothing")


def log_change(before: SteadyCapacity | None, now: SteadyCapacity, measured: Capacity) -> None:
    """Log one line if the capacity that counts, or the reason for it, has changed."""
    if before is None or before.reason != now.reason:
        changed = True
    else:
        changed = abs(now.cores - before.cores) > EPSILON
    if not changed:
        return
    if now.note:
        LOG.warning("capacity: %s", now.note)
        return
    unusable = "".join(f"; {node}: {reason}" for node, reason in measured.unusable.items())
    LOG.info("capacity is %g cores, bound by %s%s", now.cores, measured.bound, unusable)
