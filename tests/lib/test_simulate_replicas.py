"""Replicas that batch, serve several at once, or generate tokens: a plain simulator and theory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from schedules import replicas, schedules
from scipy.stats import poisson
from test_simulate_reference import assert_equal_to_the_last_request
from test_simulate_theory import constant, erlang_c, exponential, run_queue

from faro_lib.simulate import Draws, ServingModel, SimulatedCluster, draw
from faro_lib.workload import Job, Workload
from faro_lib.workload.replicas import SLO_ON, Batched, Concurrent, Continuous


def in_lockstep(draws):
    """The draws with all times as multiples of powers of 2, so that events coincide."""

    def rounded(values, step):
        return np.round(values / step) * step

    times = {
        "arrival_s": np.floor(draws.arrival_s * 4) / 4,
        "service_s": np.maximum(rounded(draws.service_s, 0.125), 0.125),
    }
    passes = {
        name: rounded(getattr(draws, name), 2.0**-8) for name in ("router_in_s", "router_out_s")
    }
    return replace(draws, **times, **passes)


@examples(60)
@given(schedules(replicas()), st.booleans())
def test_every_request_has_the_latency_of_the_plain_simulator(schedule, lockstep):
    draws = schedule.draws()
    assert_equal_to_the_last_request(schedule, in_lockstep(draws) if lockstep else draws)


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(schedules(replicas()), st.booleans())
def test_every_request_has_the_latency_of_the_plain_simulator_in_more_cases(schedule, lockstep):
    draws = schedule.draws()
    assert_equal_to_the_last_request(schedule, in_lockstep(draws) if lockstep else draws)


ONE_LINE = ServingModel(queue_limit=100_000)  # all requests wait in one line, first in first out


def ones(rng, n):
    """The factor on the time of a batch if batches of one size take the same time."""
    return np.ones(n)


def two_point(rng, n):
    """Service times of mean 1 and scv 4: one in five takes 5 s, the others nothing."""
    return np.where(rng.random(n) < 0.2, 5.0, 1e-9)


def bulk_service_mean_s(rate_rps, replica, most=400):
    """Mean time in the queue M/D^[1,B]/1, whose server takes min(waiting, B) when it is free.

    From the Markov chain of the number waiting at the end of a batch, by renewal reward and
    Little's law.
    """
    waiting = np.arange(most)
    size = np.clip(waiting, 1, replica.max_batch)
    duration_s = np.array(replica.durations_s)[size - 1]
    # An empty server waits for the next request, which makes a batch of one.
    after = np.maximum(waiting, 1) - size
    jumps = waiting[None, :] - after[:, None]
    chain = np.where(jumps >= 0, poisson.pmf(jumps, rate_rps * duration_s[:, None]), 0.0)
    chain[:, -1] += 1 - chain.sum(axis=1)
    values, vectors = np.linalg.eig(chain.T)
    share = np.real(vectors[:, np.argmax(np.real(values))])
    share /= share.sum()
    requests_s = np.maximum(waiting, 1) * duration_s + rate_rps * duration_s**2 / 2
    cycle_s = duration_s + (waiting == 0) / rate_rps
    return (share @ requests_s) / (share @ cycle_s) / rate_rps


@pytest.mark.parametrize("rho", [0.3, 0.6, 0.85])
def test_without_a_wait_batches_are_the_bulk_service_queue(rho):
    replica = Batched(8, base_s=1.0, per_request_s=0.1)
    rate_rps = rho * replica.capacity_rps(0)
    latency_s, _ = run_queue(rate_rps, ones, 1, ONE_LINE, replica=replica)
    assert latency_s.mean() == pytest.approx(bulk_service_mean_s(rate_rps, replica), rel=0.02)


@pytest.mark.parametrize(
    "service",
    [exponential(1.0), constant(1.0), two_point],
    ids=["exponential", "constant", "scv 4"],
)
def test_the_mean_time_under_processor_sharing_is_one_over_mu_minus_lambda_for_any_service_time(
    service,
):
    latency_s, _ = run_queue(0.7, service, 1, ONE_LINE, replica=Concurrent(300, 1.0))
    assert latency_s.mean() == pytest.approx(1 / (1 - 0.7), rel=0.04)


@pytest.mark.parametrize(
    "service", [exponential(1.0), constant(1.0)], ids=["exponential", "constant"]
)
def test_without_a_slowdown_k_at_once_are_k_servers(service):
    together, _ = run_queue(3.2, service, 1, ONE_LINE, replica=Concurrent(4))
    alone, service_s = run_queue(
        3.2, service, 4, ServingModel(queue_limit=100_000, max_ongoing_requests=1)
    )
    np.testing.assert_allclose(together, alone, rtol=1e-6)
    if service is exponential(1.0):
        assert (together - service_s).mean() == pytest.approx(
            erlang_c(3.2, 4) / (4 - 3.2), rel=0.06
        )


def cluster_of(replica, arrival_s, prompt_tokens, output_tokens, until_s=None):
    """These requests on one replica, without a router, until they end or until `until_s`."""
    n = len(arrival_s)
    columns = (
        np.array(arrival_s, float),
        np.empty(0),
        np.ones(n),
        np.empty(0),
        np.ones(n, np.float32),
    )
    draws = Draws(
        np.array([0, n]),
        *columns,
        1,
        np.array(prompt_tokens, float),
        np.array(output_tokens, float),
    )
    workload = Workload((Job("job", replica=replica),), np.array([[n]]))
    cluster = SimulatedCluster(workload, draws, 1, np.ones(1), ONE_LINE)
    if until_s is None:
        cluster.finish()
    else:
        cluster.advance(until_s)
    return cluster


@pytest.mark.parametrize(
    ("slo_on", "expected"),
    [
        # Iterations: 0 to 1.6 (a, 4 prompt tokens), to 3.1 (a, b), to 4.5 (a, b), then c joins: to
        # 6 (b, c), to 7.2 (c).
        ("first_token", [1.6, 2.1, 3.0]),
        ("end_to_end", [4.5, 5.0, 4.2]),
        ("per_token", [1.45, 1.45, 1.2]),
        ("both", [2 * 1.45, 2 * 1.45, 3.0]),  # 2 x per token, or the first token of c
    ],
)
def test_a_short_schedule_of_tokens_computed_by_hand(slo_on, expected):
    # An iteration takes 1 + 0.2 n + 0.1 p. Two sequences at most: c, which arrives at 3, waits
    # until a ends.
    replica = Continuous(
        *(1.0, 0.2, 0.1, 2),
        output_tokens=3,
        prompt_tokens=1,
        slo_on=slo_on,
        per_token_weight=2.0 if slo_on == "both" else 0.0,
    )
    cluster = cluster_of(replica, [0.0, 1.0, 3.0], [4, 1, 1], [3, 3, 2])
    np.testing.assert_allclose(cluster.latency_s, expected)


def test_a_request_meets_both_limits_if_its_latency_is_at_most_that_of_the_first_token():
    rng = np.random.default_rng(3)
    n = 400
    arrival_s = np.sort(rng.uniform(0, 70, n))
    prompts, outputs = rng.integers(1, 50, n), rng.integers(1, 30, n)
    latency_s = {}
    for slo_on in SLO_ON:
        weight = 20.0 if slo_on == "both" else 0.0
        replica = Continuous(
            *(0.02, 0.004, 1e-3, 8),
            output_tokens=15,
            prompt_tokens=25,
            slo_on=slo_on,
            per_token_weight=weight,
        )
        latency_s[slo_on] = cluster_of(replica, arrival_s, prompts, outputs).latency_s
    slo_s, per_token_slo_s = 1.0, 1.0 / 20
    meets = (latency_s["first_token"] <= slo_s) & (latency_s["per_token"] <= per_token_slo_s)
    assert 0.1 < meets.mean() < 0.9
    np.testing.assert_array_equal(latency_s["both"] <= slo_s, meets)


def test_a_running_request_counts_with_the_time_to_its_first_token_if_the_slo_is_on_both():
    replica = Continuous(
        *(1.0, 0.0, 0.0, 1),
        output_tokens=100,
        prompt_tokens=1,
        slo_on="both",
        per_token_weight=1.0,
    )
    cluster = cluster_of(replica, [0.0, 0.5], [1, 1], [100, 100], until_s=30.0)
    # The first has its first token after 1 s and runs; the second has waited for 29.5 s.
    assert cluster.tail_latency_of(0).item() == pytest.approx(np.quantile([1.0, 29.5], 0.99))


def test_knees_make_steps_and_prompts_longer_beyond_them():
    replica = Continuous(
        *(1.0, 0.2, 0.1, 4),
        output_tokens=1,
        prompt_tokens=1,
        beta_knees=((1.0, 0.5),),
        gamma_knees=((5.0, 0.2), (10.0, -0.1)),
    )
    # Alone: 1.2 + 0.1 x 4. Two with 12 prompt tokens: 1.4 + 0.5, and 1.2 + 7 x 0.2 - 2 x 0.1.
    cluster = cluster_of(replica, [0.0, 1.0, 1.0], [4, 6, 6], [1, 1, 1])
    np.testing.assert_allclose(cluster.latency_s, [1.6, 0.6 + 4.3, 0.6 + 4.3])


def test_a_prompt_that_exceeds_the_tokens_of_an_iteration_waits_for_the_next_one():
    replica = Continuous(
        1.0, 0.0, 0.0, 4, output_tokens=1, prompt_tokens=6, max_tokens=10, slo_on="first_token"
    )
    cluster = cluster_of(replica, [0.0, 0.5, 0.5, 0.5, 0.5], [1, 6, 6, 3, 20], [1, 1, 1, 1, 1])
    # The third does not fit beside the second; the last fits into no iteration, and is admitted
    # when it is alone.
    np.testing.assert_allclose(cluster.latency_s, [1.0, 1.5, 2.5, 2.5, 3.5])


@pytest.mark.parametrize(
    "replica",
    [
        Concurrent(4, 0.5),
        Batched(16, 0.01, 0.03, 0.002),
        Continuous(
            0.02, 0.001, 1e-4, 16, output_tokens=50, prompt_tokens=200, output_cv=0.5, prompt_cv=1.0
        ),
        Continuous(0.02, 0.001, 1e-4, 64, output_tokens=10, prompt_tokens=500, max_tokens=1000),
        Continuous(
            *(0.02, 0.0, 1e-4, 16, 50, 200),
            output_cv=0.5,  # so that sequences, and prompts, do not all begin together
            beta_knees=((8.0, 0.002),),
            gamma_knees=((100.0, 5e-5),),
        ),
    ],
    ids=str,
)
def test_a_replica_that_never_runs_out_of_requests_completes_them_at_its_capacity(replica):
    job = Job("a", model="own", service_time_s=0.05, replica=replica)
    capacity_rps = 1 / job.busy_s
    counts = np.full((1, 20), int(2 * capacity_rps * 60))
    model = ServingModel("round-robin", queue_limit=300)
    draws = replace(
        draw(Workload((job,), counts), 1), router_in_s=np.empty(0), router_out_s=np.empty(0)
    )
    cluster = SimulatedCluster(Workload((job,), counts), draws, 1, np.ones(1), model)
    cluster.advance(1200.0)
    served = np.isfinite(cluster.latency_s[cluster.latency_s > 0]).sum()
    assert served / 1200 == pytest.approx(capacity_rps, rel=0.02)
