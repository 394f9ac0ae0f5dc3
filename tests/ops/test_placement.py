"""Placement: a replica that no node has room for is not requested."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kube_things import node, pod
from observations import known_of, observed

from faro_lib.control import Memory, Pending
from faro_lib.control.limits import Wanted
from faro_lib.policies import FairShare
from faro_lib.protocol import hold
from faro_lib.workload import Job
from faro_ops.operate.kube.capacity import Shape, capacity, placement
from faro_ops.operate.limits.placement import nodes, placeable
from faro_ops.operate.loop.tick import tick
from faro_ops.protocol import FRAGMENTED, LiveGuardrails, live_plan


def fitting(target, cores, placed, free):
    return placeable(
        np.array(target), np.array(cores, float), np.array(placed), np.array(free, float)
    ).tolist()


def test_two_halves_of_a_replica_on_two_nodes_are_not_a_replica():
    assert fitting([1], [2], [[0, 0]], [1, 1]) == [0]
    assert fitting([1], [2], [[0, 0]], [2, 0]) == [1]


def test_replicas_that_run_stay_where_they_are():
    assert fitting([2, 1], [1, 2], [[1, 1], [0, 0]], [1, 1]) == [2, 0]


def test_a_job_that_shrinks_makes_room_where_most_of_its_replicas_are():
    assert fitting([1, 1], [1, 2], [[1, 1, 1], [0, 0, 0]], [0, 0, 0]) == [1, 0], (
        "one core on each of two nodes"
    )
    assert fitting([1, 1], [1, 2], [[3, 0], [0, 0]], [0, 0]) == [1, 1]


def test_a_cluster_without_a_usable_node_has_room_for_nothing():
    assert fitting([2], [1], np.zeros((1, 0), int), []) == [0]


counts = st.integers(0, 6)


@given(
    st.lists(counts, min_size=3, max_size=3), st.lists(st.integers(0, 8), min_size=1, max_size=4)
)
def test_replicas_of_one_core_fit_exactly_if_the_sum_of_free_cores_holds_them(target, free):
    placed = np.zeros((3, len(free)), int)
    kept = sum(fitting(target, [1, 1, 1], placed, free))
    assert kept == min(sum(target), sum(free))


@given(
    st.lists(counts, min_size=2, max_size=2), st.lists(st.integers(0, 8), min_size=1, max_size=4)
)
def test_no_more_is_kept_than_wanted_nor_than_the_nodes_have(target, free):
    kept = fitting(target, [3, 1], np.zeros((2, len(free)), int), free)
    assert all(0 <= have <= want for have, want in zip(kept, target))
    assert kept[0] <= sum(room // 3 for room in free)
    assert 3 * kept[0] + kept[1] <= sum(free)


def test_a_plan_that_would_leave_a_pod_pending_is_cut_and_says_fragmented():
    jobs = (Job("large", cores=3.0), Job("small"))
    nodes = [node("a", "4"), node("b", "4")]
    pods = [
        pod("large-1", "3", on="a", labels={"app": "0"}),
        pod("small-1", on="b", labels={"app": "1"}),
    ]

    def job_of(one):
        return int(one["metadata"]["labels"]["app"])

    pods.append(pod("small-2", on="b", labels={"app": "1"}))
    have = capacity(nodes, pods, [], "jobs", lambda one: True, Shape(quantum=1.0))
    free, placed = placement(pods, job_of, [3.0, 1.0], have.by_node)
    assert (free.tolist(), placed.tolist()) == ([1, 2], [[1, 0], [0, 2]])
    seen = observed([1, 2], capacity=have.cores, free_cores=free, placed=placed)

    class TwoLarge(FairShare):
        def decide(self, state, observation):
            after, plan = super().decide(state, observation)
            return after, type(plan)(np.array([2, 2]), plan.drop, ("planned",) * 2)

    policy = TwoLarge()
    _, step = tick(policy, LiveGuardrails(), jobs, Memory.start(policy, jobs), seen)
    assert step.target.tolist() == [1, 2], "8 cores would hold 2 x 3 + 2, but no node has 3 left"
    assert step.plan.reason[0] == FRAGMENTED


@pytest.mark.parametrize("left", [False, True])
def test_a_job_that_faro_leaves_to_others_keeps_a_target_that_fits_on_no_node(left):
    seen = observed([2], capacity=8.0, free_cores=np.array([1.0, 2.0]), placed=np.array([[1, 0]]))
    known = known_of((Job("large", cores=3.0),), seen, left=np.array([left]))
    wanted = nodes(Wanted(live_plan(hold(seen)), np.array([2]), Pending.none(1)), known)
    assert wanted.target.tolist() == ([2] if left else [1])
    assert (wanted.plan.reason == (FRAGMENTED,)) is not left
