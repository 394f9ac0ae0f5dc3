"""The two protocols that the control loop joins, `Policy` and `Cluster`, and what passes between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from faro_lib.workload import Job, arrays_of
from faro_lib.workload.jobs import TOLERANCE

HISTORY_MINUTES = 15  # complete minutes of counts in an observation
LATENCY_WINDOW_S = 30.0  # `mean_latency_s` is over the requests that ended in this window
PLAN_ATTEMPTS = 5  # ticks for which the part of a long-term plan that did not fit is tried (paper, section 4)
REACT_UP_AFTER_S = 30.0  # seconds above the SLO after which reactive loops add replicas (paper, section 4)

# Why a job has its target: the closed list of reasons.
START = "start"  # the initial replicas of a run
HOLD = "hold"  # nothing to do
SHARE = "fair-share"  # an equal share of the capacity
PLANNED = "planned"  # the long-term decision
REACTIVE_UP = "reactive-scale-up"  # latency above the SLO for long enough
REACTIVE_DOWN = "reactive-scale-down"  # latency below the SLO for long enough
# Reasons of the guardrails; they replace the policy's.
MISSING = "missing-data"  # the job's data has been missing for too long
FAILED = "policy-failed"  # the policy raised, or its plan was invalid
DEADLINE_EXCEEDED = "deadline-exceeded"  # the decision took too long
BOUNDS = "bounds"  # the plan was outside the job's own minimum and maximum
RATE_LIMIT = "scaling-rate-limit"  # the plan moved more replicas than one decision may
CAPACITY = "capacity"  # the replicas no longer fitted the capacity
FRAGMENTED = "fragmented"  # no node has room for the replica, although the sum of the free cores would do
DRIFT_CORRECTED = "drift-corrected"  # something else had changed the target
JOB_ADDED = "job-added"  # the job is new
JOB_REMOVED = "job-removed"  # the job no longer exists
REASONS = (
    START, HOLD, SHARE, PLANNED, REACTIVE_UP, REACTIVE_DOWN,
    MISSING, FAILED, DEADLINE_EXCEEDED, BOUNDS, RATE_LIMIT, CAPACITY, FRAGMENTED, DRIFT_CORRECTED, JOB_ADDED,
    JOB_REMOVED,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Observation:
    """The cluster at one instant; arrays have shape (jobs,) unless stated otherwise.

    Attributes
    ----------
    now_s : seconds since the run began.
    capacity : cores that the jobs may use.
    minute : number of complete minutes so far.
    arrivals_per_min : (jobs, <= 15), requests in the last complete minutes, newest last; NaN = missing, never zero.
    mean_latency_s : mean over the requests that ended in the last 30 s, dropped ones included; 0 if there were none.
    tail_latency_s : the job's latency quantile over the last complete minute; inf if more requests were dropped than
        the quantile leaves out, NaN if unknown.
    ongoing : requests in the system, waiting or in service.
    running : replicas that serve.
    starting : replicas requested that do not serve yet.
    target : replicas requested.
    terminating : pods of the job that still occupy capacity but serve no requests.
    changing : bool, a change of the job's replicas is in progress.
    drop : drop rate in force.
    arrivals_now : requests so far in the current minute; None if the cluster does not measure it.
    present : bool, whether the job exists now; None = every job. An absent job holds no replicas and a plan's target
        for it is ignored, so policies need not look at this.
    free_cores, placed : (nodes,) cores that are left on each node, and (jobs, nodes) replicas on each node; None if the
        capacity is one pool of cores.
    """

    now_s: float
    capacity: float
    minute: int
    arrivals_per_min: np.ndarray
    mean_latency_s: np.ndarray
    tail_latency_s: np.ndarray
    ongoing: np.ndarray
    running: np.ndarray
    starting: np.ndarray
    target: np.ndarray
    terminating: np.ndarray
    changing: np.ndarray
    drop: np.ndarray
    arrivals_now: np.ndarray | None = None
    present: np.ndarray | None = None
    free_cores: np.ndarray | None = None
    placed: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a policy asks for; arrays of shape (jobs,).

    Attributes
    ----------
    target : replicas wanted; for a job that should not change, the observed target.
    drop : fraction of each job's requests to drop on arrival.
    reason : one of REASONS for each job.
    attempts : ticks for which the part that does not fit the capacity is tried, this one included: `PLAN_ATTEMPTS` for
        long-term plans, 1 for reactions.
    forecast_rps, predicted_tail_latency_s : expected arrival rate, and the latency quantile predicted from it at
        `target` replicas; None if the policy has no model.
    marginal_value_up, marginal_value_down : what one replica more would add to the objective and one less would take
        from it (`allocate.marginal_values`); NaN at a bound, None if the policy has no objective.
    """

    target: np.ndarray
    drop: np.ndarray
    reason: tuple[str, ...]
    attempts: int = 1
    forecast_rps: np.ndarray | None = None
    predicted_tail_latency_s: np.ndarray | None = None
    marginal_value_up: np.ndarray | None = None
    marginal_value_down: np.ndarray | None = None


def hold(observation: Observation) -> Plan:
    """The plan that changes nothing."""
    return Plan(observation.target, observation.drop, (HOLD,) * len(observation.target))


def reasons(target: np.ndarray, now: np.ndarray, up: str = PLANNED, down: str | None = None) -> tuple[str, ...]:
    """The reason of each job: `up` if it grows, `down` (or `up`) if it shrinks, HOLD if it keeps its target.

    >>> reasons(np.array([3, 1, 2]), np.array([2, 2, 2]), REACTIVE_UP, REACTIVE_DOWN)
    ('reactive-scale-up', 'reactive-scale-down', 'hold')
    """
    return tuple(HOLD if x == y else up if x > y else down or up for x, y in zip(target, now))


class Policy(Protocol):
    """Decides. `decide` is pure: no clock, no I/O; its state is a fold over observations, so a journal restores it.

    tick_s : seconds between the observations that the policy receives.
    """

    @property
    def name(self) -> str: ...

    @property
    def tick_s(self) -> float: ...

    def initial(self, jobs: tuple[Job, ...], capacity: float) -> np.ndarray:
        """Replicas (jobs,) to begin with."""
        ...

    def start(self, jobs: tuple[Job, ...]) -> Any:
        """The state before the first observation."""
        ...

    def decide(self, state: Any, observation: Observation) -> tuple[Any, Plan]:
        """The state after an observation, and the plan for it."""
        ...


class Cluster(Protocol):
    """Observes and scales the jobs, simulated or real.

    A cluster that makes several calls in one `apply` takes `may_act: Callable[[], bool]` as a third argument of `apply`
    and asks it before each call, so that a controller that has lost its lease stops in the middle.
    """

    def observe(self) -> Observation:
        """The cluster now; any exception means that it could not be observed at this tick."""
        ...

    def apply(self, target: np.ndarray, drop: np.ndarray) -> None:
        """Request these replicas and drop rates (jobs,)."""
        ...

    def advance(self, until_s: float) -> None:
        """Let time pass until `until_s`: simulate it, or wait."""
        ...


def minimum_replicas(jobs: tuple[Job, ...]) -> np.ndarray:
    """Each job's minimum, at least 1; a job starts with it (paper, section 6.1).

    >>> minimum_replicas((Job("a", min_replicas=0), Job("b", min_replicas=2))).tolist()
    [1, 2]
    """
    return np.maximum(1, arrays_of(jobs).min_replicas)


def at_least_one_each(jobs: tuple[Job, ...], capacity: float) -> np.ndarray:
    """`minimum_replicas`, checked against the capacity and the tenants' quotas.

    >>> at_least_one_each((Job("a"), Job("b", min_replicas=2)), 2)
    Traceback (most recent call last):
    ValueError: capacity=2 cores cannot hold the minimum of 2 jobs, 3 cores
    """
    minimum = minimum_replicas(jobs)
    arrays = arrays_of(jobs)
    required = float(minimum @ arrays.cores)
    if required > capacity + TOLERANCE:
        raise ValueError(f"capacity={capacity:g} cores cannot hold the minimum of {len(jobs)} jobs, {required:g} cores")
    for_group = np.bincount(arrays.group, minimum * arrays.cores, len(arrays.quota))
    for job, group in zip(jobs, arrays.group):
        if for_group[group] > arrays.quota[group] + TOLERANCE:
            raise ValueError(
                f"tenant {job.tenant!r}: tenant_quota={job.tenant_quota:g} cores cannot hold the minimum of its jobs, "
                f"{for_group[group]:g} cores"
            )
    return minimum
