"""A cluster whose capacity follows Kubernetes, and which only the leader scales.

If a job's pod template prevents scaling, Faro holds the job: it keeps its replicas.

If the lease is lost to another controller, `apply` raises LostLease, which ends the process. If the
lease merely could not be renewed, `apply` changes nothing, and the next tick tries again.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from faro_lib.protocol import Observation
from faro_lib.workload import Job
from faro_ops.controller.job_states import MISCONFIGURED, JobStates
from faro_ops.controller.steady_capacity import MEASURED, SHRUNK, VANISHED, SteadyCapacity
from faro_ops.kube.capacity import EPSILON, Capacity
from faro_ops.kube.lease import NOBODY, Leadership
from faro_ops.policies.protocol import LiveCluster, LiveObservation, live_observation

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
    jobs : the jobs of `inner`; needed with `capacity`.
    states : board on which misconfigured jobs are reported.
    now_s : returns the time on a clock that never jumps.
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
        self._problems: dict[str, str] = {}  # misconfigured job -> its problem
        # The capacity that counted at the last observation; None before the first.
        self.steady: SteadyCapacity | None = None

    def observe(self) -> Observation:
        try:
            observation = self.inner.observe()
        except OSError as error:
            try:
                self._diagnose()
            except ValueError as reason:
                raise OSError(f"{error}; {reason}") from None
            raise
        if self._capacity is None:
            return observation
        return self._with_capacity(live_observation(observation), self._capacity())

    def _with_capacity(self, seen: LiveObservation, measured: Capacity) -> LiveObservation:
        """The observation with the capacity that counts, and the jobs that are held."""
        cores = np.array([job.cores for job in self._jobs]) * seen.target  # (jobs,) in use
        apart = np.zeros(len(cores), bool)  # jobs whose pods count as other pods
        apart[list(measured.problems)] = True
        self._report(measured)
        before = self.steady
        steady = (before or SteadyCapacity()).after(
            self._now_s(), measured, float(cores[~apart].sum())
        )
        self.steady = steady
        log_change(before, steady, measured)

        held = np.ones(len(cores), bool) if steady.reason == VANISHED else apart
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

    def _report(self, measured: Capacity) -> None:
        """Report the misconfigured jobs, and log each new problem once."""
        problems = {self._jobs[n].name: problem for n, problem in measured.problems.items()}
        for problem in problems.values():
            if problem not in self._problems.values():
                LOG.warning("%s; its replicas stay as they are", problem)
        for job in self._problems.keys() - problems.keys():
            LOG.info("job %r is no longer misconfigured", job)
        self._problems = problems
        self._states.report_all(MISCONFIGURED, problems, by=SOURCE)

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
