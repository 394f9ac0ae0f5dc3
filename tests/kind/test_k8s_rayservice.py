"""On a kind cluster: `faro run` with a Ray that KubeRay's operator made.

And what the operator, pods and editors do to it.
"""

from __future__ import annotations

import time

import pytest
import yaml
from k8s_faro import WHOLE_S
from k8s_ray import RayWorld
from k8s_world import Controller, apply, crd, until
from kube_things import objects

from faro_lib.workload import Job
from faro_ops import cli
from faro_ops.operate.kube.manifests import SECRET, ManifestSpec
from faro_ops.operate.kube.status import PLURAL

pytestmark = [pytest.mark.k8s, pytest.mark.slow]
JOBS = (Job("a", cold_start_s=5), Job("b", cold_start_s=5))
START_S = 300.0  # of a process on a busy machine
AGAIN_S = 30.0
HEAD_S = 240.0  # until a new head serves
SETTLED_S = 30.0  # by then a new operator leads and has submitted
HALF = {"a": 4, "b": 4}  # a fair share of two workers of four cores
FIRST = {"a": 1, "b": 2}  # what the configuration says


@pytest.fixture(scope="module")
def ray(tmp_path_factory):
    one = RayWorld(tmp_path_factory.mktemp("ray"), JOBS, tuple(FIRST.values()))
    wanted = ManifestSpec(jobs=(), jobs_text="", namespace=one.namespace, name="ray")
    apply(one.api, crd(), *objects(wanted, "rbac.yaml"))
    until(
        lambda: one.get(f"/apis/autoscaling.faro/v1alpha1/{{ns}}/{PLURAL}"),
        60,
        "FaroPlan is served",
    )
    (one.folder / "token").write_text(one.token)
    (one.folder / "jobs.yaml").write_text(
        yaml.safe_dump([{"job": job.name, "cold_start_s": 5} for job in JOBS])
    )
    yield one
    one.close()


def arguments(ray, jobs=None) -> list[str]:
    said = {
        "--backend": "rayserve",
        "--address": ray.url,
        "--serve-address": ray.http,
        "--jobs": str(jobs or ray.folder / "jobs.yaml"),
        "--plan": f"{ray.namespace}/ray",
        "--kubeconfig": ray.account("ray-controller"),
        "--policy": "FairShare",
        "--tick": "1",
    }
    return ["--apply", *(word for pair in said.items() for word in pair)]


@pytest.fixture
def controller(ray):
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(ray.folder / "token")}
    one = Controller(*arguments(ray), **token)
    until(
        lambda: one.ticks and ray.counts() == HALF,
        START_S,
        lambda: f"the first plan; {one.said[-3:]}",
    )
    yield one
    one.end()


def reasons(controller, since: float) -> set[str]:
    return {
        job["reason"]
        for when, tick in controller.ticks
        if when > since
        for job in tick["plan"].values()
    }


def capacity(ray) -> float:
    return ray.get(f"/apis/autoscaling.faro/v1alpha1/{{ns}}/{PLURAL}/ray")["status"][
        "capacityCores"
    ]


def test_the_pods_bear_what_kuberay_gives_them_and_no_token_in_the_open(ray):
    (head,), workers = ray.pods("head"), ray.pods("worker")
    assert len(workers) == 2
    for pod in (head, *workers):
        assert ray.token not in str(pod["spec"])
        env = {one["name"]: one for one in pod["spec"]["containers"][0]["env"]}
        assert env["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]["name"] == SECRET
    service = ray.get("/api/v1/{ns}/services/ray-head-svc")
    assert {port["port"] for port in service["spec"]["ports"]} >= {8265, 8000}


@pytest.mark.fault
def test_someone_who_scales_by_hand_is_overruled(ray, controller):
    began = time.monotonic()
    ray.scale("a", 1)
    until(
        lambda: ray.counts() == HALF and "drift-corrected" in reasons(controller, began),
        AGAIN_S,
        "as it was",
    )


@pytest.mark.fault
def test_a_restarted_operator_submits_the_same_configuration_and_resets_nothing(ray, controller):
    going = ray.delete_operator()
    until(lambda: ray.operators() - going, 120, "another operator")
    settled = time.monotonic() + SETTLED_S
    while time.monotonic() < settled:
        assert ray.counts() == HALF
        time.sleep(0.2)
    assert controller.process.poll() is None


@pytest.mark.fault
def test_counts_that_an_edit_of_the_configuration_resets_are_asserted_again(ray, controller):
    """For some seconds Ray then knows no replica of a job.

    After that, it knows as many as the configuration says.
    """
    began = time.monotonic()
    ray.describe(JOBS, tuple(FIRST.values()), max_ongoing_requests=20)
    until(lambda: ray.counts() != HALF, 60, "it is submitted again")
    until(lambda: ray.counts() == HALF, AGAIN_S, lambda: f"as it was; {controller.said[-3:]}")
    print(
        f"after an edit of the configuration it was as before in {time.monotonic() - began:.1f} s"
    )
    assert controller.process.poll() is None


@pytest.mark.fault
def test_a_worker_that_goes_takes_its_cores_and_its_successor_brings_them_back(ray, controller):
    until(lambda: capacity(ray) == 8, 30)
    ray.delete("worker")
    began = time.monotonic()
    until(
        lambda: ray.counts() == {"a": 2, "b": 2},
        15,
        lambda: f"the plan follows; {controller.said[-3:]}",
    )
    print(f"the plan followed the lost worker after {time.monotonic() - began:.1f} s")
    until(lambda: ray.counts() == HALF, 120, lambda: f"with another worker; {controller.said[-3:]}")
    until(lambda: capacity(ray) == 8, 10)
    print(f"with another worker it was as before after {time.monotonic() - began:.1f} s")


@pytest.mark.fault
def test_a_job_that_leaves_the_configuration_gives_its_cores_to_the_others_and_may_come_back(
    ray, controller
):
    ray.describe(JOBS[:1], (1,))
    until(lambda: ray.counts() == {"a": 8}, 60, lambda: f"alone; {controller.said[-3:]}")
    ray.describe(JOBS, tuple(FIRST.values()))
    until(lambda: ray.counts() == HALF, 150, lambda: f"both; {controller.said[-3:]}")


@pytest.mark.fault
def test_a_head_that_crashes_takes_everything_with_it_and_the_controller_waits_and_goes_on(
    ray, controller
):
    began, head = time.monotonic(), ray.delete("head")
    until(
        lambda: [pod for pod in ray.pods("head") if pod["metadata"]["name"] != head],
        60,
        "another head",
    )
    until(lambda: controller.heard("faro: "), 30, "the controller says what is wrong")
    until(lambda: ray.counts() == HALF, HEAD_S, lambda: f"as it was; {controller.said[-3:]}")
    assert controller.process.poll() is None
    print(f"on a new head the plan stood after {time.monotonic() - began:.1f} s")


@pytest.mark.fault
def test_the_token_of_ray_rotates_without_a_restart_of_the_controller(ray, controller):
    """Ray's pods take theirs when they start."""
    before = [pod["metadata"]["name"] for kind in ("head", "worker") for pod in ray.pods(kind)]
    ray.set_token("second")
    for name in before:  # none of their successors, which have the new token
        ray.delete_pod(name)
    until(
        lambda: controller.heard("the token is wrong"),
        WHOLE_S,
        lambda: f"the old token is refused; {controller.said[-3:]}\n{ray.state()}\nit",
    )
    (ray.folder / "token").write_text("second")
    until(
        lambda: ray.counts() == HALF,
        WHOLE_S,
        lambda: f"the plan with the new token; {controller.said[-3:]}\n{ray.state()}\nit",
    )
    assert controller.process.poll() is None
    assert not controller.heard("first")
    assert not controller.heard("second")


# --- what is refused before anything is changed ---------------------------------------------------


def refused(ray, monkeypatch, capsys, **changed) -> str:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(changed.pop("token", ray.folder / "token")))
    before = ray.counts()
    assert cli.main(["run", *arguments(ray, **changed)]) == 2
    assert ray.counts() == before
    said = [
        line for line in capsys.readouterr().err.strip().splitlines() if line.startswith("faro: ")
    ]
    assert len(said) == 1
    return said[0]


def test_a_wrong_token_of_ray(ray, monkeypatch, capsys, tmp_path):
    (tmp_path / "token").write_text("old")
    said = refused(ray, monkeypatch, capsys, token=tmp_path / "token")
    assert "the token is wrong; set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH" in said
    assert "old" not in said.replace(str(tmp_path), "")


def test_a_cluster_that_kuberay_is_not_installed_on(ray, monkeypatch, capsys):
    monkeypatch.setattr(
        "faro_ops.operate.kube.preflight.RAY_SERVICES", ("ray.io", "v9", "rayservices", "KubeRay")
    )
    assert "does not know rayservices.ray.io/v9; KubeRay installs it" in refused(
        ray, monkeypatch, capsys
    )
