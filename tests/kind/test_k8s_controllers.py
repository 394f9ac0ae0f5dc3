"""On a kind cluster: `faro run` as processes that follow each other, and what they refuse."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
import yaml
from k8s_world import (
    Controller,
    World,
    apply,
    cordon,
    crd,
    half_a_worker,
    kubeconfig,
    table,
    until,
    workers,
)
from kube_things import objects

from faro_ops import cli
from faro_ops.operate.kube import preflight
from faro_ops.operate.kube.client import MERGE, connect
from faro_ops.operate.kube.manifests import ManifestSpec
from faro_ops.operate.kube.status import PLURAL
from faro_ops.operate.limits.steady_capacity import SHRINK_AFTER_S

pytestmark = pytest.mark.k8s
NAMES = ["a", "b"]
START_S = 300.0  # of a process on a busy machine
TAKE_OVER_S = 20.0  # what the issue grants
LEASES = "/apis/coordination.k8s.io/v1/{ns}/leases/main"


@pytest.fixture
def world(tmp_path):
    one = World(tmp_path)
    one.each = half_a_worker(one.api)  # cores of a replica
    apply(one.api, crd(), *(one.deployment(name, cpu=one.each) for name in NAMES))
    until(
        lambda: one.get(f"/apis/autoscaling.faro/v1alpha1/{{ns}}/{PLURAL}"),
        60,
        "FaroPlan is served",
    )
    where = dict(namespace=one.namespace, name="main", deployments=NAMES)
    wanted = ManifestSpec(
        jobs=(), jobs_text="", backend="deployments", prometheus="http://x", **where
    )
    apply(one.api, *objects(wanted, "rbac.yaml"))
    (tmp_path / "jobs.yaml").write_text(yaml.safe_dump(table(NAMES, cores=one.each)))
    yield one
    one.close()


def arguments(world, prometheus, config=None, **changed):
    said = {
        "--backend": "deployments",
        "--jobs": str(world.folder / "jobs.yaml"),
        "--plan": f"{world.namespace}/main",
        "--prometheus": prometheus.url,
        "--kubeconfig": config or world.account("main-controller"),
        "--policy": "FairShare",
        "--tick": "1",
    } | {f"--{key}": value for key, value in changed.items()}
    return ["--apply", *(word for pair in said.items() for word in pair)]


@pytest.fixture
def controllers(world, prometheus):
    running = []

    def begin(**changed):
        running.append(Controller(*arguments(world, prometheus, **changed)))
        return running[-1]

    yield begin
    for one in running:
        if one.process.poll() is None:
            one.kill()


def replicas(world):
    return [
        world.get(f"/apis/apps/v1/{{ns}}/deployments/{name}")["spec"]["replicas"] for name in NAMES
    ]


def acts(controller, within_s=START_S):
    until(
        lambda: controller.ticks or controller.process.poll() is not None,
        within_s,
        lambda: f"a tick; {controller.said}",
    )
    assert controller.ticks, controller.said


@pytest.mark.fault
def test_a_cordoned_node_keeps_its_replicas_and_a_drained_one_shrinks_the_plan_two_minutes_later(
    world, controllers
):
    controllers()
    until(lambda: replicas(world) == [2, 2], START_S)
    node = workers(world.api)[1]
    cordon(world.api, node)
    try:
        time.sleep(15)
        assert replicas(world) == [2, 2]
        pods = world.get("/api/v1/{ns}/pods", fieldSelector=f"spec.nodeName={node}")["items"]
        for pod in pods:
            world.api.send("DELETE", world.path("/api/v1/{ns}/pods/" + pod["metadata"]["name"]))
        began = time.monotonic()
        until(lambda: replicas(world) == [1, 1], SHRINK_AFTER_S + 100)  # one replica a minute
        assert time.monotonic() - began > SHRINK_AFTER_S - 5
    finally:
        cordon(world.api, node, False)
    until(lambda: replicas(world) == [2, 2], 30)


@pytest.mark.fault
def test_when_the_leader_is_killed_the_other_acts_within_twenty_seconds_and_never_both(
    world, controllers
):
    first = controllers()
    acts(first)
    second = controllers()
    until(lambda: second.heard("waits for lease"), START_S)
    time.sleep(3)
    assert not second.ticks, "it waits while the first one leads"
    first.kill()
    killed = time.monotonic()
    acts(second, TAKE_OVER_S + 5)
    last_of_first, first_of_second = first.ticks[-1][0], second.ticks[0][0]
    print(f"the other acted {first_of_second - killed:.1f} s after the leader was killed")
    assert first_of_second - killed < TAKE_OVER_S
    assert last_of_first < first_of_second
    assert world.get(LEASES)["spec"]["leaseTransitions"] == 2


@pytest.mark.fault
def test_a_leader_that_is_asked_to_end_hands_over_at_once(world, controllers):
    first = controllers()
    acts(first)
    second = controllers()
    until(lambda: second.heard("waits for lease"), START_S)
    assert first.end() == 0
    ended = time.monotonic()
    acts(second, 10)
    assert second.ticks[0][0] - ended < 10


@pytest.mark.fault
def test_a_leader_whose_lease_is_taken_ends_itself(world, controllers):
    first = controllers()
    acts(first)
    taken = {
        "spec": {
            "holderIdentity": "other",
            "renewTime": "2100-01-01T00:00:00.000000Z",
            "leaseDurationSeconds": 3600,
        }
    }
    world.api.send("PATCH", world.path(LEASES), taken, kind=MERGE)
    until(lambda: first.process.poll() is not None, 30)
    assert first.process.returncode == 1
    assert first.heard("is held by other")


@pytest.mark.fault
def test_someone_who_scales_by_hand_is_overruled_and_it_is_said_so(world, controllers):
    controllers()
    until(lambda: replicas(world) == [2, 2], START_S)
    world.api.send(
        "PATCH",
        world.path("/apis/apps/v1/{ns}/deployments/a/scale"),
        {"spec": {"replicas": 1}},
        kind=MERGE,
    )
    until(lambda: replicas(world) == [2, 2], 30)
    path = world.path("/api/v1/{ns}/events")
    until(
        lambda: any(
            one["reason"] in ("DriftCorrected", "FairShare") and "a: 1 -> 2" in one["message"]
            for one in world.api.get(path)["items"]
        ),
        10,
    )


def test_no_token_is_said_or_published(world, controllers):
    config = world.account("main-controller")
    token = yaml.safe_load(Path(config).read_text())["users"][0]["user"]["token"]
    one = controllers(kubeconfig=config)
    acts(one)
    until(lambda: world.get("/api/v1/{ns}/events")["items"], 10)
    everything = json.dumps(
        [
            world.get(path)
            for path in (
                "/api/v1/{ns}/events",
                f"/apis/autoscaling.faro/v1alpha1/{{ns}}/{PLURAL}",
                "/api/v1/{ns}/configmaps",
            )
        ]
    )
    assert token not in everything
    assert not one.heard(token)


# --- what is refused before anything is changed ---------------------------------------------------


def refused(world, prometheus, capsys, **changed) -> str:
    config = changed.pop("config", None)
    before = replicas(world)
    assert cli.main(["run", *arguments(world, prometheus, config, **changed)]) == 2
    assert replicas(world) == before
    said = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in said if line.startswith("faro: ")]) == 1
    return said[-1]


def test_a_kubeconfig_that_is_not_there(world, prometheus, capsys):
    assert "no-such-file: no such file" in refused(world, prometheus, capsys, config="no-such-file")


def test_a_kubeconfig_of_another_cluster(world, prometheus, capsys):
    said = yaml.safe_load(Path(kubeconfig()).read_text())
    said["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9"
    (world.folder / "other.conf").write_text(yaml.safe_dump(said))
    assert "https://127.0.0.1:9 cannot be reached" in refused(
        world, prometheus, capsys, config=str(world.folder / "other.conf")
    )


def test_a_token_that_is_not_valid_any_more(world, prometheus, capsys):
    config = world.account("main-controller")
    world.api.send("DELETE", world.path("/api/v1/{ns}/serviceaccounts/main-controller"))
    until(
        lambda: (
            "the credentials are refused; has the token expired?"
            in refused(world, prometheus, capsys, config=config)
        ),
        30,
    )


def test_a_namespace_that_is_not_there(world, prometheus, capsys):
    said = refused(world, prometheus, capsys, config=kubeconfig(), plan="no-such-place/main")
    assert "namespace='no-such-place' does not exist" in said


def test_deployments_of_which_none_is_there(world, prometheus, capsys):
    (world.folder / "jobs.yaml").write_text(yaml.safe_dump(table(["c", "d"], cores=world.each)))
    assert "/c' does not exist (and 1 more jobs)" in refused(
        world, prometheus, capsys, config=kubeconfig()
    )


def test_a_definition_that_is_not_there(world, prometheus, capsys, monkeypatch):
    monkeypatch.setattr(
        "faro_ops.operate.kube.preflight.FARO_PLANS",
        ("autoscaling.faro", "v9", PLURAL, "faro manifests"),
    )
    assert "does not know faroplans.autoscaling.faro/v9; faro manifests installs it" in refused(
        world, prometheus, capsys
    )


def test_fewer_cores_than_the_pods_request(world, prometheus, capsys):
    (world.folder / "jobs.yaml").write_text(yaml.safe_dump(table(NAMES, cores=0.1)))
    told = f"job 'a': cores=0.1 is less than the {world.each:g} cpu that its pods request"
    assert told in refused(world, prometheus, capsys)


def test_a_right_that_is_missing(world, prometheus, capsys):
    world.api.send(
        "DELETE", world.path("/apis/rbac.authorization.k8s.io/v1/{ns}/rolebindings/main-controller")
    )
    account = connect(world.account("main-controller"))
    until(lambda: not preflight.may(account, world.namespace, "apps", "deployments", "list"))
    said = refused(world, prometheus, capsys)
    assert re.search(r"may not list [a-z.]+ in namespace .*`faro manifests` has a Role", said)
