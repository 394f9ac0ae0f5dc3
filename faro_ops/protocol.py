"""What a live cluster observes and accepts beyond the library's `Observation`, `Plan`, `Cluster`.

The library's types describe replicas of jobs. These add nodes, failures, autoscalers that act below
Faro, and the authority that Faro has earned.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np

from faro_lib import protocol
from faro_lib.control.guardrails import GuardrailConfig
from faro_lib.protocol import Cluster, Observation, Plan

AUTHORITY = "authority"  # reason: Faro has not earned the right to change the job
FRAGMENTED = "fragmented"  # reason: no single node has enough free cores for another replica
REASONS = (*protocol.REASONS, AUTHORITY, FRAGMENTED)


@dataclass(frozen=True, slots=True)
class LiveObservation(Observation):
    """An observation of a live cluster; arrays are (jobs,) unless stated otherwise."""

    # Of a job that generates tokens, the SLO's quantiles of the time to the first token and of the
    # time per later token over the last complete minute; NaN where not measured, None: nowhere.
    first_token_s: np.ndarray | None = None
    per_token_s: np.ndarray | None = None
    # Requests per second in the last complete minute that met the job's SLO, or both limits of
    # `slo_on: both`; None if not measured.
    goodput_rps: np.ndarray | None = None
    # (nodes,) free cores of each node, and (jobs, nodes) replicas on each node; None if the nodes
    # are not distinguished.
    free_cores: np.ndarray | None = None
    placed: np.ndarray | None = None
    # If Faro sets the bounds of HPAs, targets are maxReplicas. Then these are: whether the job's
    # HPA has its original bounds (bool), the replicas that it has or has requested, and its
    # minReplicas.
    unbounded: np.ndarray | None = None
    replicas: np.ndarray | None = None
    floor: np.ndarray | None = None
    # Bool, jobs that Faro keeps as they are, because they are misconfigured or because no capacity
    # is known (operate/limits/held.py); None = no job.
    held: np.ndarray | None = None
    # Seconds since the API server last confirmed the capacity; None if it is not measured.
    capacity_age_s: float | None = None
    # Int, a number that changes with each roll-out of a job's service; 0 = unknown; None: the
    # cluster does not see roll-outs.
    revision: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class LivePlan(Plan):
    """A plan for a live cluster; arrays of shape (jobs,)."""

    # minReplicas of each job's HPA, whose maxReplicas is `target`; None = replicas, not bounds.
    floor: np.ndarray | None = None
    # How far Faro may change each job: `Authority.to_array()`, (jobs, fields); None = no limit.
    authority: np.ndarray | None = None
    # Learned factor on each job's service time, and the standard error of its logarithm; None =
    # service times are not learned.
    service_factor: np.ndarray | None = None
    service_factor_error: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class LiveGuardrails(GuardrailConfig):
    """The limits that an operator of a live loop sets.

    deadline_s : seconds after which a decision is discarded, None for no deadline.
    max_scale_down : largest share of all replicas that is removed within a minute, over all jobs;
        one may always be removed. None for no limit.
    """

    deadline_s: float | None = None
    max_scale_down: float | None = None

    def __post_init__(self) -> None:
        GuardrailConfig.__post_init__(self)
        deadline_s, share = self.deadline_s, self.max_scale_down
        if deadline_s is not None and not deadline_s > 0:
            raise ValueError(f"deadline_s={deadline_s!r} must be None or a number > 0")
        if share is not None and not 0 <= share <= 1:
            raise ValueError(f"max_scale_down={share!r} must be None or a number from 0 to 1")


LIVE_GUARDRAILS = LiveGuardrails()


class LiveCluster(Cluster, Protocol):
    """A cluster whose `apply` sends several API calls, and that other clients may scale, too.

    `apply` asks `may_act()` before each call, so that a controller that loses its lease stops
    between two calls. It also accepts the `floor` of a plan if it sets bounds of HPAs.
    """

    def apply(
        self, target: np.ndarray, drop: np.ndarray, may_act: Callable[[], bool] = ...
    ) -> None: ...

    def writer_of(self, job: int) -> str | None:
        """The name of the other client that last scaled a job; None if unknown."""


def live_observation(observation: Observation) -> LiveObservation:
    """`observation` as a `LiveObservation`; what a simulated cluster does not observe is None."""
    return _as(LiveObservation, observation)


def live_plan(plan: Plan) -> LivePlan:
    """`plan` as a `LivePlan`, without a floor and authority unless it has them."""
    return _as(LivePlan, plan)


def _as(kind: type, value: Any) -> Any:
    if isinstance(value, kind):
        return value
    return kind(**{field.name: getattr(value, field.name) for field in fields(value)})
