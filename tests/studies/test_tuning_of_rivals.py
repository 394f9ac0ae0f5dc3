"""Rivals are tuned on training days by one function, over grids that hold their optimum inside."""

from dataclasses import replace

import numpy as np
import pytest

from faro_lib import forecast
from faro_lib.experiments.trials import run_trials, trial_draws
from faro_lib.policies import HPA, PolicyContext
from faro_lib.simulate.measure import measure
from faro_lib.workload import Workload
from faro_lib.workload.service import true_service_time
from faro_lib.workload.synthetic import synthetic
from studies.forecast.remembered import remembered
from studies.rivals.autoscalers import RIVALS, Rival, as_measured, hpa
from studies.rivals.tuning import chosen, edges, search, training_days, tune

pytestmark = pytest.mark.usefixtures("coarse_tables")


@pytest.fixture(scope="module")
def traces():
    return synthetic(seed=3, jobs=3, days=3, minutes=40)


@pytest.fixture(scope="module")
def context(traces):
    return PolicyContext(traces.jobs, forecast.fit("ar", traces), measure(traces.jobs))


def valley(x, y):
    return (x - 3) ** 2 + (y - 1) ** 2


def test_the_search_ends_where_no_single_step_lowers_the_loss():
    settings = {"x": (0, 1, 2, 3, 4), "y": (0, 1, 2, 3, 4)}
    tried = search(settings, {"x": 0, "y": 4}, lambda one: valley(**one))
    assert min(tried, key=lambda one: one[1]) == ({"x": 3, "y": 1}, 0)
    assert len(tried) < 25


def test_no_setting_is_tried_twice():
    asked = []
    settings = {"x": (0, 1, 2), "y": (0, 1, 2)}
    tried = search(settings, {"x": 1, "y": 1}, lambda one: asked.append(one) or valley(**one))
    assert len(asked) == len(tried) == len({tuple(one.items()) for one, _ in tried})


def test_a_setting_with_the_least_or_the_largest_value_is_at_the_edge():
    settings = {"x": (1, 2, 3), "delay": (0, 1, 2)}
    assert edges({"x": 1, "delay": 1}, settings) == "x"
    assert edges({"x": 3, "delay": 2}, settings) == "x delay"
    assert edges({"x": 2, "delay": 1}, settings) == ""
    assert edges({"x": 2, "delay": 0}, settings) == "", "no delay is shorter than none"


def test_the_start_of_each_rival_is_in_its_grid_whose_values_ascend():
    for rival in RIVALS.values():
        assert all(list(values) == sorted(values) for values in rival.settings.values())
        assert all(rival.start[name] in values for name, values in rival.settings.items())
    assert RIVALS["RayServe"].settings["ongoing"][0] == 0.25


def test_rivals_are_tuned_with_forecasters_of_the_days_before_and_never_on_the_evaluation_day(
    traces, monkeypatch
):
    seen = []
    fit = forecast.fit
    monkeypatch.setattr(forecast, "fit", lambda name, known: seen.append(known) or fit("ar", known))
    (_, workload), *_ = training_days(traces, [3], None)
    assert [known.days for known in seen] == [2]
    assert (workload.requests_per_min == traces.train[2, 0]).all()
    with pytest.raises(ValueError, match="day=4"):
        training_days(traces, [4], None)


def test_the_chosen_setting_of_a_rival_loses_least_of_all_that_were_tried(traces, context):
    rival = Rival(hpa, {"utilisation": (0.1, 0.5, 0.8)}, {"utilisation": 0.8})
    days = [(context, traces.until(3).workload())]
    table = tune(days, [6, 9], {"HPA": rival}, report=lambda _: None)
    for capacity, part in table.groupby("capacity_cores"):
        assert part["chosen"].sum() == 1
        assert part.loc[part["chosen"], "lost_utility"].item() == part["lost_utility"].min()
        ((name, policy),) = chosen(table, context, capacity, {"HPA": rival})
        best = part.loc[part["chosen"], "utilisation"].item()
        assert (name, policy.policy.utilisation) == ("HPA", best)
    assert table.set_index("utilisation").loc[0.5, "at_edge"].eq("").all()
    assert table.set_index("utilisation").loc[0.1, "at_edge"].eq("utilisation").all()


def test_every_rival_runs_and_has_the_replicas_of_a_steady_load(context):
    jobs = context.jobs
    steady = Workload(jobs, np.full((3, 40), 600))  # 10 requests a second, 1.54 erlangs
    for name, rival in RIVALS.items():
        policy = rival.make(context, **rival.start)
        (trial,) = run_trials(steady, {name: policy}, 30, trial_draws(steady, 1))
        last = np.array(trial.run.decisions.target)[-1]
        assert (last >= 2).all(), name
        if name in ("HPA", "MArk", "Predictive HPA"):  # those that see the rate, not a queue
            assert (last <= 4).all(), name


def test_the_hpa_sees_the_cpu_of_its_replicas_and_not_the_stated_service_time(context):
    (measured, *_) = as_measured(context.jobs)
    assert measured.service_time_s == true_service_time(context.jobs[0]).mean_s
    assert measured.service_time_s != context.jobs[0].service_time_s
    # 50 requests a second keep 7.7 of ten replicas busy, or 9 by the stated time.
    steady = Workload(context.jobs, np.full((3, 30), 3000))
    replicas = []
    for policy in (HPA(), hpa(context)):
        (trial,) = run_trials(steady, {"HPA": policy}, 60, trial_draws(steady, 1))
        replicas.append(np.array(trial.run.decisions.target)[-1].sum())
    assert replicas[1] < replicas[0]


def test_mark_with_a_longer_horizon_prepares_earlier_for_a_rise(traces):
    rise_at = 30  # the minute from which requests are ten times as many on every day
    day = np.where(np.arange(40) < rise_at, 60, 600)
    train = np.broadcast_to(day, traces.train.shape)
    known = replace(traces, train=train, evaluation=np.broadcast_to(day, (1, 3, 40)))
    context = PolicyContext(known.jobs, forecast.fit("seasonal", known), measure(known.jobs))
    workload = known.workload()
    prepared = []  # the minutes at which MArk adds replicas
    for horizon in RIVALS["MArk"].settings["horizon_minutes"]:
        policy = RIVALS["MArk"].make(context, load=0.7, horizon_minutes=horizon)
        (trial,) = run_trials(workload, {"MArk": policy}, 30, trial_draws(workload, 1))
        run = trial.run
        targets = np.array(run.decisions.target)[:, 0]
        ticks = np.flatnonzero(targets > targets[0])
        prepared.append(ticks[0])
    assert prepared == sorted(set(prepared), reverse=True), "each longer horizon is earlier"


def test_a_remembered_forecaster_answers_as_the_forecaster_does_and_once(traces):
    plain = forecast.fit("ar", traces)
    kept = remembered(plain)
    for counts in traces.evaluation[0].T[:20]:
        plain, kept = plain.update(counts), kept.update(counts)
        np.testing.assert_array_equal(plain.sample(7, 20), kept.sample(7, 20))
        np.testing.assert_array_equal(plain.mean(7), kept.mean(7))
    assert kept.sample(7, 20) is kept.sample(7, 20)
    assert kept.update(counts) is kept.update(counts)
    assert kept.update(counts) is not kept.update(counts + 1)
    assert kept.minute_of_day == plain.minute_of_day
