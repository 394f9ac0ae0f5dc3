"""The state of a RayService as KubeRay reports it. Pure functions of Kubernetes API objects."""

from collections.abc import Iterable

CLUSTER = "ray.io/cluster"  # pod label whose value is the name of the pod's RayCluster


def serving_cluster(service: dict, status: str = "activeServiceStatus") -> str:
    """The name of the RayCluster that serves the applications; "" if there is none.

    With `status="pendingServiceStatus"`, return the name of the RayCluster that KubeRay prepares
    during an upgrade.
    """
    return service.get("status", {}).get(status, {}).get("rayClusterName", "")


def why_not_ready(service: dict, pods: Iterable[dict]) -> str | None:
    """The reason why a RayService is not ready; None if it is ready.

    pods : pods of its namespace. If a Ray pod cannot start, the reason names that pod.
    """
    conditions = {one["type"]: one for one in service.get("status", {}).get("conditions", [])}
    ready = conditions.get("Ready", {})
    if ready.get("status") == "True":
        return None
    clusters = {serving_cluster(service), serving_cluster(service, "pendingServiceStatus")}
    for pod in pods:
        if pod["metadata"].get("labels", {}).get(CLUSTER) not in clusters:
            continue
        reason = why_not_started(pod)
        if reason:
            return f"pod {pod['metadata']['name']} does not start: {reason}"
    return ready.get("message") or "its Ray cluster does not serve yet"


def why_not_started(pod: dict) -> str | None:
    """The scheduler's or the kubelet's reason why a Pending pod does not start, or None.

    >>> message = "0/3 nodes are available: 3 Insufficient cpu."
    >>> condition = {"type": "PodScheduled", "status": "False", "message": message}
    >>> why_not_started({"status": {"phase": "Pending", "conditions": [condition]}})
    '0/3 nodes are available: 3 Insufficient cpu.'
    """
    status = pod.get("status", {})
    if status.get("phase") != "Pending":
        return None
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return condition.get("message") or condition.get("reason")
    for container in status.get("containerStatuses", []):
        waiting = container.get("state", {}).get("waiting", {})
        if waiting.get("message"):
            return f"{waiting.get('reason', 'waiting')}: {waiting['message']}"
    return None
