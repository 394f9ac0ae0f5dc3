"""A Deployment whose status changes while it is scaled."""

from __future__ import annotations

import numpy as np
import pytest
from test_kube_autoscalers import Server, cluster_on, deployment

from faro_ops.operate.kube.client import ApiError
from faro_ops.operate.loop.scaling import NotScaled


class Changing(Server):
    """Deployments that change before each of the first `conflicts` writes."""

    def __init__(self, conflicts, replicas=2):
        super().__init__()
        self.conflicts, self.replicas = conflicts, replicas

    def get(self, path):
        if path.endswith("/scale"):
            changed = deployment(path.split("/")[-2])
            return changed | {"spec": {"replicas": self.replicas}}
        return super().get(path)

    def send(self, method, path, body, **options):
        if self.conflicts:
            self.conflicts -= 1
            raise ApiError(409, "the object has been modified")
        return super().send(method, path, body, **options)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr("faro_ops.operate.kube.deployments.PAUSE_S", 0.0)


def scale(server, may_act=lambda: True):
    cluster = cluster_on(server)
    cluster.observe()
    cluster.apply(np.array([3, 2]), np.zeros(2), may_act)


def test_a_deployment_whose_pods_start_one_after_the_other_is_scaled():
    server = Changing(conflicts=7)  # seven pods start, and each changes the status
    scale(server)
    assert server.scaled == {"a": 3}


def test_a_deployment_that_changes_all_the_time_is_left_and_named():
    with pytest.raises(NotScaled, match=r"^a is not scaled to 3: it changes faster"):
        scale(Changing(conflicts=1000))


def test_a_deployment_that_another_client_scales_meanwhile_is_left_to_it():
    server = Changing(conflicts=1, replicas=5)
    with pytest.raises(NotScaled, match="another client has scaled it to 5"):
        scale(server)
    assert not server.scaled


def test_a_controller_that_stops_to_be_the_leader_meanwhile_does_not_try_again():
    server = Changing(conflicts=1)
    leads = iter([True, False])
    with pytest.raises(NotScaled, match="a is not scaled to 3"):
        scale(server, lambda: next(leads))
    assert not server.scaled
