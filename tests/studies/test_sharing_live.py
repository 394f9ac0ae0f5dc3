"""The simulated twin of the live runs with shared replicas (docs/sharing.md)."""

import numpy as np
import pytest

from benchmarks.sharing_live import (
    PLACEMENTS,
    SHARED,
    SLO_S,
    PathCost,
    Requests,
    measures,
    twin,
)
from faro_ops.operate.rayserve.spec import BINDINGS, LATE

PATH = PathCost(outside_s=0.02, inside_s=0.01, gateway_cpu_s=0.0)


def requests(rps: float) -> Requests:
    return Requests.drawn(np.full(3, rps), 60.0, 1.0, 0, 0.0)


@pytest.mark.parametrize("binding", BINDINGS)
def test_a_request_that_does_not_wait_takes_its_service_and_the_path(binding):
    few = requests(0.05)
    latency_s = twin(few, PLACEMENTS[SHARED], PATH, binding)
    np.testing.assert_allclose(latency_s, few.service_s + 0.03)


def test_shared_replicas_meet_the_slo_of_loads_that_isolated_ones_do_not():
    many = Requests.drawn(np.array([24.0, 8.0, 8.0]), 60.0, 1.0, 0, 0.0)
    late = {}
    for name, placement in PLACEMENTS.items():
        latency_s = twin(many, placement, PATH, LATE)
        late[name] = measures(many, latency_s, 0, SLO_S)[1]
    assert late[SHARED] < 1 < late["isolated"]
