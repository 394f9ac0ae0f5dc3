"""A HorizontalPodAutoscaler that scales a job's Deployment too.

On a real cluster: test_k8s_plain_deployments.py.
"""

from __future__ import annotations

import numpy as np
import pytest
from kube_things import measured

from faro_lib.workload import Job
from faro_ops.operate.kube.deployments import DeploymentRef, Deployments
from faro_ops.operate.loop.clock import Clock
from faro_ops.operate.loop.scaling import NotScaled

JOBS = (Job("a"), Job("b"))
DEPLOYMENTS = "/apis/apps/v1/namespaces/jobs/deployments"
AUTOSCALERS = "/apis/autoscaling/v2/namespaces/jobs/horizontalpodautoscalers"


def deployment(name):
    metadata = {"name": name, "namespace": "jobs", "resourceVersion": "1", "generation": 1}
    status = {"observedGeneration": 1, "readyReplicas": 2, "replicas": 2}
    return {"metadata": metadata, "spec": {"replicas": 2}, "status": status}


def autoscaler(name, target, kind="Deployment"):
    spec = {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": kind, "name": target}}
    return {"metadata": {"name": name, "namespace": "jobs"}, "spec": spec}


class Server:
    """Two Deployments of two replicas, and the autoscalers that a test creates."""

    def __init__(self, *autoscalers):
        self.autoscalers, self.scaled = list(autoscalers), {}

    def get(self, path):
        return {
            "items": {
                DEPLOYMENTS: [deployment("a"), deployment("b")],
                AUTOSCALERS: self.autoscalers,
            }[path]
        }

    def send(self, method, path, body, **_):
        self.scaled[path.split("/")[-2]] = body["spec"]["replicas"]
        return {"metadata": {"resourceVersion": "2"}}


class Silent:
    """Metrics of jobs without any load."""

    def observe(self, queries, *_):
        return measured(np.zeros((len(queries), 1)), np.zeros(len(queries)))


def cluster_on(server):
    section = {"queries": {"requests": "r[$window]", "latency_mean_s": "l[$window]"}}
    refs = [DeploymentRef.of(job, section, "jobs") for job in JOBS]
    return Deployments(server, refs, Silent(), Clock.starting_now(), 8.0)


def test_a_job_that_an_autoscaler_scales_is_left_to_it_and_the_autoscaler_is_named():
    server = Server(autoscaler("by-cpu", "a"))
    cluster = cluster_on(server)
    cluster.observe()
    with pytest.raises(
        NotScaled, match=r"^a is not scaled to 3: HorizontalPodAutoscaler 'by-cpu' scales it too"
    ):
        cluster.apply(np.array([3, 3]), np.zeros(2))
    assert server.scaled == {"b": 3}


def test_once_the_autoscaler_is_deleted_the_job_is_scaled_again():
    server = Server(autoscaler("by-cpu", "a"))
    cluster = cluster_on(server)
    cluster.observe()
    server.autoscalers.clear()
    cluster.observe()
    cluster.apply(np.array([3, 2]), np.zeros(2))
    assert server.scaled == {"a": 3}


def test_an_autoscaler_of_something_else_does_not_matter():
    others = autoscaler("of-another", "web"), autoscaler("of-a-set", "a", kind="StatefulSet")
    assert cluster_on(Server(*others)).autoscalers() == [None, None]
