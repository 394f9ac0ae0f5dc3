"""Which of the operators' orders (fixed replica counts) are in force, before the policy plans.

An order is in force if it leaves the other jobs their minimum replicas, and fits into the capacity
and the quota of its tenant. Until it does, its job keeps the replicas that it has, because a
mistake in an order must take nothing from the other jobs. An order may exceed the job's
max_replicas or be below its min_replicas, which limit Faro, not people.

The job with an order has the ordered count as max_replicas, and at most its usual min_replicas
(`overrides.Settings`).
"""

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from faro_lib.control import Step
from faro_lib.control.guardrails import Guard
from faro_lib.protocol import CONTESTED
from faro_lib.workload import Job, arrays_of
from faro_lib.workload.jobs import TOLERANCE
from faro_lib.workload.shares import minimum_replicas
from faro_ops.operate.job_states import MISCONFIGURED, JobStates
from faro_ops.operate.memory.overrides import Settings
from faro_ops.protocol import FRAGMENTED, LiveGuardrails, LiveObservation, live_observation

SOURCE = "orders"  # of reports to the board of job states


def fitting_orders(
    ordered: np.ndarray,
    minimum: np.ndarray,
    cores: np.ndarray,
    weight: np.ndarray,
    group: np.ndarray,
    quota: np.ndarray,
    capacity: float,
) -> np.ndarray:
    """The replicas (jobs,) of each job's order that fit; `minimum` for a job without an order.

    An order is in force if this is all of it. If two orders do not fit together, the job with the
    higher weight gets what it is ordered first. Among equal weights, the next replica goes to the
    job with the fewest cores (max-min fairness), so that a small order is met before a large one;
    in a tie, to the first job.

    Parameters
    ----------
    ordered : int (jobs,), the ordered replicas; 0 for a job without an order.
    minimum : int (jobs,), replicas that a job keeps in any case, at most `ordered` if it has one.
    cores : (jobs,) per replica.
    weight : (jobs,) of each job's utility.
    group : int (jobs,), index of each job's quota.
    quota : (groups,) cores that the jobs of a group may use together.
    capacity : cores that all jobs may use together.

    >>> equal = np.ones(3), np.ones(3), np.zeros(3, int), np.array([np.inf])
    >>> minimum = np.array([1, 1, 1])
    >>> fitting_orders(np.array([50, 0, 0]), minimum, *equal, capacity=8).tolist()
    [6, 1, 1]
    >>> fitting_orders(np.array([50, 2, 0]), minimum, *equal, capacity=8).tolist()
    [5, 2, 1]
    """
    fitting = minimum.copy()
    room = capacity - float(minimum @ cores) + TOLERANCE
    quota_room = quota - np.bincount(group, minimum * cores, len(quota)) + TOLERANCE
    for of_weight in sorted(set(weight[ordered > 0].tolist()), reverse=True):
        growing = [int(job) for job in np.flatnonzero((ordered > minimum) & (weight == of_weight))]
        while growing:
            job = min(growing, key=lambda job: (fitting[job] * cores[job], job))
            if fitting[job] >= ordered[job] or cores[job] > min(room, quota_room[group[job]]):
                growing.remove(job)
                continue
            fitting[job] += 1
            room -= cores[job]
            quota_room[group[job]] -= cores[job]
    return fitting


def with_orders(
    jobs: tuple[Job, ...], config: LiveGuardrails, guard: Guard, observation: LiveObservation
) -> tuple[Job, ...]:
    """The jobs, with each operator's order that fits as minimum and maximum replicas."""
    has_order = np.array([job.name in config.fixed for job in jobs])
    kept = guard.contested(config) | (guard.leaves() & ~has_order)
    return with_fitting_orders(jobs, config.fixed, observation, kept)


def with_fitting_orders(
    jobs: tuple[Job, ...], fixed: Collection[str], observation: LiveObservation, kept: np.ndarray
) -> tuple[Job, ...]:
    """The jobs, with the order, or else what the job has, as minimum and maximum.

    fixed : names of the jobs with an order, whose `max_replicas` is the ordered count.
    kept : bool (jobs,), jobs that keep their targets whatever Faro plans, because they are held,
        contested, or left to another controller.
    """
    if not fixed:
        return jobs
    arrays, exists = arrays_of(jobs), observation.exists
    has_order = np.array([job.name in fixed for job in jobs]) & ~kept
    minimum = np.where(kept, observation.target, minimum_replicas(jobs))
    minimum = np.where(has_order, np.minimum(minimum, arrays.max_replicas), minimum)
    capacity = observation.capacity
    if not np.isfinite(capacity):  # unknown: assume that the current targets just fit
        capacity = float(observation.target @ arrays.cores)
    beside = (
        np.where(exists, minimum, 0),
        arrays.cores,
        arrays.weight,
        arrays.group,
        arrays.quota,
        capacity,
    )
    ordered = np.where(has_order & exists, arrays.max_replicas, 0)
    in_full = fitting_orders(ordered, *beside) >= ordered
    has = np.clip(observation.target, minimum, arrays.max_replicas)
    # Even what the jobs have may not fit, after the capacity has fallen.
    fitting = fitting_orders(np.where(in_full, ordered, has), *beside)
    counts = np.where(exists, fitting, minimum).tolist()
    return tuple(
        replace(job, min_replicas=n, max_replicas=n) if ordered else job
        for job, n, ordered in zip(jobs, counts, has_order)
    )


def shortfalls(jobs: tuple[Job, ...], fixed: Collection[str], step: Step) -> dict[str, str]:
    """Job -> why its order is not in force, for jobs whose order does not fit.

    An order that is only on its way, because replicas start one by one, is not among them.
    """
    plan, observation = step.plan, live_observation(step.observation)
    contested = np.array([reason == CONTESTED for reason in plan.reason])
    left = contested if plan.left is None else contested | plan.left
    if observation.held is not None:
        left = left | observation.held
    has_order = np.array([job.name in fixed for job in jobs])
    fitting = with_fitting_orders(jobs, fixed, observation, contested | (left & ~has_order))
    found = {}
    for n in np.flatnonzero(has_order & observation.exists):
        job, target = jobs[n], int(step.target[n])
        what = f"order of {job.max_replicas} replicas"
        if contested[n] and target != job.max_replicas:
            found[job.name] = f"{what}: another client keeps setting {target}"
        elif fitting[n].max_replicas < job.max_replicas:
            beside = "beside the minima of the other jobs"
            if job.tenant_quota is not None:
                beside += f" and into tenant_quota={job.tenant_quota:g} cores"
            kept = f"until it does, the job keeps {fitting[n].max_replicas}"
            found[job.name] = f"{what} does not fit {beside}; {kept}"
        elif plan.reason[n] == FRAGMENTED:
            found[job.name] = f"{what}: {target} fit on the nodes"
    return found


def report_orders(states: JobStates, settings: Settings, step: Step) -> None:
    """Report to the board which orders are not in force, with the reason.

    A job of the table that has such an order is misconfigured.
    """
    reasons: dict[str, list[str]] = {}
    for one in settings.rejected:
        reasons.setdefault(one.job, []).append(f"order {one.text}: {one.reason}")
    for job, reason in shortfalls(settings.jobs, settings.fixed_jobs, step).items():
        reasons.setdefault(job, []).append(reason)
    known = {job.name for job in settings.jobs}
    lines = {job: "; ".join(texts) for job, texts in reasons.items()}
    states.refuse_orders(lines)
    of_jobs = {job: line for job, line in lines.items() if job in known}
    states.report_all(MISCONFIGURED, of_jobs, by=SOURCE)
