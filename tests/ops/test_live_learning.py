"""While requests are served, a wrong service time is learned from latencies.

On Ray Serve, replicas report them; of Deployments, a Prometheus does.
"""

import shutil

import pytest

from studies.live import learning
from studies.live.agreement import LIVE
from studies.misspecification.world import LEARNING

pytestmark = [pytest.mark.live, pytest.mark.study]
SCALE = 6.0


def errors_after_ten_minutes(platform, folder):
    """Job -> |learned / true - 1| in one run."""
    with learning.PLATFORMS[platform](SCALE) as serve:
        how = {"minutes": 11, "scale": SCALE, "policies": [LEARNING]}
        factors, _ = learning.trial(0, 24, serve, folder, **how)
    last = factors[(factors["environment"] == LIVE) & (factors["minute"] == learning.LEARNED_BY)]
    last = last.set_index("job")
    return (last["factor"] / last["true"] - 1).abs()


def test_on_ray_serve_a_service_time_that_is_wrong_by_half_is_learned_in_ten_minutes(tmp_path):
    errors = errors_after_ten_minutes("ray", tmp_path)
    assert errors[learning.SLOW] < learning.TOLERANCE["ray"]
    # Replicas add some milliseconds to each request, which count as service time.
    assert errors.drop(learning.SLOW).max() < 0.15


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="apt-get install prometheus")
def test_of_deployments_it_is_learned_from_what_prometheus_has(tmp_path):
    errors = errors_after_ten_minutes("deployments", tmp_path)
    assert errors.max() < learning.TOLERANCE["deployments"]
