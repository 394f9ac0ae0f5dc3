"""What `faro recommend` tells an operator: reasons, assumptions, clock times and margins."""

import functools
import json
import re
import sys
from dataclasses import dataclass, fields, replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from faro_lib.experiments.trials import trial_seeds
from faro_lib.policies import Faro, PolicyContext
from faro_lib.policies.faro import tuned
from faro_lib.protocol import hold
from faro_lib.simulate import LIVE, SimulatedCluster
from faro_lib.simulate.measure import measure
from faro_lib.workload import Job, Workload
from faro_ops import cli
from faro_ops.advise.recommend import recommendation, simulated_days, sizing
from faro_ops.advise.recommend.advice import LEAST_GAIN, advise
from faro_ops.advise.recommend.recommendation import Recommendation, recommend
from faro_ops.advise.recommend.simulated_days import SimulatedDays
from faro_ops.advise.recommend.sizing import (
    SEEDS,
    VARIATIONS,
    WORST,
    fixed_replicas,
    required_cores,
    uniform_draws,
    variations,
    violations_by_capacity,
)
from faro_ops.advise.recommend.suspicions import silences
from faro_ops.advise.sources.history import history_from_csv, history_of
from faro_ops.cli.recommend import _text
from faro_ops.jobs_table import assumptions

EXPONENTIAL = (
    Job("ranker", 0.1, 0.99, 0.045, 1.0, model="ranker"),  # p99 of an idle replica is 0.22 s
    Job("moderation", 1.5, 0.95, 0.35, 1.0, model="moderation"),
)
QUIET = lambda line: None  # noqa: E731


@pytest.fixture(scope="module", autouse=True)
def measured_once(coarse_tables):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recommendation, "measure", functools.cache(recommendation.measure))
        yield


@pytest.fixture
def by_formula(monkeypatch):
    """Take latencies from a formula, which needs no time, where the test is not about them."""
    monkeypatch.setattr(recommendation, "measure", lambda jobs, **options: "half-mmc")


def steady(rates_rps, minutes=40):
    """Counts at constant rates, (jobs, minutes)."""
    return np.tile(60.0 * np.array(rates_rps)[:, None], minutes)


@pytest.fixture(scope="module")
def latencies(coarse_tables):
    return measure(EXPONENTIAL, capacity=48, serving_model=LIVE)


@pytest.fixture(scope="module")
def ample(latencies):
    """Advice on 48 cores for jobs that keep 0.6 replicas busy together."""
    return recommend(history_of(EXPONENTIAL, steady([10, 0.3])), 48, report=QUIET).advice


@pytest.mark.parametrize("job", EXPONENTIAL, ids=lambda job: job.name)
def test_replicas_that_only_idle_change_neither_the_latency_nor_the_utility(job, latencies):
    """At 0.3 requests/s; 14 replicas at the lowest measured utilisation have 7 times as many."""
    rate_rps = 0.1 / job.service_time_s
    idle = np.arange(3, 49)
    for measured in (
        latencies.tail_latency_s,
        lambda *at: latencies.expected_utility(*at, "relaxed"),
    ):
        values = measured(job, rate_rps, idle)
        np.testing.assert_allclose(values, values[0], rtol=1e-12)


def test_idle_cores_are_not_spent_on_a_job_that_no_number_of_replicas_satisfies(ample):
    assert not ample.slo_met[0]
    assert (ample.plan.target <= [9, 3]).all()  # at 9 and 3, the utilisation is at most 0.05
    assert "no number of replicas meets it: p99 on an idle replica is" in ample.reason(0)


def test_the_predicted_latency_never_rises_with_the_capacity(latencies):
    policy = tuned(
        PolicyContext(
            EXPONENTIAL, history_of(EXPONENTIAL, steady([10, 0.3])).forecaster(), latencies
        )
    )
    plans = [
        advise(EXPONENTIAL, steady([10, 0.3]), policy, capacity) for capacity in (3, 5, 8, 14, 48)
    ]
    for fewer, more in zip(plans, plans[1:]):
        grown = more.plan.target >= fewer.plan.target
        assert (more.tail_latency_s[grown] <= fewer.tail_latency_s[grown]).all()


def test_every_replica_of_an_ample_plan_has_a_reason_that_costs_something(ample):
    down = ample.plan.marginal_value_down
    added = ample.plan.target > 1
    assert (down[added] >= LEAST_GAIN).all()
    assert "0.000" not in "".join(ample.reason(job) for job in range(2))


def test_the_bounds_on_replicas_hold_in_a_plan_without_small_gains(by_formula):
    jobs = (Job("capped", 0.72, max_replicas=2), Job("floor", 0.72, min_replicas=5))
    target = recommend(history_of(jobs, steady([10, 0.1])), 20, report=QUIET).advice.plan.target
    assert target.tolist() == [2, 5]


def test_milliseconds_in_place_of_seconds_are_named_before_the_plan_and_in_its_reason(by_formula):
    jobs = (Job("ranker", 200, service_time_s=45, model="ranker"), Job("other", 0.72))
    said = []
    advice = recommend(history_of(jobs, steady([10, 1])), 12, report=said.append).advice
    assert said[0] == (
        "ranker: 10.0 requests/s x 45 s keep 450 replicas busy; 12 fit; "
        "service_time_s is in seconds: did you mean 0.045?"
    )
    assert advice.reason(0) == "misses its SLO; the load keeps 450 replicas busy"


DAY = 1440


def timed(path, days=1.0, ends="2026-11-26T17:00", columns="time,job,requests", peak=None):
    """Four hundred requests per minute until `ends`, ten times as many around the time `peak`."""
    times = pd.date_range(end=pd.Timestamp(ends), periods=int(days * DAY) + 1, freq="min")[:-1]
    counts = np.full(len(times), 400)
    if peak:
        counts[np.abs((times - pd.Timestamp(peak)).total_seconds()) < 1800] = 4000
    frame = pd.DataFrame(
        {"time": times.strftime("%Y-%m-%dT%H:%MZ"), "job": "a", "requests": counts}
    )
    frame.set_axis(columns.split(","), axis=1).to_csv(path, index=False)
    return str(path)


def test_a_minute_of_the_last_day_has_a_clock_time(tmp_path):
    history = history_from_csv(timed(tmp_path / "my.csv", days=2))
    assert (history.clock(0), history.clock(DAY - 1)) == ("17:00", "16:59")
    assert history_of((Job("a"),), steady([1])).clock(7) == "minute 7"


@pytest.mark.parametrize("at", ["12:30", "2026-11-26T12:30Z", 19 * 60 + 30])
def test_a_decision_may_be_made_at_a_clock_time(at, tmp_path):
    assert history_from_csv(timed(tmp_path / "my.csv"), at=at).today.shape == (1, 19 * 60 + 30)


def test_a_clock_time_needs_counts_with_times():
    with pytest.raises(
        ValueError, match=r"at='12:30' is not a number, and the counts have no clock times"
    ):
        history_of((Job("a"),), steady([1]), at="12:30")


def test_without_requests_the_predicted_latency_is_that_of_an_idle_replica(latencies):
    counts = steady([0, 0])
    policy = tuned(
        PolicyContext(
            EXPONENTIAL, history_of(EXPONENTIAL, counts).forecaster("persistence"), latencies
        )
    )
    advice = advise(EXPONENTIAL, counts, policy, 12)
    assert (advice.forecast_rps == 0).all()
    assert advice.tail_latency_s[0] == pytest.approx(
        latencies.tail_latency_s(EXPONENTIAL[0], 0.0, 1), rel=0.05
    )
    assert "p99 on an idle replica" in advice.reason(0)


def test_low_rates_are_printed_with_three_digits(ample):
    advice = replace(
        ample, forecast_rps=np.array([0.0123, 12345.6]), prediction_interval_rps=np.zeros((2, 2))
    )
    printed = _text(Recommendation(advice, None))
    assert "0.0123 (0-0)" in printed
    assert "12300 (0-0)" in printed


@pytest.mark.slow
def test_the_output_names_the_simulated_time_the_worst_job_and_what_a_large_cluster_does_not_need(
    tmp_path, capsys
):
    counts = timed(tmp_path / "my.csv", days=0.1, peak="2026-11-26T16:00")
    (tmp_path / "jobs.csv").write_text("job,service_time_s,slo_s\na,0.005,0.2\n")
    arguments = f"--workload {counts} --jobs {tmp_path}/jobs.csv --forecaster persistence".split()
    assert cli.main(["recommend", *arguments, "--capacity", "20", "--curve"]) == 0
    out, err = capsys.readouterr()
    assert "simulating the last 2.4 hours at several capacities" in err
    alone = "fixed replicas, chosen in hindsight, keep the SLOs; .*"
    assert re.search(rf"^\d+ cores .*{alone}\n\d+ cores or more keep", out, re.MULTILINE)
    assert "each job keeps its SLO on each simulated day (the last 2.4 hours)" in out
    assert "% (a: " in out
    assert "service_scv is not given for a: " in err
    assert "cold_start_s is not given for a: " in err


def test_the_replicas_that_serve_now_stand_beside_the_plan(tmp_path, capsys, by_formula):
    rows = [("a", 0, 30, 3), ("a", 1, 30, 0), ("b", 0, 30, 2), ("b", 1, 30, "")]
    pd.DataFrame(rows, columns=["job", "minute", "requests", "replicas"]).to_csv(
        tmp_path / "my.csv", index=False
    )
    arguments = ["recommend", "--workload", str(tmp_path / "my.csv"), "--capacity", "6"]
    assert cli.main(arguments) == 0
    heads, *jobs = (line.split() for line in capsys.readouterr().out.splitlines()[2:5])
    assert heads[:3] == ["job", "now", "replicas"]
    assert [row[:2] for row in jobs] == [["a", "0"], ["b", "2"]]  # the last count that is known
    assert cli.main([*arguments, "--at", "1"]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()[3:5]] == ["3", "2"]


def test_the_replicas_at_an_earlier_time_stand_beside_a_plan_for_that_time(tmp_path):
    path = tmp_path / "my.csv"
    counts = pd.read_csv(timed(path, days=2))
    counts.assign(replicas=range(len(counts))).to_csv(path, index=False)
    assert history_from_csv(str(path)).replicas.tolist() == [2 * DAY - 1]
    assert history_from_csv(str(path), at="16:00").replicas.tolist() == [2 * DAY - 1 - 60]


def late_shares(workload, counts):
    """Each job's share of late requests with these replicas, from latencies with the worst seed."""
    shares = []
    for seed in trial_seeds(SEEDS):
        draws = uniform_draws(workload, seed, LIVE)
        cluster = SimulatedCluster(workload, draws, sum(counts), np.array(counts), LIVE)
        cluster.finish()
        parts = np.split(cluster.latency_s, draws.first[1:-1])
        shares.append([(part > job.slo_s).mean() for part, job in zip(parts, workload.jobs)])
    return np.max(shares, axis=0).tolist()


def test_fixed_replicas_are_the_fewest_that_keep_the_slo_and_none_if_an_idle_replica_is_too_slow():
    jobs = (
        Job("steady"),
        Job("burst", slo_s=1.0),
        Job("slow", slo_s=0.2, service_scv=1.0),
        Job("few", max_replicas=2),
    )
    counts = np.tile([[600], [60], [60], [3000]], 30)
    counts[1, 20] = 1200
    day = Workload(jobs, counts)
    accepted = np.array([0.01, 0.01, 0.01, 0.01])
    now = np.array([2, 3, np.nan, 2])
    replicas, rates, rates_now = fixed_replicas([day], accepted, "half-mmc", LIVE, now)
    assert replicas[2:].tolist() == [0, 0]
    assert rates[2] > 0.01
    enough = [*replicas[:2], 1, 1]
    assert np.round(late_shares(day, enough)[:2], 6).tolist() == rates[:2].tolist()
    assert (rates[:2] <= 0.01).all()
    assert np.isnan(rates_now[2])
    assert rates_now[:2].tolist() == np.round(late_shares(day, [2, 3, 1, 2])[:2], 6).tolist()
    for job in (0, 1):
        assert late_shares(day, [x - (n == job) for n, x in enumerate(enough)])[job] > 0.01


def test_a_job_too_slow_for_its_slo_is_named_and_the_capacity_is_for_the_others(
    tmp_path, capsys, by_formula, monkeypatch
):
    monkeypatch.setitem(sys.modules, "seaborn", None)  # a text needs no package for figures
    counts = [f"{minute},{job},300" for minute in range(40) for job in ("fine", "slow")]
    (tmp_path / "my.csv").write_text("\n".join(["minute,job,requests", *counts]))
    (tmp_path / "jobs.csv").write_text(
        "job,service_time_s,service_scv,slo_s\nfine,0.18,0,0.72\nslow,0.18,1,0.3\n"
    )
    arguments = f"--workload {tmp_path}/my.csv --jobs {tmp_path}/jobs.csv --curve".split()
    assert (
        cli.main(["recommend", *arguments, "--capacity", "8", "--forecaster", "persistence"]) == 3
    )
    out, err = capsys.readouterr()
    assert "no number of replicas keeps the SLO of slow; the capacity is for the other jobs" in err
    assert "meets every SLO" in out
    rows = {
        line.split()[0]: line.split() for line in out.split("fixed replicas")[1].splitlines()[1:3]
    }
    assert rows["slow"][5] == "none"
    assert 1 <= int(rows["fine"][5]) <= 3
    assert "in fixed replicas, chosen in hindsight, keep the SLOs" in out


def searched(monkeypatch, late, **options):
    """The curve of a search for the capacity of one job of which 1 % may be late.

    `late(cores, seed)` is the share that is late.
    """
    simulations = []

    def simulated(policy, size, workload, seed, serving_model, start):
        simulations.append((size, "another day" if policy.name == "another" else seed))
        decisions = SimpleNamespace(running=np.ones((1, 1)))
        return SimpleNamespace(decisions=decisions, late=late(*simulations[-1]))

    monkeypatch.setattr(sizing, "run_with", simulated)
    monkeypatch.setattr(sizing, "_draws", lambda workload, model, seeds: range(seeds))
    monkeypatch.setattr(sizing, "violation_rate_by_job", lambda run: np.array([run.late]))
    monkeypatch.setattr(sizing, "minute_utility", lambda run: np.ones((1, 5)))
    policy = SimpleNamespace(name="Faro")
    workload = Workload((Job("a"),), np.zeros((1, 5), int))
    curve = violations_by_capacity(
        workload, policy, (1, 20), np.array([0.01]), report=QUIET, **options
    )
    return curve, simulations


def test_the_required_capacity_suffices_with_every_seed(monkeypatch):
    """With the first seed, 13 cores suffice; with the third one, 15."""
    curve, simulations = searched(
        monkeypatch, lambda cores, seed: 0.5 if cores < (13, 13, 15)[seed] else 0.001
    )
    assert required_cores(curve) == 15
    assert {seed for cores, seed in simulations if cores == 15} == {0, 1, 2}
    assert curve.loc[curve["capacity_cores"] == 14, "slo_violation_rate"].item() == 0.5
    assert len(set(simulations)) == len(simulations)


def test_most_capacities_that_do_not_suffice_are_simulated_only_once(monkeypatch):
    """The third seed needs most. It is known once all have been simulated at 20 cores."""
    late = {seed: enough / 10_000 for seed, enough in enumerate((13, 13, 15))}
    curve, simulations = searched(
        monkeypatch, lambda cores, seed: 0.5 if cores < (13, 13, 15)[seed] else late[seed]
    )
    assert required_cores(curve) == 15
    assert [cores for cores, seed in simulations[:3]] == [20] * 3
    assert {seed for cores, seed in simulations if cores < 15} == {2}
    assert len(simulations) == 3 + 5 + 2 + 2  # at 20, a bisection, at 15 with others, and below


def test_a_simulation_that_failed_remains_the_first_to_be_tried(monkeypatch):
    """With 16 cores or more, the third seed has the fewest late requests; with fewer, it fails."""
    late = (0.005, 0.004, 0.0)
    curve, simulations = searched(
        monkeypatch, lambda cores, seed: 0.5 if cores < (2, 2, 16)[seed] else late[seed]
    )
    assert required_cores(curve) == 16
    half = [seed for cores, seed in simulations if cores == 8]
    assert half == [2]


def test_a_given_capacity_has_the_worst_of_all_simulations(monkeypatch):
    """It stands beside the fixed replicas, which have the worst of all simulations, too."""
    day = Workload((Job("a"),), np.zeros((1, 5), int)), SimpleNamespace(name="another")
    for at_16 in (0.004, 0.4):
        curve, simulations = searched(
            monkeypatch,
            lambda cores, run, at_16=at_16: at_16 if run == "another day" else 0.0,
            others=[day],
            include=16,
        )
        assert {run for cores, run in simulations if cores == 16} == {0, 1, 2, "another day"}
        assert curve.loc[curve["capacity_cores"] == 16, "slo_violation_rate"].item() == at_16


def test_the_required_capacity_suffices_on_another_day(monkeypatch):
    """On the last day, 9 cores suffice; on the other day, 12."""
    day = Workload((Job("a"),), np.zeros((1, 5), int)), SimpleNamespace(name="another")

    def late(cores, run):
        enough = 12 if run == "another day" else 9
        return 0.5 if cores < enough else 0.0

    curve, simulations = searched(monkeypatch, late, others=[day])
    assert required_cores(curve) == 12
    assert {run for cores, run in simulations if cores == 12} == {0, 1, 2, "another day"}


def test_a_capacity_below_one_that_fails_is_not_required(monkeypatch):
    curve, _ = searched(
        monkeypatch, lambda cores, seed: 0.5 if cores < 9 or cores == 30 else 0.0, include=30
    )
    assert required_cores(curve) > 30


def test_the_search_goes_beyond_fixed_replicas_and_ends(monkeypatch):
    curve, _ = searched(monkeypatch, lambda cores, seed: 0.5 if cores < 33 else 0.0)
    assert required_cores(curve) == 33
    curve, simulations = searched(monkeypatch, lambda cores, seed: 0.5)
    assert required_cores(curve) is None
    assert len(simulations) < 8
    assert curve["capacity_cores"].max() <= 50


def concluded(required, replicas, now=None, more=0.005):
    """The last lines of the text if Faro keeps the SLO of `a` with `required` cores of 4 to 8."""
    rates = [0.0 if required and size >= required else 0.2 for size in (4, 6, 8)]
    curve = pd.DataFrame(
        {"capacity_cores": [4, 6, 8], "slo_violation_rate": rates, "worst_job": "a"}
    )
    curve = curve.assign(accepted_rate=0.01, violation_rates=[{"a": rate} for rate in rates])
    fixed = {
        "job": ["a"],
        "accepted_rate": [0.01],
        "replicas": [replicas],
        "violation_rate": [0.004],
    }
    fixed = pd.DataFrame(fixed | {"violation_rate_now": [np.nan], "minutes": [1440]})
    advice = advise((Job("a"),), steady([10]), tuned(PolicyContext((Job("a"),), persisting())), 8)
    fixed = fixed.assign(replicas_on_all_cores=8, violation_rate_on_all_cores=0.0012)
    cases = pd.DataFrame([["with 20 % more requests", "a", more, 0.01]], columns=["case", *WORST])
    cases = cases.assign(
        fixed_worst_job="a", fixed_slo_violation_rate=0.02, fixed_accepted_rate=0.01
    )
    simulated = SimulatedDays(8, "the last 24 hours", curve, fixed, cases)
    return _text(Recommendation(advice, None, now, simulated)).splitlines()


def persisting():
    return history_of((Job("a"),), steady([10])).forecaster("persistence")


def test_the_last_line_says_how_many_cores_suffice_with_scaling_and_without():
    alike = (
        "both are judged alike: they begin a day with the same replicas, "
        "and each job keeps its SLO on each simulated day (the last 24 hours)"
    )
    alone = "7 cores in fixed replicas, chosen in hindsight, keep the SLOs"
    alone += "; without scaling, set the column `fixed on 8`"
    scaled = (
        "8 cores are enough with fixed replicas, and if Faro scales; "
        "with 20 % more requests, only if Faro scales"
    )
    of_faro = "6 cores or more keep the SLOs if Faro scales"
    assert concluded(6, 7)[-5:-1] == [scaled, alike, alone, of_faro]
    assert concluded(8, 7)[-2].startswith(
        "8 cores or more keep the SLOs if Faro scales; where a load rises"
    )
    without = "8 cores are enough with fixed replicas, but not if Faro scales"
    not_faro = f"{alone}; Faro does not on 8 cores"
    assert concluded(None, 7, more=0.02)[-3:] == [without, alike, not_faro]
    assert concluded(6, 9)[-5] == "8 cores are enough if Faro scales, but not with fixed replicas"
    assert concluded(6, 9)[-3].endswith("keep the SLOs")
    assert concluded(None, 9)[-3] == "8 cores are not enough"


def test_the_last_table_says_what_more_load_does():
    heads, row = concluded(6, 7)[-8:-6]
    assert re.split(r"  +", heads) == [
        "case",
        "worst job if Faro scales on 8 cores",
        "worst job with fixed on 8",
    ]
    assert re.split(r"  +", row) == [
        "with 20 % more requests",
        "50 % (a: 0.5 of 1 %)",
        "200 % (a: 2 of 1 %)",
    ]


@dataclass(frozen=True, slots=True)
class StandingStill(Faro):
    """Faro that changes nothing."""

    def decide(self, state, observation):
        return state, hold(observation)


def test_a_policy_that_changes_nothing_has_exactly_the_figures_of_fixed_replicas():
    """Faro and fixed replicas are judged alike: this policy takes the path of Faro."""
    jobs = (Job("a"), Job("b", slo_s=1.0, quantile=0.95))
    calm, surge = np.full((2, 40), 300.0), np.full((2, 40), 200.0)
    surge[0, 20:24] = 1500.0
    history = history_of(jobs, calm, earlier=np.stack([surge, calm])[:, None])

    def policy_for(past):
        context = PolicyContext(past.jobs, past.forecaster("persistence"), "half-mmc")
        return StandingStill(
            **{field.name: getattr(tuned(context), field.name) for field in fields(Faro)}
        )

    for cores in (5, 12):
        accepted = np.array([0.01, 0.05])
        found = simulated_days.simulate_days(history, policy_for, cores, accepted, LIVE, QUIET)
        (rates,) = found.curve.loc[found.curve["capacity_cores"] == cores, "violation_rates"]
        with_fixed = found.fixed.set_index("job")["violation_rate_on_all_cores"]
        assert rates == with_fixed.to_dict()
        assert (with_fixed["a"] > 0.01) == (cores == 5)
        for name in WORST:
            of_both = found.variations[[name, f"fixed_{name}"]].iloc[:3]
            assert of_both[name].tolist() == of_both[f"fixed_{name}"].tolist()


def test_fixed_replicas_and_faro_are_judged_on_the_same_days_and_others_are_named():
    """Of five earlier days, the three with most load are simulated. The burst of `b` is not."""
    jobs = (Job("a"), Job("b"))
    earlier = np.full((5, 1, 2, 40), 60.0)
    earlier[:3, :, 0, 10:15] = 1500.0
    earlier[4, :, 1, 10:15] = 1200.0
    history = history_of(jobs, np.full((2, 40), 60.0), earlier=earlier)
    days = simulated_days.days_to_simulate(history)
    assert [day.minutes for day in days.every] == [40] * 4
    assert len(days.busiest) == 3
    assert len(days.not_simulated) == 2
    for past, day in zip([*days.busiest, days.last], days.every):
        assert np.array_equal(past.traces.workload().requests_per_min, day.requests_per_min)

    def policy_for(past):
        return tuned(PolicyContext(past.jobs, past.forecaster("persistence"), "half-mmc"))

    said = []
    simulated_days.simulate_days(history, policy_for, 12, np.full(2, 0.01), LIVE, said.append)
    (line,) = [line for line in said if "a recorded day that is not simulated" in line]
    assert re.match(r"with 1 fixed replicas, \d+ % of the requests of b are late", line)


class Halted(Exception):
    """The simulations have begun."""


@pytest.mark.parametrize("capacity", [4, None])
def test_the_plan_is_told_before_the_first_simulation(
    tmp_path, capsys, by_formula, monkeypatch, capacity
):
    """Without --capacity, the plan needs the simulations; a first estimate does not."""
    counts = [f"{minute},a,300" for minute in range(40)]
    (tmp_path / "my.csv").write_text("\n".join(["minute,job,requests", *counts]))

    def begins(*arguments, **options):
        raise Halted

    monkeypatch.setattr(sizing, "worst_rates", begins)
    monkeypatch.setattr(sizing, "run_with", begins)
    arguments = ["recommend", "--workload", str(tmp_path / "my.csv"), "--curve"]
    arguments += ["--forecaster", "persistence"]
    if capacity:
        arguments += ["--capacity", str(capacity)]
    with pytest.raises(Halted):
        cli.main(arguments)
    out, err = capsys.readouterr()
    if capacity:
        assert out.startswith("plan for the next 7 minutes")
        assert out.endswith(
            "of 4 cores used; more replicas would gain a job less than 0.01 utility (1 = SLO met)\n"
        )
    else:
        assert re.search(r"first estimate of the replicas now, .*: a \d \(\d cores\)", err)


def test_json_is_one_document_also_with_a_curve(tmp_path, capsys, by_formula):
    counts = [f"{minute},a,300" for minute in range(40)]
    (tmp_path / "my.csv").write_text("\n".join(["minute,job,requests", *counts]))
    arguments = ["--workload", str(tmp_path / "my.csv"), "--forecaster", "persistence"]
    assert cli.main(["recommend", *arguments, "--capacity", "4", "--curve", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["capacity"] == 4


def test_more_load_and_a_lost_replica_violate_more():
    """1.5 of 2 replicas are busy, 1.8 with 20 % more load; the queue of one alone has no limit."""
    job = Job("a", slo_s=0.5)
    accepted = np.array([0.01])
    day = Workload((job,), np.full((1, 60), 500))
    policy = tuned(PolicyContext((job,), persisting()))
    found = variations(day, policy, 2, np.array([2]), accepted, LIVE)
    assert list(found["case"]) == list(VARIATIONS)
    for column in ("slo_violation_rate", "fixed_slo_violation_rate"):
        recorded, less, more, failed = found[column]
        assert recorded < less < more < failed
        assert failed > 0.5
    overloaded = variations(day, policy, 2, np.array([1]), accepted, LIVE)
    assert overloaded["fixed_slo_violation_rate"].iloc[3] == 1.0


def test_fixed_replicas_suffice_on_every_day():
    jobs = (Job("a"),)
    busy, calm = (Workload(jobs, np.full((1, 30), count)) for count in (1200, 300))
    accepted = np.array([0.01])
    alone = [fixed_replicas([day], accepted, "half-mmc", LIVE)[0].item() for day in (calm, busy)]
    assert alone[0] < alone[1]
    for days in ([busy, calm], [calm, busy]):
        assert fixed_replicas(days, accepted, "half-mmc", LIVE)[0].item() == alone[1]


@pytest.mark.slow
def test_the_earlier_day_with_most_load_is_simulated_and_fixed_replicas_may_use_the_whole_cluster(
    tmp_path, capsys
):
    rows = [
        f"{day},{minute},{job},{count}"
        for day, busy in enumerate((600, 1500, 600))
        for minute in range(40)
        for job, count in (("a", busy), ("b", 60))
    ]
    (tmp_path / "my.csv").write_text("\n".join(["day,minute,job,requests", *rows]))
    arguments = (
        f"--workload {tmp_path}/my.csv --capacity 14 --curve --forecaster persistence"
    ).split()
    assert cli.main(["recommend", *arguments]) == 0
    out, err = capsys.readouterr()
    assert "simulating all 3 days at several capacities" in err
    assert "another day: worst job a" in err
    assert "in fixed replicas, chosen in hindsight, keep the SLOs" in out
    heads, *rows = (
        re.split(r"  +", line.strip()) for line in out.split("\n\n")[4].splitlines()[:3]
    )
    fixed, spent = (
        [int(row[heads.index(head)]) for row in rows] for head in ("fixed replicas", "fixed on 14")
    )
    assert sum(spent) <= 14
    assert all(more >= few for more, few in zip(spent, fixed))


@pytest.mark.slow
def test_a_job_whose_bounds_forbid_enough_replicas_does_not_end_the_search_for_a_capacity(
    by_formula,
):
    """The maximum of a job is its minimum, 3; the smallest capacity holds all minima."""
    pinned = (Job("pinned", min_replicas=3, max_replicas=3), Job("free"))
    said = []
    history = history_of(pinned, np.tile([[3000.0], [60.0]], 40))
    found = recommend(history, 5, with_curve=True, forecaster="persistence", report=said.append)
    assert found.simulated.fixed["replicas"].tolist()[0] == 0
    assert found.simulated.curve["capacity_cores"].min() >= 4
    assert not found.slo_met
    assert any("max_replicas (3)" in line for line in _text(found).splitlines())


def test_the_present_replicas_are_judged_although_the_table_asks_for_more():
    day = Workload((Job("a", min_replicas=3),), np.full((1, 30), 600))
    now = np.array([1.0])
    assert fixed_replicas([day], np.array([0.01]), "half-mmc", LIVE, now)[2].item() > 0.5


@pytest.mark.slow
def test_earlier_days_with_several_samples_are_simulated_too(by_formula):
    """A training day of the generated workload has four samples of its counts, the last one."""
    history = history_of((Job("a"),), np.full((1, 40), 300.0), earlier=np.full((2, 4, 1, 40), 300))
    found = recommend(history, 4, with_curve=True, forecaster="persistence", report=QUIET)
    assert found.simulated.days == "all 3 days"


def test_a_queue_that_grows_without_limit_has_no_latency(by_formula):
    """1.5 replicas are busy: one has no steady latency, although its first minutes have one."""
    advice = recommend(history_of((Job("a"),), steady([1.5 / 0.18])), 8, report=QUIET).advice
    shown = replace(
        advice, one_less_s=np.array([9.0]), plan=replace(advice.plan, target=np.array([2]))
    )
    assert shown.reason(0) == "one less would miss the SLO (unbounded queue)"


def test_a_job_whose_present_replicas_are_unknown_has_a_question_mark():
    heads, row = (
        re.split(r"  +", line) for line in concluded(6, 7, now=np.array([np.nan]))[-13:-11]
    )
    assert row[heads.index("late now")] == "?"
    assert row[heads.index("late with fixed on 8")] == "0.12 %"


def test_a_day_of_many_requests_is_simulated_in_its_busiest_hours(
    tmp_path, capsys, by_formula, monkeypatch
):
    counts = timed(tmp_path / "my.csv", days=1.2, peak="2026-11-26T12:00")
    spans = []
    monkeypatch.setattr(
        sizing, "fixed_replicas", lambda days, *given: spans.append(days[-1].minutes) or 1 / 0
    )
    for most in (simulated_days.MOST_REQUESTS, 100_000):
        monkeypatch.setattr(simulated_days, "MOST_REQUESTS", most)
        with pytest.raises(ZeroDivisionError):
            cli.main(["recommend", "--workload", counts, "--forecaster", "persistence"])
    assert spans == [int(1.2 * DAY), 360]
    assert re.search(
        r"simulating \d\d:\d\d to \d\d:\d\d, the busiest, at several", capsys.readouterr().err
    )


def test_minutes_without_requests_in_a_busy_service_are_named():
    day = np.full(DAY, 100)
    history = history_of(
        (Job("a"), Job("b")),
        np.stack([np.where(np.arange(DAY) // 30 == 20, 0, day), day]),
        earlier=None,
    )
    assert silences(history) == [
        "a: no requests in 30 minutes from minute 600 of day 1 of 1, where 3000 were usual; "
        "if they were not recorded, delete these rows"
    ]


def test_a_job_that_pauses_often_or_has_few_requests_has_no_suspicious_minutes():
    minute = np.arange(DAY)
    pausing = np.where(minute // 60 % 3 == 0, 0, 100)
    rare = (minute % 50 == 0).astype(int)
    history = history_of((Job("pausing"), Job("rare")), np.stack([pausing, rare]))
    assert silences(history) == []


def test_the_bars_follow_the_share_of_the_accepted_violations():
    few, enough, many = (
        line for line in concluded(6, 7) if ("of 1 %)" in line and "█" in line) or "▏" in line
    )
    assert few.split() == ["4", "█" * 40, "2000", "%", "(a:", "20", "of", "1", "%)"]
    assert enough.endswith("▏ 0 % (a: 0 of 1 %)  <- meets every SLO")
    assert many.endswith("▏ 0 % (a: 0 of 1 %)")


def test_assumptions_are_listed_unless_the_table_states_them(tmp_path):
    path = tmp_path / "jobs.csv"
    path.write_text("job,service_time_s,service_scv,cold_start_s\na,0.1,,20\nb,0.1,0.25,20\n")
    assert assumptions(path) == [
        "service_scv is not given for a: constant service times are assumed, "
        "which is optimistic for p99"
    ]
    batches = '{"kind": "batched", "max_batch": 2, "base_s": 0.1}'
    pd.DataFrame(
        {"job": ["a"], "replica": [batches], "service_scv": [0.1], "cold_start_s": [20]}
    ).to_csv(path, index=False)
    assert assumptions(path) == []  # a batch's time is in its replica
    path.write_text("job,model\na,resnet34\nb,resnet18\n")
    assert assumptions(path) == ["cold_start_s is not given for a, b: 35 s is assumed"]
    path.write_text("job,service_time_s,service_std_s,cold_start_s\na,0.1,0.05,20\n")
    assert assumptions(path) == []
    path.write_text("job,service_scv\n" + "".join(f"{name},0.25\n" for name in "abcdef"))
    assert assumptions(path)[-1] == "cold_start_s is not given for a, b, c, 3 more: 35 s is assumed"
