"""Replicas that never change: the best constant counts of the training days."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from observations import observed

from faro_lib import forecast
from faro_lib.experiments.trials import run_trials, trial_draws
from faro_lib.metrics.measures import summarize
from faro_lib.policies import PolicyContext, make
from faro_lib.policies.faro import tuned
from faro_lib.simulate import simulate
from faro_lib.simulate.measure import measure
from faro_lib.utility import predicted_latency, relaxed_utility
from faro_lib.workload import PUBLISHED, Job, Traces
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.tables import load_workload

JOBS = (Job("a"), Job("b", weight=2.0), Job("c", slo_s=0.5, cores=2.0))


@pytest.fixture(scope="module")
def traces():
    counts = np.random.default_rng(7).integers(60, 1500, (3, 3, 60))  # (days, jobs, minutes)
    return Traces(JOBS, counts[:2, None], counts[2:])


def context_of(traces, forecaster="persistence"):
    return PolicyContext(traces.jobs, forecast.fit(forecaster, traces), "mgc", traces)


@pytest.fixture(scope="module")
def static(traces):
    return make("Static", context_of(traces))


def total_utility(traces, replicas) -> float:
    """Weighted sum of the jobs' mean utilities over the training minutes, by the formula itself."""
    rates_rps = traces.train[:, 0].swapaxes(0, 1).reshape(3, -1) / MINUTE_S
    latency_s = predicted_latency(JOBS, rates_rps, replicas, latency_model="mgc")
    utility = [relaxed_utility(of_job, job.slo_s).mean() for of_job, job in zip(latency_s, JOBS)]
    return float(np.dot([job.weight for job in JOBS], utility))


@pytest.mark.parametrize("capacity", [5, 9, 14])
def test_no_other_constant_counts_have_more_utility_on_the_training_days(traces, static, capacity):
    fitting = [n for n in product(range(1, 10), repeat=3) if n[0] + n[1] + 2 * n[2] <= capacity]
    best = max(total_utility(traces, np.array(n)) for n in fitting)
    chosen = static.initial(JOBS, capacity)
    assert chosen @ [1, 1, 2] <= capacity
    assert total_utility(traces, chosen) == pytest.approx(best, abs=1e-6)


def test_the_counts_never_change_whatever_the_load_is(traces, static):
    run = simulate(traces.workload(), static, 9, seed=24)
    assert (np.array(run.decisions.target) == run.initial).all()
    assert run.initial.sum() > len(JOBS)


def test_a_run_that_begins_elsewhere_gets_the_same_counts(static):
    _, plan = static.decide(static.start(JOBS), observed([1, 1, 1], 9.0))
    assert plan.target.tolist() == static.initial(JOBS, 9).tolist()


def test_while_the_capacity_is_too_small_the_counts_are_the_best_for_what_is_left(static):
    state, targets = static.start(JOBS), []
    for capacity in (14.0, 9.0, 3.0, 14.0):
        state, plan = static.decide(state, observed([1, 1, 1], capacity))
        targets.append(plan.target.tolist())
    of_14, of_9 = static.initial(JOBS, 14).tolist(), static.initial(JOBS, 9).tolist()
    assert of_14 != of_9
    assert targets == [of_14, of_9, [1, 1, 1], of_14]


def test_more_capacity_changes_nothing(static):
    state, _ = static.decide(static.start(JOBS), observed([1, 1, 1], 9.0))
    _, plan = static.decide(state, observed([1, 1, 1], 30.0))
    assert plan.target.tolist() == static.initial(JOBS, 9).tolist()


def test_a_job_without_a_minimum_keeps_one_replica(traces):
    idle = replace(JOBS[0], min_replicas=0)
    train = traces.train.copy()
    train[:, :, 0] = 0
    without = replace(traces, jobs=(idle, *JOBS[1:]), train=train)
    assert make("Static", context_of(without)).initial(without.jobs, 9)[0] == 1


def test_without_training_days_one_line_says_so(traces):
    none = context_of(replace(traces, train=traces.train[:0]), "auto")
    with pytest.raises(ValueError, match="policy 'Static' needs training days, and there are none"):
        make("Static", none)
    with pytest.raises(ValueError, match="policy 'Static' needs forecaster"):
        make("Static", PolicyContext(JOBS))


def test_jobs_that_share_replicas_get_as_many_at_home_as_they_would_need_alone(traces, static):
    sharing = tuple(replace(job, cores=1.0, pool="x", models_per_replica=2) for job in JOBS)
    alone = tuple(replace(job, cores=1.0) for job in JOBS)
    pooled = make("Static", context_of(replace(traces, jobs=sharing)))
    expected = make("Static", context_of(replace(traces, jobs=alone))).initial(alone, 9)
    assert pooled.initial(sharing, 9).tolist() == expected.tolist()


class TestFaroThatStartsFromThePast:
    def test_it_begins_with_the_counts_of_static(self, traces, static):
        faro = tuned(context_of(traces), starts_from_past=True)
        assert faro.initial(JOBS, 9).tolist() == static.initial(JOBS, 9).tolist()

    def test_without_training_days_it_begins_with_the_minimum(self, traces):
        none = context_of(replace(traces, train=traces.train[:0]), "auto")
        faro = tuned(none, starts_from_past=True)
        assert faro.initial(JOBS, 9).tolist() == [1, 1, 1]

    def test_by_default_it_begins_with_the_minimum_as_in_the_paper(self, traces):
        assert tuned(context_of(traces)).initial(JOBS, 9).tolist() == [1, 1, 1]


@pytest.fixture(scope="module")
def published():
    traces = load_workload(PUBLISHED)
    forecaster = forecast.fit("persistence", traces)
    return PolicyContext(traces.jobs, forecaster, measure(traces.jobs), traces), traces.workload()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("capacity", "lost"),
    [(36, 0.399), (32, 0.885), (28, 2.101), (24, 3.300), (20, 4.672), (16, 6.021)],
)
def test_standing_still_loses_this_much_on_the_published_day(published, capacity, lost):
    context, day = published
    runs = run_trials(day, {"Static": make("Static", context)}, capacity, trial_draws(day, 3))
    losses = [summarize(trial.run)["lost_utility"] for trial in runs]
    assert np.mean(losses) == pytest.approx(lost, abs=0.0006)
