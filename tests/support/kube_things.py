"""Objects of the Kubernetes API as the tests of `kube` need them."""

from __future__ import annotations

import copy
import threading

import numpy as np
import yaml

from faro_ops.operate.kube.client import ApiError
from faro_ops.operate.kube.manifests import ManifestSpec, render


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


def measured(arrivals_per_min, others):
    """The answer of `DeploymentMetrics.observe`.

    It has these counts per minute, and `others` (jobs,) for every other field.
    """
    fields = ("arrivals_now", "mean_latency_s", "tail_latency_s", "ongoing")
    return {"arrivals_per_min": np.array(arrivals_per_min)} | dict.fromkeys(
        fields, np.array(others)
    )


def replica(name, **more):
    return pod(name, labels={"role": "replica"}, **more)


def is_replica(thing) -> bool:
    return thing["metadata"]["labels"].get("role") == "replica"


def quota(namespace="jobs", name="q", **hard):
    hard = {key.replace("_", "."): value for key, value in hard.items()}
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {"hard": hard}}


class FaroPlanApi:
    """An API server with one FaroPlan, which refuses writes with an outdated resourceVersion.

    plan : None if there is none. `status` answers every request instead, if it is not 200.
    """

    def __init__(self, plan=None, status=200):
        self.status = status
        self._lock = threading.Lock()
        self._version = 0
        self.plan = plan

    def get(self, path):
        with self._lock:
            self._check("GET", path)
            metadata = self.plan.get("metadata", {}) | {"resourceVersion": str(self._version)}
            return copy.deepcopy(self.plan | {"metadata": metadata})

    def send(self, method, path, body, kind):
        with self._lock:
            self._check(method, path)
            version = body.get("metadata", {}).get("resourceVersion", str(self._version))
            if version != str(self._version):
                raise ApiError(409, f"{method} {path}: 409 the object has been modified")
            self._version += 1
            self.plan.setdefault("spec", {}).update(copy.deepcopy(body["spec"]))
            return self.plan

    def _check(self, method, path):
        status = 404 if self.plan is None and self.status == 200 else self.status
        if status != 200:
            raise ApiError(status, f"{method} {path}: {status}")
