"""On the offline cluster only: its API server goes away, comes back, and comes back without its memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from k8s_world import OFFLINE, Controller, FakePrometheus, World, apply, kubeconfig, table, until

from faro_lib.kube.client import MERGE, connect
from faro_lib.kube.manifests import ManifestSpec, objects
from faro_lib.kube.status import PLURAL, crd

sys.path.insert(0, str(OFFLINE))
pytestmark = [pytest.mark.k8s, pytest.mark.slow]
NAMES = ["a", "b"]
AWAY_S = 60.0


def part(what: str, name: str) -> None:
    subprocess.run([str(OFFLINE / "part.sh"), what, name], check=True, capture_output=True, text=True, timeout=120)


@pytest.fixture
def nodes():
    from fakekubelet import FakeNodes

    path = Path(kubeconfig())
    if not (path.parent / "command" / "apiserver").exists():
        pytest.skip(f"KUBECONFIG={path} is not of cluster/offline, whose API server may be stopped")
    os.environ["K8S_RUN"] = str(path.parent)
    fakes = FakeNodes(connect(str(path)), 2, cpu="4", prefix="out").start()
    yield fakes
    fakes.stop()


def furnish(world: World) -> None:
    """What an operator applies."""
    apply(world.api, crd(), *(world.deployment(name) for name in NAMES))
    until(lambda: world.get(f"/apis/autoscaling.faro/v1alpha1/{{ns}}/{PLURAL}"), 60, "FaroPlan is served")
    wanted = ManifestSpec(
        jobs=(), jobs_text="", backend="deployments", namespace=world.namespace, prometheus="http://x"
    )
    apply(world.api, *objects(wanted, "rbac.yaml"))


def replicas(world: World) -> list[int]:
    return [world.get(f"/apis/apps/v1/{{ns}}/deployments/{name}")["spec"]["replicas"] for name in NAMES]


def test_while_the_api_server_is_away_the_controller_holds_and_recovers_even_if_the_server_has_forgotten_everything(
    tmp_path, nodes
):
    world, prometheus = World(tmp_path), FakePrometheus({"requests": 60.0, "seconds": 0.2})
    furnish(world)
    (tmp_path / "jobs.yaml").write_text(yaml.safe_dump(table(NAMES)))
    config = Path(world.account("faro-controller"))
    controller = Controller(
        *(
            "--apply",
            "--backend",
            "deployments",
            "--jobs",
            str(tmp_path / "jobs.yaml"),
            "--policy",
            "FairShare",
            "--tick",
            "1",
        ),
        *("--plan", f"{world.namespace}/main", "--prometheus", prometheus.url, "--kubeconfig", str(config)),
    )
    try:
        until(lambda: replicas(world) == [4, 4], 90, "the first plan")

        part("kill", "apiserver")
        began = time.monotonic()
        time.sleep(AWAY_S)
        assert controller.process.poll() is None, controller.said[-5:]
        assert controller.heard("is not reached")
        last = [tick for when, tick in controller.ticks if when > began + 5]
        assert all(job["replicas"] == 4 for tick in last for job in tick["plan"].values()), "it holds"
        part("start", "apiserver")
        world.api.send(
            "PATCH", world.path("/apis/apps/v1/{ns}/deployments/a/scale"), {"spec": {"replicas": 1}}, kind=MERGE
        )
        back = time.monotonic()
        until(lambda: replicas(world) == [4, 4], 60, f"acting again; {controller.said[-3:]}")
        print(f"after {AWAY_S:g} s without a server it acted {time.monotonic() - back:.1f} s after its return")

        for name in ("kcm", "scheduler"):
            part("stop", name)
        part("kill", "apiserver")
        part("wipe", "etcd")
        for name in ("etcd", "apiserver", "kcm", "scheduler"):
            part("start", name)
        nodes.beat()
        world.api.send("POST", "/api/v1/namespaces", {"metadata": {"name": world.namespace}})
        until(lambda: world.get("/api/v1/{ns}/serviceaccounts")["items"], 60)
        furnish(world)
        renewed = world.account("faro-controller")
        config.write_text(Path(renewed).read_text())  # its token belonged to an account that is gone
        back = time.monotonic()
        until(lambda: replicas(world) == [4, 4], 90, f"acting on a server without memory; {controller.said[-3:]}")
        print(f"on a server that had forgotten everything it acted after {time.monotonic() - back:.1f} s")
        assert controller.process.poll() is None
    finally:
        controller.kill()
        prometheus.shutdown()
    world.close()
