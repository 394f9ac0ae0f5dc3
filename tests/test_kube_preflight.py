"""Preflight checks, each of which fails with one line. (On a real API server: test_k8s_*.)"""

from __future__ import annotations

from pathlib import Path

import pytest

from faro_lib.cli.model import REFIT_GB
from faro_lib.control.clock import Clock
from faro_lib.kube import preflight
from faro_lib.kube.capacity import Capacity
from faro_lib.kube.client import ApiError
from faro_lib.kube.deployments import DeploymentRef
from faro_lib.kube.manifests import ManifestSpec, objects
from faro_lib.kube.operate import NamespacedName, connect_deployments
from faro_lib.rayserve.spec import serve_specs
from faro_lib.workload import Job

REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class Server:
    """Answers by path: an object, a function of the body, or the status that it refuses with."""

    host, namespace = "https://faro.test", "faro"

    def __init__(self, answers):
        self.answers, self.asked = answers, []

    def get(self, path, **query):
        return self.send("GET", path)

    def send(self, method, path, body=None):
        answer = self.answers.get(path, 404)
        self.asked.append((method, path, body))
        if isinstance(answer, int):
            raise ApiError(answer, f"{method} {path}: {answer} answered")
        return answer(body) if callable(answer) else answer


def reviewed(allowed):
    """A server where `allowed` (resource attributes) -> bool decides who may do what."""
    return Server({REVIEWS: lambda body: {"status": {"allowed": allowed(body["spec"]["resourceAttributes"])}}})


class TestServer:
    def test_any_answer_to_a_permission_review_is_accepted(self):
        preflight.check_server(reviewed(lambda asked: False))

    def test_refused_credentials_mention_the_token(self):
        with pytest.raises(
            ValueError, match=r"^https://faro\.test: the credentials are refused; has the token expired\?$"
        ):
            preflight.check_server(Server({REVIEWS: 401}))

    def test_a_server_that_fails_is_reported_as_it_is(self):
        with pytest.raises(ValueError, match=r"POST .*: 503 answered"):
            preflight.check_server(Server({REVIEWS: 503}))


class TestNamespace:
    QUOTAS, ITSELF = "/api/v1/namespaces/faro/resourcequotas", "/api/v1/namespaces/faro"

    def test_an_active_namespace_is_accepted(self):
        preflight.check_namespace(Server({self.QUOTAS: {}, self.ITSELF: {"status": {"phase": "Active"}}}), "faro")

    def test_a_missing_namespace_says_how_to_create_it(self):
        with pytest.raises(ValueError, match="namespace='faro' does not exist; kubectl create namespace faro"):
            preflight.check_namespace(Server({}), "faro")

    def test_a_terminating_namespace_is_refused(self):
        with pytest.raises(ValueError, match="namespace='faro' is being deleted"):
            preflight.check_namespace(
                Server({self.QUOTAS: {}, self.ITSELF: {"status": {"phase": "Terminating"}}}), "faro"
            )

    def test_a_forbidden_read_of_the_namespace_is_accepted(self):
        preflight.check_namespace(Server({self.QUOTAS: {}, self.ITSELF: 403}), "faro")

    def test_a_failing_server_does_not_pass_the_check(self):
        with pytest.raises(ApiError, match="500"):
            preflight.check_namespace(Server({self.QUOTAS: 500}), "faro")


class TestCustomResources:
    GROUP, VERSION, PLURAL, _ = preflight.FARO_PLANS

    def test_a_resource_that_is_served_passes(self):
        path = f"/apis/{self.GROUP}/{self.VERSION}"
        preflight.check_crds(Server({path: {"resources": [{"name": self.PLURAL}]}}), [preflight.FARO_PLANS])

    @pytest.mark.parametrize("answers", [{}, {"/apis/ray.io/v1": {"resources": [{"name": "rayjobs"}]}}])
    def test_a_missing_resource_names_what_installs_it(self, answers):
        with pytest.raises(ValueError, match=r"does not know rayservices\.ray\.io/v1; KubeRay's operator installs it"):
            preflight.check_crds(Server(answers), [preflight.RAY_SERVICES])

    def test_a_failing_server_is_not_taken_for_a_missing_resource(self):
        with pytest.raises(ApiError, match="503"):
            preflight.check_crds(Server({"/apis/ray.io/v1": 503}), [preflight.RAY_SERVICES])


class TestPermissions:
    def test_every_verb_is_reviewed_in_its_scope(self):
        server = reviewed(lambda asked: True)
        preflight.check_permissions(server, "faro", preflight.FOR_DEPLOYMENTS)
        asked = [body["spec"]["resourceAttributes"] for _, _, body in server.asked]
        mine = {
            "namespace": "faro",
            "group": "apps",
            "resource": "deployments",
            "subresource": "scale",
            "verb": "patch",
        }
        assert mine in asked
        everywhere = [one for one in asked if "namespace" not in one]
        assert {(one["resource"], one["verb"]) for one in everywhere} == {
            (resource, verb) for _, resource, verbs in preflight.CLUSTER_WIDE for verb in verbs
        }

    @pytest.mark.parametrize(
        ("lacking", "message"),
        [
            ({"resource": "deployments", "verb": "patch"}, "may not patch deployments/scale.apps in namespace 'faro'"),
            ({"resource": "nodes", "verb": "watch"}, "may not watch nodes in the whole cluster"),
        ],
    )
    def test_the_first_missing_permission_is_named(self, lacking, message):
        server = reviewed(lambda asked: not lacking.items() <= asked.items())
        with pytest.raises(ValueError, match=message + "; `faro manifests` has a Role"):
            preflight.check_permissions(server, "faro", preflight.FOR_DEPLOYMENTS)


def test_missing_deployments_are_counted():
    preflight.check_deployments({"faro/a": object()})
    with pytest.raises(ValueError, match=r"deployment 'faro/b' does not exist \(2 of 3 are missing\)"):
        preflight.check_deployments({"faro/a": object(), "faro/b": None, "faro/c": None})


def test_a_capacity_below_the_minimum_names_its_bound_and_the_unusable_nodes():
    jobs = (Job("a", cores=2.0), Job("b", min_replicas=3))
    preflight.check_minima(jobs, Capacity(5.0, {"n1": 5.0}, {}))
    with pytest.raises(ValueError, match=r"^nodes: 4 cores cannot hold the minimum of 2 jobs, 5 cores; n2: cordoned$"):
        preflight.check_minima(jobs, Capacity(4.0, {"n1": 4.0}, {"n2": "cordoned"}))


def test_permissions_on_objects_are_asked_for_by_name():
    server = reviewed(lambda asked: asked.get("name") != "b")
    names = preflight.names_of("faro", ["a", "b"])
    with pytest.raises(ValueError, match=r"may not get deployments/scale.apps 'b' in namespace 'faro'; `faro manif"):
        preflight.check_permissions(server, "faro", preflight.FOR_DEPLOYMENTS, (), names)
    preflight.check_permissions(server, "faro", preflight.FOR_DEPLOYMENTS, (), preflight.names_of("faro", ["a"]))


def test_the_role_names_the_deployments_and_the_plan_that_the_controller_changes():
    where = dict(namespace="faro", name="main", prometheus="http://x", deployments=("a", "b"), namespaces=("models",))
    spec = ManifestSpec(jobs=(), jobs_text="", backend="deployments", **where)
    roles = {one["metadata"]["namespace"]: one for one in objects(spec, "rbac.yaml") if one["kind"] == "Role"}
    for role in roles.values():
        for rule in role["rules"]:
            if not {"create", "list", "watch"} & set(rule["verbs"]):
                on_deployments = rule["resources"] == ["deployments/scale"]
                assert rule["resourceNames"] == (["a", "b"] if on_deployments else ["main"])
    resources = [rule["resources"] for rule in roles["models"]["rules"]]
    assert resources == [["resourcequotas"], ["deployments"], ["deployments/scale"], ["horizontalpodautoscalers"]]


@pytest.mark.parametrize("ceilings", [False, True])
def test_the_role_in_another_namespace_may_read_its_quotas(ceilings):
    where = dict(namespace="faro", prometheus="http://x", deployments=("a",), namespaces=("models",))
    spec = ManifestSpec(jobs=(), jobs_text="", backend="deployments", ceilings=ceilings, **where)
    (role,) = [
        one
        for one in objects(spec, "rbac.yaml")
        if (one["kind"], one["metadata"].get("namespace")) == ("Role", "models")
    ]
    assert {"apiGroups": [""], "resources": ["resourcequotas"], "verbs": ["list", "watch"]} in role["rules"]


@pytest.mark.parametrize("ceilings", [False, True])
def test_a_controller_that_may_not_read_the_quotas_of_its_deployments_does_not_start(ceilings, monkeypatch):
    server = reviewed(lambda asked: asked["resource"] != "resourcequotas")
    monkeypatch.setattr(NamespacedName, "connect", lambda self: server)
    queries = {"requests": "sum(x[$window])", "latency_mean_s": "sum(y[$window])"}
    sections = {"a": {"namespace": "models", "queries": queries}}
    with pytest.raises(ValueError, match=r"^may not list resourcequotas in namespace 'models'"):
        connect_deployments(
            NamespacedName("faro", "main"), (Job("a"),), sections, None, Clock.starting_now(), ceilings=ceilings
        )


@pytest.mark.parametrize("section", [{"namespace": "kube-system"}, {}])
def test_a_deployment_of_kubernetes_itself_is_refused(section):
    queries = {"requests": "sum(x[$window])", "latency_mean_s": "sum(y[$window])"}
    with pytest.raises(ValueError, match=r"deployment\.namespace='kube-system' belongs to Kubernetes itself"):
        DeploymentRef.of(Job("a"), section | {"queries": queries}, "kube-system")


@pytest.mark.parametrize("backend", ["rayserve", "deployments"])
def test_every_container_has_a_limit_on_the_disk_that_it_uses(backend):
    jobs = (Job("a"),)
    spec = ManifestSpec(jobs, "", backend, prometheus="http://x", served=serve_specs(jobs), initial=(1,))
    files = ["controller.yaml", *(["rayservice.yaml"] if backend == "rayserve" else [])]
    pods = [pod for file in files for one in objects(spec, file) for pod in pod_specs(one)]
    assert len(pods) == (3 if backend == "rayserve" else 1)
    for pod in pods:
        assert all("ephemeral-storage" in one["resources"]["limits"] for one in pod["containers"])
        assert all("sizeLimit" in volume["emptyDir"] for volume in pod["volumes"] if "emptyDir" in volume)


@pytest.mark.parametrize("backend", ["rayserve", "deployments"])
def test_the_controller_writes_its_journal_into_a_volume_of_its_pod(backend):
    jobs = (Job("a"),)
    spec = ManifestSpec(jobs, "", backend, prometheus="http://x", served=serve_specs(jobs), initial=(1,))
    (pod,) = [pod for one in objects(spec, "controller.yaml") for pod in pod_specs(one)]
    (container,) = pod["containers"]
    journal = container["args"][container["args"].index("--journal") + 1]
    mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
    assert mounts[str(Path(journal).parent)] in [volume["name"] for volume in pod["volumes"] if "emptyDir" in volume]


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
    spec = ManifestSpec(jobs, "", backend, prometheus="http://x", served=serve_specs(jobs), initial=(1,))
    (pod,) = [pod for one in objects(spec, "controller.yaml") for pod in pod_specs(one)]
    arguments = pod["containers"][0]["args"]
    assert arguments[arguments.index("--history") + 1] == "prometheus"
    memory = float(pod["containers"][0]["resources"]["limits"]["memory"].removesuffix("Gi"))
    assert memory * 2**30 > REFIT_GB * 1e9 + 2**29  # beside the controller itself
