"""A RayService as KubeRay reports it: the serving cluster, its workers, why it is not ready."""

from __future__ import annotations

import threading

import pytest
from kube_api import KubeApi
from kube_things import POD, RAYSERVICE, node, pod

from faro_ops.operate.kube import preflight
from faro_ops.operate.kube.capacity_watch import RayCapacity
from faro_ops.operate.kube.leader_gate import LeaderGatedCluster
from faro_ops.operate.kube.rayservice import serving_cluster, why_not_ready
from faro_ops.operate.startup import until_passed

NO_ROOM = "0/3 nodes are available: 3 Insufficient cpu."


def service(ready=False, active="", pending="", message=""):
    conditions = [{"type": "Ready", "status": str(ready), "message": message}]
    status = {
        "conditions": conditions,
        "activeServiceStatus": {"rayClusterName": active},
        "pendingServiceStatus": {"rayClusterName": pending},
    }
    return {"metadata": {"name": "faro"}, "status": status}


def ray_pod(name, cluster, **fields):
    return pod(
        name, "4", labels={"ray.io/cluster": cluster, "ray.io/node-type": "worker"}, **fields
    )


def unschedulable(name, cluster):
    one = ray_pod(name, cluster, phase="Pending", on=None)
    one["status"]["conditions"] = [{"type": "PodScheduled", "status": "False", "message": NO_ROOM}]
    return one


def test_a_head_that_fits_on_no_node_is_the_reason():
    reason = why_not_ready(service(pending="new"), [unschedulable("new-head", "new")])
    assert reason == f"pod new-head does not start: {NO_ROOM}"


def test_an_image_that_cannot_be_pulled_is_the_reason():
    waiting = {"reason": "ErrImagePull", "message": "not found"}
    one = ray_pod("new-head", "new", phase="Pending")
    one["status"]["containerStatuses"] = [{"state": {"waiting": waiting}}]
    assert why_not_ready(service(pending="new"), [one]).endswith(
        "does not start: ErrImagePull: not found"
    )


def test_pods_of_another_rayservice_are_not_the_reason():
    other = unschedulable("other-head", "other")
    assert why_not_ready(service(pending="new", message="initializing"), [other]) == "initializing"


def test_a_ready_rayservice_has_no_reason_even_if_its_upgrade_is_pending():
    assert (
        why_not_ready(
            service(True, active="old", pending="new"), [unschedulable("new-head", "new")]
        )
        is None
    )


def test_a_rayservice_that_kuberay_has_not_seen_yet_is_not_ready():
    assert why_not_ready({"metadata": {"name": "faro"}}, []) == "its Ray cluster does not serve yet"
    assert serving_cluster({"metadata": {"name": "faro"}}) == ""


class Copy:
    """An informer that has these items."""

    path, error, age_s = "/things", None, 0.0

    def __init__(self, *items):
        self.content = list(items)

    def items(self):
        return self.content


def test_only_the_workers_of_the_serving_cluster_are_capacity_during_an_upgrade():
    services = Copy(service(True, active="old", pending="new"))
    watch = RayCapacity(None, "jobs", "faro")
    watch._informers = (
        Copy(node()),
        Copy(ray_pod("w1", "old"), ray_pod("w2", "new"), ray_pod("w3", "other")),
        services,
    )
    assert watch.current().cores == 4
    services.content = [service(True, active="new")]
    assert watch.current().cores == 4
    services.content = []  # the API server lost it; Ray still serves
    assert watch.current().cores == 4


def test_the_preflight_check_names_the_rayservice_and_the_pod():
    server = KubeApi(namespace="faro")
    with pytest.raises(
        ValueError, match=r"^RayService 'faro/faro' does not exist; `faro manifests` writes it$"
    ):
        preflight.check_rayservice(server, "faro", "faro")
    server.put(RAYSERVICE, in_faro(service(pending="new")))
    server.put(POD, in_faro(unschedulable("new-head", "new")))
    with pytest.raises(
        ValueError, match=r"'faro/faro' is not ready: pod new-head does not start: 0/3 nodes"
    ):
        preflight.check_rayservice(server, "faro", "faro")
    server.put(RAYSERVICE, in_faro(service(True)))
    preflight.check_rayservice(server, "faro", "faro")


def in_faro(thing):
    return thing | {"metadata": thing["metadata"] | {"namespace": "faro"}}


class Unreachable:
    """A cluster that does not answer."""

    advance = writer_of = None

    def observe(self):
        raise OSError("no answer")


def test_a_cluster_that_cannot_be_observed_says_what_kubernetes_knows_of_it():
    def diagnose():
        raise ValueError("the head is Pending")

    with pytest.raises(OSError, match=r"^no answer; the head is Pending$"):
        LeaderGatedCluster(Unreachable(), diagnose=diagnose).observe()
    with pytest.raises(OSError, match=r"^no answer$"):
        LeaderGatedCluster(Unreachable()).observe()


class TestStartup:
    def test_a_check_is_repeated_until_it_passes_and_each_reason_is_reported_once(self):
        failures, reports = iter(["no head", "no head", "no worker"]), []

        def check():
            if reason := next(failures, None):
                raise ValueError(reason)

        until_passed(threading.Event(), reports.append, retry_s=0.0)(check)
        assert reports == ["no head", "no worker", None]

    def test_a_stop_ends_the_wait(self):
        stop = threading.Event()

        def check():
            stop.set()
            raise ValueError("no head")

        with pytest.raises(SystemExit):
            until_passed(stop, lambda reason: None, retry_s=0.0)(check)

    def test_another_error_is_raised(self):
        with pytest.raises(ZeroDivisionError):
            until_passed(threading.Event(), lambda reason: None)(lambda: 1 // 0)
