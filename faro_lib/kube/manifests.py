"""What `faro manifests` writes: all that a cluster needs to run Faro, as one folder for kustomize. No secret is in it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from faro_lib.kube import preflight, rayservice
from faro_lib.kube.dashboard import dashboard
from faro_lib.kube.deployments import Address
from faro_lib.kube.status import API_VERSION, KIND, definition
from faro_lib.live.spec import Served
from faro_lib.workload import Job
from faro_lib.workload.prometheus import check_address

PART = {"app.kubernetes.io/part-of": "faro"}
CONTROLLER = {"app.kubernetes.io/name": "faro-controller", **PART}
NAME = "faro-controller"
METRICS = 9400
JOBS_FILE = "jobs.yaml"
TOKEN_FOLDER = "/var/run/faro"
BACKENDS = ("rayserve", "deployments")
FIRST = ("namespace.yaml", "crd.yaml")  # the Secret lies in the one, a FaroPlan is of the other
WORKERS = rayservice.Workers()
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # of DNS, RFC 1123


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the manifests are made from.

    Attributes
    ----------
    jobs : the promises; served, addresses : how each is served or which Deployment it is, by the backend.
    jobs_text : the table as the user wrote it, for the ConfigMap.
    initial : replicas to begin with (rayserve).
    policy, tick_s : who decides, and how often.
    act : whether plans are carried out; without, the controller only prints them.
    prometheus : address that the queries go to (deployments).
    monitor : whether a ServiceMonitor is wanted.
    """

    jobs: tuple[Job, ...]
    jobs_text: str
    backend: str = "rayserve"
    namespace: str = "faro"
    name: str = "faro"
    image: str = "faro:latest"
    ray_version: str = ""
    policy: str = "Faro-Sum"
    tick_s: float = 60.0
    act: bool = True
    served: tuple[Served, ...] = ()
    addresses: tuple[Address, ...] = ()
    initial: Sequence[int] = ()
    workers: rayservice.Workers = WORKERS
    prometheus: str = ""
    monitor: bool = False

    def __post_init__(self):
        if self.backend not in BACKENDS:
            raise ValueError(f"backend={self.backend!r} is unknown; accepted: {', '.join(BACKENDS)}")
        for key in ("namespace", "name"):
            if not LABEL.fullmatch(getattr(self, key)):
                raise ValueError(
                    f"{key}={getattr(self, key)!r} is no name in Kubernetes: lower case, digits and -, up to 63"
                )
        if not 0 < self.tick_s < math.inf:
            raise ValueError(f"tick_s={self.tick_s!r} must be a number > 0")
        if self.backend == "deployments":
            if not self.prometheus:
                raise ValueError("backend=deployments needs prometheus, the address that the jobs' queries go to")
            check_address(self.prometheus)
        if self.backend == "rayserve":
            need = sum(max(1, job.min_replicas) * job.cores for job in self.jobs)
            if need > self.workers.total:
                raise ValueError(
                    f"workers: {self.workers.count} x {self.workers.cores} cores cannot hold the minimum of "
                    f"{len(self.jobs)} jobs, {need:g} cores"
                )


def manifests(wanted: Wanted) -> dict[str, list[dict]]:
    """File name -> objects."""
    files = {
        "namespace.yaml": [namespace(wanted)],
        "crd.yaml": [definition()],
        "rbac.yaml": rights(wanted),
        "config.yaml": [jobs_map(wanted), plan(wanted)],
        "controller.yaml": [controller(wanted), service(wanted), *budgets(wanted)],
        "network.yaml": networks(wanted),
        "dashboard.yaml": [dashboard_map(wanted)],
    }
    if wanted.backend == "rayserve":
        made = (wanted.name, wanted.namespace, wanted.jobs, wanted.served, wanted.initial, wanted.workers)
        files["rayservice.yaml"] = [rayservice.rayservice(*made, wanted.image, wanted.ray_version)]
        files["quota.yaml"] = [quota(wanted)]
    if wanted.monitor:
        files["monitor.yaml"] = [monitor(wanted)]
    files["kustomization.yaml"] = [
        {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": list(files)}
    ]
    return files


def write(wanted: Wanted, folder: str | Path) -> list[Path]:
    """The files, in the order in which they may be applied; `FIRST` before the rest, and known to the server by then."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    paths = []
    for name, objects in manifests(wanted).items():
        path = Path(folder) / name
        path.write_text(yaml.safe_dump_all(objects, sort_keys=False, width=120))
        paths.append(path)
    return paths


def namespace(wanted: Wanted) -> dict:
    # Where model servers of others run already, to enforce would keep their next pods from starting.
    modes = ("enforce", "warn") if wanted.backend == "rayserve" else ("warn",)
    enforced = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in modes}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": wanted.namespace, "labels": PART | enforced}}


def rights(wanted: Wanted) -> list[dict]:
    """A ServiceAccount that may do what the controller does and nothing else; nodes and pods it may only see."""
    special = preflight.FOR_RAY if wanted.backend == "rayserve" else preflight.FOR_DEPLOYMENTS
    subject = [{"kind": "ServiceAccount", "name": NAME, "namespace": wanted.namespace}]
    cluster = f"{NAME}-{wanted.namespace}"
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _meta(wanted, NAME)}
    elsewhere = sorted({one.namespace for one in wanted.addresses} - {wanted.namespace})
    found = [account]
    for place, rules in [(wanted.namespace, (*preflight.ALWAYS, *special)), *((other, special) for other in elsewhere)]:
        meta = {"name": NAME, "namespace": place, "labels": CONTROLLER}
        found += [
            {"apiVersion": RBAC, "kind": "Role", "metadata": meta, "rules": [_rule(*rule) for rule in rules]},
            _binding("RoleBinding", meta, "Role", NAME, subject),
        ]
    meta = {"name": cluster, "labels": CONTROLLER}
    seen = [_rule(*rule) for rule in preflight.CLUSTER_WIDE]
    return [
        *found,
        {"apiVersion": RBAC, "kind": "ClusterRole", "metadata": meta, "rules": seen},
        _binding("ClusterRoleBinding", meta, "ClusterRole", cluster, subject),
    ]


RBAC = "rbac.authorization.k8s.io/v1"


def _rule(group: str, resource: str, verbs: Sequence[str]) -> dict:
    return {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}


def _binding(kind: str, meta: dict, role_kind: str, role: str, subjects: list[dict]) -> dict:
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role}
    return {"apiVersion": RBAC, "kind": kind, "metadata": meta, "roleRef": reference, "subjects": subjects}


def _meta(wanted: Wanted, name: str, labels: dict | None = None) -> dict:
    return {"name": name, "namespace": wanted.namespace, "labels": CONTROLLER if labels is None else labels}


def jobs_map(wanted: Wanted) -> dict:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _meta(wanted, "faro-jobs", PART),
        "data": {JOBS_FILE: wanted.jobs_text},
    }


def plan(wanted: Wanted) -> dict:
    """The FaroPlan whose status the controller writes."""
    meta = _meta(wanted, wanted.name, PART)
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": meta, "spec": {"policy": wanted.policy}}


def arguments(wanted: Wanted) -> list[str]:
    """Of `faro` in the controller's container."""
    said = {
        "--backend": wanted.backend,
        "--jobs": f"/etc/faro/{JOBS_FILE}",
        "--policy": wanted.policy,
        "--tick": f"{wanted.tick_s:g}",
        "--plan": f"{wanted.namespace}/{wanted.name}",
        "--metrics-address": "0.0.0.0",
        "--metrics-port": str(METRICS),
    }
    if wanted.backend == "rayserve":
        head = f"{wanted.name}-head-svc.{wanted.namespace}.svc"
        said["--address"] = f"http://{head}:{rayservice.DASHBOARD}"
        said["--serve-address"] = f"http://{head}:{rayservice.SERVING}"
    else:
        said["--prometheus"] = wanted.prometheus
    return ["run", *(["--apply"] if wanted.act else []), *(word for pair in said.items() for word in pair)]


def controller(wanted: Wanted) -> dict:
    """Two controllers, of which the holder of the lease acts; each reads its token from a file, so that it may rotate."""
    probe = {"httpGet": {"path": "/healthz", "port": "metrics"}, "periodSeconds": 10, "timeoutSeconds": 5}
    container: dict[str, Any] = {
        "name": "faro",
        "image": wanted.image,
        "command": ["faro"],
        "args": arguments(wanted),
        "env": [{"name": "HOME", "value": "/tmp"}, {"name": "NUMBA_CACHE_DIR", "value": "/tmp/numba"}],
        "ports": [{"name": "metrics", "containerPort": METRICS, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
        "startupProbe": probe | {"failureThreshold": 30},
        "readinessProbe": probe,
        "livenessProbe": probe | {"failureThreshold": 6},
        "securityContext": rayservice.RESTRICTED | {"readOnlyRootFilesystem": True},
        "volumeMounts": [
            {"name": "jobs", "mountPath": "/etc/faro", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    volumes: list[dict] = [{"name": "jobs", "configMap": {"name": "faro-jobs"}}, {"name": "tmp", "emptyDir": {}}]
    if wanted.backend == "rayserve":
        path = f"{TOKEN_FOLDER}/{rayservice.SECRET_KEY}"
        container["env"] += [
            {"name": "RAY_AUTH_MODE", "value": "token"},
            {"name": "RAY_AUTH_TOKEN_PATH", "value": path},
        ]
        container["volumeMounts"].append({"name": "token", "mountPath": TOKEN_FOLDER, "readOnly": True})
        volumes.append({"name": "token", "secret": {"secretName": rayservice.SECRET, "defaultMode": 0o440}})
    apart = {
        "weight": 100,
        "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": CONTROLLER}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _meta(wanted, NAME),
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": CONTROLLER},
            "template": {
                "metadata": {"labels": CONTROLLER},
                "spec": {
                    "serviceAccountName": NAME,
                    "terminationGracePeriodSeconds": 15,
                    "securityContext": rayservice.POD_SECURITY,
                    "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [apart]}},
                    "containers": [container],
                    "volumes": volumes,
                },
            },
        },
    }


def service(wanted: Wanted) -> dict:
    ports = [{"name": "metrics", "port": METRICS, "targetPort": "metrics", "protocol": "TCP"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _meta(wanted, NAME),
        "spec": {"selector": CONTROLLER, "ports": ports},
    }


def budgets(wanted: Wanted) -> list[dict]:
    """At most one controller, and one Ray worker, is evicted at a time.

    A RayCluster has no `scale` for Kubernetes to learn from how many workers there should be: `maxUnavailable` would then
    allow no eviction at all, and no node could be drained.
    """
    named: dict[str, tuple[dict, dict]] = {NAME: (CONTROLLER, {"maxUnavailable": 1})}
    if wanted.backend == "rayserve":
        workers = {"ray.io/node-type": "worker", **PART}
        named[f"{wanted.name}-workers"] = workers, {"minAvailable": wanted.workers.count - 1}
    return [
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": _meta(wanted, name, PART),
            "spec": {**allowed, "selector": {"matchLabels": labels}},
        }
        for name, (labels, allowed) in named.items()
    ]


def quota(wanted: Wanted) -> dict:
    """Room for the workers, the head and two controllers while they are being replaced; more is somebody's mistake."""
    workers, spare = wanted.workers, 2
    hard = {
        "requests.cpu": f"{workers.requested + 2 + spare:g}",
        "requests.memory": f"{workers.count * workers.memory_gib + 4 + spare:g}Gi",
        "pods": str(workers.count + 1 + 2 * spare),
    }
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": _meta(wanted, wanted.name, PART),
        "spec": {"hard": hard},
    }


def networks(wanted: Wanted) -> list[dict]:
    """The dashboard, which can run anything, hears only the controller, KubeRay's operator and its own cluster."""
    metrics = {"ports": [{"port": METRICS, "protocol": "TCP"}]}
    policies = [_policy(wanted, NAME, CONTROLLER, [metrics])]
    if wanted.backend == "rayserve":
        ray = PART | {"ray.io/is-ray-node": "yes"}
        # This label is the one that the operator's chart and its kustomization both set.
        operator = {
            "namespaceSelector": {},
            "podSelector": {"matchLabels": {"app.kubernetes.io/component": "kuberay-operator"}},
        }
        trusted = [{"podSelector": {"matchLabels": CONTROLLER}}, operator]
        asked = [{"port": port, "protocol": "TCP"} for port in (rayservice.DASHBOARD, rayservice.SERVING)]
        served = {"ports": [{"port": rayservice.SERVING, "protocol": "TCP"}]}
        rules: list[dict] = [
            {"from": [{"podSelector": {"matchLabels": ray}}]},
            {"from": trusted, "ports": asked},
            served,
        ]
        policies.append(_policy(wanted, f"{wanted.name}-ray", ray, rules))
    return policies


def _policy(wanted: Wanted, name: str, labels: dict, ingress: list[dict]) -> dict:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _meta(wanted, name, PART),
        "spec": {"podSelector": {"matchLabels": labels}, "policyTypes": ["Ingress"], "ingress": ingress},
    }


def monitor(wanted: Wanted) -> dict:
    endpoint = {"port": "metrics", "interval": "15s"}
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": _meta(wanted, NAME),
        "spec": {"selector": {"matchLabels": CONTROLLER}, "endpoints": [endpoint]},
    }


def dashboard_map(wanted: Wanted) -> dict:
    """The dashboard where Grafana's sidecar looks for it."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _meta(wanted, "faro-dashboard", PART | {"grafana_dashboard": "1"}),
        "data": {"faro.json": dashboard()},
    }
