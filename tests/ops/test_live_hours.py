"""Every fault once on a real Ray Serve under load, a minute apart.

No request is lost but what a killed replica held.
"""

import os

import pytest
from live_hours import FAULTS, report, run

pytestmark = [
    pytest.mark.live,
    pytest.mark.study,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system, which only root may"),
]


def test_every_fault_once_loses_only_what_a_killed_replica_held():
    assert report(*run(hours=len(FAULTS) / 60, every_s=60.0, seed=1))
