"""Recommendations: replicas with reasons, the capacity that the SLOs need, and exit statuses."""

import functools
import io
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from journal_things import exported
from live_things import Wanting

from faro_lib.experiments.trials import run_trials, trial_seeds
from faro_lib.policies import PolicyContext
from faro_lib.policies.faro import tuned
from faro_lib.simulate import LIVE, SimulatedCluster, draw
from faro_lib.simulate.cluster import PAPER
from faro_lib.utility import predicted_latency
from faro_lib.workload import Job, Traces, Workload, arrays_of
from faro_lib.workload.readers import read_jobs
from faro_lib.workload.shares import fair_share
from faro_lib.workload.synthetic import synthetic
from faro_ops import cli
from faro_ops.advise.recommend import recommendation
from faro_ops.advise.recommend.advice import advise
from faro_ops.advise.recommend.recommendation import recommend
from faro_ops.advise.recommend.simulated_days import SimulatedDays, busiest_part
from faro_ops.advise.recommend.sizing import (
    SEEDS,
    required_cores,
    required_replicas,
    uniform_draws,
    violation_rate_by_job,
    violations_by_capacity,
)
from faro_ops.advise.sources.history import (
    History,
    history_from_csv,
    history_from_journal,
    history_of,
)
from faro_ops.operate.loop.loop import run
from studies.forecast.oracle import Oracle
from studies.traces.files import traces_frame

JOBS = (Job("busy"), Job("idle"))
STEADY = np.tile([[1200.0], [60.0]], 30)  # 20 and 1 requests a second


@pytest.fixture(scope="module", autouse=True)
def measured_once(coarse_tables):
    """Latencies of the same jobs are measured once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recommendation, "measure", functools.cache(recommendation.measure))
        yield


def oracle(counts=STEADY, jobs=JOBS):
    return Oracle(jobs=tuple(job.name for job in jobs), day_minutes=counts.shape[1], truth=counts)


def policy(jobs=JOBS, counts=STEADY):
    return tuned(PolicyContext(jobs, oracle(counts, jobs)), "Sum")


def test_a_busy_job_gets_more_replicas_and_both_meet_their_slo():
    advice = advise(JOBS, STEADY, policy(), 12)
    assert advice.plan.target.sum() <= 12
    assert advice.plan.target[0] >= 5  # 20 requests a second at 0.18 s each keep 3.6 replicas busy
    assert advice.slo_met.all()


def test_where_capacity_is_short_it_says_how_many_replicas_would_meet_the_slo():
    advice = advise(JOBS, STEADY, policy(), 5)
    assert not advice.slo_met[0]
    enough = int(advice.required_replicas[0])
    assert advice.reason(0) == f"misses its SLO; {enough} would meet it"
    assert advise(JOBS, STEADY, policy(), 1 + enough).slo_met.all()


def test_the_required_replicas_are_the_smallest_count_that_meets_the_slo():
    enough = int(advise(JOBS, STEADY, policy(), 5).required_replicas[0])
    assert not advise(JOBS, STEADY, policy(), enough).slo_met[0]


def test_a_job_of_which_the_plan_drops_more_than_its_quantile_allows_misses_its_slo():
    advice = advise(JOBS, STEADY, tuned(PolicyContext(JOBS, oracle()), "PenaltySum"), 4)
    too_many = advice.plan.drop > 1 - arrays_of(JOBS).quantile
    assert too_many.tolist() == [True, False]
    assert not advice.slo_met[too_many].any()


def test_the_forecast_rate_is_the_forecasters():
    np.testing.assert_allclose(advise(JOBS, STEADY, policy(), 12).forecast_rps, [20, 1])


def test_missing_minutes_are_not_zero_in_decisions():
    gap = STEADY.copy()
    gap[:, -3:] = np.nan
    history = history_of(JOBS, gap)
    assert isinstance(history, History)
    assert history.missing == 6
    advice = advise(
        JOBS, history.today, tuned(PolicyContext(JOBS, history.forecaster()), "Sum"), 12
    )
    assert advice.forecast_rps[0] == pytest.approx(20, rel=0.1)


def test_a_long_history_is_split_into_days_that_end_now():
    counts = np.arange(2 * 3000, dtype=float).reshape(2, 3000)
    history = history_of(JOBS, counts)
    assert history.traces.train.shape == (1, 1, 2, 1440)
    np.testing.assert_array_equal(history.today, counts[:, -1440:])


def test_a_job_that_began_36_hours_ago_is_learnt_from_its_first_count():
    counts = np.full((2, 3 * 1440), 1200.0)
    counts[1, : 3 * 1440 - 36 * 60] = np.nan
    assert history_of(JOBS, counts).forecaster().mean(5)[1] == pytest.approx(1200, rel=0.2)


def test_a_history_without_a_single_count_is_refused():
    with pytest.raises(
        ValueError, match="no job has a count in 30 minutes; does the source use the same names"
    ):
        history_of(JOBS, np.full_like(STEADY, np.nan))


def test_two_days_are_not_taken_for_a_single_one():
    two_days = np.random.default_rng(0).poisson(100, (2, 2880)).astype(float)
    assert not history_of(JOBS, two_days).single_day
    assert history_of(JOBS, two_days[:, :1440]).single_day


@pytest.mark.parametrize(
    ("minutes", "days"), [(2159, None), (2160, 1), (3599, 1), (3600, 2), (5040, 3)]
)
def test_a_first_day_of_which_half_is_known_is_a_day(minutes, days):
    history = history_of(JOBS[:1], np.ones((1, minutes)))
    assert history.single_day if days is None else len(history.traces.train) == days


@pytest.mark.parametrize(("at", "minutes"), [("12:00", 2000), ("11:00", 1940)])
def test_a_clock_time_in_a_day_of_more_than_24_hours_is_its_last_one(at, minutes):
    assert history_of(JOBS[:1], np.ones((1, 2000)), at=at, end_minute=12 * 60).today.shape == (
        1,
        minutes,
    )


def test_a_few_minutes_are_enough_for_a_plan_but_not_for_a_simulation():
    history = history_of(JOBS, STEADY[:, :5])
    quiet = lambda line: None  # noqa: E731
    assert (recommend(history, 9, report=quiet).advice.plan.target >= 1).all()
    with pytest.raises(
        ValueError,
        match="5 minutes of counts; a simulation needs at least 23; --capacity needs none",
    ):
        recommend(history, report=quiet)
    with pytest.raises(
        ValueError, match="a forecaster needs at least one day of more than 22 minutes"
    ):
        recommend(history, 9, forecaster="ar", report=quiet)


def test_a_history_without_a_complete_minute_is_refused():
    with pytest.raises(ValueError, match="there is no complete minute of counts yet"):
        history_of(JOBS, STEADY[:, :0])


def test_the_busiest_part_of_a_day_has_the_same_time_in_the_training_days():
    day = np.tile(np.arange(100) % 50, (2, 1))
    traces = Traces(JOBS, day[None, None], day[None])
    part, first = busiest_part(traces, 20)
    assert first in (30, 80)
    np.testing.assert_array_equal(part.train[0, 0][:, :20], part.evaluation[0])


def test_the_busiest_part_of_a_day_is_the_one_with_the_most_work_and_not_the_most_requests():
    day = np.full((2, 100), 10)
    day[0, 10:30], day[1, 70:90] = 1000, 100
    jobs = Job("light", service_time_s=0.01), Job("heavy", service_time_s=0.5, cores=4.0)
    assert (
        busiest_part(Traces(jobs, day[None, None], day[None]), 20)[1] == 60
    )  # the first ten of twenty are a run-up


def test_the_busiest_part_does_not_begin_with_a_burst():
    day = np.full((2, 600), 10)
    day[:, 300:302] = 1000
    first = busiest_part(Traces(JOBS, day[None, None], day[None]), 60)[1]
    assert 300 - 60 <= first <= 300 - 15


def test_there_may_be_no_sufficient_capacity():
    curve = pd.DataFrame({"capacity_cores": [4, 8], "slo_violation_rate": [0.9, 0.2]})
    assert required_cores(curve.assign(accepted_rate=0.1)) is None


def test_a_job_that_keeps_more_than_200_replicas_busy_needs_at_least_as_many():
    job = Job("large", slo_s=0.2, service_time_s=0.18, max_replicas=1000)
    assert required_replicas(Workload((job,), np.array([[1200 * 60]])), "mmc") >= 1200 * 0.18


def test_a_job_whose_slo_no_number_of_replicas_meets_needs_those_that_its_load_keeps_busy():
    job = Job("hopeless", slo_s=0.1, service_time_s=0.18)
    required = required_replicas(Workload((job,), np.array([[0, 600, 1200]])), "mmc")
    assert (required >= [1, 10 * 0.18, 20 * 0.18]).all()
    assert (required <= [1, 4, 8]).all()


def test_a_capacity_meets_the_slos_if_its_own_simulation_does():
    curve = pd.DataFrame(
        {
            "capacity_cores": [4, 8, 12],
            "slo_violation_rate": [0.01, 0.2, 0.0],
            "accepted_rate": 0.05,
        }
    )
    fixed = pd.DataFrame({"replicas": [1]})
    met = [
        SimulatedDays(cores, "", curve, fixed, pd.DataFrame()).slo_met for cores in (2, 4, 8, 12)
    ]
    assert met == [False, True, False, True]


def test_latencies_are_predicted_up_to_twice_the_replicas_that_fit_and_are_allowed(monkeypatch):
    jobs = (Job("few", max_replicas=3), Job("least", min_replicas=2, max_replicas=2))
    tried = []

    def predicted(jobs, rates_rps, replicas, **options):
        tried.append(max(replicas))
        return predicted_latency(jobs, rates_rps, replicas, **options)

    monkeypatch.setattr("faro_ops.advise.recommend.advice.predicted_latency", predicted)
    advice = advise(jobs, STEADY, policy(jobs), 6)
    assert sorted(tried)[:-1] == list(range(7))
    assert advice.reason(0) == "misses its SLO; 5 would meet it"


@pytest.fixture
def counts_csv(tmp_path):
    traces = synthetic(seed=3, jobs=3, days=2, minutes=60)
    table = traces_frame(traces).query("sample == 0")[["day", "minute", "job", "requests"]]
    table.to_csv(tmp_path / "my.csv", index=False)
    return tmp_path / "my.csv"


def test_a_table_on_standard_input_has_the_same_history_as_in_a_file(counts_csv, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(counts_csv.read_text()))
    piped, filed = history_from_csv("-"), history_from_csv(str(counts_csv))
    assert piped.jobs == filed.jobs
    np.testing.assert_array_equal(piped.traces.train, filed.traces.train)
    np.testing.assert_array_equal(piped.today, filed.today)


def test_a_table_of_jobs_with_service_times_makes_models_of_their_own(tmp_path):
    from faro_lib.workload.service import true_service_time

    (tmp_path / "jobs.csv").write_text("job,slo_s,service_time_s\nmine,0.2,0.05\n")
    (job,) = read_jobs(tmp_path / "jobs.csv")
    assert true_service_time(job).mean_s == pytest.approx(0.05)


def test_enough_capacity_is_exit_status_0_and_json_is_one_object(counts_csv, capsys):
    assert cli.main(["recommend", "--workload", str(counts_csv), "--capacity", "24", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["slo_met"]
    assert {row["job"] for row in found["jobs"]} == {"job0", "job1", "job2"}
    assert all(row["slo_met"] and row["reason"] for row in found["jobs"])


def test_too_little_capacity_is_exit_status_3(counts_csv, capsys):
    assert cli.main(["recommend", "--workload", str(counts_csv), "--capacity", "3"]) == 3
    assert "would meet it" in capsys.readouterr().out


@pytest.mark.slow
def test_without_a_capacity_it_takes_that_of_the_simulated_day_and_marks_it(
    counts_csv, tmp_path, capsys
):
    picture = tmp_path / "curve.html"
    arguments = f"--workload {counts_csv} --max-violation-rate 0.05 --plot {picture}".split()
    assert cli.main(["recommend", *arguments]) == 0
    said = capsys.readouterr().out
    assert "meets 5 %" in said
    assert "data:image/png;base64," in picture.read_text()


@pytest.mark.slow
def test_a_rate_that_the_given_capacity_does_not_keep_is_exit_status_3(counts_csv, capsys):
    arguments = f"--workload {counts_csv} --max-violation-rate 0 --curve --capacity 7".split()
    assert cli.main(["recommend", *arguments]) == 3
    assert "<- meets 0 % for every job" in capsys.readouterr().out


def test_a_capacity_suffices_if_every_job_keeps_its_own_slo_and_the_worst_one_is_named():
    """A job at p99.9 beside nine at p99: their mean violation rate hides its own."""
    strict = Job("strict", quantile=0.999)
    jobs = (*(Job(f"plain{n}") for n in range(9)), strict)
    requests = np.full((10, 60), 60)
    requests[-1, 30:] = 600
    workload = Workload(jobs, requests)
    accepted = 1 - arrays_of(jobs).quantile
    learned = policy(jobs, requests.astype(float))
    curve = violations_by_capacity(workload, learned, (10, 26), accepted, report=lambda line: None)
    short = curve[curve["slo_violation_rate"] > curve["accepted_rate"]]
    assert (short["worst_job"] == "strict").any()
    size = int(short["capacity_cores"].max())
    draws = [uniform_draws(workload, seed, PAPER) for seed in trial_seeds(SEEDS)]
    trials = run_trials(workload, {"faro": learned}, size, draws, initial=fair_share(jobs, size))
    rates = [violation_rate_by_job(trial.run) for trial in trials]
    assert any((of_seed > accepted).any() for of_seed in rates)
    # A capacity that does not suffice with one seed is not simulated with the others.
    worst = [of_seed[np.argmax(of_seed / accepted)] for of_seed in rates]
    assert np.abs(short["slo_violation_rate"].iloc[-1] - worst).min() <= 1e-6
    assert required_cores(curve) is None or required_cores(curve) > size


def test_a_single_day_is_its_own_training_day(tmp_path):
    table = pd.DataFrame(
        {"minute": np.repeat(range(40), 2), "job": ["a", "b"] * 40, "requests": 100}
    )
    table.to_csv(tmp_path / "day.csv", index=False)
    history = history_from_csv(str(tmp_path / "day.csv"))
    assert history.single_day
    assert type(history.forecaster()).__name__ == "Recalibrated"


OBSERVED_MINUTES = 40


@pytest.fixture
def observed(tmp_path):
    """A day of which `faro run` saw forty minutes, and the journal that it left."""
    day = synthetic(seed=1, jobs=2, days=3).workload().between(0, OBSERVED_MINUTES + 1)
    draws = draw(day, 1)
    run(
        SimulatedCluster(day, draws, 8, np.array([4, 4])),
        Wanting([4, 4]),
        day.jobs,
        journal=tmp_path / "run.journal",
        until_s=60.0 * OBSERVED_MINUTES + 1,
    )
    by_job = np.split(draws.arrival_s // 60, draws.first[1:-1])
    arrived = np.stack([np.bincount(minute.astype(int))[:OBSERVED_MINUTES] for minute in by_job])
    return day.jobs, arrived, tmp_path / "run.journal"


def test_the_history_of_a_journal_is_what_the_controller_observed(observed, capsys):
    jobs, arrived, journal = observed
    history = history_from_journal(str(journal))
    assert history.jobs == jobs
    np.testing.assert_array_equal(history.today, arrived)
    assert cli.main(["recommend", "--journal", str(journal), "--capacity", "20", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["jobs"]
    assert [(row["job"], row["replicas_now"]) for row in rows] == [(job.name, 4) for job in jobs]


def test_minutes_that_no_tick_of_the_journal_observed_are_missing(observed):
    *_, journal = observed
    minutes = [
        json.loads(line).get("observation", {}).get("minute", 0) for line in exported(journal)
    ]
    kept = [line for line, minute in zip(exported(journal), minutes) if not 10 < minute < 30]
    lines = journal.with_suffix(".jsonl")
    lines.write_text("\n".join(kept) + "\n")
    history = history_from_journal(str(lines))
    unknown = np.isnan(history.today).any(axis=0).nonzero()[0]
    assert unknown.tolist() == [10, 11, 12, 13, 14]  # the next looks back 15


def test_a_table_selects_jobs_of_a_journal_and_an_unknown_one_is_named(observed, tmp_path):
    jobs, arrived, journal = observed
    (tmp_path / "jobs.yaml").write_text(f"- {{job: {jobs[1].name}, slo_s: 0.5}}\n")
    history = history_from_journal(str(journal), str(tmp_path / "jobs.yaml"))
    assert [(job.name, job.slo_s) for job in history.jobs] == [(jobs[1].name, 0.5)]
    np.testing.assert_array_equal(history.today, arrived[1:])
    (tmp_path / "jobs.yaml").write_text("- {job: stranger, slo_s: 0.5}\n")
    with pytest.raises(ValueError, match="'stranger' is not among the jobs of the journal"):
        history_from_journal(str(journal), str(tmp_path / "jobs.yaml"))


FAST = "job,slo_s,service_time_s,max_replicas\nsmall,0.2,0.05,20\nlarge,0.2,0.05,20\n"


@pytest.fixture
def fast(tmp_path):
    """Counts and a table of jobs of 50 ms at 20 and at 120 requests per second."""
    minutes = pd.DataFrame({"minute": np.repeat(range(40), 2), "job": ["small", "large"] * 40})
    minutes.assign(requests=[1200, 7200] * 40).to_csv(tmp_path / "fast.csv", index=False)
    (tmp_path / "jobs.csv").write_text(FAST)
    return ["--workload", str(tmp_path / "fast.csv"), "--jobs", str(tmp_path / "jobs.csv")]


def test_a_job_that_the_published_router_caps_is_named_in_one_line(fast, capsys):
    capped = (
        "the paper's router, one server per job, handles 109 requests/s; "
        "more arrive in the busiest minute of"
    )
    assert cli.main(["recommend", *fast, "--capacity", "12", "--dispatch", "round-robin"]) == 3
    assert [line for line in capsys.readouterr().err.splitlines() if capped in line] == [
        f"{capped} large (120), and more replicas do not help"
    ]
    assert (
        cli.main(["simulate", *fast, "--capacity", "12", "--policy", "FairShare", "--minutes", "2"])
        == 0
    )
    assert f"{capped} large (120)" in capsys.readouterr().err
    cli.main(["recommend", *fast, "--capacity", "12"])
    assert "router" not in capsys.readouterr().err


def test_the_check_of_the_pipeline_names_a_job_that_the_published_router_caps(
    fast, tmp_path, capsys
):
    from faro_pipeline.check import check
    from faro_pipeline.settings import load

    _, counts, _, jobs = fast
    check(
        load(
            {"workload": counts, "jobs": jobs, "results": str(tmp_path), "policies": ["FairShare"]}
        ),
        here=False,
    )
    assert "requests/s; more arrive in the busiest minute of large (120)" in capsys.readouterr().err


def test_the_simulation_serves_each_job_with_its_own_max_ongoing_requests():
    """One request at a time: whatever arrives while a replica serves is dropped."""
    workload = Workload((Job("few"), Job("many")), np.full((2, 30), 200))
    limited = replace(LIVE, own_limits=(("few", 1),))
    learned = policy(workload.jobs, workload.requests_per_min.astype(float))
    options = {"report": lambda line: None}
    accepted = np.full(2, 0.01)
    same, own = (
        violations_by_capacity(workload, learned, (4, 5), accepted, serving_model=model, **options)
        for model in (LIVE, limited)
    )
    assert own["slo_violation_rate"].iloc[0] > same["slo_violation_rate"].iloc[0]
    assert own["worst_job"].iloc[0] == "few"
