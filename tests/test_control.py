"""Admission: what of a plan the free capacity allows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faro_lib.control import Pending, admit, run
from faro_lib.policies import FairShare
from faro_lib.policies.protocol import HOLD, Observation, Plan
from faro_lib.workload import Job


def seen(target, capacity=100.0, changing=None, now_s=60.0, **fields):
    jobs = len(target)
    target = np.array(target)
    nothing = np.zeros(jobs)
    defaults = dict(
        now_s=now_s,
        capacity=capacity,
        minute=1,
        arrivals_per_min=np.zeros((jobs, 1)),
        mean_latency_s=nothing,
        tail_latency_s=nothing,
        ongoing=nothing,
        running=target,
        starting=np.zeros(jobs, np.int64),
        target=target,
        terminating=np.zeros(jobs, np.int64),
        changing=np.zeros(jobs, bool) if changing is None else np.array(changing),
        drop=nothing,
    )
    return Observation(**{**defaults, **fields})


def plan(target, attempts=1):
    return Plan(np.array(target), np.zeros(len(target)), (HOLD,) * len(target), attempts)


def admitted(wanted, observation, pending=None, attempts=1, cores=None):
    cores = np.ones(len(wanted)) if cores is None else np.array(cores)
    target, pending = admit(pending or Pending.none(len(wanted)), plan(wanted, attempts), observation, cores)
    return target.tolist(), pending


def test_downscales_come_first_so_that_what_they_free_can_be_given():
    assert admitted([4, 1], seen([2, 3], capacity=5))[0] == [4, 1]


def test_what_does_not_fit_is_cut_in_the_order_of_the_jobs():
    assert admitted([3, 9, 3], seen([1, 1, 1], capacity=7))[0] == [3, 3, 1]


def test_a_job_with_large_replicas_is_cut_to_whole_ones_and_the_next_gets_the_rest():
    assert admitted([3, 3], seen([1, 1], capacity=7.5), cores=[2.0, 0.5])[0] == [3, 3]
    assert admitted([3, 3], seen([1, 1], capacity=5.5), cores=[2.0, 0.5])[0] == [2, 3]


def test_tenths_of_cores_add_up_without_rounding_errors():
    assert admitted([7], seen([1], capacity=0.7), cores=[0.1])[0] == [7]


def test_a_job_whose_change_is_going_on_is_skipped_up_and_down():
    assert admitted([4, 1], seen([2, 3], changing=[True, True]))[0] == [2, 3]


def test_a_reaction_that_was_cut_or_skipped_is_forgotten():
    _, pending = admitted([4, 4], seen([2, 2], capacity=5, changing=[True, False]))
    assert admitted([2, 3], seen([2, 3], capacity=9), pending)[0] == [2, 3]


def test_the_part_of_a_long_term_action_that_was_cut_is_carried_to_later_ticks():
    target, pending = admitted([4, 1], seen([2, 1], capacity=4), attempts=5)
    assert target == [3, 1]
    assert admitted([3, 1], seen([3, 1], capacity=6), pending)[0] == [4, 1]


def test_a_long_term_action_that_was_skipped_is_tried_again():
    target, pending = admitted([1], seen([3], changing=[True]), attempts=5)
    assert target == [3]
    assert admitted([3], seen([3]), pending)[0] == [1]


def test_what_was_carried_comes_before_jobs_earlier_in_the_file():
    _, pending = admitted([1, 3], seen([1, 1], capacity=2), attempts=5)
    assert admitted([3, 1], seen([1, 1], capacity=4), pending)[0] == [1, 3]


def test_an_action_is_tried_five_times_in_all():
    full, roomy = seen([1], capacity=1), seen([1], capacity=9)
    _, pending = admitted([3], full, attempts=5)
    for _ in range(3):
        _, pending = admitted([1], full, pending)
    assert admitted([1], roomy, pending)[0] == [3]  # the fifth
    _, pending = admitted([1], full, pending)
    assert admitted([1], roomy, pending)[0] == [1]


def test_a_newer_long_term_action_replaces_what_was_carried():
    _, pending = admitted([5], seen([1], capacity=1), attempts=5)
    assert admitted([2], seen([1]), pending, attempts=5)[0] == [2]


@given(st.data())
def test_admission_stays_within_the_capacity_and_between_what_is_and_what_is_wanted(data):
    jobs = data.draw(st.integers(1, 5))

    def per_job(values):
        return data.draw(st.lists(values, min_size=jobs, max_size=jobs))

    now, wanted = per_job(st.integers(1, 9)), per_job(st.integers(1, 9))
    tenths, changing = np.array(per_job(st.integers(1, 20))), np.array(per_job(st.booleans()))
    capacity = int(tenths @ now) + data.draw(st.integers(0, 60))
    target, _ = admitted(wanted, seen(now, capacity / 10, changing), cores=tenths / 10)
    assert tenths @ target <= capacity
    assert (np.minimum(now, wanted) <= target).all()
    assert (target <= np.maximum(now, wanted)).all()
    assert (np.array(target)[changing] == np.array(now)[changing]).all()
    cut = (np.array(target) < wanted) & ~changing
    assert (int(tenths @ target) + tenths[cut] > capacity).all()  # nothing is cut that would have fitted


class Recorder:
    """A cluster that only keeps what is asked of it."""

    def __init__(self):
        self.now_s, self.applied = 0.0, []

    def advance(self, until_s):
        self.now_s = until_s

    def observe(self):
        return seen([3], capacity=3, now_s=self.now_s)

    def apply(self, target, drop):
        self.applied.append((self.now_s, target.tolist(), drop.tolist()))


def test_the_loop_acts_at_every_tick_before_the_end_and_then_lets_the_rest_of_the_time_pass():
    cluster, steps = Recorder(), []
    run(cluster, FairShare(), (Job("a"),), 200.0, on_step=steps.append)
    assert cluster.applied == [(60.0, [3], [0.0]), (120.0, [3], [0.0]), (180.0, [3], [0.0])]
    assert cluster.now_s == 200.0
    assert [step.observation.now_s for step in steps] == [60.0, 120.0, 180.0]


def test_the_loop_does_not_act_at_the_very_end():
    cluster = Recorder()
    run(cluster, FairShare(), (Job("a"),), 120.0)
    assert [now_s for now_s, _, _ in cluster.applied] == [60.0]


@pytest.mark.parametrize("start_s", [0.0, 30.0])
def test_the_first_tick_is_one_interval_after_the_start(start_s):
    cluster = Recorder()
    run(cluster, FairShare(), (Job("a"),), 1000.0, start_s=start_s)
    assert cluster.applied[0][0] == start_s + 60.0
