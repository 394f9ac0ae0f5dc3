"""The current capacity, from informers on nodes, pods and quotas."""

from __future__ import annotations

from collections.abc import Mapping

from faro_lib.kube.capacity import Capacity, Shape, capacity, cores_of_workers
from faro_lib.kube.client import Api
from faro_lib.kube.informer import Informer


def small_pod(pod: dict) -> dict:
    """The part of a pod that capacity depends on."""
    spec = _pick(pod["spec"], "nodeName", "overhead", "containers", "initContainers")
    for name in ("containers", "initContainers"):
        if name in spec:
            spec[name] = [_pick(container, "resources", "restartPolicy") for container in spec[name]]
    return {
        "metadata": _pick(pod["metadata"], "namespace", "name", "labels", "deletionTimestamp"),
        "spec": spec,
        "status": _pick(pod.get("status", {}), "phase", "conditions"),
    }


def small_node(node: dict) -> dict:
    """The part of a node that capacity depends on."""
    return {
        "metadata": _pick(node["metadata"], "name", "labels"),
        "spec": _pick(node.get("spec", {}), "unschedulable", "taints"),
        "status": _pick(node.get("status", {}), "allocatable", "conditions"),
    }


def _pick(mapping: dict, *names: str) -> dict:
    return {name: mapping[name] for name in names if name in mapping}


class ClusterCapacity:
    """The capacity of a cluster.

    namespace : of the jobs.
    ours : label selectors of the jobs' pods; a pod is ours if all labels of one selector match.
    shape : what replicas require; None if the pods are Ray workers, whose cores the replicas share.
    """

    def __init__(self, api: Api, namespace: str, ours: tuple[Mapping[str, str], ...], shape: Shape | None):
        self._namespace, self._ours, self._shape = namespace, ours, shape
        self._informers = (
            Informer(api, "/api/v1/nodes", small_node),
            Informer(api, "/api/v1/pods", small_pod),
            Informer(api, f"/api/v1/namespaces/{namespace}/resourcequotas"),
        )

    def start(self, timeout_s: float = 30.0) -> ClusterCapacity:
        for informer in self._informers:
            informer.start()
        for informer in self._informers:
            informer.wait(timeout_s)
        return self

    def stop(self) -> None:
        for informer in self._informers:
            informer.stop()

    def is_ours(self, pod: dict) -> bool:
        labels = pod["metadata"].get("labels", {})
        return pod["metadata"].get("namespace") == self._namespace and any(
            selector.items() <= labels.items() for selector in self._ours
        )

    def current(self) -> Capacity:
        nodes, pods, quotas = (informer.items() for informer in self._informers)
        if self._shape is None:
            return cores_of_workers(filter(self.is_ours, pods), nodes)
        return capacity(nodes, pods, quotas, self._namespace, self.is_ours, self._shape)
