"""The controller and its journal, over the simulated cluster: what it outlives, how it resumes, and that logs replay."""

import json
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, replace

import numpy as np
import pytest
from live_things import JOBS, Wanting

from faro_lib import forecast
from faro_lib.control import GuardrailConfig, journal
from faro_lib.control.controller import APPLY, JOURNAL, OBSERVE, drive, paced, resumed
from faro_lib.control.explanation import explained, tick_at
from faro_lib.forecast.kalman import untaught
from faro_lib.policies import PolicyContext, make
from faro_lib.policies.protocol import DRIFT_CORRECTED, FAILED
from faro_lib.simulate import SimulatedCluster, draw
from faro_lib.simulate.measure import measure
from faro_lib.workload.synthetic import synthetic

CAPACITY, MINUTES, SEED = 8, 12, 24


@pytest.fixture(scope="module")
def traces():
    return synthetic(seed=1, jobs=2, days=3)


@pytest.fixture(scope="module")
def day(traces):
    return traces.workload().between(0, MINUTES)


@pytest.fixture(scope="module")
def context(traces):
    return PolicyContext(
        traces.jobs, forecast.fit("ar", traces), measure(traces.jobs, replicas=(1, 2, 4, 8), minutes=5)
    )


def cluster_of(day, policy):
    return SimulatedCluster(day, draw(day, SEED), CAPACITY, policy.initial(day.jobs, CAPACITY))


class Wrapped:
    """A cluster in which something goes wrong at some ticks."""

    def __init__(self, cluster, observe=(), apply=()):
        self.cluster, self.bad = cluster, {"observe": set(observe), "apply": set(apply)}
        self.ticks = {"observe": 0, "apply": 0}
        self.asked = []

    def _count(self, what):
        self.ticks[what] += 1
        if self.ticks[what] in self.bad[what]:
            raise OSError(f"{what} is\nbroken")

    def observe(self):
        self._count("observe")
        return self.cluster.observe()

    def apply(self, target, drop):
        self._count("apply")
        self.asked.append(target.tolist())
        self.cluster.apply(target, drop)

    def advance(self, until_s):
        self.cluster.advance(until_s)


class Recorder:
    def __init__(self):
        self.steps, self.failures = [], []

    def __call__(self, step):
        self.steps.append(step)

    def failed(self, reason, told):
        self.failures.append((reason, told))


def same(one, other):
    """Two steps ask for the same, for the same reasons."""
    np.testing.assert_array_equal(one.target, other.target)
    np.testing.assert_array_equal(one.plan.target, other.plan.target)
    np.testing.assert_array_equal(one.plan.drop, other.plan.drop)
    assert one.plan.reason == other.plan.reason


@pytest.mark.parametrize("name", ["FairShare", "AIAD", "MArk", "Faro-FairSum", "Faro-PenaltySum", "Cilantro"])
def test_a_journal_replays_to_the_same_plans(name, day, context, tmp_path):
    policy = make(name, context)
    drive(cluster_of(day, policy), policy, day.jobs, journal=tmp_path / "journal", until_s=60.0 * MINUTES)
    header, ticks = journal.read(tmp_path / "journal")
    assert len(ticks) >= MINUTES - 1
    for taken, again in journal.replay(make(name, context), header, ticks):
        same(taken, again)


def test_what_the_journal_holds_is_what_was_observed_and_planned_to_the_last_bit(day, context, tmp_path):
    policy, told = make("Faro-Sum", context), Recorder()
    drive(cluster_of(day, policy), policy, day.jobs, journal=tmp_path / "j", until_s=60.0 * MINUTES, on_step=told)
    _, ticks = journal.read(tmp_path / "j")
    assert len(ticks) == len(told.steps)
    for one, step in zip(ticks, told.steps):
        for noun, original in ((one.step.observation, step.observation), (one.step.plan, step.plan)):
            for field in type(noun).__dataclass_fields__:
                np.testing.assert_array_equal(getattr(noun, field), getattr(original, field), err_msg=field)


def test_a_journal_is_json_that_any_tool_reads(day, context, tmp_path):
    policy = make("AIAD", context)
    drive(cluster_of(day, policy), policy, day.jobs, journal=tmp_path / "j", until_s=120.0)
    for line in (tmp_path / "j").read_text().splitlines():
        json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


@pytest.mark.parametrize("torn", [1, 40])
def test_a_line_that_a_crash_tore_is_left_out_and_the_run_resumes(torn, day, context, tmp_path):
    policy, path = make("AIAD", context), tmp_path / "j"
    drive(cluster_of(day, policy), policy, day.jobs, journal=path, until_s=120.0)
    whole = path.read_bytes()
    path.write_bytes(whole[:-torn])
    ticks = len(journal.read(path)[1])
    assert ticks == whole.count(b"\n") - 2
    cluster = cluster_of(day, policy)
    cluster.advance(120.0)
    drive(cluster, policy, day.jobs, journal=path, until_s=200.0)
    header, turns_after = journal.read(path)
    assert len(turns_after) > ticks
    for taken, again in journal.replay(policy, header, turns_after):
        same(taken, again)


def test_a_controller_that_resumes_decides_as_if_it_had_never_stopped(day, context, tmp_path):
    policy, whole, parts = make("Faro-FairSum", context), Recorder(), Recorder()
    drive(cluster_of(day, policy), policy, day.jobs, journal=tmp_path / "w", until_s=60.0 * MINUTES, on_step=whole)
    cluster = cluster_of(day, policy)
    for until_s in (250.0, 60.0 * MINUTES):
        drive(cluster, make("Faro-FairSum", context), day.jobs, journal=tmp_path / "p", until_s=until_s, on_step=parts)
    assert [step.observation.now_s for step in parts.steps] == [step.observation.now_s for step in whole.steps]
    for one, other in zip(parts.steps, whole.steps):
        same(one, other)


def test_after_a_restart_what_was_asked_for_is_asked_again(day, context, tmp_path):
    policy = Wanting([3, 4])
    cluster = Wrapped(cluster_of(day, policy))
    drive(cluster, policy, day.jobs, journal=tmp_path / "j", until_s=100.0)
    cluster.cluster.apply(np.array([1, 1]), np.zeros(2))  # while the controller is away
    told = Recorder()
    holds = replace(make("AIAD", context), name="Wanting")
    drive(cluster, holds, day.jobs, journal=tmp_path / "j", until_s=130.0, on_step=told)
    assert [3, 4] in cluster.asked[-len(told.steps) :][:2]
    assert told.steps[0].plan.reason == (DRIFT_CORRECTED, DRIFT_CORRECTED)


@pytest.mark.parametrize("bad", [{"observe": range(5, 12)}, {"apply": range(5, 12)}, {"observe": [1]}])
def test_the_loop_outlives_a_cluster_that_cannot_be_seen_or_changed(bad, day, context, tmp_path):
    policy, told = make("Faro-Sum", context), Recorder()
    cluster = Wrapped(cluster_of(day, policy), **bad)
    drive(
        cluster, policy, day.jobs, journal=tmp_path / "j", until_s=60.0 * MINUTES, on_step=told, on_failure=told.failed
    )  # fmt: skip
    assert told.steps[-1].observation.now_s >= 60.0 * MINUTES - policy.tick_s
    assert {reason for reason, _ in told.failures} >= {OBSERVE if "observe" in bad else APPLY}
    assert all("\n" not in line for _, line in told.failures)
    for step in told.steps:
        assert step.target.sum() <= CAPACITY
        assert (step.target >= 1).all()
    assert cluster.asked[-1] == told.steps[-1].target.tolist()


def test_what_could_not_be_applied_stands_in_the_journal(day, context, tmp_path):
    policy = make("AIAD", context)
    drive(Wrapped(cluster_of(day, policy), apply=[2]), policy, day.jobs, journal=tmp_path / "j", until_s=60.0)
    errors = [one.error for one in journal.read(tmp_path / "j")[1]]
    assert errors[1] == "OSError: apply is broken"
    assert errors.count(None) == len(errors) - 1


def test_a_dry_run_changes_nothing_and_says_what_it_would_do(day, context, tmp_path):
    policy, told = make("Faro-Sum", context), Recorder()
    cluster = Wrapped(cluster_of(day, policy))
    drive(cluster, policy, day.jobs, act=False, journal=tmp_path / "j", until_s=300.0, on_step=told)
    assert cluster.asked == []
    assert any(step.target.sum() > 2 for step in told.steps)
    assert not any(DRIFT_CORRECTED in step.plan.reason for step in told.steps)
    header, ticks = journal.read(tmp_path / "j")
    for taken, again in journal.replay(policy, header, ticks):
        same(taken, again)


def test_stopping_leaves_the_cluster_as_it_is(day, context):
    policy, stop = make("Faro-Sum", context), threading.Event()
    cluster = Wrapped(cluster_of(day, policy))
    drive(cluster, policy, day.jobs, stop=stop, until_s=60.0 * MINUTES, on_step=lambda step: stop.set())
    assert cluster.ticks == {"observe": 1, "apply": 1}


def test_the_second_ctrl_c_does_not_wait():
    from signal import SIGINT, SIGTERM

    from faro_lib.cli.run import request_stop

    stop = threading.Event()
    request_stop(stop, SIGTERM)
    request_stop(stop, SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        request_stop(stop, SIGINT)
    stop.clear()
    request_stop(stop, SIGINT)
    assert stop.is_set()


def test_a_journal_of_another_policy_or_of_other_jobs_is_refused_in_one_line(day, context, tmp_path):
    policy, path = make("AIAD", context), tmp_path / "j"
    drive(cluster_of(day, policy), policy, day.jobs, journal=path, until_s=30.0)
    for other, jobs, guardrails in (
        (make("MArk", context), day.jobs, GuardrailConfig()),
        (policy, JOBS, GuardrailConfig()),
        (policy, day.jobs, GuardrailConfig(max_scaling_actions=1)),
    ):
        with pytest.raises(ValueError, match="name another journal"):
            resumed(path, other, jobs, guardrails, True)


def test_a_run_that_ended_before_its_first_turn_does_not_bind_the_next_one(day, context, tmp_path):
    path = tmp_path / "j"
    drive(
        None, make("MArk", context), day.jobs, journal=path, until_s=0.0, clock=Slow(0.0, origin_s=100, stop=stopped())
    )
    policy = make("AIAD", context)
    drive(cluster_of(day, policy), policy, day.jobs, journal=path, until_s=30.0)
    header, ticks = journal.read(path)
    assert (header.policy, header.origin_s, len(ticks)) == ("AIAD", None, 2)
    assert resumed(path, policy, day.jobs, GuardrailConfig(), True)


def stopped():
    event = threading.Event()
    event.set()
    return event


def test_an_empty_file_is_a_journal_to_begin(day, context, tmp_path):
    policy, path = make("AIAD", context), tmp_path / "j"
    path.touch()
    drive(cluster_of(day, policy), policy, day.jobs, journal=path, until_s=30.0)
    assert len(journal.read(path)[1]) == 2


def test_a_disk_that_is_full_for_a_while_stops_no_turn_and_tears_no_line(day, context, tmp_path, monkeypatch):
    policy, path, told = make("AIAD", context), tmp_path / "j", Recorder()
    fsync, calls = journal.os.fsync, iter(range(1000))

    def full(number):  # the header is written, the ticks 2 and 3 are not
        if next(calls) in (2, 3):
            raise OSError(28, "No space left on device")
        fsync(number)

    monkeypatch.setattr(journal.os, "fsync", full)
    drive(
        cluster_of(day, policy),
        policy,
        day.jobs,
        journal=path,
        until_s=60.0,
        on_step=told,
        on_failure=told.failed,
    )
    _, ticks = journal.read(path)
    assert [step.observation.now_s for step in told.steps] == [10.0, 20.0, 30.0, 40.0, 50.0]
    assert [one.step.observation.now_s for one in ticks] == [10.0, 40.0, 50.0]
    assert [reason for reason, _ in told.failures] == [JOURNAL, JOURNAL]


def test_a_file_that_is_no_journal_is_one_line(tmp_path):
    (tmp_path / "j").write_text('{"kind": "tick"}\n')
    with pytest.raises(ValueError, match="not a journal"):
        journal.read(tmp_path / "j")
    (tmp_path / "j").write_text("minute,job\n1,a\n")
    with pytest.raises(ValueError, match="line 1: not a line of a journal"):
        journal.read(tmp_path / "j")


def test_jobs_without_a_past_are_held_until_a_minute_of_them_is_known(day, context):
    policy = make(
        "Faro-Sum", PolicyContext(day.jobs, untaught(tuple(job.name for job in day.jobs)), context.latency_model)
    )
    told = Recorder()
    drive(cluster_of(day, policy), policy, day.jobs, until_s=300.0, on_step=told, on_failure=told.failed)
    assert told.steps[0].plan.reason == (FAILED, FAILED)
    assert (told.steps[0].target == 1).all()
    assert "planned" in {why for step in told.steps for why in step.plan.reason}


def test_a_paced_policy_plans_at_every_tick(context):
    policy = paced(make("Faro-Sum", context), 60.0)
    assert [now for now in np.arange(60.0, 400.0, 60.0) if policy.is_long_term(now)] == [60, 120, 180, 240, 300, 360]
    with pytest.raises(ValueError, match="tick_s=0"):
        paced(policy, 0)


@dataclass
class Slow:
    """A clock that is ahead by several ticks."""

    now_s: float = 47.0
    origin_s: int = 0
    scale: float = 1.0
    stop: threading.Event = None  # type: ignore[assignment]


def test_ticks_that_have_passed_are_left_out_and_time_stays_on_the_grid(day, context):
    policy, told, clock = make("AIAD", context), Recorder(), Slow(stop=threading.Event())

    def on_step(step):
        told(step)
        clock.now_s = max(clock.now_s, step.observation.now_s) + 10.0

    drive(cluster_of(day, policy), policy, day.jobs, clock=clock, until_s=120.0, on_step=on_step)
    assert [step.observation.now_s for step in told.steps][:3] == [50.0, 60.0, 70.0]


def test_a_past_decision_explains_itself(day, context, tmp_path):
    policy = make("Faro-Sum", context)
    drive(cluster_of(day, policy), policy, day.jobs, journal=tmp_path / "j", until_s=60.0 * MINUTES)
    header, ticks = journal.read(tmp_path / "j")
    rows = explained(header, tick_at(ticks, 175.0))
    assert [row["job"] for row in rows] == [job.name for job in day.jobs]
    assert tick_at(ticks, 175.0).step.observation.now_s == 170.0
    planned = explained(header, tick_at(ticks, 170.0))
    assert all(row["predicted_tail_latency_s"] > 0 and row["forecast_rps"] > 0 for row in planned)
    with pytest.raises(ValueError, match="before the first decision"):
        tick_at(ticks, 1.0)


def exported(day, context, jobs, until_s: float):
    """What the exporter tells after a run in which one call failed; and the cluster that was run."""
    from faro_lib.control.exporter import Exporter

    policy, exporter = make("Faro-Sum", context), Exporter(jobs, 0)
    try:
        cluster = Wrapped(cluster_of(day, policy), apply=[3])
        drive(cluster, policy, day.jobs, until_s=until_s, on_step=exporter.step, on_failure=exporter.failure)
        text = urllib.request.urlopen(f"http://127.0.0.1:{exporter.port}/metrics").read().decode()
    finally:
        exporter.close()
    return text, cluster


def test_the_grafana_dashboard_asks_for_metrics_that_there_are(day, context):
    import re

    from faro_lib.kube.dashboard import PANELS

    text, _ = exported(day, context, day.jobs, until_s=60.0)
    told = set(re.findall(r"^(faro_\w+)", text, re.MULTILINE))
    assert set(re.findall(r"faro_\w+", str([queries for _, _, queries in PANELS]))) <= told


def test_a_loop_that_stands_still_is_told_to_whoever_asks_for_its_health(day, context):
    from faro_lib.control.exporter import Exporter

    exporter = Exporter(day.jobs, 0, patience_s=0.2)

    def health() -> int:
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{exporter.port}/healthz").status
        except urllib.error.HTTPError as error:
            return error.code

    try:
        assert health() == 200, "it may wait for its lease"
        policy = make("FairShare", context)
        drive(cluster_of(day, policy), policy, day.jobs, until_s=240.0, on_step=exporter.step)
        time.sleep(0.3)
        assert health() == 503
        exporter.failure("observe", "no answer")
        assert health() == 200, "who fails to observe goes on"
    finally:
        exporter.close()


def test_the_exporter_tells_targets_predictions_and_failures(day, context):
    jobs = tuple(replace(job, cores=cores) for job, cores in zip(day.jobs, (2.0, 0.5)))
    text, cluster = exported(day, context, jobs, until_s=240.0)
    told = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    name = day.jobs[0].name
    assert float(told[f'faro_target{{job="{name}"}}']) == cluster.asked[-1][0]
    assert float(told[f'faro_measured_p99_seconds{{job="{name}"}}']) > 0
    assert 0 < float(told[f'faro_utility{{job="{name}"}}']) <= 1
    assert float(told["faro_used_cores"]) == 2.0 * cluster.asked[-1][0] + 0.5 * cluster.asked[-1][1]
    assert float(told['faro_failures_total{reason="apply"}']) == 1
    assert float(told["faro_ticks_total"]) == 23
    assert float(told["faro_decision_seconds_count"]) == 23
