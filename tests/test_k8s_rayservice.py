"""On a real API server: `faro run` behind KubeRay, whose operator is a stand-in that resets what a submission resets."""

from __future__ import annotations

import sys
import time

import pytest
import yaml
from fake_serve import DeclaredRay
from k8s_world import OFFLINE, Controller, World, apply, kubeconfig, path_of, until

from faro_lib import cli
from faro_lib.http import HttpClient
from faro_lib.kube.client import MERGE, connect
from faro_lib.kube.manifests import SECRET, ManifestSpec, Workers, objects
from faro_lib.kube.status import PLURAL
from faro_lib.kube.status import crd as plans
from faro_lib.rayserve.spec import serve_specs
from faro_lib.workload import Job

sys.path.insert(0, str(OFFLINE))
pytestmark = pytest.mark.k8s
JOBS = (Job("a", cold_start_s=5), Job("b", cold_start_s=5))
START_S = 90.0  # of a process on a busy machine
AGAIN_S = 15.0
HALF = {"a": 4, "b": 4}  # a fair share of two workers of four cores
FIRST = {"a": 1, "b": 2}  # what the configuration says


@pytest.fixture(scope="module")
def nodes():
    from fakekubelet import FakeNodes

    fakes = FakeNodes(connect(kubeconfig()), 2, cpu="8", prefix="ray").start()
    yield fakes
    fakes.stop()


class Ray:
    """One RayService: the stand-in for its operator, and what stands in for the Ray that it would start."""

    def __init__(self, world: World, url: str, fake: DeclaredRay):
        self.world, self.url, self.fake = world, url, fake
        self.operator = None

    def reached(self, namespace, name, token) -> HttpClient:
        return HttpClient(self.url, token)

    def operate(self) -> None:
        from fakekuberay import FakeKubeRay

        if self.operator:
            self.operator.stop()
        self.operator = FakeKubeRay(self.world.api, self.reached, self.world.namespace).start()

    def describe(self, max_ongoing_requests: int = 10, jobs=JOBS, initial=(1, 2)) -> None:
        how = serve_specs(jobs, {job.name: {"max_ongoing_requests": max_ongoing_requests} for job in jobs})
        where = dict(namespace=self.world.namespace, name="ray", image="none", ray_version="2.60.0")
        spec = ManifestSpec(jobs, "", served=how, initial=initial, workers=Workers(2, 4, 1.0), **where)
        (thing,) = objects(spec, "rayservice.yaml")
        cluster = thing["spec"]["rayClusterConfig"]
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            group["template"]["spec"]["terminationGracePeriodSeconds"] = 1
        apply(self.world.api, thing)

    def pods(self, kind: str) -> list[dict]:
        labels = f"ray.io/node-type={kind}"
        return self.world.get("/api/v1/{ns}/pods", labelSelector=labels)["items"]

    def delete(self, kind: str) -> str:
        name = self.pods(kind)[0]["metadata"]["name"]
        self.world.api.send("DELETE", self.world.path(f"/api/v1/{{ns}}/pods/{name}"))
        return name


def token_of(world: World, token: str) -> None:
    meta = {"name": SECRET, "namespace": world.namespace}
    apply(world.api, {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"auth_token": token}})


@pytest.fixture
def world(tmp_path, nodes):
    from fakekuberay import RAYSERVICES, definition

    one = World(tmp_path)
    apply(one.api, plans(), definition())
    for path in (f"/apis/autoscaling.faro/v1alpha1/{PLURAL}", RAYSERVICES):
        until(lambda path=path: one.api.get(path), 60, path)
    apply(one.api, *objects(ManifestSpec(jobs=(), jobs_text="", namespace=one.namespace), "rbac.yaml"))
    rows = [{"job": job.name, "cold_start_s": 5} for job in JOBS]
    (tmp_path / "jobs.yaml").write_text(yaml.safe_dump(rows))
    (tmp_path / "token").write_text("first")
    token_of(one, "first")
    yield one
    one.close()


@pytest.fixture
def ray(world):
    fake = DeclaredRay("first")
    with fake.served() as url:
        one = Ray(world, url, fake)
        one.describe()
        one.operate()
        until(lambda: fake.counts() == FIRST, 30, "the operator submits the configuration")
        yield one
        one.operator.stop()


def arguments(world, ray, **changed) -> list[str]:
    said = {
        "--backend": "rayserve",
        "--address": ray.url,
        "--serve-address": ray.url,
        "--jobs": str(world.folder / "jobs.yaml"),
        "--plan": f"{world.namespace}/ray",
        "--kubeconfig": world.account("faro-controller"),
        "--policy": "FairShare",
        "--tick": "1",
    } | {f"--{key}": value for key, value in changed.items()}
    return ["--apply", *(word for pair in said.items() for word in pair)]


@pytest.fixture
def controller(world, ray):
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(world.folder / "token")}
    one = Controller(*arguments(world, ray), **token)
    until(lambda: ray.fake.counts() == HALF, START_S, f"the first plan; {one.said[-3:]}")
    yield one
    one.kill()


def reasons(controller, since: float) -> set[str]:
    return {job["reason"] for when, tick in controller.ticks if when > since for job in tick["plan"].values()}


def test_what_the_operator_resets_is_asserted_again(world, ray, controller):
    for what, act in {
        "the operator is restarted and submits anew": ray.operate,
        "the configuration is edited": lambda: ray.describe(max_ongoing_requests=20),
    }.items():
        puts, scaled, began = ray.fake.puts, len(ray.fake.scaled), time.monotonic()
        act()
        until(lambda puts=puts: ray.fake.puts > puts, 20, what)
        until(lambda: ray.fake.counts() == HALF, AGAIN_S, f"as it was after {what}")
        assert sorted(ray.fake.scaled[scaled:]) == [("a", 4), ("b", 4)], "once each"
        until(lambda began=began: "drift-corrected" in reasons(controller, began), 5, "it is said why")
    assert controller.process.poll() is None


def test_a_head_that_crashes_takes_everything_with_it_and_the_controller_waits_and_goes_on(ray, controller):
    ray.fake.status, began = 503, time.monotonic()  # nobody answers where the head was
    ray.fake.window_status = 503
    ray.fake.crash()
    head = ray.delete("head")
    until(lambda: [pod for pod in ray.pods("head") if pod["metadata"]["name"] != head], 30, "another head")
    until(lambda: controller.heard("status 503"), 10, "the controller says what is wrong")
    ray.fake.status = ray.fake.window_status = 200
    until(lambda: ray.fake.puts, 30, "the operator submits to the new head")
    until(lambda: ray.fake.counts() == HALF, AGAIN_S, f"as it was; {controller.said[-3:]}")
    assert controller.process.poll() is None
    print(f"on a new head the plan stood after {time.monotonic() - began:.1f} s")


def test_a_worker_that_goes_takes_its_cores_and_brings_them_back(world, ray, controller):
    ray.operator.stop()  # so that no other comes at once
    ray.delete("worker")
    began = time.monotonic()
    until(lambda: ray.fake.counts() == {"a": 2, "b": 2}, 10, f"the plan follows; {controller.said[-3:]}")
    print(f"the plan followed the lost worker after {time.monotonic() - began:.1f} s")
    plan = until(lambda: world.get(f"/apis/autoscaling.faro/v1alpha1/{{ns}}/{PLURAL}/ray").get("status"))
    until(lambda: world.get(f"/apis/autoscaling.faro/v1alpha1/{{ns}}/{PLURAL}/ray")["status"]["capacityCores"] == 4)
    assert plan["controller"]
    ray.operate()
    until(lambda: ray.fake.counts() == HALF, 30, f"with the worker back; {controller.said[-3:]}")


def test_a_job_that_leaves_the_configuration_gives_its_cores_to_the_others_and_may_come_back(ray, controller):
    ray.describe(jobs=JOBS[:1], initial=(1,))
    until(lambda: ray.fake.counts() == {"a": 8}, AGAIN_S, f"alone; {controller.said[-3:]}")
    ray.describe()
    until(lambda: ray.fake.counts() == HALF, AGAIN_S, f"both; {controller.said[-3:]}")


def test_the_token_of_ray_rotates_without_a_restart(world, ray, controller):
    began = time.monotonic()
    ray.fake.token = "second"
    until(lambda: controller.heard("the token is wrong"), 10)
    (world.folder / "token").write_text("second")
    since = time.monotonic()
    until(lambda: any(when > since + 1 for when, _ in controller.ticks), 10)
    said_until = len([line for _, line in controller.said if "the token is wrong" in line])
    ray.fake.targets["a"] = 1
    until(lambda: ray.fake.counts() == HALF, AGAIN_S, f"with the new token; {controller.said[-3:]}")
    assert len([line for _, line in controller.said if "the token is wrong" in line]) <= said_until + 1
    assert controller.process.poll() is None
    assert not controller.heard("first")
    assert not controller.heard("second")
    assert time.monotonic() > began


# --- what is refused before anything is changed -----------------------------------------------------------------------


def refused(world, ray, monkeypatch, capsys, **changed) -> str:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(world.folder / "token"))
    before = dict(ray.fake.targets)
    assert cli.main(["run", *arguments(world, ray, **changed)]) == 2
    assert (ray.fake.targets, ray.fake.scaled) == (before, [])
    said = [line for line in capsys.readouterr().err.strip().splitlines() if line.startswith("faro: ")]
    assert len(said) == 1
    return said[0]


def test_a_wrong_token_of_ray(world, ray, monkeypatch, capsys):
    (world.folder / "token").write_text("old")
    said = refused(world, ray, monkeypatch, capsys)
    assert "the token is wrong; set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH" in said
    assert "old" not in said.replace(str(world.folder), "")


def test_a_cluster_that_kuberay_is_not_installed_on(world, ray, monkeypatch, capsys):
    nowhere = (("ray.io", "v9", "rayservices", "KubeRay"),)[0]
    monkeypatch.setattr("faro_lib.kube.preflight.RAY_SERVICES", nowhere)
    assert "does not know rayservices.ray.io/v9; KubeRay brings it" in refused(world, ray, monkeypatch, capsys)


def test_workers_too_few_for_everybodys_minimum(world, ray, monkeypatch, capsys):
    rows = [{"job": job.name, "cold_start_s": 5, "min_replicas": 5} for job in JOBS]
    (world.folder / "jobs.yaml").write_text(yaml.safe_dump(rows))
    assert "8 cores cannot hold the minimum of 2 jobs, 10 cores" in refused(world, ray, monkeypatch, capsys)


def test_the_pods_bear_what_kuberay_gives_them_and_no_token_in_the_open(world, ray):
    (head,), workers = ray.pods("head"), ray.pods("worker")
    assert len(workers) == 2
    for pod in (head, *workers):
        assert "first" not in str(pod["spec"])
        env = {one["name"]: one for one in pod["spec"]["containers"][0]["env"]}
        assert env["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]["name"] == SECRET
    service = world.get("/api/v1/{ns}/services/ray-head-svc")
    assert {port["port"] for port in service["spec"]["ports"]} >= {8265, 8000}
    path = path_of({"kind": "RayService", "metadata": {"name": "ray", "namespace": world.namespace}})
    assert world.api.get(path)["status"]["conditions"][0]["status"] == "True"
    world.api.send("PATCH", path, {"metadata": {"labels": {"seen": "yes"}}}, kind=MERGE)
    puts = ray.fake.puts
    time.sleep(1)
    assert ray.fake.puts == puts, "what is the same is not submitted again"
