"""On a kind cluster: an experiment has a RayService for itself, which then is as it was."""

from __future__ import annotations

import numpy as np
import pytest
from k8s_ray import RayWorld
from k8s_world import NOWHERE, apply, kubeconfig, until

from faro_lib.workload import Job
from faro_ops.http import Unauthorized
from faro_ops.operate.rayserve.deploy import configuration, deploy
from faro_ops.operate.rayserve.spec import serve_specs
from studies.live.exclusive import exclusive_access

pytestmark = [pytest.mark.k8s, pytest.mark.slow]
CONTROLLER = "ray-controller"  # of the RayService `ray`
THEIRS, OURS = (Job("theirs"),), (Job("a"), Job("b"))
BACK_S = 60.0


@pytest.fixture(scope="module")
def ray(tmp_path_factory):
    one = RayWorld(tmp_path_factory.mktemp("ray"), THEIRS, (3,))
    apply(one.api, one.deployment(CONTROLLER, 2, **NOWHERE))
    yield one
    one.close()


def controllers(ray) -> int:
    return ray.get(f"/apis/apps/v1/{{ns}}/deployments/{CONTROLLER}")["spec"]["replicas"]


def lent(ray, name="ray", **places):
    return exclusive_access(
        "kubernetes", place=(ray.namespace, name), kubeconfig=kubeconfig(), **places
    )


def given_back(ray) -> None:
    until(lambda: ray.counts() == {"theirs": 3}, BACK_S, "as it was")
    assert controllers(ray) == 2


def test_its_controllers_rest_its_ray_serves_our_jobs_and_then_all_is_as_it_was(ray):
    with lent(ray) as there:
        assert controllers(ray) == 0
        deploy(there.ray, configuration(OURS, serve_specs(OURS), np.array([2, 1])))
        assert ray.counts() == {"a": 2, "b": 1}
        assert ray.token not in repr(there)
    given_back(ray)


def test_an_experiment_that_fails_gives_it_back_too(ray):
    def experiment():
        with lent(ray) as there:
            deploy(there.ray, configuration(OURS, serve_specs(OURS), np.array([2, 1])))
            raise RuntimeError("went wrong")

    with pytest.raises(RuntimeError, match="went wrong"):
        experiment()
    given_back(ray)


def test_one_that_is_not_there_or_does_not_answer_is_refused_and_nothing_is_touched(ray):
    with (
        pytest.raises(ValueError, match=r"RayService '.*/other' does not exist; cluster/up.sh"),
        lent(ray, "other"),
    ):
        pass
    with pytest.raises(OSError, match="refused"), lent(ray, address="http://127.0.0.1:9"):
        pass
    right = ray.token
    ray.set_token("another")  # of which the running Ray knows nothing
    try:
        with pytest.raises(Unauthorized, match="the token is wrong"), lent(ray):
            pass
    finally:
        ray.set_token(right)
    given_back(ray)
