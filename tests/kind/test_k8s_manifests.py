"""What `faro manifests` writes is current Kubernetes and holds no secret.

A real API server accepts it.
"""

from __future__ import annotations

import copy
import shutil
import subprocess

import pytest
import yaml
from k8s_world import ROOT, World, apply, crd, kubeconfig, path_of, until

from faro_ops import cli
from faro_ops.operate.kube.capacity import requests_of
from faro_ops.operate.kube.client import amount
from faro_ops.operate.kube.manifests import APPLY_FIRST

JOBS = ROOT / "cluster/jobs.yaml"
FOREIGN = (
    "Kustomization",
    "ServiceMonitor",
    "PrometheusRule",
)  # not the API server's own, nor Faro's
BACKENDS = {
    "rayserve": ["--backend", "rayserve", "--service-monitor"],
    "deployments": [
        "--backend",
        "deployments",
        "--prometheus",
        "http://prometheus.monitoring:9090",
    ],
}


def write(backend, folder):
    assert (
        cli.main(["manifests", "--jobs", str(JOBS), "--out", str(folder), *BACKENDS[backend]]) == 0
    )
    return [
        thing
        for path in sorted(folder.glob("*.yaml"))
        for thing in yaml.safe_load_all(path.read_text())
    ]


@pytest.fixture(scope="module", params=BACKENDS)
def written(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("manifests")
    return request.param, folder, write(request.param, folder)


@pytest.fixture(scope="module")
def for_ray(tmp_path_factory):
    return write("rayserve", tmp_path_factory.mktemp("ray"))


def one(things, kind, name=None):
    return next(
        thing
        for thing in things
        if thing["kind"] == kind and (name is None or thing["metadata"]["name"] == name)
    )


def pods(things):
    """Every pod that these objects make, with a name for it."""
    for thing in things:
        if thing["kind"] == "Deployment":
            yield thing["metadata"]["name"], thing["spec"]["template"]
        if thing["kind"] == "RayService":
            cluster = thing["spec"]["rayClusterConfig"]
            for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
                yield group.get("groupName", "head"), group["template"]


def test_every_object_is_what_the_newest_kubernetes_accepts(written):
    validate = pytest.importorskip("kubernetes_validate")
    _, _, things = written
    checked = [
        thing for thing in things if thing["kind"] not in (*FOREIGN, "RayService", "FaroPlan")
    ]
    checked += [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod["spec"]}
        for name, pod in pods(things)
    ]
    for thing in checked:
        validate.validate(thing, validate.latest_version(), strict=True)
    assert len(checked) > 10


def test_kustomize_leaves_out_the_namespace_and_the_crd_so_that_a_delete_keeps_model_servers(
    written,
):
    _, folder, things = written
    listed = one(things, "Kustomization")["resources"]
    assert {*listed, *APPLY_FIRST, "kustomization.yaml"} == {
        path.name for path in folder.glob("*.yaml")
    }
    assert not {*listed} & {*APPLY_FIRST}


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_kustomize_builds_it(written):
    _, folder, things = written
    built = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert len(list(yaml.safe_load_all(built.stdout))) == len(things) - 1 - len(APPLY_FIRST)


def test_no_pod_has_a_privilege(written):
    _, _, things = written
    for name, pod in pods(things):
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"], name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"].keys() >= {"requests", "limits"}


def test_the_controller_has_probes_a_read_only_root_and_a_second_one_beside_it(written):
    _, _, things = written
    deployment = one(things, "Deployment", "faro-controller")
    assert deployment["spec"]["replicas"] == 2
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    probes = {
        name: container[name]["httpGet"]["path"] for name in container if name.endswith("Probe")
    }
    assert probes == {
        "startupProbe": "/healthz",
        "readinessProbe": "/readyz",
        "livenessProbe": "/healthz",
    }


def test_the_pods_of_others_are_not_refused_for_our_sake(written):
    backend, _, things = written
    labels = one(things, "Namespace")["metadata"]["labels"]
    assert ("pod-security.kubernetes.io/enforce" in labels) == (backend == "rayserve")
    assert labels["pod-security.kubernetes.io/warn"] == "restricted"


def test_there_is_no_secret_in_it(written):
    _, _, things = written
    assert all(thing["kind"] != "Secret" for thing in things)
    for _, pod in pods(things):
        for container in pod["spec"]["containers"]:
            for variable in container.get("env", []):
                assert "TOKEN" not in variable["name"] or variable["name"].endswith("_PATH")


def test_the_command_line_knows_every_option_that_the_controller_is_started_with(written):
    _, _, things = written
    args = one(things, "Deployment", "faro-controller")["spec"]["template"]["spec"]["containers"][
        0
    ]["args"]
    from typer.main import get_command

    from faro_ops.cli.app import app

    known = {
        option for parameter in get_command(app).commands["run"].params for option in parameter.opts
    }
    assert {word for word in args if word.startswith("--")} <= known


def test_a_controller_may_be_asked_to_print_only(tmp_path):
    def begun(*more):
        folder = tmp_path / str(len(more))
        assert cli.main(["manifests", "--jobs", str(JOBS), "--out", str(folder), *more]) == 0
        things = yaml.safe_load_all((folder / "controller.yaml").read_text())
        return one(things, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]

    assert begun("--dry-run") == [word for word in begun() if word != "--apply"]
    assert "--apply" in begun()


def test_a_node_with_a_worker_can_be_drained(for_ray):
    workers = one(for_ray, "PodDisruptionBudget", "faro-workers")["spec"]
    count = one(for_ray, "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"][0][
        "replicas"
    ]
    assert workers["minAvailable"] == count - 1
    assert "maxUnavailable" not in workers, (
        "Kubernetes cannot tell how many workers a RayCluster wants"
    )
    assert one(for_ray, "PodDisruptionBudget", "faro-controller")["spec"]["maxUnavailable"] == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_commands_that_are_printed_come_in_an_order_that_a_new_cluster_takes(
    backend, tmp_path, capsys
):
    write(backend, tmp_path / "m")
    said = [line for line in capsys.readouterr().out.splitlines() if "kubectl" in line]
    assert (
        said[0]
        == f"kubectl apply --server-side -f {tmp_path}/m/namespace.yaml -f {tmp_path}/m/crd.yaml"
    )
    assert said[1].startswith("kubectl wait --for condition=established")
    assert said[-1] == f"kubectl apply --server-side --force-conflicts -k {tmp_path}/m"
    secrets = [line for line in said if "create secret" in line]
    assert len(secrets) == (backend == "rayserve")
    assert all(
        line.startswith("openssl rand -hex 32 | tr -d '\\n' | kubectl -n faro ") for line in secrets
    )


def test_each_job_is_an_application_that_is_scaled_from_outside(for_ray):
    served = yaml.safe_load(one(for_ray, "RayService")["spec"]["serveConfigV2"])
    jobs = {app["name"]: app for app in served["applications"]}
    assert {"vision", "speech", "text"} <= jobs.keys()
    for name in ("vision", "speech", "text"):
        assert jobs[name]["external_scaler_enabled"] is True
        assert "autoscaling_config" not in str(jobs[name])
    workers = one(for_ray, "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    assert workers["replicas"] == workers["minReplicas"] == workers["maxReplicas"], (
        "Faro divides what there is"
    )


def test_an_image_may_be_named_by_its_digest(tmp_path):
    image = "registry.example:5000/team/faro:v1@sha256:" + 64 * "a"
    assert (
        cli.main(["manifests", "--jobs", str(JOBS), "--out", str(tmp_path), "--image", image]) == 0
    )
    things = [
        thing for path in tmp_path.glob("*.yaml") for thing in yaml.safe_load_all(path.read_text())
    ]
    assert {
        container["image"] for _, pod in pods(things) for container in pod["spec"]["containers"]
    } == {image}


def test_further_options_of_faro_run_reach_the_controller(tmp_path):
    given = ["--option=--earn", "--option=--max-scaling-actions=1"]
    assert (
        cli.main(["manifests", "--jobs", str(JOBS), "--out", str(tmp_path / "good"), *given]) == 0
    )
    (controller,) = (
        container
        for name, pod in pods(
            yaml.safe_load_all((tmp_path / "good" / "controller.yaml").read_text())
        )
        for container in pod["spec"]["containers"]
    )
    assert {"--earn", "--max-scaling-actions=1"} < set(controller["args"])


def test_a_changed_table_of_jobs_replaces_the_controllers_which_read_it_when_they_start(tmp_path):
    def template(jobs, folder):
        assert cli.main(["manifests", "--jobs", str(jobs), "--out", str(tmp_path / folder)]) == 0
        found = yaml.safe_load_all((tmp_path / folder / "controller.yaml").read_text())
        return one(list(found), "Deployment")["spec"]["template"]

    changed = tmp_path / "jobs.yaml"
    changed.write_text(JOBS.read_text().replace("slo_s: 0.6", "slo_s: 0.7"))
    assert template(JOBS, "first") == template(JOBS, "again")
    assert template(JOBS, "first") != template(changed, "changed")


def test_requests_enter_at_the_head_and_never_at_a_worker_where_nothing_listens(for_ray):
    service = one(for_ray, "RayService")["spec"]
    (port,) = service["serveService"]["spec"]["ports"]
    cluster = service["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    containers = [group["template"]["spec"]["containers"][0] for group in groups]
    defined = [[one["name"] for one in container.get("ports", [])] for container in containers]
    assert [port["targetPort"] in names for names in defined] == [True, False]


def test_the_dashboard_of_ray_hears_only_the_controller_the_operator_and_its_own_cluster(for_ray):
    policy = one(for_ray, "NetworkPolicy", "faro-ray")["spec"]
    open_ports = [
        port["port"] for rule in policy["ingress"] if "from" not in rule for port in rule["ports"]
    ]
    assert open_ports == [8000]
    (operator,) = [
        peer
        for rule in policy["ingress"]
        for peer in rule.get("from", [])
        if "namespaceSelector" in peer
    ]
    assert operator["namespaceSelector"] == {
        "matchLabels": {"kubernetes.io/metadata.name": "kuberay-system"}
    }
    assert operator["podSelector"] == {
        "matchLabels": {"app.kubernetes.io/component": "kuberay-operator"}
    }


def test_only_the_namespace_of_prometheus_reaches_the_metrics(written):
    _, _, things = written
    (rule,) = one(things, "NetworkPolicy", "faro-controller")["spec"]["ingress"]
    assert rule["from"] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    ]


@pytest.mark.parametrize(
    "more", [[], ["--head-cpu", "0.5", "--head-memory", "3", "--worker-cpu", "0.3"]]
)
def test_the_quota_has_room_for_the_second_ray_cluster_of_an_upgrade(tmp_path, more):
    assert cli.main(["manifests", "--jobs", str(JOBS), "--out", str(tmp_path), *more]) == 0
    things = [
        thing for path in tmp_path.glob("*.yaml") for thing in yaml.safe_load_all(path.read_text())
    ]
    hard = {
        name: amount(value) for name, value in one(things, "ResourceQuota")["spec"]["hard"].items()
    }
    cluster = one(things, "RayService")["spec"]["rayClusterConfig"]
    head, (workers,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    controller = one(things, "Deployment")["spec"]
    two_clusters = [head["template"], *[workers["template"]] * workers["replicas"]] * 2
    pods = [*two_clusters, *[controller["template"]] * 2 * controller["replicas"]]
    assert hard["pods"] == len(pods)
    for resource in ("cpu", "memory"):
        assert hard[f"requests.{resource}"] == pytest.approx(
            sum(requests_of(pod)[resource] for pod in pods)
        )


def test_the_head_requests_what_it_is_given_and_may_use_two_cores(tmp_path):
    assert (
        cli.main(["manifests", "--jobs", str(JOBS), "--out", str(tmp_path), "--head-cpu", "0.5"])
        == 0
    )
    service = yaml.safe_load((tmp_path / "rayservice.yaml").read_text())
    head = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]
    assert head["spec"]["containers"][0]["resources"] == {
        "requests": {"cpu": "0.5", "memory": "4Gi", "ephemeral-storage": "1Gi"},
        "limits": {"cpu": "2", "memory": "4Gi", "ephemeral-storage": "9Gi"},
    }
    assert "autoscaling.faro/cores" not in head["metadata"]["labels"]


# --- on a kind cluster ----------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path):
    one = World(tmp_path)
    yield one
    one.close()


@pytest.mark.k8s
def test_the_api_server_takes_every_object_in_a_dry_run(written, world):
    """KubeRay's own definition checks the RayService, its rules in CEL included."""
    _, _, things = written
    apply(world.api, crd())
    until(lambda: world.api.get("/apis/autoscaling.faro/v1alpha1/faroplans"), 60)
    taken = 0
    for thing in things:
        if thing["kind"] in FOREIGN:
            continue
        thing = copy.deepcopy(thing)
        if "namespace" in thing["metadata"]:
            thing["metadata"]["namespace"] = world.namespace
        answer = world.api.apply(path_of(thing), thing, dryRun="All")
        assert answer["metadata"]["name"] == thing["metadata"]["name"]
        assert not answer["metadata"].get("warnings")
        taken += 1
    assert taken > 10


@pytest.mark.k8s
def test_a_second_apply_changes_nothing(written, world):
    _, _, things = written
    apply(world.api, crd())
    until(lambda: world.api.get("/apis/autoscaling.faro/v1alpha1/faroplans"), 60)
    ours = [
        copy.deepcopy(thing)
        for thing in things
        if thing["kind"] in ("ConfigMap", "Role", "NetworkPolicy", "Deployment", "FaroPlan")
    ]
    for thing in ours:
        thing["metadata"]["namespace"] = world.namespace
    versions = []
    for _ in range(2):
        apply(world.api, *ours)
        versions.append(
            [world.api.get(path_of(thing))["metadata"].get("generation") for thing in ours]
        )
    assert versions[0] == versions[1]


@pytest.mark.k8s
def test_kubectl_shows_the_plan_as_a_table(world):
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed")
    apply(world.api, crd())
    until(lambda: world.api.get("/apis/autoscaling.faro/v1alpha1/faroplans"), 60)
    meta = {"name": "main", "namespace": world.namespace}
    apply(
        world.api,
        {
            "apiVersion": "autoscaling.faro/v1alpha1",
            "kind": "FaroPlan",
            "metadata": meta,
            "spec": {"policy": "Faro-Sum"},
        },
    )
    command = ["kubectl", "--kubeconfig", kubeconfig(), "-n", world.namespace, "get", "faroplans"]
    shown = until(lambda: subprocess.run(command, capture_output=True, text=True).stdout, 30)
    assert shown.split()[:7] == [
        "NAME",
        "POLICY",
        "CAPACITY",
        "USED",
        "TARGETS",
        "REASON",
        "DECIDED",
    ]
    assert "Faro-Sum" in shown
