"""The simulation of pools: against a plain second simulator, theory, and rules for loads."""

from __future__ import annotations

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from pool_schedules import PoolSchedule, pool_schedules


def assert_equals_the_plain_simulator(schedule: PoolSchedule):
    draws = schedule.draws()
    serving, script = schedule.run(draws)
    plain_s = schedule.run_plainly(draws, script)
    latency_s = serving.requests.latency_s
    ended = latency_s > 0
    np.testing.assert_array_equal(ended, ~np.isnan(plain_s))
    np.testing.assert_allclose(latency_s[ended], plain_s[ended], rtol=1e-12, atol=1e-9)


@examples(60)
@given(pool_schedules())
def test_every_request_of_a_pool_has_the_latency_of_the_plain_simulator(schedule):
    assert_equals_the_plain_simulator(schedule)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(pool_schedules())
def test_every_request_of_a_pool_has_the_latency_of_the_plain_simulator_in_more_cases(schedule):
    assert_equals_the_plain_simulator(schedule)
