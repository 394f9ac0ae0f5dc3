"""Clamping: the part of a plan that fits capacity and quotas, and the jobs that may grow before others have shrunk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from faro_lib.policies.protocol import Observation, Plan
from faro_lib.workload.jobs import TOLERANCE, JobArrays


@dataclass(frozen=True, slots=True)
class Pending:
    """Actions carried over from earlier ticks: replicas wanted (jobs,), and attempts left for them (0 = none)."""

    target: np.ndarray
    attempts: np.ndarray

    @classmethod
    def none(cls, jobs: int) -> Pending:
        return cls(np.zeros(jobs, np.int64), np.zeros(jobs, np.int64))

    def only(self, where: np.ndarray) -> Pending:
        """The actions of the jobs in `where`, bool (jobs,)."""
        return Pending(self.target, np.where(where, self.attempts, 0))


def clamp_to_capacity(
    pending: Pending, plan: Plan, observation: Observation, jobs: JobArrays
) -> tuple[np.ndarray, Pending]:
    """Clamp a plan to the free capacity, which is the capacity minus the cores of all targets (paper, section 5).

    The tenants' quotas are clamped to as well, so that they hold for policies that do not know them.

    Scale-downs come first, then actions carried over, then the other jobs in their order, each cut to what is left. A job
    that is still changing is skipped. What is skipped or cut is carried over for `plan.attempts` ticks, this one
    included, or until a newer action for the job.

    Returns
    -------
    target : (jobs,) replicas to request.
    pending : actions carried over.
    """
    new = plan.target != observation.target
    carried = (pending.attempts > 0) & ~(new & (plan.attempts > 1))
    wanted = np.where(carried, pending.target, plan.target)
    attempts = np.where(carried, pending.attempts, np.where(new, plan.attempts, 0))

    target = observation.target.copy()
    if not (wanted != target).any():
        return target, Pending(wanted, np.zeros_like(attempts))
    allowed = ~observation.changing
    down = allowed & (wanted < target)
    target[down] = wanted[down]
    free = observation.capacity - float(target @ jobs.cores)
    quota_free = jobs.quota - np.bincount(jobs.group, target * jobs.cores, len(jobs.quota))
    up = np.flatnonzero(allowed & (wanted > target))
    for job in sorted(up, key=lambda job: not carried[job]):
        room = min(free, quota_free[jobs.group[job]])
        replicas = min(int(wanted[job] - target[job]), int((room + TOLERANCE) // jobs.cores[job]))
        if replicas > 0:
            target[job] += replicas
            free -= replicas * jobs.cores[job]
            quota_free[jobs.group[job]] -= replicas * jobs.cores[job]
    return target, Pending(wanted, np.where(target != wanted, np.maximum(attempts - 1, 0), 0))


def growth(target: np.ndarray, standing: np.ndarray, cores: np.ndarray, capacity: float = 0.0) -> np.ndarray:
    """Jobs that may grow now, bool (jobs,): they fit beside replicas of other jobs that have not yet been removed.

    The limit is the cores of all targets, or the capacity if it is larger; jobs are taken in their order.

    Parameters
    ----------
    target, standing : (jobs,) replicas requested, and replicas that exist after scaling down was tried.
    cores : (jobs,) cores of a replica of each job.

    >>> growth(np.array([4, 1]), np.array([2, 3]), np.ones(2)).tolist()
    [False, False]
    >>> growth(np.array([4, 1]), np.array([2, 1]), np.ones(2)).tolist()
    [True, False]
    """
    limit, used = max(float(target @ cores), capacity), float(standing @ cores)
    grows = np.zeros(len(target), bool)
    for job in np.flatnonzero(target > standing):
        more = float(target[job] - standing[job]) * cores[job]
        if used + more <= limit + TOLERANCE:
            grows[job], used = True, used + more
    return grows
