"""Plain Deployments on the kind cluster.

Model servers that wait, the Prometheus that scrapes them, and Faro outside of the cluster.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml
from k8s_faro import FaroWorld
from k8s_ray import IMAGE
from k8s_world import ROOT, Controller, World, apply, crd, until
from kube_things import objects

from faro_ops.operate.kube.manifests import ManifestSpec
from faro_ops.operate.kube.status import PLURAL

CORES = 0.1  # of a replica
SERVICE_S = 0.1
MODEL = (ROOT / "cluster/model_server.py").read_text()
EXAMPLE = yaml.safe_load((ROOT / "cluster/jobs.yaml").read_text())["jobs"][0]["deployment"][
    "queries"
]


class Prometheus:
    """The Prometheus of cluster/monitoring.sh, by its node port."""

    def __init__(self, api):
        done = subprocess.run(
            [ROOT / "cluster/monitoring.sh"], capture_output=True, text=True, timeout=1800
        )
        assert done.returncode == 0, done.stdout + done.stderr
        port = api.get("/api/v1/namespaces/monitoring/services/prometheus")["spec"]["ports"][0][
            "nodePort"
        ]
        node = api.get("/api/v1/nodes")["items"][0]
        host = next(
            one["address"] for one in node["status"]["addresses"] if one["type"] == "InternalIP"
        )
        self.url = f"http://{host}:{port}"

    def __call__(self, query: str) -> float | None:
        """The value of a query now; None if there is none."""
        with urlopen(
            f"{self.url}/api/v1/query?{urlencode({'query': query})}", timeout=10
        ) as answer:
            result = json.load(answer)["data"]["result"]
        return float(result[0]["value"][1]) if result else None


class ModelWorld(World):
    """A namespace with a Deployment and a Service for each job, and what Faro needs there.

    replicas : how many of them its quota admits.
    """

    def __init__(self, folder: Path, names: tuple[str, ...], replicas: int):
        super().__init__(folder)
        self.names = names
        where = dict(namespace=self.namespace, name="main", deployments=names)
        wanted = ManifestSpec((), "", backend="deployments", prometheus="http://x", **where)
        quota = {"hard": {"requests.cpu": f"{CORES * replicas:.1f}"}}
        apply(
            self.api,
            crd(),
            *objects(wanted, "rbac.yaml"),
            self.named("ResourceQuota", "models", spec=quota),
        )
        apply(self.api, self.named("ConfigMap", "model-server", data={"model_server.py": MODEL}))
        for name in names:
            ports = [{"port": 8000, "targetPort": "http"}]
            apply(
                self.api,
                self.model(name),
                self.named("Service", name, spec={"selector": {"app": name}, "ports": ports}),
            )
        (folder / "jobs.yaml").write_text(
            yaml.safe_dump({"jobs": [self.row(name) for name in names]})
        )
        until(
            lambda: self.get(f"/apis/autoscaling.faro/v1alpha1/{{ns}}/{PLURAL}"),
            60,
            "FaroPlan is served",
        )
        until(
            lambda: [self.ready(name) for name in names] == [1] * len(names),
            180,
            "the models serve",
        )

    python = FaroWorld.python  # `Load` starts its pod by it

    def named(self, kind: str, name: str, **fields) -> dict:
        version = {"HorizontalPodAutoscaler": "autoscaling/v2"}.get(kind, "v1")
        return {
            "apiVersion": version,
            "kind": kind,
            "metadata": {"name": name, "namespace": self.namespace},
        } | fields

    def model(self, name: str) -> dict:
        deployment = self.deployment(name)
        template = deployment["spec"]["template"]
        template["metadata"]["annotations"] = {"prometheus.io/scrape": "true"}
        container = {
            "name": "model",
            "image": IMAGE,
            "command": ["python", "/model/model_server.py"],
            "env": [{"name": "SERVICE_S", "value": str(SERVICE_S)}],
            "ports": [{"name": "http", "containerPort": 8000}],
            "readinessProbe": {
                "httpGet": {"path": "/metrics", "port": "http"},
                "periodSeconds": 2,
                "timeoutSeconds": 5,
            },
            "lifecycle": {
                "preStop": {"sleep": {"seconds": 5}}
            },  # until no node sends it a request any more
            "resources": {
                "requests": {"cpu": f"{1000 * CORES:.0f}m", "memory": "96Mi"},
                "limits": {"memory": "256Mi"},
            },
            "volumeMounts": [{"name": "model", "mountPath": "/model"}],
        }
        volumes = [{"name": "model", "configMap": {"name": "model-server"}}]
        template["spec"] = {
            "terminationGracePeriodSeconds": 25,
            "containers": [container],
            "volumes": volumes,
        }
        return deployment

    def row(self, name: str) -> dict:
        """The job's row, with the queries of cluster/jobs.yaml."""
        one = f'service="{name}",namespace="{self.namespace}"'
        queries = {key: query.replace('service="vision"', one) for key, query in EXAMPLE.items()}
        served = {
            "slo_s": 4 * SERVICE_S,
            "service_time_s": SERVICE_S,
            "cold_start_s": 10,
            "cores": CORES,
        }
        return {"job": name, **served, "deployment": {"name": name, "queries": queries}}

    def replicas(self, name: str) -> int:
        return self.get(f"/apis/apps/v1/{{ns}}/deployments/{name}")["spec"]["replicas"]

    def ready(self, name: str) -> int:
        return self.get(f"/apis/apps/v1/{{ns}}/deployments/{name}")["status"].get(
            "readyReplicas", 0
        )

    def pending(self) -> list[str]:
        pods = self.get("/api/v1/{ns}/pods")["items"]
        return [pod["metadata"]["name"] for pod in pods if pod["status"]["phase"] == "Pending"]

    def address(self, name: str) -> str:
        return f"http://{name}.{self.namespace}.svc:8000/"

    def autoscaler(self, name: str, of: str, least: int, most: int, utilisation: int = 80) -> dict:
        """A HorizontalPodAutoscaler on the CPU utilisation in percent of a Deployment's pods."""
        metric = {
            "name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": utilisation},
        }
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": of}
        spec = {"scaleTargetRef": target, "minReplicas": least, "maxReplicas": most}
        spec["metrics"] = [{"type": "Resource", "resource": metric}]
        return self.named("HorizontalPodAutoscaler", name, spec=spec)

    def faro(self, prometheus: Prometheus, policy: str, *more: str) -> Controller:
        options = {
            "--backend": "deployments",
            "--jobs": str(self.folder / "jobs.yaml"),
            "--plan": f"{self.namespace}/main",
            "--prometheus": prometheus.url,
            "--kubeconfig": self.account("main-controller"),
            "--policy": policy,
            "--tick": "10",
        }
        return Controller(*(word for pair in options.items() for word in pair), *more)

    def plan(self) -> dict:
        return self.get(f"/apis/autoscaling.faro/v1alpha1/{{ns}}/{PLURAL}/main").get("status", {})
