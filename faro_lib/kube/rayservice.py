"""The RayService, from which KubeRay makes a Ray cluster, and the rendering of manifest templates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from faro_lib.kube.capacity import CORES
from faro_lib.rayserve.deploy import configuration
from faro_lib.rayserve.local import haproxy_files
from faro_lib.rayserve.spec import ServeSpec
from faro_lib.workload import Job

DASHBOARD, SERVING = 8265, 8000
SECRET, SECRET_KEY = "faro-ray-token", "auth_token"
TEMPLATES = Path(__file__).parent / "templates"
# HAProxy (in C) in front of the replicas, no telemetry, and replicas at normal priority.
ENVIRONMENT = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    **haproxy_files(Path("/tmp/haproxy")),
    "OMP_NUM_THREADS": "1",
}
HEAD = {"cpu": "2", "memory": "4Gi"}  # a core for HAProxy and one for Ray
RUNTIME_PROFILE = {"seccompProfile": {"type": "RuntimeDefault"}}
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
} | RUNTIME_PROFILE
POD_SECURITY = {"runAsNonRoot": True, "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000} | RUNTIME_PROFILE


def render(template: str, **values: Any) -> str:
    """A template of this package as YAML text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    options: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    environment = Environment(loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, **options)
    return environment.get_template(template).render(restricted=RESTRICTED, pod_security=POD_SECURITY, **values)


@dataclass(frozen=True, slots=True)
class Workers:
    """The Ray workers, whose cores the replicas share.

    Attributes
    ----------
    count : pods; fixed.
    cores, memory_gib : of each pod.
    cpu : CPUs that each pod requests of its node; None means its cores. Less suits replicas that mostly wait.
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
        """Cores of all workers."""
        return self.count * self.cores

    @property
    def requested(self) -> float:
        """CPUs that all workers request."""
        return self.count * (self.cores if self.cpu is None else self.cpu)


def rayservice(*args: Any) -> dict[str, Any]:
    """The RayService as an object; the arguments are those of `rayservice_yaml`."""
    return yaml.safe_load(rayservice_yaml(*args))


def rayservice_yaml(
    name: str,
    namespace: str,
    jobs: tuple[Job, ...],
    specs: tuple[ServeSpec, ...],
    initial: Sequence[int],
    workers: Workers,
    image: str,
    ray_version: str,
) -> str:
    """The RayService as YAML text, with one application for each job and `initial` replicas."""
    serve_config = {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "0.0.0.0", "port": SERVING},
        "applications": configuration(jobs, specs, initial),
    }
    limits = {"cpu": str(workers.cores), "memory": f"{workers.memory_gib:g}Gi"}
    return render(
        "rayservice.yaml",
        name=name,
        namespace=namespace,
        workers=workers,
        image=image,
        ray_version=ray_version,
        serve_config=yaml.safe_dump(serve_config, sort_keys=False),
        limits=limits,
        requests=limits if workers.cpu is None else limits | {"cpu": f"{workers.cpu:g}"},
        cores="" if workers.cpu is None else str(workers.cores),
        cores_label=CORES,
        environment=ENVIRONMENT,
        head=HEAD,
        secret=SECRET,
        dashboard_port=DASHBOARD,
        serving_port=SERVING,
    )
