"""On a real API server: a RayService is borrowed for an experiment and given back as it was."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from fake_serve import DeclaredRay
from k8s_world import OFFLINE, World, apply, kubeconfig, until

from faro_lib.http import Unauthorized
from faro_lib.kube.exclusive import exclusive_access
from faro_lib.kube.manifests import NAME as CONTROLLER
from faro_lib.kube.manifests import SECRET, ManifestSpec, Workers, objects
from faro_lib.rayserve.deploy import configuration, deploy
from faro_lib.rayserve.spec import serve_specs
from faro_lib.workload import Job

sys.path.insert(0, str(OFFLINE))
pytestmark = pytest.mark.k8s
THEIRS, OURS = (Job("theirs"),), (Job("a"), Job("b"))


@pytest.fixture
def world(tmp_path, monkeypatch):
    from fakekuberay import RAYSERVICES, definition

    one = World(tmp_path)
    apply(one.api, definition(), one.deployment(CONTROLLER, 2))
    until(lambda: one.api.get(RAYSERVICES), 60)
    meta = {"name": SECRET, "namespace": one.namespace}
    apply(one.api, {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"auth_token": "s3cret"}})
    where = dict(namespace=one.namespace, name="ray", image="none", ray_version="2.60.0")
    spec = ManifestSpec(THEIRS, "", served=serve_specs(THEIRS), initial=[3], workers=Workers(1, 4), **where)
    apply(one.api, *objects(spec, "rayservice.yaml"))
    yield one
    one.close()


@pytest.fixture
def ray():
    fake = DeclaredRay("s3cret")
    fake.answer("PUT", "/api/serve/applications/", {"applications": configuration(THEIRS, serve_specs(THEIRS), [3])})
    with fake.served() as url:
        yield fake, url


def controllers(world) -> int:
    return world.get(f"/apis/apps/v1/{{ns}}/deployments/{CONTROLLER}")["spec"]["replicas"]


def lent(world, url, name="ray"):
    return exclusive_access(
        "kubernetes", address=url, serve_address=url, place=(world.namespace, name), kubeconfig=kubeconfig()
    )


def test_its_controllers_rest_its_ray_serves_our_jobs_and_then_all_is_as_it_was(world, ray):
    fake, url = ray
    with lent(world, url) as there:
        assert controllers(world) == 0
        deploy(there.ray, configuration(OURS, serve_specs(OURS), np.array([2, 1])))
        assert fake.counts() == {"a": 2, "b": 1}
        assert "s3cret" not in repr(there)
    assert fake.counts() == {"theirs": 3}
    assert controllers(world) == 2


def test_an_experiment_that_fails_gives_it_back_too(world, ray):
    fake, url = ray

    def experiment():
        with lent(world, url) as there:
            deploy(there.ray, configuration(OURS, serve_specs(OURS), np.array([2, 1])))
            raise RuntimeError("went wrong")

    with pytest.raises(RuntimeError, match="went wrong"):
        experiment()
    assert fake.counts() == {"theirs": 3}
    assert controllers(world) == 2


def test_one_that_is_not_there_or_does_not_answer_is_refused_and_nothing_is_touched(world, ray):
    fake, url = ray
    with (
        pytest.raises(ValueError, match=r"RayService '.*/other' is not there; cluster/up.sh"),
        lent(world, url, "other"),
    ):
        pass
    with pytest.raises(OSError, match="refused"), lent(world, "http://127.0.0.1:9"):
        pass
    fake.token = "another"
    with pytest.raises(Unauthorized, match="the token is wrong"), lent(world, url):
        pass
    assert controllers(world) == 2
    assert fake.counts() == {"theirs": 3}
