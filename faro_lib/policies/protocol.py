"""What a policy sees, what it answers, and the two protocols that the loop joins: Policy and Cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from faro_lib.workload import Job

HISTORY_MINUTES = 15  # complete minutes of counts in an observation
LATENCY_WINDOW_S = 30.0  # `mean_latency_s` is over the requests that ended in this window
PLAN_ATTEMPTS = 5  # ticks for which the part of a long-term plan that did not fit is tried (paper, section 4)

# Why a job's target is what it is: the closed list of reasons.
START = "start"  # what the run began with
HOLD = "hold"  # nothing to do
SHARE = "fair-share"  # an equal share of the capacity
PLANNED = "planned"  # the long-term decision
REACTIVE_UP = "reactive-scale-up"  # latency above the SLO for long enough
REACTIVE_DOWN = "reactive-scale-down"  # latency below the SLO for long enough
# The guardrails' reasons; they stand instead of the policy's.
MISSING = "missing-data"  # the job's data has been missing for too long
FAILED = "policy-failed"  # the policy raised, or its plan made no sense
DEADLINE_EXCEEDED = "deadline-exceeded"  # the decision took too long
BOUNDS = "bounds"  # the plan was outside the job's own minimum and maximum
RATE_LIMIT = "scaling-rate-limit"  # the plan moved more replicas than a decision may
CAPACITY = "capacity"  # more was in place than the capacity holds
DRIFT_CORRECTED = "drift-corrected"  # somebody else had changed what was asked for
JOB_ADDED = "job-added"  # the job is new
JOB_REMOVED = "job-removed"  # the job is gone
REASONS = (
    START, HOLD, SHARE, PLANNED, REACTIVE_UP, REACTIVE_DOWN,
    MISSING, FAILED, DEADLINE_EXCEEDED, BOUNDS, RATE_LIMIT, CAPACITY, DRIFT_CORRECTED, JOB_ADDED, JOB_REMOVED,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Observation:
    """The cluster at one instant; arrays have shape (jobs,) but where noted.

    Attributes
    ----------
    now_s : seconds since the run began.
    capacity : cores that the jobs may use.
    minute : number of complete minutes so far.
    arrivals_per_min : (jobs, <= 15), requests in the last complete minutes, newest last; NaN = missing, never zero.
    mean_latency_s : mean time in the system of the requests that ended in the last 30 s, refused ones included; 0 if none.
    tail_latency_s : the job's percentile of latency over the last complete minute; inf if refusals reach into it, NaN if unknown.
    ongoing : requests inside, waiting or in service.
    running : replicas that serve.
    starting : replicas asked for that do not serve yet.
    target : replicas asked for.
    terminating : pods of the job that still hold capacity but serve nobody.
    changing : bool, a change of the job's replicas is going on.
    drop : the drop rate in force.
    arrivals_now : requests so far in the minute that is not complete yet; None where the cluster does not tell.
    present : bool, whether the job exists now; None = every job. An absent job holds no replicas, and whatever a plan
        asks for it counts for nothing: policies need not look.
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


@dataclass(frozen=True, slots=True)
class Plan:
    """What a policy asks for; arrays of shape (jobs,).

    Attributes
    ----------
    target : replicas wanted; equal to the observed target where nothing is asked.
    drop : fraction of each job's requests to refuse at the door.
    reason : one of REASONS for each job.
    attempts : how often the part that admission refuses is tried, this time included: 5 for long-term plans, 1 for reactions.
    forecast_rps, predicted_tail_latency_s : what the plan rests on, where the policy knows: the expected rate and the percentile of
        latency predicted from it at `target` replicas.
    marginal_value_up, marginal_value_down : what one replica more would add to the objective, and one less would take from it, as
        `allocate.marginal_values` has them; NaN at a bound.
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
    """The plan that asks for nothing."""
    return Plan(observation.target, observation.drop, (HOLD,) * len(observation.target))


class Policy(Protocol):
    """Decides. `decide` is pure: no clock, no I/O; the state is a fold over observations, so a log restores it.

    tick_s : seconds between two observations that the policy wants to see.
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

    def decide(self, state: Any, observation: Observation) -> tuple[Any, Plan]: ...


class Cluster(Protocol):
    """Applies: something with replicas in it, simulated or real."""

    def observe(self) -> Observation: ...

    def apply(self, target: np.ndarray, drop: np.ndarray) -> None:
        """Ask for these replicas and drop rates (jobs,)."""
        ...

    def advance(self, until_s: float) -> None:
        """Let time pass until `until_s`."""
        ...


def at_least_one_each(jobs: tuple[Job, ...], capacity: float) -> np.ndarray:
    """Everyone's minimum: the paper's start, 1 replica each.

    >>> at_least_one_each((Job("a"), Job("b", min_replicas=2)), 8).tolist()
    [1, 2]
    """
    fewest = np.array([max(1, job.min_replicas) for job in jobs])
    need = float(np.dot(fewest, [job.cores for job in jobs]))
    if need > capacity + 1e-9:
        raise ValueError(f"capacity={capacity:g} cores cannot hold the minimum of {len(jobs)} jobs, {need:g} cores")
    return fewest
