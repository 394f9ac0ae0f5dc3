"""Publish the controller's state: the resource FaroPlan, and an Event per job with a new target.

`kubectl get faroplans` shows the cores and each job's target. `kubectl describe faroplan NAME` also
shows the reasons.
"""

import logging
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import numpy as np

from faro_lib.control import Step
from faro_lib.protocol import CAPACITY, DEADLINE_EXCEEDED, FAILED, MISSING
from faro_lib.workload import Job
from faro_lib.workload.jobs import arrays_of
from faro_ops.operate.job_states import JobStates
from faro_ops.operate.kube.client import MANAGER, MERGE, Api, ApiError
from faro_ops.operate.limits.steady_capacity import SteadyCapacity
from faro_ops.protocol import FRAGMENTED, live_observation, live_plan

LOG = logging.getLogger(__name__)
GROUP = "autoscaling.faro"
VERSION = "v1alpha1"
PLURAL = "faroplans"
KIND = "FaroPlan"
API_VERSION = f"{GROUP}/{VERSION}"
ALARMING = (MISSING, FAILED, DEADLINE_EXCEEDED, CAPACITY, FRAGMENTED)
RFC3339 = "%Y-%m-%dT%H:%M:%SZ"
MAX_MESSAGE = 1000  # characters of the message of a condition
MAX_EVENTS = 50  # maximum number of Events per `publish`
# Maximum number of ticks (passes of the control loop) that wait to be published; the oldest are
# discarded.
MAX_STEPS = 10


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition of the FaroPlan; `reason` is one word in CamelCase, `message` one line."""

    type: str
    holds: bool
    reason: str
    message: str = ""

    def since(self, time: str) -> dict[str, str]:
        """The condition as the API has it.

        time : when `holds` or `reason` last changed, as RFC 3339 text.
        """
        return {
            "type": self.type,
            "status": "True" if self.holds else "False",
            "reason": self.reason,
            "message": self.message,
            "lastTransitionTime": time,
        }


def proxy_settings(jobs: tuple[Job, ...], drop: np.ndarray) -> dict[str, str]:
    """The command that sets the jobs' drop rates, by proxy (envoy, haproxy).

    See docs/kubernetes.md.
    """
    rates = [(job.name, round(1e4 * rate)) for job, rate in zip(jobs, drop.tolist())]
    values = "&".join(f"{quote(f'faro.{name}', '')}={rate}" for name, rate in rates)
    commands = [f"set map /etc/haproxy/faro.map {_escaped(name)} {rate}" for name, rate in rates]
    return {"envoy": f"POST /runtime_modify?{values}", "haproxy": "; ".join(commands)}


def _escaped(name: str) -> str:
    """A name as one word of a command to HAProxy, to which blanks and ; have a meaning.

    >>> print(_escaped("a; quit"))
    a\\;\\ quit
    """
    return re.sub(r"([^\w.-])", r"\\\1", name)


def status_of(
    jobs: tuple[Job, ...],
    step: Step,
    controller: str,
    now: str,
    since: str,
    proxied: bool = False,
    conditions: Iterable[dict[str, str]] = (),
    states: JobStates | None = None,
    pending: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """The status of the FaroPlan after a tick.

    Optional values that are unknown or not finite are omitted.

    controller : identity of the controller that is the leader.
    now : time of the status, as RFC 3339 text.
    since : time at which the controller became the leader, as RFC 3339 text.
    proxied : whether a proxy drops the requests. If it does, the status contains its settings
        (`proxy_settings`).
    conditions : further conditions, such as `capacity_condition`.
    states : board of what is wrong with single jobs, and of orders that are not in force.
    pending : job -> its pods that wait for a node or an image, of jobs that have some.
    """
    board = states or JobStates()
    waiting = pending or {}
    plan = live_plan(step.plan)
    observation = step.observation
    optional = {
        "forecastRps": plan.forecast_rps,
        "observedTailLatencySeconds": observation.tail_latency_s,
        "predictedTailLatencySeconds": plan.predicted_tail_latency_s,
        "marginalValueUp": plan.marginal_value_up,
        "marginalValueDown": plan.marginal_value_down,
    }
    asked = live_observation(observation).replicas  # desiredReplicas is maxReplicas then
    rows = [
        {
            "name": job.name,
            "reason": plan.reason[i],
            "desiredReplicas": int(step.target[i]),
            "readyReplicas": int(observation.running[i]),
            "drop": float(plan.drop[i]),
        }
        | ({} if plan.floor is None else {"floorReplicas": int(plan.floor[i])})
        | ({} if asked is None else {"requestedReplicas": int(asked[i])})
        | state_of(job.name, board)
        | ({"pendingPods": waiting[job.name]} if job.name in waiting else {})
        | {
            name: float(values[i])
            for name, values in optional.items()
            if values is not None and np.isfinite(values[i])
        }
        for i, job in enumerate(jobs)
    ]
    acting = Condition("Acting", True, "Leads", f"{controller} decides").since(since)
    status: dict[str, Any] = {
        "controller": controller,
        "lastDecisionTime": now,
        "capacityCores": float(observation.capacity),
        "usedCores": float(step.target @ arrays_of(jobs).cores),
        "targets": " ".join(f"{job.name}={n}" for job, n in zip(jobs, step.target)),
        "reason": ", ".join(sorted(set(plan.reason), key=plan.reason.count, reverse=True)),
        "jobs": rows,
        "ordersNotInForce": [
            {"job": job, "reason": reason} for job, reason in board.refused_orders().items()
        ],
        "conditions": [acting, *conditions],
    }
    age_s = live_observation(observation).capacity_age_s
    if age_s is not None and np.isfinite(age_s):
        status["capacityAgeSeconds"] = round(age_s, 1)
    if proxied:
        settings = proxy_settings(jobs, plan.drop)
        status["dropRates"] = {"enforcedBy": "a proxy of yours"} | settings
    return status


def state_of(job: str, board: JobStates) -> dict[str, Any]:
    """The fields of a job's row that say what is wrong with it, if anything, and since when."""
    now = board.of(job)
    fields: dict[str, Any] = {"state": now.state}
    if now.reason:
        since = datetime.fromtimestamp(now.since_s, UTC)
        fields |= {"stateReason": now.reason, "stateSince": since.strftime(RFC3339)}
    age_s = board.data_age_s(job)
    if np.isfinite(age_s):
        fields["dataAgeSeconds"] = round(age_s, 1)
    return fields


def capacity_condition(steady: SteadyCapacity) -> Condition:
    """The condition CapacityKnown: False while the capacity is unknown, with the reason."""
    return Condition("CapacityKnown", not np.isnan(steady.cores), steady.reason, steady.note)


def jobs_condition(states: JobStates) -> Condition:
    """The condition JobsFine: False if something is wrong with single jobs, with their names."""
    troubled = sorted(states.troubled().items())
    message = "; ".join(f"{job}: {one.state}: {one.reason}" for job, one in troubled)
    reason = "AllFine" if not troubled else "SomeAreNot"
    return Condition("JobsFine", not troubled, reason, message[:MAX_MESSAGE])


def changes(jobs: tuple[Job, ...], step: Step) -> list[tuple[str, str, str]]:
    """(type, reason, message) of an Event for each job whose target has changed."""
    before = step.observation.target  # (jobs,)
    rate = step.plan.forecast_rps
    latency = step.plan.predicted_tail_latency_s
    events = []
    for i in np.flatnonzero(step.target != before):
        reason = step.plan.reason[i]
        message = f"{jobs[i].name}: {before[i]} -> {step.target[i]} replicas ({reason})"
        if rate is not None and np.isfinite(rate[i]):
            message += f"; expects {rate[i]:.3g} requests/s"
        if latency is not None and np.isfinite(latency[i]):
            message += f", p{100 * jobs[i].quantile:g} {latency[i]:.3g} s"
        kind = "Warning" if reason in ALARMING else "Normal"
        camel_case = "".join(word.capitalize() for word in reason.split("-"))
        events.append((kind, camel_case, message))
    return events


def _now() -> str:
    return datetime.now(UTC).strftime(RFC3339)


class Reporter:
    """Publishes the result of each tick in a thread.

    Decisions therefore never wait for the API server. It outlives changes of the jobs.

    proxied : whether a proxy drops the requests.
    states : board of what is wrong with single jobs.
    conditions : returns further conditions.
    pending : returns the number of pods that wait, of each job that has some; None: unknown.
    """

    def __init__(
        self,
        api: Api,
        namespace: str,
        name: str,
        policy: str,
        controller: str,
        proxied: bool = False,
        states: JobStates | None = None,
        conditions: Callable[[], Iterable[Condition]] = tuple,
        pending: Callable[[], Mapping[str, int] | None] = lambda: None,
    ):
        self._api = api
        self._namespace = namespace
        self.name = name
        self._policy = policy
        self._controller = controller
        self._proxied = proxied
        self._path = f"/apis/{API_VERSION}/namespaces/{namespace}/{PLURAL}/{name}"
        self._since = _now()
        self._states = states or JobStates()
        self._further = conditions
        self._pending = pending
        # Type of a condition -> what it was when it was last published, and since when.
        self._changed: dict[str, tuple[bool | None, str, str]] = {}
        self._steps: deque[tuple[tuple[Job, ...], Step]] = deque(maxlen=MAX_STEPS)
        self._wake = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._follow, name=f"status {name}", daemon=True)
        self._thread.start()

    def __call__(self, jobs: tuple[Job, ...], step: Step) -> None:
        """Publish a tick of these jobs."""
        self._steps.append((jobs, step))
        self._wake.set()

    def close(self, timeout_s: float = 5.0) -> None:
        """Publish the remaining ticks and end the thread, but wait at most `timeout_s` for it."""
        self._closed = True
        self._wake.set()
        self._thread.join(timeout_s)

    def _follow(self) -> None:
        while not self._closed or self._steps:
            self._wake.wait()
            self._wake.clear()
            steps = [self._steps.popleft() for _ in range(len(self._steps))]
            try:
                if steps:
                    self.publish(steps)
            # Any error: this status is not published, but the next tick publishes a new one.
            except Exception as error:
                text = error if isinstance(error, ApiError) else repr(error)
                LOG.warning("the plan is not published: %s", text)

    def _conditions(self, now: str) -> list[dict[str, str]]:
        found = []
        for one in (*self._further(), jobs_condition(self._states)):
            holds, reason, since = self._changed.get(one.type, (None, "", now))
            if (holds, reason) != (one.holds, one.reason):
                since = now
            self._changed[one.type] = (one.holds, one.reason, since)
            found.append(one.since(since))
        return found

    def publish(self, steps: list[tuple[tuple[Job, ...], Step]]) -> None:
        """Write the status after the last of `steps`, and the Events of all `steps`."""
        now = _now()
        metadata = {"name": self.name, "namespace": self._namespace}
        head = {"apiVersion": API_VERSION, "kind": KIND}
        manifest = {**head, "metadata": metadata, "spec": {"policy": self._policy}}
        plan = self._api.apply(self._path, manifest)

        jobs, last = steps[-1]
        status = status_of(
            jobs,
            last,
            self._controller,
            now,
            self._since,
            self._proxied,
            self._conditions(now),
            self._states,
            self._pending(),
        )
        body = {"status": status}
        self._api.send("PATCH", f"{self._path}/status", body, kind=MERGE, fieldManager=MANAGER)

        common = {
            "metadata": {"generateName": f"{self.name}.", "namespace": self._namespace},
            "involvedObject": {**head, **metadata, "uid": plan["metadata"]["uid"]},
            "source": {"component": MANAGER},
            "reportingComponent": MANAGER,
            "reportingInstance": self._controller,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        events = [event for jobs, step in steps for event in changes(jobs, step)]
        for kind, reason, message in events[-MAX_EVENTS:]:
            event = common | {"type": kind, "reason": reason, "message": message[:1000]}
            self._api.send("POST", f"/api/v1/namespaces/{self._namespace}/events", event)
