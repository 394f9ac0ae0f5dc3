"""Forecasters: what holds for every kind, whatever the day brings."""

import numpy as np
import pytest

from faro_lib.forecast import fit, forecasters, rolling
from faro_lib.workload import Job, Traces

MINUTES = 120


def synthetic(seed=0, days=5, samples=2, jobs=4, minutes=MINUTES):
    """Days with a shape, a wandering level and jobs of different scales."""
    rng = np.random.default_rng(seed)
    shape = np.sin(2 * np.pi * np.arange(minutes) / minutes + np.arange(jobs)[:, None])
    wander = np.zeros((days + 1, samples, jobs, minutes))
    for t in range(1, minutes):
        wander[..., t] = 0.9 * wander[..., t - 1] + 0.1 * rng.standard_normal(wander.shape[:-1])
    rate = np.exp(np.linspace(3, 6, jobs)[:, None] + 0.5 * shape + wander)
    counts = rng.poisson(rate)
    return Traces(tuple(Job(f"job{j}") for j in range(jobs)), counts[:-1], counts[-1])


TRACES = synthetic()
KINDS = [name for name in forecasters() if name not in ("bayes", "autoets")]


@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_the_shape_jobs_samples_minutes_and_are_counts_that_can_be(kind):
    samples = fit(kind, TRACES).update([10, 20, 30, 40]).sample(horizon=7, n=50)
    assert samples.shape == (4, 50, 7)
    assert np.isfinite(samples).all()
    assert (samples >= 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_an_update_makes_a_new_forecaster_and_leaves_the_old_one_as_it_was(kind):
    before = fit(kind, TRACES, seed=3)
    first = before.sample()
    after = before.update([1, 2, 3, 4])
    assert (before.sample() == first).all()
    assert (after.seen, before.seen) == (1, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_and_the_same_minutes_give_the_same_samples(kind):
    day = TRACES.evaluation[0]
    first, _ = rolling(fit(kind, TRACES, seed=5), day[:, :40], n=20)
    again, _ = rolling(fit(kind, TRACES, seed=5), day[:, :40], n=20)
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_seen_yet_and_minutes_missing_still_give_a_forecast(kind):
    forecaster = fit(kind, TRACES).start(minute_of_day=30)
    assert np.isfinite(forecaster.sample()).all()
    forecaster = forecaster.update([5, np.nan, 7, np.nan]).update([np.nan] * 4)
    assert np.isfinite(forecaster.sample()).all()


@pytest.mark.parametrize("kind", KINDS)
def test_bad_counts_are_refused_and_the_job_is_named(kind):
    forecaster = fit(kind, TRACES)
    with pytest.raises(ValueError, match=r"'job1'.*>= 0"):
        forecaster.update([1, -2, 3, 4])
    with pytest.raises(ValueError, match="shape"):
        forecaster.update([1, 2, 3])
    with pytest.raises(ValueError, match="horizon"):
        forecaster.sample(horizon=0)
