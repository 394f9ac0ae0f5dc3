"""How many cores of a cluster the jobs may use (its capacity), as pure functions of API objects.

If the jobs are Deployments, each node that accepts replicas contributes its allocatable cores,
minus the requests of pods that are not replicas. It contributes fewer cores if its memory, GPUs or
pod limit would run out first. Each core is assumed to need as much of a resource as the most
demanding job needs per core. A node's cores are rounded down to a multiple of `Shape.quantum`.
A ResourceQuota may limit the sum. On Ray, the ready workers contribute their cores.

What runs counts. A node that is cordoned, silent, tainted or too small for another replica still
contributes the cores of the replicas that run there. A quota never limits the sum to less than the
replicas use. A Ray worker that runs but is not ready counts as far as the jobs use it already.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from faro_ops.operate.kube.client import amount

EPSILON = 1e-6  # cores; tolerance for rounding errors
FINISHED = ("Succeeded", "Failed")
CORES = "autoscaling.faro/cores"  # label of a Ray worker pod: the cores that it offers to replicas
OUR_SCOPES = {"NotTerminating", "NotBestEffort"}
REPELLING = ("NoSchedule", "NoExecute")


@dataclass(frozen=True, slots=True)
class Shape:
    """What replicas require of a node."""

    # Resource -> amount that the most demanding job needs per core.
    # "pods" -> 1 / (cores of the smallest replica).
    per_core: Mapping[str, float] = field(default_factory=lambda: {"cpu": 1.0})
    quantum: float = 0.1  # cores; the cores of every replica are a multiple of it
    tolerations: tuple[dict, ...] = ()  # tolerations of the pods
    selector: Mapping[str, str] = field(default_factory=dict)  # nodeSelector of the pods


@dataclass(frozen=True, slots=True)
class Capacity:
    """The cores that the jobs may use."""

    cores: float
    by_node: Mapping[str, float]  # node that accepts replicas or has some -> cores
    unusable: Mapping[str, str]  # node -> reason why it accepts no replica
    # What limits the capacity: "nodes", "workers", or "quota NAME" for the tightest quota.
    bound: str = "nodes"
    # Free cores (nodes,) in the order of `by_node`, and replicas (jobs, nodes); None with Ray.
    free_cores: np.ndarray | None = None
    placed: np.ndarray | None = None
    # Cores of Ray workers that run but are not ready. They count for replicas that the jobs have
    # already, but not for more.
    unready: float = 0.0
    # Index of a job -> why Faro cannot scale it. The pods of such a job count as other pods.
    problems: Mapping[int, str] = field(default_factory=dict)
    age_s: float = 0.0  # seconds since the API server last confirmed the objects
    outage: str = ""  # the last error of the API server; "" if it answers


# --- Deployments ----------------------------------------------------------------------------------


def capacity(
    nodes: Iterable[dict],
    pods: Iterable[dict],
    quotas: Iterable[dict],
    namespace: str,
    ours: Callable[[dict], float],
    shape: Shape = Shape(),
) -> Capacity:
    """The cores that the jobs may use: at least those that their pods use already.

    A pod that is being deleted uses none on a node that accepts no replicas, because it does not
    come back there.

    nodes, pods, quotas : Node, Pod and ResourceQuota objects; the pods are of all namespaces.
    namespace : the jobs' namespace; only its quotas count.
    ours : returns the cores of a pod that is a replica of a job, and 0 for any other pod.
    """
    # Resource -> amount that pods other than replicas request.
    on_node: dict[str, dict[str, float]] = {}  # by node
    in_namespace: dict[str, float] = {}
    running: dict[str, float] = {}  # node, or "" if none yet -> cores of our replicas
    for pod in pods:
        if _is_finished(pod):
            continue
        node_name = pod["spec"].get("nodeName", "")
        cores = float(ours(pod))
        if cores:
            if not pod["metadata"].get("deletionTimestamp"):
                running[node_name] = running.get(node_name, 0.0) + cores
            continue
        requests = requests_of(pod)
        if node_name:
            on_node[node_name] = _sum(on_node.get(node_name, {}), requests)
        if pod["metadata"].get("namespace") == namespace:
            in_namespace = _sum(in_namespace, requests)

    by_node: dict[str, float] = {}
    unusable: dict[str, str] = {}
    for node in nodes:
        name = node["metadata"]["name"]
        room = 0.0
        reason = refuses(node, shape)
        if reason:
            unusable[name] = reason
        else:
            allocatable = node.get("status", {}).get("allocatable", {})
            room = _room(allocatable, on_node.get(name, {}), shape)
        if name in running or not reason:
            by_node[name] = max(room, running.get(name, 0.0))

    cores = sum(by_node.values())
    used = sum(running.values())  # a quota counts pods without a node, too
    bound = "nodes"
    for quota in quotas:
        if quota["metadata"].get("namespace") != namespace or not applies(quota):
            continue
        left = max(_left_in(quota, in_namespace, shape), used)
        if left < cores - EPSILON:
            cores = left
            bound = f"quota {quota['metadata']['name']}"
    return Capacity(round(cores, 6), by_node, unusable, bound)


def refuses(node: dict, shape: Shape) -> str | None:
    """The reason why a node accepts no replicas; None if it accepts replicas.

    >>> refuses({"spec": {"unschedulable": True}, "status": {}}, Shape())
    'cordoned'
    """
    spec = node.get("spec", {})
    if spec.get("unschedulable"):
        return "cordoned"
    if not has_ready_condition(node):
        return "not ready"
    for taint in spec.get("taints", []):
        if taint["effect"] not in REPELLING:
            continue
        if not any(tolerates(toleration, taint) for toleration in shape.tolerations):
            return f"taint {taint['key']}"
    offered = node["status"].get("allocatable", {})
    for name, need in shape.per_core.items():
        if need > 0 and name not in offered and not name.startswith("limits."):
            return f"offers no {name}"
    labels = node["metadata"].get("labels", {})
    for name, value in shape.selector.items():
        if labels.get(name) != value:
            return f"label {name} is not {value}"
    return None


def tolerates(toleration: dict, taint: dict) -> bool:
    """Whether a toleration matches a taint.

    An empty effect matches all effects, and the operator Exists without a key matches all keys.
    """
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    key = toleration.get("key")
    if toleration.get("operator", "Equal") == "Exists":
        return key in (None, "", taint["key"])
    return key == taint["key"] and toleration.get("value", "") == taint.get("value", "")


def applies(quota: dict) -> bool:
    """Whether a ResourceQuota, by its scopes, applies to replicas.

    Replicas are long-running pods (NotTerminating) with resource requests (NotBestEffort) and no
    priority class.
    """
    spec = quota.get("spec", {})
    selected = (spec.get("scopeSelector") or {}).get("matchExpressions", [])
    lacking = ("DoesNotExist", "NotIn")  # these operators select pods without a priority class
    needed = (one["scopeName"] for one in selected if one.get("operator") not in lacking)
    return {*spec.get("scopes", []), *needed} <= OUR_SCOPES


def _left_in(quota: dict, taken: Mapping[str, float], shape: Shape) -> float:
    """Cores that a ResourceQuota leaves besides `taken`; inf if it limits no needed resource."""
    left = math.inf
    # One by one, because a quota may limit a resource by two names, such as cpu and requests.cpu.
    for name, limit in quota.get("spec", {}).get("hard", {}).items():
        resource = name.removeprefix("requests.").removeprefix("count/")
        left = min(left, _room({resource: limit}, taken, shape))
    return left


def _room(limits: Mapping[str, str], taken: Mapping[str, float], shape: Shape) -> float:
    """Cores that `limits` - `taken` allow, in multiples of `shape.quantum`.

    inf if `limits` has no needed resource.
    """
    left = [
        (amount(limits[name]) - taken.get(name, 0.0)) / need
        for name, need in shape.per_core.items()
        if need > 0 and name in limits
    ]
    cores = max(0.0, min(left, default=math.inf))
    if math.isinf(cores):
        return cores
    return math.floor((cores + EPSILON) / shape.quantum) * shape.quantum


def placement(
    pods: Iterable[dict],
    job_of: Callable[[dict], int | None],
    cores: Sequence[float],
    by_node: Mapping[str, float],
    full: Collection[str] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """Free cores (nodes,) and replicas (jobs, nodes) of the nodes in `by_node`.

    A terminating pod still uses its cores, but is no replica.

    job_of : returns the index of the job to which a pod belongs, or None.
    cores : cores per replica of each job.
    by_node : cores of each node, including the cores that replicas use.
    full : nodes that accept no further replica, even after one has ended; their free cores are
        -inf.
    """
    nodes = {name: i for i, name in enumerate(by_node)}
    free = np.array(list(by_node.values()), float)  # (nodes,)
    placed = np.zeros((len(cores), len(nodes)), int)  # (jobs, nodes)
    for pod in pods:
        job = job_of(pod)
        node = nodes.get(pod["spec"].get("nodeName", ""))
        if job is None or node is None or _is_finished(pod):
            continue
        free[node] -= cores[job]
        if not pod["metadata"].get("deletionTimestamp"):
            placed[job, node] += 1
    free[[nodes[name] for name in full if name in nodes]] = -math.inf
    return free, placed


# --- Ray ------------------------------------------------------------------------------------------


def cores_of_workers(pods: Iterable[dict], nodes: Iterable[dict]) -> Capacity:
    """The capacity of a Ray cluster: the cores of its ready workers on ready nodes.

    The cores of other workers that run count as `unready`.
    """
    lost = {
        node["metadata"]["name"]: "not ready" for node in nodes if not has_ready_condition(node)
    }
    by_node: dict[str, float] = {}
    unready = 0.0
    for pod in pods:
        node = pod["spec"].get("nodeName", "")
        if is_ready(pod) and node not in lost:
            by_node[node] = by_node.get(node, 0.0) + cores_of(pod)
        elif is_running(pod):
            unready += cores_of(pod)
    cores = round(sum(by_node.values()), 6)
    return Capacity(cores, by_node, lost, "workers", unready=round(unready, 6))


def cores_of(worker: dict) -> float:
    """Cores that a Ray worker pod offers to replicas: its label CORES or else its CPU request.

    >>> cores_of({"metadata": {"labels": {"autoscaling.faro/cores": "4"}}, "spec": {}})
    4.0
    """
    label = worker["metadata"].get("labels", {}).get(CORES)
    return amount(label) if label else requests_of(worker).get("cpu", 0.0)


# --- pods and nodes -------------------------------------------------------------------------------


def has_ready_condition(item: dict) -> bool:
    """Whether the condition Ready of a node or pod is true."""
    conditions = item.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def is_ready(pod: dict) -> bool:
    """Whether a pod serves: it is ready and not being deleted."""
    return has_ready_condition(pod) and not pod["metadata"].get("deletionTimestamp")


def is_running(pod: dict) -> bool:
    """Whether a pod's containers run, ready or not, and it is not being deleted."""
    phase = pod.get("status", {}).get("phase")
    return phase == "Running" and not pod["metadata"].get("deletionTimestamp")


def _is_finished(pod: dict) -> bool:
    return pod.get("status", {}).get("phase") in FINISHED


def requests_of(pod: dict) -> dict[str, float]:
    """The amount of each resource that a pod reserves.

    Computed like PodRequests in k8s.io/component-helpers, which the scheduler uses. Init containers
    run one by one, each with the sidecars before it. Then all containers and sidecars run together.
    A pod reserves the largest sum of requests in any step, or its pod-level request if it has one,
    plus its overhead. Keys "limits.NAME" hold the limits.
    """
    spec = pod["spec"]
    sidecars: dict[str, float] = {}
    starting: dict[str, float] = {}  # the largest sum of a step with an init container
    for container in spec.get("initContainers", []):
        step = _sum(sidecars, _requests(container))
        starting = _max(starting, step)
        if container.get("restartPolicy") == "Always":  # a sidecar, which runs as long as the pod
            sidecars = step
    running = _sum({"pods": 1.0}, sidecars, *map(_requests, spec.get("containers", [])))
    total = _max(running, starting)

    # A pod-level limit without a request counts only if the containers do not use the resource.
    requested = spec.get("resources", {}).get("requests", {})
    for name, value in _requests(spec).items():
        if name in requested or name not in total or name.startswith("limits."):
            total[name] = value

    overhead = {name: amount(value) for name, value in spec.get("overhead", {}).items()}
    return _sum(total, overhead)


def _requests(container: dict) -> dict[str, float]:
    """Map each resource to its request or, without a request, to its limit.

    Keys "limits.NAME" hold the limits.
    """
    resources = container.get("resources", {})
    limits = resources.get("limits", {})
    named = {
        **limits,
        **resources.get("requests", {}),
        **{f"limits.{name}": limits[name] for name in limits},
    }
    return {name: amount(value) for name, value in named.items()}


def _sum(*parts: Mapping[str, float]) -> dict[str, float]:
    total: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total.get(name, 0.0) + value
    return total


def _max(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    names = [*one, *other]
    return {name: max(one.get(name, 0.0), other.get(name, 0.0)) for name in names}
