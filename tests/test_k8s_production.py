"""On a kind cluster: the manifests as an operator applies them, under load. Upgrade, drain, policies, waiting controllers."""

from __future__ import annotations

import time

import pytest
from k8s_faro import FaroWorld, Load, failed
from k8s_world import World, cordon, until

from faro_lib.kube.capacity import is_ready
from faro_lib.kube.client import ApiError
from faro_lib.kube.manifests import DASHBOARD_PORT, METRICS_PORT, NAME, Head

pytestmark = [pytest.mark.k8s, pytest.mark.slow]
HALF = ("a=4 b=4", 8.0)
FOLLOWED_S = 120.0
PER_S = 2.0
never_passed = pytest.mark.xfail(reason="never passed on kind, and not understood yet")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Another namespace, which is also the one of Prometheus."""
    one = World(tmp_path_factory.mktemp("elsewhere"))
    yield one
    one.close()


@pytest.fixture(scope="module")
def faro(tmp_path_factory, elsewhere):
    one = FaroWorld(tmp_path_factory.mktemp("faro"), elsewhere.namespace)
    one.describe(("rbac", "config", "controller", "network", "quota"))
    yield one
    one.close()


@pytest.fixture(scope="module")
def serving(faro):
    """Faro with its RayService, which leads."""
    faro.describe()
    faro.until_ready()
    until(lambda: faro.targets() == HALF, FOLLOWED_S, lambda: f"the plan: {faro.plan()}")
    until(lambda: faro.ready_replicas() == [4, 4], FOLLOWED_S, lambda: f"replicas: {faro.plan()}")
    return faro


def said(faro) -> str:
    """What the first controller prints."""
    path = faro.controllers()[0]["metadata"]["name"]
    answer = faro.api._request("GET", faro.path(f"/api/v1/{{ns}}/pods/{path}/log"), None, "application/json", {}, 10)
    return answer.read().decode()


def test_controllers_without_a_rayservice_wait_unready_say_for_what_and_do_not_restart(faro):
    until(lambda: "RayService" in said(faro), 120, lambda: f"it says what it waits for: {said(faro)}")
    assert f"waiting: RayService '{faro.namespace}/faro' is not there" in said(faro)
    time.sleep(15)
    assert not any(is_ready(pod) for pod in faro.controllers())
    assert faro.restarts() == 0


def test_a_head_that_fits_on_no_node_is_named_with_the_schedulers_reason(faro):
    faro.describe(("quota", "rayservice"), Head(cpu=100.0, memory_gib=1.0))
    until(lambda: "Insufficient cpu" in said(faro), 120, lambda: f"the scheduler's reason: {said(faro)}")
    assert "-head-" in said(faro)


def test_once_the_rayservice_is_ready_the_controllers_are_too_without_a_restart(serving):
    until(lambda: all(is_ready(pod) for pod in serving.controllers()), 60, "both controllers are ready")
    assert serving.restarts() == 0


@never_passed
def test_other_pods_reach_the_jobs_and_neither_dashboard_nor_gcs_nor_metrics(serving, elsewhere):
    head, controller = "faro-head-svc", NAME
    closed = [serving.address(head, DASHBOARD_PORT), serving.address(head, 6379)]
    metrics, jobs = serving.address(controller, METRICS_PORT), serving.address(head)
    assert serving.probe("inside", *closed, metrics, jobs) == ["closed", "closed", "closed", "open"]
    answers = serving.probe("outside", *closed, metrics, jobs, namespace=elsewhere.namespace)
    assert answers == ["closed", "closed", "open", "open"], "the namespace of Prometheus reads the metrics"


@never_passed
@pytest.mark.fault
def test_an_upgrade_of_the_ray_cluster_loses_no_request_and_never_doubles_the_capacity(serving, elsewhere):
    urls = [f"http://{serving.address(name)}/a" for name in ("faro-head-svc", "faro-serve-svc")]
    load = Load(serving, "upgrade", PER_S, *urls, namespace=elsewhere.namespace)
    before, began = serving.serving(), time.monotonic()
    serving.describe(("rayservice",), Head(0.31, 2.0))
    capacities, used = set(), set()

    def upgraded():
        plan = serving.plan()
        capacities.add(plan["capacityCores"])
        used.add(plan["usedCores"])
        return serving.serving() != before and serving.condition("UpgradeInProgress") != "True"

    until(upgraded, 400, lambda: f"upgraded: {serving.service().get('status')}")
    switched_s = time.monotonic() - began
    until(
        lambda: upgraded() and serving.targets() == HALF and len(serving.workers()) == 2, 200, "the old cluster is gone"
    )
    until(lambda: upgraded() and serving.ready_replicas() == [4, 4], FOLLOWED_S, lambda: f"as before: {serving.plan()}")
    print(f"upgrade: switched after {switched_s:.0f} s, as before after {time.monotonic() - began:.0f} s")
    requests = load.end()
    for url, sent in requests.items():
        print(f"upgrade: {url}: {len(sent)} requests, failed: {failed(sent)}")
    assert max(capacities) <= 8
    assert max(used) <= 8
    assert serving.restarts() == 0
    assert len(requests[urls[1]]) > 100
    assert not failed(requests[urls[1]])
    assert not failed(requests[urls[0]])


@never_passed
@pytest.mark.fault
def test_a_node_is_drained_under_the_disruption_budgets_and_its_worker_comes_back(serving, elsewhere):
    load = Load(serving, "drain", PER_S, f"http://{serving.address('faro-serve-svc')}/a", namespace=elsewhere.namespace)
    head = serving.get("/api/v1/{ns}/pods", labelSelector="ray.io/node-type=head")["items"][0]["spec"]["nodeName"]
    nodes = {pod["spec"]["nodeName"] for pod in serving.workers()} - {head}
    if not nodes:
        pytest.fail("both workers run beside the head")
    node, began = nodes.pop(), time.monotonic()
    cordon(serving.api, node)
    refused = 0
    try:

        def drained():
            nonlocal refused
            pods = [
                pod
                for pod in serving.get("/api/v1/{ns}/pods", fieldSelector=f"spec.nodeName={node}")["items"]
                if not pod["metadata"].get("deletionTimestamp")
            ]
            for pod in pods:
                body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod["metadata"]["name"]}}
                path = serving.path(f"/api/v1/{{ns}}/pods/{pod['metadata']['name']}/eviction")
                try:
                    serving.api.send("POST", path, body)
                except ApiError as error:
                    if error.status not in (404, 429):
                        raise
                    refused += error.status == 429
            return not pods

        until(drained, 240, "the node is empty")
        drained_s = time.monotonic() - began
        until(
            lambda: serving.targets() == HALF and serving.ready_replicas() == [4, 4], 240, lambda: f"{serving.plan()}"
        )
        print(f"drain: empty after {drained_s:.0f} s, whole after {time.monotonic() - began:.0f} s; {refused} refusals")
    finally:
        cordon(serving.api, node, False)
        (sent,) = load.end().values()
        print(f"drain: {len(sent)} requests, failed: {failed(sent)}")
    assert len(failed(sent)) <= 0.05 * len(sent)
