"""A count that becomes known after its minute was read reaches the forecaster."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from live_things import Wanting
from observations import observed

from faro_lib.control import Memory
from faro_lib.forecast.kalman import untrained
from faro_lib.policies import PolicyContext, make
from faro_lib.policies.loops import TwoLoops
from faro_lib.protocol import HISTORY_MINUTES, Plan
from faro_lib.workload import Job
from faro_ops.journal.ticks import Header
from faro_ops.journal.writing import Journal
from faro_ops.operate.limits.held import loop_of
from faro_ops.operate.loop import loop
from faro_ops.operate.loop.late_counts import Folded
from faro_ops.operate.loop.loop import LATE_COUNTS, refreshed
from faro_ops.operate.loop.resume import resume_run
from faro_ops.operate.loop.tick import tick
from faro_ops.protocol import LiveGuardrails

JOBS = (Job("a"), Job("b"))
MINUTES = 20
COUNTS = np.random.default_rng(1).poisson(300, (2, MINUTES)).astype(float)


class Looking(TwoLoops):
    """A policy that keeps all replicas; its forecaster is what matters here."""

    name = "Looking"

    def plan(self, state, observation):
        return Plan(observation.target, observation.drop, ("hold",) * 2)


POLICY = Looking(untrained(("a", "b")), tick_s=60.0)


def seen_at(minute, counts):
    """The observation at the end of a minute; `counts` (2, minutes) as they are known then."""
    history = counts[:, max(0, minute - HISTORY_MINUTES) : minute]
    return observed(
        [2, 2], capacity=8, now_s=60.0 * minute, minute=minute, arrivals_per_min=history
    )


def forecaster_after(known, minutes=MINUTES):
    """The forecaster after ticks at which `known(minute)` (2, minutes) was known."""
    return loop_of(memory_after(known, minutes).state).forecaster


def memory_after(known, minutes=MINUTES):
    memory = Memory.start(POLICY, JOBS)
    for minute in range(1, minutes + 1):
        seen = seen_at(minute, known(minute))
        memory, _ = tick(POLICY, LiveGuardrails(), JOBS, memory, seen)
    return memory


def late(job, minute, by):
    """A function of time: the counts of which one is known `by` minutes late."""

    def known(now):
        counts = COUNTS.copy()
        if now < minute + 1 + by:
            counts[job, minute] = np.nan
        return counts

    return known


IN_TIME = forecaster_after(lambda minute: COUNTS)


def same(one, other):
    return (
        np.array_equal(one.counts, other.counts, equal_nan=True)
        and np.array_equal(one.level, other.level)
        and np.array_equal(one.sample(), other.sample())
    )


@pytest.mark.parametrize("by", [1, 5, HISTORY_MINUTES - 1])
def test_a_late_count_is_learnt_as_if_it_had_come_in_time(by):
    assert same(forecaster_after(late(0, 5, by)), IN_TIME)


def test_until_it_comes_the_count_is_missing():
    missing = forecaster_after(late(0, MINUTES - 1, 1))
    assert np.isnan(missing.counts[0, -1])
    assert missing.counts[1, -1] == COUNTS[1, -1]


def test_a_count_that_comes_after_the_minutes_of_an_observation_stays_missing():
    forecaster = forecaster_after(late(0, 2, HISTORY_MINUTES))
    assert np.isnan(forecaster.counts).sum() == np.isnan(IN_TIME.counts).sum() + 1


def test_a_report_that_completes_a_count_is_learnt():
    def known(now):
        counts = COUNTS.copy()
        if now < 10:
            counts[0, 7] *= 0.8  # one of five replicas reports late
        return counts

    assert same(forecaster_after(known), IN_TIME)


def test_a_count_that_changes_by_a_request_or_falls_is_not_learnt_again():
    def known(now):
        counts = COUNTS.copy()
        if now >= 10:
            counts[:, 7] -= 50
            counts[:, 8] += 1
        return counts

    assert same(forecaster_after(known), IN_TIME)


@given(st.lists(st.integers(0, HISTORY_MINUTES - 1), min_size=MINUTES, max_size=MINUTES))
def test_counts_that_come_late_in_any_order_are_learnt_if_they_come_in_time(delays):
    by = np.array(delays)

    def known(now):
        arrives = np.arange(MINUTES) + 1 + by
        counts = np.where(arrives <= now, COUNTS, np.nan)
        return np.where(now == MINUTES, COUNTS, counts)

    assert same(forecaster_after(known), IN_TIME)


def test_a_late_count_of_a_forecaster_that_was_replaced_is_counted_once():
    known = late(0, 5, 5)
    memory = memory_after(known, 10)
    memory = refreshed(memory, lambda: untrained(("a", "b")))
    lost = []
    for minute in (11, 12):
        seen = seen_at(minute, known(minute))
        memory, _ = tick(POLICY, LiveGuardrails(), JOBS, memory, seen)
        lost.append(memory.folded.lost)
    assert lost == [((0, 5),), ()]


class World:
    """A cluster whose count of job `a` in minute 5 is known five minutes late."""

    def __init__(self):
        self.now_s = 0.0
        self.known = late(0, 5, 5)

    def advance(self, until_s):
        self.now_s = until_s

    def observe(self):
        minute = int(self.now_s // 60)
        return seen_at(minute, self.known(minute))

    def apply(self, target, drop):
        pass


def test_the_loop_names_a_count_that_the_forecaster_does_not_learn_any_more():
    told = []
    fresh = iter([None] * 10 + [untrained(("a", "b"))])
    loop.run(
        World(),
        POLICY,
        JOBS,
        15 * 60.0,
        newest=lambda: next(fresh, None),
        on_failure=lambda reason, message: told.append((reason, message)),
    )
    assert [reason for reason, _ in told if reason == LATE_COUNTS] == [LATE_COUNTS]
    ((_, message),) = [one for one in told if one[0] == LATE_COUNTS]
    assert message.startswith("the count of job 'a' in minute 5 became known after the model")


@pytest.mark.parametrize("changes", [(), ("job 'a': weight 1 -> 2",)])
def test_a_run_that_resumes_learns_counts_that_come_after_its_start(tmp_path, changes):
    path = tmp_path / "j"
    loop.run(World(), POLICY, JOBS, 8.5 * 60.0, journal=path)
    header = Header("Looking", JOBS, LiveGuardrails(), 60.0, True, changes=changes)
    with Journal(path) as journal:
        past = resume_run(journal, POLICY, header)
    memory = past.memory
    for minute in range(9, MINUTES + 1):
        seen = seen_at(minute, late(0, 5, 5)(minute))
        memory, _ = tick(POLICY, LiveGuardrails(), JOBS, memory, seen)
    assert same(loop_of(memory.state).forecaster, IN_TIME)


def test_a_policy_without_a_forecast_has_no_late_counts():
    policy = Wanting([1, 2])
    memory = Memory.start(policy, JOBS)
    for minute in (1, 2):
        memory, _ = tick(policy, LiveGuardrails(), JOBS, memory, seen_at(minute, COUNTS))
    assert memory.folded == replace(Folded(), counts=memory.folded.counts)


def test_faro_plans_with_a_late_count_as_with_one_in_time():
    context = PolicyContext(JOBS, untrained(("a", "b")))
    policy = make("Faro-Sum", replace(context, latency_model=None))
    plans = []
    for known in (late(0, 3, 4), lambda minute: COUNTS):
        memory = Memory.start(policy, JOBS)
        for minute in range(1, 11):
            memory, step = tick(
                policy, LiveGuardrails(), JOBS, memory, seen_at(minute, known(minute))
            )
        plans.append(step.plan.forecast_rps)
    np.testing.assert_array_equal(*plans)
