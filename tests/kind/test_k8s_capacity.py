"""On a kind cluster: capacity follows its nodes, quotas and pods."""

from __future__ import annotations

import pytest
from k8s_world import World, apply, cordon, half_a_worker, paused, until, workers

from faro_ops.operate.kube.capacity import Shape
from faro_ops.operate.kube.capacity_watch import NodeCapacity

pytestmark = pytest.mark.k8s
WITHIN_S = 10.0  # what the issue grants a drained node
ALL, HALF = 4, 2  # replicas of half a worker, on two workers and on one


class Watched:
    """The capacity in replicas of half a worker."""

    def __init__(self, world: World):
        self.each = half_a_worker(world.api)
        self.source = NodeCapacity(
            world.api,
            world.namespace,
            lambda: ({"app": "job"},),
            (self.each,),
            lambda nodes: (Shape(quantum=self.each), {}),
        ).start()

    def __call__(self) -> int:
        return round(self.source.current().cores / self.each)


@pytest.fixture
def world(tmp_path):
    one = World(tmp_path)
    yield one
    one.close()


@pytest.fixture
def capacity(world):
    watched = Watched(world)
    until(lambda: watched() == ALL, 30, "two workers, two replicas each")
    yield watched
    watched.source.stop()


@pytest.mark.fault
def test_a_cordoned_node_shrinks_it_within_ten_seconds_and_an_uncordoned_one_restores_it(
    world, capacity
):
    node = workers(world.api)[0]
    cordon(world.api, node)
    try:
        until(lambda: capacity() == HALF, WITHIN_S)
        assert capacity.source.current().unusable[node] == "cordoned"
    finally:
        cordon(world.api, node, False)
    until(lambda: capacity() == ALL, WITHIN_S)


def test_the_control_plane_takes_no_replica(world, capacity):
    assert capacity.source.current().unusable == {
        "faro-control-plane": "taint node-role.kubernetes.io/control-plane"
    }


@pytest.mark.fault
def test_a_quota_that_shrinks_and_grows_is_followed(world, capacity):
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "q", "namespace": world.namespace},
    }
    for room in (1, 3):
        apply(world.api, quota | {"spec": {"hard": {"requests.cpu": f"{room * capacity.each:g}"}}})
        until(lambda room=room: capacity() == room, WITHIN_S)
        assert capacity.source.current().bound == "quota q"


def test_pods_that_others_start_take_their_cores_and_give_them_back(world, capacity):
    apply(world.api, world.deployment("web", 2, cpu=capacity.each))
    until(lambda: capacity() == HALF, WITHIN_S)
    world.api.send("DELETE", world.path("/apis/apps/v1/{ns}/deployments/web"))
    until(lambda: capacity() == ALL, 30)


def test_our_own_replicas_do_not_lessen_it(world, capacity):
    apply(world.api, world.deployment("job", 3, cpu=capacity.each))
    pods = world.path("/api/v1/{ns}/pods")
    until(
        lambda: (
            sum(pod["status"]["phase"] == "Running" for pod in world.api.get(pods)["items"]) == 3
        ),
        60,
    )
    assert capacity() == ALL


@pytest.mark.fault
def test_a_deleted_node_is_gone_until_it_is_registered_again(world, capacity):
    path = f"/api/v1/nodes/{workers(world.api)[1]}"
    node = world.api.get(path)
    world.api.send("DELETE", path)
    try:
        until(lambda: capacity() == HALF, WITHIN_S)
    finally:  # with the addresses that its pods have: the kubelet alone would be given others
        meta = {key: node["metadata"][key] for key in ("name", "labels", "annotations")}
        spec = {key: node["spec"][key] for key in ("podCIDR", "podCIDRs", "providerID")}
        world.api.send("POST", "/api/v1/nodes", {"metadata": meta, "spec": spec})
    until(lambda: capacity() == ALL, 60)


@pytest.mark.fault
@pytest.mark.slow
def test_a_node_that_hangs_is_lost_once_kubernetes_says_so(world, capacity):
    """The node controller waits 40 s before it believes that."""
    node = workers(world.api)[1]
    with paused(node):
        until(lambda: capacity() == HALF, 90)
        assert capacity.source.current().unusable[node].startswith(("not ready", "taint"))
    until(lambda: capacity() == ALL, 60)
