"""The Bayesian fit: parameter recovery, convergence, reproducibility, and the files it writes."""

import numpy as np
import pytest

from faro_lib.forecast import bayes_forecaster, load_posterior, save_posterior
from faro_lib.forecast.regression import from_root
from faro_lib.workload import Job, Traces
from studies.forecast.scores import coverage, rolling

pytest.importorskip("pymc")
pytest.importorskip("nutpie")

LAGS, SPREADS, NU = (0.9, 0.5), (0.03, 0.08), 5.0


def world(seed=0, days=8, minutes=300):
    """Two jobs, each an AR(1) with Student-t errors around a flat day."""
    rng = np.random.default_rng(seed)
    z = np.zeros((days + 1, 1, 2, minutes + 50))
    for t in range(1, z.shape[-1]):
        z[..., t] = np.array(LAGS) * z[..., t - 1] + np.array(SPREADS) * rng.standard_t(
            NU, (days + 1, 1, 2)
        )
    counts = np.rint(from_root(60 * (1 + z[..., 50:]))).astype(int)
    return Traces((Job("steady"), Job("rough")), counts[:-1], counts[-1])


@pytest.mark.slow
def test_a_fit_of_too_few_draws_is_repeated_once_and_becomes_a_forecaster_without_a_warning(
    tmp_path, recwarn
):
    from studies.bayes import convergence, fit_bayes, posterior_of

    messages = []
    traces = world(days=2, minutes=90)
    options = {"draws": 20, "tune": 40, "chains": 2, "depth": 1}
    idata = fit_bayes(traces, seed=1, **options, progress=messages.append)
    assert idata.sample_stats["n_steps"].max() > 1  # the repeated fit has no limit on its depth
    assert [line.split(" in ")[0] for line in messages] == [
        "model of 2 jobs compiled",
        "fitted",
        "fitted",
    ]
    assert [
        "with 2 x (40 + 20) draws" in messages[1],
        "with 2 x (80 + 40) draws" in messages[2],
    ] == [True, True]
    assert "has not converged and is not used" in messages[2]
    assert [str(warning.message) for warning in recwarn if "BLAS" in str(warning.message)] == []
    made = posterior_of(idata, traces, draws=30)
    save_posterior(made, tmp_path / "posterior.npz")
    assert made.jobs == ("steady", "rough")
    assert made.coefficients.shape[:2] == (30, 2)
    read = load_posterior(tmp_path / "posterior.npz")
    assert read.convergence == convergence(idata)
    ahead = bayes_forecaster(read).update([3600, 3600]).sample(7, 50)
    assert ahead.shape == (2, 50, 7)
    assert 1800 < np.median(ahead) < 7200  # the world's level is 3600


def fit_of(jobs, draws=50):
    """What a fit returns, with random draws."""
    import arviz as az

    rng, of_job = np.random.default_rng(0), (2, draws, len(jobs))
    centres = {"log_spread": -3.0, "follow": 0.3, "nu": 5.0}
    posterior = {name: rng.normal(centre, 0.1, of_job) for name, centre in centres.items()}
    posterior |= {name: rng.normal(0, 0.01, (*of_job, 32)) for name in ("coefficients", "theta")}
    dims = {name: ["job", "feature"][: values.ndim - 2] for name, values in posterior.items()}
    diverging = {"diverging": np.zeros(of_job[:2], bool)}
    return az.from_dict(
        posterior=posterior, sample_stats=diverging, coords={"job": list(jobs)}, dims=dims
    )


def test_a_single_training_day_is_not_expected_to_repeat_minute_by_minute():
    from studies.bayes import posterior_of

    traces = world(days=1, minutes=90)
    assert np.ptp(posterior_of(fit_of(traces.names), traces).shape, axis=1) == pytest.approx(0)


def test_a_job_with_constant_counts_does_not_end_the_forecasts_of_the_others():
    from studies.bayes import posterior_of

    traces = world(days=2, minutes=90)
    counts = [
        np.where([[[True], [False]]], 60, days).astype(int)
        for days in (traces.train, traces.evaluation)
    ]
    traces = Traces(traces.jobs, *counts)
    made = posterior_of(fit_of(traces.names), traces)
    np.testing.assert_allclose(
        made.root_correlation @ made.root_correlation.T, np.eye(2), atol=1e-12
    )
    assert np.isfinite(bayes_forecaster(made).update([60, 3600]).sample()).all()


@pytest.fixture(scope="module")
def fits():
    from studies.bayes import fit_bayes

    options = {"seed": 3, "draws": 1000, "chains": 4}
    return [fit_bayes(world(), **options) for _ in range(2)]


@pytest.mark.slow
def test_the_fit_recovers_the_autoregression_spread_and_tails_of_the_data(fits):
    posterior = fits[0].posterior
    impulse = posterior["coefficients"].sel(feature=14).mean(("chain", "draw")).values
    np.testing.assert_allclose(impulse, LAGS, atol=0.07)
    assert (posterior["nu"].quantile(0.02, ("chain", "draw")) < NU).all()
    assert (posterior["nu"].quantile(0.98, ("chain", "draw")) > NU).all()
    assert (posterior["follow"].mean(("chain", "draw")) < 0.25).all()


@pytest.mark.slow
def test_the_fit_has_converged_at_once(fits):
    from studies.bayes import convergence

    assert convergence(fits[0]).passed
    assert fits[0].posterior.sizes["draw"] == 1000


@pytest.mark.slow
def test_the_same_seed_gives_equal_posterior_arrays(fits):
    for name in fits[0].posterior.data_vars:
        np.testing.assert_array_equal(
            fits[0].posterior[name].values, fits[1].posterior[name].values, err_msg=name
        )


@pytest.mark.slow
def test_prediction_intervals_have_nominal_coverage_on_a_new_day(fits):
    from studies.bayes import posterior_of

    traces = world()
    forecaster = bayes_forecaster(posterior_of(fits[0], traces), recalibrate=False)
    assert coverage(*rolling(forecaster, traces.evaluation[0], n=300)) == pytest.approx(
        0.8, abs=0.07
    )


@pytest.mark.slow
def test_a_saved_posterior_gives_the_same_samples_as_the_fit(fits, tmp_path):
    from studies.bayes import posterior_of

    made = posterior_of(fits[0], world(), draws=50)
    save_posterior(made, tmp_path / "posterior.npz")
    read = load_posterior(tmp_path / "posterior.npz")
    assert read.draws == 50
    np.testing.assert_array_equal(
        *(bayes_forecaster(p, seed=1).update([3000, 3000]).sample() for p in (made, read))
    )


@pytest.mark.slow
def test_a_fit_read_from_netcdf_gives_the_same_posterior(fits, tmp_path):
    import arviz as az

    from studies.bayes import posterior_of

    fits[0].to_netcdf(tmp_path / "posterior.nc")
    again = posterior_of(az.from_netcdf(tmp_path / "posterior.nc"), world())
    np.testing.assert_array_equal(again.coefficients, posterior_of(fits[0], world()).coefficients)


@pytest.mark.slow
def test_a_fit_of_other_jobs_is_refused(fits):
    from studies.bayes import posterior_of

    traces = world()
    others = Traces((Job("steady"), Job("stranger")), traces.train, traces.evaluation)
    with pytest.raises(ValueError, match="stranger"):
        posterior_of(fits[0], others)
