"""The protocols `Policy` and `Cluster`, and what passes between them: `Observation` and `Plan`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from faro_lib.workload import Job, Placement

HISTORY_MINUTES = 15  # complete minutes of counts in an observation
LATENCY_WINDOW_S = 30.0  # `mean_latency_s` averages the requests that ended in this window
# Ticks at which the scale-ups of a long-term plan are tried (EuroSys'25, section 4).
PLAN_ATTEMPTS = 5
# Seconds above the SLO after which reactive loops add replicas (EuroSys'25, section 4).
REACT_UP_AFTER_S = 30.0
DECILES = np.arange(1, 10) / 10
# Fields of an observation: how the requests of the last complete minute ended.
ENDED = ("served_per_min", "failed_per_min", "refused_per_min", "cancelled_per_min")

# Why a job has its target.
START = "start"  # the initial replicas of a run
HOLD = "hold"  # the target stays as it is
SHARE = "fair-share"  # equal share of the capacity
PLANNED = "planned"  # long-term decision
# A rule without a forecast adds or removes replicas, e.g. because of the latency.
REACTIVE_UP = "reactive-scale-up"
REACTIVE_DOWN = "reactive-scale-down"
# Reasons of the guardrails, which replace those of the policy.
MISSING = "missing-data"  # the job's data has been missing for too long
FAILED = "policy-failed"  # the policy raised, or its plan was invalid
DEADLINE_EXCEEDED = "deadline-exceeded"  # the decision took too long
BOUNDS = "bounds"  # the plan was outside the job's own minimum and maximum
RATE_LIMIT = "scaling-rate-limit"  # the plan changed more replicas than one decision may change
CAPACITY = "capacity"  # the targets exceeded the capacity
DRIFT_CORRECTED = "drift-corrected"  # Faro restored the target, which another client had changed
OVERRIDE = "override"  # an operator has fixed the replica count
CONTESTED = "contested"  # another client keeps changing the target, and Faro leaves the job alone
JOB_ADDED = "job-added"  # the job is new
JOB_REMOVED = "job-removed"  # the job no longer exists
REASONS = (
    START,
    HOLD,
    SHARE,
    PLANNED,
    REACTIVE_UP,
    REACTIVE_DOWN,
    MISSING,
    FAILED,
    DEADLINE_EXCEEDED,
    BOUNDS,
    RATE_LIMIT,
    CAPACITY,
    DRIFT_CORRECTED,
    OVERRIDE,
    CONTESTED,
    JOB_ADDED,
    JOB_REMOVED,
)


@dataclass(frozen=True, slots=True)
class Observation:
    """The cluster at one instant. Arrays are (jobs,) unless stated; unknown is NaN, never 0.

    An absent job has no replicas, and its target in a plan is ignored. So policies need not read
    `present`.
    """

    now_s: float  # seconds since time 0, which is 15 minutes before the start of a live run
    capacity: float  # cores that the jobs may use
    minute: int  # complete minutes since time 0
    # (jobs, minutes <= 15) requests in the last complete minutes, newest last
    arrivals_per_min: np.ndarray
    # Mean time in system of the requests served or dropped in the last 30 s; 0 if there are none.
    mean_latency_s: np.ndarray
    # Latency quantile over the last complete minute. A request that was not served counts as inf,
    # except where a platform measures only the latencies of served requests.
    tail_latency_s: np.ndarray
    ongoing: np.ndarray  # requests waiting or in service
    running: np.ndarray  # replicas that serve
    starting: np.ndarray  # requested replicas that do not serve yet
    target: np.ndarray  # requested replicas
    terminating: np.ndarray  # pods that occupy capacity but no longer serve
    changing: np.ndarray  # bool, replicas are being added or removed
    drop: np.ndarray  # drop rate in force
    arrivals_now: np.ndarray | None = None  # requests in the current minute; None if unknown
    present: np.ndarray | None = None  # bool, the job exists; None = every job
    # Which models the replicas of each pool were last asked to hold, by the pool's name.
    placement: Mapping[str, Placement] | None = None
    # Seconds for which a request kept a replica busy, the mean of the last minute; None if the
    # platform does not measure it.
    busy_s: np.ndarray | None = None
    # Requests that were served, failed, and so on in the last complete minute. None where the
    # platform does not count them, NaN where it does not know. Served requests are those that
    # ended in the minute, or fewer. Refused ones include those of `drop`, and those are cancelled
    # whose client gave up.
    served_per_min: np.ndarray | None = None
    failed_per_min: np.ndarray | None = None
    refused_per_min: np.ndarray | None = None
    cancelled_per_min: np.ndarray | None = None
    # Latency quantile of the served requests of that minute; None: it is `tail_latency_s`.
    served_tail_latency_s: np.ndarray | None = None
    # Share of the last minute in which CPU limits slowed the replicas; None where not measured.
    throttled: np.ndarray | None = None

    @property
    def exists(self) -> np.ndarray:
        """Whether each configured job is deployed on the cluster now, bool (jobs,)."""
        return np.ones(len(self.target), bool) if self.present is None else self.present


@dataclass(frozen=True, slots=True)
class Plan:
    """The replicas and drop rates that a policy requests; arrays of shape (jobs,)."""

    target: np.ndarray  # replicas; the observed target for a job that should not change
    drop: np.ndarray  # fraction of requests to drop on arrival
    reason: tuple[str, ...]  # one of REASONS for each job
    attempts: int = 1  # ticks at which a scale-up beyond the free capacity is tried, from this one
    forecast_rps: np.ndarray | None = None  # expected arrival rate; None without a forecast
    # Latency quantile at `forecast_rps` with the optimal replicas.
    predicted_tail_latency_s: np.ndarray | None = None
    # (jobs, 9) deciles of the forecast for the minute after this one
    next_minute_deciles_rps: np.ndarray | None = None
    # Gain in the objective from one more replica, and loss from one less; NaN at a bound.
    marginal_value_up: np.ndarray | None = None
    marginal_value_down: np.ndarray | None = None
    # Bool, jobs that the policy leaves to another controller, which scales them; None = no job.
    # The guardrails leave them alone too.
    left: np.ndarray | None = None
    # Which models the replicas of each pool should hold, by the pool's name; None = as before.
    placement: Mapping[str, Placement] | None = None


def hold(observation: Observation) -> Plan:
    """The plan that changes nothing."""
    return Plan(observation.target, observation.drop, (HOLD,) * len(observation.target))


def reasons(
    target: np.ndarray, now: np.ndarray, up: str = PLANNED, down: str | None = None
) -> tuple[str, ...]:
    """Reason of each job: `up` if its target grows, `down` (default `up`) if it shrinks, else HOLD.

    >>> reasons(np.array([3, 1, 2]), np.array([2, 2, 2]), REACTIVE_UP, REACTIVE_DOWN)
    ('reactive-scale-up', 'reactive-scale-down', 'hold')
    """
    down = down or up
    return tuple(HOLD if x == y else up if x > y else down for x, y in zip(target, now))


class Policy(Protocol):
    """Maps observations to plans.

    `decide` reads no clock and does no I/O. Replaying the same observations therefore restores the
    same state.
    """

    @property
    def name(self) -> str: ...

    @property
    def tick_s(self) -> float: ...  # seconds between two observations

    def initial(self, jobs: tuple[Job, ...], capacity: float) -> np.ndarray:
        """Replicas (jobs,) at the start."""

    def start(self, jobs: tuple[Job, ...]) -> Any:
        """The state before the first observation."""

    def decide(self, state: Any, observation: Observation) -> tuple[Any, Plan]:
        """(state after this observation, the plan for it)."""


@dataclass(frozen=True, slots=True)
class Wrapper:
    """A policy around another one, to change what that policy sees, does or returns.

    A subclass overrides what it changes; everything else is the inner policy's. Options of a policy
    itself are changed with `dataclasses.replace` instead.
    """

    policy: Policy

    @property
    def name(self) -> str:
        return self.policy.name

    @property
    def tick_s(self) -> float:
        return self.policy.tick_s

    def initial(self, jobs: tuple[Job, ...], capacity: float) -> np.ndarray:
        return self.policy.initial(jobs, capacity)

    def start(self, jobs: tuple[Job, ...]) -> Any:
        return self.policy.start(jobs)

    def decide(self, state: Any, observation: Observation) -> tuple[Any, Plan]:
        return self.policy.decide(state, observation)


@dataclass(frozen=True, slots=True)
class Assuming(Wrapper):
    """A policy that decides as if the cluster served `jobs`, whose parameters may be wrong."""

    jobs: tuple[Job, ...]
    assumption: str  # the name of this policy

    @property
    def name(self) -> str:
        return self.assumption

    def initial(self, jobs: tuple[Job, ...], capacity: float) -> np.ndarray:
        return self.policy.initial(self.jobs, capacity)

    def start(self, jobs: tuple[Job, ...]) -> Any:
        return self.policy.start(self.jobs)


class Cluster(Protocol):
    """Observes and scales the jobs of a simulated or real cluster."""

    def observe(self) -> Observation:
        """The state now. Any exception means that the cluster cannot be observed at this tick."""

    def apply(self, target: np.ndarray, drop: np.ndarray) -> None:
        """Request replicas and drop rates, both (jobs,)."""

    def advance(self, until_s: float) -> None:
        """Simulate or wait until `until_s`."""


@runtime_checkable
class SharingCluster(Cluster, Protocol):
    """A cluster whose replicas may hold the models of several jobs of a pool."""

    def place(self, placement: Mapping[str, Placement]) -> None:
        """Set which models the replicas of pools should hold, from the next `apply` on.

        The cluster resizes the last placement of a pool to the targets of its jobs.
        """
