"""A controller outside Kubernetes: signals, its journal's lock, jumping clocks, late decisions."""

import os
import signal
import threading
import time
from concurrent.futures import wait
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
from live_things import JOBS, Still, Wanting
from observations import observed
from waiting import PATIENCE_S

from faro_lib.control import Memory
from faro_lib.protocol import DEADLINE_EXCEEDED, FAILED, OVERRIDE, PLANNED, Plan
from faro_ops.journal import reading, writing
from faro_ops.operate.clock import Clock
from faro_ops.operate.controller.controller import stopped_by_signals
from faro_ops.operate.export.explanation import decision_at
from faro_ops.operate.loop.loop import CLOCK, run
from faro_ops.operate.loop.tick import Deadline, tick
from faro_ops.operate.rayserve.recent import RecentSeconds
from faro_ops.operate.rayserve.statistics import JobStatistics, StatsAggregator, empty_row
from faro_ops.protocol import LiveGuardrails


def test_a_signal_handler_takes_no_lock():
    with stopped_by_signals(None) as stop:
        with stop._cond:  # the signal interrupts a thread that holds the lock
            handle = signal.getsignal(signal.SIGTERM)
            handler = threading.Thread(target=handle, args=(signal.SIGTERM, None), daemon=True)
            handler.start()
            handler.join(PATIENCE_S)
        assert not handler.is_alive()
        assert stop.is_set()


def test_a_signal_ends_a_wait_at_once():
    with stopped_by_signals(None) as stop:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
        began_s = time.monotonic()
        assert stop.wait(PATIENCE_S)
    assert time.monotonic() - began_s < PATIENCE_S


def test_a_second_controller_with_the_same_journal_is_refused(tmp_path):
    first = threading.Event()
    ended = threading.Event()

    class Waiting(Still):
        def apply(self, target, drop):
            first.set()
            ended.wait(PATIENCE_S)

    options = {"journal": tmp_path / "j", "until_s": 15.0}
    thread = threading.Thread(
        target=run, args=(Waiting(), Wanting([1, 1]), JOBS), kwargs=options, daemon=True
    )
    thread.start()
    assert first.wait(PATIENCE_S)
    with pytest.raises(ValueError, match="another controller writes this journal"):
        run(Still(), Wanting([1, 1]), JOBS, **options)
    with pytest.raises(ValueError, match="another controller writes this journal"):
        writing.Journal(tmp_path / "j")
    ended.set()
    thread.join(PATIENCE_S)
    run(Still(), Wanting([1, 1]), JOBS, journal=tmp_path / "j", until_s=25.0)
    assert [one.step.observation.now_s for one in reading.read(tmp_path / "j")[1]] == [10.0, 20.0]


def test_a_journal_in_which_no_run_has_begun_leaves_no_file(tmp_path):
    with writing.Journal(tmp_path / "j"):
        assert (tmp_path / "j").exists()
    assert not (tmp_path / "j").exists()


def test_an_open_journal_is_read_once_however_often_a_run_continues_it(tmp_path, monkeypatch):
    reads = []
    read = writing.newest
    monkeypatch.setattr(writing, "newest", lambda *of: reads.append(of) or read(*of))
    run(Still(), Wanting([1, 1]), JOBS, journal=tmp_path / "j", until_s=25.0)
    with writing.Journal(tmp_path / "j") as opened:
        for until_s in (45.0, 65.0):
            run(Still(until_s - 20), Wanting([1, 1]), JOBS, journal=opened, until_s=until_s)
    assert len(reads) == 1, "and not at all where there was no journal"
    ticks_s = [one.step.observation.now_s for one in reading.read(tmp_path / "j")[1]]
    assert ticks_s == [10.0, 20.0, 30.0, 40.0, 50.0, 60.0]


def test_a_journal_from_the_future_is_refused_in_one_line(tmp_path):
    now = int(time.time())
    past, ahead = Clock(now - 7200), Clock(now - 3600)
    stop = threading.Event()
    run(
        Still(),
        Wanting([1, 1]),
        JOBS,
        journal=tmp_path / "j",
        clock=past,
        stop=stop,
        on_step=lambda step: stop.set(),
    )
    with pytest.raises(
        ValueError, match=r"its last tick is 3[56]\d\d s ahead of this machine's clock"
    ):
        run(Still(), Wanting([1, 1]), JOBS, journal=tmp_path / "j", clock=ahead)


@pytest.fixture
def wall(monkeypatch):
    """The wall clock: it shows `now_s`, and the monotonic clock stands still."""
    clock = SimpleNamespace(now_s=1_700_000_000.0)
    monkeypatch.setattr(time, "time", lambda: clock.now_s)
    monkeypatch.setattr(time, "monotonic", lambda: 500.0)
    return clock


@pytest.mark.parametrize("jump_s", [-3600, 3600])
def test_time_within_a_run_does_not_jump_with_the_wall_clock(wall, jump_s):
    clock = Clock(int(wall.now_s) - 100)
    wall.now_s += jump_s
    assert clock.now_s == pytest.approx(100.0)
    assert clock.jump_s == jump_s
    assert clock.wall_s(clock.now_s) == pytest.approx(wall.now_s)


def test_a_jump_of_the_wall_clock_is_reported_once(wall):
    clock = Clock(int(wall.now_s) - 100)
    failures = []
    steps = []

    def on_step(step):
        steps.append(step)
        wall.now_s = clock.origin_s + 100 - 3600
        if len(steps) == 3:
            clock.stop.set()

    run(
        Still(),
        Wanting([1, 1]),
        JOBS,
        clock=clock,
        on_step=on_step,
        on_failure=lambda reason, line: failures.append((reason, line)),
    )
    assert failures == [
        (CLOCK, "the wall clock jumped by -3600 s; ticks continue at their intervals")
    ]


@pytest.mark.parametrize("jump_s", [-3600, 3600])
def test_requests_after_a_jump_of_the_wall_clock_are_counted(wall, jump_s):
    clock = Clock(int(wall.now_s) - 130)
    stats = StatsAggregator()
    recent = RecentSeconds(("a",), clock)
    row = empty_row() | {"arrivals": 1}

    def hear(seconds):
        stats.report("a", "a#1", 0, dict.fromkeys(seconds, row))
        recent.add("a", JobStatistics.of(stats.read()["a"]).seconds)

    hear(range(clock.origin_s, clock.origin_s + 60))
    wall.now_s += jump_s
    hear(range(clock.origin_s + 60 + jump_s, clock.origin_s + 120 + jump_s))
    assert recent.arrivals_per_min(2)[0, 1] == 60


@dataclass
class PlansOnce(Wanting):
    """Plans at its first tick, and holds afterwards."""

    def __init__(self):
        super().__init__([2, 1])

    def decide(self, state, observation):
        state, plan = super().decide(state, observation)
        reason = (PLANNED, "hold") if state == 1 else ("hold", "hold")
        return state, Plan(plan.target, plan.drop, reason)


def test_an_override_at_every_tick_does_not_hide_the_last_plan(tmp_path):
    class Frozen(PlansOnce):
        def decide(self, state, observation):
            state, plan = super().decide(state, observation)
            return state, replace(plan, reason=(plan.reason[0], OVERRIDE))

    run(Still(), Frozen(), JOBS, journal=tmp_path / "j", apply=False, until_s=45.0)
    assert decision_at([reading.read(tmp_path / "j")])[1].step.observation.now_s == 10.0


def test_a_plan_that_changes_nothing_is_a_decision(tmp_path):
    class Forecasts(PlansOnce):
        def decide(self, state, observation):
            following, plan = super().decide(state, observation)
            return following, replace(
                plan, reason=("hold",) * 2, forecast_rps=np.ones(2) if state == 2 else None
            )

    run(Still(), Forecasts(), JOBS, journal=tmp_path / "j", apply=False, until_s=45.0)
    assert decision_at([reading.read(tmp_path / "j")])[1].step.observation.now_s == 30.0


def test_explain_shows_the_last_decision_that_is_not_a_hold_and_refuses_times_after_the_end(
    tmp_path,
):
    run(Still(), PlansOnce(), JOBS, journal=tmp_path / "j", apply=False, until_s=45.0)
    header, ticks = reading.read(tmp_path / "j")
    assert decision_at([(header, ticks)])[1].step.observation.now_s == 10.0
    assert decision_at([(header, ticks)], 45.0)[1].step.observation.now_s == 40.0
    with pytest.raises(ValueError, match="at=50 is after the last decision, at 40 s"):
        decision_at([(header, ticks)], 50.0)[1]


class Slow(Wanting):
    """A policy whose solver takes a long time at first."""

    def __init__(self, target, calls):
        super().__init__(target)
        self.calls = calls
        self.released = threading.Event()

    def decide(self, state, observation):
        self.calls.append(observation.now_s)
        if len(self.calls) == 1:
            self.released.wait(PATIENCE_S)
        return super().decide(state, observation)


def test_a_policy_that_raises_a_timeout_of_its_own_has_failed():
    class Impatient(Wanting):
        def decide(self, state, observation):
            raise TimeoutError("the solver gave up")

    for deadline in (Deadline(), Deadline(30.0)):
        policy = Impatient([3, 3])
        _, step = tick(
            policy, LiveGuardrails(), JOBS, Memory.start(policy, JOBS), observed([1, 1]), deadline
        )
        assert step.plan.reason == (FAILED,) * 2
        assert "the solver gave up" in step.failure


def test_a_late_decision_is_abandoned_at_the_deadline_and_the_next_tick_decides_again():
    config = LiveGuardrails(deadline_s=0.2)
    calls = []
    policy = Slow([3, 3], calls)
    deadline = Deadline(config.deadline_s)
    memory = Memory.start(policy, JOBS)
    memory, step = tick(policy, config, JOBS, memory, observed([1, 1], now_s=10.0), deadline)
    assert not deadline._running.done(), "the tick has not waited for it"
    assert (step.target.tolist(), step.plan.reason) == ([1, 1], (DEADLINE_EXCEEDED,) * 2)
    memory, step = tick(policy, config, JOBS, memory, observed([1, 1], now_s=20.0), deadline)
    assert step.plan.reason == (DEADLINE_EXCEEDED,) * 2
    assert calls == [10.0], "no second decision begins while the first one runs"
    policy.released.set()
    wait((deadline._running,), PATIENCE_S)
    deadline.seconds = PATIENCE_S  # enough for a decision, however busy the machine is
    memory, step = tick(policy, config, JOBS, memory, observed([1, 1], now_s=30.0), deadline)
    assert (step.target.tolist(), calls, memory.state) == ([3, 3], [10.0, 30.0], 1)
