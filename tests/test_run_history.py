"""`faro run --history`: the days that it learns, and the minute of the day at which it starts."""

import importlib
import time

import numpy as np
import pandas as pd
import pytest

from faro_lib import forecast
from faro_lib.control.overrides import Settings
from faro_lib.policies import PolicyContext, make
from faro_lib.recommend.load_history import exported_days
from faro_lib.workload import Job, Traces

run = importlib.import_module("faro_lib.cli.run")  # the package's name `run` is the command
JOBS = (Job("a"),)
MORNING, EVENING = 100, 900  # requests per minute before and after noon


def days(number, minutes=1440):
    usual = np.where(np.arange(minutes) < minutes // 2, MORNING, EVENING)
    return np.random.default_rng(0).poisson(usual, (number, 1, 1, minutes))


def test_the_forecaster_starts_at_the_local_minute_of_the_day():
    counts = days(3)
    context = PolicyContext(JOBS, forecast.fit("ar", Traces(JOBS, counts[:2], counts[2])))
    at_14 = time.mktime((2026, 6, 1, 14, 0, 0, 0, 0, -1))
    state = run.at_time_of_day(make("MArk", context), at_14).start(JOBS)
    assert state.forecaster.minute_of_day == 14 * 60
    assert state.forecaster.mean(5).mean() > 0.7 * EVENING


def test_the_newest_day_of_the_history_is_learnt(tmp_path):
    counts = np.concatenate([days(1, 60) // 10, days(1, 60)])
    day, _, _, minute = np.indices(counts.shape).reshape(4, -1)
    rows = pd.DataFrame({"day": day, "minute": minute, "job": "a", "requests": counts.ravel()})
    rows.to_csv(tmp_path / "days.csv", index=False)
    (tmp_path / "jobs.yaml").write_text("- job: a\n")
    context = run.context_of(Settings(JOBS, {}), str(tmp_path / "days.csv"), "seasonal")
    np.testing.assert_allclose(context.forecaster.mean(5)[0], counts[:, 0, 0, :5].mean(axis=0))


def test_latencies_are_measured_only_for_a_policy_that_uses_them(monkeypatch):
    measured = []
    monkeypatch.setattr("faro_lib.simulate.measure.measure", lambda *_, **__: measured.append("a table"))
    context = run.context_of(Settings(JOBS, {}), None, "auto")
    make("AIAD", context)
    assert measured == []
    make("Faro-Sum", context)
    assert measured == ["a table"]


# --- what controllers have exported to a Prometheus -------------------------------------------------------------------


@pytest.fixture
def exported(monkeypatch):
    """Two local days and half of the third, of job `a` and of a job that is not ours, without one hour."""
    midnight = time.mktime((2026, 6, 1, 0, 0, 0, 0, 0, -1))
    end_s = midnight + 2.5 * 86_400
    monkeypatch.setattr(time, "time", lambda: end_s)

    def read_prometheus(url, query, *, minutes, end_s, token_path):
        counts = np.full((2, minutes), np.nan)
        counts[:, -3600:] = np.resize(days(1)[0, 0, 0], 3600)
        counts[0, -600:-540] = np.nan
        return ("a", "other"), counts

    monkeypatch.setattr("faro_lib.workload.prometheus.read_prometheus", read_prometheus)
    return days(1)[0, 0, 0]


def test_complete_local_days_are_learnt_from_what_controllers_have_exported(exported):
    said = []
    traces = exported_days("http://p:9090", JOBS, report=said.append)
    assert said == []
    assert traces.train.shape == (1, 1, 1, 1440)
    np.testing.assert_array_equal(traces.train[0, 0, 0], exported)  # from midnight to midnight
    context = run.context_of(Settings(JOBS, {}), "prometheus", "seasonal", prometheus="http://p:9090")
    np.testing.assert_allclose(context.forecaster.mean(5)[0], exported[:5])


def test_a_new_job_and_a_server_without_an_answer_are_one_line_and_nothing_is_learnt(exported, monkeypatch):
    said = []
    assert exported_days("http://p:9090", (Job("new"),), report=said.append) is None
    assert said == ["the forecaster starts without earlier days: http://p:9090: no counts of these jobs"]

    def refuse(*_, **__):
        raise ConnectionError("no answer from Prometheus")

    monkeypatch.setattr("faro_lib.workload.prometheus.read_prometheus", refuse)
    assert exported_days("http://p:9090", JOBS, report=said.append) is None
    assert said[1] == "the forecaster starts without earlier days: no answer from Prometheus"


def test_a_history_from_prometheus_needs_its_address():
    with pytest.raises(ValueError, match="history=prometheus needs --prometheus"):
        run.context_of(Settings(JOBS, {}), "prometheus", "auto")
