"""What is wrong with one job that is a Deployment holds that job, and no other."""

from __future__ import annotations

import numpy as np
import pytest
from deployment_world import World
from kube_api import KubeApi
from kube_things import HPA, POD, hpa, pod
from test_kube_ceilings import JOBS, QUERIES, cluster_on, two_services
from test_kube_preflight import reviewed

from faro_lib.workload import Job
from faro_ops.operate.job_states import CONTESTED, FINE, GONE, MISCONFIGURED, JobStates
from faro_ops.operate.kube import job_checks, preflight
from faro_ops.operate.kube.job_checks import JobChecks, ObjectPermissions, refs_of
from faro_ops.operate.kube.leader_gate import LeaderGatedCluster
from faro_ops.operate.kube.operate import NamespacedName, watch_capacity
from faro_ops.operate.limits.steady_capacity import SteadyCapacity


def gated(server, permissions=True):
    """Two jobs whose HPAs Faro bounds, and the board."""
    states = JobStates()
    cluster = cluster_on(server)
    asked = ObjectPermissions(reviewed(lambda asked: True), preflight.FOR_CEILINGS)
    checks = JobChecks(cluster, {}, asked if permissions else None)
    return LeaderGatedCluster(cluster, jobs=JOBS, states=states, checks=checks), states


# --- autoscalers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (None, "deployment 'jobs/a' has no HorizontalPodAutoscaler"),
        ({"name": "by-cpu"}, "job 'a': deployment.autoscaler='a' must be 'by-cpu'"),
        ({"ownerReferences": [{"kind": "ScaledObject", "name": "x"}]}, "belongs to ScaledObject"),
    ],
)
def test_an_hpa_that_faro_cannot_bound_holds_its_job_and_the_other_is_bounded(changed, reason):
    server = two_services()
    removed = server.remove(HPA, "a")
    if changed:
        server.put(HPA, removed | {"metadata": removed["metadata"] | changed})
    cluster, states = gated(server)
    seen = cluster.observe()
    assert seen.held.tolist() == [True, False]
    assert states.of("a").state == MISCONFIGURED
    assert reason in states.of("a").reason
    assert states.of("b").state == FINE


def test_a_dry_run_reports_an_hpa_and_still_plans_for_its_job():
    server = two_services()
    server.remove(HPA, "a")
    cluster, states = gated(server, permissions=False)
    assert cluster.observe().held is None
    assert states.of("a").state == MISCONFIGURED


def test_an_hpa_that_appears_on_a_job_that_faro_scales_contests_it():
    world = World({"a": 2, "b": 2})
    checks = JobChecks(world.cluster, {}, ObjectPermissions(reviewed(lambda _: True), ()))
    world.gated._checks = checks
    world.api.put(HPA, hpa("by-cpu", target="a"))
    assert world.gated.observe().held.tolist() == [True, False]
    assert world.states.of("a").state == CONTESTED


# --- Deployments ----------------------------------------------------------------------------------


def test_a_deployment_that_does_not_exist_is_gone_and_not_held():
    world = World({"a": 2, "b": 2})
    world.gated._checks = JobChecks(world.cluster, {}, None)
    del world.replicas["a"]
    seen = world.gated.observe()
    assert seen.exists.tolist() == [False, True]
    assert seen.held is None
    assert world.states.of("a").state == GONE


# --- sections -------------------------------------------------------------------------------------


def test_the_deployment_of_an_invalid_section_is_still_read_if_it_is_named():
    sections = {
        "a": {"queries": QUERIES},
        "b": {"name": "other", "queries": {}},
        "c": {"namespace": "kube-system", "queries": QUERIES},
    }
    refs, problems = refs_of([Job(name) for name in "abc"], sections, "jobs")
    assert [str(ref) for ref in refs] == ["jobs/a", "jobs/other", "jobs/"]
    assert set(problems) == {1, 2}
    assert refs[1].queries.requests == ""


def test_the_namespace_of_most_jobs_is_that_of_the_capacity():
    of = {"queries": QUERIES, "namespace": "models"}
    sections = {"a": {"queries": QUERIES}, "b": of, "c": of}
    refs, problems = refs_of([Job(name) for name in "abc"], sections, "jobs")
    assert {ref.namespace for ref in refs} == {"models"}
    assert list(problems) == [0]
    assert "deployment.namespace='jobs' differs from 'models'" in problems[0]


def test_the_pods_of_a_job_with_an_invalid_section_count_as_other_pods():
    world = World({"a": 4, "b": 4})
    world.cluster.checks = JobChecks(world.cluster, {1: "job 'b': invalid"}, None)
    plan = NamespacedName("jobs", "faro")
    watch = watch_capacity(world.api, plan, world.cluster, world.jobs)
    watch._informers = world.copies
    world.cluster.refresh()
    assert watch.current().cores == 12
    assert watch.current().problems == {1: "job 'b': invalid"}


# --- permissions ----------------------------------------------------------------------------------


def test_a_permission_is_asked_for_again_only_after_a_minute_and_until_it_is_there(monkeypatch):
    allowed, objects = set(), [("jobs", "a"), ("jobs", "b")]
    server = reviewed(lambda asked: asked["name"] in allowed)
    permissions = ObjectPermissions(server, preflight.FOR_DEPLOYMENTS)
    allowed.add("a")
    permissions.ask(objects)
    (problem,) = permissions.problems(objects).values()
    assert problem.startswith("may not get deployments/scale.apps 'b' in namespace 'jobs'")
    asked = len(server.requests)
    permissions.problems(objects)
    assert len(server.requests) == asked
    allowed.add("b")
    monkeypatch.setattr(job_checks, "RECHECK_S", 0.0)
    permissions.problems(objects)
    permissions._asking.result(10)
    assert permissions.problems(objects) == {}


def test_a_server_that_does_not_say_denies_nothing():
    server = KubeApi()
    server.silent = True
    permissions = ObjectPermissions(server, preflight.FOR_DEPLOYMENTS)
    permissions.ask([("jobs", "a")])
    assert permissions.problems([("jobs", "a")]) == {}


# --- what outlives a change of settings -----------------------------------------------------------


def test_a_new_set_up_shares_the_copies_of_nodes_and_pods_and_keeps_the_capacity_that_counts():
    world = World({"a": 4, "b": 4})
    plan = NamespacedName("jobs", "faro")
    before = watch_capacity(world.api, plan, world.cluster, world.jobs)
    after = watch_capacity(world.api, plan, world.cluster, world.jobs, before)
    assert after.shares
    assert after.copies == before.copies
    world.gated.steady = SteadyCapacity(cores=7.0)
    new = LeaderGatedCluster(World({"a": 4, "b": 4}).cluster, jobs=world.jobs)
    world.cluster._drop[:] = [0.1, 0.2]
    new.follow(world.gated)
    assert new.steady.cores == 7.0
    np.testing.assert_array_equal(new.inner._drop, [0.1, 0.2])


def test_pods_that_wait_for_a_node_are_counted_by_job():
    world = World({"a": 4, "b": 13})
    watch = watch_capacity(world.api, NamespacedName("jobs", "faro"), world.cluster, world.jobs)
    watch._informers = world.copies
    world.cluster.refresh()
    world.api.put(POD, pod("x", on=None, phase="Pending", labels={"app": "x"}))
    assert watch.pending() == {1: 1}
