"""`faro run --history`: the days that it learns, and the minute of the day at which it starts."""

import os
import time

import numpy as np
import pandas as pd
import pytest
from journal_things import exported as lines_of
from live_things import Wanting
from observations import observed

from faro_lib import forecast
from faro_lib.control import Step
from faro_lib.policies import PolicyContext, make
from faro_lib.protocol import hold
from faro_lib.workload import Job, Traces
from faro_ops.journal import reading, ticks, writing
from faro_ops.operate.clock import Clock
from faro_ops.operate.controller.model import Source, at_time_of_day, context_of
from faro_ops.operate.loop.loop import run
from faro_ops.operate.memory.overrides import Settings
from faro_ops.protocol import LiveGuardrails
from faro_ops.recorded_days import exported_days, journal_days

JOBS = (Job("a"),)
MORNING, EVENING = 100, 900  # requests per minute before and after noon


def days(number, minutes=1440):
    usual = np.where(np.arange(minutes) < minutes // 2, MORNING, EVENING)
    return np.random.default_rng(0).poisson(usual, (number, 1, 1, minutes))


def test_the_forecaster_starts_at_the_local_minute_of_the_day():
    counts = days(3)
    context = PolicyContext(JOBS, forecast.fit("ar", Traces(JOBS, counts[:2], counts[2])))
    at_14 = time.mktime((2026, 6, 1, 14, 0, 0, 0, 0, -1))
    state = at_time_of_day(make("MArk", context), at_14).start(JOBS)
    assert state.forecaster.minute_of_day == 14 * 60
    assert state.forecaster.mean(5).mean() > 0.7 * EVENING


@pytest.fixture
def july_in_berlin(monkeypatch):
    """The Unix time of 14:30 on a summer day in Berlin, which is now."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    now_s = time.mktime((2026, 7, 15, 14, 30, 0, 0, 0, -1))
    localtime = time.localtime
    monkeypatch.setattr(
        time, "localtime", lambda at_s=None: localtime(now_s if at_s is None else at_s)
    )
    yield now_s
    monkeypatch.undo()
    time.tzset()


def test_a_run_that_began_in_winter_knows_the_summer_time(july_in_berlin):
    counts = days(3)
    context = PolicyContext(JOBS, forecast.fit("ar", Traces(JOBS, counts[:2], counts[2])))
    origin_s = time.mktime((2026, 1, 15, 9, 0, 0, 0, 0, -1))
    start = at_time_of_day(make("MArk", context), origin_s).start(JOBS).forecaster.minute_of_day
    assert (start + (july_in_berlin - origin_s) // 60) % 1440 == 14 * 60 + 30


def test_the_newest_day_of_the_history_is_learnt(tmp_path):
    counts = np.concatenate([days(1, 60) // 10, days(1, 60)])
    day, _, _, minute = np.indices(counts.shape).reshape(4, -1)
    rows = pd.DataFrame({"day": day, "minute": minute, "job": "a", "requests": counts.ravel()})
    rows.to_csv(tmp_path / "days.csv", index=False)
    (tmp_path / "jobs.yaml").write_text("- job: a\n")
    model = Source(str(tmp_path / "days.csv"), "seasonal").model(JOBS)
    np.testing.assert_allclose(model.mean(5)[0], counts[:, 0, 0, :5].mean(axis=0))


def test_latencies_are_measured_only_for_a_policy_that_uses_them(monkeypatch):
    measured = []
    monkeypatch.setattr(
        "faro_lib.simulate.measure.measure", lambda *_, **__: measured.append("a table") or "mgc"
    )
    context = context_of(Settings(JOBS, {}), Source().model(JOBS))
    make("AIAD", context)
    assert measured == []
    make("Faro-Sum", context)
    assert measured == ["a table"]


@pytest.fixture
def berlin(monkeypatch):
    """The local time zone is that of Berlin."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(("month", "day"), [(3, 31), (10, 27)])  # two days after the clocks changed
@pytest.mark.parametrize("source", ["prometheus", "journal"])
def test_days_before_the_clocks_changed_are_learnt_by_the_local_time_of_day(
    berlin, monkeypatch, tmp_path, month, day, source
):
    end_s = time.mktime((2026, month, day, 0, 15, 0, 0, 0, -1))
    begin_s = time.mktime((2026, month, day - 5, 0, 0, 0, 0, 0, -1))
    minutes = 15 * round((end_s - begin_s) / 900)
    wall_s = end_s + 60.0 * np.arange(-minutes, 0)
    hours = np.array([[float(time.localtime(one).tm_hour) for one in wall_s]])
    monkeypatch.setattr(time, "time", lambda: end_s)
    if source == "prometheus":
        monkeypatch.setattr(
            "faro_ops.recorded_days.read_prometheus", lambda *_, **__: (("a",), hours)
        )
        traces = exported_days("http://p:9090", JOBS)
    else:
        path = tmp_path / "journal"
        with writing.Journal(path) as written:
            origin_s = int(end_s) - 60 * minutes
            header = ticks.Header("x", JOBS, LiveGuardrails(), 60.0, True, origin_s=origin_s)
            written.begin(header)
            for minute in range(15, minutes + 1, 15):
                seen = observed(
                    [1],
                    now_s=60.0 * minute,
                    minute=minute,
                    arrivals_per_min=hours[:, minute - 15 : minute],
                )
                written.tick(Step(seen, hold(seen), seen.target, 0.0), None)
        traces = journal_days(str(path), JOBS)
    learnt = [*traces.train[:, 0, 0], traces.evaluation[0, 0]]
    assert len(learnt) >= 4
    of_day = np.repeat(np.arange(24), 60)
    for one in learnt:
        np.testing.assert_array_equal(one[:120], of_day[:120])  # up to the change at 2:00 or 3:00
        np.testing.assert_array_equal(one[180:], of_day[180:])


# --- what controllers have exported to a Prometheus -----------------------------------------------


@pytest.fixture
def exported(monkeypatch):
    """Two and a half local days without one hour, of job `a` and of a job that is not ours."""
    midnight = time.mktime((2026, 6, 1, 0, 0, 0, 0, 0, -1))
    end_s = midnight + 2.5 * 86_400
    monkeypatch.setattr(time, "time", lambda: end_s)

    def read_prometheus(url, query, *, minutes, end_s, token_path):
        counts = np.full((2, minutes), np.nan)
        counts[:, -3600:] = np.resize(days(1)[0, 0, 0], 3600)
        counts[0, -600:-540] = np.nan
        return ("a", "other"), counts

    monkeypatch.setattr("faro_ops.recorded_days.read_prometheus", read_prometheus)
    return days(1)[0, 0, 0]


def test_complete_local_days_are_learnt_from_what_controllers_have_exported(exported):
    traces = exported_days("http://p:9090", JOBS)
    assert traces.train.shape == (1, 1, 1, 1440)
    np.testing.assert_array_equal(traces.train[0, 0, 0], exported)  # from midnight to midnight
    model = Source("prometheus", "seasonal", prometheus="http://p:9090").model(JOBS)
    np.testing.assert_allclose(model.mean(5)[0], exported[:5])


def test_only_what_controllers_of_the_same_namespace_have_exported_is_learnt(monkeypatch):
    queries = []

    def read_prometheus(url, query, **_):
        queries.append(query)
        raise ConnectionError("no answer")

    monkeypatch.setattr("faro_ops.recorded_days.read_prometheus", read_prometheus)
    Source("prometheus", prometheus="http://p:9090", namespace="faro").model(JOBS)
    Source("prometheus", prometheus="http://p:9090").model(JOBS)
    assert queries == [  # a Prometheus may not give its series that label
        'max by (inference_job) (faro_arrivals_per_minute{namespace=~"faro|"})',
        'max by (inference_job) (faro_arrivals_per_minute{namespace=~".*|"})',
    ]


def test_a_new_job_and_a_server_without_an_answer_are_one_line_and_nothing_is_learnt(
    exported, monkeypatch, capsys
):
    source = Source("prometheus", prometheus="http://p:9090")
    assert source.model((Job("new"),)).inner.names == ("kalman", "poisson")
    assert (
        capsys.readouterr().err
        == "nothing is learnt from earlier days: http://p:9090: no counts of these jobs\n"
    )

    def refuse(*_, **__):
        raise ConnectionError("no answer from Prometheus")

    monkeypatch.setattr("faro_ops.recorded_days.read_prometheus", refuse)
    assert source.model(JOBS).inner.names == ("kalman", "poisson")
    assert (
        capsys.readouterr().err
        == "nothing is learnt from earlier days: no answer from Prometheus\n"
    )


@pytest.mark.parametrize(
    ("history", "reason"),
    [
        ("prometheus", "history=prometheus needs --prometheus"),
        ("journal", "history=journal needs --journal"),
    ],
)
def test_a_history_needs_its_place(history, reason):
    with pytest.raises(ValueError, match=reason):
        Source(history)


# --- what this controller has written to its journal ----------------------------------------------


class Counting:
    """A cluster whose jobs have as many requests as the minute's number; time passes at once."""

    def __init__(self, jobs):
        self.jobs = jobs
        self.now_s = 0.0

    def advance(self, until_s):
        self.now_s = At.now_s = until_s

    def observe(self):
        minute = int(self.now_s // 60)
        counts = np.tile(np.arange(max(0, minute - 15), minute), (self.jobs, 1))
        return observed(
            [1] * self.jobs, now_s=self.now_s, minute=minute, arrivals_per_min=counts.astype(float)
        )

    def apply(self, target, drop):
        pass


class At(Clock):
    """A clock that never waits: it has the time of the last tick."""

    now_s = 0.0

    def wait_until(self, trace_s, lag_s=0.0):
        pass


def test_complete_local_days_are_learnt_from_the_journal_across_a_change_of_the_jobs(tmp_path):
    midnight = int(time.mktime((2026, 6, 1, 0, 0, 0, 0, 0, -1)))
    path = tmp_path / "j"
    first = JOBS
    both = (*JOBS, Job("b"))
    ticks = dict(clock=At(midnight - 120 * 60), journal=path)
    run(Counting(1), Wanting([1], tick_s=600.0), first, 86_400.0, **ticks)
    run(
        Counting(2),
        Wanting([1, 1], tick_s=600.0),
        both,
        51 * 3600.0,
        **ticks,
        changes=("job 'b': added",),
    )
    assert len(reading.parts(path)) == 2
    known = journal_days(path, both)
    days = np.concatenate([known.train, known.evaluation[None]])[:, 0]
    assert days.shape == (2, 2, 1440)  # without the first two hours, from 22:00
    np.testing.assert_array_equal(days[:, 0].ravel(), np.arange(120, 120 + 2880))
    assert (days[0, 1] == 0).sum() > 1200  # before the job was there


def test_a_damaged_file_from_more_than_a_week_ago_does_not_matter_to_what_is_learnt(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(At, "now_s", 0.0)
    path = tmp_path / "j"
    clock = At(int(time.mktime((2026, 6, 1, 0, 0, 0, 0, 0, -1))))
    run(Counting(1), Wanting([1], tick_s=900.0), JOBS, 25 * 3600.0, clock=clock, journal=path)
    file = path / "000000-2026-05-20.db"
    file.write_bytes(b"damaged")
    os.utime(file, (time.time() - 9 * 86_400,) * 2)
    np.testing.assert_array_equal(journal_days(path, JOBS).evaluation[0, 0], np.arange(1440))


def test_ticks_before_the_clock_of_the_journal_began_anew_do_not_stop_what_is_learnt(
    tmp_path, monkeypatch
):
    midnight = int(time.mktime((2026, 6, 1, 0, 0, 0, 0, 0, -1)))
    path = tmp_path / "j"
    monkeypatch.setattr(At, "now_s", 0.0)
    run(
        Counting(1),
        Wanting([1], tick_s=900.0),
        JOBS,
        30 * 3600.0,
        clock=At(midnight - 86_400),
        journal=path,
    )
    monkeypatch.setattr(At, "now_s", 0.0)
    run(
        Counting(1),
        Wanting([1], tick_s=900.0),
        JOBS,
        25 * 3600.0,
        clock=At(midnight),
        journal=tmp_path / "later",
    )
    path = tmp_path / "both.jsonl"
    lines = [*lines_of(tmp_path / "j"), *lines_of(tmp_path / "later")]
    path.write_text("\n".join(lines) + "\n")
    np.testing.assert_array_equal(journal_days(path, JOBS).evaluation[0, 0], np.arange(1440))


def test_days_from_before_the_clock_was_set_back_are_still_learnt(tmp_path, monkeypatch):
    midnight = int(time.mktime((2026, 6, 1, 0, 0, 0, 0, 0, -1)))
    path = tmp_path / "j"
    monkeypatch.setattr(At, "now_s", 0.0)
    tick_s, until_s = 900.0, 30 * 3600.0
    run(Counting(1), Wanting([1], tick_s=tick_s), JOBS, until_s, clock=At(midnight), journal=path)
    run(
        Counting(1),
        Wanting([1], tick_s=tick_s),
        JOBS,
        50 * 3600.0,
        clock=At(midnight - 3600),
        journal=path,
        changes=("the clock was set back",),
    )
    known = journal_days(path, JOBS)
    counts = np.concatenate([known.train, known.evaluation[None]])[:, 0, 0].ravel()
    np.testing.assert_array_equal(counts, np.arange(60, 60 + len(counts)))
    assert len(counts) == 2 * 1440


def bursty_log(path, pairs: bool) -> None:
    """A log of a day with a request of `a` every 30 s, or ten of them every 300 s; and one of b."""
    every_s = 300 if pairs else 30
    lines = ["time,job"]
    for at in range(0, 86_400, every_s):
        lines += [f"{1_768_435_200 + at + n / 10:.1f},a" for n in range(10 if pairs else 1)]
    lines.append(f"{1_768_435_200 + 86_399},b")
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("pairs", [False, True])
def test_jobs_of_a_run_have_the_bursts_of_the_log_it_learns_from(tmp_path, pairs, capsys):
    log = tmp_path / "log.csv"
    bursty_log(log, pairs)
    read = Source(str(log)).with_bursts(lambda _: JOBS)
    (job,) = read(tmp_path / "jobs.yaml")
    assert job.bursty is pairs
    assert ("Predictions include the bursts" in capsys.readouterr().err) is pairs
    if pairs:
        assert job.dispersion_10s == pytest.approx(10, rel=0.2)
    stated = JOBS[0].with_dispersion((4.0, 4.0, 4.0))
    assert Source(str(log)).with_bursts(lambda _: (stated,))(tmp_path) == (stated,)


def test_the_table_of_a_run_without_a_log_is_read_as_it_is(tmp_path):
    def read(_):
        return JOBS

    for history in (None, "journal", str(tmp_path / "counts.csv")):
        assert Source(history, journal="j").with_bursts(read) is read
