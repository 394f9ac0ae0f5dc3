"""Objects of the Kubernetes API as the tests of `kube` need them."""

from __future__ import annotations

from typing import Any

import numpy as np
import yaml

from faro_ops.operate.kube.manifests import ManifestSpec, render

Kind = tuple[str, str]  # API group and version, plural

PLURALS: dict[str, Kind] = {
    "Namespace": ("/api/v1", "namespaces"),
    "Node": ("/api/v1", "nodes"),
    "Pod": ("/api/v1", "pods"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "Service": ("/api/v1", "services"),
    "ServiceAccount": ("/api/v1", "serviceaccounts"),
    "ResourceQuota": ("/api/v1", "resourcequotas"),
    "Secret": ("/api/v1", "secrets"),
    "Deployment": ("/apis/apps/v1", "deployments"),
    "HorizontalPodAutoscaler": ("/apis/autoscaling/v2", "horizontalpodautoscalers"),
    "Lease": ("/apis/coordination.k8s.io/v1", "leases"),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
    "Role": ("/apis/rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    "ClusterRole": ("/apis/rbac.authorization.k8s.io/v1", "clusterroles"),
    "ClusterRoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "clusterrolebindings"),
    "CustomResourceDefinition": ("/apis/apiextensions.k8s.io/v1", "customresourcedefinitions"),
    "FaroPlan": ("/apis/autoscaling.faro/v1alpha1", "faroplans"),
    "RayService": ("/apis/ray.io/v1", "rayservices"),
}
NAMESPACE, NODE, POD = PLURALS["Namespace"], PLURALS["Node"], PLURALS["Pod"]
QUOTA, CONFIGMAP = PLURALS["ResourceQuota"], PLURALS["ConfigMap"]
DEPLOYMENT, HPA = PLURALS["Deployment"], PLURALS["HorizontalPodAutoscaler"]
LEASE, FAROPLAN, RAYSERVICE = PLURALS["Lease"], PLURALS["FaroPlan"], PLURALS["RayService"]


def object_path(kind: Kind, name: str = "", namespace: str = "jobs") -> str:
    """The path of an object, or of all objects of a kind in a namespace ("": in the cluster)."""
    base, plural = kind
    parts = [base, f"namespaces/{namespace}" if namespace else "", plural, name]
    return "/".join(filter(None, parts))


def objects(spec: ManifestSpec, template: str) -> list[dict]:
    """The Kubernetes objects in one manifest."""
    return list(yaml.safe_load_all(render(spec, template)))


def node(name="n1", cpu="8", memory="32Gi", pods="110", ready=True, **spec):
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": spec,
        "status": {
            "allocatable": {"cpu": cpu, "memory": memory, "pods": pods},
            "conditions": [{"type": "Ready", "status": "True" if ready else "Unknown"}],
        },
    }


def pod(
    name,
    cpu="1",
    on="n1",
    namespace="jobs",
    phase="Running",
    labels=None,
    ready=True,
    memory=None,
    **spec,
):
    requests = {"cpu": cpu} | ({"memory": memory} if memory else {})
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {}},
        "spec": {
            "containers": [{"name": "c", "resources": {"requests": requests}}],
            **({"nodeName": on} if on else {}),
            **spec,
        },
        "status": {
            "phase": phase,
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


def deployment(name: str, replicas: int = 2, template: dict | None = None, **status: Any) -> dict:
    """A Deployment of one-core pods in the namespace of the jobs."""
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": name}},
        "template": template or pod("template", "1"),
    }
    return {"metadata": {"name": name, "namespace": "jobs"}, "spec": spec, "status": status}


def hpa(name: str, low: int = 1, high: int = 4, target: str = "", kind: str = "Deployment") -> dict:
    """The HPA of the Deployment `target`, by default the one of the same name."""
    scaled = {"apiVersion": "apps/v1", "kind": kind, "name": target or name}
    spec = {"scaleTargetRef": scaled, "minReplicas": low, "maxReplicas": high}
    return {"metadata": {"name": name, "namespace": "jobs"}, "spec": spec}


def lease(holder: str, renewed: str = "1", lasts_s: int = 10) -> dict:
    """The lease "faro" in the namespace of the jobs."""
    spec = {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": lasts_s}
    return {"metadata": {"name": "faro", "namespace": "jobs"}, "spec": spec}


def measured(arrivals_per_min, others):
    """The answer of `DeploymentMetrics.observe`.

    It has these counts per minute, and `others` (jobs,) for every other field.
    """
    fields = ("arrivals_now", "mean_latency_s", "tail_latency_s", "ongoing")
    return {"arrivals_per_min": np.array(arrivals_per_min)} | dict.fromkeys(
        fields, np.array(others)
    )


class Measured:
    """In place of DeploymentMetrics: what every job that has a query is measured to have.

    counts : requests per minute, of all jobs or (jobs,).
    asked : the ends of minutes and the time of the last question.
    """

    def __init__(self, counts: Any = 60.0, latency_s: float = 0.1):
        self.counts, self.latency_s = counts, latency_s
        self.asked: tuple = ()

    def observe(self, queries, ends, now_s, minute_s=60.0):
        self.asked = ends, now_s
        known = np.array([1.0 if one.requests else np.nan for one in queries])
        counts = known * self.counts
        return measured(np.repeat(counts[:, None], len(ends), 1), known * self.latency_s)


def replica(name, **more):
    return pod(name, labels={"role": "replica"}, **more)


def is_replica(thing) -> bool:
    return thing["metadata"]["labels"].get("role") == "replica"


def quota(namespace="jobs", name="q", **hard):
    hard = {key.replace("_", "."): value for key, value in hard.items()}
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {"hard": hard}}
