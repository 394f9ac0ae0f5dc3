"""On a kind cluster: plain Deployments as a `Cluster`, and who may write what."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from k8s_world import NOWHERE, World, apply, crd, table, until
from kube_things import objects

from faro_lib.control import Memory, Step
from faro_lib.policies import FairShare
from faro_lib.protocol import DRIFT_CORRECTED
from faro_lib.workload import Job
from faro_ops.operate.clock import Clock
from faro_ops.operate.kube import preflight
from faro_ops.operate.kube.capacity import Capacity
from faro_ops.operate.kube.client import MERGE, ApiError, connect
from faro_ops.operate.kube.deployment_metrics import DeploymentMetrics
from faro_ops.operate.kube.deployments import DeploymentRef, Deployments
from faro_ops.operate.kube.leader_gate import LeaderGatedCluster, LostLease
from faro_ops.operate.kube.manifests import ManifestSpec
from faro_ops.operate.kube.status import PLURAL, Reporter
from faro_ops.operate.loop.tick import tick
from faro_ops.operate.scaling import NotScaled
from faro_ops.protocol import LiveGuardrails

pytestmark = pytest.mark.k8s


@pytest.fixture
def world(tmp_path):
    one = World(tmp_path)
    yield one
    one.close()


def deployments(world, names, prometheus, api=None, replicas=1, capacity=8.0, pods=NOWHERE):
    jobs = tuple(Job(name, cold_start_s=5) for name in names)
    apply(world.api, *(world.deployment(name, replicas, **pods) for name in names))
    addresses = [
        DeploymentRef.of(job, row["deployment"], world.namespace)
        for job, row in zip(jobs, table(names))
    ]
    return jobs, Deployments(
        api or world.api,
        addresses,
        DeploymentMetrics(prometheus.url),
        Clock.starting_now(in_s=-901),
        capacity,
    )


def replicas(world, name) -> int:
    return world.get(f"/apis/apps/v1/{{ns}}/deployments/{name}")["spec"]["replicas"]


def test_a_deployment_is_scaled_and_its_pods_are_seen_to_start_and_to_serve(world, prometheus):
    _, cluster = deployments(world, ["a", "b"], prometheus, pods={})
    cluster.observe()
    cluster.apply(np.array([3, 1]), np.zeros(2))
    assert replicas(world, "a") == 3
    seen = until(lambda: (one := cluster.observe()).running.tolist() == [3, 1] and one, 60)
    assert seen.target.tolist() == [3, 1]
    assert not seen.starting.any()
    assert not seen.changing.any()


def test_load_comes_from_prometheus_with_a_quarter_of_an_hour_of_history_from_the_first_look_on(
    world, prometheus
):
    _, cluster = deployments(world, ["a"], prometheus)
    seen = cluster.observe()
    assert seen.arrivals_per_min.tolist() == [[60.0] * 15]
    assert seen.mean_latency_s.tolist() == [0.2]


def test_a_deployment_that_is_not_there_is_an_absent_job(world, prometheus):
    _, cluster = deployments(world, ["a", "b"], prometheus)
    world.api.send("DELETE", world.path("/apis/apps/v1/{ns}/deployments/b"))
    seen = until(lambda: (one := cluster.observe()).present is not None and one)
    assert seen.present.tolist() == [True, False]
    cluster.apply(np.array([2, 0]), np.zeros(2))
    assert replicas(world, "a") == 2


def test_a_status_that_changed_between_read_and_write_does_not_keep_it_from_scaling(
    world, prometheus
):
    _, cluster = deployments(world, ["a"], prometheus)
    cluster.observe()
    label = {"metadata": {"annotations": {"touched": "by someone"}}}
    world.api.send("PATCH", world.path("/apis/apps/v1/{ns}/deployments/a"), label, kind=MERGE)
    cluster.apply(np.array([4]), np.zeros(1))
    assert replicas(world, "a") == 4


def test_what_another_client_has_scaled_is_not_overwritten_but_seen_and_asserted_next_turn(
    world, prometheus
):
    jobs, cluster = deployments(world, ["a"], prometheus, capacity=3)
    policy, rules = FairShare(), LiveGuardrails()
    memory = Memory.start(policy, jobs)

    def step(meddle=lambda: None) -> Step:
        nonlocal memory
        seen = cluster.observe()
        memory, done = tick(policy, rules, jobs, memory, seen)
        meddle()
        cluster.apply(done.target, done.plan.drop)
        return done

    def someone_else(count):
        world.api.send(
            "PATCH",
            world.path("/apis/apps/v1/{ns}/deployments/a/scale"),
            {"spec": {"replicas": count}},
            kind=MERGE,
        )

    with pytest.raises(NotScaled, match="another client has scaled it to 2"):
        step(lambda: someone_else(2))
    assert replicas(world, "a") == 2
    cluster._scaled_at[:] = -np.inf  # however long ago that was
    assert step().target.tolist() == [3]
    assert replicas(world, "a") == 3
    someone_else(7)
    cluster._scaled_at[:] = -np.inf
    assert step().plan.reason == (DRIFT_CORRECTED,)
    assert replicas(world, "a") == 3


def test_two_writers_at_once_leave_what_one_of_them_asked_for(world, prometheus):
    _, one = deployments(world, ["a"], prometheus)
    _, other = deployments(world, ["a"], prometheus)
    for round_ in range(5):
        one.observe(), other.observe()
        wrong = []

        def write(cluster, count, wrong=wrong):
            try:
                cluster.apply(np.array([count]), np.zeros(1))
            except NotScaled as refused:
                wrong.append(refused)

        threads = [
            threading.Thread(target=write, args=pair)
            for pair in ((one, 2 + round_), (other, 20 + round_))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert replicas(world, "a") in (2 + round_, 20 + round_)
        assert len(wrong) <= 1


def test_two_hundred_jobs_are_reconciled_in_one_turn_in_under_two_seconds_of_cpu(world, prometheus):
    names = [f"job{i:03d}" for i in range(200)]
    apply(
        world.api,
        *objects(
            ManifestSpec(
                jobs=(),
                jobs_text="",
                backend="deployments",
                namespace=world.namespace,
                prometheus="http://x",
            ),
            "rbac.yaml",
        ),
    )
    account = connect(world.account("faro-controller"))
    jobs, cluster = deployments(world, names, prometheus, account, replicas=0, capacity=400.0)
    policy, rules = FairShare(), LiveGuardrails()
    until(lambda: len(cluster.read()) == 200)
    took_s = []
    for capacity in (
        400.0,
        600.0,
        400.0,
    ):  # the best of three: the limit is the program's, not the machine's
        cluster.cores = capacity
        cluster._scaled_at[:] = -np.inf
        began = time.process_time()
        _, step = tick(policy, rules, jobs, Memory.start(policy, jobs), cluster.observe())
        cluster.apply(step.target, step.plan.drop)
        took_s.append(time.process_time() - began)
        assert [found.target for found in cluster.read()] == [capacity // 200] * 200
    print(
        "observed, decided and scaled 200 jobs in", ", ".join(f"{one:.2f}" for one in took_s), "s"
    )
    assert min(took_s) < 2


def test_a_turn_that_changes_nothing_writes_nothing(world, prometheus):
    _, cluster = deployments(world, ["a", "b"], prometheus)
    cluster.observe()
    version = world.get("/apis/apps/v1/{ns}/deployments/a")["metadata"]["resourceVersion"]
    seen = until(lambda: (one := cluster.observe()).target.tolist() == [1, 1] and one)
    cluster.apply(seen.target, seen.drop)
    time.sleep(0.3)
    fields = world.get("/apis/apps/v1/{ns}/deployments/a")["metadata"]
    assert fields["resourceVersion"] == version or not any(
        one["manager"] == "faro" and one.get("subresource") == "scale"
        for one in fields.get("managedFields", [])
    )


class Lease:
    """A leadership as the test wants it."""

    name, holder = "faro", ""

    class candidate:
        identity = "me"

    def __init__(self, leads, holder="me"):
        self._leads, self.holder = leads, holder

    def is_leader(self, for_s):
        return self._leads


@pytest.mark.parametrize("holder", ["", "me"])
def test_without_the_lease_nothing_is_written(world, prometheus, holder):
    jobs, cluster = deployments(world, ["a"], prometheus)
    lease = Lease(False, holder)
    governed = LeaderGatedCluster(cluster, lambda: Capacity(5, {}, {}), lease, jobs=jobs)
    assert governed.observe().capacity == 5
    with pytest.raises(OSError, match="this tick changes nothing"):
        governed.apply(np.array([4]), np.zeros(1))
    assert replicas(world, "a") == 1


def test_who_has_lost_the_lease_to_another_ends(world, prometheus):
    _, cluster = deployments(world, ["a"], prometheus)
    with pytest.raises(LostLease, match="held by other"):
        LeaderGatedCluster(cluster, None, Lease(False, "other")).apply(np.array([4]), np.zeros(1))
    assert replicas(world, "a") == 1


def test_a_turn_is_seen_in_the_plan_and_in_events(world, prometheus):
    apply(world.api, crd())
    until(
        lambda: world.get(f"/apis/autoscaling.faro/v1alpha1/{{ns}}/{PLURAL}"),
        60,
        "FaroPlan is served",
    )
    jobs, cluster = deployments(world, ["a", "b"], prometheus, capacity=6.0)
    policy = FairShare()
    _, step = tick(policy, LiveGuardrails(), jobs, Memory.start(policy, jobs), cluster.observe())
    report = Reporter(world.api, world.namespace, "main", "FairShare", "me-1")
    report(jobs, step)
    plan = until(
        lambda: world.get(f"/apis/autoscaling.faro/v1alpha1/{{ns}}/{PLURAL}/main").get("status")
    )
    report.close()
    assert plan["capacityCores"] == 6
    assert plan["targets"] == "a=3 b=3"
    assert [(job["name"], job["desiredReplicas"], job["reason"]) for job in plan["jobs"]] == [
        ("a", 3, "fair-share"),
        ("b", 3, "fair-share"),
    ]
    events = until(
        lambda: world.get("/api/v1/{ns}/events", fieldSelector="involvedObject.kind=FaroPlan")[
            "items"
        ]
    )
    assert {event["reason"] for event in events} == {"FairShare"}
    assert "a: 1 -> 3 replicas (fair-share)" in {event["message"] for event in events}


# --- permissions ----------------------------------------------------------------------------------

USED = [
    ("deployments", preflight.ALWAYS + preflight.FOR_DEPLOYMENTS, preflight.CLUSTER_WIDE),
    ("rayserve", preflight.ALWAYS + preflight.FOR_RAY, preflight.NODES),
]
FORBIDDEN = [
    ("GET", "/api/v1/{ns}/secrets"),
    ("POST", "/api/v1/{ns}/pods"),
    ("DELETE", "/apis/apps/v1/{ns}/deployments/a"),
    ("PATCH", "/apis/apps/v1/{ns}/deployments/a"),
    ("PATCH", "/apis/apps/v1/{ns}/deployments/other/scale"),
    ("PATCH", "/apis/autoscaling.faro/v1alpha1/{ns}/faroplans/other"),
    ("GET", "/apis/coordination.k8s.io/v1/{ns}/leases/other"),
    ("POST", "/api/v1/{ns}/pods/x/exec"),
    ("PATCH", "/api/v1/nodes/n"),
    ("DELETE", "/api/v1/{ns}/pods/x"),
    ("GET", "/apis/apps/v1/namespaces/kube-system/deployments"),
    ("POST", "/apis/rbac.authorization.k8s.io/v1/{ns}/rolebindings"),
    ("GET", "/api/v1/{ns}/configmaps"),
]


def controller_account(world, backend):
    wanted = dict(
        jobs=(), jobs_text="", backend=backend, namespace=world.namespace, prometheus="http://x"
    )
    wanted["deployments"] = ("a",)
    apply(world.api, *objects(ManifestSpec(**wanted), "rbac.yaml"))
    return connect(world.account("faro-controller"))


@pytest.mark.parametrize(("backend", "used", "cluster_wide"), USED)
def test_the_controllers_account_may_do_each_thing_that_it_does(world, backend, used, cluster_wide):
    account = controller_account(world, backend)
    names = preflight.names_of("faro", ["a"])
    preflight.check_permissions(account, world.namespace, used, cluster_wide, names)


@pytest.mark.parametrize(("method", "path"), FORBIDDEN)
def test_the_controllers_account_may_not(world, method, path):
    apply(world.api, world.deployment("a", 0))
    account = controller_account(world, "deployments")
    with pytest.raises(ApiError) as raised:
        account.send(
            method,
            world.path(path),
            {} if method in ("POST", "PATCH") else None,
            kind=MERGE if method == "PATCH" else "application/json",
        )
    assert raised.value.status == 403


def test_a_missing_right_is_named(world):
    account = controller_account(world, "rayserve")
    with pytest.raises(ValueError, match=r"may not list deployments\.apps in namespace"):
        preflight.check_permissions(account, world.namespace, preflight.FOR_DEPLOYMENTS)
