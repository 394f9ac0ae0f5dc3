"""On a kind cluster: capacity follows its nodes, quotas and pods."""

from __future__ import annotations

import pytest
from k8s_world import World, apply, cordon, docker, paused, quarter, until, workers

from faro_lib.kube.capacity import Shape
from faro_lib.kube.governed import ClusterCapacity

pytestmark = pytest.mark.k8s
WITHIN_S = 10.0  # what the issue grants a drained node
ALL, HALF = 8, 4  # replicas of a quarter of a node, on two workers and on one


class Watched:
    """The capacity in replicas of a quarter of a node."""

    def __init__(self, world: World):
        self.each = quarter(world.api)
        self.source = ClusterCapacity(world.api, world.namespace, ({"app": "job"},), Shape(quantum=self.each)).start()

    def __call__(self) -> int:
        return round(self.source().cores / self.each)


@pytest.fixture
def world(tmp_path):
    one = World(tmp_path)
    yield one
    one.close()


@pytest.fixture
def capacity(world):
    watched = Watched(world)
    until(lambda: watched() == ALL, 30, "two workers, four replicas each")
    yield watched
    watched.source.stop()


def test_a_cordoned_node_shrinks_it_within_ten_seconds_and_an_uncordoned_one_restores_it(world, capacity):
    node = workers(world.api)[0]
    cordon(world.api, node)
    try:
        until(lambda: capacity() == HALF, WITHIN_S)
        assert capacity.source().unusable[node] == "cordoned"
    finally:
        cordon(world.api, node, False)
    until(lambda: capacity() == ALL, WITHIN_S)


def test_the_control_plane_takes_no_replica(world, capacity):
    assert capacity.source().unusable == {"faro-control-plane": "taint node-role.kubernetes.io/control-plane"}


def test_a_quota_that_shrinks_and_grows_is_followed(world, capacity):
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": world.namespace}}
    for room in (5, 7):
        apply(world.api, quota | {"spec": {"hard": {"requests.cpu": f"{room * capacity.each:g}"}}})
        until(lambda room=room: capacity() == room, WITHIN_S)
        assert capacity.source().bound == "quota q"


def test_pods_that_others_start_take_their_cores_and_give_them_back(world, capacity):
    apply(world.api, world.deployment("web", 2, cpu=2 * capacity.each))
    until(lambda: capacity() == HALF, WITHIN_S)
    world.api.send("DELETE", world.path("/apis/apps/v1/{ns}/deployments/web"))
    until(lambda: capacity() == ALL, 30)


def test_our_own_replicas_do_not_lessen_it(world, capacity):
    apply(world.api, world.deployment("job", 3, cpu=capacity.each))
    pods = world.path("/api/v1/{ns}/pods")
    until(lambda: sum(pod["status"]["phase"] == "Running" for pod in world.api.get(pods)["items"]) == 3, 60)
    assert capacity() == ALL


def test_a_deleted_node_is_gone_and_is_back_when_its_kubelet_registers_it(world, capacity):
    node = workers(world.api)[1]
    world.api.send("DELETE", f"/api/v1/nodes/{node}")
    try:
        until(lambda: capacity() == HALF, WITHIN_S)
    finally:
        docker("exec", node, "systemctl", "restart", "kubelet")
    until(lambda: capacity() == ALL, 60)


@pytest.mark.slow
def test_a_node_that_hangs_is_lost_once_kubernetes_says_so(world, capacity):
    """The node controller waits 40 s before it believes that."""
    node = workers(world.api)[1]
    with paused(node):
        until(lambda: capacity() == HALF, 90)
        assert capacity.source().unusable[node].startswith(("not ready", "taint"))
    until(lambda: capacity() == ALL, 60)
