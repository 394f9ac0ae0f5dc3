"""`faro run --history`: the days that it learns, and the minute of the day at which it starts."""

import importlib
import time

import numpy as np
import pandas as pd

from faro_lib import forecast
from faro_lib.control.overrides import Settings
from faro_lib.policies import PolicyContext, make
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
