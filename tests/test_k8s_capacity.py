"""On a real API server with nodes that are not there: capacity follows the cluster."""

from __future__ import annotations

import sys

import pytest
from k8s_world import OFFLINE, World, apply, until

from faro_lib.kube.capacity import Shape
from faro_lib.kube.capacity_watch import ClusterCapacity
from faro_lib.kube.client import MERGE, connect

sys.path.insert(0, str(OFFLINE))
pytestmark = pytest.mark.k8s
WITHIN_S = 10.0  # what the issue grants a drained node


@pytest.fixture(scope="module")
def nodes():
    from fakekubelet import FakeNodes
    from k8s_world import kubeconfig

    fakes = FakeNodes(connect(kubeconfig()), 3, cpu="4", prefix="cap").start()
    yield fakes
    fakes.stop()


@pytest.fixture
def world(tmp_path):
    one = World(tmp_path)
    yield one
    one.close()


@pytest.fixture
def capacity(world, nodes):
    shape = Shape(quantum=1.0)
    watched = ClusterCapacity(world.api, world.namespace, ({"app": "job"},), shape).start()
    until(lambda: watched.current().cores == 12, what="three nodes of four cores")
    yield watched
    watched.stop()


def test_a_cordoned_node_shrinks_it_within_ten_seconds_and_an_uncordoned_one_restores_it(world, capacity):
    world.api.send("PATCH", "/api/v1/nodes/cap1", {"spec": {"unschedulable": True}}, kind=MERGE)
    until(lambda: capacity().cores == 8, WITHIN_S)
    assert capacity().unusable == {"cap1": "cordoned"}
    world.api.send("PATCH", "/api/v1/nodes/cap1", {"spec": {"unschedulable": False}}, kind=MERGE)
    until(lambda: capacity().cores == 12, WITHIN_S)


def test_a_quota_that_shrinks_and_grows_is_followed(world, capacity):
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "q", "namespace": world.namespace},
        "spec": {"hard": {"requests.cpu": "7"}},
    }
    apply(world.api, quota)
    until(lambda: capacity().cores == 7, WITHIN_S)
    assert capacity().bound == "quota q"
    quota["spec"]["hard"]["requests.cpu"] = "9"
    apply(world.api, quota)
    until(lambda: capacity().cores == 9, WITHIN_S)


def test_pods_that_others_start_take_their_cores_and_give_them_back(world, capacity):
    apply(world.api, world.deployment("web", 2, cpu="1500m"))
    # Two on one node leave one core there, one on each of two nodes leave two on both.
    until(lambda: capacity().cores in (8, 9), WITHIN_S)
    world.api.send("DELETE", world.path("/apis/apps/v1/{ns}/deployments/web"))
    until(lambda: capacity().cores == 12, 30)


def test_our_own_replicas_do_not_lessen_it(world, capacity):
    apply(world.api, world.deployment("job", 3))
    pods = world.path("/api/v1/{ns}/pods")
    until(lambda: sum(pod["status"]["phase"] == "Running" for pod in world.api.get(pods)["items"]) == 3)
    assert capacity().cores == 12


def test_a_deleted_node_is_gone(world, capacity, nodes):
    nodes.silent.add("cap2")
    world.api.send("DELETE", "/api/v1/nodes/cap2")
    until(lambda: capacity().cores == 8, WITHIN_S)
    nodes.silent.discard("cap2")
    nodes.beat()
    until(lambda: capacity().cores == 12, WITHIN_S)


@pytest.mark.slow
def test_a_node_whose_heartbeat_stops_is_lost_once_kubernetes_says_so(world, capacity, nodes):
    """The node controller waits 40 s before it believes that."""
    nodes.silent.add("cap0")
    try:
        until(lambda: capacity().cores == 8, 90)
        assert capacity().unusable["cap0"].startswith(("not ready", "taint"))
    finally:
        nodes.silent.discard("cap0")
        nodes.beat()
    until(lambda: capacity().cores == 12, 30)
