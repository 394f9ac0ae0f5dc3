"""Clamping plans to the free capacity."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from observations import observed

from faro_lib.control import Pending, clamp_to_capacity
from faro_lib.protocol import HOLD, Plan
from faro_lib.workload import Job, arrays_of


def plan(target, attempts=1):
    return Plan(np.array(target), np.zeros(len(target)), (HOLD,) * len(target), attempts)


def clamped(wanted, observation, pending=None, attempts=1, cores=None):
    cores = [1.0] * len(wanted) if cores is None else cores
    jobs = arrays_of(tuple(Job(str(n), cores=c) for n, c in enumerate(cores)))
    target, pending = clamp_to_capacity(
        pending or Pending.none(len(wanted)), plan(wanted, attempts), observation, jobs
    )
    return target.tolist(), pending


def test_scale_downs_come_first_so_that_others_can_use_the_freed_cores():
    assert clamped([4, 1], observed([2, 3], capacity=5))[0] == [4, 1]


def test_scale_ups_are_cut_in_the_order_of_the_jobs():
    assert clamped([3, 9, 3], observed([1, 1, 1], capacity=7))[0] == [3, 3, 1]


def test_a_job_is_cut_to_whole_replicas_and_the_next_job_gets_the_rest():
    assert clamped([3, 3], observed([1, 1], capacity=7.5), cores=[2.0, 0.5])[0] == [3, 3]
    assert clamped([3, 3], observed([1, 1], capacity=5.5), cores=[2.0, 0.5])[0] == [2, 3]


def test_tenths_of_cores_add_up_without_rounding_errors():
    assert clamped([7], observed([1], capacity=0.7), cores=[0.1])[0] == [7]


def test_a_job_that_is_changing_is_scaled_neither_up_nor_down():
    assert clamped([4, 1], observed([2, 3], changing=[True, True]))[0] == [2, 3]


def test_a_reaction_that_was_cut_or_skipped_does_not_stay_pending():
    _, pending = clamped([4, 4], observed([2, 2], capacity=5, changing=[True, False]))
    assert clamped([2, 3], observed([2, 3], capacity=9), pending)[0] == [2, 3]


def test_the_part_of_a_long_term_plan_that_was_cut_stays_pending():
    target, pending = clamped([4, 1], observed([2, 1], capacity=4), attempts=5)
    assert target == [3, 1]
    assert clamped([3, 1], observed([3, 1], capacity=6), pending)[0] == [4, 1]


def test_a_long_term_plan_that_was_skipped_is_tried_again():
    target, pending = clamped([1], observed([3], changing=[True]), attempts=5)
    assert target == [3]
    assert clamped([3], observed([3]), pending)[0] == [1]


def test_pending_targets_come_before_earlier_jobs():
    _, pending = clamped([1, 3], observed([1, 1], capacity=2), attempts=5)
    assert clamped([3, 1], observed([1, 1], capacity=4), pending)[0] == [1, 3]


def test_a_long_term_plan_has_five_attempts_in_total():
    full, roomy = observed([1], capacity=1), observed([1], capacity=9)
    _, pending = clamped([3], full, attempts=5)
    for _ in range(3):
        _, pending = clamped([1], full, pending)
    assert clamped([1], roomy, pending)[0] == [3]  # the fifth
    _, pending = clamped([1], full, pending)
    assert clamped([1], roomy, pending)[0] == [1]


def test_a_newer_long_term_plan_replaces_a_pending_target():
    _, pending = clamped([5], observed([1], capacity=1), attempts=5)
    assert clamped([2], observed([1]), pending, attempts=5)[0] == [2]


@given(st.data())
def test_clamped_targets_fit_the_capacity_and_lie_between_current_and_wanted(data):
    jobs = data.draw(st.integers(1, 5))

    def per_job(values):
        return data.draw(st.lists(values, min_size=jobs, max_size=jobs))

    now, wanted = per_job(st.integers(1, 9)), per_job(st.integers(1, 9))
    tenths = np.array(per_job(st.integers(1, 20)))
    changing = np.array(per_job(st.booleans()))
    capacity = int(tenths @ now) + data.draw(st.integers(0, 60))
    target, _ = clamped(wanted, observed(now, capacity / 10, changing), cores=tenths / 10)
    assert tenths @ target <= capacity
    assert (np.minimum(now, wanted) <= target).all()
    assert (target <= np.maximum(now, wanted)).all()
    assert (np.array(target)[changing] == np.array(now)[changing]).all()
    cut = (np.array(target) < wanted) & ~changing
    assert (int(tenths @ target) + tenths[cut] > capacity).all()  # no replica that fits is cut
