"""Properties of every registered forecaster."""

import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from examples import examples
from forecast_worlds import ar1_posterior, shaped_traces
from hypothesis import given
from hypothesis import strategies as st

import studies.forecast.oracle  # noqa: F401, registers oracle
from faro_lib.forecast import fit, forecasters, register
from faro_lib.forecast.forecaster import PAST_MINUTES
from faro_lib.forecast.kalman import untrained
from faro_lib.forecast.poisson import untrained_poisson
from studies.forecast.scores import crps, rolling

TRACES = shaped_traces()
DAY = TRACES.evaluation[0]
KINDS = forecasters()


def fitted(kind, seed=0):
    options = {}
    if kind == "bayes":
        options["posterior"] = ar1_posterior(day_minutes=120, traces=TRACES)
    return fit(kind, TRACES, seed=seed, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_the_shape_jobs_samples_minutes(kind):
    assert fitted(kind).update([10, 20, 30, 40]).sample(horizon=5, n=50).shape == (4, 50, 5)
    assert fitted(kind).mean(horizon=5).shape == (4, 5)


@pytest.mark.parametrize("kind", KINDS)
def test_update_returns_a_new_forecaster_and_does_not_change_the_old_one(kind):
    before = fitted(kind)
    first = before.sample()
    after = before.update([1, 2, 3, 4])
    np.testing.assert_array_equal(before.sample(), first)
    assert (after.minutes_seen, before.minutes_seen) == (1, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_and_the_same_minutes_give_the_same_samples(kind):
    first, _ = rolling(fitted(kind, seed=5), DAY[:, :40], n=20)
    again, _ = rolling(fitted(kind, seed=5), DAY[:, :40], n=20)
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "oracle"])
def test_another_seed_gives_other_samples(kind):
    assert (fitted(kind, seed=5).sample() != fitted(kind, seed=6).sample()).any()


@pytest.mark.parametrize("kind", KINDS)
def test_start_forgets_all_counts(kind):
    used = fitted(kind).update([500, 500, 500, 500]).update([700, 700, 700, 700])
    np.testing.assert_array_equal(used.start(30).sample(), fitted(kind).start(30).sample())


@pytest.mark.parametrize("kind", KINDS)
@examples(40)
@given(
    st.lists(
        st.lists(st.sampled_from([np.nan, 0, 1, 30, 2000, 10**7]), min_size=4, max_size=4),
        max_size=35,
    )
)
def test_samples_are_finite_and_never_negative_after_any_history(kind, history):
    forecaster = fitted(kind)
    for counts in history:
        forecaster = forecaster.update(counts)
    samples = forecaster.sample(n=20)
    assert np.isfinite(samples).all()
    assert (samples >= 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_bad_counts_are_rejected_and_the_job_is_named(kind):
    forecaster = fitted(kind)
    with pytest.raises(ValueError, match=r"'job1' must be a finite number >= 0"):
        forecaster.update([1, -2, 3, 4])
    with pytest.raises(ValueError, match=r"'job3' must be a finite number >= 0"):
        forecaster.update([1, 2, 3, np.inf])
    with pytest.raises(ValueError, match=r"shape \(3,\); expected \(4,\)"):
        forecaster.update([1, 2, 3])


@pytest.mark.parametrize("kind", KINDS)
def test_a_horizon_below_one_minute_is_rejected(kind):
    with pytest.raises(ValueError, match="horizon=0 must be"):
        fitted(kind).sample(horizon=0)


def test_an_unknown_forecaster_is_rejected_with_the_accepted_names():
    with pytest.raises(ValueError, match=r"'prophet' is unknown; accepted: .*persistence"):
        fit("prophet", TRACES)


def test_a_registered_function_is_a_forecaster():
    @register("mine")
    def mine(traces, *, seed=0):
        return fit("persistence", traces, seed=seed + 1)

    try:
        assert fit("mine", TRACES, seed=1).seed == 2
    finally:
        from faro_lib.forecast import forecaster as base

        del base.FITS["mine"]


def test_rolling_forecasts_see_only_the_past():
    samples, truth = rolling(fit("oracle", TRACES), DAY, n=1)
    np.testing.assert_array_equal(samples[:, :, 0], truth)
    np.testing.assert_array_equal(truth[0], DAY[:, 15:22])
    np.testing.assert_array_equal(truth[-1], DAY[:, -7:])


def test_a_day_too_short_for_one_forecast_is_rejected():
    with pytest.raises(ValueError, match="22 minutes or more"):
        rolling(fit("oracle", TRACES), DAY[:, :21])


def test_persistence_keeps_the_last_known_minute_when_the_newest_is_missing():
    forecaster = fit("persistence", TRACES).update([5, 6, 7, 8]).update([9, np.nan, 9, 9])
    np.testing.assert_array_equal(forecaster.mean(3)[1], [6, 6, 6])


def without_counts_of_b(forecaster, level, minutes):
    """The forecaster after a minute with `level` requests of both jobs, then `minutes` of job a."""
    forecaster = forecaster.update([level, level])
    for _ in range(minutes):
        forecaster = forecaster.update([level, np.nan])
    return forecaster


@pytest.mark.parametrize("horizon", [7, 20])
def test_persistence_adds_the_errors_after_random_training_minutes_to_the_last_count(horizon):
    train = TRACES.train.reshape(-1, *TRACES.train.shape[2:])
    last = TRACES.train.shape[-1] - 15
    errors = np.stack([train[..., h : last + h] - train[..., :last] for h in range(1, 16)], axis=-1)
    # (days, jobs, minutes, minutes ahead) -> (minutes, jobs, minutes ahead)
    errors = np.moveaxis(errors, 2, 1).reshape(-1, *errors.shape[1::2])
    forecaster = fitted("persistence").update([100, 200, 300, 400])
    rows = forecaster.rng().integers(len(errors), size=50)
    added = errors[rows][:, :, np.minimum(np.arange(horizon), 14)].transpose(1, 0, 2)
    expected = np.maximum(np.array([100, 200, 300, 400])[:, None, None] + added, 0)
    np.testing.assert_array_equal(forecaster.sample(horizon, 50), expected)


def test_persistence_stores_every_training_day_once():
    persistence = fitted("persistence")
    assert len(pickle.dumps(persistence)) < 1.1 * TRACES.train.size * 8 + persistence.past.nbytes


def test_a_fitted_forecaster_keeps_the_past_minutes_of_each_job_in_order_with_their_extremes():
    long = replace(TRACES, train=np.tile(TRACES.train, (20, 1, 1, 1)))
    past = fit("persistence", long).past
    assert past.shape == (len(long.jobs), PAST_MINUTES)
    assert (np.diff(past) >= 0).all()
    by_job = long.train.swapaxes(0, 2).reshape(len(long.jobs), -1)
    np.testing.assert_array_equal(
        past[:, [0, -1]], np.stack([by_job.min(axis=1), by_job.max(axis=1)], axis=1)
    )
    np.testing.assert_allclose(past.mean(axis=1), by_job.mean(axis=1), rtol=0.01)


def test_half_an_hour_without_counts_is_no_sign_of_an_idle_job():
    assert np.median(without_counts_of_b(untrained_poisson(("a", "b")), 10, 30).sample()[1]) > 0


@pytest.mark.parametrize("start", [untrained_poisson, untrained])
def test_the_level_of_a_job_is_kept_through_a_day_without_counts(start):
    assert (
        0.5 < without_counts_of_b(start(("a", "b")), 100, 1500).sample(n=1000)[1].mean() / 100 < 2
    )


def test_seasonal_naive_repeats_the_same_minutes_of_the_training_days():
    days = TRACES.train.reshape(-1, *TRACES.train.shape[2:])
    forecaster = fit("seasonal", TRACES).start(minute_of_day=118)
    np.testing.assert_allclose(forecaster.mean(4), days[:, :, [118, 119, 0, 1]].mean(axis=0))


def test_the_pooled_autoregression_beats_persistence_on_days_with_a_shape():
    def judged(kind):
        return crps(*rolling(fit(kind, TRACES), DAY))

    assert judged("ar") < judged("persistence")


def test_forecasting_online_imports_neither_pymc_nor_pandas():
    heavy = ("pymc", "pandas", "arviz", "numba")
    code = f"import sys, faro_lib.forecast; print([m for m in {heavy} if m in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )
