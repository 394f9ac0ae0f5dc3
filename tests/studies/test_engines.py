"""The simulated engines by themselves: the load that they report."""

from functools import partial

import numpy as np

from faro_lib.policies import Fixed
from faro_lib.simulate import draw, simulate
from faro_lib.workload import Job, Workload
from faro_lib.workload.replicas import replica_of
from studies.llm.engines import EngineCluster, load_of, simulate_engines, tokens_per_min
from studies.llm.world import LIVE

REPLICA = replica_of(
    {
        "kind": "continuous",
        **{"alpha_s": 0.1, "beta_s": 0.0, "gamma_s": 0.001, "max_sequences": 2},
        **{"prompt_tokens": 100, "output_tokens": 20},
    }
)
JOBS = (Job("a", slo_s=1.0, replica=REPLICA), Job("b", slo_s=1.0, replica=REPLICA))
TIMES = (np.array([1.0, 2.0, 3.0, 130.0]), np.array([70.0, 80.0]))
COUNTS = np.array([[3, 0, 1], [0, 2, 0]])
WORKLOAD = Workload(JOBS, COUNTS, TIMES)
DRAWS = draw(WORKLOAD, 1, router=None)


def test_requests_of_mean_length_are_a_load_of_one_each():
    np.testing.assert_allclose(load_of(JOBS, tokens_per_min(DRAWS, 3)), COUNTS)


def test_engines_report_the_load_of_their_requests_unless_they_are_told_another():
    seen = []

    class Watching(Fixed):
        def decide(self, state, observation):
            seen.append(observation.load_per_min)
            return super().decide(state, observation)

    for make in (EngineCluster, partial(EngineCluster, load_per_min=np.full((2, 3), 7.0))):
        policy = Watching(1, tick_s=30.0)
        simulate(WORKLOAD, policy, 2, draws=DRAWS, serving_model=LIVE, make_cluster=make)
    of_requests, told = seen[len(seen) // 2 - 1], seen[-1]
    np.testing.assert_allclose(of_requests, COUNTS[:, :2])
    np.testing.assert_array_equal(told, np.full((2, 2), 7.0))


def test_a_run_on_engines_serves_as_one_without_gauges():
    options = {"draws": DRAWS, "serving_model": LIVE, "initial": np.array([1, 1])}
    plain = simulate(WORKLOAD, Fixed(1), 2, **options)
    load = load_of(JOBS, tokens_per_min(DRAWS, 3))
    gauged = simulate_engines(
        WORKLOAD, Fixed(1), 2, DRAWS, load, options["initial"], options["serving_model"]
    )
    np.testing.assert_array_equal(plain.tail_latency_s, gauged.tail_latency_s)
    np.testing.assert_array_equal(plain.decisions.target, gauged.decisions.target)
