"""What Ray lists about the application of one job. Pure functions of an answer of its REST API.

An application that is missing, failed or unreadable is the trouble of its job alone.
"""

import json
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from faro_ops.operate.job_states import FINE, GONE, MISCONFIGURED
from faro_ops.operate.rayserve.coverage import RUNNING
from faro_ops.operate.rayserve.spec import ServeSpec

DELETING = "DELETING"
FAILED = "DEPLOY_FAILED"  # an update failed; the replicas of the previous version may still serve
UNHEALTHY = "UNHEALTHY"
STARTS = ("DEPLOYING", "NOT_STARTED")
STOPPING = "STOPPING"
STARTING = "STARTING"


@dataclass(frozen=True, slots=True)
class Deployment:
    """A job's deployment as Ray lists it."""

    target: int  # requested replicas
    states: Counter[str]  # number of replicas in each state
    # Ray's state of each replica that has started, by its id; None if Ray does not give all ids.
    replicas: Mapping[str, str] | None
    revision: int = 0  # of the application (`code_revision`)

    @classmethod
    def of(cls, listed: Any) -> Self:
        """Parse Ray's details of a deployment; ValueError, TypeError and others if they differ."""
        target = listed["target_num_replicas"] or 0
        if not isinstance(target, int) or target < 0:
            raise ValueError(f"target_num_replicas={target!r}")
        replicas = listed["replicas"]
        states = Counter(str(one["state"]) for one in replicas)
        started = [one for one in replicas if one["state"] != STARTING]
        named = all(isinstance(one.get("replica_id"), str) for one in replicas)
        ids = {one["replica_id"]: one["state"] for one in started} if named else None
        return cls(target, states, ids)

    @property
    def running(self) -> int:
        return self.states[RUNNING]


def code_revision(state: Mapping[str, Any]) -> int:
    """A number that changes when other code or other arguments are deployed; 0 = unknown.

    It does not change with the number of replicas.
    """
    config = state.get("deployed_app_config")
    if not isinstance(config, Mapping):
        return 0
    parts = {name: config.get(name) for name in ("import_path", "runtime_env", "args")}
    return zlib.crc32(json.dumps(parts, sort_keys=True, default=str).encode()) or 1


@dataclass(frozen=True, slots=True)
class Listed:
    """What Ray lists about a job."""

    deployment: Deployment | None  # None if it does not exist, or cannot be read
    state: str = FINE  # of operate/job_states.py
    reason: str = ""
    deleting: bool = False  # it will not come back by itself
    # Whether an earlier listing of the deployment still holds: Ray says nothing else about it.
    stays: bool = False


def listing_of(applications: Mapping[str, Any], spec: ServeSpec) -> Listed:
    """What Ray lists about the job of `spec`; never raises.

    applications : Ray's details of all applications, by name.
    """
    name = f"application {spec.application!r}"
    if spec.application not in applications:
        return Listed(None, GONE, f"{name} does not exist on this Ray; `faro deploy` deploys it")
    try:
        return _listed(applications[spec.application], spec, name)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"{type(error).__name__}: {error}"[:100]
        reason = f"Ray's answer about {name} cannot be read ({problem})"
        return Listed(None, MISCONFIGURED, reason, stays=True)


def _listed(state: Any, spec: ServeSpec, name: str) -> Listed:
    status = state["status"]
    if status == DELETING:
        return Listed(None, GONE, f"{name} is being deleted", deleting=True)
    deployments = state["deployments"]
    details = deployments.get(spec.deployment)
    deployment = None
    if details is not None:
        deployment = replace(Deployment.of(details), revision=code_revision(state))
    if status == FAILED:
        reason = f"Ray could not deploy {name} ({_last_line(state)}); deploy it again"
        return Listed(deployment, MISCONFIGURED, reason, stays=True)
    if deployment is None and (status in STARTS or not deployments):
        return Listed(None)
    if deployment is None:
        others = ", ".join(map(repr, sorted(deployments)))
        reason = f"{name} has no deployment {spec.deployment!r} but {others}; set serve.deployment"
        return Listed(None, MISCONFIGURED, reason)
    if status == UNHEALTHY and not deployment.running:
        reason = f"no replica of {name} is healthy ({_last_line(state)})"
        return Listed(deployment, MISCONFIGURED, reason)
    # If some replicas of an unhealthy application run, Ray replaces the others.
    return Listed(deployment)


def _last_line(state: Mapping[str, Any]) -> str:
    """The last line of Ray's message about an application, or its status if there is none."""
    lines = [line for line in str(state.get("message") or "").splitlines() if line.strip()]
    return (lines or [str(state["status"])])[-1].strip()[:200]
