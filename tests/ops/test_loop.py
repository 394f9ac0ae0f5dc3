"""The control loop: when it acts, how it ends, and where it resumes."""

import time
from dataclasses import replace

import numpy as np
import pytest
from live_things import Wanting
from observations import observed

from faro_lib.control.loop import tick_times
from faro_lib.policies import FairShare
from faro_lib.protocol import DRIFT_CORRECTED, HOLD, hold
from faro_lib.workload import Job
from faro_ops.operate.clock import Clock
from faro_ops.operate.loop.loop import run
from faro_ops.protocol import LiveGuardrails


class Recorder:
    """A cluster that only records its targets."""

    def __init__(self):
        self.now_s = 0.0
        self.applied = []

    def advance(self, until_s):
        self.now_s = until_s

    def observe(self):
        return observed([3], capacity=3, now_s=self.now_s)

    def apply(self, target, drop):
        self.applied.append((self.now_s, target.tolist(), drop.tolist()))


def test_the_loop_acts_at_every_tick_and_advances_the_cluster_to_the_end():
    cluster = Recorder()
    steps = []
    run(cluster, FairShare(), (Job("a"),), 200.0, on_step=steps.append)
    assert cluster.applied == [(60.0, [3], [0.0]), (120.0, [3], [0.0]), (180.0, [3], [0.0])]
    assert cluster.now_s == 200.0
    assert [step.observation.now_s for step in steps] == [60.0, 120.0, 180.0]


def test_the_loop_does_not_act_at_the_end_itself():
    cluster = Recorder()
    run(cluster, FairShare(), (Job("a"),), 120.0)
    assert [now_s for now_s, _, _ in cluster.applied] == [60.0]


@pytest.mark.parametrize(("start_s", "first_s"), [(0.0, 60.0), (30.0, 60.0), (60.0, 120.0)])
def test_ticks_are_the_multiples_of_the_interval_after_the_start(start_s, first_s):
    assert next(tick_times(start_s, 1000.0, 60.0)) == first_s


def test_without_a_listener_an_error_of_the_cluster_ends_the_run():
    class Full(Recorder):
        def apply(self, target, drop):
            raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        run(Full(), FairShare(), (Job("a"),), 200.0)


def test_a_cluster_that_stops_answering_keeps_its_targets_and_is_missing_data_after_a_minute():
    class Silent(Recorder):
        def observe(self):
            if self.now_s > 60.0:
                raise ConnectionError("no answer")
            return observed([3], capacity=3, now_s=self.now_s)

    failures, steps = [], []
    run(
        Silent(),
        FairShare(),
        (Job("a"),),
        200.0,
        on_step=steps.append,
        on_failure=lambda reason, message: failures.append((reason, message)),
    )
    assert [step.target.tolist() for step in steps] == [[3], [3], [3]]
    assert [step.plan.reason for step in steps] == [("hold",), ("hold",), ("missing-data",)]
    assert failures[0] == ("observe", "ConnectionError: no answer")


class Holding(Wanting):
    """A policy that keeps the replicas that it sees."""

    def decide(self, state, observation):
        return state, hold(observation)


def test_a_run_that_resumes_after_more_than_a_minute_keeps_replicas_set_by_others(tmp_path):
    class Led(Recorder):
        def observe(self):
            return observed([5], now_s=self.now_s)

    cluster = Led()
    options = {"journal": tmp_path / "j"}
    run(Recorder(), Holding([3]), (Job("a"),), 95.0, **options)
    run(cluster, Holding([3]), (Job("a"),), 235.0, **options, clock=Clock(int(time.time()) - 200))
    assert {tuple(target) for _, target, _ in cluster.applied} == {(5,)}


@pytest.mark.parametrize(
    ("takes_over", "target", "reason"),
    [
        pytest.param(False, 3, DRIFT_CORRECTED, id="the same leader after a change of settings"),
        pytest.param(True, 5, HOLD, id="a new leader"),
    ],
)
def test_what_a_new_leader_finds_is_no_drift(tmp_path, takes_over, target, reason):
    class Changed(Recorder):
        """While nobody led, the last leader or an operator has set five replicas."""

        def observe(self):
            return observed([5], now_s=self.now_s)

    cluster, steps = Changed(), []
    options = {"journal": tmp_path / "j"}
    run(Recorder(), Holding([3]), (Job("a"),), 95.0, **options)
    run(
        cluster,
        Holding([3]),
        (Job("a"),),
        105.0,
        **options,
        takes_over=takes_over,
        on_step=steps.append,
    )
    assert [one[1:] for one in cluster.applied] == [([target], [0.0])]
    assert steps[0].plan.reason == (reason,)


def test_a_new_leader_keeps_the_drop_rates_that_it_has_requested_itself(tmp_path):
    class Dropping(Wanting):
        """A policy that drops a tenth in its first plan, and then keeps everything."""

        def decide(self, state, observation):
            plan = hold(observation)
            first = observation.now_s <= self.tick_s
            return state, replace(plan, drop=np.array([0.1])) if first else plan

    cluster = Recorder()  # it knows no drop rate, like a proxy
    run(cluster, Dropping([3]), (Job("a"),), 25.0, journal=tmp_path / "j")
    run(cluster, Dropping([3]), (Job("a"),), 35.0, journal=tmp_path / "j", takes_over=True)
    assert [drop for _, _, drop in cluster.applied] == [[0.1]] * 3


def test_a_new_leader_removes_nothing_in_its_first_minute(tmp_path):
    """The leader before may have removed a fifth just before it ended."""

    class Large(Recorder):
        target = 20

        def observe(self):
            return observed([self.target], capacity=20, now_s=self.now_s)

        def apply(self, target, drop):
            super().apply(target, drop)
            self.target = int(target[0])

    cluster, guardrails = Large(), LiveGuardrails(max_scale_down=0.2)
    options = {"guardrails": guardrails, "takes_over": True}
    run(cluster, Wanting([1]), (Job("a", max_replicas=20),), 85.0, **options)
    assert [target for _, (target,), _ in cluster.applied] == [20] * 6 + [16] * 2
