"""An implementation of the protocol `Cluster` for jobs that are Deployments. Their pods may run any model server."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from faro_lib.errors import nearest
from faro_lib.policies.protocol import HISTORY_MINUTES
from faro_lib.workload import Job
from faro_lib.workload.jobs import MINUTE_S, arrays_of
from faro_ops.controller.clock import Clock
from faro_ops.controller.scaling import NOT_LEADER, MayAct, scale_jobs, summary
from faro_ops.kube.capacity import EPSILON, Shape, requests_of
from faro_ops.kube.client import MANAGER, MERGE, Api, ApiError
from faro_ops.kube.deployment_metrics import DeploymentMetrics, Queries
from faro_ops.policies.protocol import LiveObservation

PROGRESS_DEADLINE = (
    3.0  # a job counts as `changing` for at most this many cold start times after it was scaled
)
SCALE_ATTEMPTS = 3
AUTOSCALERS = "/apis/autoscaling/v2", "horizontalpodautoscalers"  # API group and plural of HPAs
THREADS = 16


@dataclass(frozen=True, slots=True)
class DeploymentRef:
    """A job, its Deployment, and the queries that measure the job's load and latency."""

    job: Job
    namespace: str
    name: str
    queries: Queries
    autoscaler: str = ""  # the HorizontalPodAutoscaler whose bounds Faro sets, if any
    resource: str = "cpu"  # the Kubernetes resource to which the job's `cores` refer

    @classmethod
    def of(cls, job: Job, section: dict, namespace: str) -> Self:
        """Parse a job's section `deployment`; `namespace` applies if the section names none. ValueError for a bad section."""
        accepted = ("namespace", "name", "queries", "autoscaler", "resource")
        for key in section:
            if key not in accepted:
                raise ValueError(
                    f"job {job.name!r}: deployment.{key} is unknown; {nearest(key, accepted)}"
                )
        if not isinstance(section.get("queries"), dict):
            raise ValueError(
                f"job {job.name!r}: deployment.queries is missing: PromQL for requests and latency_mean_s"
            )
        queries, namespace = (
            Queries.of(job.name, section["queries"]),
            section.get("namespace", namespace),
        )
        if str(namespace).startswith("kube-"):
            problem = "belongs to Kubernetes itself; Faro scales no Deployment there"
            raise ValueError(f"job {job.name!r}: deployment.namespace={namespace!r} {problem}")
        name = section.get("name", job.name)
        return cls(
            job,
            namespace,
            name,
            queries,
            section.get("autoscaler", name),
            section.get("resource", "cpu"),
        )

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class DeploymentState:
    """A Deployment as last read."""

    version: str  # its resourceVersion
    target: int  # requested replicas
    ready: int  # replicas that are ready
    settled: bool  # whether all requested replicas are ready and no others exist

    @classmethod
    def of(cls, deployment: Mapping) -> Self:
        metadata, status, spec = (
            deployment["metadata"],
            deployment.get("status", {}),
            deployment["spec"],
        )
        observed = status.get("observedGeneration", 0) >= metadata.get("generation", 0)
        target, ready = spec.get("replicas", 1), status.get("readyReplicas", 0)
        settled = observed and ready == target == status.get("replicas", 0)
        return cls(metadata["resourceVersion"], target, ready, settled)


ABSENT = DeploymentState("", 0, 0, True)


class Deployments:
    """Observes and scales the jobs' Deployments. Only a proxy can drop requests, at the rates in the FaroPlan's status.

    clock : the run's clock. Observations contain no minutes before its time 0.
    cores : cores that the jobs may use; 0 if a `LeaderGatedCluster` wraps this object and measures the capacity.
    """

    def __init__(
        self,
        api: Api,
        refs: list[DeploymentRef],
        metrics: DeploymentMetrics,
        clock: Clock,
        cores: float = 0.0,
    ):
        self._api, self.refs, self._metrics, self.clock, self.cores = (
            api,
            refs,
            metrics,
            clock,
            cores,
        )
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="deployments")
        self._arrays = arrays_of(tuple(ref.job for ref in refs))
        self._progress_deadline_s = PROGRESS_DEADLINE * self._arrays.cold_start_s / clock.scale
        self._drop = np.zeros(len(refs))
        self._scaled_at = np.full(len(refs), -np.inf)
        self._states: list[DeploymentState | None] = [None] * len(refs)
        self._autoscalers: list[dict | None] = [None] * len(refs)  # each job's HPA as last read
        self.seen: list[dict] = [{}] * len(
            refs
        )  # each job's Deployment when it last existed; {} if never
        self._tick_s: float | None = None

    def advance(self, until_s: float) -> None:
        self.clock.wait_until(until_s)
        self._tick_s = until_s

    def observe(self) -> LiveObservation:
        """The Deployments and their load; ApiError if the Deployments cannot be read."""
        self._states, self._autoscalers = self.read(), self.autoscalers()
        # Use the tick's scheduled time, not the current time, because policies plan at fixed times.
        now_s = self.clock.now_s if self._tick_s is None else self._tick_s
        minute = int(now_s // MINUTE_S)
        clock, queries = self.clock, [ref.queries for ref in self.refs]
        ends = np.array(
            [
                clock.wall_s(MINUTE_S * (n + 1))
                for n in range(max(0, minute - HISTORY_MINUTES), minute)
            ]
        )
        load = self._metrics.observe(queries, ends, clock.wall_s(now_s), clock.minute_s)
        present = np.array([state is not None for state in self._states])
        states = [state or ABSENT for state in self._states]
        target, ready = (
            np.array([state.target for state in states]),
            np.array([state.ready for state in states]),
        )
        recently = time.monotonic() - self._scaled_at < self._progress_deadline_s
        return LiveObservation(
            now_s=now_s,
            capacity=self.cores,
            minute=minute,
            running=np.minimum(ready, target),
            starting=np.maximum(target - ready, 0),
            target=target,
            terminating=np.maximum(ready - target, 0),
            changing=np.array([not state.settled for state in states]) & recently,
            drop=self._drop.copy(),
            present=None if present.all() else present,
            **load,
        )

    def apply(self, target: np.ndarray, drop: np.ndarray, may_act: MayAct = lambda: True) -> None:
        """Scale the jobs in parallel. Raises ApiError with the first error and the number of other errors.

        `may_act` is checked before each job. Scaling a job with an HPA is an error. `drop` is only kept for `observe`.
        """
        self._drop = np.array(drop, float)
        current = np.array(
            [state.target if state else wanted for state, wanted in zip(self._states, target)]
        )
        errors = scale_jobs(
            [ref.name for ref in self.refs],
            np.asarray(target),
            current,
            self._arrays.cores,
            self.cores,
            scale=lambda job, replicas: self._scale(job, replicas, may_act),
            each=self._threads.map,
        )
        if errors:
            raise ApiError(0, summary(errors))

    def writer_of(self, job: int) -> str | None:
        """The field manager, other than Faro, that last wrote the job's replica count; None if there is none."""
        return last_writer(self.objects()[job], "f:replicas")

    def read(self) -> list[DeploymentState | None]:
        """The state of each job's Deployment; None if it does not exist."""
        return [
            DeploymentState.of(deployment) if deployment else None for deployment in self.objects()
        ]

    def objects(self) -> list[dict | None]:
        """Each job's Deployment as an API object; None if it does not exist."""
        deployments = listed(self._api, self.refs, "/apis/apps/v1", "deployments")
        found = {place_of(one, one["metadata"]["name"]): one for one in deployments}
        self.seen = [found.get(str(ref), before) for ref, before in zip(self.refs, self.seen)]
        return [found.get(str(ref)) for ref in self.refs]

    def autoscalers(self) -> list[dict | None]:
        """The HorizontalPodAutoscaler of each Deployment as an API object; None if it has none."""
        targets = [
            (one, one["spec"]["scaleTargetRef"])
            for one in listed(self._api, self.refs, *AUTOSCALERS)
        ]
        found = {
            place_of(one, target["name"]): one
            for one, target in targets
            if target["kind"] == "Deployment"
        }
        return [found.get(str(ref)) for ref in self.refs]

    def _scale(self, job: int, replicas: int, may_act: MayAct) -> None:
        """Scale one job, but only if its replica count is unchanged since the observation.

        Without this check, a controller that was suspended while another took over could undo the other's decisions. Raises
        ApiError, with status 409 if another client has scaled the job.
        """
        if not may_act():
            raise ApiError(0, NOT_LEADER)
        if autoscaler := self._autoscalers[job]:
            name = autoscaler["metadata"]["name"]
            raise ApiError(
                409,
                f"HorizontalPodAutoscaler {name!r} scales it too; Faro waits until it is deleted",
            )
        ref, state = (
            self.refs[job],
            self._states[job] or ABSENT,
        )  # mypy cannot know that the state is never None here
        path = f"/apis/apps/v1/namespaces/{ref.namespace}/deployments/{ref.name}/scale"
        version = state.version
        for _ in range(SCALE_ATTEMPTS):
            body = {"metadata": {"resourceVersion": version}, "spec": {"replicas": replicas}}
            try:
                scaled = self._api.send("PATCH", path, body, kind=MERGE, fieldManager=MANAGER)
            except ApiError as error:
                if error.status != 409:
                    raise
                current = self._api.get(path)
                theirs = current["spec"].get("replicas", 0)
                if theirs not in (state.target, replicas):
                    raise ApiError(409, f"another client has scaled it to {theirs}") from None
                version = current["metadata"]["resourceVersion"]
                continue
            self._scaled_at[job] = time.monotonic()
            version = scaled["metadata"]["resourceVersion"]
            self._states[job] = replace(state, version=version, target=replicas, settled=False)
            return
        raise ApiError(409, "it changes faster than it can be scaled")


def listed(api: Api, refs: Sequence[DeploymentRef], group: str, plural: str) -> list[dict]:
    """All objects of a kind in the Deployments' namespaces, with one call per namespace."""
    paths = (
        f"{group}/namespaces/{namespace}/{plural}"
        for namespace in sorted({ref.namespace for ref in refs})
    )
    return [one for path in paths for one in api.get(path)["items"]]


def last_writer(item: Mapping | None, field: str) -> str | None:
    """The field manager, other than Faro, that last wrote a spec field, such as "f:replicas"; None if there is none."""
    fields = (item or {}).get("metadata", {}).get("managedFields", [])
    writes = (one for one in fields if field in one.get("fieldsV1", {}).get("f:spec", {}))
    others = [
        (one.get("time", ""), one["manager"]) for one in writes if one.get("manager") != MANAGER
    ]
    return max(others)[1] if others else None


def place_of(item: Mapping, name: str) -> str:
    """The text "namespace/name", with the namespace of `item`; `str(DeploymentRef)` has the same format."""
    return f"{item['metadata']['namespace']}/{name}"


def shape_of(refs: Sequence[DeploymentRef], deployments: list[dict]) -> Shape:
    """What the replicas of these Deployments require of a node.

    A job's `cores` may exceed its pod template's request, because admission webhooks may add containers. ValueError
    if `cores` is below that request, if jobs differ in `resource` or nodeSelector, or if pods require a nodeAffinity.
    """
    per_core: dict[str, float] = {}
    jobs, resource = [ref.job for ref in refs], refs[0].resource
    if any(ref.resource != resource for ref in refs):
        problem = f"differs ({', '.join(sorted({ref.resource for ref in refs}))})"
        raise ValueError(
            f"deployments: deployment.resource {problem}; jobs that share capacity share one resource"
        )
    specs = [deployment["spec"]["template"]["spec"] for deployment in deployments]
    for job, spec in zip(jobs, specs):
        requests = requests_of({"spec": spec})
        if (asked := requests.get(resource, 0.0)) > job.cores + EPSILON:
            problem = f"is less than the {asked:g} {resource} that its pods request"
            raise ValueError(f"job {job.name!r}: cores={job.cores:g} {problem}")
        for name, value in (requests | {resource: job.cores}).items():
            per_core[name] = max(per_core.get(name, 0.0), value / job.cores)
    affinities = (spec.get("affinity", {}).get("nodeAffinity", {}) for spec in specs)
    if any("requiredDuringSchedulingIgnoredDuringExecution" in one for one in affinities):
        raise ValueError(
            "deployments: a required nodeAffinity is not read; choose the nodes by nodeSelector"
        )
    quantum = (
        float(np.gcd.reduce([round(job.cores * 10) for job in jobs])) / 10
    )  # cores are multiples of 0.1
    tolerated = [spec.get("tolerations", []) for spec in specs]
    tolerations = [one for one in tolerated[0] if all(one in others for others in tolerated)]
    selector = dict(specs[0].get("nodeSelector", {}))
    if any(spec.get("nodeSelector", {}) != selector for spec in specs):
        raise ValueError(
            "deployments: their nodeSelectors differ; jobs share capacity only on the same nodes"
        )
    return Shape(per_core, quantum, tuple(tolerations), selector)
