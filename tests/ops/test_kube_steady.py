"""What happens to the cluster, or to one job, moves no other job's replicas."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from deployment_world import World, replaced
from hypothesis import given
from hypothesis import strategies as st
from kube_api import KubeApi
from kube_things import FAROPLAN, POD, QUOTA, pod, quota
from observations import observed

from faro_lib.policies.loops import LoopState
from faro_lib.protocol import PLAN_ATTEMPTS, Plan
from faro_lib.workload import Job
from faro_ops.journal.reading import parts
from faro_ops.journal.ticks import Header
from faro_ops.journal.writing import Journal
from faro_ops.operate.export.exporter import Exporter
from faro_ops.operate.job_states import FINE, MISCONFIGURED
from faro_ops.operate.kube import status
from faro_ops.operate.kube.capacity import Capacity
from faro_ops.operate.kube.leader_gate import LeaderGatedCluster
from faro_ops.operate.kube.operate import GatedJobs, check_some_job
from faro_ops.operate.kube.status import capacity_condition
from faro_ops.operate.limits.held import decide_with_held
from faro_ops.operate.limits.steady_capacity import (
    MEASURED,
    SHORT,
    SHRINK_AFTER_S,
    SHRUNK,
    STALE,
    STALE_S,
    VANISHED,
    SteadyCapacity,
)
from faro_ops.operate.loop.loop import without_data
from faro_ops.protocol import LiveGuardrails, live_observation

FULL = {"a": 8, "b": 8}  # all cores of both nodes


# --- capacity that vanishes -----------------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["cordon", "silence"])
@pytest.mark.parametrize("nodes", [["n1"], ["n1", "n2"]])
def test_replicas_on_cordoned_or_silent_nodes_are_kept(trouble, nodes):
    world = World(FULL)
    world.tick()
    getattr(world, trouble)(*nodes)
    assert world.run(600) == FULL


def test_a_quota_of_no_pods_removes_no_replica():
    world = World(FULL)
    world.tick()
    world.api.put(QUOTA, quota(pods="0"))
    assert world.run(600) == FULL
    assert world.gated.steady.reason == MEASURED


def test_a_cordoned_node_gets_no_new_replica():
    world = World({"a": 4, "b": 4})
    world.cordon("n1", "n2")
    assert world.run(60) == {"a": 4, "b": 4}, "the policy would have used all 16 cores"
    assert len(world.api.all(POD)) == 8


def test_a_node_that_is_gone_makes_the_jobs_shrink_after_two_minutes_and_not_before():
    world = World(FULL)
    world.tick()
    world.delete("n2")
    assert world.run(SHRINK_AFTER_S) == FULL
    assert world.gated.steady.reason == SHORT
    assert sum(world.run(20).values()) == 8


def test_capacity_that_comes_back_within_two_minutes_has_changed_nothing():
    world = World(FULL)
    world.tick()
    for _ in range(5):
        world.delete("n2")
        assert world.run(SHRINK_AFTER_S - 20) == FULL
        world.add("n2")
        assert world.run(20) == FULL


def test_if_all_nodes_are_gone_everything_holds_until_they_come_back():
    world = World(FULL)
    world.tick()
    world.delete("n1", "n2")
    assert world.run(3600, every_s=60) == FULL
    assert world.gated.steady.reason == VANISHED
    world.add("n1", "n2")
    assert world.run(60) == FULL
    assert world.gated.steady.reason == MEASURED


def test_more_capacity_counts_at_the_next_tick():
    world = World({"a": 4, "b": 4}, nodes=["n1"])
    world.tick()
    world.add("n2")
    world.tick()
    assert world.replicas == FULL


def test_while_capacity_is_short_no_job_grows():
    steady = SteadyCapacity().after(0.0, Capacity(16.0, {}, {}), 12.0)
    for now_s in (10.0, 20.0):
        steady = steady.after(now_s, Capacity(8.0, {}, {}), 12.0)
        assert (steady.cores, steady.reason) == (12.0, SHORT)


def test_replicas_that_another_client_requests_add_no_capacity():
    before = SteadyCapacity().after(0.0, Capacity(8.0, {}, {}), 8.0)
    assert before.after(10.0, Capacity(8.0, {}, {}), 50.0).cores == 8.0


def test_a_worker_of_ray_that_runs_but_is_not_ready_counts_only_as_far_as_the_jobs_use_it():
    measured = Capacity(4.0, {}, {}, "workers", unready=8.0)
    assert SteadyCapacity().after(0.0, measured, 10.0).cores == 10.0
    assert SteadyCapacity().after(0.0, measured, 3.0).cores == 4.0
    assert SteadyCapacity().after(0.0, measured, 20.0).reason == SHORT


def test_two_minutes_begin_again_after_a_time_without_any_capacity():
    none, half = Capacity(0.0, {}, {}), Capacity(8.0, {}, {})
    steady = SteadyCapacity().after(0.0, Capacity(16.0, {}, {}), 16.0)
    steady = steady.after(10.0, half, 16.0).after(20.0, none, 16.0).after(300.0, half, 16.0)
    assert steady.reason == SHORT
    assert steady.after(300.0 + SHRINK_AFTER_S, half, 16.0).reason == SHRUNK


@given(
    st.lists(st.tuples(st.floats(0.1, 200.0), st.integers(0, 20), st.integers(0, 20)), max_size=30)
)
def test_jobs_shrink_only_after_two_minutes_below_and_never_grow_beyond_what_there_is(ticks):
    steady = SteadyCapacity()
    now_s, below_s, counted = 0.0, None, math.inf
    for after_s, cores, used in ticks:
        now_s += after_s
        below = 0 < cores < used
        below_s = (now_s if below_s is None else below_s) if below else None
        steady = steady.after(now_s, Capacity(float(cores), {}, {}), float(used))
        if cores == 0 < used:
            assert math.isnan(steady.cores)
            continue
        assert cores <= steady.cores <= max(cores, min(used, counted))
        if below and now_s - below_s < SHRINK_AFTER_S:
            assert steady.cores == max(cores, min(used, counted))
        else:
            assert steady.cores == cores
        counted = steady.cores


# --- a stale copy ---------------------------------------------------------------------------------


def test_a_stale_copy_means_an_unknown_capacity_and_the_jobs_keep_what_they_use():
    world = World({"a": 4, "b": 4})
    world.copies[1].age_s, world.copies[1].error = STALE_S + 1, "connection refused"
    assert world.run(600) == {"a": 4, "b": 4}
    assert world.gated.steady.reason == STALE
    assert world.gated.steady.note == "the capacity is 91 s old (/pods: connection refused)"
    world.copies[1].age_s = 3.0
    step = world.tick()
    assert step.observation.capacity == 16.0
    assert step.observation.capacity_age_s == 3.0


def test_an_old_capacity_that_was_never_measured_again_takes_no_replica():
    world = World(FULL)
    world.tick()
    world.delete("n1")  # the copies do not know it
    world.copies[0].age_s = 10_000.0
    assert world.run(600) == FULL


# --- one job's pod template -----------------------------------------------------------------------

AFFINITY = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [
                {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
            ]
        }
    }
}
TEMPLATE = pod("template", "1")
EDITS = {
    "more than its cores": (pod("template", "2"), "job 'c': cores=1 is less than the 2 cpu"),
    "an affinity": (replaced(TEMPLATE, affinity=AFFINITY), "a required nodeAffinity is not read"),
    "another nodeSelector": (
        replaced(TEMPLATE, nodeSelector={"pool": "new"}),
        r"deployment 'jobs/c': nodeSelector=\{'pool': 'new'\} differs from \{\} of the other jobs",
    ),
    "memory that no node has": (
        pod("template", "1", memory="1Ti"),
        "deployment 'jobs/c': no node is large enough for its pods, which request 1 cpu, 1.09951e",
    ),
    "a GPU that no node has": (
        replaced(
            TEMPLATE,
            containers=[{"resources": {"requests": {"cpu": "1", "nvidia.com/gpu": "1"}}}],
        ),
        "no node is large enough for its pods, which request 1 cpu, 1 nvidia.com/gpu",
    ),
    "nonsense": (
        replaced(TEMPLATE, containers=[{"resources": {"requests": {"cpu": "much"}}}]),
        "deployment 'jobs/c': its pod template cannot be read",
    ),
}


@pytest.mark.parametrize(("template", "problem"), EDITS.values(), ids=EDITS)
def test_one_jobs_edited_template_keeps_its_replicas_and_the_others_are_scaled(template, problem):
    world = World({"a": 2, "b": 2, "c": 3})
    world.edit_template("c", template)
    world.run(60)
    state = world.states.of("c")
    assert state.state == MISCONFIGURED
    with pytest.raises(AssertionError, match=problem):
        raise AssertionError(state.reason)
    assert world.states.of("a").state == FINE
    assert world.replicas == {"a": 5, "b": 5, "c": 3}, "16 cores, shared by three"


def test_the_pods_of_a_misconfigured_job_count_as_other_pods():
    world = World({"a": 2, "b": 2, "c": 3})
    world.edit_template("c", pod("template", "2"))
    for one in world.api.pods_of("c"):
        one["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "2"
    seen = world.gated.observe()
    assert seen.capacity == 16 - 3 * 2 + 3, "the rest of the nodes, and c's own three cores"
    assert seen.held.tolist() == [False, False, True]


def test_a_misconfigured_job_keeps_its_replicas_while_others_have_to_shrink():
    world = World({"a": 6, "b": 6, "c": 4})
    world.tick()
    world.edit_template("c", pod("template", "2"))
    world.delete("n2")
    replicas = world.run(400)
    assert replicas["c"] == 4
    serving = sum("nodeName" in one["spec"] for one in world.api.pods_of("c"))
    assert replicas["a"] + replicas["b"] == 8 - serving


def test_a_job_whose_template_is_mended_is_scaled_again(caplog):
    world = World({"a": 2, "b": 2, "c": 3})
    world.edit_template("c", pod("template", "2"))
    world.run(60)
    world.edit_template("c", TEMPLATE)
    world.tick()
    assert world.states.of("c").state == FINE
    assert world.run(10)["c"] == 5
    assert not world.memory.guard.leaves().any(), "Faro restores its targets again"
    assert caplog.text.count("cores=1 is less than the 2 cpu") == 1


def test_a_misconfigured_job_that_somebody_scales_by_hand_is_not_contested():
    world = World({"a": 2, "b": 2, "c": 3})
    world.edit_template("c", pod("template", "2"))
    for count in (1, 2, 3, 4, 5, 6):
        world.tick()
        world.replicas["c"] = count
    assert world.run(10)["c"] == 6
    world.edit_template("c", TEMPLATE)
    world.replicas["c"] = 4
    assert world.run(60)["c"] == 5


def test_a_policy_that_fails_does_not_move_a_misconfigured_job():
    world = World({"a": 2, "b": 2, "c": 3})
    world.policy.decide = lambda state, observation: 1 / 0
    world.edit_template("c", pod("template", "2"))
    world.delete("n2")
    assert world.run(400)["c"] == 3


def test_the_policy_plans_the_others_around_a_held_job():
    class Planning:
        def decide(self, state, observation):
            self.bounds = [(job.min_replicas, job.max_replicas) for job in state.jobs]
            self.capacity = observation.capacity
            return state, Plan(np.array([1, 1]), np.zeros(2), ("planned",) * 2, PLAN_ATTEMPTS)

    jobs = (Job("a"), Job("b"))
    state = LoopState(jobs, None, np.zeros(2), np.zeros(2))
    seen = observed([2, 7], capacity=5.0, held=np.array([False, True]))
    policy = Planning()
    after, plan = decide_with_held(policy, state, seen)
    assert policy.bounds == [(1, 100), (7, 7)]
    assert policy.capacity == 8, "the least that all minima need"
    assert after.jobs == jobs
    assert plan.target.tolist() == [1, 7]
    assert plan.left.tolist() == [False, True]


# --- what an operator sees ------------------------------------------------------------------------


def test_the_status_says_why_the_capacity_is_unknown_and_since_when(monkeypatch):
    times = iter(["leads", "first", "second", "third"])
    monkeypatch.setattr(status, "_now", lambda: next(times))
    world, api = World({"a": 4, "b": 4}), KubeApi(namespace="n")
    reporter = status.Reporter(
        api, "n", "faro", "p", "me", conditions=lambda: [capacity_condition(world.gated.steady)]
    )

    def published():
        return api.find(FAROPLAN, "faro", "n")["status"]

    def conditions():
        reporter.publish([(world.jobs, world.tick())])
        return {one["type"]: one for one in published()["conditions"]}

    assert conditions()["CapacityKnown"]["status"] == "True"
    assert published()["capacityAgeSeconds"] == 0
    world.copies[0].age_s = 100.0
    for _ in range(2):
        found = conditions()["CapacityKnown"]
    reporter.close()
    assert found["status"] == "False"
    assert found["reason"] == STALE
    assert found["message"] == "the capacity is 100 s old (/nodes: no event)"
    assert found["lastTransitionTime"] == "second"
    assert published()["capacityAgeSeconds"] == 100


def test_the_age_of_the_capacity_is_exported_and_grows_while_nothing_is_observed():
    world = World({"a": 4, "b": 4})
    world.copies[2].age_s = 12.0
    step = world.tick()
    with closing(Exporter(world.jobs, 0)) as exporter:
        exporter.step(step)
        assert exporter._capacity_age._value.get() == 12.0
    later = without_data(step.observation, step.observation.now_s + 30)
    assert later.capacity_age_s == 42.0


def test_a_tick_with_held_jobs_is_read_from_the_journal_as_it_was(tmp_path):
    world = World({"a": 2, "b": 2, "c": 3})
    world.edit_template("c", pod("template", "2"))
    world.cordon("n1")  # its free cores are -inf
    step = world.tick()
    path = tmp_path / "journal"
    with Journal(path) as written:
        written.begin(Header("FullUse", world.jobs, LiveGuardrails(), 10.0, True))
        written.tick(step, None)
    _, (read,) = parts(path)[-1]
    seen = read.step.observation
    assert seen.held.tolist() == [False, False, True]
    assert seen.held.dtype == bool
    assert seen.capacity_age_s == 0.0
    np.testing.assert_array_equal(seen.free_cores, step.observation.free_cores)


# --- the start ------------------------------------------------------------------------------------


def test_a_controller_starts_beside_a_misconfigured_job_but_not_if_all_are():
    world = World({"a": 2, "b": 2})
    gated = GatedJobs(world.jobs, world.gated, None)
    world.edit_template("b", pod("template", "2"))
    check_some_job(gated)
    world.edit_template("a", pod("template", "2"))
    with pytest.raises(ValueError, match=r"^job 'a': cores=1 is less .*\(and 1 more jobs\)$"):
        check_some_job(gated)


def test_the_pods_of_each_job_are_known_although_another_deployment_does_not_exist():
    world = World({"a": 2, "b": 4})
    del world.replicas["a"]
    world.cluster.seen = [{}, {}]
    world.cluster.read()
    seen = world.gated.observe()
    assert seen.placed.sum(axis=1).tolist() == [0, 4]


def test_a_job_that_its_platform_holds_is_held_beside_a_measured_capacity():
    """An application of Ray that failed, for example, whatever the nodes have."""
    seen = live_observation(observed(target=[2, 3]))
    seen = replace(seen, held=np.array([False, True]))
    inner = SimpleNamespace(observe=lambda: seen, advance=None, writer_of=None, apply=None)
    jobs = Job("a"), Job("b")
    gated = LeaderGatedCluster(inner, lambda: Capacity(8.0, {"n1": 8.0}, {}), jobs=jobs)
    assert gated.observe().held.tolist() == [False, True]
