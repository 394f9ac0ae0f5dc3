"""Policies without a forecast: shares and counters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from observations import observed

from faro_lib.policies import AIAD, FairShare, Oneshot
from faro_lib.protocol import REACTIVE_DOWN, REACTIVE_UP
from faro_lib.workload import Job
from faro_lib.workload.shares import fair_share

# Mean latencies around the SLO of 0.720 s; SILENT: no request ended.
ABOVE, BELOW, SILENT = 1.0, 0.2, 0.0


def targets(policy, latencies, start=5, changing=()):
    """The targets of one job over ticks of 10 s at these mean latencies.

    Plans are carried out at once, unless the job is changing.
    """
    job = (Job("a"),)
    state = policy.start(job)
    target = start
    wanted = []
    for tick, latency_s in enumerate(latencies, 1):
        observation = observed([target], now_s=10.0 * tick, mean_latency_s=np.array([latency_s]))
        state, plan = policy.decide(state, observation)
        wanted.append(int(plan.target[0]))
        if tick not in changing:
            target = wanted[-1]
    return wanted


def test_aiad_adds_one_at_the_third_tick_above_the_slo_and_counts_again():
    assert targets(AIAD(), [ABOVE] * 7) == [5, 5, 6, 6, 6, 7, 7]


def test_aiad_removes_one_at_the_sixtieth_tick_below_the_slo_and_counts_again():
    wanted = targets(AIAD(), [BELOW] * 121)
    assert wanted[:59] == [5] * 59
    assert wanted[59:119] == [4] * 60
    assert wanted[119:] == [3] * 2


@pytest.mark.parametrize("latency_s", [ABOVE, BELOW])
@pytest.mark.parametrize("policy", [AIAD(), Oneshot()], ids=lambda policy: policy.name)
def test_the_time_before_the_first_tick_of_a_run_does_not_count(policy, latency_s):
    first = observed([5], now_s=910.0, mean_latency_s=np.array([latency_s]))
    _, plan = policy.decide(policy.start((Job("a"),)), first)
    assert plan.target.tolist() == [5]


def test_a_tick_below_the_slo_resets_the_count_above_it():
    assert targets(AIAD(), [ABOVE, ABOVE, BELOW, ABOVE, ABOVE, BELOW, ABOVE, ABOVE]) == [5] * 8


def test_a_tick_above_the_slo_resets_the_count_below_it():
    assert set(targets(AIAD(), [BELOW] * 59 + [ABOVE] + [BELOW] * 59)) == {5}
    assert targets(AIAD(), [BELOW] * 59 + [ABOVE] + [BELOW] * 60)[-1] == 4


def test_a_job_without_requests_counts_as_below_the_slo():
    assert targets(AIAD(), [SILENT] * 60)[-1] == 4


def test_a_latency_of_exactly_the_slo_is_not_above_it():
    assert targets(AIAD(), [0.720] * 60)[-1] == 4


def test_counters_continue_during_a_change():
    # The plan of tick 3 is not carried out yet at ticks 4 to 6; tick 6 still plans an increase.
    assert targets(AIAD(), [ABOVE] * 6, changing={3, 4, 5, 6})[2::3] == [6, 6]


def test_oneshot_grows_in_proportion_to_latency_over_slo_rounded_up():
    assert targets(Oneshot(), [1.0] * 3)[-1] == int(np.ceil(5 * 1.0 / 0.720))


def test_oneshot_shrinks_by_the_same_formula():
    assert targets(Oneshot(), [0.2] * 60)[-1] == int(np.ceil(5 * 0.2 / 0.720))


def test_oneshot_grows_to_the_maximum_at_an_infinite_latency():
    jobs = (Job("a", max_replicas=9),)
    state, plan = Oneshot().start(jobs), None
    for n in range(1, 4):
        state, plan = Oneshot().decide(
            state, observed([8], now_s=10.0 * n, mean_latency_s=np.array([np.inf]))
        )
    assert (plan.target.tolist(), plan.reason) == ([9], (REACTIVE_UP,))


def test_oneshot_leaves_one_replica_to_a_job_without_requests():
    assert targets(Oneshot(), [SILENT] * 60)[-1] == 1


@pytest.mark.parametrize("policy", [AIAD(), Oneshot()], ids=lambda policy: policy.name)
def test_targets_stay_within_the_bounds_of_a_job(policy):
    job = (Job("a", min_replicas=2, max_replicas=6),)
    for latency_s, bound in ((50.0, 6), (0.01, 2)):
        state = policy.start(job)
        target = 4
        for tick in range(1, 601):
            observation = observed(
                [target], now_s=10.0 * tick, mean_latency_s=np.array([latency_s])
            )
            state, plan = policy.decide(state, observation)
            target = int(plan.target[0])
            assert 2 <= target <= 6
        assert target == bound


def test_reactive_plans_have_their_reasons():
    state = AIAD().start((Job("a"),))
    for tick, latency_s, reason in [
        (1, ABOVE, "hold"),
        (2, ABOVE, "hold"),
        (3, ABOVE, REACTIVE_UP),
    ]:
        state, plan = AIAD().decide(
            state, observed([5], now_s=10.0 * tick, mean_latency_s=np.array([latency_s]))
        )
        assert plan.reason == (reason,)
    for tick in range(4, 64):
        state, plan = AIAD().decide(
            state, observed([5], now_s=10.0 * tick, mean_latency_s=np.array([BELOW]))
        )
    assert plan.reason == (REACTIVE_DOWN,)


@pytest.mark.parametrize("capacity", [36, 32])
def test_fair_share_gives_ten_jobs_three_each_at_36_and_at_32(capacity):
    assert FairShare().initial(tuple(Job(str(n)) for n in range(10)), capacity).tolist() == [3] * 10


@given(
    st.lists(
        st.tuples(st.integers(1, 20), st.integers(0, 4), st.integers(4, 9)), min_size=1, max_size=6
    ),
    st.integers(0, 200),
)
def test_fair_share_keeps_within_capacity_and_bounds(bounds, spare):
    jobs = tuple(
        Job(str(n), cores=c / 10, min_replicas=lo, max_replicas=hi)
        for n, (c, lo, hi) in enumerate(bounds)
    )
    fewest = np.array([max(1, job.min_replicas) for job in jobs])
    tenths = np.array([c for c, _, _ in bounds])
    capacity = int(fewest @ tenths) + spare
    share = fair_share(jobs, capacity / 10)
    assert share @ tenths <= capacity
    assert (share >= fewest).all()
    assert (share <= [job.max_replicas for job in jobs]).all()
