"""The current capacity, from local copies (informers) of nodes, pods, quotas and the RayService."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Self

from faro_ops.kube.capacity import Capacity, Shape, capacity, cores_of_workers, placement
from faro_ops.kube.client import Api
from faro_ops.kube.informer import Informer
from faro_ops.kube.rayservice import CLUSTER, serving_cluster

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

    @abstractmethod
    def current(self) -> Capacity: ...


class NodeCapacity(CapacityWatch):
    """The capacity for Deployments: the cores that other pods and quotas leave on the nodes.

    namespace : the jobs' namespace.
    selectors : labels that select each job's pods.
    cores : cores per replica of each job.
    shape : returns what replicas require of a node. `current` calls it every time, because a
        rollout may change pods.
    """

    def __init__(
        self,
        api: Api,
        namespace: str,
        selectors: Sequence[Mapping[str, str]],
        cores: Sequence[float],
        shape: Callable[[], Shape],
    ):
        super().__init__(
            Informer(api, "/api/v1/nodes", small_node),
            Informer(api, "/api/v1/pods", small_pod),
            Informer(api, f"/api/v1/namespaces/{namespace}/resourcequotas"),
        )
        self._namespace = namespace
        self._selectors = selectors
        self._cores = cores
        self._shape = shape

    def current(self) -> Capacity:
        nodes, pods, quotas = (informer.items() for informer in self._informers)
        now = capacity(nodes, pods, quotas, self._namespace, self.is_replica, self._shape())
        free_cores, placed = placement(pods, self.job_of, self._cores, now.by_node)
        return replace(now, free_cores=free_cores, placed=placed)

    def is_replica(self, pod: dict) -> bool:
        return self.job_of(pod) is not None

    def job_of(self, pod: dict) -> int | None:
        """Index of the job to which a pod belongs; None if it is no replica of a job."""
        if pod["metadata"].get("namespace") != self._namespace:
            return None
        labels = pod["metadata"].get("labels", {})
        for job, selector in enumerate(self._selectors):
            if selector.items() <= labels.items():
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

    def current(self) -> Capacity:
        nodes, workers, services = (informer.items() for informer in self._informers)
        for service in services:  # at most one; while the RayService is recreated, there is none
            self._cluster = serving_cluster(service) or self._cluster
        serving = [
            pod for pod in workers if pod["metadata"]["labels"].get(CLUSTER) == self._cluster
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
