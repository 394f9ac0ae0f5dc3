"""On a kind cluster: the manifests as an operator applies them.

Controllers that wait, and network policies.
"""

from __future__ import annotations

import time

import pytest
from k8s_faro import NAME, faro_world
from k8s_world import path_of, until

from faro_ops.operate.kube.capacity import is_ready
from faro_ops.operate.kube.manifests import DASHBOARD_PORT, METRICS_PORT, Head

pytestmark = [pytest.mark.k8s, pytest.mark.slow]


@pytest.fixture(scope="module")
def faro(tmp_path_factory):
    with faro_world(
        tmp_path_factory.mktemp("faro"), "rbac", "config", "controller", "network", "quota"
    ) as one:
        yield one


@pytest.fixture(scope="module")
def serving(faro):
    faro.serve()
    return faro


def said(faro) -> str:
    """What the first controller prints."""
    path = faro.controllers()[0]["metadata"]["name"]
    answer = faro.api._request(
        "GET", faro.path(f"/api/v1/{{ns}}/pods/{path}/log"), None, "application/json", {}, 10
    )
    return answer.read().decode()


def test_controllers_without_a_rayservice_wait_unready_say_for_what_and_do_not_restart(faro):
    until(
        lambda: "RayService" in said(faro), 120, lambda: f"it says what it waits for: {said(faro)}"
    )
    assert f"waiting: RayService '{faro.namespace}/faro' does not exist" in said(faro)
    time.sleep(15)
    assert not any(is_ready(pod) for pod in faro.controllers())
    assert faro.restarts() == 0


def test_a_head_that_fits_on_no_node_is_named_with_the_schedulers_reason(faro):
    faro.describe(("quota", "rayservice"), Head(cpu=100.0, memory_gib=1.0))
    until(
        lambda: "Insufficient cpu" in said(faro),
        120,
        lambda: f"the scheduler's reason: {said(faro)}",
    )
    assert "-head-" in said(faro)
    faro.api.send("DELETE", path_of({"kind": "RayService", "metadata": faro.service()["metadata"]}))
    # Its quota has no room for another head until this one is gone.
    ray = {"labelSelector": "ray.io/is-ray-node=yes"}
    until(lambda: not faro.get("/api/v1/{ns}/pods", **ray)["items"], 120, "its pods are gone")


def test_once_the_rayservice_is_ready_the_controllers_are_too_without_a_restart(serving):
    until(
        lambda: all(is_ready(pod) for pod in serving.controllers()),
        60,
        "both controllers are ready",
    )
    assert serving.restarts() == 0


def test_other_pods_reach_the_jobs_and_neither_dashboard_nor_gcs_nor_metrics(serving):
    closed = [serving.address("faro-head-svc", port) for port in (DASHBOARD_PORT, 6379)]
    metrics, jobs = serving.address(NAME, METRICS_PORT), serving.address("faro-serve-svc")
    assert serving.probe("inside", *closed, metrics, jobs) == ["closed", "closed", "closed", "open"]
    answers = serving.probe("outside", *closed, metrics, jobs, namespace=serving.monitoring)
    assert answers == ["closed", "closed", "open", "open"], (
        "the namespace of Prometheus reads the metrics"
    )


def test_kuberays_operator_is_let_in_from_its_own_namespace_only(serving):
    """The RayService is ready, so KubeRay's own operator reaches the dashboard."""
    operator = {"app.kubernetes.io/component": "kuberay-operator"}
    dashboard = serving.address("faro-head-svc", DASHBOARD_PORT)
    for name, namespace in (
        ("same-namespace", serving.namespace),
        ("other-namespace", serving.monitoring),
    ):
        assert serving.probe(name, dashboard, namespace=namespace, labels=operator) == ["closed"], (
            name
        )
    assert serving.probe("real", dashboard, namespace="kuberay-system", labels=operator) == ["open"]
