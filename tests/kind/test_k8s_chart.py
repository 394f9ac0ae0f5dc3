"""The Helm chart: Helm renders what `faro manifests` writes.

On kind, Helm installs it, upgrades it, tests it and rolls it back.
"""

from __future__ import annotations

import json
import subprocess

import pytest
import yaml
from fake_prometheus import FakePrometheus
from k8s_faro import NAME
from k8s_ray import IMAGE
from k8s_world import ROOT, World, apply, gateway, kubeconfig, table, until

from faro_lib.workload.readers import read_jobs
from faro_ops import cli
from faro_ops.operate.kube.manifests import JOURNAL

pytestmark = pytest.mark.k8s
CHART, JOBS = ROOT / "charts/faro", ROOT / "cluster/jobs.yaml"
# Kustomize needs the first two; the user brings the last two.
NOT_IN_THE_CHART = ("Kustomization", "Namespace", "RayService", "ResourceQuota")
PROMETHEUS = "http://prometheus.elsewhere:9090"


def helm(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["helm", *arguments], capture_output=True, text=True, timeout=300)


def by_name(things):
    found = [thing for thing in things if thing and thing["kind"] not in NOT_IN_THE_CHART]
    return {
        (thing["kind"], thing["metadata"].get("namespace"), thing["metadata"]["name"]): thing
        for thing in found
    }


# Options of `faro manifests`, and the chart's values for the same.
SETTINGS = {
    "rayserve": ([], {"backend": "rayserve"}),
    "deployments": (["--backend", "deployments"], {"backend": "deployments"}),
    "ceilings": (
        ["--backend", "deployments", "--act", "ceilings"],
        {"backend": "deployments", "act": "ceilings"},
    ),
    "dry run": (["--dry-run"], {"apply": False}),
    "options": (
        ["--option=--earn", "--option=--max-scaling-actions=1"],
        {"options": ["--earn", "--max-scaling-actions=1"]},
    ),
    "names": (
        ["--image", "a/b:c", "--operator-namespace", "o", "--monitoring-namespace", "m"],
        {"image": "a/b:c", "operatorNamespace": "o", "monitoringNamespace": "m"},
    ),
    "workers": (["--workers", "3"], {"workers": 3}),
}


@pytest.mark.parametrize("models", ["faro", "models"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_helm_renders_the_objects_of_faro_manifests(setting, models, tmp_path):
    """models : the namespace of the Deployments."""
    options, changed = SETTINGS[setting]
    jobs, written = tmp_path / "jobs.yaml", tmp_path / "manifests"
    table = yaml.safe_load(JOBS.read_text())
    for row in table["jobs"]:
        row["deployment"]["namespace"] = models
    jobs.write_text(yaml.safe_dump(table))
    common = ["--service-monitor", "--tick", "2.5", "--name", "n", "--prometheus", PROMETHEUS]
    values = {
        "apply": True,
        "serviceMonitor": True,
        "tickSeconds": 2.5,
        "name": "n",
        "prometheus": PROMETHEUS,
        "image": "faro:local",
        "deployments": sorted(job.name for job in read_jobs(JOBS)),
        "namespaces": sorted({models} - {"faro"}),
    }
    assert (
        cli.main(["manifests", "--jobs", str(jobs), "--out", str(written), *common, *options]) == 0
    )
    objects = [
        one
        for path in sorted(written.glob("*.yaml"))
        for one in yaml.safe_load_all(path.read_text())
    ]
    assert by_name(yaml.safe_load_all(rendered(jobs, values | changed))) == by_name(objects)


def rendered(jobs, values) -> str:
    """What `helm template` writes for these values of the chart."""
    done = helm(
        *("template", "faro", str(CHART), "--namespace", "faro", "--include-crds", "--no-hooks"),
        *("--set-file", f"jobs={jobs}"),
        *(word for key in values for word in ("--set-json", f"{key}={json.dumps(values[key])}")),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_prometheus_operator_finds_the_objects_by_the_labels_of_the_user():
    values = {"serviceMonitor": True, "monitorLabels": {"release": "a", "b.c/d": "true"}}
    objects = by_name(yaml.safe_load_all(rendered(JOBS, values)))
    found = [
        one for (kind, *_), one in objects.items() if kind in ("ServiceMonitor", "PrometheusRule")
    ]
    own = {"app.kubernetes.io/name": NAME, "app.kubernetes.io/part-of": "faro"}
    assert [one["metadata"]["labels"] for one in found] == [own | values["monitorLabels"]] * 2


def test_helm_lint_has_no_complaint():
    done = helm("lint", "--strict", str(CHART), "--set", "jobs=x")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "value",
    [
        "image=x y",
        "tickSeconds=0",
        "backend=ray",
        "name=A",
        "jobs=",
        "jbos=x",
        "backend=deployments",
        "act=ceilings",
    ],
)
def test_helm_refuses_a_value_outside_the_schema(value):
    done = helm("template", "faro", str(CHART), "--set", "jobs=x", "--set", value)
    assert done.returncode != 0
    assert any(word in done.stderr for word in (f"/{value.split('=')[0]}", "jbos", "deployments"))


@pytest.fixture
def prometheus():
    """A Prometheus on the host, at an address that pods can reach."""
    with FakePrometheus({"requests": 60.0, "seconds": 0.2}).serving(gateway()) as server:
        yield server


@pytest.fixture
def release(tmp_path, prometheus):
    """A namespace with two Deployments, and a function that runs helm on the release `faro`."""
    world = World(tmp_path)
    apply(world.api, *(world.deployment(name, cpu=0.1) for name in ("a", "b")))
    jobs = tmp_path / "jobs.yaml"
    jobs.write_text(yaml.safe_dump({"jobs": table(["a", "b"], cores=0.1, max_replicas=3)}))
    values = f"backend=deployments,image={IMAGE},policy=FairShare,tickSeconds=5"
    values += f",prometheus={prometheus.url}"
    values += ",deployments={a,b}"

    def run(verb: str, *arguments: str) -> str:
        chart = (
            [str(CHART), "--set", values, "--set-file", f"jobs={jobs}"]
            if verb in ("install", "upgrade")
            else []
        )
        place = ["--namespace", world.namespace, "--kubeconfig", kubeconfig()]
        done = helm(verb, "faro", *chart, *place, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    yield world, run
    run("uninstall", "--ignore-not-found")
    world.close()


def replicas(world: World) -> list[int]:
    return [
        world.get(f"/apis/apps/v1/{{ns}}/deployments/{name}")["spec"]["replicas"]
        for name in ("a", "b")
    ]


def kubectl(world: World, *arguments: str) -> str:
    command = ["kubectl", "--kubeconfig", kubeconfig(), "--namespace", world.namespace, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def explained(world: World, pod: str) -> str:
    """The last decision in the journal of this pod."""
    return kubectl(world, "exec", pod, "--", "faro", "explain", JOURNAL)


def all_ready(world: World) -> bool:
    deployment = world.get(f"/apis/apps/v1/{{ns}}/deployments/{NAME}")
    return deployment["status"].get("readyReplicas") == 2


def restarts(world: World, pod: str) -> int:
    (container,) = world.get(f"/api/v1/{{ns}}/pods/{pod}")["status"]["containerStatuses"]
    return container["restartCount"]


@pytest.mark.slow
def test_a_release_watches_then_scales_after_an_upgrade_and_stops_scaling_after_a_rollback(release):
    world, run = release
    run("install", "--wait", "--timeout", "240s")
    assert replicas(world) == [1, 1]
    run("upgrade", "--set", "apply=true", "--wait", "--timeout", "240s")
    until(lambda: min(replicas(world)) > 1, 120, "the controller scales")
    run("test")
    holder = world.get("/apis/coordination.k8s.io/v1/{ns}/leases/faro")["spec"]["holderIdentity"]
    leader = holder.rpartition("-")[0]  # without the process
    assert "FairShare" in explained(world, leader)
    kubectl(world, "exec", leader, "--", "sh", "-c", "kill 1")
    until(
        lambda: restarts(world, leader) == 1 and all_ready(world), 180, "its container starts again"
    )
    assert "FairShare" in explained(world, leader), "the journal outlives the container"
    run("rollback", "1", "--wait", "--timeout", "240s")
    controller = world.get(f"/apis/apps/v1/{{ns}}/deployments/{NAME}")["spec"]["template"]["spec"][
        "containers"
    ][0]
    assert "--apply" not in controller["args"]
    revisions = json.loads(run("history", "--output", "json"))
    assert [one["status"] for one in revisions] == ["superseded", "superseded", "deployed"]
