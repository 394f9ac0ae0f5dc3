"""What the controller says of itself in Kubernetes: a FaroPlan object, and an Event for each job whose target changed.

`kubectl get faroplans` shows capacity and targets, `kubectl describe faroplan NAME` every job with its reason and the
last events.
"""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime

import numpy as np

from faro_lib.control import Step
from faro_lib.kube.client import MANAGER, MERGE, Api, ApiError
from faro_lib.policies.protocol import CAPACITY, DEADLINE_EXCEEDED, FAILED, MISSING
from faro_lib.workload import Job

LOG = logging.getLogger(__name__)
GROUP, VERSION, PLURAL, KIND = "autoscaling.faro", "v1alpha1", "faroplans", "FaroPlan"
API_VERSION = f"{GROUP}/{VERSION}"
ALARMING = (MISSING, FAILED, DEADLINE_EXCEEDED, CAPACITY)
MOST_EVENTS = 50  # of one tick
NUMBER, TEXT, WHOLE = {"type": "number"}, {"type": "string"}, {"type": "integer"}


def crd() -> dict:
    """The CustomResourceDefinition of FaroPlan."""
    job = {
        **dict.fromkeys(("name", "reason"), TEXT),
        **dict.fromkeys(("target", "running"), WHOLE),
        **dict.fromkeys(("drop", "forecastRps", "predictedTailLatencySeconds", "marginalValueUp", "marginalValueDown"), NUMBER),
    }
    condition = dict.fromkeys(("type", "status", "reason", "message", "lastTransitionTime"), TEXT)
    status = {
        **dict.fromkeys(("controller", "lastDecisionTime", "targets", "reason"), TEXT),
        **dict.fromkeys(("capacityCores", "usedCores"), NUMBER),
        "jobs": {"type": "array", "items": {"type": "object", "properties": job}},
        "conditions": {"type": "array", "items": {"type": "object", "properties": condition}},
    }
    columns = [
        ("Policy", "string", ".spec.policy"),
        ("Capacity", "number", ".status.capacityCores"),
        ("Used", "number", ".status.usedCores"),
        ("Targets", "string", ".status.targets"),
        ("Reason", "string", ".status.reason"),
        ("Decided", "date", ".status.lastDecisionTime"),
    ]
    schema = {
        "type": "object",
        "properties": {
            "spec": {"type": "object", "properties": {"policy": TEXT}},
            "status": {"type": "object", "properties": status},
        },
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"plural": PLURAL, "singular": KIND.lower(), "kind": KIND, "shortNames": ["fp"]},
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [dict(name=n, type=t, jsonPath=p) for n, t, p in columns],
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def status_of(jobs: tuple[Job, ...], step: Step, controller: str, now: str, since: str) -> dict:
    """The status of FaroPlan after a tick, of a controller that acts since then; what the policy does not know is left out."""
    plan, seen = step.plan, step.observation
    known = {
        "forecastRps": plan.forecast_rps,
        "predictedTailLatencySeconds": plan.predicted_tail_latency_s,
        "marginalValueUp": plan.marginal_value_up,
        "marginalValueDown": plan.marginal_value_down,
    }

    def line(i: int, job: Job) -> dict:
        said = {
            name: float(values[i]) for name, values in known.items() if values is not None and np.isfinite(values[i])
        }
        numbers = dict(target=int(step.target[i]), running=int(seen.running[i]), drop=float(plan.drop[i]))
        return {"name": job.name, "reason": plan.reason[i], **numbers, **said}

    cores = np.array([job.cores for job in jobs])
    reasons = sorted(set(plan.reason), key=plan.reason.count, reverse=True)
    condition = {
        "type": "Acting",
        "status": "True",
        "reason": "Leads",
        "message": f"{controller} decides",
        "lastTransitionTime": since,
    }
    return {
        "controller": controller,
        "lastDecisionTime": now,
        "capacityCores": float(seen.capacity),
        "usedCores": float(step.target @ cores),
        "targets": " ".join(f"{job.name}={n}" for job, n in zip(jobs, step.target)),
        "reason": ", ".join(reasons),
        "jobs": [line(i, job) for i, job in enumerate(jobs)],
        "conditions": [condition],
    }


def changes(jobs: tuple[Job, ...], step: Step) -> list[tuple[str, str, str]]:
    """(type, reason, message) of an Event for each job whose target changed."""
    told = []
    for i in np.flatnonzero(step.target != step.observation.target):
        why, plan = step.plan.reason[i], step.plan
        text = f"{jobs[i].name}: {step.observation.target[i]} -> {step.target[i]} replicas ({why})"
        if plan.forecast_rps is not None and np.isfinite(plan.forecast_rps[i]):
            text += f"; expects {plan.forecast_rps[i]:.3g} requests/s"
        if plan.predicted_tail_latency_s is not None and np.isfinite(plan.predicted_tail_latency_s[i]):
            text += f", p{100 * jobs[i].quantile:g} {plan.predicted_tail_latency_s[i]:.3g} s"
        name = "".join(word.capitalize() for word in why.split("-"))
        told.append(("Warning" if why in ALARMING else "Normal", name, text))
    return told


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Reporter:
    """Publishes each tick from a thread of its own: a slow API server never delays a decision, it only skips reports."""

    def __init__(self, api: Api, namespace: str, name: str, policy: str, jobs: tuple[Job, ...], controller: str):
        self._api, self._namespace, self.name, self._policy = api, namespace, name, policy
        self._jobs, self._controller = jobs, controller
        self._path = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}/{name}"
        self._since = _now()
        self._steps: list[Step] = []
        self._wake, self._lock, self._closed = threading.Event(), threading.Lock(), False
        self._thread = threading.Thread(target=self._follow, name=f"status {name}", daemon=True)
        self._thread.start()

    def __call__(self, step: Step) -> None:
        with self._lock:
            self._steps = [*self._steps[-9:], step]
        self._wake.set()

    def close(self, timeout_s: float = 5.0) -> None:
        """Publish what is left."""
        self._closed = True
        self._wake.set()
        self._thread.join(timeout_s)

    def _follow(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            with self._lock:
                steps, self._steps = self._steps, []
            try:
                if steps:
                    self.publish(steps)
            except Exception as refused:  # whatever it was, the next tick is told again
                LOG.warning(
                    "the plan is not published: %s", refused if isinstance(refused, ApiError) else repr(refused)
                )
            if self._closed and not self._steps:
                return

    def publish(self, steps: list[Step]) -> None:
        """The status after the last of these ticks, and the events of all."""
        now = _now()
        meta = {"name": self.name, "namespace": self._namespace}
        head = {"apiVersion": API_VERSION, "kind": KIND, "metadata": meta}
        plan = self._api.apply(self._path, {**head, "spec": {"policy": self._policy}})
        status = status_of(self._jobs, steps[-1], self._controller, now, self._since)
        self._api.send("PATCH", f"{self._path}/status", {"status": status}, kind=MERGE, fieldManager=MANAGER)
        about = {"apiVersion": API_VERSION, "kind": KIND, **meta, "uid": plan["metadata"]["uid"]}
        told = [one for step in steps for one in changes(self._jobs, step)]
        for kind, reason, message in told[-MOST_EVENTS:]:
            event = {
                "metadata": {"generateName": f"{self.name}.", "namespace": self._namespace},
                "involvedObject": about,
                "type": kind,
                "reason": reason,
                "message": message[:1000],
                "source": {"component": MANAGER},
                "reportingComponent": MANAGER,
                "reportingInstance": self._controller,
                "firstTimestamp": now,
                "lastTimestamp": now,
                "count": 1,
            }
            self._api.send("POST", f"/api/v1/namespaces/{self._namespace}/events", event)
