"""Lengths as in a log: they agree with it where a lognormal distribution does not."""

from dataclasses import fields, replace

import numpy as np
import pytest

from faro_lib.simulate import draw
from faro_lib.workload import Job, Workload
from faro_lib.workload.replicas import Continuous
from studies.llm.lengths import logged, lognormal

LOGNORMAL = Continuous(0.02, 0.001, 1e-4, 16, 50, 200, output_cv=0.5, prompt_cv=1.0)
RNG = np.random.default_rng(3)
# Prompts of a service: half of them from one template, none above the context of the model.
PROMPTS = np.where(RNG.random(4000) < 0.5, 1000, np.minimum(RNG.geometric(1 / 2000, 4000), 4096))
TOKENS = np.array([PROMPTS, RNG.integers(1, 300, 4000)]).astype(float)
REPLICA = logged(LOGNORMAL, TOKENS)


def test_drawn_lengths_have_the_mean_and_the_quantiles_of_the_log():
    drawn = REPLICA.lengths(np.random.default_rng(1), 40_000)
    for of_drawn, of_log in zip(drawn, TOKENS):
        assert of_drawn.mean() == pytest.approx(of_log.mean(), rel=0.02)
        for share in (0.25, 0.5, 0.9, 0.99, 1.0):
            expected = np.quantile(of_log, share)
            assert np.quantile(of_drawn, share) == pytest.approx(expected, rel=0.04)


def test_a_lognormal_with_the_same_moments_has_prompts_beyond_the_context():
    drawn = lognormal(REPLICA, TOKENS).lengths(np.random.default_rng(1), 40_000)
    np.testing.assert_allclose(drawn.mean(axis=1), TOKENS.mean(axis=1), rtol=0.02)
    np.testing.assert_allclose(drawn.std(axis=1), TOKENS.std(axis=1), rtol=0.1)
    assert np.quantile(drawn[0], 0.99) > 1.2 * PROMPTS.max()


def test_lengths_are_whole_numbers_and_at_least_one():
    drawn = logged(LOGNORMAL, np.ones((2, 3))).lengths(np.random.default_rng(1), 100)
    assert (drawn == 1).all()
    drawn = REPLICA.lengths(np.random.default_rng(1), 1000)
    assert (drawn == np.rint(drawn)).all()


def test_lengths_follow_a_mean_that_drifts():
    doubled = replace(REPLICA, prompt_tokens=2 * REPLICA.prompt_tokens)
    drawn = doubled.lengths(np.random.default_rng(1), 40_000)
    assert drawn[0].mean() == pytest.approx(2 * PROMPTS.mean(), rel=0.02)
    assert np.quantile(drawn[0], 0.5) == pytest.approx(2 * np.median(PROMPTS), rel=0.04)


def test_all_else_is_that_of_the_replica():
    names = {one.name for one in fields(Continuous)}
    parts = ("tokens", "cv", "quantiles")
    lengths = {f"{kind}_{part}" for kind in ("prompt", "output") for part in parts}
    for name in names - lengths:
        assert getattr(REPLICA, name) == getattr(LOGNORMAL, name)


def test_a_logged_service_does_not_change_the_draws_of_others():
    counts = np.full((2, 3), 200)
    plain = draw(Workload((Job("a", replica=LOGNORMAL), Job("b", replica=LOGNORMAL)), counts), 1)
    mixed = draw(Workload((Job("a", replica=LOGNORMAL), Job("b", replica=REPLICA)), counts), 1)
    for name in ("arrival_s", "service_s", "coin"):
        np.testing.assert_array_equal(getattr(mixed, name), getattr(plain, name))
    np.testing.assert_array_equal(mixed.prompt_tokens[:600], plain.prompt_tokens[:600])
    assert mixed.prompt_tokens[600:].max() <= 1.05 * PROMPTS.max()
