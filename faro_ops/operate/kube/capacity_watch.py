"""The current capacity, from local copies (informers) of nodes, pods, quotas and the RayService.

The trouble of one job does not raise: `Capacity.problems` names the job, and its pods count as
other pods.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Self

from faro_ops.operate.kube.capacity import Capacity, Shape, capacity, cores_of_workers, placement
from faro_ops.operate.kube.client import Api
from faro_ops.operate.kube.informer import Informer
from faro_ops.operate.kube.rayservice import CLUSTER, serving_cluster

WORKERS = "ray.io/node-type=worker"


class CapacityWatch(ABC):
    """Computes the cores that the jobs may use from informers, which follow the API server."""

    def __init__(self, *informers: Informer):
        self._informers = informers

    def start(self, timeout_s: float = 30.0) -> Self:
        for informer in self._informers:
            informer.start()
        for informer in self._informers:
            informer.wait(timeout_s)
        return self

    def stop(self) -> None:
        for informer in self._informers:
            informer.stop()

    @property
    def copies(self) -> tuple[Informer, ...]:
        """The informers, which a watch of other jobs may share."""
        return tuple(self._informers)

    def pending(self) -> dict[int, int] | None:
        """Index of a job -> its pods that wait for a node or an image, if any; None with Ray."""
        return None

    def current(self) -> Capacity:
        """The capacity by the informers' copies, and the age of the oldest copy."""
        oldest = max(self._informers, key=lambda informer: informer.age_s)
        outage = f"{oldest.path}: {oldest.error}" if oldest.error else f"{oldest.path}: no event"
        return replace(self.measured(), age_s=oldest.age_s, outage=outage)

    @abstractmethod
    def measured(self) -> Capacity: ...


class NodeCapacity(CapacityWatch):
    """The capacity for Deployments: the cores that other pods and quotas leave on the nodes.

    namespace : the jobs' namespace.
    selectors : returns the labels that select each job's pods, {} if the job has none yet.
    cores : cores per replica of each job.
    shape : for the nodes, returns what replicas require of a node, and the problem of each job
        whose pods are not among these replicas (index of the job -> why Faro cannot scale it).

    Both functions are called every time, because a Deployment may change.

    before : a watch of former settings; in the same namespace, this one shares its copies.
    """

    def __init__(
        self,
        api: Api,
        namespace: str,
        selectors: Callable[[], Sequence[Mapping[str, str]]],
        cores: Sequence[float],
        shape: Callable[[list[dict]], tuple[Shape, Mapping[int, str]]],
        before: CapacityWatch | None = None,
    ):
        self._namespace: str = namespace
        self.shares = isinstance(before, NodeCapacity) and before._namespace == namespace
        if before is not None and self.shares:
            super().__init__(*before.copies)
        else:
            super().__init__(
                Informer(api, "/api/v1/nodes", small_node),
                Informer(api, "/api/v1/pods", small_pod),
                Informer(api, f"/api/v1/namespaces/{namespace}/resourcequotas"),
            )
        self._selectors = selectors
        self._cores = cores
        self._shape = shape

    def measured(self) -> Capacity:
        nodes, pods, quotas = (informer.items() for informer in self._informers)
        shape, problems = self._shape(nodes)
        owner = self._owner()

        def job_of(pod: dict) -> int | None:
            """Index of the job of which a pod is a replica; None if it counts as another pod."""
            job = owner(pod)
            return None if job in problems else job

        def cores_of_replica(pod: dict) -> float:
            job = job_of(pod)
            return 0.0 if job is None else self._cores[job]

        now = capacity(nodes, pods, quotas, self._namespace, cores_of_replica, shape)
        full = now.by_node.keys() & now.unusable.keys()
        free_cores, placed = placement(pods, job_of, self._cores, now.by_node, full)
        return replace(now, free_cores=free_cores, placed=placed, problems=problems)

    def _owner(self) -> Callable[[dict], int | None]:
        """A function that returns the index of the job to which a pod belongs, or None."""
        selectors = self._selectors()

        def owner(pod: dict) -> int | None:
            if pod["metadata"].get("namespace") != self._namespace:
                return None
            return job_by_labels(pod["metadata"].get("labels", {}), selectors)

        return owner

    def pending(self) -> dict[int, int] | None:
        owner = self._owner()
        _, pods, _ = self._informers
        waiting = [pod for pod in pods.items() if pod.get("status", {}).get("phase") == "Pending"]
        jobs = [job for pod in waiting if (job := owner(pod)) is not None]
        return dict(Counter(jobs))


def job_by_labels(labels: Mapping[str, str], selectors: Sequence[Mapping[str, str]]) -> int | None:
    """Index of the first job whose selector matches a pod's labels; None if none does.

    An empty selector matches no pod.

    >>> job_by_labels({"app": "b"}, [{}, {"app": "a"}, {"app": "b"}])
    2
    """
    for job, selector in enumerate(selectors):
        if selector and selector.items() <= labels.items():
            return job
    return None


class RayCapacity(CapacityWatch):
    """The capacity for a RayService: the cores of the ready workers in its serving RayCluster."""

    def __init__(self, api: Api, namespace: str, name: str):
        services = f"/apis/ray.io/v1/namespaces/{namespace}/rayservices"
        super().__init__(
            Informer(api, "/api/v1/nodes", small_node),
            Informer(api, f"/api/v1/namespaces/{namespace}/pods", small_pod, labelSelector=WORKERS),
            Informer(api, services, fieldSelector=f"metadata.name={name}"),
        )
        self._cluster = ""  # the RayCluster that served last

    def measured(self) -> Capacity:
        nodes, workers, services = (informer.items() for informer in self._informers)
        for service in services:  # at most one; while the RayService is recreated, there is none
            self._cluster = serving_cluster(service) or self._cluster
        serving = [
            pod
            for pod in workers
            if pod["metadata"].get("labels", {}).get(CLUSTER) == self._cluster
        ]
        return cores_of_workers(serving, nodes)


def small_pod(pod: dict) -> dict:
    """The pod, reduced to the fields that determine the capacity."""
    spec = _pick(pod["spec"], "nodeName", "overhead", "resources", "containers", "initContainers")
    for name in ("containers", "initContainers"):
        if name in spec:
            spec[name] = [_pick(one, "resources", "restartPolicy") for one in spec[name]]
    return {
        "metadata": _pick(pod["metadata"], "namespace", "name", "labels", "deletionTimestamp"),
        "spec": spec,
        "status": _pick(pod.get("status", {}), "phase", "conditions"),
    }


def small_node(node: dict) -> dict:
    """The node, reduced to the fields that determine the capacity."""
    return {
        "metadata": _pick(node["metadata"], "name", "labels"),
        "spec": _pick(node.get("spec", {}), "unschedulable", "taints"),
        "status": _pick(node.get("status", {}), "allocatable", "conditions"),
    }


def _pick(mapping: dict, *names: str) -> dict:
    return {name: mapping[name] for name in names if name in mapping}
