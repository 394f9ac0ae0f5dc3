"""Capacity: the cores that a cluster has for the jobs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kube_things import is_replica, node, pod, quota, replica

from faro_lib.workload import Job
from faro_ops.operate.clock import Clock
from faro_ops.operate.kube.capacity import (
    CORES,
    Shape,
    capacity,
    cores_of_workers,
    placement,
    requests_of,
    tolerates,
)
from faro_ops.operate.kube.capacity_watch import small_node, small_pod
from faro_ops.operate.kube.deployments import DeploymentRef, Deployments
from faro_ops.operate.kube.operate import NamespacedName, watch_capacity
from faro_ops.operate.kube.shape import shape_of

WHOLE = Shape(quantum=1.0)


def cores(nodes, pods=(), quotas=(), shape=WHOLE):
    return capacity(nodes, pods, quotas, "jobs", is_replica, shape).cores


def test_an_empty_cluster_has_the_cores_of_its_nodes():
    assert cores([node("a", "8"), node("b", "3500m")]) == 11


def test_other_pods_reduce_the_capacity_and_our_own_do_not():
    assert cores([node(cpu="8")], [pod("db", "2"), replica("r1"), replica("r2")]) == 6


def test_a_fraction_of_a_replica_on_each_of_two_nodes_is_not_a_replica():
    pods = [pod("x", "500m", on="a"), pod("y", "500m", on="b")]
    assert cores([node("a", "2"), node("b", "2")], pods) == 2
    assert cores([node("a", "2"), node("b", "2")], pods, shape=Shape(quantum=0.5)) == 3


@pytest.mark.parametrize(
    ("gone", "why"),
    [
        (node("b", unschedulable=True), "cordoned"),
        (node("b", ready=False), "not ready"),
        (node("b", taints=[{"key": "gpu", "effect": "NoSchedule"}]), "taint gpu"),
        (
            node("b", taints=[{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]),
            "taint node.kubernetes.io/unreachable",
        ),
    ],
)
def test_a_node_that_accepts_no_replica_does_not_count_and_has_a_reason(gone, why):
    found = capacity([node("a"), gone], [], [], "jobs", is_replica, WHOLE)
    assert found.cores == 8
    assert found.unusable == {"b": why}


def test_a_prefer_no_schedule_taint_does_not_repel():
    assert cores([node(taints=[{"key": "spot", "effect": "PreferNoSchedule"}])]) == 8


@pytest.mark.parametrize(
    ("toleration", "holds"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "gpu", "operator": "Exists"}, True),
        ({"key": "gpu", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "gpu", "value": "a100", "effect": "NoSchedule"}, True),
        ({"key": "gpu", "value": "h100"}, False),
        ({"key": "spot", "operator": "Exists"}, False),
    ],
)
def test_tolerations_cover_taints_by_the_rules_of_the_scheduler(toleration, holds):
    assert tolerates(toleration, {"key": "gpu", "value": "a100", "effect": "NoSchedule"}) is holds


def test_a_tolerated_node_counts():
    tainted = node(taints=[{"key": "gpu", "effect": "NoSchedule"}])
    assert (
        cores(
            [tainted], shape=Shape(quantum=1.0, tolerations=({"key": "gpu", "operator": "Exists"},))
        )
        == 8
    )


def test_only_nodes_that_the_pods_select_count():
    assert cores([node("a"), node("b")], shape=Shape(selector={"kubernetes.io/hostname": "a"})) == 8


def test_a_node_that_lacks_a_resource_of_the_replicas_has_no_room():
    found = capacity(
        [node("a")], [], [], "jobs", is_replica, Shape({"cpu": 1.0, "nvidia.com/gpu": 1.0})
    )
    assert (found.cores, found.unusable) == (0, {"a": "offers no nvidia.com/gpu"})


GPU = "nvidia.com/gpu"
QUERIES = {"requests": "sum(increase(r[$window]))", "latency_mean_s": "avg_over_time(m[$window])"}


def sharing_gpus(*gpus: int, resource: str = GPU):
    """(refs, Deployments) of jobs with these GPUs per replica, and four CPUs each."""
    jobs = [Job(f"job{n}", cores=float(count)) for n, count in enumerate(gpus)]
    refs = [
        DeploymentRef.of(job, {"queries": QUERIES, "resource": resource}, "jobs") for job in jobs
    ]
    requests = [{"cpu": "4", GPU: str(count)} for count in gpus]
    specs = [{"containers": [{"name": "c", "resources": {"requests": one}}]} for one in requests]
    return refs, [{"spec": {"template": {"spec": spec}}} for spec in specs]


def with_gpus(name: str, cpu: str, gpus: str) -> dict:
    one = node(name, cpu)
    one["status"]["allocatable"][GPU] = gpus
    return one


def test_jobs_that_share_gpus_have_the_gpus_of_the_nodes_where_cpu_and_quota_allow_them():
    shape, _ = shape_of(*sharing_gpus(1, 2))
    assert (shape.per_core[GPU], shape.per_core["cpu"], shape.quantum) == (1, 4, 1)
    assert (
        cores([with_gpus("a", "64", "8"), with_gpus("b", "64", "4"), node("c", "64")], shape=shape)
        == 12
    )
    assert cores([with_gpus("a", "9", "8")], shape=shape) == 2, "CPUs for two replicas with one GPU"
    hard = {f"requests.{GPU}": "3"}
    limit = {"metadata": {"name": "q", "namespace": "jobs"}, "spec": {"hard": hard}}
    assert cores([with_gpus("a", "64", "8")], quotas=[limit], shape=shape) == 3


def test_pods_may_not_request_more_gpus_than_the_table_says():
    refs, deployments = sharing_gpus(1)
    deployments[0]["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"][GPU] = "2"
    _, problems = shape_of(refs, deployments)
    problem = "job 'job0': cores=1 is less than the 2 nvidia.com/gpu that its pods request"
    assert problems == {0: problem}


@pytest.mark.parametrize("requested", ["1500m", "2"])
def test_cores_may_include_what_admission_adds_to_the_requests_of_the_template(requested):
    ref = DeploymentRef.of(Job("a", cores=2.0), {"queries": QUERIES}, "jobs")
    shape, _ = shape_of([ref], [{"spec": {"template": pod("template", requested)}}])
    assert shape.per_core["cpu"] == 1
    assert cores([node(cpu="5")], shape=shape) == 4


def test_a_rollout_changes_what_the_replicas_require_of_a_node():
    deployment = {"metadata": {"name": "a", "namespace": "jobs", "resourceVersion": "1"}}
    deployment["spec"] = {
        "selector": {"matchLabels": {"app": "a"}},
        "template": pod("template", "1"),
    }
    api = SimpleNamespace(get=lambda path: {"items": [deployment]})
    refs = [DeploymentRef.of(Job("a"), {"queries": QUERIES}, "jobs")]
    cluster = Deployments(api, refs, None, Clock.starting_now())
    watch = watch_capacity(api, NamespacedName("jobs", "faro"), cluster, (Job("a"),))
    watch._informers = [
        SimpleNamespace(items=lambda found=found: found, age_s=0.0, error=None, path="/x")
        for found in ([node(memory="8Gi")], [], [])
    ]
    assert watch.current().cores == 8
    deployment["spec"]["template"] = pod("template", "1", memory="2Gi")
    cluster.read()
    assert watch.current().cores == 4
    deployment["spec"]["template"] = pod("template", "2")
    cluster.read()
    assert watch.current().problems == {
        0: "job 'a': cores=1 is less than the 2 cpu that its pods request"
    }
    deployment["spec"]["template"] = pod("template", "1")
    cluster.read()
    assert watch.current().problems == {}


def test_a_job_whose_pods_require_a_node_affinity_is_left_out():
    refs, deployments = sharing_gpus(1, 1)
    term = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
    affinity = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}
        }
    }
    deployments[1]["spec"]["template"]["spec"]["affinity"] = affinity
    shape, problems = shape_of(refs, deployments)
    assert shape == shape_of(refs[:1], deployments[:1])[0]
    problem = "a required nodeAffinity is not read; choose the nodes by nodeSelector"
    assert problems == {1: f"deployment 'jobs/job1': {problem}"}


def test_a_job_that_no_deployment_has_existed_for_changes_nothing_for_the_others():
    refs, deployments = sharing_gpus(1, 2)
    assert shape_of(refs, [deployments[0], {}]) == shape_of(refs[:1], deployments[:1])


def test_the_job_with_another_node_selector_than_most_is_left_out():
    refs, deployments = sharing_gpus(1, 1, 1)
    for n, pool in enumerate(("new", "old", "old")):
        deployments[n]["spec"]["template"]["spec"]["nodeSelector"] = {"pool": pool}
    shape, problems = shape_of(refs, deployments, before={"pool": "new"})
    assert (shape.selector, [*problems]) == ({"pool": "old"}, [0])
    shape, problems = shape_of(refs[:2], deployments[:2], before={"pool": "old"})
    assert (shape.selector, [*problems]) == ({"pool": "old"}, [0])


def test_a_job_that_fits_on_a_node_of_another_size_is_no_problem():
    refs, deployments = sharing_gpus(4)
    assert shape_of(refs, deployments, [with_gpus("a", "64", "2"), node("b")])[1]
    assert not shape_of(refs, deployments, [with_gpus("a", "64", "4"), node("b")])[1]
    assert not shape_of(refs, deployments, [])[1], "no node is known"


def test_jobs_that_share_capacity_share_one_resource():
    refs, deployments = sharing_gpus(1, 1)
    other, _ = sharing_gpus(1, resource="cpu")
    with pytest.raises(
        ValueError, match=r"^deployments: deployment.resource differs \(cpu, nvidia.com/gpu\)"
    ):
        shape_of([refs[0], other[0]], deployments)


@pytest.mark.parametrize(
    "state",
    [
        {"unschedulable": True},
        {"ready": False},
        {"taints": [{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]},
    ],
)
def test_replicas_on_a_node_that_accepts_no_others_count_and_no_more(state):
    pods = [replica("r1", on="b"), replica("r2", on="b"), pod("db", "3", on="b")]
    pods.append(replica("gone", on="b", phase="Failed"))
    ending = replica("ending", on="b")
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    found = capacity(
        [node("a"), node("b", **state)], [*pods, ending], [], "jobs", is_replica, WHOLE
    )
    assert found.cores == 8 + 2
    assert found.by_node == {"a": 8, "b": 2}
    assert "b" in found.unusable


def test_replicas_count_on_a_node_without_room_for_another_one():
    shape = Shape({"cpu": 1.0, "memory": 16.0 * 2**30}, 1.0)
    pods = [replica(f"r{n}") for n in range(5)]
    assert cores([node(memory="32Gi")], shape=shape) == 2
    assert cores([node(memory="32Gi")], pods, shape=shape) == 5


def test_a_quota_leaves_at_least_what_replicas_use_also_those_without_a_node():
    pods = [replica("r1"), replica("r2"), replica("r3", on=None)]
    found = capacity([node()], pods, [quota(requests_cpu="1")], "jobs", is_replica, WHOLE)
    assert (found.cores, found.bound) == (3, "quota q")


def test_no_replica_is_placed_on_a_full_node_even_after_another_one_has_ended():
    free, placed = placement([replica("r", on="b")], lambda pod: 0, [1.0], {"a": 8, "b": 2}, {"b"})
    assert free.tolist() == [8, -float("inf")]
    assert placed.tolist() == [[0, 1]]


def test_finished_pods_do_not_reduce_the_capacity():
    assert (
        cores(
            [node(cpu="8")], [pod("job", "4", phase="Succeeded"), pod("crash", "4", phase="Failed")]
        )
        == 8
    )


def test_a_quota_below_the_nodes_binds_and_is_named():
    found = capacity([node(cpu="8")], [], [quota(requests_cpu="5")], "jobs", is_replica, WHOLE)
    assert (found.cores, found.bound) == (5, "quota q")


def test_other_pods_of_the_namespace_use_its_quota_even_without_a_node():
    others = [
        pod("web", "2", on=None),
        pod("elsewhere", "3", namespace="other", on=None),
        replica("r", cpu="1"),
    ]
    assert cores([node(cpu="8")], others, [quota(requests_cpu="5")]) == 3


def test_a_quota_of_another_namespace_does_not_count():
    assert cores([node(cpu="8")], quotas=[quota("other", requests_cpu="1")]) == 8


def test_the_tightest_of_several_quotas_and_resources_binds():
    shape = Shape({"cpu": 1.0, "memory": 2.0 * 2**30, "pods": 1.0}, 1.0)
    assert cores([node(cpu="8", memory="64Gi")], shape=shape) == 8
    assert cores([node(cpu="8", memory="10Gi")], shape=shape) == 5
    assert cores([node(cpu="8", pods="3")], shape=shape) == 3
    assert (
        cores(
            [node(cpu="8")],
            quotas=[quota(pods="4"), quota(name="r", requests_memory="4Gi")],
            shape=shape,
        )
        == 2
    )


def test_a_quota_of_limits_binds_too_and_counts_the_limits_of_others():
    shape = Shape({"cpu": 1.0, "limits.cpu": 2.0}, 1.0)
    other = pod("web", "1", on=None)
    other["spec"]["containers"][0]["resources"]["limits"] = {"cpu": "4"}
    assert cores([node(cpu="8")], quotas=[quota(limits_cpu="10")], shape=shape) == 5
    assert cores([node(cpu="8")], [other], [quota(limits_cpu="10")], shape=shape) == 3
    limited = {"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}}
    assert requests_of({"spec": {"containers": [limited, limited]}})["limits.cpu"] == 4


@pytest.mark.parametrize(
    ("hard", "left"),
    [
        ({"count/pods": "3"}, 3),
        ({"cpu": "2", "requests.cpu": "6"}, 2),
        ({"requests.cpu": "6", "cpu": "2"}, 2),
    ],
)
def test_every_limit_of_a_quota_binds(hard, left):
    one = {"metadata": {"name": "q", "namespace": "jobs"}, "spec": {"hard": hard}}
    assert cores([node(cpu="8")], quotas=[one], shape=Shape({"cpu": 1.0, "pods": 1.0}, 1.0)) == left


@pytest.mark.parametrize(
    ("scoped", "binds"),
    [
        ({"scopes": ["BestEffort"]}, False),
        ({"scopes": ["Terminating", "NotBestEffort"]}, False),
        ({"scopes": ["NotTerminating"]}, True),
        (
            {
                "scopeSelector": {
                    "matchExpressions": [{"scopeName": "PriorityClass", "operator": "Exists"}]
                }
            },
            False,
        ),
        (
            {
                "scopeSelector": {
                    "matchExpressions": [{"scopeName": "PriorityClass", "operator": "DoesNotExist"}]
                }
            },
            True,
        ),
        (
            {
                "scopeSelector": {
                    "matchExpressions": [{"scopeName": "NotBestEffort", "operator": "Exists"}]
                }
            },
            True,
        ),
    ],
)
def test_a_quota_whose_scopes_exclude_replicas_does_not_count(scoped, binds):
    one = quota(requests_cpu="2")
    one["spec"] |= scoped
    assert cores([node(cpu="8")], quotas=[one]) == (2 if binds else 8)


def test_a_pod_reserves_its_containers_sidecars_and_overhead_or_an_init_container():
    def container(cpu, **more):
        return {"name": "c", "resources": {"requests": {"cpu": cpu}}, **more}

    def reserved(**spec):
        return requests_of({"spec": spec})["cpu"]

    assert reserved(containers=[container("1"), container("500m")]) == 1.5
    assert (
        reserved(containers=[container("1")], initContainers=[container("3"), container("2")]) == 3
    )
    assert (
        reserved(
            containers=[container("1")], initContainers=[container("1", restartPolicy="Always")]
        )
        == 2
    )
    assert reserved(containers=[container("1")], overhead={"cpu": "250m"}) == 1.25
    assert reserved(containers=[{"name": "c", "resources": {"limits": {"cpu": "2"}}}]) == 2
    started = [
        container("2", restartPolicy="Always"),
        container("3"),
        container("1", restartPolicy="Always"),
    ]
    assert reserved(containers=[container("1")], initContainers=started) == 5, (
        "the second one starts beside the first"
    )


@pytest.mark.parametrize(
    ("resources", "cpu"),
    [
        ({"requests": {"cpu": "3"}}, 3),
        ({"requests": {"memory": "1Gi"}, "limits": {"cpu": "4"}}, 1),
        ({"requests": {"cpu": "500m"}, "limits": {"cpu": "4"}}, 0.5),
    ],
)
def test_requests_of_the_whole_pod_replace_those_of_its_containers(resources, cpu):
    described = pod("p", "1", resources=resources)
    assert requests_of(described)["cpu"] == cpu
    assert requests_of(small_pod(described)) == requests_of(described)


def test_a_limit_of_the_whole_pod_is_its_request_if_no_container_has_one():
    described = {"spec": {"containers": [{"name": "c"}], "resources": {"limits": {"cpu": "2"}}}}
    assert requests_of(described) == {"pods": 1, "cpu": 2, "limits.cpu": 2}


@given(
    st.lists(st.tuples(st.integers(0, 64), st.integers(0, 3000), st.booleans()), max_size=8),
    st.integers(0, 40),
)
def test_capacity_is_never_negative_and_never_above_nodes_and_quota(described, limit):
    nodes = [
        node(f"n{i}", str(cpu), unschedulable=gone) for i, (cpu, _, gone) in enumerate(described)
    ]
    pods = [pod(f"p{i}", f"{milli}m", on=f"n{i}") for i, (_, milli, _) in enumerate(described)]
    found = cores(nodes, pods, [quota(requests_cpu=str(limit))])
    assert 0 <= found <= min(limit, sum(cpu for cpu, _, gone in described if not gone))
    assert found <= cores(nodes, (), [quota(requests_cpu=str(limit))])


def test_the_informers_keep_enough_of_nodes_and_pods():
    nodes = [
        node("a", cpu="4", taints=[{"key": "x", "effect": "NoExecute"}]),
        node("b", cpu="4"),
        node("c", unschedulable=True),
    ]
    pods = [pod("db", "1500m", on="b"), replica("r", on="b"), pod("p", phase="Failed", on="b")]
    assert cores(map(small_node, nodes), map(small_pod, pods)) == cores(nodes, pods) == 2


def test_ray_capacity_is_that_of_ready_workers_on_ready_nodes():
    workers = [pod("w1", "4", on="a"), pod("w2", "4", on="b"), pod("w3", "4", on="a", ready=False)]
    workers.append(
        pod("w4", "4", on="a")
        | {"metadata": {"name": "w4", "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    )
    assert cores_of_workers(workers, [node("a"), node("b", ready=False)]).cores == 4
    assert cores_of_workers(workers, [node("a", unschedulable=True), node("b")]).cores == 8, (
        "a cordoned node still serves"
    )


def test_ray_workers_that_run_unready_or_on_silent_nodes_are_known_as_such():
    workers = [
        pod("ready", "4", on="a"),
        pod("unready", "2", on="a", ready=False),
        pod("silent", "3", on="b"),
        pod("starting", "5", on="a", ready=False, phase="Pending"),
    ]
    found = cores_of_workers(workers, [node("a"), node("b", ready=False)])
    assert (found.cores, found.unready) == (4, 5)


def test_a_worker_label_may_offer_more_cores_than_the_pod_requests():
    workers = [pod("w1", "500m", on="a"), pod("w2", "500m", on="a", labels={CORES: "4"})]
    assert cores_of_workers(workers, [node("a")]).cores == 4.5
