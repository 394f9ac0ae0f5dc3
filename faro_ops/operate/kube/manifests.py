"""Write a kustomize folder that runs Faro in Kubernetes (`faro manifests`). It has no Secrets."""

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from faro_lib.workload import Job
from faro_lib.workload.jobs import arrays_of
from faro_lib.workload.shares import minimum_replicas
from faro_ops.http import check_address
from faro_ops.operate.kube import preflight
from faro_ops.operate.kube.capacity import CORES
from faro_ops.operate.kube.hpa_bounds import UNLED_S
from faro_ops.operate.kube.lease import POD_NAME, POD_UID
from faro_ops.operate.rayserve.deploy import configuration
from faro_ops.operate.rayserve.spec import ServeSpec

METRICS_PORT = 9400
DASHBOARD_PORT = 8265
SERVING_PORT = 8000
SECRET = "faro-ray-token"
SECRET_KEY = "auth_token"
JOURNAL = "/var/lib/faro/journal"  # in an emptyDir, which outlives containers but not pods
BACKENDS = ("rayserve", "deployments")
# These files stay out of the kustomization. Otherwise `kubectl delete -k` would delete the model
# servers' namespace.
APPLY_FIRST = ("namespace.yaml", "crd.yaml")
HERE = Path(__file__).parent
TEMPLATES = HERE / "templates"
RULES = HERE / "alerts.yml"
# As exported by Grafana, which asks for the data source on import.
DASHBOARD = HERE / "dashboard.json"
IMAGE = re.compile(
    r"([A-Za-z0-9.-]+(:[0-9]+)?/)?"  # HOST[:PORT]/
    r"[a-z0-9]+([._/-]+[a-z0-9]+)*"  # NAME
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?"  # :TAG
    r"(@sha256:[0-9a-f]{64})?"  # @DIGEST
)
DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1123
SECCOMP_PROFILE = {"type": "RuntimeDefault"}
CONSTANTS = {
    "restricted": {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": SECCOMP_PROFILE,
    },
    "pod_security": {
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "runAsGroup": 1000,
        "fsGroup": 1000,
        "seccompProfile": SECCOMP_PROFILE,
    },
    "metrics_port": METRICS_PORT,
    "dashboard_port": DASHBOARD_PORT,
    "serving_port": SERVING_PORT,
    "secret": SECRET,
    "secret_key": SECRET_KEY,
    "cores_label": CORES,
    "unled_s": UNLED_S,
    "pod_name": POD_NAME,
    "pod_uid": POD_UID,
}


@dataclass(frozen=True, slots=True)
class Workers:
    """A fixed number of Ray workers, whose cores the replicas share."""

    count: int = 2
    cores: int = 4
    memory_gib: float = 8.0
    # CPU request per worker; may be below `cores` if replicas use little CPU. None: `cores`.
    cpu: float | None = None

    def __post_init__(self) -> None:
        for field in ("count", "cores"):
            value = getattr(self, field)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"workers: {field}={value!r} must be a whole number >= 1")
        if not self.memory_gib > 0:
            raise ValueError(f"workers: memory_gib={self.memory_gib!r} must be > 0")
        if self.cpu is not None and not 0 < self.cpu <= self.cores:
            limits = f"must be > 0 and at most its cores={self.cores}"
            raise ValueError(f"workers: cpu={self.cpu!r} {limits}")

    @property
    def total(self) -> int:
        """Cores of all workers."""
        return self.count * self.cores


@dataclass(frozen=True, slots=True)
class Head:
    """Resource requests of the Ray head pod. By default, HAProxy and Ray have one core each."""

    cpu: float = 2.0
    memory_gib: float = 4.0

    def __post_init__(self) -> None:
        for field in ("cpu", "memory_gib"):
            value = getattr(self, field)
            if not 0 < value < math.inf:
                raise ValueError(f"head: {field}={value!r} must be a number > 0")


@dataclass(frozen=True, slots=True)
class ManifestSpec:
    """The values that fill the templates of the manifests."""

    jobs: tuple[Job, ...]
    jobs_text: str  # the jobs' table as the user wrote it, for the ConfigMap
    backend: str = "rayserve"
    namespace: str = "faro"
    name: str = "faro"
    image: str = "faro:latest"
    ray_version: str = ""  # backend rayserve only
    policy: str = "Faro-Sum"
    tick_s: float = 10.0
    act: bool = True  # whether the controller applies its plans, or only prints them
    served: tuple[ServeSpec, ...] = ()  # how Ray Serve runs each job; rayserve only
    namespaces: tuple[str, ...] = ()  # namespaces of the Deployments; backend deployments only
    deployments: tuple[str, ...] = ()  # names of the Deployments or, with `ceilings`, of their HPAs
    ceilings: bool = False  # whether the controller sets bounds of HorizontalPodAutoscalers (HPAs)
    # Namespaces that no longer have a job, but HPAs whose bounds are to be restored.
    former_namespaces: tuple[str, ...] = ()
    initial: Sequence[int] = ()  # initial replica counts (jobs,); rayserve only
    workers: Workers = Workers()  # rayserve only
    head: Head = Head()  # rayserve only
    operator_namespace: str = "kuberay-system"  # where KubeRay's operator runs; rayserve only
    # Where Prometheus runs; only pods of this namespace can read the metrics.
    monitoring_namespace: str = "monitoring"
    # URL of Prometheus, the source of past request counts and of the metrics of Deployments.
    prometheus: str = ""
    monitor: bool = False  # whether to add a ServiceMonitor
    options: tuple[str, ...] = ()  # further options of `faro run` for the controller

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            accepted = ", ".join(BACKENDS)
            raise ValueError(f"backend={self.backend!r} is unknown; accepted: {accepted}")
        # Names may have 47 characters for a RayService, and 52 for the CronJob
        # NAME-controller-restore of `ceilings`.
        longest = 33 if self.ceilings else 47
        if len(self.name) > longest or not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", self.name):
            accepted = f"a letter, then at most {longest - 1} of a-z, 0-9 and -"
            raise ValueError(f"name={self.name!r} must be {accepted}")
        names = {
            key: getattr(self, key)
            for key in ("namespace", "operator_namespace", "monitoring_namespace")
        }
        names |= {f"former_namespaces[{n}]": name for n, name in enumerate(self.former_namespaces)}
        for key, value in names.items():
            if not DNS_LABEL.fullmatch(value):
                problem = "is not a Kubernetes name: at most 63 of a-z, 0-9 and -"
                raise ValueError(f"{key}={value!r} {problem}")
        if not IMAGE.fullmatch(self.image):
            problem = "is not an image name: NAME:TAG or NAME@sha256:DIGEST"
            raise ValueError(f"image={self.image!r} {problem}")
        if not 0 < self.tick_s < math.inf:
            raise ValueError(f"tick_s={self.tick_s!r} must be a number > 0")
        if self.backend == "deployments":
            self._check_for_deployments()
        else:
            self._check_for_ray()

    def _check_for_deployments(self) -> None:
        if not self.prometheus:
            problem = "needs prometheus, the address that the jobs' queries go to"
            raise ValueError(f"backend=deployments {problem}")
        check_address(self.prometheus, "prometheus")

    def _check_for_ray(self) -> None:
        if self.ceilings:
            problem = "need backend=deployments, whose HorizontalPodAutoscalers choose the replicas"
            raise ValueError(f"ceilings {problem}")
        need = float(minimum_replicas(self.jobs) @ arrays_of(self.jobs).cores)
        if need > self.workers.total:
            have = f"workers: {self.workers.count} x {self.workers.cores} cores"
            minimum = f"the minimum of {len(self.jobs)} jobs, {need:g} cores"
            raise ValueError(f"{have} cannot hold {minimum}")


def write(spec: ManifestSpec, folder: str | Path) -> list[Path]:
    """Write all files into the folder and return their paths.

    The files `APPLY_FIRST` must be applied before the rest.
    """
    files = ["rbac.yaml", "config.yaml", "controller.yaml", "network.yaml", "dashboard.yaml"]
    if spec.backend == "rayserve":
        files += ["rayservice.yaml", "quota.yaml"]
    if spec.monitor:
        files.append("monitor.yaml")
    if spec.ceilings:  # also without `act`, because an earlier run may have set bounds
        files.append("restore.yaml")
    texts = {
        name: render(spec, name, resources=files)
        for name in (*APPLY_FIRST, *files, "kustomization.yaml")
    }
    texts[RULES.name] = RULES.read_text()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text)
    return [folder / name for name in texts]


def render(spec: ManifestSpec, template: str, **values: Any) -> str:
    """The manifest that a template in the folder TEMPLATES becomes with `spec` and `values`."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    controller = f"{spec.name}-controller"
    applications = configuration(spec.jobs, spec.served, spec.initial) if spec.served else []
    return environment.get_template(template).render(
        CONSTANTS,
        spec=spec,
        rayserve=spec.backend == "rayserve",
        roles=roles(spec),
        restore_roles=restore_roles(spec),
        cluster_wide=preflight.rules(cluster_wide(spec), {}),
        controller=controller,
        labels={"app.kubernetes.io/name": controller, "app.kubernetes.io/part-of": "faro"},
        arguments=arguments(spec),
        applications=yaml.safe_dump(applications, sort_keys=False),
        jobs_hash=hash_of(spec.jobs_text),
        dashboard=DASHBOARD.read_text().rstrip(),
        alerts=with_own_alert(yaml.safe_load(RULES.read_text()), spec.namespace, controller),
        **values,
    )


def roles(spec: ManifestSpec) -> dict[str, list[tuple[str, str, list, list]]]:
    """Namespace -> the rules of the controller's Role there; see `preflight.rules`."""
    if spec.backend == "rayserve":
        own = preflight.FOR_RAY
    elif spec.ceilings:
        own = preflight.FOR_CEILINGS
    else:
        own = preflight.FOR_DEPLOYMENTS
    permissions = {spec.namespace: preflight.ALWAYS + own}
    for namespace in sorted(set(spec.namespaces) - {spec.namespace}):
        permissions[namespace] = preflight.QUOTAS + own
    names = preflight.names_of(spec.name, spec.deployments)
    return {namespace: preflight.rules(needed, names) for namespace, needed in permissions.items()}


def restore_roles(spec: ManifestSpec) -> dict[str, list[tuple[str, str, list, list]]]:
    """Namespace -> the rules of the Role of `faro restore` there; see `preflight.rules`."""
    others = sorted({*spec.namespaces, *spec.former_namespaces} - {spec.namespace})
    permissions = {spec.namespace: preflight.LEASE_READER + preflight.FOR_RESTORE}
    permissions |= dict.fromkeys(others, preflight.FOR_RESTORE)
    names = {"leases": [spec.name]}
    return {namespace: preflight.rules(needed, names) for namespace, needed in permissions.items()}


def cluster_wide(spec: ManifestSpec) -> tuple[preflight.Permission, ...]:
    """The permissions of the controller's ClusterRole."""
    return preflight.NODES if spec.backend == "rayserve" else preflight.CLUSTER_WIDE


def with_own_alert(rules: dict[str, Any], namespace: str, controller: str) -> dict[str, Any]:
    """The rules, and an alert if this controller exports nothing, even if it never has."""
    ticks = f'faro_ticks_total{{namespace="{namespace}",job="{controller}"}}'
    alert = {
        "alert": "FaroControllerSilent",
        "expr": f"absent_over_time({ticks}[10m])",
        "for": "5m",
        "labels": {"severity": "critical"},
        "annotations": {"summary": f"Controller {namespace}/{controller} exports no metrics."},
    }
    return {"groups": [*rules["groups"], {"name": "faro-this-controller", "rules": [alert]}]}


def hash_of(text: str) -> str:
    """The first 16 hexadecimal digits of a text's SHA-256, which the Helm chart computes, too."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def arguments(spec: ManifestSpec) -> list[str]:
    """The arguments of `faro` in the controller's container."""
    options = {
        "--backend": spec.backend,
        "--jobs": "/etc/faro/jobs.yaml",
        "--policy": spec.policy,
        "--tick": f"{spec.tick_s:g}",
        "--plan": f"{spec.namespace}/{spec.name}",
        "--journal": JOURNAL,
        "--metrics-address": "0.0.0.0",
        "--metrics-port": str(METRICS_PORT),
    }
    if spec.backend == "rayserve":
        head = f"http://{spec.name}-head-svc.{spec.namespace}.svc"
        options |= {
            "--address": f"{head}:{DASHBOARD_PORT}",
            "--serve-address": f"{head}:{SERVING_PORT}",
        }
    if spec.prometheus:
        # --history fits forecasts to counts that Prometheus has scraped from controllers.
        options |= {"--prometheus": spec.prometheus, "--history": "prometheus"}
    flags: list[str] = []
    if spec.act:
        flags.append("--apply")
    if spec.ceilings:
        flags += ["--act", "ceilings"]
    words = [word for option in options.items() for word in option]
    return ["run", "--wait", *flags, *spec.options, *words]
