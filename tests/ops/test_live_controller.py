"""The control loop over days: failures of the cluster, journal, resuming, replaying, metrics."""

import json
import math
import re
import threading
import time
import urllib.error
import urllib.request
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from journal_things import exported as lines_of
from journal_things import fill_disk
from live_things import JOBS, Wanting

import studies.paper.cilantro  # noqa: F401, registers Cilantro
from faro_lib import forecast
from faro_lib.forecast.kalman import untrained
from faro_lib.policies import PolicyContext, make
from faro_lib.protocol import DRIFT_CORRECTED, FAILED, HOLD, MISSING
from faro_lib.simulate import SimulatedCluster, draw
from faro_lib.simulate.measure import measure
from faro_lib.workload.synthetic import synthetic
from faro_ops.cli.run import print_step
from faro_ops.journal import reading, ticks, writing
from faro_ops.operate.controller.controller import stopped_by_signals
from faro_ops.operate.export.explanation import decision_at, explained
from faro_ops.operate.export.exporter import Exporter
from faro_ops.operate.job_states import GONE, JobStates
from faro_ops.operate.limits.pacing import paced
from faro_ops.operate.loop import resume
from faro_ops.operate.loop.loop import APPLY, JOURNAL, OBSERVE, run
from faro_ops.protocol import LiveGuardrails

pytestmark = pytest.mark.usefixtures("coarse_tables")

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
        traces.jobs,
        forecast.fit("ar", traces),
        measure(traces.jobs, replicas=(1, 2, 4, 8), requests=2000),
    )


def cluster_of(day, policy):
    return SimulatedCluster(day, draw(day, SEED), CAPACITY, policy.initial(day.jobs, CAPACITY))


class Wrapped:
    """A cluster whose calls fail at some ticks."""

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

    def failed(self, reason, line):
        self.failures.append((reason, line))


def same(one, other):
    """Check that two steps request the same for the same reasons."""
    np.testing.assert_array_equal(one.target, other.target)
    np.testing.assert_array_equal(one.plan.target, other.plan.target)
    np.testing.assert_array_equal(one.plan.drop, other.plan.drop)
    assert one.plan.reason == other.plan.reason


@pytest.mark.parametrize(
    "name", ["FairShare", "AIAD", "MArk", "Faro-FairSum", "Faro-PenaltySum", "Cilantro"]
)
def test_a_journal_replays_to_the_same_plans(name, day, context, tmp_path):
    policy = make(name, context)
    run(
        cluster_of(day, policy),
        policy,
        day.jobs,
        journal=tmp_path / "journal",
        until_s=60.0 * MINUTES,
    )
    header, ticks = reading.read(tmp_path / "journal")
    assert len(ticks) >= MINUTES - 1
    for taken, again in resume.replay(make(name, context), header, ticks):
        same(taken, again)


def test_the_journal_holds_observations_and_plans_to_the_last_bit(day, context, tmp_path):
    policy, recorder = make("Faro-Sum", context), Recorder()
    run(
        cluster_of(day, policy),
        policy,
        day.jobs,
        journal=tmp_path / "j",
        until_s=60.0 * MINUTES,
        on_step=recorder,
    )
    _, ticks = reading.read(tmp_path / "j")
    assert len(ticks) == len(recorder.steps)
    for one, step in zip(ticks, recorder.steps):
        for noun, original in (
            (one.step.observation, step.observation),
            (one.step.plan, step.plan),
        ):
            for field in type(noun).__dataclass_fields__:
                np.testing.assert_array_equal(
                    getattr(noun, field), getattr(original, field), err_msg=field
                )


def test_an_exported_journal_is_json_that_any_tool_reads(day, context, tmp_path):
    policy = make("AIAD", context)
    run(cluster_of(day, policy), policy, day.jobs, journal=tmp_path / "j", until_s=120.0)
    for line in lines_of(tmp_path / "j"):
        json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


def test_a_run_resumes_where_another_ended(day, context, tmp_path):
    policy, path = make("AIAD", context), tmp_path / "j"
    run(cluster_of(day, policy), policy, day.jobs, journal=path, until_s=120.0)
    ticks = len(reading.read(path)[1])
    cluster = cluster_of(day, policy)
    cluster.advance(120.0)
    run(cluster, policy, day.jobs, journal=path, until_s=200.0)
    header, ticks_after = reading.read(path)
    assert len(ticks_after) > ticks
    for taken, again in resume.replay(policy, header, ticks_after):
        same(taken, again)


def test_a_resumed_run_decides_as_if_it_had_never_stopped(day, context, tmp_path):
    policy, whole, parts = make("Faro-FairSum", context), Recorder(), Recorder()
    run(
        cluster_of(day, policy),
        policy,
        day.jobs,
        journal=tmp_path / "w",
        until_s=60.0 * MINUTES,
        on_step=whole,
    )
    cluster = cluster_of(day, policy)
    for until_s in (250.0, 60.0 * MINUTES):
        run(
            cluster,
            make("Faro-FairSum", context),
            day.jobs,
            journal=tmp_path / "p",
            until_s=until_s,
            on_step=parts,
        )
    assert [step.observation.now_s for step in parts.steps] == [
        step.observation.now_s for step in whole.steps
    ]
    for one, other in zip(parts.steps, whole.steps):
        same(one, other)


def test_after_a_restart_the_targets_are_restored(day, context, tmp_path):
    policy = Wanting([3, 4])
    cluster = Wrapped(cluster_of(day, policy))
    run(cluster, policy, day.jobs, journal=tmp_path / "j", until_s=100.0)
    cluster.cluster.apply(np.array([1, 1]), np.zeros(2))  # while no controller runs
    recorder = Recorder()
    holds = replace(make("AIAD", context), name="Wanting")
    run(cluster, holds, day.jobs, journal=tmp_path / "j", until_s=130.0, on_step=recorder)
    assert [3, 4] in cluster.asked[-len(recorder.steps) :][:2]
    assert recorder.steps[0].plan.reason == (DRIFT_CORRECTED, DRIFT_CORRECTED)


@pytest.mark.parametrize(
    "bad", [{"observe": range(5, 12)}, {"apply": range(5, 12)}, {"observe": [1]}]
)
def test_the_loop_survives_a_cluster_that_cannot_be_observed_or_changed(
    bad, day, context, tmp_path
):
    policy, recorder = make("Faro-Sum", context), Recorder()
    cluster = Wrapped(cluster_of(day, policy), **bad)
    run(
        cluster,
        policy,
        day.jobs,
        journal=tmp_path / "j",
        until_s=60.0 * MINUTES,
        on_step=recorder,
        on_failure=recorder.failed,
    )
    assert recorder.steps[-1].observation.now_s >= 60.0 * MINUTES - policy.tick_s
    assert {reason for reason, _ in recorder.failures} >= {OBSERVE if "observe" in bad else APPLY}
    assert all("\n" not in line for _, line in recorder.failures)
    for step in recorder.steps:
        assert step.target.sum() <= CAPACITY
        assert (step.target >= 1).all()
    assert cluster.asked[-1] == recorder.steps[-1].target.tolist()


def test_the_journal_records_why_targets_could_not_be_applied(day, context, tmp_path):
    policy = make("AIAD", context)
    cluster, recorder = Wrapped(cluster_of(day, policy), apply=[2]), Recorder()
    run(cluster, policy, day.jobs, journal=tmp_path / "j", until_s=60.0, on_failure=recorder.failed)
    errors = [one.error for one in reading.read(tmp_path / "j")[1]]
    assert errors[1] == "OSError: apply is broken"
    assert errors.count(None) == len(errors) - 1


def test_the_line_of_a_tick_says_whether_its_targets_were_applied(day, context, capsys):
    policy, recorder = make("AIAD", context), Recorder()
    cluster, listen = (
        Wrapped(cluster_of(day, policy), apply=[2]),
        partial(print_step, day.jobs, True),
    )
    run(cluster, policy, day.jobs, until_s=40.0, on_step=listen, on_failure=recorder.failed)
    assert [json.loads(line)["applied"] for line in capsys.readouterr().out.splitlines()] == [
        True,
        False,
        True,
    ]


def test_the_loop_survives_an_output_that_cannot_be_written(day, context):
    policy, recorder = make("AIAD", context), Recorder()

    def listen(step):
        recorder(step)
        raise OSError(28, "No space left on device")

    run(
        cluster_of(day, policy),
        policy,
        day.jobs,
        until_s=40.0,
        on_step=listen,
        on_failure=recorder.failed,
    )
    assert len(recorder.steps) == 3
    assert recorder.failures == [("report", "OSError: [Errno 28] No space left on device")] * 3


def test_a_dry_run_changes_nothing_and_reports_its_plans(day, context, tmp_path):
    policy, recorder = make("Faro-Sum", context), Recorder()
    cluster = Wrapped(cluster_of(day, policy))
    run(
        cluster,
        policy,
        day.jobs,
        apply=False,
        journal=tmp_path / "j",
        until_s=300.0,
        on_step=recorder,
    )
    assert cluster.asked == []
    assert any(step.target.sum() > 2 for step in recorder.steps)
    assert not any(DRIFT_CORRECTED in step.plan.reason for step in recorder.steps)
    header, ticks = reading.read(tmp_path / "j")
    for taken, again in resume.replay(policy, header, ticks):
        same(taken, again)


def test_stopping_leaves_the_cluster_as_it_is(day, context):
    policy, stop = make("Faro-Sum", context), threading.Event()
    cluster = Wrapped(cluster_of(day, policy))
    run(
        cluster,
        policy,
        day.jobs,
        stop=stop,
        until_s=60.0 * MINUTES,
        on_step=lambda step: stop.set(),
    )
    assert cluster.ticks == {"observe": 1, "apply": 1}


def test_the_second_ctrl_c_does_not_wait_for_the_tick():
    from signal import SIGINT, SIGTERM, raise_signal

    with stopped_by_signals(None) as stop:
        raise_signal(SIGTERM)
        raise_signal(SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            raise_signal(SIGINT)
    with stopped_by_signals(None) as stop:
        raise_signal(SIGINT)
        assert stop.is_set()


def test_a_journal_of_another_policy_other_jobs_or_guardrails_is_refused(day, context, tmp_path):
    policy, path = make("AIAD", context), tmp_path / "j"
    run(cluster_of(day, policy), policy, day.jobs, journal=path, until_s=30.0)
    for other, jobs, guardrails in (
        (make("MArk", context), day.jobs, LiveGuardrails()),
        (policy, JOBS, LiveGuardrails()),
        (policy, day.jobs, LiveGuardrails(max_scaling_actions=1)),
    ):
        with (
            writing.Journal(path) as opened,
            pytest.raises(ValueError, match="name another journal"),
        ):
            resume.resume_run(
                opened, other, ticks.Header(other.name, jobs, guardrails, other.tick_s, apply=True)
            )


def test_a_run_without_a_tick_does_not_determine_the_policy_of_its_journal(day, context, tmp_path):
    path = tmp_path / "j"
    run(
        None,
        make("MArk", context),
        day.jobs,
        journal=path,
        until_s=0.0,
        clock=Slow(0.0, origin_s=100, stop=stopped()),
    )
    policy = make("AIAD", context)
    run(cluster_of(day, policy), policy, day.jobs, journal=path, until_s=30.0)
    header, ticks = reading.read(path)
    assert (header.policy, header.origin_s, len(ticks)) == ("AIAD", None, 2)
    with writing.Journal(path) as opened:
        assert resume.resume_run(opened, policy, header)


def stopped():
    event = threading.Event()
    event.set()
    return event


def test_a_run_begins_its_journal_in_an_empty_folder(day, context, tmp_path):
    policy, path = make("AIAD", context), tmp_path / "j"
    path.mkdir()
    run(cluster_of(day, policy), policy, day.jobs, journal=path, until_s=30.0)
    assert len(reading.read(path)[1]) == 2


def test_while_the_disk_is_full_ticks_go_on_and_no_line_is_incomplete(
    day, context, tmp_path, monkeypatch
):
    policy, path, recorder = make("AIAD", context), tmp_path / "j", Recorder()
    # The header is written, the ticks 2 and 3 are not.
    fill_disk(monkeypatch, lambda: len(recorder.steps) in (1, 2))
    run(
        cluster_of(day, policy),
        policy,
        day.jobs,
        journal=path,
        until_s=60.0,
        on_step=recorder,
        on_failure=recorder.failed,
    )
    _, ticks = reading.read(path)
    assert [step.observation.now_s for step in recorder.steps] == [10.0, 20.0, 30.0, 40.0, 50.0]
    assert [one.step.observation.now_s for one in ticks] == [10.0, 40.0, 50.0]
    assert [reason for reason, _ in recorder.failures] == [JOURNAL, JOURNAL]


@pytest.mark.parametrize("before_s", [0.0, 30.0], ids=["a new journal", "a run that resumes"])
def test_a_disk_that_is_full_at_the_start_does_not_end_the_run(
    day, context, tmp_path, monkeypatch, before_s
):
    policy, path, recorder = make("AIAD", context), tmp_path / "j", Recorder()
    if before_s:
        run(cluster_of(day, policy), policy, day.jobs, journal=path, until_s=before_s)
    steps = recorder.steps
    fill_disk(monkeypatch, lambda: len(steps) < 2)
    options = {
        "journal": path,
        "until_s": before_s + 50.0,
        "on_step": recorder,
        "on_failure": recorder.failed,
    }
    run(cluster_of(day, policy), policy, day.jobs, **options)
    _, ticks = reading.read(path)
    times_s = [step.observation.now_s for step in steps]
    assert [one.step.observation.now_s for one in ticks][-len(times_s) + 2 :] == times_s[2:]
    assert [reason for reason, _ in recorder.failures] == [JOURNAL, JOURNAL]


def test_a_file_that_is_not_a_journal_is_refused_in_one_line(tmp_path):
    (tmp_path / "j").write_text('{"kind": "tick"}\n')
    with pytest.raises(ValueError, match="line 1: not a line of a journal"):
        reading.read(tmp_path / "j")
    (tmp_path / "j").write_text("minute,job\n1,a\n")
    with pytest.raises(ValueError, match="line 1: not a line of a journal"):
        reading.read(tmp_path / "j")
    (tmp_path / "j").write_text('{"kind": "header", "policy": "AIAD", "start_s": 0}\n')
    with pytest.raises(ValueError, match=r"another version .* name another journal"):
        reading.read(tmp_path / "j")


def test_jobs_without_history_hold_until_a_minute_of_counts_is_known(day, context):
    policy = make(
        "Faro-Sum",
        PolicyContext(
            day.jobs, untrained(tuple(job.name for job in day.jobs)), context.latency_model
        ),
    )
    recorder = Recorder()
    run(
        cluster_of(day, policy),
        policy,
        day.jobs,
        until_s=300.0,
        on_step=recorder,
        on_failure=recorder.failed,
    )
    assert set(recorder.steps[0].plan.reason) <= {HOLD, MISSING}
    assert (recorder.steps[0].target == 1).all()
    assert FAILED not in {reason for reason, _ in recorder.failures}
    assert "planned" in {why for step in recorder.steps for why in step.plan.reason}


def test_a_paced_policy_plans_at_every_tick(context):
    policy = paced(make("Faro-Sum", context), 60.0)
    assert [now for now in np.arange(60.0, 400.0, 60.0) if policy.is_long_term(now)] == [
        60,
        120,
        180,
        240,
        300,
        360,
    ]
    with pytest.raises(ValueError, match="tick_s=0"):
        paced(policy, 0)


def test_a_policy_that_is_given_its_own_tick_keeps_the_time_of_its_decisions(context):
    """`faro manifests` names the tick that Faro has anyway.

    That it decides late in the minute was tuned (docs/tuning.md).
    """
    policy = make("Faro-Sum", context)
    assert paced(policy, policy.tick_s) == policy
    assert policy.phase_s > 0
    assert paced(policy, 60.0).phase_s == 0


@dataclass
class Slow:
    """A clock that is several ticks ahead."""

    now_s: float = 47.0
    origin_s: int = 0
    scale: float = 1.0
    stop: threading.Event = None  # type: ignore[assignment]


def test_late_ticks_are_skipped_and_the_others_stay_on_the_grid(day, context):
    policy, recorder, clock = make("AIAD", context), Recorder(), Slow(stop=threading.Event())

    def on_step(step):
        recorder(step)
        clock.now_s = max(clock.now_s, step.observation.now_s) + 10.0

    run(cluster_of(day, policy), policy, day.jobs, clock=clock, until_s=120.0, on_step=on_step)
    assert [step.observation.now_s for step in recorder.steps][:3] == [50.0, 60.0, 70.0]


def test_a_past_decision_is_explained_from_the_journal(day, context, tmp_path):
    policy = make("Faro-Sum", context)
    run(cluster_of(day, policy), policy, day.jobs, journal=tmp_path / "j", until_s=60.0 * MINUTES)
    header, ticks = reading.read(tmp_path / "j")
    rows = explained(header, decision_at([(header, ticks)], 175.0)[1])
    assert [row["job"] for row in rows] == [job.name for job in day.jobs]
    assert decision_at([(header, ticks)], 175.0)[1].step.observation.now_s == 170.0
    assert all(math.isnan(row["failed_per_min"]) for row in rows), "a simulated request never fails"
    planned = explained(header, decision_at([(header, ticks)], 170.0)[1])
    assert all(row["predicted_tail_latency_s"] > 0 and row["forecast_rps"] > 0 for row in planned)
    assert [(row["before"], row["after"]) for row in planned] == [
        (int(step.observation.target[n]), int(step.target[n]))
        for step in [decision_at([(header, ticks)], 170.0)[1].step]
        for n in (0, 1)
    ]
    with pytest.raises(ValueError, match="before the first decision"):
        decision_at([(header, ticks)], 1.0)[1]


def exported(day, context, jobs, until_s: float):
    """The metrics after a run in which one call failed, and its cluster."""
    policy, exporter = make("Faro-Sum", context), Exporter(jobs, 0)
    try:
        cluster = Wrapped(cluster_of(day, policy), apply=[3])
        run(
            cluster,
            policy,
            day.jobs,
            until_s=until_s,
            on_step=exporter.step,
            on_failure=exporter.failure,
        )
        text = urllib.request.urlopen(f"http://127.0.0.1:{exporter.port}/metrics").read().decode()
    finally:
        exporter.close()
    return text, cluster


# Shown by the dashboard since they are exported, so that they cannot be left out again.
SHOWN = {
    "faro_job_state",
    "faro_job_data_age_seconds",
    "faro_leader",
    "faro_settings_rejected",
    "faro_order_not_in_force",
    "faro_pending_pods",
    "faro_pool_replicas_with_model",
    "faro_first_token_seconds",
    "faro_per_token_seconds",
    "faro_goodput_rps",
}


def shown_metrics() -> set[str]:
    """The metrics in the queries of the Grafana dashboard."""
    from faro_ops.operate.kube.manifests import DASHBOARD

    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    return set(re.findall(r"faro_\w+", str(queries)))


def test_every_metric_of_the_grafana_dashboard_is_exported(day, context):
    text, _ = exported(day, context, day.jobs, until_s=60.0)
    with closing(Exporter(day.jobs, 0, leads=lambda: True)) as exporter:
        text += scraped(exporter)
    # The help of a metric is there although no job has a value, as for an order.
    metrics = set(re.findall(r"^(?:# HELP )?(faro_\w+)", text, re.MULTILINE))
    assert shown_metrics() <= metrics


def test_the_dashboard_shows_who_leads_what_is_in_trouble_and_the_models_of_pools():
    assert shown_metrics() >= SHOWN


def test_no_two_panels_of_the_dashboard_overlap_or_share_a_number():
    from faro_ops.operate.kube.manifests import DASHBOARD

    panels = json.loads(DASHBOARD.read_text())["panels"]
    places = [(one["gridPos"]["x"], one["gridPos"]["y"]) for one in panels]
    assert len(set(places)) == len(panels)
    assert len({one["id"] for one in panels}) == len(panels)


def health(exporter) -> int:
    """The HTTP status of /healthz."""
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{exporter.port}/healthz").status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.fixture
def clock(monkeypatch):
    """The monotonic clock, which a test moves on."""
    clock = SimpleNamespace(now_s=1000.0)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now_s)
    return clock


def test_the_health_endpoint_fails_while_the_loop_is_stalled(day, context, clock):
    with closing(Exporter(day.jobs, 0, progress_deadline_s=0.2)) as exporter:
        policy = make("FairShare", context)
        exporter.begin()
        run(cluster_of(day, policy), policy, day.jobs, until_s=240.0, on_step=exporter.step)
        clock.now_s += 0.3
        assert health(exporter) == 503
        exporter.failure("observe", "no answer")
        assert health(exporter) == 200, "a failed observation is progress"
        clock.now_s += 0.3
        assert health(exporter) == 503


def test_a_standby_that_once_failed_is_not_restarted_for_it(day, clock):
    with closing(Exporter(day.jobs, 0, progress_deadline_s=0.1)) as exporter:
        exporter.failure("changes", "the API server does not answer")
        clock.now_s += 0.2
        assert health(exporter) == 200
        exporter.begin()
        clock.now_s += 0.2
        assert health(exporter) == 503, "the loop runs, and its first tick hangs"


def test_jobs_that_left_the_table_are_no_longer_exported(day, context):
    with closing(Exporter(day.jobs, 0)) as exporter:
        policy = make("FairShare", context)
        run(cluster_of(day, policy), policy, day.jobs, until_s=70.0, on_step=exporter.step)
        assert f'faro_desired_replicas{{inference_job="{day.jobs[0].name}"}}' in scraped(exporter)
        exporter.use_jobs(JOBS)
        assert f'faro_desired_replicas{{inference_job="{day.jobs[0].name}"}}' not in scraped(
            exporter
        )


def scraped(exporter) -> str:
    return urllib.request.urlopen(f"http://127.0.0.1:{exporter.port}/metrics").read().decode()


@pytest.mark.parametrize("leads", [True, False])
def test_only_a_leader_that_has_decided_exports_targets_and_capacity(leads, day, context):
    with closing(Exporter(day.jobs, 0, leads=lambda: leads)) as exporter:
        assert "faro_capacity_cores" not in scraped(exporter), "nothing is decided yet"
        policy = make("FairShare", context)
        run(cluster_of(day, policy), policy, day.jobs, until_s=70.0, on_step=exporter.step)
        text = scraped(exporter)
        assert f"faro_leader {float(leads)}" in text
        for name in ("faro_capacity_cores ", "faro_desired_replicas{", "faro_least_replicas{"):
            assert (f"\n{name}" in text) is leads
        assert "\nfaro_ticks_total " in text


def test_the_board_of_job_states_is_exported_at_each_scrape(day):
    states = JobStates()
    one, other = (job.name for job in day.jobs)
    with closing(Exporter(day.jobs, 0, states=states, pending=lambda: {other: 3})) as exporter:
        states.report(one, GONE, "deployment 'x' does not exist", by="test")
        states.refuse_orders({"z": "no job of the table"})
        states.saw_data([one])
        exporter.reject_settings(True)
        lines = scraped(exporter).splitlines()
    expected = [
        f'faro_job_state{{inference_job="{one}",state="gone"}} 1.0',
        f'faro_job_state{{inference_job="{one}",state="fine"}} 0.0',
        f'faro_job_state{{inference_job="{other}",state="fine"}} 1.0',
        f'faro_pending_pods{{inference_job="{one}"}} 0.0',
        f'faro_pending_pods{{inference_job="{other}"}} 3.0',
        f'faro_job_data_age_seconds{{inference_job="{other}"}} +Inf',
        'faro_order_not_in_force{inference_job="z"} 1.0',
        "faro_settings_rejected 1.0",
    ]
    assert [line for line in expected if line not in lines] == []
    seen = f'faro_job_data_age_seconds{{inference_job="{one}"}}'
    (age,) = [line.removeprefix(seen) for line in lines if line.startswith(seen)]
    assert 0 <= float(age) < 60


def test_a_loop_that_waits_to_start_is_healthy_and_not_ready_and_says_for_what(day):
    exporter = Exporter(day.jobs, 0)
    address = f"http://127.0.0.1:{exporter.port}"
    try:
        assert urllib.request.urlopen(f"{address}/readyz").status == 200
        exporter.waits_for = "no head"
        assert urllib.request.urlopen(f"{address}/healthz").status == 200
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(f"{address}/readyz")
        assert (raised.value.code, raised.value.read()) == (503, b"no head\n")
    finally:
        exporter.close()


def test_the_exporter_serves_targets_predictions_and_failures(day, context):
    jobs = tuple(replace(job, cores=cores) for job, cores in zip(day.jobs, (2.0, 0.5)))
    text, cluster = exported(day, context, jobs, until_s=240.0)
    metrics = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    name = day.jobs[0].name
    assert (
        float(metrics[f'faro_desired_replicas{{inference_job="{name}"}}']) == cluster.asked[-1][0]
    )
    assert float(metrics[f'faro_tail_latency_seconds{{inference_job="{name}"}}']) > 0
    assert 0 < float(metrics[f'faro_utility{{inference_job="{name}"}}']) <= 1
    assert metrics[f'faro_failed_requests_per_minute{{inference_job="{name}"}}'] == "NaN", (
        "no cluster reports it here"
    )
    assert (
        float(metrics["faro_used_cores"]) == 2.0 * cluster.asked[-1][0] + 0.5 * cluster.asked[-1][1]
    )
    assert float(metrics['faro_failures_total{reason="apply"}']) == 1
    assert float(metrics["faro_ticks_total"]) == 23
    assert float(metrics["faro_decision_duration_seconds_count"]) == 23
