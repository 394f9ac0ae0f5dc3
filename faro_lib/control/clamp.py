"""Admission: what of a plan the free capacity allows, and what of it where jobs do not shrink as asked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from faro_lib.policies.protocol import Observation, Plan


@dataclass(frozen=True, slots=True)
class Pending:
    """Actions carried over from earlier ticks: wanted replicas (jobs,), and how many attempts are left (0 = none)."""

    target: np.ndarray
    attempts: np.ndarray

    @classmethod
    def none(cls, jobs: int) -> Pending:
        return cls(np.zeros(jobs, np.int64), np.zeros(jobs, np.int64))

    def only(self, where: np.ndarray) -> Pending:
        """What is carried over for these jobs; bool (jobs,)."""
        return Pending(self.target, np.where(where, self.attempts, 0))


def admit(pending: Pending, plan: Plan, observation: Observation, cores: np.ndarray) -> tuple[np.ndarray, Pending]:
    """Cut a plan to what the free capacity allows (paper/simulator: free = capacity - sum of targets).

    Downscales come first, then actions carried over, then the others in the order of the jobs, each cut to what is left.
    Where a job's change is still going on, actions for it are skipped. What is skipped or cut is tried again at later
    ticks if the plan says so (`plan.attempts`, this try included); a newer action for the job replaces it.

    Parameters
    ----------
    cores : (jobs,) cores of one replica.

    Returns
    -------
    target : (jobs,) replicas to ask the cluster for.
    pending : what is carried over.
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
    free = observation.capacity - float(target @ cores)
    up = np.flatnonzero(allowed & (wanted > target))
    for job in sorted(up, key=lambda job: not carried[job]):
        steps = min(int(wanted[job] - target[job]), int((free + 1e-9) // cores[job]))
        if steps > 0:
            target[job] += steps
            free -= steps * cores[job]

    left = np.where(target != wanted, np.maximum(attempts - 1, 0), 0)
    return target, Pending(wanted, left)


def growth(target: np.ndarray, standing: np.ndarray, cores: np.ndarray, capacity: float = 0.0) -> np.ndarray:
    """Which jobs may grow now, bool (jobs,): all, unless some have not shrunk and so still hold what others shall have.

    What was asked for in all, or the capacity if it is more, is not exceeded; in the order of the jobs.

    Parameters
    ----------
    target, standing : (jobs,) replicas asked for, and those that are there once shrinking has been tried.
    cores : (jobs,) of one replica.

    >>> growth(np.array([4, 1]), np.array([2, 3]), np.ones(2)).tolist()
    [False, False]
    >>> growth(np.array([4, 1]), np.array([2, 1]), np.ones(2)).tolist()
    [True, False]
    """
    most, used = max(float(target @ cores), capacity), float(standing @ cores)
    grows = np.zeros(len(target), bool)
    for job in np.flatnonzero(target > standing):
        more = float(target[job] - standing[job]) * cores[job]
        if used + more <= most + 1e-9:
            grows[job], used = True, used + more
    return grows
