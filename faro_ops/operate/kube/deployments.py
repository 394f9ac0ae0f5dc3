"""The protocol `Cluster` for jobs that are Deployments, whose pods may run any model server."""

import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from pydantic import Field

from faro_lib.protocol import HISTORY_MINUTES
from faro_lib.workload import Job
from faro_lib.workload.jobs import MINUTE_S, arrays_of
from faro_ops.operate.clock import Clock
from faro_ops.operate.kube.client import MANAGER, MERGE, Api, ApiError
from faro_ops.operate.kube.conflicts import CONFLICT, after_conflicts
from faro_ops.operate.kube.deployment_metrics import DeploymentMetrics, Queries
from faro_ops.operate.kube.vllm import with_vllm
from faro_ops.operate.scaling import NOT_LEADER, MayAct, NotScaled, scale_jobs, summary
from faro_ops.protocol import LiveObservation
from faro_ops.section import Section, parsed

# A job counts as `changing` for at most this many cold start times after it was scaled.
PROGRESS_DEADLINE = 3.0
# Annotation with the number of the pod template, which the Deployment controller writes.
REVISION = "deployment.kubernetes.io/revision"
AUTOSCALERS = "/apis/autoscaling/v2", "horizontalpodautoscalers"  # API group and plural of HPAs
THREADS = 16


class DeploymentSection(Section, strict=True):
    """The section `deployment` of a job in the jobs' table."""

    queries: dict[str, Any] = Field(description="PromQL for requests and latency_mean_s")
    namespace: str | None = None
    name: str | None = None  # of the Deployment; by default, the job's name
    autoscaler: str | None = None  # by default, the name of the Deployment
    resource: str = "cpu"


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
        """Parse a job's section `deployment`; `namespace` applies if the section names none.

        ValueError for a bad section.
        """
        given = parsed(DeploymentSection, section, f"job {job.name!r}", "deployment")
        weight = getattr(job.replica, "per_token_weight", 0.0)
        queries = Queries.of(job.name, with_vllm(job, given.queries), weight)
        namespace = given.namespace or namespace
        if namespace.startswith("kube-"):
            problem = "belongs to Kubernetes itself; Faro scales no Deployment there"
            raise ValueError(f"job {job.name!r}: deployment.namespace={namespace!r} {problem}")
        name = given.name or job.name
        return cls(job, namespace, name, queries, given.autoscaler or name, given.resource)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class DeploymentState:
    """A Deployment as last read."""

    version: str  # its resourceVersion
    target: int  # requested replicas
    ready: int  # replicas that are ready
    settled: bool  # whether all requested replicas are ready and no others exist
    # A number that changes when a roll-out begins and when it ends; 0 = unknown.
    revision: int = 0

    @classmethod
    def of(cls, deployment: Mapping) -> Self:
        metadata = deployment["metadata"]
        status = deployment.get("status", {})
        target = deployment["spec"].get("replicas", 1)
        ready = status.get("readyReplicas", 0)
        # Until the Deployment controller has seen the latest change, the status is an older one.
        observed = status.get("observedGeneration", 0) >= metadata.get("generation", 0)
        settled = observed and ready == target == status.get("replicas", 0)
        revision = template_revision(deployment)
        return cls(metadata["resourceVersion"], target, ready, settled, revision)


def template_revision(deployment: Mapping) -> int:
    """A number that changes when a roll-out of a Deployment begins and when it ends.

    Scaling does not change it. 0 if Kubernetes has not numbered the pod template yet.
    """
    metadata, status = deployment["metadata"], deployment.get("status", {})
    template = (metadata.get("annotations") or {}).get(REVISION)
    if template is None:
        return 0
    complete = status.get("updatedReplicas", 0) == status.get("replicas", 0)
    return zlib.crc32(f"{metadata.get('uid')} {template} {complete}".encode()) or 1


ABSENT = DeploymentState("", 0, 0, True)


class Deployments:
    """Observes and scales the jobs' Deployments.

    Only a proxy can drop requests, at the rates in the FaroPlan's status.

    clock : the run's clock. Observations contain no minutes before its time 0.
    cores : cores that the jobs may use; 0 if a `LeaderGatedCluster` wraps this object and measures
        the capacity.
    """

    def __init__(
        self,
        api: Api,
        refs: list[DeploymentRef],
        metrics: DeploymentMetrics,
        clock: Clock,
        cores: float = 0.0,
    ):
        self._api = api
        self.refs = refs
        self._metrics = metrics
        self.clock = clock
        self.cores = cores
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="deployments")
        self._arrays = arrays_of(tuple(ref.job for ref in refs))
        self._progress_deadline_s = PROGRESS_DEADLINE * self._arrays.cold_start_s / clock.scale
        self._drop = np.zeros(len(refs))  # (jobs,) drop rates of the last plan
        self._scaled_at = np.full(len(refs), -np.inf)  # (jobs,) on the monotonic clock
        # Each job's Deployment and HPA as last read; None if there is none.
        self._states: list[DeploymentState | None] = [None] * len(refs)
        self._autoscalers: list[dict | None] = [None] * len(refs)
        # Each job's Deployment when it last existed; {} if never.
        self.seen: list[dict] = [{}] * len(refs)
        # Returns what is wrong with single jobs, by what was read last (job_checks.py).
        self.checks: Callable[[], Sequence[Any]] = tuple
        self.forbidden: set[int] = set()  # jobs whose scaling the server has refused (403)
        self._tick_s: float | None = None  # scheduled time of the current tick

    @property
    def states(self) -> list[DeploymentState | None]:
        """Each job's Deployment as last read; None if it did not exist."""
        return self._states

    @property
    def hpas(self) -> list[dict | None]:
        """Each job's HPA as last read; None if there was none."""
        return self._autoscalers

    def advance(self, until_s: float) -> None:
        self.clock.wait_until(until_s)
        self._tick_s = until_s

    def refresh(self) -> None:
        """Read the Deployments and their HPAs; ApiError if that fails."""
        self._states = self.read()
        self._autoscalers = self.autoscalers()

    def follow(self, before: "Deployments") -> None:
        """Continue for the same jobs what an earlier set-up has done: drop rates and cold starts.

        before : the cluster of the former settings, which may have other jobs.
        """
        known = {ref.job.name: n for n, ref in enumerate(before.refs)}
        for n, ref in enumerate(self.refs):
            old = known.get(ref.job.name)
            if old is not None and str(ref) == str(before.refs[old]):
                self._drop[n] = before._drop[old]
                self._scaled_at[n] = before._scaled_at[old]
                self.seen[n] = self.seen[n] or before.seen[old]

    def observe(self) -> LiveObservation:
        """The Deployments and their load; ApiError if the Deployments cannot be read."""
        self.refresh()
        # Use the tick's scheduled time, not the current time, because policies plan at fixed times.
        now_s = self.clock.now_s if self._tick_s is None else self._tick_s
        minute = int(now_s // MINUTE_S)
        clock = self.clock
        past_minutes = range(max(0, minute - HISTORY_MINUTES), minute)
        ends_s = np.array([clock.wall_s(MINUTE_S * (n + 1)) for n in past_minutes])
        queries = [ref.queries for ref in self.refs]
        load = self._metrics.observe(queries, ends_s, clock.wall_s(now_s), clock.minute_s)

        # Arrays (jobs,)
        present = np.array([state is not None for state in self._states])
        states = [state or ABSENT for state in self._states]
        target = np.array([state.target for state in states])
        ready = np.array([state.ready for state in states])
        settled = np.array([state.settled for state in states])
        recently_scaled = time.monotonic() - self._scaled_at < self._progress_deadline_s
        return LiveObservation(
            now_s=now_s,
            capacity=self.cores,
            minute=minute,
            running=np.minimum(ready, target),
            starting=np.maximum(target - ready, 0),
            target=target,
            terminating=np.maximum(ready - target, 0),
            changing=~settled & recently_scaled,
            drop=self._drop.copy(),
            present=None if present.all() else present,
            revision=np.array([state.revision for state in states]),
            **load,
        )

    def apply(self, target: np.ndarray, drop: np.ndarray, may_act: MayAct = lambda: True) -> None:
        """Scale the jobs in parallel.

        `may_act` is checked before each job. Scaling a job with an HPA is an error. `drop` is only
        kept for `observe`. Raises NotScaled with the first error and the number of other errors.
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
            raise NotScaled(summary(errors), np.flatnonzero(current != target))

    def writer_of(self, job: int) -> str | None:
        """The field manager, other than Faro, that last wrote the job's replica count, or None."""
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
        found: dict[str, dict] = {}  # namespace/name of a Deployment -> its HPA
        for autoscaler in listed(self._api, self.refs, *AUTOSCALERS):
            scaled = autoscaler["spec"]["scaleTargetRef"]
            if scaled["kind"] == "Deployment":
                found[place_of(autoscaler, scaled["name"])] = autoscaler
        return [found.get(str(ref)) for ref in self.refs]

    def _scale(self, job: int, replicas: int, may_act: MayAct) -> None:
        """Scale one job, but only if its replica count is unchanged since the observation.

        Without this check, a controller that was suspended while another took over could undo the
        other's decisions. Raises ApiError, with status 409 if another client has scaled the job.
        """
        autoscaler = self._autoscalers[job]
        if autoscaler:
            name = autoscaler["metadata"]["name"]
            problem = "scales it too; Faro waits until it is deleted"
            raise ApiError(CONFLICT, f"HorizontalPodAutoscaler {name!r} {problem}")
        ref = self.refs[job]
        state = self._states[job] or ABSENT  # never None here, which mypy cannot know
        path = f"/apis/apps/v1/namespaces/{ref.namespace}/deployments/{ref.name}/scale"

        def write(version: str) -> str:
            if not may_act():
                raise ApiError(0, NOT_LEADER)
            body = {"metadata": {"resourceVersion": version}, "spec": {"replicas": replicas}}
            try:
                scaled = self._api.send("PATCH", path, body, kind=MERGE, fieldManager=MANAGER)
            except ApiError as error:
                if error.status == 403:
                    self.forbidden.add(job)
                raise
            return scaled["metadata"]["resourceVersion"]

        def read() -> str:
            """The Deployment's version, if its replica count has not changed."""
            current = self._api.get(path)
            theirs = current["spec"].get("replicas", 0)
            if theirs not in (state.target, replicas):
                raise ApiError(CONFLICT, f"another client has scaled it to {theirs}")
            return current["metadata"]["resourceVersion"]

        version = after_conflicts(write, state.version, read, "it can be scaled")
        self._scaled_at[job] = time.monotonic()
        self._states[job] = replace(state, version=version, target=replicas, settled=False)


def listed(api: Api, refs: Sequence[DeploymentRef], group: str, plural: str) -> list[dict]:
    """All objects of a kind in the Deployments' namespaces, with one call per namespace."""
    items: list[dict] = []
    for namespace in sorted({ref.namespace for ref in refs}):
        items += api.get(f"{group}/namespaces/{namespace}/{plural}")["items"]
    return items


def last_writer(item: Mapping | None, field: str) -> str | None:
    """The field manager, other than Faro, that last wrote a field of the spec, or None.

    field : the field's name in managedFields, such as "f:replicas".
    """
    entries = (item or {}).get("metadata", {}).get("managedFields", [])
    others = [
        (entry.get("time", ""), entry["manager"])
        for entry in entries
        if field in entry.get("fieldsV1", {}).get("f:spec", {}) and entry.get("manager") != MANAGER
    ]
    return max(others)[1] if others else None


def place_of(item: Mapping, name: str) -> str:
    """The text "namespace/name", with the namespace of `item`, in the format of a DeploymentRef."""
    return f"{item['metadata']['namespace']}/{name}"
