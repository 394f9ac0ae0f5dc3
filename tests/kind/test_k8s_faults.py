"""On a kind cluster: what each fault costs an operator whose jobs are served meanwhile.

Each test sends requests to both jobs, breaks something, and waits until the plan and the replicas
are as before.
"""

from __future__ import annotations

import base64
import copy
import time

import pytest
from k8s_faro import FOLLOWED_S, HALF, JOBS, faro_world, under_load
from k8s_ray import OPERATOR
from k8s_world import apply, cordon, path_of, paused, until, without_api_server

from faro_lib.workload import Job
from faro_ops.operate.kube.capacity import is_ready
from faro_ops.operate.kube.client import ApiError
from faro_ops.operate.kube.manifests import SECRET, Head
from faro_ops.operate.limits.steady_capacity import SHRINK_AFTER_S

# The six quickest, by data/kubernetes-faults.jsonl, are not slow: `.ci/run` runs them too.
pytestmark = [pytest.mark.k8s, pytest.mark.fault]
QUARTER = ("a=2 b=2", 4.0)  # what one worker of four cores leaves
THIRD = ("a=2 b=2 c=2", 8.0)  # an equal share of eight cores
AWAY_S = 60.0
BRAKE_S = 4 * 60.0  # until half of eight replicas are removed, one a minute


@pytest.fixture(scope="module")
def faro(tmp_path_factory):
    with faro_world(
        tmp_path_factory.mktemp("faro"), "rbac", "config", "controller", "network", "quota"
    ) as one:
        one.serve()
        yield one


def follows(faro, wanted) -> None:
    """Wait until the plan follows capacity that stays away.

    A loss counts after a while, and the brake then removes one replica a minute.
    """
    until(
        lambda: faro.targets() == wanted,
        SHRINK_AFTER_S + BRAKE_S + FOLLOWED_S,
        lambda: f"the plan follows: {faro.plan()}",
    )


# --- faults that lose no request ------------------------------------------------------------------


@pytest.mark.slow
def test_an_upgrade_of_the_ray_cluster_loses_no_request_and_never_doubles_the_capacity(faro):
    before, restarts, seen = faro.serving(), faro.restarts(), set()

    def upgraded():
        plan = faro.plan()
        seen.add((plan["capacityCores"], plan["usedCores"]))
        workers = faro.get("/api/v1/{ns}/pods", labelSelector="ray.io/node-type=worker")["items"]
        switched = faro.serving() != before and faro.condition("UpgradeInProgress") != "True"
        return switched and len(workers) == 2

    with under_load(faro, "upgrade of the Ray cluster") as row:
        faro.describe(("rayservice",), Head(0.31, 2.0))
        until(upgraded, 400, lambda: f"upgraded: {faro.service().get('status')}")
    assert max(capacity for capacity, _ in seen) <= 8
    assert max(used for _, used in seen) <= 8
    assert faro.restarts() == restarts
    assert row.failed == 0


@pytest.mark.slow
def test_while_the_api_server_is_away_for_a_minute_no_request_is_lost(faro):
    with under_load(faro, "API server away for a minute") as row, without_api_server():
        time.sleep(AWAY_S)
    assert row.failed == 0


def test_when_the_leading_controller_is_killed_the_other_one_decides(faro):
    with under_load(faro, "leading controller killed") as row:
        leader = faro.plan()["controller"]
        (pod,) = [pod for pod in faro.controllers() if pod["metadata"]["name"] in leader]
        faro.kill(pod)
        until(lambda: faro.plan()["controller"] != leader, FOLLOWED_S, "the other one decides")
    assert row.failed == 0


def test_kuberays_operator_is_restarted(faro):
    with under_load(faro, "KubeRay's operator restarted") as row:
        pods = faro.api.get(OPERATOR)["items"]
        for pod in pods:
            faro.api.send("DELETE", f"{OPERATOR}/{pod['metadata']['name']}")
        going = {pod["metadata"]["name"] for pod in pods}
        until(
            lambda: [
                pod
                for pod in faro.api.get(OPERATOR)["items"]
                if is_ready(pod) and pod["metadata"]["name"] not in going
            ],
            FOLLOWED_S,
            "another operator is ready",
        )
    assert row.failed == 0


def test_a_second_rayservice_in_the_namespace_adds_no_capacity(faro):
    service = faro.service()
    other = {key: copy.deepcopy(service[key]) for key in ("apiVersion", "kind", "spec")}
    other["metadata"] = {"name": "other", "namespace": faro.namespace}
    seen = set()

    def ready():
        seen.add(faro.targets())
        found = (
            faro.get("/apis/ray.io/v1/{ns}/rayservices/other")
            .get("status", {})
            .get("conditions", [])
        )
        return any(one["type"] == "Ready" and one["status"] == "True" for one in found)

    with under_load(faro, "a second RayService in the namespace") as row:
        apply(faro.api, other)
        try:
            until(ready, 300, "the other one serves too")
        finally:
            faro.api.send("DELETE", path_of(other))
    assert seen == {HALF}
    assert row.failed == 0


@pytest.mark.slow
def test_a_job_is_added_and_removed(faro):
    """The controllers read the jobs when they start, so other controllers follow.

    Ray keeps the applications that it has.
    """
    changed = ("config", "controller", "rayservice")
    with under_load(faro, "job added, then removed") as row:
        faro.describe(changed, jobs=(*JOBS, Job("c", cold_start_s=5)))
        try:
            follows(faro, THIRD)
            until(
                lambda: faro.ready_replicas() == [2, 2, 2],
                FOLLOWED_S,
                lambda: f"replicas: {faro.plan()}",
            )
        finally:
            faro.describe(changed)
    assert row.failed == 0


def test_network_policies_are_deleted_and_applied_again(faro):
    with under_load(faro, "NetworkPolicies deleted and applied again") as row:
        faro.api.send("DELETE", faro.path("/apis/networking.k8s.io/v1/{ns}/networkpolicies"))
        time.sleep(5)
        faro.describe(("network",))
    assert row.failed == 0


# --- faults that lose requests in flight ----------------------------------------------------------


def test_a_worker_is_deleted_and_the_targets_hold_until_another_one_serves(faro):
    seen = set()

    def replaced(name):
        seen.add(faro.plan()["targets"])
        names = {pod["metadata"]["name"] for pod in faro.pods("worker")}
        return name not in names and faro.whole()

    with under_load(faro, "worker deleted") as row:
        worker = faro.worker_away_from_the_head()
        faro.kill(worker)
        until(
            lambda: replaced(worker["metadata"]["name"]),
            FOLLOWED_S,
            lambda: f"another worker serves: {faro.plan()}",
        )
    assert seen == {HALF[0]}
    assert row.failed <= 0.1 * row.sent


@pytest.mark.slow
def test_a_worker_is_deleted_while_the_quota_has_no_room_for_another_one(faro):
    with under_load(faro, "worker deleted while the quota has no room") as row:
        quota = {
            "metadata": {"name": "faro", "namespace": faro.namespace},
            "kind": "ResourceQuota",
            "apiVersion": "v1",
        }
        apply(faro.api, quota | {"spec": {"hard": {"pods": "4"}}})
        try:
            faro.kill(faro.worker_away_from_the_head())
            follows(faro, QUARTER)
            time.sleep(15)
            assert faro.targets() == QUARTER
        finally:
            faro.describe(("quota",))
    assert row.failed <= 0.1 * row.sent


@pytest.mark.slow
def test_a_node_is_drained_under_the_disruption_budgets_and_its_worker_comes_back(faro):
    node = faro.worker_away_from_the_head()["spec"]["nodeName"]

    def drained():
        pods = faro.get("/api/v1/{ns}/pods", fieldSelector=f"spec.nodeName={node}")["items"]
        for pod in pods:
            name = pod["metadata"]["name"]
            body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
            try:
                faro.api.send("POST", faro.path(f"/api/v1/{{ns}}/pods/{name}/eviction"), body)
            except ApiError as error:
                if error.status not in (404, 429):  # 429: the budget allows no disruption now
                    raise
        time.sleep(1)
        return not pods

    with under_load(faro, "node drained") as row:
        cordon(faro.api, node)
        try:
            until(drained, 240, "the node is empty")
            until(faro.whole, 240, lambda: f"whole on the other node: {faro.plan()}")
        finally:
            cordon(faro.api, node, False)
    assert row.failed <= 0.05 * row.sent


@pytest.mark.slow
def test_the_head_is_killed_and_everything_on_it_starts_again(faro):
    with under_load(faro, "head killed") as row:
        (head,) = faro.pods("head")
        faro.kill(head)
        until(lambda: not faro.whole(), FOLLOWED_S, "it is noticed")
    assert row.failed > 0, "there is one head only"


def test_the_token_of_ray_rotates(faro):
    """Ray's pods take theirs when they start, so everything starts again."""
    with under_load(faro, "token rotated") as row:
        data = {"auth_token": base64.b64encode(b"another token").decode()}
        meta = {"name": SECRET, "namespace": faro.namespace}
        apply(faro.api, {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": data})
        for pod in (*faro.pods("worker"), *faro.pods("head")):
            faro.kill(pod)
        until(lambda: not faro.whole(), FOLLOWED_S, "it is noticed")
    assert row.failed > 0


@pytest.mark.slow
def test_a_node_hangs_and_comes_back(faro):
    """Kubernetes notices after 40 s.

    The replicas of its worker hold their requests until Ray notices.
    """
    faro.spread_controllers()
    with under_load(faro, "node stopped, then started") as row:
        with paused(faro.worker_away_from_the_head()["spec"]["nodeName"]):
            follows(faro, QUARTER)
        until(lambda: not faro.whole(), FOLLOWED_S)
    assert row.failed < 0.5 * row.sent
