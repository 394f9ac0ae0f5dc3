"""A cluster governed by Kubernetes: its capacity follows nodes, pods and quotas, and only the leader acts on it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from faro_lib.kube.capacity import Capacity, Shape, capacity, cores_of_workers
from faro_lib.kube.client import Api
from faro_lib.kube.informer import Informer
from faro_lib.kube.lease import NOBODY, Leadership
from faro_lib.policies.protocol import Cluster, Observation

LOG = logging.getLogger(__name__)
POD_FIELDS = ("nodeName", "containers", "initContainers", "overhead")


class LostLease(SystemExit):
    """Another controller may act now; this one ends, and whoever started it starts it anew."""


def small_pod(pod: dict) -> dict:
    """What capacity needs of a pod."""
    meta, spec, status = pod["metadata"], pod["spec"], pod.get("status", {})
    kept = ("namespace", "name", "labels", "deletionTimestamp")
    return {
        "metadata": {name: meta[name] for name in kept if name in meta},
        "spec": {
            name: [{"resources": c.get("resources", {}), "restartPolicy": c.get("restartPolicy")} for c in spec[name]]
            if name.endswith("ontainers")
            else spec[name]
            for name in POD_FIELDS
            if name in spec
        },
        "status": {"phase": status.get("phase"), "conditions": status.get("conditions", [])},
    }


def small_node(node: dict) -> dict:
    """What capacity needs of a node."""
    meta, spec, status = node["metadata"], node.get("spec", {}), node.get("status", {})
    return {
        "metadata": {"name": meta["name"], "labels": meta.get("labels", {})},
        "spec": {name: spec[name] for name in ("unschedulable", "taints") if name in spec},
        "status": {name: status.get(name) or type_() for name, type_ in (("allocatable", dict), ("conditions", list))},
    }


class ClusterCapacity:
    """The capacity as it is now, from watches on nodes, pods and quotas.

    Parameters
    ----------
    namespace : where the jobs run.
    ours : labels by which a job's pods are known: each a mapping that all must match.
    shape : what replicas need; None where the pods with those labels are workers whose cores replicas share (Ray's).
    """

    def __init__(self, api: Api, namespace: str, ours: tuple[Mapping[str, str], ...], shape: Shape | None):
        self._namespace, self._ours, self._shape = namespace, ours, shape
        self.changed = threading.Event()
        self.nodes = Informer(api, "/api/v1/nodes", small_node, self.changed.set)
        self.pods = Informer(api, "/api/v1/pods", small_pod, self.changed.set)
        self.quotas = Informer(api, f"/api/v1/namespaces/{namespace}/resourcequotas", changed=self.changed.set)

    def start(self, timeout_s: float = 30.0) -> ClusterCapacity:
        for one in (self.nodes, self.pods, self.quotas):
            one.start()
        for one in (self.nodes, self.pods, self.quotas):
            one.wait(timeout_s)
        return self

    def stop(self) -> None:
        for one in (self.nodes, self.pods, self.quotas):
            one.stop()

    def silent_s(self) -> float:
        """For how long nothing has been heard; the capacity is as old as that."""
        return max(one.silent_s() for one in (self.nodes, self.pods, self.quotas))

    def is_ours(self, pod: dict) -> bool:
        labels = pod["metadata"].get("labels", {})
        return pod["metadata"].get("namespace") == self._namespace and any(
            all(labels.get(name) == value for name, value in wanted.items()) for wanted in self._ours
        )

    def __call__(self) -> Capacity:
        if self._shape is None:
            mine = [pod for pod in self.pods.items() if self.is_ours(pod)]
            return cores_of_workers(mine, self.nodes.items())
        nodes, pods, quotas = (one.items() for one in (self.nodes, self.pods, self.quotas))
        return capacity(nodes, pods, quotas, self._namespace, self.is_ours, self._shape)


class LeaderGatedCluster:
    """`Cluster` that is `inner` with the capacity that Kubernetes has, and acts only while it leads.

    Parameters
    ----------
    capacity : cores as of now; None keeps those of `inner`.
    leadership : None where there is but one controller.
    act_s : how long one call of an `apply` may take; without as much time left on the lease none is begun. `inner` asks
        `may_act` before each.
    """

    def __init__(
        self,
        inner: Cluster,
        capacity: Callable[[], Capacity] | None = None,
        leadership: Leadership | None = None,
        act_s: float = 2.0,
    ):
        self.inner, self._capacity, self._leadership, self._act_s = inner, capacity, leadership, act_s
        self.last: Capacity | None = None
        if leadership is not None:  # asked again before each of many calls: the lease may end among them
            inner.may_act = lambda: leadership.is_leader(act_s)  # type: ignore[attr-defined]

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def observe(self) -> Observation:
        seen = self.inner.observe()
        if self._capacity is None:
            return seen
        now = self._capacity()
        if self.last is None or abs(now.cores - self.last.cores) > 1e-6:
            unusable = "".join(f"; {node}: {why}" for node, why in now.unusable.items())
            LOG.info("capacity is %g cores, bound by %s%s", now.cores, now.bound, unusable)
        self.last = now
        return replace(seen, capacity=now.cores)

    def apply(self, target: np.ndarray, drop: np.ndarray) -> None:
        """Does nothing while nobody is known to lead: then the server is not reached, and nobody can take over either.

        Raises
        ------
        LostLease : another controller leads.
        """
        lease = self._leadership
        if lease is None or lease.is_leader(self._act_s):
            self.inner.apply(target, drop)
        elif lease.holder not in ("", NOBODY, lease.candidate.identity):
            raise LostLease(f"lease {lease.name} is held by {lease.holder}")
        else:
            LOG.warning("lease %s could not be renewed; everything stays as it is", lease.name)

    def advance(self, until_s: float) -> None:
        self.inner.advance(until_s)
