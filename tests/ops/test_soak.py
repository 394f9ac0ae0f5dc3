"""A day of a controller on a fake Ray with a fault in most minutes (tests/support/soak.py)."""

import pytest
from soak import FAULTS, JOBS, soak

from faro_lib.protocol import CONTESTED

KEPT_S = (15 + 3) * 60  # seconds that the controller keeps of each job
TICK_BYTES = 20_000


def test_without_faults_and_with_a_constant_load_a_job_moves_at_most_twice_an_hour():
    figures = soak(2, faults=("none",))
    assert figures.broken == []
    assert not +figures.failures
    assert max(figures.moves.values()) <= 2 * len(JOBS)


@pytest.mark.slow
def test_a_day_of_faults_breaks_no_invariant_and_every_failure_is_counted():
    figures = soak(24)
    assert set(figures.faults) == set(FAULTS)
    assert figures.broken == []
    assert figures.skipped == 0
    assert figures.failures["policy-failed"] == figures.failures[CONTESTED] == 0
    assert figures.journal_bytes < TICK_BYTES * figures.ticks
    assert figures.kept_seconds <= KEPT_S
