"""A Deployment whose status changes while it is scaled."""

from __future__ import annotations

import numpy as np
import pytest
from test_kube_autoscalers import cluster_on, server_with

from faro_ops.operate.scaling import NotScaled


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr("faro_ops.operate.kube.conflicts.PAUSE_S", 0.0)


def scale(server, may_act=lambda: True):
    cluster = cluster_on(server)
    cluster.observe()
    cluster.apply(np.array([3, 2]), np.zeros(2), may_act)


def test_a_deployment_whose_pods_start_one_after_the_other_is_scaled():
    server = server_with()
    server.busy = 7  # seven pods start, and each changes the status
    scale(server)
    assert server.replicas == {"a": 3, "b": 2}


def test_a_deployment_that_changes_all_the_time_is_left_and_named():
    server = server_with()
    server.busy = 1000
    with pytest.raises(NotScaled, match=r"^a is not scaled to 3: it changes faster"):
        scale(server)


def test_a_deployment_that_another_client_scales_meanwhile_is_left_to_it():
    server = server_with()

    def change(method, path, body):
        if method == "PATCH":
            server.replicas["a"] = 5

    server.on_request = change
    with pytest.raises(NotScaled, match="another client has scaled it to 5"):
        scale(server)
    assert server.replicas == {"a": 5, "b": 2}


def test_a_controller_that_stops_to_be_the_leader_meanwhile_does_not_try_again():
    server = server_with()
    server.busy = 1
    leads = iter([True, False])
    with pytest.raises(NotScaled, match="a is not scaled to 3"):
        scale(server, lambda: next(leads))
    assert server.replicas == {"a": 2, "b": 2}
