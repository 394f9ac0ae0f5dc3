"""Hours of `faro run` on fakes of Kubernetes and Ray with a fault a minute (tests/support/soak.py).

`pytest -m study tests/ops/test_soak.py` has a day for each of ten seeds and each world.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from soak import PENDING, TWIN_H, soak, twin_of
from soak_faults import FAULTS, JOB, NOTHING, faults_of
from soak_time import VirtualTime
from soak_world import WORLDS

from faro_lib.policies.learning import Learner
from faro_ops.operate.job_states import JobStates
from faro_ops.operate.kube import deployment_metrics
from faro_ops.operate.limits import steady_capacity
from faro_ops.operate.limits.brake import Brake
from faro_ops.operate.loop import loop

HOURS = 1.0
# How long each world runs in CI with all faults; 200 s of CI in all.
CI_HOURS = {"kubernetes": 0.75, "ceilings": 0.4, "ray": 0.75}
DAY_H = 24.0
MEMORY_MB = 100.0  # that may be added after the first hour
worlds = pytest.mark.parametrize("world", sorted(WORLDS))
# `make test` runs one world, `make test-all` the others, too.
OTHERS = pytest.mark.slow
with_twins = pytest.mark.parametrize("world", ["kubernetes", pytest.param("ray", marks=OTHERS)])
with_one_quick = pytest.mark.parametrize(
    "world", ["ceilings", *(pytest.param(one, marks=OTHERS) for one in ("kubernetes", "ray"))]
)


def some_faults(world, *changes):
    """The faults of a world that may change only this, without those that are known to be open."""
    return tuple(
        one for one in faults_of(world) if one.changes in changes and one.name not in PENDING
    )


@pytest.mark.slow
@with_twins
def test_without_faults_no_failure_is_counted_and_a_job_changes_at_most_twice_an_hour(world):
    figures = soak(world, HOURS / 4, faults=faults_of(world, ("none",)))
    assert figures.broken == []
    assert not +figures.failures
    assert figures.handovers == 0
    assert max(figures.moves.values(), default=0) <= 2


@with_twins
def test_trouble_of_one_job_leaves_the_targets_of_the_others_as_in_a_world_without_it(world):
    figures = soak(world, HOURS / 2, seed=1, faults=some_faults(world, JOB))
    assert figures.broken == []
    assert len(figures.faults) > 5


@with_one_quick
def test_a_fault_a_minute_breaks_no_invariant(world):
    figures = soak(world, CI_HOURS[world], seed=2)
    assert figures.broken == []
    assert len(figures.faults) > 5


@pytest.mark.slow
@worlds
def test_hours_with_another_seed_break_no_invariant(world):
    assert soak(world, HOURS, seed=3).broken == []


@pytest.mark.study
@worlds
@pytest.mark.parametrize("seed", range(10))
def test_a_day_of_each_of_ten_seeds_breaks_no_invariant_and_memory_stays(world, seed):
    figures = soak(world, DAY_H, seed)
    assert figures.broken == []
    assert set(figures.faults) == {one.name for one in faults_of(world)} - {*PENDING}
    early_mb, late_mb = figures.memory_mb
    assert late_mb < early_mb + MEMORY_MB


# --- the soak itself ------------------------------------------------------------------------------


def test_the_soak_notices_if_the_data_of_one_job_reaches_the_policy_as_it_is():
    def as_it_is(answer, name):
        return answer.values.copy(), ""

    faults = faults_of("kubernetes", ("a count is infinite",))
    with mock.patch.object(deployment_metrics, "plausible", as_it_is):
        figures = soak("kubernetes", 0.1, faults=faults)
    assert figures.broken_by_fault["a count is infinite"]


def test_the_soak_notices_if_a_loss_of_all_nodes_takes_replicas_away():
    def at_once(_, now_s, measured, used):
        return steady_capacity.SteadyCapacity(measured.cores)

    faults = faults_of("kubernetes", ("all nodes are gone",))
    after = mock.patch.object(steady_capacity.SteadyCapacity, "after", at_once)
    with after:
        figures = soak("kubernetes", 0.1, faults=faults)
    assert any("below its minimum" in line for line in figures.broken)


@pytest.fixture
def twin():
    """The twin, made before anything is replaced."""
    return twin_of("kubernetes", TWIN_H)


def noted(faults, hours=0.12, world="kubernetes", seed=0):
    """The violations that a soak of some faults notices."""
    return soak(world, hours, seed, faults_of(world, faults)).broken


def test_the_soak_notices_if_a_freeze_is_not_obeyed(twin):
    def not_held(jobs, frozen, observation):
        return observation

    faults = ("all jobs are frozen, and less capacity than they use is left",)
    with mock.patch.object(loop, "freezing", not_held):
        assert any("frozen at" in line for line in noted(faults))


def test_the_soak_notices_if_the_brake_is_off(twin):
    def at_once(_, wanted, known):
        return wanted

    with mock.patch.object(Brake, "slow_down", at_once):
        broken = noted(("capacity is half of the need",))
    assert any("replicas are removed within a minute" in line for line in broken)


def test_the_soak_notices_if_a_new_leader_changes_targets(twin):
    adopting = loop.adopting

    def with_one_more(memory, observation):
        if memory.guard.target is None:  # a first start
            return adopting(memory, observation)
        guard = replace(memory.guard, target=observation.target + 1, drop=observation.drop)
        return replace(memory, guard=guard)

    faults = ("all controllers are killed",)
    with mock.patch.object(loop, "adopting", with_one_more):
        assert any("the new leader set" in line for line in noted(faults))


@pytest.mark.slow
def test_the_soak_notices_if_a_false_belief_stays(twin):
    updated = Learner.updated

    def stubborn(learner, jobs, learned, *seen):
        after = updated(learner, jobs, learned, *seen)
        is_sure = learned.weight[:, -1:] > 0.9  # (jobs, 1), that it is four times slower
        return replace(after, weight=np.where(is_sure, learned.weight, after.weight))

    with mock.patch.object(Learner, "updated", stubborn):
        broken = noted(("a saved belief is the worst",), hours=0.02)
    assert any("counts as 4.0" in line for line in broken), broken


@pytest.mark.slow
def test_a_seed_gives_the_same_faults_and_targets_again():
    first, second = (soak("kubernetes", 0.2, seed=5) for _ in range(2))
    assert first.faults == second.faults
    assert first.moves == second.moves
    assert first.ticks == second.ticks


def test_every_fault_has_a_name_of_its_own_and_every_pending_one_exists():
    names = [one.name for one in FAULTS]
    assert len(set(names)) == len(names)
    assert {*PENDING} <= {*names}
    assert any(one.changes == NOTHING for one in FAULTS)


# --- virtual time ---------------------------------------------------------------------------------


def test_threads_that_sleep_take_turns_in_the_order_of_their_times():
    virtual, seen = VirtualTime(), []

    def work(name, pause_s):
        for _ in range(3):
            time.sleep(pause_s)
            seen.append((name, time.monotonic()))

    began = time.perf_counter()
    with virtual.installed():
        start_s = virtual.now_s
        threads = [threading.Thread(target=work, args=one) for one in (("a", 20.0), ("b", 30.0))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    expected = [("a", 20), ("b", 30), ("a", 40), ("b", 60), ("a", 60), ("b", 90)]
    assert [(name, now_s - start_s) for name, now_s in seen] == expected
    assert time.perf_counter() - began < 10


def test_an_event_wakes_the_thread_that_waits_for_it_and_a_timeout_ends_the_wait():
    virtual = VirtualTime()
    with virtual.installed():
        event = threading.Event()
        start_s = virtual.now_s
        assert not event.wait(5.0)
        assert virtual.now_s == start_s + 5
        threading.Timer(7.0, event.set).start()
        assert event.wait(100.0)
        assert virtual.now_s == start_s + 12


def test_clocks_that_are_defaults_of_arguments_are_virtual_too():
    virtual = VirtualTime()
    with virtual.installed("faro_ops"):
        assert JobStates()._now_s() == virtual.wall_s
    assert abs(JobStates()._now_s() - time.time()) < 5


def test_a_killed_process_does_nothing_more_and_a_paused_one_goes_on_later():
    virtual, seen = VirtualTime(), []

    def count(name):
        while True:
            time.sleep(1.0)
            seen.append(name)

    with virtual.installed():
        killed, paused = (virtual.process(name) for name in ("killed", "paused"))
        for process in (killed, paused):
            virtual.start(process, lambda name=process.name: count(name))
        virtual.sleep(2.5)
        virtual.kill(killed)
        paused.paused_until_s = virtual.now_s + 10
        virtual.sleep(5.0)
        assert seen.count("killed") == seen.count("paused") == 2
        virtual.sleep(10.0)
        assert seen.count("killed") == 2
        assert seen.count("paused") > 5
        assert killed.ended == "killed"
