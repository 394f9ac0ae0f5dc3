"""On a kind cluster: an hour under load with the faults of the soak that exist there.

`FARO_SOAK_MINUTES` is its length, `FARO_SOAK` a folder for its tables (tests/support/soak_kind.py).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from soak_kind import report, run

pytestmark = [pytest.mark.k8s, pytest.mark.fault, pytest.mark.soak, pytest.mark.slow]
MINUTES = float(os.environ.get("FARO_SOAK_MINUTES", "60"))


def test_in_an_hour_of_faults_only_requests_in_killed_pods_are_lost_and_no_invariant_breaks(
    tmp_path,
):
    outcome = run(MINUTES, tmp_path)
    print(report(outcome))
    if folder := os.environ.get("FARO_SOAK"):
        outcome.write(Path(folder))
    assert outcome.events
    assert outcome.broken == []
