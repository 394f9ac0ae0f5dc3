"""Clamp the replica counts that a policy requests to the free capacity and the tenants' quotas."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from faro_lib.protocol import HOLD, Observation, Plan
from faro_lib.workload.jobs import TOLERANCE, JobArrays


@dataclass(frozen=True, slots=True)
class Pending:
    """Target replica counts (jobs,) that later ticks retry, because one skipped or reduced them."""

    target: np.ndarray
    # Number of ticks for which the target is still retried; 0 = no pending target.
    attempts: np.ndarray
    reason: tuple[str, ...]  # why the plan requested each target, one of `protocol.REASONS`

    @classmethod
    def none(cls, jobs: int) -> Self:
        return cls(np.zeros(jobs, np.int64), np.zeros(jobs, np.int64), (HOLD,) * jobs)

    def only(self, where: np.ndarray) -> Self:
        """The pending targets of the jobs in the mask `where`, bool (jobs,); others have none."""
        return replace(self, attempts=np.where(where, self.attempts, 0))


def clamp_to_capacity(
    pending: Pending, plan: Plan, observation: Observation, jobs: JobArrays
) -> tuple[np.ndarray, Pending]:
    """The replicas (jobs,) to request within free capacity and quotas, and the pending targets.

    Free capacity is the capacity minus the cores of all jobs' current targets (EuroSys'25, section
    5). Scale-downs are applied first, then scale-ups pending from earlier ticks, then new
    scale-ups. A scale-up is reduced to the replicas that fit. Jobs in `observation.changing` are
    skipped. A skipped or reduced target is tried on up to `plan.attempts` ticks, including this
    one. A later plan with `attempts` > 1 replaces the pending targets of the jobs that it scales.
    """
    new = plan.target != observation.target
    carried = (pending.attempts > 0) & ~(new & (plan.attempts > 1))
    wanted = np.where(carried, pending.target, plan.target)
    attempts = np.where(carried, pending.attempts, np.where(new, plan.attempts, 0))
    reason = tuple(
        earlier if is_carried else now
        for earlier, now, is_carried in zip(pending.reason, plan.reason, carried)
    )

    target = observation.target.copy()
    if not (wanted != target).any():
        return target, Pending(wanted, np.zeros_like(attempts), reason)
    allowed = ~observation.changing
    down = allowed & (wanted < target)
    target[down] = wanted[down]
    free = observation.capacity - float(target @ jobs.cores)
    quota_free = jobs.quota - np.bincount(jobs.group, target * jobs.cores, len(jobs.quota))
    up = np.flatnonzero(allowed & (wanted > target))
    for job in sorted(up, key=lambda job: not carried[job]):
        room = min(free, quota_free[jobs.group[job]])
        fitting = int((room + TOLERANCE) // jobs.cores[job])
        replicas = min(int(wanted[job] - target[job]), fitting)
        if replicas > 0:
            target[job] += replicas
            free -= replicas * jobs.cores[job]
            quota_free[jobs.group[job]] -= replicas * jobs.cores[job]
    remaining = np.where(target != wanted, np.maximum(attempts - 1, 0), 0)
    return target, Pending(wanted, remaining, reason)
