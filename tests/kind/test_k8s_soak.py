"""On a kind cluster: an hour under load in which nodes, permissions, pods and models change.

`FARO_SOAK_MINUTES` is its length, `FARO_SOAK` a folder for its tables (tests/support/k8s_soak.py).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from k8s_soak import EVENTS, report, run, title

pytestmark = [pytest.mark.k8s, pytest.mark.fault, pytest.mark.soak, pytest.mark.slow]
MINUTES = float(os.environ.get("FARO_SOAK_MINUTES", "60"))


def test_in_an_hour_of_events_only_requests_in_killed_pods_are_lost(tmp_path):
    outcome = run(MINUTES, tmp_path)
    print(report(outcome))
    if folder := os.environ.get("FARO_SOAK"):
        outcome.write(Path(folder))
    assert [event.event for event in outcome.events] == [title(one) for one in EVENTS]
    assert outcome.broken == []
