"""Constant prefill and decode replicas (kind `disaggregated`), against a plain simulation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from plain_steps import APART, KNEES, STEPS, latency_of, plainly_apart, random_requests

from faro_lib.simulate import SimulatedCluster, draw
from faro_lib.simulate.measure import measure
from faro_lib.simulate.serving import constant_latencies
from faro_lib.workload import Job, Workload, pools_of
from faro_lib.workload.replicas import (
    Batched,
    Continuous,
    Disaggregated,
    Replica,
    mapping_of,
    replica_of,
)
from studies.disaggregated.world import Requests, apart_latency_s

WEIGHT = STEPS["per_token_weight"]
KIND = Disaggregated(**STEPS, **KNEES, **APART, prefill=(0, 1, 2))
MAPPING = mapping_of(KIND)


def limiting(slo_on: str) -> Disaggregated:
    return replace(KIND, slo_on=slo_on, per_token_weight=WEIGHT if slo_on == "both" else 0.0)


@pytest.mark.parametrize("slo_on", ["first_token", "per_token", "end_to_end", "both"])
@pytest.mark.parametrize("pair", [(1, 1), (1, 3)])
def test_every_latency_agrees_with_a_second_simulation_of_all_steps(slo_on, pair):
    requests = random_requests(4)
    tokens_s = plainly_apart(KIND, requests, *pair)
    np.testing.assert_allclose(
        apart_latency_s(limiting(slo_on), requests, *pair),
        latency_of(requests, tokens_s, WEIGHT, slo_on),
        rtol=1e-9,
    )


def latencies(jobs: list[Job], replicas: list[int], dispatch: str, places: int = 6) -> np.ndarray:
    """Latencies of ten minutes of requests at rates that these replicas just sustain."""
    counts = np.full((len(jobs), 10), 150)
    draws = draw(Workload(tuple(jobs), counts), 3)
    if dispatch != "round-robin":
        draws = replace(draws, router_in_s=np.empty(0), router_out_s=np.empty(0))
    all_places = np.full(len(jobs), places)
    return constant_latencies(jobs, draws, replicas, dispatch, 5, all_places)


@pytest.mark.parametrize("dispatch", ["round-robin", "least-outstanding"])
@pytest.mark.parametrize("replicas", [1, 2])
def test_replicas_without_roles_are_the_kind_continuous(dispatch, replicas):
    without = replace(KIND, prefill=(0,))
    apart, pooled = (
        latencies([Job("a", replica=one)], [replicas], dispatch)
        for one in (without, KIND.does_both)
    )
    np.testing.assert_array_equal(apart, pooled)


@pytest.mark.parametrize("dispatch", ["round-robin", "least-outstanding"])
def test_jobs_of_all_kinds_are_simulated_together_as_alone(dispatch):
    kinds = [Replica(), KIND, Batched(4, 0.1, 0.2, 0.02), KIND.does_both]
    jobs = [Job(f"job{n}", service_time_s=0.3, replica=kind) for n, kind in enumerate(kinds)]
    together = latencies(jobs, [2, 3, 1, 3], dispatch)
    other = [job if n == 1 else replace(job, replica=Replica()) for n, job in enumerate(jobs)]
    alone = latencies(other, [2, 3, 1, 3], dispatch)
    np.testing.assert_array_equal(together[1500:3000], alone[1500:3000])
    plain = [replace(job, replica=KIND.does_both) if n == 1 else job for n, job in enumerate(jobs)]
    without = latencies(plain, [2, 3, 1, 3], dispatch)
    for rest in (slice(0, 1500), slice(3000, None)):
        np.testing.assert_array_equal(together[rest], without[rest])


def test_a_request_that_finds_all_decode_replicas_full_is_dropped():
    """Its prompt takes a second, and a whole answer five: the second of three comes too early."""
    kind = Disaggregated(
        *(1.0, 0.0, 0.0, 1),
        output_tokens=5.0,
        prompt_tokens=1.0,
        link_gbps=1e9,
        kv_bytes_per_token=1.0,
        prefill=(0, 1),
    )
    draws = draw(Workload((Job("a", replica=kind),), np.array([[3]])), 1, router=None)
    draws = replace(draws, arrival_s=np.array([0.0, 2.0, 9.0]))
    jobs = (Job("a", replica=kind),)
    for places, expected_s in ((1, [5.0, np.inf, 5.0]), (2, [5.0, 7.0, 5.0])):
        latency_s = constant_latencies(jobs, draws, [2], "least-outstanding", 0, np.array([places]))
        np.testing.assert_allclose(latency_s, expected_s)


def test_prompts_one_at_a_time_wait_as_in_an_md1_queue():
    """W = rho s / (2 (1 - rho)) (Pollaczek and Khinchine)."""
    rng = np.random.default_rng(3)
    n, rho = 100_000, 0.6
    service_s = KIND.decode_s(1) + KIND.prefill_s(300)
    arrival_s = np.cumsum(rng.exponential(service_s / rho, n))
    requests = Requests(arrival_s, np.full(n, 300.0), np.full(n, 5.0))
    one_by_one = replace(limiting("first_token"), prefill_max_tokens=1)
    waited_s = apart_latency_s(one_by_one, requests, 1, 3) - service_s
    assert waited_s.mean() == pytest.approx(rho * service_s / (2 * (1 - rho)), rel=0.03)


def test_a_request_alone_takes_its_prompt_the_hand_over_and_its_steps():
    requests = Requests(np.array([5.0]), np.array([300.0]), np.array([11.0]))
    handover_s = 300 * 300_000 / 1e9
    first_s = KIND.decode_s(1) + KIND.prefill_s(300)
    later_s = handover_s + 10 * KIND.decode_s(1)
    expected = {"first_token": first_s, "per_token": later_s / 10, "end_to_end": first_s + later_s}
    for slo_on, expected_s in expected.items():
        assert apart_latency_s(limiting(slo_on), requests, 1, 1) == pytest.approx(expected_s)


def test_an_answer_of_one_token_is_not_handed_over():
    requests = Requests(np.array([0.0]), np.array([600.0]), np.array([1.0]))
    slow = replace(limiting("end_to_end"), link_gbps=1e-9)
    expected_s = KIND.decode_s(1) + KIND.prefill_s(600)
    assert apart_latency_s(slow, requests, 1, 1) == pytest.approx(expected_s)


def test_the_table_of_one_replica_is_that_of_the_kind_continuous(coarse_tables):
    jobs = Job("a", replica=KIND), Job("b", replica=KIND.does_both)
    table = measure(jobs, (1, 3))
    rates_rps = 3 * KIND.capacity_rps(1.0) * np.array([0.2, 0.5, 0.8])
    of_one, of_three = (
        [table.tail_latency_s(job, rates_rps / 3 * n, n) for job in jobs] for n in (1, 3)
    )
    np.testing.assert_array_equal(*of_one)
    assert (of_three[0] != of_three[1]).all()


def test_more_replicas_than_were_listed_keep_the_last_share():
    kind = replace(KIND, prefill=(0, 1, 2))
    assert [kind.prefill_of(n) for n in range(1, 10)] == [0, 1, 2, 3, 3, 4, 5, 5, 6]
    for prefill in ((0, 1, 2, 3), (0, 0, 1, 1, 2), (0,)):
        numbers = [replace(KIND, prefill=prefill).prefill_of(n) for n in range(1, 200)]
        assert set(np.diff(numbers)) <= {0, 1}
        assert all(number < n for n, number in enumerate(numbers, 1))


def test_replicas_without_their_roles_are_refused_with_a_clear_line():
    jobs = (Job("a", replica=replace(KIND, prefill=())),)
    missing = r"the prefill replicas of 1, 2, 3, .* is missing"
    with pytest.raises(ValueError, match=missing):
        measure(jobs, (2,), requests=300)
    workload = Workload(jobs, np.array([[3]]))
    with pytest.raises(ValueError, match=missing):
        SimulatedCluster(workload, draw(workload, 1), 2.0, np.array([2]))


def test_they_cannot_be_shared():
    jobs = [Job(name, replica=KIND, pool="p", models_per_replica=2) for name in "ab"]
    with pytest.raises(ValueError, match="replicas of kind disaggregated cannot be shared"):
        pools_of(jobs)


def test_a_mapping_and_its_replica_are_the_same():
    assert replica_of(MAPPING) == KIND
    assert MAPPING["prefill"] == [0, 1, 2]


def test_a_measured_gpu_gives_the_times_and_the_operator_the_link():
    gpu = {"gpu": "h100-80gb", "model": "llama2-70b", "tensor_parallel": 4}
    lengths = {"prompt_tokens": 800, "output_tokens": 67}
    link = {"kind": "disaggregated", "link_gbps": 400, "kv_bytes_per_token": 327_680}
    kind = replica_of(gpu | lengths | link)
    assert isinstance(kind, Disaggregated)
    assert kind.does_both == replica_of(gpu | lengths)
    assert kind.handover_s(np.array([2000.0])) == pytest.approx(2000 * 327_680 / 50e9)


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("link_gbps", 0.0, "link_gbps=0.0 must be a finite number > 0"),
        ("link_gbps", float("inf"), "link_gbps=inf must be a finite number > 0"),
        ("kv_bytes_per_token", -1, "kv_bytes_per_token=-1 must be a finite number > 0"),
        ("prefill_max_tokens", 0, "prefill_max_tokens=0 must be a number >= 1"),
        ("prefill", [1], r"prefill=\(1,\) must be the prefill replicas of 1, 2, 3, ... replicas"),
        ("prefill", [0, 0.5], r"prefill=\(0, 0.5\) must be the prefill replicas"),
        ("prefill", [0, 1, 0], r"from 0 on, each the last one or one more"),
        ("prefill", 2, "has a value that is not a number"),
        ("link_gbps", "fast", "has a value that is not a number"),
        ("alpha_s", 0, "replica of kind disaggregated: alpha_s=0 must be"),
        ("link_gbit", 1, "unknown field 'link_gbit'; did you mean 'link_gbps'"),
    ],
)
def test_a_wrong_value_is_named(field, value, problem):
    with pytest.raises(ValueError, match=problem):
        replica_of(MAPPING | {field: value})


def test_a_missing_link_is_named():
    with pytest.raises(ValueError, match="kind disaggregated: link_gbps, kv_bytes_per_token is"):
        replica_of(mapping_of(KIND.does_both) | {"kind": "disaggregated"})


def test_the_other_kinds_are_not_disaggregated():
    assert not isinstance(KIND.does_both, Disaggregated)
    assert isinstance(KIND.prefill_replica, Continuous)
