"""Changes during a run: the jobs' table, replicas fixed by hand, and expected events."""

import itertools
import os
import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from journal_things import count_ticks
from kube_api import KubeApi
from live_things import JOBS, FakeRay, Still, Wanting
from observations import observed
from waiting import until

from faro_lib import forecast
from faro_lib.protocol import OVERRIDE
from faro_lib.workload import Job, Traces
from faro_ops import cli
from faro_ops.journal import reading, ticks, writing
from faro_ops.operate.controller import backends
from faro_ops.operate.controller import model as models
from faro_ops.operate.controller.controller import changes_since, run_clock
from faro_ops.operate.export.explanation import decision_at
from faro_ops.operate.kube.operate import NamespacedName
from faro_ops.operate.loop import settings_change
from faro_ops.operate.loop.expected import Event, expected
from faro_ops.operate.loop.loop import run
from faro_ops.operate.loop.renewal import renewed
from faro_ops.operate.loop.resume import resume_run
from faro_ops.operate.memory.override_store import JournalOverrides
from faro_ops.operate.memory.overrides import Override, Settings, Watched
from faro_ops.protocol import LiveGuardrails
from faro_ops.run_options import RunOptions

NOW_S = time.time()


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "jobs.yaml"
    path.write_text("- {job: a, slo_s: 0.5}\n- {job: b}\n")
    return path


class TestTheSettings:
    def test_an_edited_table_is_read_and_each_change_is_a_line(self, table, tmp_path):
        watched = Watched(table)
        assert watched.new() is None
        before = watched.known
        table.write_text("- {job: a, slo_s: 0.7, weight: 2}\n- {job: c}\n")
        new = watched.new()
        assert [job.name for job in new.jobs] == ["a", "c"]
        assert before.changes(new) == [
            "job 'b': removed from the table",
            "job 'c': added to the table",
            "job 'a': slo_s 0.5 -> 0.7",
            "job 'a': weight 1.0 -> 2.0",
        ]
        assert watched.new() is None

    def test_a_fixed_count_is_the_maximum_while_it_is_in_force(self, table, tmp_path):
        path = tmp_path / "j"
        path.mkdir()
        watched = Watched(table, JournalOverrides(path).read)
        JournalOverrides(path).change(
            adds=Override(job="a", by="me", from_s=NOW_S - 1, until_s=NOW_S + 3600, replicas=5)
        )
        new = watched.new()
        assert (new.jobs[0].max_replicas, new.fixed_jobs) == (5, ("a",))
        assert new.jobs[1] == Job("b")

    def test_an_override_ends_without_an_edit(self, table, tmp_path, monkeypatch):
        path = tmp_path / "j"
        path.mkdir()
        JournalOverrides(path).change(
            adds=Override(job="a", by="me", from_s=NOW_S - 1, until_s=NOW_S + 3600, replicas=5)
        )
        watched = Watched(table, JournalOverrides(path).read)
        before = watched.known
        monkeypatch.setattr(time, "time", lambda: NOW_S + 3601)
        new = watched.new()
        assert (new.jobs[0].max_replicas, new.fixed_jobs) == (Job("a").max_replicas, ())
        assert before.changes(new)[0].startswith("over or cleared: job 'a': 5 replicas from ")

    def test_an_event_is_kept_until_forecasters_have_forgotten_its_counts(
        self, table, tmp_path, monkeypatch
    ):
        path = tmp_path / "j"
        path.mkdir()
        event = Override(job="a", by="me", from_s=NOW_S - 1, until_s=NOW_S + 3600, load=3.0)
        JournalOverrides(path).change(adds=event)
        watched = Watched(table, JournalOverrides(path).read)
        before = watched.known
        monkeypatch.setattr(time, "time", lambda: NOW_S + 3600 + 1799)
        JournalOverrides(path).change()
        assert watched.new() is None
        assert before.events == (event,)
        monkeypatch.setattr(time, "time", lambda: NOW_S + 3600 + 1801)
        assert before.changes(watched.new())[0].startswith(
            "over or cleared: job 'a': load x 3 from "
        )

    @pytest.mark.parametrize(
        "content", ["- job: a\n- job: a\n", "- {job: a, slo_s: -1}\n", "[", ""]
    )
    def test_a_damaged_table_is_reported_once_and_the_settings_stay(self, table, content):
        watched = Watched(table)
        table.write_text(content)
        with pytest.raises(ValueError):
            watched.new()
        assert watched.new() is None
        table.write_text("- {job: c}\n")
        assert [job.name for job in watched.new().jobs] == ["c"]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "either replicas or load"),
        ({"replicas": 2, "load": 2.0}, "either"),
        ({"replicas": 0}, "replicas=0"),
        ({"replicas": 1.5}, "replicas=1.5"),
        ({"load": 0.0}, "load=0.0"),
        ({"load": float("nan")}, "load=nan"),
        ({"replicas": 2, "until_s": NOW_S - 1}, "ends before it begins"),
    ],
)
def test_an_impossible_override_is_refused(fields, told):
    with pytest.raises(ValueError, match=told):
        Override.of({"job": "a", "by": "me", "from_s": NOW_S, **fields})


def stopped_at(now_s):
    """A clock that always shows this time."""
    return SimpleNamespace(
        now_s=now_s, origin_s=1_700_000_000, scale=1.0, jump_s=0, stop=threading.Event()
    )


def header_of(path):
    return reading.read(path)[0]


def header_without_the_fixed_count(policy):
    return ticks.Header(
        policy.name,
        JOBS,
        LiveGuardrails(),
        policy.tick_s,
        apply=True,
        changes=("over: job 'a'",),
    )


class TestAJournalWithChanges:
    @pytest.fixture
    def path(self, tmp_path):
        path = tmp_path / "j"
        run(Still(), Wanting([1, 1]), JOBS, 35.0, journal=path)
        fixed = (Job("a", cold_start_s=5.0, min_replicas=3, max_replicas=3), JOBS[1])
        options = dict(
            guardrails=LiveGuardrails(fixed=("a",)), changes=("job 'a': 3 replicas, by me",)
        )
        run(Still(30.0), Wanting([1, 1]), fixed, 55.0, journal=path, **options)
        return path

    def test_the_fixed_count_is_requested_with_its_reason(self, path):
        header, ticks = reading.read(path)
        assert header.changes == ("job 'a': 3 replicas, by me",)
        assert [one.step.target.tolist() for one in ticks] == [[3, 1], [3, 1]]
        assert {one.step.plan.reason[0] for one in ticks} == {OVERRIDE}

    def test_the_policy_has_seen_the_earlier_ticks(self, path):
        policy = Wanting([1, 1])
        changed = header_without_the_fixed_count(policy)
        with writing.Journal(path) as opened:
            assert (
                resume_run(opened, policy, changed).memory.state == 2
            )  # ticks since the last change

    def test_a_policy_that_fails_on_an_earlier_tick_does_not_end_the_controller(self, path):
        class Failing(Wanting):
            def decide(self, state, observation):
                if observation.now_s == 40.0:
                    raise ValueError("no capacity")
                return super().decide(state, observation)

        policy = Failing([1, 1])
        header = header_without_the_fixed_count(policy)
        with writing.Journal(path) as opened:
            assert resume_run(opened, policy, header).memory.state == 1, "the tick at 50 s"

    def test_each_decision_is_explained_with_the_jobs_of_its_time(self, path, capsys):
        parts = reading.parts(path)
        assert [len(ticks) for _, ticks in parts] == [3, 2]
        header, one = decision_at(parts, 25.0)
        assert (header.changes, one.step.observation.now_s) == ((), 20.0)
        header, one = decision_at(parts, 45.0)
        assert (len(header.changes), one.step.observation.now_s) == (1, 40.0)
        assert decision_at(parts)[1].step.observation.now_s == 50.0
        for at_s in (5.0, 70.0):
            with pytest.raises(ValueError, match=rf"at={at_s:g} is "):
                decision_at(parts, at_s)
        assert cli.main(["explain", str(path)]) == 0
        assert "job 'a': 3 replicas, by me" in capsys.readouterr().out

    def test_another_policy_is_refused_as_before(self, path):
        other = ticks.Header("AIAD", JOBS, LiveGuardrails(), 10.0, True, changes=("x",))
        with (
            writing.Journal(path) as opened,
            pytest.raises(ValueError, match="run with other policy"),
        ):
            resume_run(opened, Wanting([1, 1]), other)

    def test_other_guardrails_begin_a_part_and_are_named(self, path):
        policy, guardrails = Wanting([1, 1]), LiveGuardrails("fair-share", max_scale_down=0.2)
        settings = Settings(JOBS, {})
        with writing.Journal(path) as opened:
            clock = run_clock(opened, threading.Event())
            changes = changes_since(opened, settings, guardrails, clock)
            header = ticks.Header(policy.name, JOBS, guardrails, 10.0, True, changes=changes)
            assert resume_run(opened, policy, header).ticks is None
        assert changes[:2] == (
            "guardrail fail_mode: hold -> fair-share",
            "guardrail max_scale_down: None -> 0.2",
        )

    def test_a_run_resumes_after_a_change_and_after_its_end(self, path):
        run(Still(50.0), Wanting([2, 2]), JOBS, 75.0, journal=path, changes=("over: job 'a'",))
        run(Still(70.0), Wanting([2, 2]), JOBS, 95.0, journal=path)
        assert [len(ticks) for _, ticks in reading.parts(path)] == [3, 2, 4]

    def test_jobs_may_be_added_and_removed(self, path):
        jobs = (JOBS[1], Job("c"), Job("d"))

        class Three(Still):
            def observe(self):
                return observed([1, 1, 1], now_s=self.now_s)

        run(
            Three(50.0),
            Wanting([1, 1, 1]),
            jobs,
            75.0,
            journal=path,
            changes=("job 'a': removed from the table",),
        )
        header, ticks = reading.read(path)
        assert ([job.name for job in header.jobs], len(ticks)) == (["b", "c", "d"], 2)


class TestAPartWithoutATick:
    """The settings change twice, or the controller stops, before the first tick after a change."""

    CHANGED = (Job("a", cold_start_s=5.0, slo_s=0.3), JOBS[1])

    @pytest.fixture
    def path(self, tmp_path):
        path = tmp_path / "j"
        run(Still(), Wanting([4, 1]), JOBS, 35.0, journal=path, clock=stopped_at(0.0))
        options = {
            "journal": path,
            "clock": stopped_at(30.0),
            "changes": ("job 'a': slo_s 0.72 -> 0.3",),
        }
        run(Still(30.0), Wanting([4, 1]), self.CHANGED, 35.0, **options)
        return path

    def test_the_memory_is_that_of_the_last_part_with_ticks(self, path):
        policy = Wanting([4, 1])
        header = ticks.Header(
            policy.name, JOBS, LiveGuardrails(), policy.tick_s, True, changes=("back again",)
        )
        with writing.Journal(path) as opened:
            past = resume_run(opened, policy, header)
            again = resume_run(opened, policy, header)
        assert (past.memory.state, again.memory.state) == (3, 3)
        assert past.memory.guard.target.tolist() == [4, 1]

    def test_the_next_run_continues_its_clock_and_knows_what_has_changed(self, path):
        with writing.Journal(path) as opened:
            clock = run_clock(opened, threading.Event())
            assert clock.origin_s == 1_700_000_000
            settings = Settings(self.CHANGED, {})
            assert changes_since(opened, settings, LiveGuardrails(), clock) == (
                "job 'a': slo_s 0.72 -> 0.3",
            )

    def test_services_keep_what_they_have_earned(self, path):
        with writing.Journal(path) as opened:
            assert ([job.name for job in opened.header.jobs], len(opened.ticks)) == (["a", "b"], 3)
            opened.begin(replace(opened.header, jobs=self.CHANGED))
            assert len(opened.ticks) == 3

    def test_a_job_can_be_frozen(self, path):
        assert cli.main(["set", "a", "--journal", str(path), "--freeze"]) == 0
        assert [one.replicas for one in JournalOverrides(path).read().valid] == [4]

    def test_the_new_part_begins_with_its_first_tick(self, path):
        options = {
            "journal": path,
            "clock": stopped_at(30.0),
            "changes": ("job 'a': slo_s 0.72 -> 0.3",),
        }
        run(Still(30.0), Wanting([4, 1]), self.CHANGED, 55.0, **options)
        assert [(header.jobs, len(ticks)) for header, ticks in reading.parts(path)] == [
            (JOBS, 3),
            (self.CHANGED, 2),
        ]


def test_a_run_ends_when_the_settings_have_changed():
    steps = []
    run(
        Still(),
        Wanting([1, 1]),
        JOBS,
        1000.0,
        on_step=steps.append,
        changed=lambda: len(steps) == 3,
    )
    assert len(steps) == 3


class TestAnExpectedEvent:
    @pytest.fixture
    def inner(self):
        train = np.full((2, 1, 1, 120), 60)
        return forecast.fit("persistence", Traces((Job("a"),), train, train[-1]))

    def test_the_forecast_rises_before_the_event_and_the_level_stays_the_same(self, inner):
        forecaster = expected(inner, (Event(0, 5.0, 7.0, 3.0),))
        for _ in range(4):
            forecaster = forecaster.update([100])
        assert forecaster.sample(5, 1)[0, 0].tolist() == [100, 300, 300, 100, 100]
        forecaster = forecaster.update([100]).update([300])
        assert forecaster.sample(3, 1)[0, 0].tolist() == [300, 100, 100]

    def test_counts_of_an_event_that_has_ended_do_not_raise_the_forecast(self, inner):
        forecaster = expected(inner, (Event(0, 0.0, 5.0, 3.0),))
        for count in (300, 300, 300, 300, 300):
            forecaster = forecaster.update([count])
        assert forecaster.sample(3, 1)[0, 0].tolist() == [100, 100, 100]

    def test_a_larger_event_than_expected_is_followed(self, inner):
        forecaster = expected(inner, (Event(0, 0.0, 10.0, 3.0),)).update([450])
        assert forecaster.sample(2, 1)[0, 0].tolist() == [450, 450]

    def test_a_refit_during_a_long_run_does_not_move_the_event(self, inner):
        forecaster = expected(inner, (Event(0, 45.0, 47.0, 3.0),))
        for _ in range(44):
            forecaster = forecaster.update([100])
        forecaster = renewed(forecaster, inner).update([100])
        assert forecaster.sample(3, 1)[0, 0].tolist() == [300, 300, 100]

    def test_past_minutes_are_those_of_the_forecaster_without_the_event(self, inner):
        """The reserve of idle cores is taken from past minutes."""
        forecaster = expected(inner, (Event(0, 45.0, 47.0, 3.0),))
        busier = replace(inner, past=2 * inner.past)
        np.testing.assert_array_equal(forecaster.past, inner.past)
        np.testing.assert_array_equal(renewed(forecaster, busier).past, busier.past)

    def test_a_minute_that_the_event_covers_in_part_has_a_part_of_it(self, inner):
        forecaster = expected(inner, (Event(0, 1.5, 2.0, 3.0),)).update([100])
        assert forecaster.sample(2, 1)[0, 0].tolist() == [200, 100]


def test_faro_run_follows_the_table_and_faro_set(tmp_path, capfd):
    ray = FakeRay({"a": 1, "b": 1, "c": 1})
    path = tmp_path / "j"
    jobs = tmp_path / "jobs.yaml"
    jobs.write_text("- {job: a}\n- {job: b}\n")
    problems = []

    def ticks():
        return count_ticks(path)

    def operator():
        try:
            until(ticks)
            fixed = f"a --journal {path} --replicas 2 --until 23:59".split()
            assert cli.main(["set", *fixed]) == 0
            until(lambda: ray.targets["a"] == 2)
            jobs.write_text("- {job: a}\n- {job: b}\n- {job: b}\n")  # a mistake
            # The table is read before each tick. The one under way may have read it before.
            seen = ticks()
            until(lambda: ticks() >= seen + 3)
            jobs.write_text("- {job: a}\n- {job: b}\n- {job: c, min_replicas: 3}\n")
            until(lambda: ray.targets["c"] >= 3)
            assert cli.main(["set", "a", "--journal", str(path), "--clear"]) == 0
            until(lambda: header_of(path).guardrails.fixed == ())
        except BaseException as error:
            problems.append(error)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    with ray.served() as address:
        thread = threading.Thread(target=operator)
        thread.start()
        command = f"run --jobs {jobs} --address {address} --serve-address {address} --apply".split()
        assert (
            cli.main([*command, "--policy", "FairShare", "--tick", "0.5", "--journal", str(path)])
            == 0
        )
        thread.join()
    assert problems == []
    said = capfd.readouterr().err
    assert "changes: " in said
    assert "occurs more than once; names are unique; the jobs stay as they are" in said
    assert "job 'c': added to the table" in said
    assert "job 'a': 2 replicas from" in said
    header, recorded = reading.parts(path)[1]
    assert header.guardrails.fixed == ("a",)
    assert {one.step.plan.reason[0] for one in recorded} == {OVERRIDE}


def test_overrides_beside_the_journal_and_in_the_plan_are_both_in_force(tmp_path, monkeypatch):
    api = KubeApi(namespace="faro")
    api.plan = {"spec": {"overrides": [{"job": "b", "replicas": 2}]}}
    monkeypatch.setattr(NamespacedName, "connect", lambda self, **_: api)
    monkeypatch.setattr("faro_ops.operate.kube.preflight.check_server", lambda api: None)
    path = str(tmp_path / "j")
    JournalOverrides(path).change(adds=Override(job="a", by="me", from_s=NOW_S, replicas=5))
    read = backends.overrides_of(NamespacedName("faro", "faro"), path)
    assert [(one.job, one.replicas) for one in read().valid] == [("a", 5), ("b", 2)]


def test_new_settings_that_a_check_refuses_are_not_waited_for(tmp_path, monkeypatch, capfd):
    """With --wait, the controller would otherwise scale nothing until the new job is served."""
    table = tmp_path / "jobs.yaml"
    refused = []
    table.write_text("- {job: a}\n- {job: b}\n")

    @contextmanager
    def served(*_, clock, ensure, **given):
        def check(new):
            if len(new.jobs) == 3:
                refused.append(new)
                if len(refused) == 2:
                    clock.stop.set()
                raise ValueError("job 'c' is not served")

        class Edited(Still):
            def observe(self):
                if refused:
                    clock.stop.set()
                table.write_text("- {job: a}\n- {job: b}\n- {job: c}\n")
                return super().observe()

        def cluster_of(new):
            ensure(partial(check, new))
            return Edited()

        yield cluster_of

    monkeypatch.setattr(backends, "ray_serve", served)
    assert cli.main(["run", "--jobs", str(table), "--policy", "AIAD", "--wait"]) == 0
    assert "job 'c' is not served; the jobs stay as they are" in capfd.readouterr().err


def faro_run(monkeypatch, table, at_tick, check=lambda new: None, *options):
    """`faro run` on a cluster that calls `at_tick(number, clock)` at each tick.

    It calls `check` with all new settings.
    """
    ticks = itertools.count(1)

    @contextmanager
    def served(*_, clock, **given):
        class Watched(Still):
            def advance(self, until_s):
                clock.wait_until(until_s)
                self.now_s = until_s

            def observe(self):
                at_tick(next(ticks), clock)
                return observed([1] * len(self.jobs), now_s=self.now_s)

        def cluster_of(new):
            check(new)
            cluster = Watched()
            cluster.jobs = new.jobs
            return cluster

        yield cluster_of

    monkeypatch.setattr(backends, "ray_serve", served)
    return cli.main(["run", "--jobs", str(table), "--policy", "AIAD", "--tick", "0.1", *options])


def test_new_settings_that_fail_while_a_server_does_not_answer_are_tried_again(
    table, monkeypatch, capfd
):
    monkeypatch.setattr(settings_change, "RETRY_S", 0.0)
    tried, jobs = [], []

    def check(new):
        tried.append(len(new.jobs))
        if tried == [2, 3]:
            raise ConnectionError("no answer from the API server")

    def at_tick(number, clock):
        table.write_text("- {job: a, slo_s: 0.5}\n- {job: b}\n- {job: c}\n")
        if number == 4:
            clock.stop.set()
        jobs.append(tried[-1])

    assert faro_run(monkeypatch, table, at_tick, check) == 0
    said = capfd.readouterr().err
    assert "changes: no answer from the API server; the jobs stay as they are" in said
    assert said.count("job 'c': added to the table") == 1
    assert tried == [2, 3, 3], "what ran before is not set up again"


@pytest.fixture
def timezone(monkeypatch):
    """A function that sets the time zone to some hours east of UTC."""

    def set_to(hours):
        monkeypatch.setenv("TZ", f"XXX{-hours}")
        time.tzset()

    yield set_to
    monkeypatch.undo()
    time.tzset()


def test_the_time_of_day_follows_a_change_to_summer_time_during_a_run(
    table, tmp_path, timezone, monkeypatch, capfd
):
    path = tmp_path / "j"
    offsets_s = []
    monkeypatch.setattr(
        models,
        "at_time_of_day",
        lambda policy, _: offsets_s.append(time.localtime().tm_gmtoff) or policy,
    )
    timezone(1)

    def at_tick(number, clock):
        if number == 3:
            timezone(2)
        if number == 6:
            clock.stop.set()

    assert faro_run(monkeypatch, table, at_tick, lambda new: None, "--journal", str(path)) == 0
    assert offsets_s == [3600, 3600, 7200], "tried at the start, and made for each of two passes"
    assert [len(ticks) for _, ticks in reading.parts(path)] == [6], (
        "no part begins, because nothing has changed"
    )
    assert "job" not in capfd.readouterr().err


def test_new_settings_are_used_although_ray_is_away():
    ray = FakeRay({"a": 1, "b": 1})
    settings = Settings(JOBS, {})
    with ray.served() as address:
        options = RunOptions(jobs="jobs.yaml", address=address, serve_address=address)
        policy, clock = Wanting([1, 1]), stopped_at(0.0)
        with backends.ray_serve(options, None, settings, policy, clock=clock) as cluster_of:
            cluster_of(settings)
            ray.status = 503
            assert cluster_of(settings).jobs == JOBS


def test_a_frozen_job_keeps_the_replicas_of_the_last_decision(tmp_path, capsys):
    run(Still(), Wanting([4, 1]), JOBS, 15.0, journal=tmp_path / "j")
    assert cli.main(["set", "a", "--journal", str(tmp_path / "j"), "--freeze"]) == 0
    assert [one.replicas for one in JournalOverrides(tmp_path / "j").read().valid] == [4]
    assert (
        cli.main(["set", "a", "--journal", str(tmp_path / "j"), "--load", "3", "--until", "23:59"])
        == 0
    )
    assert [one.load for one in JournalOverrides(tmp_path / "j").read().valid] == [None, 3.0]


class TestOrdersThatOverlap:
    HOUR_S = 3600.0

    @pytest.fixture
    def faro_set(self, tmp_path, capsys):
        """A function that gives an order for job a.

        It returns all orders as (replicas or load, begin, end), in hours.
        """
        run(Still(), Wanting([4, 1]), JOBS, 15.0, journal=tmp_path / "j")
        start_s = time.mktime((2035, 1, 1, 0, 0, 0, 0, 0, -1))

        def give(*words, begin=None, until=None, job="a"):
            times = {"--from": begin, "--until": until}
            times = [
                word
                for name, hour in times.items()
                if hour
                for word in (name, f"2035-01-01T{hour}:00")
            ]
            assert cli.main(["set", job, "--journal", str(tmp_path / "j"), *words, *times]) == 0
            orders = JournalOverrides(tmp_path / "j").read().valid
            self.said = capsys.readouterr().out

            def hour(at_s):
                return None if at_s is None else max(0, round((at_s - start_s) / self.HOUR_S))

            return [
                (one.replicas or one.load, hour(one.from_s), hour(one.until_s)) for one in orders
            ]

        return give

    def test_an_event_replaces_events_of_the_job_at_the_same_time_and_no_others(self, faro_set):
        faro_set("--load", "3", begin=14, until=16)
        faro_set("--load", "5", begin=16, until=18)
        faro_set("--load", "4", begin=14, until=16, job="b")
        orders = faro_set("--load", "2", begin=15, until=16)
        assert orders == [(5.0, 16, 18), (4.0, 14, 16), (2.0, 15, 16)]
        assert (
            "instead of job 'a': load x 3 from 2035-01-01 14:00 until 2035-01-01 16:00" in self.said
        )

    def test_a_count_for_later_keeps_the_freeze_until_then(self, faro_set):
        faro_set("--freeze")
        orders = faro_set("--replicas", "9", begin=14, until=16)
        assert orders == [(4, 0, None), (9, 14, 16)]
        assert "instead of" not in self.said

    def test_a_count_replaces_those_within_its_time_and_from_now_on_the_one_in_force(
        self, faro_set
    ):
        faro_set("--replicas", "9", begin=14, until=16)
        assert faro_set("--replicas", "8", begin=13, until=17) == [(8, 13, 17)]
        assert faro_set("--freeze", until=15) == [(8, 13, 17), (4, 0, 15)]
        assert faro_set("--replicas", "7", until=14) == [(8, 13, 17), (7, 0, 14)]

    def test_of_two_counts_the_later_order_is_in_force_while_it_lasts(
        self, faro_set, table, tmp_path, monkeypatch
    ):
        faro_set("--freeze")
        faro_set("--replicas", "9", begin=14, until=16)
        counts = []
        for hour in (13, 15, 17):
            monkeypatch.setattr(
                time, "time", lambda hour=hour: time.mktime((2035, 1, 1, hour, 0, 0, 0, 0, -1))
            )
            counts.append(
                Watched(table, JournalOverrides(tmp_path / "j").read).known.jobs[0].max_replicas
            )
        assert counts == [4, 9, 4]


class TestAJobUnderItsAutoscaler:
    """Its target is maxReplicas of the HPA; --freeze keeps what the HPA asks for."""

    class Bounded(Still):
        replicas = (3, 0)

        def observe(self):
            return replace(super().observe(), replicas=np.array(self.replicas))

    @pytest.fixture
    def path(self, tmp_path):
        run(self.Bounded(), Wanting([12, 12]), JOBS, 15.0, journal=tmp_path / "j")
        return tmp_path / "j"

    def test_it_is_frozen_at_the_replicas_that_are_asked_for(self, path):
        assert cli.main(["set", "a", "--journal", str(path), "--freeze"]) == 0
        assert [one.replicas for one in JournalOverrides(path).read().valid] == [3]

    def test_without_replicas_it_is_refused(self, path, capsys):
        assert cli.main(["set", "b", "--journal", str(path), "--freeze"]) == 2
        assert "job 'b': it has no replica; name a number" in capsys.readouterr().err
