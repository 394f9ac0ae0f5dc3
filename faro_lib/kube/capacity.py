"""Capacity: the cores that the cluster can really give to the jobs. Pure functions of the API's objects.

On every node that may take a replica: what is allocatable less what pods of others ask for, in whole replicas; of all
nodes together no more than the namespace's quotas leave. Memory, GPUs and places for pods count too: a resource is worth
as many cores as the hungriest job needs for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from faro_lib.kube.client import amount

EPSILON = 1e-6  # cores
FINISHED = ("Succeeded", "Failed")
CORES = "autoscaling.faro/cores"  # label of a Ray worker whose replicas share another number of cores than it requests
OUR_SCOPES = {"NotTerminating", "NotBestEffort"}
REPELLING = ("NoSchedule", "NoExecute")


@dataclass(frozen=True, slots=True)
class Shape:
    """What replicas need of a node.

    Attributes
    ----------
    per_core : resource -> amount for each core, of the job that needs most of it; "pods" is one over the smallest replica.
    quantum : cores; replicas come in multiples of it.
    tolerations, selector : of the pods, as their spec has them.
    """

    per_core: Mapping[str, float] = field(default_factory=lambda: {"cpu": 1.0})
    quantum: float = 0.1
    tolerations: tuple[dict, ...] = ()
    selector: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Capacity:
    """Cores for the jobs, and why not more.

    Attributes
    ----------
    cores : what they may use.
    by_node : node -> cores, of the usable ones.
    unusable : node -> why it takes no replica.
    bound : the quota that leaves less than the nodes would, else "nodes".
    """

    cores: float
    by_node: Mapping[str, float]
    unusable: Mapping[str, str]
    bound: str = "nodes"


def capacity(
    nodes: Iterable[dict],
    pods: Iterable[dict],
    quotas: Iterable[dict],
    namespace: str,
    ours: Callable[[dict], bool],
    shape: Shape = Shape(),
) -> Capacity:
    """Cores that the jobs may use, their own pods included.

    Parameters
    ----------
    nodes, pods, quotas : of the whole cluster; quotas of other namespaces do not matter.
    namespace : where the jobs run.
    ours : whether a pod is a job's replica.
    """
    others = [pod for pod in pods if pod.get("status", {}).get("phase") not in FINISHED and not ours(pod)]
    taken: dict[str, dict[str, float]] = {}
    for pod in others:
        if node := pod["spec"].get("nodeName"):
            _add(taken.setdefault(node, {}), requests_of(pod))
    by_node, unusable = {}, {}
    for node in nodes:
        name = node["metadata"]["name"]
        if why := refuses(node, shape):
            unusable[name] = why
        else:
            allocatable = node.get("status", {}).get("allocatable", {})
            by_node[name] = _whole(_room(allocatable, taken.get(name, {}), shape), shape.quantum)
    cores, bound = sum(by_node.values()), "nodes"
    used: dict[str, float] = {}
    for pod in others:
        if pod["metadata"].get("namespace") == namespace:
            _add(used, requests_of(pod))
    for quota in quotas:
        if quota["metadata"].get("namespace") == namespace and concerns(quota):
            hard = quota.get("spec", {}).get("hard", {})
            limits = {name.removeprefix("requests."): value for name, value in hard.items()}
            left = _whole(_room(limits, used, shape), shape.quantum)
            if left < cores - EPSILON:
                cores, bound = left, f"quota {quota['metadata']['name']}"
    return Capacity(round(cores, 6), by_node, unusable, bound)


def concerns(quota: dict) -> bool:
    """Whether a quota counts pods that run until they are stopped, request something and have no priority class."""
    spec = quota.get("spec", {})
    selected = (spec.get("scopeSelector") or {}).get("matchExpressions", [])
    return {*spec.get("scopes", []), *(one["scopeName"] for one in selected)} <= OUR_SCOPES


def cores_of_workers(pods: Iterable[dict], nodes: Iterable[dict]) -> Capacity:
    """Cores of those pods that are ready, on nodes that are not lost: what Ray's workers have for replicas."""
    lost = {node["metadata"]["name"]: why for node in nodes if (why := unready(node))}
    by_node: dict[str, float] = {}
    for pod in pods:
        if is_ready(pod):
            node = pod["spec"].get("nodeName", "")
            if node not in lost:
                by_node[node] = by_node.get(node, 0.0) + cores_of(pod)
    return Capacity(round(sum(by_node.values()), 6), by_node, lost, "workers")


def cores_of(worker: dict) -> float:
    """What a Ray worker has for replicas: what its label says, else what the pod requests.

    >>> cores_of({"metadata": {"labels": {"autoscaling.faro/cores": "4"}}, "spec": {}})
    4.0
    """
    said = worker["metadata"].get("labels", {}).get(CORES)
    return amount(said) if said else requests_of(worker).get("cpu", 0.0)


def refuses(node: dict, shape: Shape) -> str | None:
    """Why a node takes no replica; None if it does.

    >>> refuses({"spec": {"unschedulable": True}, "status": {}}, Shape())
    'cordoned'
    """
    spec = node.get("spec", {})
    if spec.get("unschedulable"):
        return "cordoned"
    if why := unready(node):
        return why
    for taint in spec.get("taints", []):
        if taint["effect"] in REPELLING and not any(tolerates(one, taint) for one in shape.tolerations):
            return f"taint {taint['key']}"
    labels = node["metadata"].get("labels", {})
    for name, value in shape.selector.items():
        if labels.get(name) != value:
            return f"label {name} is not {value}"
    return None


def unready(node: dict) -> str | None:
    conditions = node.get("status", {}).get("conditions", [])
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    return None if ready else "not ready"


def tolerates(toleration: dict, taint: dict) -> bool:
    """Whether a toleration covers a taint, as the scheduler has it: no effect covers all, no key with Exists covers all."""
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    return toleration.get("key") == taint["key"] and toleration.get("value", "") == taint.get("value", "")


def is_ready(pod: dict) -> bool:
    """Whether it serves: Ready, and not on its way out."""
    conditions = pod.get("status", {}).get("conditions", [])
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    return ready and not pod["metadata"].get("deletionTimestamp")


def requests_of(pod: dict) -> dict[str, float]:
    """What the scheduler reserves for a pod: its containers and sidecars together, or its largest init container."""
    spec = pod["spec"]
    total: dict[str, float] = {"pods": 1.0}
    for container in spec.get("containers", []):
        _add(total, _requests(container))
    first: dict[str, float] = {}
    for container in spec.get("initContainers", []):
        if container.get("restartPolicy") == "Always":  # a sidecar stays
            _add(total, _requests(container))
        else:
            for name, value in _requests(container).items():
                first[name] = max(first.get(name, 0.0), value)
    total = {name: max(total.get(name, 0.0), first.get(name, 0.0)) for name in total | first}
    _add(total, {name: amount(value) for name, value in spec.get("overhead", {}).items()})
    return total


def _requests(container: dict) -> dict[str, float]:
    """What a container asks for, and under `limits.` what it may take at most, which quotas count on its own."""
    asked = container.get("resources", {})
    limits = asked.get("limits", {})
    named = {**limits, **asked.get("requests", {}), **{f"limits.{name}": value for name, value in limits.items()}}
    return {name: amount(value) for name, value in named.items()}


def _add(total: dict[str, float], more: Mapping[str, float]) -> None:
    for name, value in more.items():
        total[name] = total.get(name, 0.0) + value


def _room(limits: Mapping[str, str], taken: Mapping[str, float], shape: Shape) -> float:
    """Cores' worth of replicas within these limits; what is not limited does not bind."""
    left = [
        (amount(limits[name]) - taken.get(name, 0.0)) / need
        for name, need in shape.per_core.items()
        if need > 0 and name in limits
    ]
    return max(0.0, min(left, default=math.inf))


def _whole(cores: float, quantum: float) -> float:
    return cores if math.isinf(cores) else math.floor((cores + EPSILON) / quantum) * quantum
