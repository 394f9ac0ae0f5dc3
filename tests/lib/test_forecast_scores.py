"""Scores of forecasts, against closed forms."""

import numpy as np
import pytest
from scipy.stats import norm

from faro_lib.forecast.scores import crps_terms, difference
from faro_lib.workload import Job
from studies.forecast import scores
from studies.forecast import stage as forecast_tables


def normal_forecasts(origins=200, n=4000, spread=1.0, seed=0):
    """A calibrated normal forecast when spread = 1: truth N(m, 1), samples N(m, spread)."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(20, 5, (origins, 2, 3))
    samples = centre[:, :, None] + spread * rng.standard_normal((origins, 2, n, 3))
    return samples, centre + rng.standard_normal(centre.shape)


def test_crps_of_a_normal_is_the_closed_form():
    samples, truth = normal_forecasts(origins=5, n=100_000)
    rng = np.random.default_rng(0)
    z = truth - rng.normal(20, 5, (5, 2, 3))
    exact = z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi)
    np.testing.assert_allclose(crps_terms(samples, truth), exact, atol=0.02)


def test_crps_of_a_point_is_its_absolute_error():
    assert scores.crps(np.full((1, 1, 10, 1), 3.0), np.full((1, 1, 1), 5.0)) == pytest.approx(2)


def test_wql_is_a_sum_over_a_sum_not_a_mean_of_ratios():
    samples = np.zeros((2, 1, 5, 1))
    truth = np.array([[[1.0]], [[99.0]]])
    # A forecast of 0 loses 2 q x at level q; their mean over .1 to .9 is x.
    assert scores.wql(samples, truth) == pytest.approx(1.0)
    samples[1] = 99.0
    assert scores.wql(samples, truth) == pytest.approx(1 / 100)


def test_pinball_of_the_true_quantile_is_the_closed_form():
    samples, truth = normal_forecasts(origins=2000, n=500)
    exact = norm.pdf(norm.ppf(scores.TAIL_LEVELS))
    np.testing.assert_allclose(scores.pinball(samples, truth), exact, rtol=0.05)


def test_rmse_is_that_of_the_mean_and_splits_by_job_and_minute():
    samples, truth = normal_forecasts(origins=2000, n=200)
    assert scores.rmse(samples, truth) == pytest.approx(1.0, abs=0.03)
    assert scores.rmse(samples, truth, by="job").shape == (2,)
    by_minute = scores.rmse(samples, truth, by="minute")
    assert np.sqrt((by_minute**2).mean()) == pytest.approx(scores.rmse(samples, truth))


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_intervals_of_a_calibrated_forecast_have_nominal_coverage(level):
    assert scores.coverage(*normal_forecasts(origins=2000, n=1000), level=level) == pytest.approx(
        level, abs=0.015
    )


def test_the_bootstrap_interval_has_about_nominal_coverage():
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(200):
        # Runs of 8 minutes, mean 0.
        errors = np.convolve(rng.standard_normal(368), np.ones(8) / 8, mode="valid")
        _, low, high = difference(errors, np.zeros_like(errors), block=30, draws=400, seed=trial)
        held += low <= 0 <= high
    assert 0.85 <= held / 200 <= 0.99


def test_a_difference_of_wql_is_the_difference_of_the_wqls():
    samples, truth = normal_forecasts()
    worse, _ = normal_forecasts(spread=3.0)
    gap, low, high = difference(
        scores.wql_terms(samples, truth), scores.wql_terms(worse, truth), truth
    )
    assert gap == pytest.approx(scores.wql(samples, truth) - scores.wql(worse, truth))
    assert low < gap < high < 0


def test_the_oracle_has_no_regret_and_a_worse_forecast_has_more():
    def newsvendor(samples, truth):
        stock = np.quantile(samples, 0.9, axis=1)
        return -float(np.where(truth > stock, 9 * (truth - stock), stock - truth).sum())

    samples, truth = normal_forecasts(n=200)
    assert (forecast_tables.decision_regret(truth[:, :, None], truth, newsvendor) == 0).all()
    good = forecast_tables.decision_regret(samples, truth, newsvendor).mean()
    bad = forecast_tables.decision_regret(samples + 2, truth, newsvendor).mean()
    assert 0 < good < bad


@pytest.mark.parametrize("fields", [{"min_replicas": 5}, {"cores": 6.0}])
def test_the_plans_of_the_regret_hold_the_jobs_minimum_whatever_they_need(fields):
    jobs = tuple(Job(name, **fields) for name in "ab")
    rates = np.full((2, 1, 7), 600.0)
    assert forecast_tables.plans(jobs, 3.2)(rates, rates[:, 0]) > 0


def test_the_score_table_has_a_row_per_job_and_one_for_all():
    table = forecast_tables.score_table(
        "ar", *normal_forecasts(), ["a", "b"], fit_s=1.0, predict_ms=2.0
    )
    assert (
        ",".join(table.columns)
        == "forecaster,job,rmse_per_min,crps_per_min,wql,coverage_80,fit_s,predict_ms"
    )
    assert table["job"].tolist() == ["a", "b", "all"]


def test_samples_are_saved_as_whole_requests(tmp_path):
    samples, truth = normal_forecasts(origins=3, n=4)
    forecast_tables.save_samples(tmp_path / "samples.npz", {"ar": samples}, truth, ["a", "b"])
    with np.load(tmp_path / "samples.npz", allow_pickle=False) as kept:
        np.testing.assert_array_equal(kept["ar"], np.rint(samples))
        assert kept["jobs"].tolist() == ["a", "b"]
