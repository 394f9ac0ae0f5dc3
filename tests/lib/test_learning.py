"""Service times are learned from latencies: the posterior of a factor, and decisions with it."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from observations import observed

from faro_lib import forecast
from faro_lib.policies import PolicyContext, make
from faro_lib.policies.faro import tuned
from faro_lib.policies.learning import Learned, Learner
from faro_lib.queueing import Formula, service_factor
from faro_lib.queueing.service_factor import FACTORS, mean_factor, relative_error
from faro_lib.queueing.slower import Slower
from faro_lib.simulate import draw, simulate
from faro_lib.simulate.cluster import ServingModel
from faro_lib.simulate.measure import measure
from faro_lib.workload import Job
from faro_lib.workload.synthetic import synthetic

JOB = Job("a", service_time_s=0.1, service_scv=0.2, slo_s=0.4, model="own")
MMC = Formula("mmc")


@pytest.mark.parametrize("name", ["half-mmc", "mmc", "mdc", "mgc"])
def test_a_formula_of_slower_services_is_the_formula_at_their_times(name):
    slower = Slower(Formula(name), {"a": 1.5})
    truth = replace(JOB, service_time_s=0.15)
    rates, replicas = np.linspace(1.0, 40.0, 9)[:, None], np.arange(1, 6)
    expected = Formula(name).tail_latency_s(truth, rates, replicas)
    assert slower.tail_latency_s(JOB, rates, replicas) == pytest.approx(expected)
    assert slower.busy_s(JOB) == pytest.approx(truth.busy_s)
    of_truth = Formula(name).expected_utility(truth, rates, replicas, "relaxed")
    assert slower.expected_utility(JOB, rates, replicas, "relaxed") == pytest.approx(of_truth)


def test_curves_of_slower_services_have_the_load_of_the_assumed_ones():
    jobs = (JOB, replace(JOB, name="b"), replace(JOB, name="c", slo_s=0.8))
    curves = Slower(MMC, {"a": 1.5, "c": 2.0}).curves(jobs, "relaxed", 1.0, 4)
    truth = MMC.curves(
        (replace(JOB, service_time_s=0.15), JOB, replace(jobs[2], service_time_s=0.2)),
        "relaxed",
        1.0,
        4,
    )
    for j, factor in enumerate((1.5, 1.0, 2.0)):
        own, true = curves.of_job[j], truth.of_job[j]
        assert curves.first[own] * factor == pytest.approx(truth.first[true])
        assert curves.last[own] * factor == pytest.approx(truth.last[true])
        assert curves.value[own] == pytest.approx(truth.value[true])


def test_a_measured_table_scales_nearly_exactly():
    no_router = ServingModel(dispatch="least-outstanding")
    truth = replace(JOB, name="truth", service_time_s=0.15)
    table = measure((JOB, truth), (4, 8), serving_model=no_router)
    replicas = np.array([4, 8])
    rates = np.array([[0.3], [0.5], [0.7], [0.85]]) * replicas / truth.busy_s
    scaled = Slower(table, {"a": 1.5}).tail_latency_s(JOB, rates, replicas)
    error = np.abs(scaled / table.tail_latency_s(truth, rates, replicas) - 1)
    assert np.median(error) < 0.03
    assert error.max() < 0.08  # quantiles of single minutes


def minutes_of(factor, rho, minutes, requests_rps=20.0, replicas=2.0):
    """Posterior (1, factors) after minutes whose latency is the formula's at this factor."""
    job = replace(JOB, service_time_s=rho * replicas / requests_rps)
    rate, count = np.array([requests_rps]), np.array([replicas])
    tail_s = Slower(MMC, {"a": factor}).tail_latency_s(job, rate, count)
    weight = service_factor.prior(np.array([0.3]))
    for _ in range(minutes):
        weight = service_factor.drifted(weight, 0.01, np.array([1e-3]))
        likely = service_factor.likelihood(MMC, [job], rate, count, tail_s)
        weight = service_factor.normalised(weight * likely)
    return weight


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.0, 1.25, 1.6])
def test_ten_minutes_of_latencies_tell_the_factor(factor):
    weight = minutes_of(factor, rho=0.5, minutes=10)
    assert mean_factor(weight)[0] == pytest.approx(factor, rel=0.05)
    assert relative_error(weight)[0] < 0.05


def test_a_factor_that_changes_is_learned_again_in_ten_minutes():
    before = minutes_of(1.0, rho=0.5, minutes=120)
    rate, count = np.array([20.0]), np.array([2.0])
    job = replace(JOB, service_time_s=0.05)
    tail_s = Slower(MMC, {"a": 1.5}).tail_latency_s(job, rate, count)
    weight = before
    for _ in range(10):
        weight = service_factor.drifted(weight, 0.01, np.array([1e-3]))
        likely = service_factor.likelihood(MMC, [job], rate, count, tail_s)
        weight = service_factor.normalised(weight * likely)
    assert mean_factor(weight)[0] == pytest.approx(1.5, rel=0.1)


def test_one_strange_minute_changes_little():
    before = minutes_of(1.0, rho=0.5, minutes=30)
    job = replace(JOB, service_time_s=0.05)
    strange = service_factor.likelihood(
        MMC, [job], np.array([20.0]), np.array([2.0]), np.array([50.0])
    )
    after = service_factor.normalised(before * strange)
    assert mean_factor(after)[0] == pytest.approx(mean_factor(before)[0], rel=0.03)


def test_without_evidence_the_factor_becomes_uncertain_again():
    weight = minutes_of(1.25, rho=0.5, minutes=30)
    errors = []
    for _ in range(4):
        errors.append(relative_error(weight)[0])
        for _ in range(60):
            weight = service_factor.drifted(weight, 0.01, np.array([1e-3]))
    assert errors == sorted(errors)
    assert errors[-1] > 3 * errors[0]


def test_a_minute_that_lost_requests_says_that_the_service_is_slower():
    table = measure((Job("a"),), (1, 2))
    busy_s = 1 / table.saturation_rps[0]
    likely = service_factor.likelihood(
        table, [Job("a")], np.array([1.6 / busy_s]), np.array([2.0]), np.array([np.inf])
    )
    assert likely[0, FACTORS > 1.4].min() > 5 * likely[0, FACTORS < 0.9].max()


def learned_from(*, job=JOB, tail_s=0.3, running=(2, 2), drop=0.0, counts=1200.0, minutes=1):
    """What a `Learner` knows after one minute of two ticks."""
    learner, jobs = Learner(), (job,)
    learned = learner.start(jobs)
    for now_s, minute, count in ((50.0, 0, running[0]), (60.0, minutes, running[1])):
        observation = replace(
            observed([count], now_s=now_s),
            minute=minute,
            arrivals_per_min=np.full((1, max(minute, 1)), counts),
            tail_latency_s=np.array([tail_s]),
            drop=np.array([drop]),
        )
        learned = learner.updated(jobs, learned, observation, MMC)
    return learned


PRIOR = learned_from(tail_s=np.nan)


def test_a_complete_minute_is_evidence():
    assert relative_error(learned_from().weight)[0] < relative_error(PRIOR.weight)[0] / 2


@pytest.mark.parametrize(
    "minute",
    [
        dict(tail_s=np.nan),
        dict(counts=0.0),
        dict(counts=np.nan),
        dict(drop=0.5),
        dict(running=(0, 2)),
    ],
    ids=lambda minute: next(iter(minute)),
)
def test_some_minutes_say_nothing(minute):
    assert np.array_equal(learned_from(**minute).weight, PRIOR.weight)


def test_a_minute_in_which_replicas_were_removed_says_less():
    steady = relative_error(learned_from(running=(4, 4)).weight)[0]
    changed = relative_error(learned_from(running=(4, 2)).weight)[0]
    assert steady < changed < relative_error(PRIOR.weight)[0]


def test_minutes_that_were_missed_are_no_evidence_but_pass():
    later = learned_from(minutes=30)
    assert relative_error(later.weight)[0] > relative_error(PRIOR.weight)[0]


def test_the_stated_error_is_the_uncertainty_at_the_start():
    sure, unknown = replace(JOB, service_time_error=0.1), JOB
    start = Learner().start((sure, unknown)).weight
    assert relative_error(start) == pytest.approx([0.1, 0.3], abs=0.01)
    assert mean_factor(start) == pytest.approx(1.0)


def test_a_roll_out_widens_what_is_known_of_its_job_only():
    learned = Learned.start(np.repeat(minutes_of(1.25, 0.5, 30), 2, axis=0))
    after = Learner().changed(learned, np.array([True, False])).weight
    assert relative_error(after[:1])[0] > 0.3
    assert after[1] == pytest.approx(learned.weight[1])


@dataclass(frozen=True)
class Known(Learner):
    """Factors that are known, (jobs,)."""

    of: tuple[float, ...] = ()

    def updated(self, jobs, learned, observation, latency_model):
        return learned

    def factors(self, learned, count):
        return np.repeat(np.array(self.of)[:, None], count, axis=1)


@pytest.fixture(scope="module")
def context():
    traces = synthetic(seed=2, jobs=4, days=2, minutes=60)
    fitted = forecast.fit("ar", traces)
    table = measure(traces.jobs, capacity=16)
    return PolicyContext(traces.jobs, fitted, latency_model=table, traces=traces)


def planned(policy, jobs):
    observation = replace(
        observed([1] * len(jobs)), capacity=12.0, arrivals_per_min=np.full((4, 1), 900.0)
    )
    return policy.decision(policy.start(jobs), observation).plan


def test_known_times_as_assumed_decide_as_without_learning(context):
    plain, known = tuned(context), tuned(context, learner=Known(of=(1.0,) * 4))
    assert planned(known, context.jobs).target.tolist() == (
        planned(plain, context.jobs).target.tolist()
    )


def test_a_slower_service_gets_more_replicas_and_a_faster_one_fewer(context):
    plain = planned(tuned(context), context.jobs)
    known = planned(tuned(context, learner=Known(of=(1.6, 0.6, 1.0, 1.0))), context.jobs)
    assert known.target[0] > plain.target[0]
    assert known.target[1] <= plain.target[1]
    assert known.predicted_tail_latency_s[0] > 1.2 * JOB.service_time_s


def test_decisions_average_over_likely_factors(context):
    policy = tuned(context, learner=Learner(), samples=100)
    jobs, rates = context.jobs, np.full((4, 100, 3), 12.0)
    informed = policy.informed(policy.start(jobs))
    assert len(informed.likely_models) == 5
    table = informed.expected_utilities(jobs, rates, np.ones(4, int), 12.0)
    each = [
        tuned(context, latency_model=model).expected_utilities(
            jobs, rates[:, :20], np.ones(4, int), 12.0
        )
        for model in informed.likely_models
    ]
    for x in (1, 3, 5):
        mean = np.mean([part.value[:, min(x, part.columns)] for part in each], axis=0)
        assert table.value[:, x] == pytest.approx(mean)


def test_wrong_times_cost_little_once_they_are_learned(context):
    """Every other service is 1.6 times slower than assumed, the others 1.6 times faster."""
    workload = context.traces.workload(2)
    factors = np.array([1.6, 1 / 1.6, 1.6, 1 / 1.6])
    draws = draw(workload, 24)
    of_request = np.repeat(factors, np.diff(draws.first))
    draws = replace(draws, service_s=draws.service_s * of_request)

    def lost(policy):
        run = simulate(workload, policy, 12.0, draws=draws)
        utility = np.minimum(1.0, 0.72 / np.maximum(run.tail_latency_s[:, 10:60], 1e-9))
        return 50 * 4 - np.nansum(utility)

    blind, learning = lost(make("Faro-Sum", context)), lost(make("Faro-Sum-learning", context))
    truth = lost(tuned(context, learner=Known(of=tuple(factors))))
    assert learning < blind - 0.5 * (blind - truth)
