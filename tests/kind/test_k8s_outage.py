"""On a kind cluster: its API server goes away and comes back, and forgets what Faro has told it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml
from k8s_world import (
    Controller,
    World,
    apply,
    crd,
    half_a_worker,
    table,
    until,
    without_api_server,
)
from kube_things import objects

from faro_ops.operate.kube.client import MERGE, ApiError
from faro_ops.operate.kube.manifests import ManifestSpec
from faro_ops.operate.kube.status import PLURAL

pytestmark = [pytest.mark.k8s, pytest.mark.slow, pytest.mark.fault]
NAMES = ["a", "b"]
AWAY_S = 60.0
DEFINITION = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{PLURAL}.autoscaling.faro"


def furnish(world: World) -> None:
    """What an operator applies."""
    each = half_a_worker(world.api)
    apply(world.api, crd(), *(world.deployment(name, cpu=each) for name in NAMES))
    until(
        lambda: world.get(f"/apis/autoscaling.faro/v1alpha1/{{ns}}/{PLURAL}"),
        60,
        "FaroPlan is served",
    )
    wanted = ManifestSpec(
        jobs=(),
        jobs_text="",
        backend="deployments",
        namespace=world.namespace,
        name="main",
        prometheus="http://x",
    )
    apply(world.api, *objects(wanted, "rbac.yaml"))


def replicas(world: World) -> list[int]:
    return [
        world.get(f"/apis/apps/v1/{{ns}}/deployments/{name}")["spec"]["replicas"] for name in NAMES
    ]


def gone(world: World, path: str) -> bool:
    try:
        world.get(path)
    except ApiError as refused:
        return refused.status == 404
    return False


@pytest.fixture
def world(tmp_path):
    one = World(tmp_path)
    furnish(one)
    (tmp_path / "jobs.yaml").write_text(yaml.safe_dump(table(NAMES, cores=half_a_worker(one.api))))
    yield one
    one.close()


@pytest.fixture
def config(world) -> Path:
    return Path(world.account("main-controller"))


@pytest.fixture
def controller(world, config, prometheus):
    said = {
        "--backend": "deployments",
        "--jobs": str(world.folder / "jobs.yaml"),
        "--policy": "FairShare",
        "--tick": "1",
        "--plan": f"{world.namespace}/main",
        "--prometheus": prometheus.url,
        "--kubeconfig": str(config),
    }
    one = Controller("--apply", *(word for pair in said.items() for word in pair))
    until(lambda: replicas(world) == [2, 2], 90, lambda: f"the first plan; {one.said[-3:]}")
    yield one
    one.kill()


def test_while_the_api_server_is_away_the_controller_holds_and_then_goes_on(world, controller):
    with without_api_server():
        began = time.monotonic()
        time.sleep(AWAY_S)
        assert controller.process.poll() is None, controller.said[-5:]
        assert controller.heard("cannot be reached")
        last = [tick for when, tick in controller.ticks if when > began + 5]
        assert all(job["replicas"] == 2 for tick in last for job in tick["plan"].values()), (
            "it holds"
        )
    scale = {"spec": {"replicas": 1}}
    world.api.send("PATCH", world.path("/apis/apps/v1/{ns}/deployments/a/scale"), scale, kind=MERGE)
    back = time.monotonic()
    until(lambda: replicas(world) == [2, 2], 60, lambda: f"acting again; {controller.said[-3:]}")
    took_s = time.monotonic() - back
    print(f"after {AWAY_S:g} s without a server it acted {took_s:.1f} s after its return")


def test_it_goes_on_once_a_forgotten_namespace_and_its_rights_and_definition_are_applied_again(
    world, controller, config
):
    world.api.send("DELETE", DEFINITION)
    world.api.send("DELETE", f"/api/v1/namespaces/{world.namespace}")
    until(lambda: gone(world, "/api/v1/{ns}") and gone(world, DEFINITION), 120, "it has forgotten")
    assert controller.process.poll() is None, controller.said[-5:]
    world.api.send("POST", "/api/v1/namespaces", {"metadata": {"name": world.namespace}})
    until(lambda: world.get("/api/v1/{ns}/serviceaccounts")["items"], 60)
    furnish(world)
    # Its token belonged to an account that is gone.
    config.write_text(Path(world.account("main-controller")).read_text())
    back = time.monotonic()
    until(
        lambda: replicas(world) == [2, 2],
        90,
        lambda: f"acting on a server without memory; {controller.said[-3:]}",
    )
    took_s = time.monotonic() - back
    print(f"on a server that had forgotten everything it acted after {took_s:.1f} s")
    assert controller.process.poll() is None
