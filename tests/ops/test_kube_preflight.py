"""Preflight checks, each of which fails with one line. (On a real API server: test_k8s_*.)"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from kube_api import KubeApi
from kube_things import DEPLOYMENT, NAMESPACE, object_path, objects

from faro_lib.workload import Job
from faro_ops import cli
from faro_ops.operate.clock import Clock
from faro_ops.operate.controller.model import REFIT_GB
from faro_ops.operate.kube import preflight
from faro_ops.operate.kube.client import ApiError
from faro_ops.operate.kube.deployments import DeploymentRef
from faro_ops.operate.kube.lease import POD_NAME, POD_UID
from faro_ops.operate.kube.manifests import ManifestSpec, render
from faro_ops.operate.kube.operate import DeploymentsBackend, NamespacedName, check_controller
from faro_ops.operate.memory.overrides import Settings
from faro_ops.operate.rayserve.spec import serve_specs

REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


@pytest.fixture
def server():
    return KubeApi(namespace="faro")


def reviewed(allowed) -> KubeApi:
    """A server where `allowed` (resource attributes) -> bool decides who may do what."""
    server = KubeApi(namespace="faro")
    server.may = allowed
    return server


def reviews(server) -> list[dict]:
    """The resource attributes of each review that was asked for."""
    sent = [body for _, path, body in server.requests if path == REVIEWS]
    return [body["spec"]["resourceAttributes"] for body in sent]


class TestServer:
    def test_any_answer_to_a_permission_review_is_accepted(self):
        preflight.check_server(reviewed(lambda asked: False))

    def test_refused_credentials_mention_the_token(self, server):
        server.refuse(401)
        with pytest.raises(
            ValueError,
            match=r"^https://faro\.test: the credentials are refused; has the token expired\?$",
        ):
            preflight.check_server(server)

    def test_a_server_that_fails_is_reported_as_it_is(self, server):
        server.refuse(503)
        with pytest.raises(ValueError, match=r"POST .*: 503"):
            preflight.check_server(server)


class TestNamespace:
    def test_an_active_namespace_is_accepted(self, server):
        preflight.check_namespace(server, "faro")

    def test_a_missing_namespace_says_how_to_create_it(self, server):
        server.remove(NAMESPACE, "faro", "")
        with pytest.raises(
            ValueError, match="namespace='faro' does not exist; kubectl create namespace faro"
        ):
            preflight.check_namespace(server, "faro")

    def test_a_terminating_namespace_is_refused(self, server):
        server.change(NAMESPACE, "faro", "", status={"phase": "Terminating"})
        with pytest.raises(ValueError, match="namespace='faro' is being deleted"):
            preflight.check_namespace(server, "faro")

    def test_a_forbidden_read_of_the_namespace_is_accepted(self, server):
        server.may = lambda asked: asked["resource"] != "namespaces"
        preflight.check_namespace(server, "faro")

    def test_a_failing_server_does_not_pass_the_check(self, server):
        server.refuse(500)
        with pytest.raises(ApiError, match="500"):
            preflight.check_namespace(server, "faro")


class TestCustomResources:
    def test_a_resource_that_is_served_passes(self, server):
        preflight.check_crds(server, [preflight.FARO_PLANS, preflight.RAY_SERVICES])

    @pytest.mark.parametrize("served", [{}, {"/apis/ray.io/v1": ("rayjobs",)}])
    def test_a_missing_resource_names_what_installs_it(self, server, served):
        server.served = served
        with pytest.raises(
            ValueError,
            match=r"does not know rayservices\.ray\.io/v1; KubeRay's operator installs it",
        ):
            preflight.check_crds(server, [preflight.RAY_SERVICES])

    def test_a_failing_server_is_not_taken_for_a_missing_resource(self, server):
        server.refuse(503)
        with pytest.raises(ApiError, match="503"):
            preflight.check_crds(server, [preflight.RAY_SERVICES])


class TestPermissions:
    def test_every_verb_is_reviewed_in_its_scope(self):
        server = reviewed(lambda asked: True)
        preflight.check_permissions(server, "faro", preflight.FOR_DEPLOYMENTS)
        asked = reviews(server)
        mine = {
            "namespace": "faro",
            "group": "apps",
            "resource": "deployments",
            "subresource": "scale",
            "verb": "patch",
            "name": "",
        }
        assert mine in asked
        everywhere = [one for one in asked if not one["namespace"]]
        assert {(one["resource"], one["verb"]) for one in everywhere} == {
            (resource, verb) for _, resource, verbs in preflight.CLUSTER_WIDE for verb in verbs
        }

    @pytest.mark.parametrize(
        ("lacking", "message"),
        [
            (
                {"resource": "deployments", "verb": "patch"},
                "may not patch deployments/scale.apps in namespace 'faro'",
            ),
            ({"resource": "nodes", "verb": "watch"}, "may not watch nodes in the whole cluster"),
        ],
    )
    def test_the_first_missing_permission_is_named(self, lacking, message):
        server = reviewed(lambda asked: not lacking.items() <= asked.items())
        with pytest.raises(ValueError, match=message + "; `faro manifests` has a Role"):
            preflight.check_permissions(server, "faro", preflight.FOR_DEPLOYMENTS)


@pytest.mark.parametrize("backend", ["rayserve", "deployments"])
def test_with_ray_the_controller_reads_only_the_pods_of_its_own_namespace(backend):
    """A Deployment's node may hold pods of any namespace; Ray's workers are pods of one."""
    things = everything(backend, "faro", "faro")

    def may_read_pods(kind: str) -> bool:
        rules = [rule for one in things if one["kind"] == kind for rule in one["rules"]]
        return any(rule["resources"] == ["pods"] for rule in rules)

    assert may_read_pods("ClusterRole") is (backend == "deployments")
    assert may_read_pods("Role") is (backend == "rayserve")


@pytest.mark.parametrize("on_ray", [True, False])
def test_the_permissions_that_a_controller_checks_are_those_of_its_roles(on_ray):
    def granted(asked: dict) -> bool:
        if asked["resource"] == "pods":
            return bool(asked["namespace"]) is on_ray
        return True

    server = reviewed(granted)
    check_controller(server, NamespacedName("faro", "faro"), on_ray=on_ray, act=True, fixed=False)


@pytest.mark.parametrize("backend", ["rayserve", "deployments"])
def test_the_pod_of_a_controller_knows_its_name_and_uid_for_the_lease(backend):
    (controller,) = (
        one for one in everything(backend, "faro", "faro") if one["kind"] == "Deployment"
    )
    (container,) = controller["spec"]["template"]["spec"]["containers"]
    fields = {
        one["name"]: one["valueFrom"]["fieldRef"]["fieldPath"]
        for one in container["env"]
        if "valueFrom" in one
    }
    assert fields == {POD_NAME: "metadata.name", POD_UID: "metadata.uid"}


def test_permissions_on_objects_are_asked_for_by_name():
    server = reviewed(lambda asked: asked.get("name") != "b")
    names = preflight.names_of("faro", ["a", "b"])
    with pytest.raises(
        ValueError, match=r"may not get deployments/scale.apps 'b' in namespace 'faro'; `faro manif"
    ):
        preflight.check_permissions(server, "faro", preflight.FOR_DEPLOYMENTS, (), names)
    preflight.check_permissions(
        server, "faro", preflight.FOR_DEPLOYMENTS, (), preflight.names_of("faro", ["a"])
    )


def test_the_role_names_the_deployments_and_the_plan_that_the_controller_changes():
    where = dict(
        namespace="faro",
        name="main",
        prometheus="http://x",
        deployments=("a", "b"),
        namespaces=("models",),
    )
    spec = ManifestSpec(jobs=(), jobs_text="", backend="deployments", **where)
    roles = {
        one["metadata"]["namespace"]: one
        for one in objects(spec, "rbac.yaml")
        if one["kind"] == "Role"
    }
    for role in roles.values():
        for rule in role["rules"]:
            if not {"create", "list", "watch"} & set(rule["verbs"]):
                names = {"deployments/scale": ["a", "b"], "configmaps": ["main-state"]}
                (resource,) = rule["resources"]
                assert rule["resourceNames"] == names.get(resource, ["main"])
    resources = [rule["resources"] for rule in roles["models"]["rules"]]
    assert resources == [
        ["resourcequotas"],
        ["deployments"],
        ["deployments/scale"],
        ["horizontalpodautoscalers"],
    ]


@pytest.mark.parametrize("ceilings", [False, True])
def test_the_role_in_another_namespace_may_read_its_quotas(ceilings):
    where = dict(
        namespace="faro", prometheus="http://x", deployments=("a",), namespaces=("models",)
    )
    spec = ManifestSpec(jobs=(), jobs_text="", backend="deployments", ceilings=ceilings, **where)
    (role,) = [
        one
        for one in objects(spec, "rbac.yaml")
        if (one["kind"], one["metadata"].get("namespace")) == ("Role", "models")
    ]
    assert {"apiGroups": [""], "resources": ["resourcequotas"], "verbs": ["list", "watch"]} in role[
        "rules"
    ]


@pytest.mark.parametrize("ceilings", [False, True])
def test_a_controller_that_may_not_read_the_quotas_of_its_deployments_does_not_start(
    ceilings, monkeypatch
):
    server = reviewed(lambda asked: asked["resource"] != "resourcequotas")
    monkeypatch.setattr(NamespacedName, "connect", lambda self: server)
    queries = {"requests": "sum(x[$window])", "latency_mean_s": "sum(y[$window])"}
    sections = {"a": {"namespace": "models", "queries": queries}}
    backend = DeploymentsBackend(
        NamespacedName("faro", "main"),
        prometheus="http://x",
        token_path=None,
        clock=Clock.starting_now(),
        ceilings=ceilings,
    )
    with pytest.raises(ValueError, match=r"^may not list resourcequotas in namespace 'models'"):
        backend(Settings((Job("a"),), {"deployment": sections}))


@pytest.mark.parametrize("act", ["replicas", "ceilings"])
def test_a_dry_run_needs_no_permission_to_change_anything(act, tmp_path, monkeypatch, capsys):
    server = reviewed(lambda asked: asked["verb"] in ("get", "list", "watch"))
    path = object_path(DEPLOYMENT, namespace="faro")
    server.refuse(404, "GET", path)
    monkeypatch.setattr(NamespacedName, "connect", lambda self, **_: server)
    # A formula in place of the measurement, which takes seconds.
    monkeypatch.setattr("faro_lib.simulate.measure.measure", lambda *_, **__: "mgc")
    section = {"queries": {"requests": "sum(x[$window])", "latency_mean_s": "sum(y[$window])"}}
    (tmp_path / "jobs.yaml").write_text(yaml.safe_dump([{"job": "a", "deployment": section}]))
    command = [
        "run",
        "--jobs",
        str(tmp_path / "jobs.yaml"),
        "--backend",
        "deployments",
        "--plan",
        "faro/main",
    ]
    command += ["--prometheus", "http://x", "--act", act]

    def refused(*more: str) -> str:
        assert cli.main([*command, *more]) == 2
        return capsys.readouterr().err

    assert "may not create events" in refused("--apply")
    assert f"GET {path}: 404" in refused(), "all permissions are there"


@pytest.mark.parametrize("section", [{"namespace": "kube-system"}, {}])
def test_a_deployment_of_kubernetes_itself_is_refused(section):
    queries = {"requests": "sum(x[$window])", "latency_mean_s": "sum(y[$window])"}
    with pytest.raises(
        ValueError, match=r"deployment\.namespace='kube-system' belongs to Kubernetes itself"
    ):
        DeploymentRef.of(Job("a"), section | {"queries": queries}, "kube-system")


def everything(backend: str, namespace: str, name: str, **more) -> list[dict]:
    """All objects of `faro manifests` except the namespace and the CRD, which may be shared."""
    jobs = (Job("a"),)
    how = dict(prometheus="http://x", served=serve_specs(jobs), initial=(1,), monitor=True) | more
    spec = ManifestSpec(jobs, "", backend, namespace, name, **how)
    files = ["rbac", "config", "controller", "network", "dashboard", "monitor"]
    files += ["rayservice", "quota"] if backend == "rayserve" else ["restore"]
    return [one for file in files for one in objects(spec, f"{file}.yaml")]


def place(thing: dict) -> tuple:
    return thing["kind"], thing["metadata"].get("namespace"), thing["metadata"]["name"]


@pytest.mark.parametrize("backend", ["rayserve", "deployments"])
def test_the_default_name_gives_the_objects_their_names(backend):
    places = {place(one) for one in everything(backend, "faro", "faro")}
    assert {("Deployment", "faro", "faro-controller"), ("ConfigMap", "faro", "faro-jobs")} <= places
    assert {name for kind, namespace, name in places if kind == "ClusterRole"} == {
        "faro-controller-faro"
    }


@pytest.mark.parametrize(("namespace", "name"), [("faro", "other"), ("elsewhere", "faro")])
@pytest.mark.parametrize("backend", ["rayserve", "deployments"])
def test_a_second_controller_replaces_no_object_of_the_first(backend, namespace, name):
    shared = dict(namespaces=("models",)) if backend == "deployments" else {}
    first = everything(backend, "faro", "faro", **shared)
    second = everything(backend, namespace, name, **shared)
    assert not {place(one) for one in first} & {place(one) for one in second}
    bindings = [one for one in second if one["kind"] == "RoleBinding"]
    roles = {
        (one["metadata"]["namespace"], one["metadata"]["name"])
        for one in second
        if one["kind"] == "Role"
    }
    assert {(one["metadata"]["namespace"], one["roleRef"]["name"]) for one in bindings} == roles
    assert len(roles) == (4 if backend == "deployments" else 1), "controller and `faro restore`"


@pytest.mark.parametrize("backend", ["rayserve", "deployments"])
def test_a_selector_selects_only_the_pods_of_its_own_controller(backend):
    first, second = everything(backend, "faro", "faro"), everything(backend, "faro", "other")

    def labels_of_pods(things):
        for thing in things:
            if thing["kind"] == "RayService":  # KubeRay adds labels to the pods of a RayCluster
                cluster = thing["spec"]["rayClusterConfig"]
                for kind, group in (
                    ("head", cluster["headGroupSpec"]),
                    ("worker", *cluster["workerGroupSpecs"]),
                ):
                    yield group["template"]["metadata"]["labels"] | {
                        "ray.io/is-ray-node": "yes",
                        "ray.io/node-type": kind,
                    }
            elif thing["kind"] == "Deployment":
                yield thing["spec"]["template"]["metadata"]["labels"]

    def selectors(thing):
        """The label selectors in an object, except of other programs' pods.

        Those are in another namespace.
        """
        if isinstance(thing, dict) and "namespaceSelector" not in thing:
            yield from [thing["matchLabels"]] if "matchLabels" in thing else []
            for value in thing.values():
                yield from selectors(value)
        elif isinstance(thing, list):
            for value in thing:
                yield from selectors(value)

    found = [
        one
        for thing in first
        if thing["kind"] not in ("RayService", "Service")
        for one in selectors(thing)
    ]
    found += [thing["spec"]["selector"] for thing in first if thing["kind"] == "Service"]
    assert len(found) >= 6
    for selector in found:
        assert any(selector.items() <= labels.items() for labels in labels_of_pods(first)), selector
        assert not any(selector.items() <= labels.items() for labels in labels_of_pods(second)), (
            selector
        )


@pytest.mark.parametrize("namespace", ["on", "123", "1e3"])
def test_a_name_that_yaml_takes_for_something_else_stays_text(namespace):
    for thing in everything("rayserve", namespace, "on"):
        assert isinstance(thing["metadata"]["name"], str)
        assert thing["metadata"].get("namespace", namespace) == namespace
    text = render(ManifestSpec((), "", namespace=namespace), "namespace.yaml")
    assert yaml.safe_load(text)["metadata"]["name"] == namespace


@pytest.mark.parametrize(
    ("name", "more", "problem"),
    [
        ("1st", {}, "a letter, then at most 46 of a-z, 0-9 and -"),
        ("x" * 48, {}, "a letter, then at most 46 of a-z, 0-9 and -"),
        (
            "x" * 34,
            {"backend": "deployments", "prometheus": "http://x", "ceilings": True},
            "a letter, then at most 32 of a-z, 0-9 and -",
        ),
    ],
)
def test_a_name_that_kubernetes_or_kuberay_would_refuse_is_refused(name, more, problem):
    ManifestSpec((), "", name=f"x{name[2:]}", **more)
    with pytest.raises(ValueError, match=f"^name='{name}' must be {problem}$"):
        ManifestSpec((), "", name=name, **more)


def test_the_plan_in_the_manifests_has_no_field_that_the_controller_writes():
    (plan,) = [one for one in everything("rayserve", "faro", "faro") if one["kind"] == "FaroPlan"]
    assert "spec" not in plan


@pytest.mark.parametrize("backend", ["rayserve", "deployments"])
def test_every_container_has_a_limit_on_the_disk_that_it_uses(backend):
    jobs = (Job("a"),)
    spec = ManifestSpec(
        jobs, "", backend, prometheus="http://x", served=serve_specs(jobs), initial=(1,)
    )
    files = ["controller.yaml", *(["rayservice.yaml"] if backend == "rayserve" else [])]
    pods = [pod for file in files for one in objects(spec, file) for pod in pod_specs(one)]
    assert len(pods) == (3 if backend == "rayserve" else 1)
    for pod in pods:
        assert all("ephemeral-storage" in one["resources"]["limits"] for one in pod["containers"])
        assert all(
            "sizeLimit" in volume["emptyDir"] for volume in pod["volumes"] if "emptyDir" in volume
        )


@pytest.mark.parametrize("backend", ["rayserve", "deployments"])
def test_the_controller_writes_its_journal_into_a_volume_of_its_pod(backend):
    jobs = (Job("a"),)
    spec = ManifestSpec(
        jobs, "", backend, prometheus="http://x", served=serve_specs(jobs), initial=(1,)
    )
    (pod,) = [pod for one in objects(spec, "controller.yaml") for pod in pod_specs(one)]
    (container,) = pod["containers"]
    journal = container["args"][container["args"].index("--journal") + 1]
    mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
    assert mounts[str(Path(journal).parent)] in [
        volume["name"] for volume in pod["volumes"] if "emptyDir" in volume
    ]


def pod_specs(thing):
    """The pod templates' specs anywhere in an object."""
    if isinstance(thing, dict):
        if "containers" in thing:
            yield thing
        for value in thing.values():
            yield from pod_specs(value)
    elif isinstance(thing, list):
        for value in thing:
            yield from pod_specs(value)


@pytest.mark.parametrize("backend", ["rayserve", "deployments"])
def test_controllers_learn_from_earlier_days_and_have_memory_for_a_refit(backend):
    jobs = (Job("a"),)
    spec = ManifestSpec(
        jobs, "", backend, prometheus="http://x", served=serve_specs(jobs), initial=(1,)
    )
    (pod,) = [pod for one in objects(spec, "controller.yaml") for pod in pod_specs(one)]
    arguments = pod["containers"][0]["args"]
    assert arguments[arguments.index("--history") + 1] == "prometheus"
    memory = float(pod["containers"][0]["resources"]["limits"]["memory"].removesuffix("Gi"))
    assert memory * 2**30 > REFIT_GB * 1e9 + 2**29  # beside the controller itself
