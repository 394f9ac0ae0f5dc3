"""Live comparisons that are interrupted and continue, start with history, and lose a worker;
without a cluster.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from observations import observed
from waiting import until

from faro_lib import forecast
from faro_lib.control import Step
from faro_lib.policies import FairShare
from faro_lib.policies.loops import TwoLoops
from faro_lib.protocol import hold
from faro_lib.workload.synthetic import synthetic
from faro_ops.advise.profile.load_generator import DROPPED, FAILED, SERVED, Script, Sent
from faro_ops.operate.rayserve.backend import Endpoint
from studies.live import experiment as live
from studies.live.live_slice import Slice, changes_of, matched_simulation
from studies.live.lost_worker import LostWorker, recovery_table
from studies.live.recovery import STEP_S

SETTINGS = {
    "jobs": None,
    "capacity": 8,
    "max_ongoing_requests": 10,
    "first_minute": 20,
    "minutes": 4,
    "scale": 2.0,
    "tick_s": 30.0,
    "max_rps": 20.0,
    "trials": 2,
    "policies": ["FairShare", "AIAD"],
    "history_minutes": 15,
}
COLUMNS = {
    "background_cpu": 0.1,
    "served": 10,
    "dropped": 0,
    "failed": 0,
    "unsent": 0,
    "overhead_s": 0.01,
    "capacity_steps": "[[60.0, 4.0]]",
    "noisy_host": False,
}


@pytest.fixture
def replayed(monkeypatch, tmp_path):
    """Function that compares, and the list of the runs that it made; a run is a simulation, and the
    third one is cut off.
    """
    made: list[tuple[str, Slice]] = []

    def run_live(one, policy, seed, how, endpoint, journal, max_rps, lose_worker):
        made.append((policy.name, one))
        if len(made) == 3:
            raise KeyboardInterrupt
        return matched_simulation(one, policy, seed), COLUMNS, pd.DataFrame()

    monkeypatch.setattr(live, "read_traces", lambda _: synthetic(seed=1, jobs=3, days=3))
    monkeypatch.setattr(live, "_endpoint", lambda *_: contextlib.nullcontext(Endpoint(None, None)))
    monkeypatch.setattr(live, "_cold_start_s", lambda *_: 5.0)
    monkeypatch.setattr(live, "measure", lambda *_, **__: None)  # these policies need no latencies
    monkeypatch.setattr(live, "run_live", run_live)
    return lambda **changed: live.compare_live(
        tmp_path, "kind", **(SETTINGS | changed), report=lambda _: None
    ), made


@pytest.mark.slow
def test_an_interrupted_comparison_continues_with_the_runs_that_are_missing(replayed):
    compare, made = replayed
    with pytest.raises(KeyboardInterrupt):
        compare()
    tables = compare()
    assert [name for name, _ in made] == ["FairShare", "AIAD", "FairShare", "FairShare", "AIAD"]
    keys = tables.summary[["environment", "policy", "trial"]].value_counts()
    assert len(keys) == 8
    assert (keys == 1).all()
    made.clear()
    with pytest.raises(KeyboardInterrupt):
        compare()
    assert len(made) == 3, "a comparison that was completed measures again"


@pytest.mark.slow
def test_runs_with_other_settings_are_not_continued(replayed):
    compare, made = replayed
    with pytest.raises(KeyboardInterrupt):
        compare()
    made.clear()
    made.append(("none", None))
    with pytest.raises(KeyboardInterrupt):
        compare(capacity=9)
    assert len(made) == 3


@pytest.mark.slow
def test_runs_of_a_policy_whose_code_has_changed_are_not_continued(replayed, monkeypatch):
    compare, made = replayed
    with pytest.raises(KeyboardInterrupt):
        compare()
    monkeypatch.setattr(
        live, "make", lambda name, context: Other(name) if name == "AIAD" else FairShare()
    )
    made.clear()
    with pytest.raises(KeyboardInterrupt):
        compare()
    assert [name for name, _ in made] == ["AIAD", "FairShare", "AIAD"]


class Other(FairShare):
    pass


def test_the_slice_has_the_recorded_minutes_before_it_as_its_history(replayed):
    compare, made = replayed
    with pytest.raises(KeyboardInterrupt):
        compare(max_rps=1e6)
    counts = synthetic(seed=1, jobs=3, days=3).workload().requests_per_min
    one = made[0][1]
    np.testing.assert_array_equal(one.before, counts[:, 5:20])
    np.testing.assert_array_equal(one.workload.requests_per_min, counts[:, 20:24])


def test_a_lost_worker_is_refused_without_a_cluster_that_replaces_it(tmp_path):
    with pytest.raises(ValueError, match="lost_worker_trial=0: backend=local has no worker"):
        live.compare_live(tmp_path, "local", **SETTINGS, lost_worker_trial=0)


class Holding(TwoLoops):
    name = "Holding"

    def plan(self, state, observation):
        return hold(observation)


def test_a_policy_that_forecasts_starts_with_the_counts_before_the_slice():
    traces = synthetic(seed=1, jobs=3, days=2)
    before = traces.workload().requests_per_min[:, :15]
    one = Slice(traces.workload().between(15, 20), 8, 2.0, 60.0, 10, before=before)
    state = one.paced(Holding(forecast.fit("ar", traces))).start(one.workload.jobs)
    np.testing.assert_array_equal(state.forecaster.counts[:, -15:], before)
    assert state.forecaster.minute_of_day == 15
    assert one.paced(FairShare()) == replace(FairShare(), tick_s=60.0)


def step(now_s, capacity, running):
    seen = replace(observed(running, capacity=capacity), now_s=now_s)
    return Step(seen, hold(seen), seen.target, 0.0)


def test_the_simulation_is_told_when_the_capacity_changed():
    steps = [
        step(now_s, cores, [1, 1])
        for now_s, cores in ((60.0, 8), (120.0, 4), (180.0, 4), (240.0, 8))
    ]
    assert changes_of(steps, 8) == ((120.0, 4.0), (240.0, 8.0))


class Workers:
    """Two workers; the one that was deleted is never replaced."""

    def __init__(self, refused=False):
        self.count, self.refused = 2, refused

    def ready(self):
        return self.count

    def delete_one(self):
        if self.refused:
            raise OSError("forbidden")
        self.count -= 1


def test_a_worker_is_deleted_and_requests_are_counted_around_it(monkeypatch):
    began = time.time() - 3 * STEP_S  # the counts of the past are made at once
    with LostWorker(Workers(), began, 2 * STEP_S) as lost:
        until(lambda: len(lost.ready) >= 4)
    lost.ready = lost.ready[:4]  # on a busy machine, there may be more
    script = Script(
        ("a", "b"),
        np.array([1.0, 6.0, 11.0, 12.0, 16.0]),
        np.array([0, 1, 0, 0, 1]),
        np.full(5, np.nan),
    )
    outcome = np.array([SERVED, SERVED, DROPPED, FAILED, SERVED], np.int8)
    sent = Sent(outcome, *[np.where(outcome == SERVED, 0.2, np.nan)] * 3, np.ones(5, int))
    slo_s = np.array([0.5, 0.3])  # at twice the speed, 0.2 s are 0.4 s
    table = recovery_table(
        lost, script, sent, slo_s, [step(0.0, 8, [2, 2]), step(24.0, 4, [1, 2])], 2.0
    )
    assert table["workers"].tolist() == [2, 2, 1, 1]
    assert table[["in_time", "slo_missed", "dropped", "failed"]].to_numpy().tolist() == [
        [1, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 1, 1],
        [0, 1, 0, 0],
    ]
    assert table["capacity"].tolist() == [8, 8, 8, 4]
    assert table["replicas"].tolist() == [4, 4, 4, 3]
    assert set(table["deleted_s"]) == {2 * STEP_S}


def test_a_worker_that_cannot_be_deleted_fails_the_trial():
    with (
        pytest.raises(OSError, match="forbidden"),
        LostWorker(Workers(refused=True), time.time() - STEP_S, 0.0) as lost,
    ):
        until(lambda: lost.error)
