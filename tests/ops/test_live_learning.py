"""On a real Ray Serve, a wrong service time is learned from the latencies that replicas report."""

import pytest

from studies.live.learning import learned

pytestmark = [pytest.mark.live, pytest.mark.study]


def test_a_service_time_that_is_wrong_by_half_is_learned_in_ten_minutes():
    table = learned(minutes=10)
    last = table[table["minute"] == 10].set_index("job")
    off = (last["factor"] / last["true"] - 1).abs()
    assert off["a"] < 0.1
    # Replicas add some milliseconds to each request, which count as service time.
    assert off[["b", "c"]].max() < 0.15
