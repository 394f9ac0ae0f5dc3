"""Replicas that a belief asked for go back once it no longer does."""

import numpy as np

from faro_lib.policies.raised import LONGEST_MINUTES, RETURN_MINUTES, RISEN, USUAL, Raised

MET, MISSED = np.array([True]), np.array([False])


def after(raised, factor, target, minutes=1, met_slo=MET):
    for _ in range(minutes):
        raised = raised.after(np.array([factor]), met_slo, np.array([target]))
    return raised


def staying_at(raised, target):
    return raised.staying_at(np.array([target])).tolist()


USUALLY = after(Raised.start(1), 1.0, target=5, minutes=5)
SLOW = after(USUALLY, 1.6, target=12, minutes=60)


def test_plans_stay_at_the_present_replicas_as_long_as_the_factor_is_the_usual_one():
    assert staying_at(USUALLY, 7) == [7]


def test_plans_stay_at_the_present_replicas_while_the_factor_is_risen():
    assert staying_at(SLOW, 12) == [12]


def test_once_the_factor_has_fallen_plans_stay_close_to_the_replicas_from_before():
    assert staying_at(after(SLOW, 1.0, target=12), 12) == [5]


def test_a_job_with_fewer_replicas_than_before_gets_none_back_by_this_rule():
    assert staying_at(after(SLOW, 1.0, target=3), 3) == [3]


def test_replicas_go_back_during_ten_minutes_also_if_a_removal_takes_several():
    fallen = after(SLOW, 1.0, target=12)
    assert staying_at(after(fallen, 1.0, target=9, minutes=RETURN_MINUTES - 1), 9) == [5]
    assert staying_at(after(fallen, 1.0, target=9, minutes=RETURN_MINUTES), 9) == [9]


def test_a_second_rise_during_these_minutes_returns_to_the_same_replicas():
    again = after(after(SLOW, 1.0, target=12), 1.6, target=12, minutes=10)
    assert staying_at(again, 12) == [12]
    assert staying_at(after(again, 1.0, target=12), 12) == [5]


def test_replicas_of_minutes_that_miss_the_slo_are_not_those_from_before():
    missed = after(USUALLY, 1.0, target=8, minutes=3, met_slo=MISSED)
    assert staying_at(after(after(missed, 1.6, target=12), 1.0, target=12), 12) == [5]


def test_small_and_slow_changes_are_no_rise():
    factor, raised = 1.0, USUALLY
    for minute in range(200):
        factor *= 1.002
        raised = after(raised, factor, target=5 + minute)
    assert staying_at(after(raised, 1.0, target=300), 300) == [300]
    small = after(USUALLY, 0.99 * RISEN, target=6, minutes=3)
    assert staying_at(after(small, 1.0, target=6), 6) == [6]


def test_a_factor_that_stays_risen_becomes_the_usual_one():
    stays = after(USUALLY, 1.6, target=12, minutes=LONGEST_MINUTES + 5)
    assert stays.factor[0] > 1.6 / USUAL
    assert staying_at(after(stays, 1.6, target=12), 12) == [12]


def test_before_a_minute_that_met_the_slo_nothing_is_known_to_return_to():
    never = after(Raised.start(1), 1.6, target=9, minutes=3, met_slo=MISSED)
    assert staying_at(after(never, 1.0, target=9), 9) == [9]


def test_a_roll_out_forgets_its_job_alone():
    two = Raised.start(2)
    for factor, target in ((1.0, 5), (1.6, 12), (1.0, 12)):
        two = two.after(np.full(2, factor), np.ones(2, bool), np.full(2, target))
    forgotten = two.forgotten(np.array([True, False]))
    assert forgotten.staying_at(np.array([12, 12])).tolist() == [12, 5]
