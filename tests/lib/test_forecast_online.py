"""The Bayesian forecaster online, against worlds whose truth is known."""

import dataclasses

import numpy as np
import pytest
from forecast_worlds import BAD, GOOD, ar1_day, ar1_posterior, shaped_traces

from faro_lib.forecast import bayes_forecaster, fit, load_posterior, recalibrated, save_posterior
from faro_lib.forecast.regression import from_root, root
from faro_lib.workload import Job, Traces
from studies.forecast.scores import coverage, rolling

UNIT, LAG, SPREAD = 20.0, 0.8, 0.05


def seen(forecaster, minutes):
    for counts in minutes:
        forecaster = forecaster.update(counts)
    return forecaster


def deviations(samples):
    return root(samples) / UNIT - 1


def test_paths_of_an_ar1_have_its_mean_and_variance_at_every_minute():
    forecaster = seen(
        bayes_forecaster(ar1_posterior(), recalibrate=False),
        [np.full(4, from_root(UNIT * 1.3))] * 15,
    )
    z = deviations(forecaster.sample(7, 20_000))
    h = np.arange(1, 8)
    np.testing.assert_allclose(z.mean(axis=1), np.tile(0.3 * LAG**h, (4, 1)), atol=0.003)
    variance = SPREAD**2 * (1 - LAG ** (2 * h)) / (1 - LAG**2)
    np.testing.assert_allclose(z.var(axis=1), np.tile(variance, (4, 1)), rtol=0.05)


def test_paths_have_the_autocorrelation_of_an_ar1():
    forecaster = seen(bayes_forecaster(ar1_posterior(), recalibrate=False), [np.full(4, 400)] * 15)
    z = deviations(forecaster.sample(7, 20_000))[0]
    # corr(z6, z7) of an AR(1) started at a known value.
    expected = LAG * np.sqrt((1 - LAG**12) / (1 - LAG**14))
    assert np.corrcoef(z[:, 5], z[:, 6])[0, 1] == pytest.approx(expected, abs=0.01)


def test_correlated_jobs_have_correlated_samples():
    together = np.array([[1, 0.9, 0, 0], [0.9, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    forecaster = seen(
        bayes_forecaster(ar1_posterior(correlation=together), recalibrate=False),
        [np.full(4, 400)] * 15,
    )
    z = deviations(forecaster.sample(7, 20_000))
    np.testing.assert_allclose(np.corrcoef(z[:, :, 3]), together, atol=0.03)


@pytest.mark.parametrize("gap", [1, 4])
def test_a_gap_of_k_minutes_is_as_uncertain_as_k_minutes_ahead(gap):
    history = [np.full(4, 400.0)] * 20
    whole = seen(bayes_forecaster(ar1_posterior(), recalibrate=False), history)
    gappy = seen(whole, [np.full(4, np.nan)] * gap)
    np.testing.assert_allclose(
        deviations(gappy.sample(3, 20_000)).std(axis=1),
        deviations(whole.sample(3 + gap, 20_000)).std(axis=1)[:, gap:],
        rtol=0.05,
    )


def test_without_counts_the_forecast_is_the_profile_with_the_spread_of_days():
    posterior = ar1_posterior()
    z = deviations(bayes_forecaster(posterior, recalibrate=False).sample(7, 20_000))
    assert abs(z.mean()) < 0.01
    # A stationary AR(1): the prior and every minute after it have the same spread.
    np.testing.assert_allclose(z.std(axis=1), np.tile(posterior.off_shape[:, None], 7), rtol=0.1)


def test_selected_jobs_keep_their_parameters_in_any_order():
    together = np.array([[1, 0.9, 0, 0], [0.9, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    posterior = dataclasses.replace(
        ar1_posterior(correlation=together), unit=np.array([10.0, 20.0, 30.0, 40.0])
    )
    forecaster = bayes_forecaster(posterior.select(["job2", "job1", "job0"]), recalibrate=False)
    assert forecaster.jobs == ("job2", "job1", "job0")
    samples = forecaster.sample(1, 20_000)[:, :, 0]
    np.testing.assert_allclose(np.median(samples, axis=1), [900, 400, 100], rtol=0.05)
    assert np.corrcoef(root(samples))[1, 2] == pytest.approx(0.9, abs=0.05)


def test_a_posterior_without_a_job_is_rejected_and_the_job_is_named():
    with pytest.raises(ValueError, match=r"job 'stranger' is not among the jobs of the posterior"):
        ar1_posterior().select(["job0", "stranger"])


def test_bayes_without_a_posterior_is_rejected():
    with pytest.raises(ValueError, match=r"posterior=None: the bayes forecaster is not fitted"):
        fit("bayes", shaped_traces())


def test_a_fit_that_has_not_converged_is_refused_with_what_it_lacks():
    traces = shaped_traces()
    with pytest.raises(
        ValueError,
        match=r"has not converged and is not used: largest R-hat 1\.220 \(at most 1\.01\)",
    ):
        fit(
            "bayes",
            traces,
            posterior=ar1_posterior(day_minutes=120, traces=traces, convergence=BAD),
        )


@pytest.mark.parametrize(
    ("reached", "passed"),
    [
        (GOOD, True),
        (GOOD._replace(r_hat=1.011), False),
        (GOOD._replace(r_hat=np.nan), False),
        (GOOD._replace(ess_bulk=399), False),
        (GOOD._replace(ess_tail=399), False),
        (GOOD._replace(divergences=1), False),
    ],
)
def test_the_gate_needs_r_hat_both_effective_sample_sizes_and_no_divergence(reached, passed):
    assert reached.passed == passed


@pytest.mark.parametrize(
    "other",
    [shaped_traces(seed=1), shaped_traces(days=4), shaped_traces(minutes=60)],
    ids=["other counts", "other days", "another length of day"],
)
def test_a_posterior_of_other_training_days_is_refused_with_the_name_of_the_job(other):
    posterior = ar1_posterior(day_minutes=120, traces=shaped_traces())
    with pytest.raises(
        ValueError, match=r"posterior of job 'job0' was fitted to other training days"
    ):
        fit("bayes", other, posterior=posterior)


def test_a_posterior_is_read_as_saved_and_other_files_are_rejected(tmp_path):
    posterior = ar1_posterior()
    save_posterior(posterior, tmp_path / "posterior.npz")
    again = load_posterior(tmp_path / "posterior.npz")
    first, second = (
        seen(bayes_forecaster(p, seed=3), ar1_day().T[:20]).sample() for p in (posterior, again)
    )
    np.testing.assert_array_equal(first, second)
    np.savez(tmp_path / "other.npz", a=1)
    with pytest.raises(ValueError, match=r"lacks 'jobs'"):
        load_posterior(tmp_path / "other.npz")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_posterior(tmp_path / "nowhere.npz")


def test_the_true_model_has_nominal_coverage_with_and_without_recalibration():
    day = ar1_day(jobs=8, seed=1)
    for recalibrate in (False, True):
        forecaster = bayes_forecaster(ar1_posterior(jobs=8), recalibrate=recalibrate)
        assert coverage(*rolling(forecaster, day, n=200)) == pytest.approx(0.8, abs=0.03)


def test_recalibration_corrects_intervals_that_are_three_times_too_narrow():
    day = ar1_day(jobs=8, minutes=720, seed=2)
    sure = bayes_forecaster(ar1_posterior(jobs=8, spread=SPREAD / 3), recalibrate=False)
    samples, truth = rolling(sure, day)
    corrected, _ = rolling(recalibrated(sure), day)
    assert coverage(samples, truth) < 0.5
    assert coverage(corrected[180:], truth[180:]) == pytest.approx(0.8, abs=0.03)


def shifted(day):
    day = day.copy()
    day[:, 150:] *= 3
    return day, 150


def silent_for_an_hour(day):
    day = day.copy()
    day[:, 120:180] = 0
    return day, 180


def burst(day):
    day = day.copy()
    day[:, 150:155] *= 5
    return day, 155


@pytest.mark.parametrize("accident", [shifted, silent_for_an_hour, burst])
def test_half_an_hour_after_a_disturbance_coverage_is_restored(accident):
    day, over = accident(ar1_day(jobs=8, lag=0.95, seed=3))
    forecaster = bayes_forecaster(ar1_posterior(jobs=8, lag=0.95))
    samples, truth = rolling(forecaster, day)
    assert np.isfinite(samples).all()
    assert (samples >= 0).all()
    first = over + 30 - 15  # the origin 30 minutes after, origins count from minute 15
    assert coverage(samples[first : first + 60], truth[first : first + 60]) > 0.7


def test_during_an_outage_the_forecast_is_near_zero():
    day, over = silent_for_an_hour(ar1_day(jobs=8, lag=0.95, seed=4))
    forecaster = seen(bayes_forecaster(ar1_posterior(jobs=8, lag=0.95)), day.T[: over - 10])
    assert np.median(forecaster.sample()[:, :, 0]) < 20  # of 400


def test_the_kalman_filter_agrees_with_the_dense_normal_distribution():
    forecaster = fit("kalman", shaped_traces())
    y = root(np.array([[50.0, 60.0, np.nan, 80.0]] * 4).T)
    filtered = seen(forecaster, from_root(y))
    job = 2
    step, noise = forecaster.step[job], forecaster.noise[job]
    minute = np.arange(5)
    level = forecaster.prior_variance[job] + step * np.minimum.outer(minute, minute)
    known = np.array([0, 1, 3])
    gain = level[4, known] @ np.linalg.inv(level[np.ix_(known, known)] + noise * np.eye(3))
    prior = forecaster.prior_level[job]
    assert filtered.level[job] == pytest.approx(prior + gain @ (y[known, job] - prior))
    assert filtered.variance[job] == pytest.approx(level[4, 4] - gain @ level[known, 4])


def test_the_kalman_fit_finds_the_variances_of_a_local_level():
    from faro_lib.forecast.kalman import RATIOS, most_likely

    rng = np.random.default_rng(0)
    level = rng.normal(0, 0.1, (20, 1, 1, 300)).cumsum(axis=-1)
    profile = 3 * np.sin(np.arange(300) / 20) + 0 * level
    y = level + 0.7 * profile + rng.normal(0, 0.2, level.shape)
    fits = [most_likely(y, profile, ratio) for ratio in RATIOS]
    best = int(np.argmax([likelihood[0] for likelihood, _, _ in fits]))
    assert RATIOS[best] == pytest.approx(0.25, rel=0.4)
    assert fits[best][1][0] == pytest.approx(0.7, abs=0.02)
    assert fits[best][2][0] == pytest.approx(0.04, rel=0.1)


def waves(phases):
    """Six days of Poisson counts of one job: a wave of 40 minutes with a phase for each day."""
    root_counts = 30 + 5 * np.sin(np.arange(240) * 2 * np.pi / 40 + np.array(phases)[:, None])
    counts = np.random.default_rng(1).poisson(root_counts**2)[:, None, None]
    return Traces((Job("a"),), counts[:-1], counts[-1])


def test_the_structural_forecast_follows_what_repeats_daily():
    traces = waves([0] * 6)
    day = traces.evaluation[0, 0]
    error = {}
    for name in ("kalman", "structural"):
        forecaster, errors = fit(name, traces), []
        for minute in range(60):
            if minute >= 20:
                errors.append(abs(forecaster.mean(7)[0, 6] - day[minute + 6]))
            forecaster = forecaster.update(day[minute : minute + 1])
        error[name] = np.mean(errors)
    assert error["structural"] < 0.4 * error["kalman"]


def test_the_structural_forecast_ignores_what_does_not_repeat():
    repeated, shifted = (
        fit("structural", waves(phases)) for phases in ([0] * 6, [0, 2, 4, 1, 5, 3])
    )
    assert np.ptp(repeated.profile) > 9, "the wave is 10 high"
    assert np.ptp(shifted.profile) < 2


def test_a_single_day_has_no_profile_so_structural_is_kalman():
    traces = shaped_traces()
    single = Traces(traces.jobs, traces.train[:1], traces.evaluation)
    day = np.asarray(single.evaluation, float)[0].T[:30]
    np.testing.assert_array_equal(
        seen(fit("structural", single), day).sample(), seen(fit("kalman", single), day).sample()
    )
