"""Write a kustomize folder that runs Faro in Kubernetes (`faro manifests`). It has no Secrets."""

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from jinja2 import Environment

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
    "journal": JOURNAL,
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
            problem = "whose HorizontalPodAutoscalers choose the replicas"
            raise ValueError(f"act=ceilings needs --backend deployments, {problem}")
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
    return environment().get_template(template).render(values_of(spec), **values)


def environment() -> "Environment":
    """The Jinja environment of the templates.

    Where a setting decides, a template calls `when` and `each`. Here they decide at once. The Helm
    chart (charts/generate.py) replaces them, so that Helm decides.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.globals |= CONSTANTS | {"when": when, "each": each}
    return made


def when(condition: object, caller: Callable[[], str]) -> str:
    """The text in a template's block `{% call when(condition) %}`, if the condition is true."""
    return caller() if condition else ""


def each(values: Iterable[str], caller: Callable[[str], str]) -> str:
    """The text in a template's block `{% call(value) each(values) %}`, once for each value."""
    return "".join(map(caller, values))


def values_of(spec: ManifestSpec) -> dict[str, Any]:
    """Variable of the templates -> its value."""
    bounded = {*spec.namespaces, *spec.former_namespaces}
    rayserve = spec.backend == "rayserve"
    of_ray = {
        "spec": spec,
        "applications": yaml.safe_dump(
            configuration(spec.jobs, spec.served, spec.initial) if spec.served else [],
            sort_keys=False,
        ),
    }
    return of_ray | {
        **named_values(spec.name, spec.namespace, sorted(spec.deployments)),
        "backend": spec.backend,
        "rayserve": rayserve,
        "on_deployments": not rayserve,
        "sets_replicas": not rayserve and not spec.ceilings,
        "ceilings": spec.ceilings,
        "apply": spec.act,
        "image": spec.image,
        "policy": spec.policy,
        "tick_s": f"{spec.tick_s:g}",
        "options": spec.options,
        "prometheus": spec.prometheus,
        "jobs_text": spec.jobs_text,
        "jobs_hash": hash_of(spec.jobs_text),
        "kept_workers": spec.workers.count - 1,
        "namespaces": sorted({*spec.namespaces} - {spec.namespace}),
        "bounded_namespaces": sorted(bounded - {spec.namespace}),
        "operator_namespace": spec.operator_namespace,
        "monitoring_namespace": spec.monitoring_namespace,
        "monitor_labels": "",  # a kustomize overlay adds what its Prometheus selects by
        "dashboard": DASHBOARD.read_text().rstrip(),
        "alerts": with_own_alert(RULES.read_text(), spec.name, spec.namespace),
    }


def named_values(name: str, namespace: str, deployments: Sequence[str]) -> dict[str, Any]:
    """The variables of the templates that follow from names.

    deployments : names of the Deployments, or of their HPAs; see `ManifestSpec.deployments`.
    """
    controller = f"{name}-controller"
    names = preflight.names_of(name, deployments)
    permissions = {
        "always": preflight.ALWAYS,
        "quotas": preflight.QUOTAS,
        "nodes": preflight.NODES,
        "pods": preflight.PODS,
        "for_ray": preflight.FOR_RAY,
        "for_deployments": preflight.FOR_DEPLOYMENTS,
        "for_ceilings": preflight.FOR_CEILINGS,
    }
    # By its account, `faro restore` may patch HPAs of any name.
    of_restore = {"lease_reader": preflight.LEASE_READER, "for_restore": preflight.FOR_RESTORE}
    return {
        "name": name,
        "namespace": namespace,
        "controller": controller,
        "labels": {"app.kubernetes.io/name": controller, "app.kubernetes.io/part-of": "faro"},
        **{key: preflight.rules(needed, names) for key, needed in permissions.items()},
        **{key: preflight.rules(needed, {"leases": [name]}) for key, needed in of_restore.items()},
    }


def with_own_alert(rules: str, name: str, namespace: str) -> dict[str, Any]:
    """The rules, and an alert if this controller exports nothing, even if it never has.

    rules : the text of a file of alerting rules of Prometheus, in YAML.
    """
    controller = f"{name}-controller"
    ticks = f'faro_ticks_total{{namespace="{namespace}",job="{controller}"}}'
    alert = {
        "alert": "FaroControllerSilent",
        "expr": f"absent_over_time({ticks}[10m])",
        "for": "5m",
        "labels": {"severity": "critical"},
        "annotations": {"summary": f"Controller {namespace}/{controller} exports no metrics."},
    }
    own = {"name": "faro-this-controller", "rules": [alert]}
    return {"groups": [*yaml.safe_load(rules)["groups"], own]}


def hash_of(text: str) -> str:
    """The first 16 hexadecimal digits of a text's SHA-256, which the Helm chart computes, too."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def arguments(spec: ManifestSpec) -> list[str]:
    """The arguments of `faro` in the controller's container."""
    controller = next(yaml.safe_load_all(render(spec, "controller.yaml")))
    return controller["spec"]["template"]["spec"]["containers"][0]["args"]
