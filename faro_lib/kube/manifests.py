"""`faro manifests`: everything that a cluster needs to run Faro, as a folder for kustomize. It contains no Secret."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from faro_lib.http import check_address
from faro_lib.kube import preflight, rayservice
from faro_lib.kube.dashboard import dashboard
from faro_lib.kube.deployments import DeploymentRef
from faro_lib.rayserve.spec import ServeSpec
from faro_lib.workload import Job

NAME = "faro-controller"
LABELS = {"app.kubernetes.io/name": NAME, "app.kubernetes.io/part-of": "faro"}
METRICS_PORT = 9400
BACKENDS = ("rayserve", "deployments")
APPLY_FIRST = ("namespace.yaml", "crd.yaml")  # the Secret is created in the namespace, a FaroPlan needs the CRD
WORKERS = rayservice.Workers()
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # of DNS, RFC 1123


@dataclass(frozen=True, slots=True)
class ManifestSpec:
    """What the manifests depend on.

    Attributes
    ----------
    jobs_text : the jobs' table as the user wrote it, for the ConfigMap.
    served, initial, workers, ray_version : for the backend rayserve; `initial` are the first replica counts.
    addresses, prometheus : for the backend deployments; the address of the server that the queries go to.
    act : whether the controller applies its plans, or only prints them.
    monitor : whether to add a ServiceMonitor.
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
    served: tuple[ServeSpec, ...] = ()
    addresses: tuple[DeploymentRef, ...] = ()
    initial: Sequence[int] = ()
    workers: rayservice.Workers = WORKERS
    prometheus: str = ""
    monitor: bool = False

    def __post_init__(self):
        if self.backend not in BACKENDS:
            raise ValueError(f"backend={self.backend!r} is unknown; accepted: {', '.join(BACKENDS)}")
        for key in ("namespace", "name"):
            if not LABEL.fullmatch(value := getattr(self, key)):
                raise ValueError(f"{key}={value!r} is no name in Kubernetes: lower case, digits and -, up to 63")
        if not 0 < self.tick_s < math.inf:
            raise ValueError(f"tick_s={self.tick_s!r} must be a number > 0")
        if self.backend == "deployments":
            if not self.prometheus:
                raise ValueError("backend=deployments needs prometheus, the address that the jobs' queries go to")
            check_address(self.prometheus, "prometheus")
        need, workers = sum(max(1, job.min_replicas) * job.cores for job in self.jobs), self.workers
        if self.backend == "rayserve" and need > workers.total:
            have = f"workers: {workers.count} x {workers.cores} cores"
            raise ValueError(f"{have} cannot hold the minimum of {len(self.jobs)} jobs, {need:g} cores")


def texts(spec: ManifestSpec) -> dict[str, str]:
    """File name -> YAML text."""
    files = [*APPLY_FIRST, "rbac.yaml", "config.yaml", "controller.yaml", "network.yaml", "dashboard.yaml"]
    if spec.backend == "rayserve":
        files += ["rayservice.yaml", "quota.yaml"]
    if spec.monitor:
        files += ["monitor.yaml"]
    return {name: text(spec, name, resources=files) for name in [*files, "kustomization.yaml"]}


def text(spec: ManifestSpec, file: str, resources: Sequence[str] = ()) -> str:
    """One file."""
    if file == "rayservice.yaml":
        made_from = (spec.name, spec.namespace, spec.jobs, spec.served, spec.initial, spec.workers)
        return rayservice.rayservice_yaml(*made_from, spec.image, spec.ray_version)
    own = preflight.FOR_RAY if spec.backend == "rayserve" else preflight.FOR_DEPLOYMENTS
    elsewhere = {ref.namespace for ref in spec.addresses} - {spec.namespace}
    return rayservice.render(
        file,
        spec=spec,
        rayserve=spec.backend == "rayserve",
        controller=NAME,
        labels=json.dumps(LABELS),
        roles={spec.namespace: (*preflight.ALWAYS, *own), **dict.fromkeys(sorted(elsewhere), own)},
        cluster_wide=preflight.CLUSTER_WIDE,
        arguments=arguments(spec),
        metrics=METRICS_PORT,
        dashboard=dashboard(),
        dashboard_port=rayservice.DASHBOARD,
        serving_port=rayservice.SERVING,
        secret=rayservice.SECRET,
        secret_key=rayservice.SECRET_KEY,
        resources=list(resources),
    )


def rbac(spec: ManifestSpec) -> list[dict[str, Any]]:
    """The controller's ServiceAccount with its roles and their bindings."""
    return list(yaml.safe_load_all(text(spec, "rbac.yaml")))


def write(spec: ManifestSpec, folder: str | Path) -> list[Path]:
    """Write the files; apply `APPLY_FIRST` and wait until the server knows them, then the rest."""
    files = texts(spec)
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (Path(folder) / name).write_text(content)
    return [Path(folder) / name for name in files]


def arguments(spec: ManifestSpec) -> list[str]:
    """The arguments of `faro` in the controller's container."""
    options = {
        "--backend": spec.backend,
        "--jobs": "/etc/faro/jobs.yaml",
        "--policy": spec.policy,
        "--tick": f"{spec.tick_s:g}",
        "--plan": f"{spec.namespace}/{spec.name}",
        "--metrics-address": "0.0.0.0",
        "--metrics-port": str(METRICS_PORT),
    }
    if spec.backend == "rayserve":
        head = f"http://{spec.name}-head-svc.{spec.namespace}.svc"
        options |= {"--address": f"{head}:{rayservice.DASHBOARD}", "--serve-address": f"{head}:{rayservice.SERVING}"}
    else:
        options["--prometheus"] = spec.prometheus
    return ["run", *(["--apply"] if spec.act else []), *(word for option in options.items() for word in option)]
