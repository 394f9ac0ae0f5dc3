"""The brake: what a live tick may take from the jobs, whatever made it want to."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace

import numpy as np
import pytest
from deployment_world import World
from hypothesis import given
from hypothesis import strategies as st
from observations import known_of, observed

from faro_lib.control import Memory, Pending
from faro_lib.control.limits import Wanted
from faro_lib.protocol import BOUNDS, CAPACITY, HOLD, PLANNED, RATE_LIMIT, reasons
from faro_lib.workload import Job, arrays_of
from faro_ops.cli import run as run_command
from faro_ops.journal import reading
from faro_ops.operate.job_states import FINE, MISCONFIGURED, JobStates
from faro_ops.operate.limits.bounds import HAND_BACK, KEEP_FLOOR
from faro_ops.operate.limits.brake import (
    Falls,
    MinimaReport,
    below_minimum,
    fitting_minima,
    minima,
)
from faro_ops.operate.loop import resume
from faro_ops.operate.loop.loop import run
from faro_ops.operate.loop.tick import tick
from faro_ops.protocol import LiveGuardrails, LivePlan

BRAKE = LiveGuardrails(max_scale_down=0.2)


@dataclass
class Wish:
    """A policy that asks for the targets in `target`, which a test may change."""

    target: list
    less: list | None = None  # marginal values of one replica less
    more: list | None = None
    floor: list | None = None
    left: list | None = None
    name: str = "Wish"
    tick_s: float = 10.0

    def initial(self, jobs, capacity):
        return np.array(self.target)

    def start(self, jobs):
        return 0

    def decide(self, state, observation):
        target = np.array(self.target)
        return state, LivePlan(
            target,
            np.zeros(len(target)),
            reasons(target, observation.target),
            marginal_value_down=None if self.less is None else np.array(self.less),
            marginal_value_up=None if self.more is None else np.array(self.more),
            floor=None if self.floor is None else np.array(self.floor),
            left=None if self.left is None else np.array(self.left),
        )


class Loop:
    """Ticks on a cluster that carries out each request, and whose `capacity` a test may change."""

    def __init__(self, policy, start, jobs=None, capacity=100.0, config=BRAKE):
        self.policy, self.config, self.capacity = policy, config, capacity
        self.jobs = jobs or tuple(Job(str(n), max_replicas=100) for n in range(len(start)))
        self.target = np.array(start)
        self.running = None  # as the target, unless a test sets it
        self.memory = Memory.start(policy, self.jobs)
        self.now_s = 0.0
        self.step = None

    def tick(self, **fields):
        """The targets after one more tick of the policy's interval."""
        self.now_s += self.policy.tick_s
        running = self.target if self.running is None else np.array(self.running)
        fields = dict(capacity=self.capacity, now_s=self.now_s, running=running) | fields
        observation = observed(self.target, **fields)
        self.memory, self.step = tick(self.policy, self.config, self.jobs, self.memory, observation)
        self.target = self.step.target
        return self.target.tolist()

    def run(self, seconds):
        """The targets of all ticks within `seconds`, one list per tick."""
        return [self.tick() for _ in range(round(seconds / self.policy.tick_s))]


# --- at most a share a minute ---------------------------------------------------------------------


def test_at_most_a_fifth_of_all_replicas_is_removed_within_a_minute_over_all_jobs():
    loop = Loop(Wish([1, 1]), [10, 10])
    assert loop.tick() == [6, 10]
    assert loop.step.plan.reason == (RATE_LIMIT, RATE_LIMIT)
    assert loop.run(50)[-1] == [6, 10], "the minute is not over"
    assert loop.tick() == [3, 10], "a fifth of the 16 that are left"
    assert loop.run(600)[-1] == [1, 1]
    assert loop.step.plan.reason == (HOLD, HOLD)


def test_one_replica_may_always_be_removed():
    loop = Loop(Wish([1, 1]), [2, 2])
    assert loop.tick() == [1, 2]
    assert loop.run(50)[-1] == [1, 2]
    assert loop.tick() == [1, 1]
    assert Loop(Wish([1]), [5], config=LiveGuardrails(max_scale_down=0.0)).tick() == [4]


def test_without_the_option_nothing_is_limited():
    assert Loop(Wish([1, 1]), [10, 10], config=LiveGuardrails()).tick() == [1, 1]
    assert Loop(Wish([1, 1]), [10, 10], config=LiveGuardrails(max_scale_down=1.0)).tick() == [1, 1]


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_outside_of_0_to_1_is_refused(share):
    with pytest.raises(ValueError, match=r"max_scale_down=.* must be None or a number from 0 to 1"):
        LiveGuardrails(max_scale_down=share)


def test_a_false_load_for_two_minutes_costs_the_other_jobs_a_few_replicas_and_not_all():
    loop = Loop(Wish([28, 1, 1]), [10, 10, 10], capacity=30.0)
    assert loop.run(120)[-1] == [22, 1, 7]
    assert Loop(Wish([28, 1, 1]), [10, 10, 10], capacity=30.0, config=LiveGuardrails()).tick() == [
        28,
        1,
        1,
    ]


def test_a_replica_that_makes_room_for_another_counts_as_removed():
    loop = Loop(Wish([9, 1]), [1, 9], capacity=10.0)
    assert loop.tick() == [3, 7]
    assert loop.step.plan.reason == (RATE_LIMIT, RATE_LIMIT)


def test_the_removals_that_make_room_for_the_most_valuable_starts_come_first():
    valuable = Wish([4, 4, 1, 1], less=[0.1, 0.5, 0.0, 0.0], more=[0.0, 0.0, 0.9, 0.2])
    assert Loop(valuable, [2, 2, 3, 3], capacity=10.0).tick() == [2, 4, 3, 1]


def test_a_job_below_its_minimum_starts_before_more_valuable_ones():
    jobs = (Job("a", max_replicas=9), Job("b", min_replicas=2), Job("c", max_replicas=9))
    wish = Wish([5, 2, 3], less=[0.9, 0.1, 0.0])
    assert Loop(wish, [2, 1, 7], jobs, capacity=10.0).tick() == [3, 2, 5]


def test_starts_that_find_free_cores_do_not_wait():
    assert Loop(Wish([9, 1]), [2, 9], capacity=13.0).tick() == [6, 7]


def test_a_large_replica_starts_once_the_removals_of_two_minutes_have_made_room():
    jobs = (Job("large", cores=4.0), Job("small", max_replicas=20))
    loop = Loop(Wish([2, 8]), [1, 12], jobs, capacity=16.0)
    assert loop.run(60)[-1] == [1, 10]
    assert loop.tick() == [2, 8]


def test_starts_stay_within_a_tenants_quota_when_removals_wait():
    jobs = tuple(
        Job(name, tenant=tenant, tenant_quota=6.0, max_replicas=20)
        for name, tenant in (("a", "t"), ("b", "t"), ("c", "u"))
    )
    loop = Loop(Wish([5, 1, 1], less=[0.5, 0.0, 0.0], more=[0.0, 0.9, 0.1]), [1, 5, 6], jobs, 12.0)
    for targets in loop.run(900):
        assert targets[0] + targets[1] <= 6
    assert loop.target.tolist() == [5, 1, 1]


def test_a_capacity_that_halves_takes_a_fifth_a_minute():
    loop = Loop(Wish([8, 8]), [8, 8], capacity=8.0)
    totals = [sum(targets) for targets in loop.run(300)]
    assert totals[::6] == [13, 11, 9, 8, 8]


def test_a_request_that_fails_is_made_again_and_does_not_count():
    loop = Loop(Wish([1, 1]), [10, 10])
    for _ in range(3):
        assert loop.tick() == [6, 10]
        loop.target = np.array([10, 10])


def test_what_was_removed_from_a_job_counts_although_it_is_left_to_another_controller_since():
    loop = Loop(Wish([6, 10]), [10, 10])
    assert loop.tick() == [6, 10]
    loop.policy = Wish([6, 1], left=[True, False])
    assert loop.tick() == [6, 10]


def test_a_job_that_is_gone_has_lost_nothing_that_counts():
    falls = Falls().after(0.0, np.array([5, 5]), np.ones(2, bool), np.ones(2, bool))
    exists = np.array([True, False])
    assert falls.after(10.0, np.array([4, 0]), exists, exists).recent == ((0.0, 1, 10),)


def test_removals_of_another_client_count():
    loop = Loop(Wish([5, 5]), [5, 5])
    loop.tick()
    loop.target = np.array([3, 5])
    loop.tick()
    loop.policy.target = [5, 1]
    assert loop.tick() == [5, 5]


def test_jobs_that_another_controller_scales_neither_count_nor_are_held():
    wish = Wish([2, 1], left=[True, False])
    loop = Loop(wish, [10, 10])
    loop.tick()
    assert loop.tick()[0] == 2
    assert loop.target[1] >= 6


def test_an_order_is_carried_out_at_once_and_the_other_jobs_wait_for_their_minute():
    jobs = (Job("a", min_replicas=1, max_replicas=1), Job("b", max_replicas=20))
    config = replace(BRAKE, fixed=("a",))
    loop = Loop(Wish([1, 2]), [10, 10], jobs, config=config)
    assert loop.tick() == [1, 6]
    assert loop.run(50)[-1] == [1, 6]


def test_what_a_loss_of_capacity_takes_from_an_ordered_job_is_limited_as_of_any_other():
    jobs = (Job("a", min_replicas=2, max_replicas=10), Job("b", max_replicas=20))
    loop = Loop(Wish([10, 10]), [10, 10], jobs, capacity=6.0, config=replace(BRAKE, fixed=("a",)))
    totals = [sum(targets) for targets in loop.run(600)]
    assert totals[0] == 16
    assert totals[-1] == 6


def test_an_order_that_needs_the_replicas_of_others_waits_for_them():
    jobs = (Job("a", min_replicas=15, max_replicas=15), Job("b", max_replicas=20))
    loop = Loop(Wish([15, 1]), [8, 8], jobs, capacity=16.0, config=replace(BRAKE, fixed=("a",)))
    assert loop.tick() == [11, 5]
    assert loop.run(180)[-1] == [15, 1]


def test_a_dry_run_counts_no_removals_of_the_autoscaler_that_acts():
    loop = Loop(Wish([1, 8]), [8, 8])
    loop.tick()
    loop.memory = resume.next_memory(loop.memory, apply=False, error=None)
    loop.target = np.array([8, 5])
    assert loop.tick() == [6, 8]


@given(
    plans=st.lists(st.tuples(*[st.integers(0, 12)] * 3), min_size=1, max_size=30),
    capacities=st.lists(st.integers(0, 40), min_size=30, max_size=30),
    share=st.sampled_from([0.0, 0.1, 0.2, 0.5]),
    cores=st.tuples(*[st.sampled_from([0.5, 1.0, 2.0])] * 3),
)
def test_whatever_the_plans_and_capacities_no_minute_removes_more_and_no_minimum_is_broken(
    plans, capacities, share, cores
):
    jobs = tuple(
        Job(name, cores=each, min_replicas=2, max_replicas=12) for name, each in zip("abc", cores)
    )
    loop = Loop(Wish([4, 4, 4]), [4, 4, 4], jobs, config=LiveGuardrails(max_scale_down=share))
    loop.policy.tick_s = 20.0
    before = [np.array([4, 4, 4])]
    for plan, capacity in zip(plans, capacities):
        loop.policy.target, loop.capacity = list(plan), float(capacity)
        loop.tick()
        before.append(loop.target)
        falls = [np.maximum(a - b, 0).sum() for a, b in zip(before, before[1:])][-3:]
        begin = before[-1 - len(falls)].sum()
        grown = sum(np.maximum(b - a, 0).sum() for a, b in zip(before, before[1:]))
        assert sum(falls) <= max(1, share * (begin + grown) + 1e-9)
        if loop.target @ np.array(cores) > loop.step.observation.capacity + 1e-9:
            assert (loop.target <= np.maximum(before[-2], 2)).all(), "nothing starts without room"
        assert (loop.target >= 2).all(), "all minima were running"


def test_faro_run_brakes_by_default():
    assert inspect.signature(run_command.run).parameters["max_scale_down"].default == 0.2


def test_a_deployment_shrinks_a_fifth_a_minute_after_a_node_has_been_gone_for_two_minutes():
    world = World({"a": 8, "b": 8})
    world.guardrails = BRAKE
    world.tick()
    world.delete("n2")
    assert world.run(120) == {"a": 8, "b": 8}
    totals = [sum(world.run(60).values()) for _ in range(4)]
    assert totals == [13, 11, 9, 8]


# --- after a restart ------------------------------------------------------------------------------


class Carries:
    """A cluster that carries out each request."""

    def __init__(self, target):
        self.target = np.array(target)
        self.now_s = 0.0

    def advance(self, until_s):
        self.now_s = until_s

    def observe(self):
        return observed(self.target, now_s=self.now_s)

    def apply(self, target, drop):
        self.target = np.array(target)


JOBS = (Job("a", max_replicas=20), Job("b", max_replicas=20))


def test_removals_before_a_restart_count_after_it(tmp_path):
    cluster, path = Carries([10, 10]), tmp_path / "journal"
    run(cluster, Wish([1, 1]), JOBS, 35.0, guardrails=BRAKE, journal=path)
    assert cluster.target.sum() == 16
    run(cluster, Wish([1, 1]), JOBS, 65.0, guardrails=BRAKE, journal=path)
    assert cluster.target.sum() == 16
    run(cluster, Wish([1, 1]), JOBS, 75.0, guardrails=BRAKE, journal=path)
    assert cluster.target.sum() == 13


def test_removals_before_an_operators_change_count_after_it(tmp_path):
    cluster, path = Carries([10, 10]), tmp_path / "journal"
    run(cluster, Wish([1, 1]), JOBS, 35.0, guardrails=BRAKE, journal=path)
    for number in range(5):
        options = dict(journal=path, changes=(f"change {number}",))
        until_s = cluster.now_s + 5.0
        run(cluster, Wish([1, 1]), JOBS, until_s, guardrails=BRAKE, **options)
    assert cluster.target.sum() == 16


def test_a_journal_with_the_brake_replays_bitwise(tmp_path):
    cluster, path = Carries([10, 10]), tmp_path / "journal"
    for until_s in (95.0, 205.0):
        run(cluster, Wish([1, 7]), JOBS, until_s, guardrails=BRAKE, journal=path)
    header, ticks = reading.read(path)
    assert header.guardrails.max_scale_down == 0.2
    pairs = list(resume.replay(Wish([1, 7]), header, ticks))
    assert len(pairs) == 20
    for recorded, again in pairs:
        assert recorded.target.tolist() == again.target.tolist()
        assert recorded.plan.reason == again.plan.reason


def test_a_minute_without_ticks_forgets_what_was_removed_before():
    falls = Falls().after(0.0, np.array([9]), np.array([True]), np.array([True]))
    falls = falls.after(10.0, np.array([5]), np.array([True]), np.array([True]))
    assert falls.recent == ((0.0, 4, 9),)
    assert falls.after(60.0, np.array([5]), np.array([True]), np.array([True])).recent == ()
    assert falls.after(200.0, np.array([1]), np.array([True]), np.array([True])).recent == ()


# --- bounds of HPAs -------------------------------------------------------------------------------


def bounded(loop, floor, **fields):
    """A tick with the minReplicas `floor` in force; returns the floors that are requested."""
    jobs = len(loop.jobs)
    ours = np.zeros(jobs, bool)
    loop.tick(floor=np.array(floor), unbounded=ours, replicas=loop.target, **fields)
    return loop.step.plan.floor.tolist()


def test_minreplicas_and_maxreplicas_fall_by_at_most_a_fifth_a_minute():
    loop = Loop(Wish([1, 1], floor=[1, 1]), [10, 10])
    floor = [5, 5]
    assert bounded(loop, floor) == [3, 5]
    assert loop.target.tolist() == [6, 10]
    for _ in range(5):
        floor = bounded(loop, [3, 5])
    assert floor == [3, 5]
    assert bounded(loop, [3, 5]) == [2, 5]


def test_a_kept_or_handed_back_floor_stays_as_planned():
    loop = Loop(Wish([10, 10], floor=[KEEP_FLOOR, HAND_BACK]), [10, 10])
    assert bounded(loop, [5, 5]) == [KEEP_FLOOR, HAND_BACK]


def test_the_first_bounds_of_an_hpa_may_not_cut_its_replicas_at_once():
    loop = Loop(Wish([2, 10], floor=[1, 1]), [10, 10])
    loop.tick(floor=np.array([1, 1]), unbounded=np.array([True, False]), replicas=loop.target)
    assert loop.target.tolist() == [6, 10]


# --- minima ---------------------------------------------------------------------------------------

HEAVY = (
    Job("a", min_replicas=3, weight=2.0),
    Job("b", min_replicas=3),
    Job("c", min_replicas=3, weight=0.5),
)


def test_what_runs_stays_at_its_minimum_although_the_capacity_is_below_all_minima():
    loop = Loop(Wish([3, 3, 3]), [3, 3, 3], HEAVY, capacity=2.0)
    assert loop.run(900)[-1] == [3, 3, 3]
    assert loop.step.plan.reason == (HOLD, HOLD, HOLD)


def test_more_than_the_minimum_is_given_up_first():
    loop = Loop(Wish([5, 5, 5]), [5, 5, 5], HEAVY, capacity=5.0)
    assert loop.run(900)[-1] == [3, 3, 3]


def test_a_heavier_job_that_misses_replicas_of_its_minimum_gets_the_cores_of_the_lightest():
    loop = Loop(Wish([3, 3, 3]), [3, 3, 3], HEAVY, capacity=7.0)
    loop.running = [1, 3, 3]
    assert loop.tick() == [3, 3, 2]
    assert loop.step.plan.reason == (HOLD, HOLD, RATE_LIMIT)
    loop.running = [2, 3, 2]
    assert loop.run(60)[-1] == [3, 3, 1]
    assert loop.step.plan.reason == (HOLD, HOLD, CAPACITY)
    assert below_minimum(HEAVY, loop.step) == {
        "c": "a capacity of 7 cores holds the minima of a and b only; "
        "add cores, or lower min_replicas"
    }


def test_the_last_replica_is_never_given_up():
    loop = Loop(Wish([3, 3, 3]), [3, 3, 3], HEAVY, capacity=2.0)
    loop.running = [0, 2, 2]
    assert loop.run(900)[-1] == [2, 1, 1]
    (reason, *_) = below_minimum(HEAVY, loop.step).values()
    assert reason.startswith("a capacity of 2 cores holds no job's minimum;")


def test_a_lighter_job_gets_no_replica_beside_those_that_serve_while_the_minima_do_not_fit():
    loop = Loop(Wish([3, 3, 3]), [3, 3, 1], HEAVY, capacity=7.0)
    assert loop.run(300)[-1] == [3, 3, 1]
    loop.capacity = 9.0
    assert loop.tick() == [3, 3, 3]


def test_minima_of_equal_weight_get_replicas_in_turn_and_keep_what_runs():
    jobs = arrays_of((Job("a", min_replicas=2), Job("b", min_replicas=2)))
    two = np.array([2, 2])
    assert fitting_minima(two, np.array([2, 2]), jobs, 2.0).tolist() == [1, 1]
    assert fitting_minima(two, np.array([1, 2]), jobs, 3.0).tolist() == [1, 2]
    assert fitting_minima(two, np.array([2, 1]), jobs, 3.0).tolist() == [2, 1]


def test_a_job_that_another_controller_scales_keeps_its_replicas_though_minima_do_not_fit():
    observation = observed([5, 2], capacity=5.0)
    plan = LivePlan(np.array([5, 2]), np.zeros(2), (HOLD, CAPACITY))
    jobs = (Job("a"), Job("b", min_replicas=2))
    known = known_of(jobs, observation, left=np.array([True, False]))
    wanted = Wanted(plan, np.array([5, 0]), Pending.none(2))
    assert minima(wanted, known).target.tolist() == [5, 2]


def test_the_board_names_the_jobs_below_their_minimum_until_they_are_not():
    states, lines = JobStates(), []
    report = MinimaReport(HEAVY, states, lines.append)
    loop = Loop(Wish([3, 3, 3]), [3, 3, 1], HEAVY, capacity=7.0)
    for _ in range(3):
        loop.tick()
        report(loop.step)
    assert states.of("c").state == MISCONFIGURED
    assert states.of("c").reason.startswith("a capacity of 7 cores holds the minima of a and b")
    assert states.of("a").state == FINE
    assert lines == [f"below their minimum: c; {states.of('c').reason}"]
    loop.capacity = 9.0
    loop.tick()
    report(loop.step)
    assert states.of("c").state == FINE


# --- a Deployment that is made again --------------------------------------------------------------


def test_a_recreated_deployment_keeps_its_own_replicas_until_its_data_is_known():
    loop = Loop(Wish([4, 4]), [4, 4], config=LiveGuardrails())
    loop.tick()
    loop.target = np.array([0, 4])
    loop.tick(present=np.array([False, True]))
    loop.target = np.array([20, 4])
    unknown = dict(arrivals_per_min=np.array([[np.nan], [0.0]]))
    assert loop.tick(**unknown) == [20, 4]
    assert loop.step.plan.reason[0] == HOLD
    assert loop.tick(**unknown) == [20, 4]
    assert loop.tick() == [4, 4]
    assert loop.step.plan.reason[0] == PLANNED


def test_a_job_that_comes_back_below_its_minimum_gets_it():
    jobs = (Job("a", min_replicas=3), Job("b"))
    loop = Loop(Wish([3, 4]), [3, 4], jobs)
    loop.tick()
    loop.target = np.array([0, 4])
    loop.tick(present=np.array([False, True]))
    loop.target = np.array([1, 4])
    assert loop.tick() == [3, 4]
    assert loop.step.plan.reason[0] == BOUNDS


@pytest.mark.parametrize("guardrails", [LiveGuardrails(), BRAKE])
def test_a_deployment_that_is_made_again_keeps_its_replicas(guardrails):
    world = World({"a": 6, "b": 2})
    world.guardrails = guardrails
    world.run(60)
    del world.replicas["a"]
    world.run(60)
    world.replicas["a"] = 8
    step = world.tick()
    assert world.replicas["a"] == 8
    assert step.plan.reason[0] == HOLD
    assert world.run(300)["a"] == 8
