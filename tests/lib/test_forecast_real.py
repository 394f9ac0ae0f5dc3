"""Accuracy and coverage on day 11 of the published traces, fitted to days 1 to 10.

The Bayesian forecaster has the recorded posterior; a study fits it anew, which takes minutes.
"""

from pathlib import Path

import numpy as np
import pytest

from faro_lib.forecast import bayes_forecaster, fit, load_posterior
from faro_lib.forecast.scores import crps_terms, difference
from faro_lib.workload.tables import load_workload
from studies.forecast import scores

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[2] / "data"
RAW = DATA / "raw"
RECORDED = DATA / "posterior-paper.npz"
SAMPLES = 1000


@pytest.fixture(scope="module")
def traces():
    if not (RAW / "input.json").exists():
        pytest.skip("the published traces are not in data/raw")
    return load_workload("faro-10jobs", raw=str(RAW))


@pytest.fixture(scope="module")
def judged(traces):
    posterior = load_posterior(RECORDED)
    assert posterior.convergence.passed
    day = traces.evaluation[0]
    made = {name: fit(name, traces) for name in ("persistence", "seasonal", "kalman", "ar")}
    made["bayes"] = bayes_forecaster(posterior)
    paths = {name: scores.rolling(forecaster, day, n=SAMPLES) for name, forecaster in made.items()}
    return {name: samples for name, (samples, _) in paths.items()}, paths["bayes"][1]


@pytest.mark.study
def test_a_new_fit_has_the_coefficients_of_the_recorded_one(traces):
    pytest.importorskip("nutpie")
    from studies.bayes import fit_bayes, posterior_of

    recorded = load_posterior(RECORDED)
    posterior = posterior_of(fit_bayes(traces, seed=0), traces)
    assert posterior.convergence.passed
    away = posterior.coefficients.mean(axis=0) - recorded.coefficients.mean(axis=0)
    assert (np.abs(away) < 0.5 * recorded.coefficients.std(axis=0)).all()


def test_the_rmse_is_below_that_of_least_squares_and_of_the_published_networks(judged):
    paths, truth = judged
    # N-HiTS has 116.2, least squares with daily terms 107.5.
    assert scores.rmse(paths["bayes"], truth) < 107


def test_coverage_is_nominal_over_all_jobs_and_near_it_for_each(judged):
    paths, truth = judged
    assert 0.77 <= scores.coverage(paths["bayes"], truth) <= 0.83
    by_job = scores.coverage(paths["bayes"], truth, by="job")
    assert ((by_job >= 0.7) & (by_job <= 0.9)).all()


@pytest.mark.parametrize(
    ("terms", "weighted"), [(crps_terms, False), (scores.wql_terms, True)], ids=["crps", "wql"]
)
def test_the_bayesian_forecaster_scores_significantly_better_than_every_baseline(
    judged, terms, weighted
):
    paths, truth = judged
    mine = terms(paths["bayes"], truth)
    for name in set(paths) - {"bayes"}:
        _, _, high = difference(mine, terms(paths[name], truth), truth if weighted else None)
        assert high < 0, name


@pytest.mark.parametrize("day", [7, 8, 9, 10])
def test_auto_scores_5_percent_better_than_ar_with_nominal_coverage_on_each_validation_day(
    traces, day
):
    earlier = traces.until(day)
    auto, truth = scores.rolling(fit("auto", earlier), earlier.evaluation[0])
    ar, _ = scores.rolling(fit("ar", earlier), earlier.evaluation[0])
    assert scores.crps(auto, truth) < 0.95 * scores.crps(ar, truth)
    assert 0.77 <= scores.coverage(auto, truth) <= 0.83
