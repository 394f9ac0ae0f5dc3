"""A HorizontalPodAutoscaler that scales a job's Deployment too.

On a real cluster: test_k8s_plain_deployments.py.
"""

from __future__ import annotations

import numpy as np
import pytest
from kube_api import ClusterApi
from kube_things import HPA, Measured, hpa

from faro_lib.workload import Job
from faro_ops.operate.clock import Clock
from faro_ops.operate.kube.deployments import DeploymentRef, Deployments
from faro_ops.operate.scaling import NotScaled

JOBS = (Job("a"), Job("b"))


def server_with(*autoscalers) -> ClusterApi:
    """Two Deployments of two replicas, and these HPAs."""
    server = ClusterApi({"a": 2, "b": 2})
    for one in autoscalers:
        server.put(HPA, one)
    return server


def cluster_on(server):
    section = {"queries": {"requests": "r[$window]", "latency_mean_s": "l[$window]"}}
    refs = [DeploymentRef.of(job, section, "jobs") for job in JOBS]
    return Deployments(server, refs, Measured(0.0, 0.0), Clock.starting_now(), 8.0)


def test_a_job_that_an_autoscaler_scales_is_left_to_it_and_the_autoscaler_is_named():
    server = server_with(hpa("by-cpu", target="a"))
    cluster = cluster_on(server)
    cluster.observe()
    with pytest.raises(
        NotScaled, match=r"^a is not scaled to 3: HorizontalPodAutoscaler 'by-cpu' scales it too"
    ):
        cluster.apply(np.array([3, 3]), np.zeros(2))
    assert server.scaled == [("b", 3)]


def test_once_the_autoscaler_is_deleted_the_job_is_scaled_again():
    server = server_with(hpa("by-cpu", target="a"))
    cluster = cluster_on(server)
    cluster.observe()
    server.remove(HPA, "by-cpu")
    cluster.observe()
    cluster.apply(np.array([3, 2]), np.zeros(2))
    assert server.scaled == [("a", 3)]


def test_an_autoscaler_of_something_else_does_not_matter():
    others = hpa("of-another", target="web"), hpa("of-a-set", target="a", kind="StatefulSet")
    assert cluster_on(server_with(*others)).autoscalers() == [None, None]
