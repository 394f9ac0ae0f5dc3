"""The RayService that KubeRay makes a Ray cluster from: one application a job, scaled from outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import yaml

from faro_lib.kube.capacity import CORES
from faro_lib.rayserve.deploy import configuration
from faro_lib.rayserve.spec import ServeSpec
from faro_lib.workload import Job

DASHBOARD, SERVING = 8265, 8000
SECRET, SECRET_KEY = "faro-ray-token", "auth_token"
# The replica of notes: HAProxy in C before the replicas, no telemetry, measurements at normal priority.
ENVIRONMENT = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": "/tmp/haproxy/haproxy.cfg",
    "RAY_SERVE_HAPROXY_SOCKET_PATH": "/tmp/haproxy/admin.sock",
    "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": "/tmp/haproxy",
    "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": "/tmp/haproxy/server-state",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True, slots=True)
class Workers:
    """The Ray workers whose cores the replicas share.

    Attributes
    ----------
    count : pods; fixed, for Faro divides what there is.
    cores, memory_gib : of each.
    cpu : what each requests of its node; None: its cores. Less is right where replicas mostly wait.
    """

    count: int = 2
    cores: int = 4
    memory_gib: float = 8.0
    cpu: float | None = None

    def __post_init__(self):
        for field in ("count", "cores"):
            value = getattr(self, field)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"workers: {field}={value!r} must be a whole number >= 1")
        if not self.memory_gib > 0:
            raise ValueError(f"workers: memory_gib={self.memory_gib!r} must be > 0")
        if self.cpu is not None and not 0 < self.cpu <= self.cores:
            raise ValueError(f"workers: cpu={self.cpu!r} must be > 0 and at most its cores={self.cores}")

    @property
    def total(self) -> int:
        return self.count * self.cores

    @property
    def requested(self) -> float:
        """Processors that all of them request."""
        return self.count * (self.cores if self.cpu is None else self.cpu)


HEAD = {"cpu": "2", "memory": "4Gi"}  # HAProxy's core and that of Ray
# KubeRay's own probe of a worker waits for a proxy, which only the head has here: a worker is ready when its raylet is.
AGENT = 52365
PROBE = {"httpGet": {"path": "/api/local_raylet_healthz", "port": AGENT}, "periodSeconds": 5, "timeoutSeconds": 5}
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "runAsGroup": 1000,
    "fsGroup": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def rayservice(
    name: str,
    namespace: str,
    jobs: tuple[Job, ...],
    served: tuple[ServeSpec, ...],
    initial: Sequence[int],
    workers: Workers,
    image: str,
    ray_version: str,
) -> dict:
    """The object. The token is KubeRay's to hand out, from a Secret that no manifest contains.

    Requests enter at the head's service, where HAProxy spreads them over the replicas.
    The count of workers does not change, and KubeRay submits the configuration anew only when it changes or the cluster
    does: then counts are as in here until the controller's next tick.
    """
    applications = {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "0.0.0.0", "port": SERVING},
        "applications": configuration(jobs, served, initial),
    }
    memory = f"{workers.memory_gib:g}Gi"
    worker = _pod("ray-worker", image, {"cpu": str(workers.cores), "memory": memory}, {"serve": SERVING})
    if workers.cpu is not None:
        worker["spec"]["containers"][0]["resources"]["requests"] = {"cpu": f"{workers.cpu:g}", "memory": memory}
        worker["metadata"]["labels"] = worker["metadata"]["labels"] | {CORES: str(workers.cores)}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/part-of": "faro"}},
        "spec": {
            "serveConfigV2": yaml.safe_dump(applications, sort_keys=False),
            "rayClusterConfig": {
                "rayVersion": ray_version,
                "authOptions": {"mode": "token", "secretName": SECRET},
                "headGroupSpec": {
                    "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},
                    "template": _pod("ray-head", image, HEAD, {"gcs": 6379, "dashboard": DASHBOARD, "serve": SERVING}),
                },
                "workerGroupSpecs": [
                    {
                        "groupName": "replicas",
                        "replicas": workers.count,
                        "minReplicas": workers.count,
                        "maxReplicas": workers.count,
                        "rayStartParams": {"num-cpus": str(workers.cores)},
                        "template": worker,
                    }
                ],
            },
        },
    }


def _pod(container: str, image: str, resources: dict[str, str], ports: dict[str, int]) -> dict:
    return {
        "metadata": {"labels": {"app.kubernetes.io/part-of": "faro"}},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": POD_SECURITY,
            "containers": [
                {
                    "name": container,
                    "image": image,
                    "env": [{"name": key, "value": value} for key, value in ENVIRONMENT.items()],
                    "ports": [{"name": key, "containerPort": port, "protocol": "TCP"} for key, port in ports.items()],
                    "readinessProbe": PROBE | {"failureThreshold": 3},
                    "livenessProbe": PROBE | {"initialDelaySeconds": 60, "failureThreshold": 24},
                    "resources": {"requests": resources, "limits": resources},
                    "securityContext": RESTRICTED,
                    "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                }
            ],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }
