"""Objects of the Kubernetes API as the tests of `kube` need them."""

from __future__ import annotations

import numpy as np
import yaml

from faro_ops.kube.manifests import ManifestSpec, render


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
