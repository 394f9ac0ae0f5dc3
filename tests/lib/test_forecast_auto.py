"""The default forecaster: what it learns from few or no days, how its weights follow the load."""

from dataclasses import replace

import numpy as np
import pytest
from forecast_worlds import BAD, ar1_posterior, shaped_traces

from faro_lib.forecast import fit, forecasters
from faro_lib.forecast.auto import backtest_terms
from faro_lib.workload import Job, Traces
from studies.forecast.scores import rolling

JOBS = (Job("old"), Job("new"))


def poisson_days(level, days, minutes=120, seed=0):
    """Counts about `level` (jobs,), shape (days, 1, jobs, minutes)."""
    return np.random.default_rng(seed).poisson(
        np.array(level)[:, None], (days, 1, len(level), minutes)
    )


def updated(forecaster, *minutes):
    for counts in minutes:
        forecaster = forecaster.update(counts)
    return forecaster


@pytest.mark.parametrize("kind", sorted(set(forecasters()) - {"bayes", "oracle"}))
def test_minutes_before_the_first_request_are_not_learnt_as_zeros(kind):
    days = poisson_days([200, 200], 3)
    days[0, :, 1] = 0
    days[1, :, 1, :60] = 0
    forecaster = fit(kind, Traces(JOBS, days[:2], days[2]))
    assert forecaster.mean(5)[1] == pytest.approx(200, rel=0.2)


def days_with_late_job(days=5, jobs=3, minutes=120):
    """Traces of a wandering level, and the same with the last job's first request on day 3 of 5."""
    rng = np.random.default_rng(0)
    log_level = np.full((days + 1, 1, jobs, minutes), 6.0)
    for minute in range(1, minutes):
        last = log_level[..., minute - 1]
        log_level[..., minute] = 6 + 0.95 * (last - 6) + 0.15 * rng.standard_normal(last.shape)
    counts = rng.poisson(np.exp(log_level))
    late = counts[:-1].copy()
    late[:3, :, -1] = late[3, :, -1, :60] = 0
    traces = Traces(tuple(Job(f"job{j}") for j in range(jobs)), counts[:-1], counts[-1])
    return traces, replace(traces, train=late)


@pytest.mark.parametrize("kind", ["ar", "structural"])
def test_days_before_the_first_request_do_not_make_a_forecast_more_certain(kind):
    traces, late = days_with_late_job()
    own = replace(traces, train=traces.train[-1:])
    of_late, of_own = (
        backtest_terms(fit(kind, one), traces.evaluation[0])[:, -1].mean() for one in (late, own)
    )
    assert of_late < 1.1 * of_own


def test_a_late_job_does_not_change_the_fit_of_the_others():
    before, after = (fit("structural", traces) for traces in days_with_late_job())
    for name in ("step", "noise", "level", "variance", "profile"):
        np.testing.assert_array_equal(getattr(after, name)[:-1], getattr(before, name)[:-1])
        assert (getattr(after, name)[-1] != getattr(before, name)[-1]).any()


def test_a_job_without_a_request_on_any_training_day_is_forecast_at_the_level_of_the_others():
    days = poisson_days([200, 0], 3)
    assert fit("auto", Traces(JOBS, days[:2], days[2])).mean(5)[1] == pytest.approx(200, rel=0.2)


def test_without_training_days_a_job_without_counts_does_not_change_the_forecast_of_the_others():
    traces = Traces(JOBS, np.zeros((0, 1, 2, 120), int), np.zeros((1, 2, 120), int))
    forecaster = updated(fit("auto", traces), *[[200, np.nan]] * 5)
    known = updated(fit("auto", traces), *[[200, 7]] * 5)
    np.testing.assert_allclose(forecaster.mean()[0], known.mean()[0], rtol=0.05)
    assert 50 < np.median(forecaster.sample()[1]) < 500


def test_without_training_days_and_counts_there_is_no_forecast():
    traces = Traces(JOBS, np.zeros((0, 1, 2, 120), int), np.zeros((1, 2, 120), int))
    with pytest.raises(ValueError, match="no complete minute has been counted yet"):
        fit("auto", traces).update([np.nan, np.nan]).sample()


def test_a_single_training_day_is_not_taken_for_a_daily_profile():
    days = np.repeat(np.arange(120) % 60 < 30, 1)[None, None, None] * 300 + poisson_days(
        [100, 100], 2
    )
    for kind in ("ar", "auto"):
        forecaster = fit(kind, Traces(JOBS, days[:1], days[1])).start(45)
        forecaster = updated(forecaster, *[[400, 400]] * 14)
        # Minute 59 of the training day had 100 and minute 0 had 400.
        assert forecaster.mean(1)[0, 0] > 300


def test_the_first_weights_are_those_of_a_backtest_on_the_last_training_day():
    traces = shaped_traces()
    mixture = fit("auto", traces).inner
    earlier = traces.until(traces.days)
    scores = [
        backtest_terms(fit(name, earlier), earlier.evaluation[0]).mean(axis=0)
        for name in mixture.names
    ]
    np.testing.assert_array_equal(mixture.backtest, scores)
    np.testing.assert_array_equal(mixture.weights().argmax(axis=0), np.argmin(scores, axis=0))


def test_a_forecaster_that_has_become_worse_loses_its_weight():
    days = poisson_days([200, 200], 4)
    mixture = updated(
        fit("auto", Traces(JOBS, days[:3], days[3])), *[[200, 200]] * 20, *[[450, 200]] * 15
    ).inner
    shape_following = mixture.weights()[
        [mixture.names.index(name) for name in ("ar", "seasonal")]
    ].sum(axis=0)
    assert shape_following[0] < 0.05
    assert shape_following[1] > 0.2


def test_weights_sum_to_1_even_if_the_estimate_of_a_crps_is_negative():
    mixture = fit("auto", shaped_traces()).inner
    score = np.where(np.arange(len(mixture.members))[:, None] == 1, -0.01, 1.0) * np.ones(
        len(mixture.jobs)
    )
    weights = replace(mixture, score=score).weights()
    np.testing.assert_allclose(weights.sum(axis=0), 1)
    np.testing.assert_allclose(weights[1], 1)


def test_a_posterior_adds_the_bayesian_forecaster():
    traces = shaped_traces()
    mixture = fit("auto", traces, posterior=ar1_posterior(day_minutes=120, traces=traces)).inner
    assert mixture.names == ("ar", "persistence", "poisson", "structural", "seasonal", "bayes")


def test_the_bayesian_forecaster_weighs_as_much_as_all_others_together_where_all_score_alike():
    traces = shaped_traces()
    mixture = fit("auto", traces, posterior=ar1_posterior(day_minutes=120, traces=traces)).inner
    alike = replace(mixture, score=np.ones_like(mixture.score))
    np.testing.assert_allclose(alike.weights()[:, 0], [0.1] * 5 + [0.5])


def test_a_posterior_that_has_not_converged_is_left_out_with_one_warning(caplog):
    traces = shaped_traces()
    mixture = fit(
        "auto", traces, posterior=ar1_posterior(day_minutes=120, traces=traces, convergence=BAD)
    ).inner
    assert mixture.names == ("ar", "persistence", "poisson", "structural", "seasonal")
    assert [record.message for record in caplog.records] == [str(BAD)]


def test_a_posterior_of_other_training_days_is_refused():
    traces = shaped_traces()
    with pytest.raises(
        ValueError, match=r"posterior of job 'job0' was fitted to other training days"
    ):
        fit("auto", shaped_traces(seed=1), posterior=ar1_posterior(day_minutes=120, traces=traces))


def test_the_table_of_scores_has_a_row_for_each_member_and_job():
    table = fit("auto", shaped_traces(jobs=3)).inner.table()
    assert table.columns.tolist() == ["job", "forecaster", "backtest_crps", "weight"]
    assert table.groupby("job")["weight"].sum().tolist() == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("level", [0.2, 2.0])
def test_intervals_of_a_job_with_few_requests_have_at_least_nominal_coverage(level):
    days = poisson_days([level, 300], 4, minutes=360)
    samples, truth = rolling(fit("auto", Traces(JOBS, days[:3], days[3])), days[3, 0])
    low, high = np.quantile(samples[:, 0], [0.1, 0.9], axis=1)
    assert ((truth[:, 0] >= low) & (truth[:, 0] <= high)).mean() > 0.78
    assert high.mean() < level + 3 * np.sqrt(level)


def test_unknown_minutes_before_the_first_count_are_no_failure():
    jobs = (Job("a"), Job("b"))
    none = np.zeros((0, 1, 2, 1440), int)
    forecaster = fit("auto", Traces(jobs, none, np.zeros((1, 2, 1440), int)))
    for _ in range(15):
        forecaster = forecaster.update([np.nan, np.nan])
    with pytest.raises(ValueError, match="no complete minute has been counted yet"):
        forecaster.sample()
    assert forecaster.update([60, np.nan]).sample().shape[0] == 2
