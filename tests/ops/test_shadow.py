"""`faro shadow`: a dry run beside an incumbent is scored by what was observed and by simulation."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from faro_lib import forecast
from faro_lib.policies import PolicyContext
from faro_lib.policies.faro import tuned
from faro_lib.simulate import draw
from faro_lib.simulate.cluster import PAPER, SimulatedCluster
from faro_lib.simulate.measure import measure
from faro_lib.workload import Workload
from faro_lib.workload.synthetic import synthetic
from faro_ops import cli
from faro_ops.advise.audit.shadow import plan_scores
from faro_ops.advise.sources.serving_history import serving_from_journal
from faro_ops.journal.reading import read
from faro_ops.operate.loop import loop
from studies.traces.files import write_jobs

MINUTES = 130

pytestmark = pytest.mark.usefixtures("coarse_tables")


@pytest.fixture(scope="module")
def traces():
    return synthetic(seed=2, jobs=3, days=2, minutes=MINUTES)


def dry_run(traces, replicas, path, minutes=MINUTES):
    """The journal of a dry run of Faro beside replicas that never change, on 12 cores."""
    counts = np.full((3, MINUTES), 600)
    counts[0] = 1500
    day = Workload(traces.jobs, counts)
    context = PolicyContext(traces.jobs, forecast.fit("ar", traces), measure(traces.jobs))
    cluster = SimulatedCluster(day, draw(day, 24, router=PAPER.router), 12, np.array(replicas))
    loop.run(cluster, tuned(context), traces.jobs, 60.0 * minutes, apply=False, journal=path)
    return path


@pytest.fixture(scope="module")
def starved(traces, tmp_path_factory):
    """The first service has too little, and the others have too much."""
    return dry_run(traces, [4, 4, 4], tmp_path_factory.mktemp("starved") / "run.journal")


@pytest.fixture(scope="module")
def rows(starved):
    return {row["job"]: row for row in plan_scores(*read(starved), serving_model=PAPER)}


def test_plans_that_serve_a_starved_service_are_better_with_an_interval_below_zero(rows):
    assert rows["all"]["high"] < 0
    assert rows["job0"]["difference"] < -0.3
    assert rows["all"]["low"] <= rows["all"]["difference"] <= rows["all"]["high"]


def test_the_same_journal_can_be_audited(starved):
    serving = serving_from_journal(starved)
    assert serving.replicas.shape[1] == serving.history.today.shape[1] >= MINUTES - 2
    assert np.array_equal(serving.replicas[:, 5], [4, 4, 4])
    assert np.isnan(serving.levels[0]).all()
    assert np.isclose(serving.levels[1], 0.99).all()
    assert np.isfinite(serving.tail_s[1]).mean() > 0.9


def test_the_simulator_reproduces_what_was_observed_at_the_replicas_that_ran(rows):
    for row in rows.values():
        assert row["lost_ran"] == pytest.approx(row["lost_observed"], abs=0.1)


def test_forecasts_and_predictions_are_scored(rows):
    assert 0 <= rows["all"]["coverage"] <= 1
    assert rows["job1"]["latency_ratio"] == pytest.approx(1, abs=0.3)


def test_a_service_from_which_the_plans_take_too_much_is_named(starved, capsys, monkeypatch):
    import faro_ops.advise.audit.shadow as module

    header, ticks = read(starved)
    for one in ticks:
        one.step.target[:] = [6, 2, 4]
    monkeypatch.setattr("faro_ops.journal.reading.with_same_jobs", lambda path: (header, ticks))
    monkeypatch.setattr(module, "TRIALS", 1)
    assert cli.main(["shadow", "x.jsonl"]) == 0
    assert "worse for: job1" in capsys.readouterr().out


def test_json_has_one_object_per_service_and_one_for_all(starved, capsys, monkeypatch):
    import faro_ops.advise.audit.shadow as module

    monkeypatch.setattr(module, "TRIALS", 1)
    assert cli.main(["shadow", str(starved), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["job"] for row in rows] == ["job0", "job1", "job2", "all"]


def test_a_first_plan_within_the_first_scored_minute_is_one_line(starved):
    header, ticks = read(starved)
    first = ticks[0].step.observation.minute + 1
    late = [
        one if one.step.observation.minute >= first else with_plan(one, forecast_rps=None)
        for one in ticks
    ]
    with pytest.raises(ValueError, match="its first plan is missing"):
        plan_scores(header, late, serving_model=PAPER)


def test_first_minutes_without_counts_are_left_out_of_the_score(starved, rows):
    header, ticks = read(starved)
    for one in ticks:
        history = one.step.observation.arrivals_per_min
        history[:, : max(0, 5 - (one.step.observation.minute - history.shape[1]))] = np.nan
    scored = plan_scores(header, ticks, serving_model=PAPER)[-1]
    assert scored["difference"] == pytest.approx(rows["all"]["difference"], rel=0.1)
    assert scored["high"] < 0


def with_plan(one, **changes):
    return replace(one, step=replace(one.step, plan=replace(one.step.plan, **changes)))


def test_replicas_beyond_the_bounds_of_the_jobs_ran_nevertheless(starved, rows):
    header, ticks = read(starved)
    bounded = replace(header, jobs=tuple(replace(job, max_replicas=2) for job in header.jobs))
    scored = plan_scores(bounded, ticks, serving_model=PAPER)
    assert [row["lost_ran"] for row in scored] == [row["lost_ran"] for row in rows.values()]


def test_services_that_scale_to_zero_can_be_scored(starved, monkeypatch):
    header, ticks = read(starved)
    for one in ticks:
        one.step.observation.target[:] = one.step.target[:] = [1, 0, 0]
    monkeypatch.setattr("faro_ops.advise.audit.shadow.TRIALS", 1)
    rows = {row["job"]: row for row in plan_scores(header, ticks, serving_model=PAPER)}
    assert rows["job1"]["lost_ran"] == rows["job1"]["lost_planned"] == 1


def test_minutes_in_which_more_requests_were_dropped_than_the_slo_allows_are_infinitely_late(
    starved, monkeypatch
):
    header, ticks = read(starved)
    for one in ticks:
        one.step.observation.tail_latency_s[0] = np.inf
    monkeypatch.setattr(
        "faro_ops.advise.sources.serving_history.with_same_jobs", lambda path: (header, ticks)
    )
    assert np.isposinf(serving_from_journal("x.jsonl").tail_s[0]).all()


def test_plans_that_are_bounds_of_autoscalers_are_refused_in_one_line(starved, capsys, monkeypatch):
    header, ticks = read(starved)
    bounds = [with_plan(one, floor=np.ones(3, int)) for one in ticks]
    monkeypatch.setattr("faro_ops.journal.reading.with_same_jobs", lambda path: (header, bounds))
    monkeypatch.setattr("faro_ops.advise.audit.shadow.TRIALS", 1)
    assert cli.main(["shadow", "x.jsonl"]) == 2
    said = capsys.readouterr().err
    assert "bounds of autoscalers" in said
    assert said.count("\n") == 1


def test_other_slos_do_not_change_the_quantile_of_the_recorded_latencies(starved, traces, tmp_path):
    write_jobs(tuple(replace(job, quantile=0.5) for job in traces.jobs), tmp_path / "jobs.yaml")
    serving = serving_from_journal(starved, str(tmp_path / "jobs.yaml"))
    assert serving.levels[1].tolist() == [job.quantile for job in traces.jobs]


def test_a_minute_has_the_replicas_that_the_first_tick_after_it_observed(starved):
    _, ticks = read(starved)
    minutes = serving_from_journal(starved).replicas
    first = {one.step.observation.minute: one.step.observation for one in reversed(ticks)}
    last = max(first)
    assert np.array_equal(minutes[:, -1], first[last].running)
