"""On a kind cluster: Faro bounds HPAs, which choose the replicas, also after Faro was killed."""

from __future__ import annotations

import time

import pytest
from k8s_faro import Load, failed
from k8s_models import CORES, ModelWorld, Prometheus
from k8s_world import World, apply, until
from kube_things import objects

from faro_ops.operate.kube.hpa_bounds import NOTE
from faro_ops.operate.kube.manifests import ManifestSpec

pytestmark = [pytest.mark.k8s, pytest.mark.slow]
REPLICAS = 6  # that the quota admits
NAMES = ("busy", "idle")
HPAS = "/apis/autoscaling/v2/{ns}/horizontalpodautoscalers"
DECIDED_S = 240.0


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Another namespace, from which the load comes."""
    one = World(tmp_path_factory.mktemp("elsewhere"))
    yield one
    one.close()


@pytest.fixture
def models(tmp_path):
    """Two model servers with an HPA each, and the permissions of `--act ceilings`.

    These do not include scaling.
    """
    one = ModelWorld(tmp_path, NAMES, REPLICAS)
    where = dict(namespace=one.namespace, name="main", deployments=NAMES, prometheus="http://x")
    spec = ManifestSpec((), "", backend="deployments", ceilings=True, **where)
    apply(one.api, *objects(spec, "rbac.yaml"))
    apply(one.api, *(it for it in objects(spec, "restore.yaml") if it["kind"] != "CronJob"))
    for name in NAMES:
        apply(one.api, one.autoscaler(name, name, 1, 5, utilisation=5))
    yield one
    one.close()


def hpas(models) -> dict[str, dict]:
    return {one["metadata"]["name"]: one for one in models.get(HPAS)["items"]}


def bounds(models) -> dict[str, tuple[int, int]]:
    return {
        name: (one["spec"]["minReplicas"], one["spec"]["maxReplicas"])
        for name, one in hpas(models).items()
    }


def scalers(models, name: str) -> set[str]:
    """The field managers that have scaled a Deployment since the test created it."""
    fields = models.get(f"/apis/apps/v1/{{ns}}/deployments/{name}")["metadata"]["managedFields"]
    scaled = [one for one in fields if "f:replicas" in one["fieldsV1"].get("f:spec", {})]
    return {one["manager"] for one in scaled if one.get("subresource") == "scale"}


def test_hpas_follow_the_bounds_of_faro_and_go_on_when_it_is_killed(models, elsewhere):
    prometheus = Prometheus(elsewhere.api)
    load = Load(
        models,
        f"load-{models.namespace}",
        20.0,
        models.address("busy"),
        namespace=elsewhere.namespace,
    )
    faro = models.faro(prometheus, "Faro-Sum", "--apply", "--act", "ceilings")

    def noted() -> bool:
        found = hpas(models).values()
        return all(NOTE in one["metadata"].get("annotations", {}) for one in found)

    until(noted, DECIDED_S, lambda: f"Faro sets the bounds: {faro.said[-5:]}")
    seen = []

    def busy_has_grown() -> bool:
        seen.append((bounds(models), models.pending()))
        return models.ready("busy") > 2

    until(busy_has_grown, DECIDED_S, lambda: f"the HPA follows: {bounds(models)}, {faro.said[-5:]}")
    assert all(sum(high for _, high in of.values()) <= REPLICAS for of, _ in seen[1:])
    assert all(not pending for _, pending in seen)
    assert models.plan()["capacityCores"] == pytest.approx(REPLICAS * CORES)

    faro.process.kill()
    killed_s = time.time()
    last = bounds(models)
    low, high = last["busy"]
    until(lambda: low <= models.replicas("busy") <= high, 60, "the HPA keeps to the last bounds")
    assert bounds(models) == last
    for name in NAMES:
        assert "faro" not in scalers(models, name)
    assert scalers(models, "busy")
    assert [
        one for one in failed(load.end()) if one["at"] > killed_s
    ] == []  # the one replica at the start is too few


def test_a_service_gets_its_own_bounds_back(models, elsewhere, capfd):
    from faro_ops import cli

    prometheus = Prometheus(elsewhere.api)
    faro = models.faro(prometheus, "Faro-Sum", "--apply", "--act", "ceilings")
    until(
        lambda: bounds(models) != dict.fromkeys(NAMES, (1, 5)),
        DECIDED_S,
        lambda: f"bounds are set: {faro.said[-5:]}",
    )
    arguments = ["restore", "--plan", f"{models.namespace}/main"]
    arguments += ["--kubeconfig", models.account("main-restore")]
    assert cli.main([*arguments, "--unled", "30"]) == 0
    assert "nothing is restored" in capfd.readouterr().err
    assert faro.end() == 0
    assert cli.main([*arguments, "--unled", "10"]) == 0
    assert bounds(models) == dict.fromkeys(NAMES, (1, 5))
