"""The kinds of replica: parameters, capacity, the table of jobs, and measured latencies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from faro_lib.queueing import latency_class
from faro_lib.simulate import ServingModel, SimulatedCluster, draw
from faro_lib.simulate.measure import measure
from faro_lib.utility import build_table
from faro_lib.workload import Job, Workload, arrays_of
from faro_lib.workload.readers import read_jobs
from faro_lib.workload.replicas import (
    SERIAL,
    Batched,
    Concurrent,
    Continuous,
    mapping_of,
    replica_of,
)
from studies.traces import write_jobs

REPLICAS = (
    SERIAL,
    Concurrent(4, 0.5),
    Batched(8, 0.01, 0.03, 0.002),
    Batched(3, batch_s=(0.1, 0.11, 0.15)),
    Continuous(0.02, 0.001, 1e-4, 16, 50, 200, output_cv=0.5, slo_on="first_token"),
    Continuous(
        *(0.02, 0.001, 1e-4, 16, 50, 200),
        beta_knees=((8.0, 0.002), (12.0, -0.001)),
        gamma_knees=((128.0, 3e-5),),
        cache_tokens=5000.0,
    ),
    Continuous(
        *(0.02, 0.001, 1e-4, 16, 50, 200),
        prompt_quantiles=((0.0, 5.0), (0.5, 90.0), (1.0, 900.0)),
        output_quantiles=((0.0, 50.0), (1.0, 50.0)),
    ),
)


@pytest.mark.parametrize("replica", REPLICAS, ids=str)
def test_a_replica_is_read_back_from_its_mapping(replica):
    assert replica_of(mapping_of(replica)) == replica


@pytest.mark.parametrize("ending", ["csv", "yaml"])
def test_a_table_of_jobs_carries_the_kinds_of_replica(ending, tmp_path):
    jobs = tuple(Job(f"job{n}", replica=replica) for n, replica in enumerate(REPLICAS))
    write_jobs(jobs, tmp_path / f"jobs.{ending}")
    assert read_jobs(tmp_path / f"jobs.{ending}") == jobs


@pytest.mark.parametrize("ending", ["csv", "yaml"])
def test_a_table_of_serial_jobs_has_no_column_replica(ending, tmp_path):
    write_jobs((Job("a"),), tmp_path / f"jobs.{ending}")
    assert "replica:" not in (tmp_path / f"jobs.{ending}").read_text().replace(
        ",replica,", "replica:"
    )


def test_the_load_of_a_job_is_relative_to_the_capacity_of_its_replicas():
    jobs = tuple(
        Job(f"job{n}", service_time_s=0.1, replica=replica) for n, replica in enumerate(REPLICAS)
    )
    # 4 at once at 1 / 2.5 of the speed; 8 requests in 46 ms; 3 in 150 ms; 50 iterations of 36 ms
    # for 16 sequences each; those with knees take 48 ms, and prompts 2.16 ms longer.
    expected = [0.1, 0.1 * 2.5 / 4, 0.046 / 8, 0.05, 50 * 0.036 / 16 + 0.02]
    expected += [50 * 0.048 / 16 + 0.02216, 50 * 0.036 / 16 + 0.02]
    np.testing.assert_allclose(arrays_of(jobs).busy_s, expected)


def test_knees_that_bend_nothing_change_no_latency():
    plain = REPLICAS[4]
    bent = replace(plain, beta_knees=((4.0, 0.0),), gamma_knees=((100.0, 0.0),))
    assert bent.capacity_rps(1.0) == plain.capacity_rps(1.0)
    latencies = [
        tail_latency_s(Job("a", model="own", replica=one), 10.0, 2, 5) for one in (plain, bent)
    ]
    assert latencies[0] == latencies[1]


def test_the_kv_cache_limits_the_sequences():
    assert replace(REPLICAS[4], cache_tokens=1000.0).max_sequences == 4  # of 250 tokens each


def test_jobs_with_other_replicas_are_of_other_latency_classes():
    assert len({latency_class(Job("a", replica=replica)) for replica in REPLICAS}) == len(REPLICAS)


def tail_latency_s(job, rate_rps, replicas, minutes):
    """The quantile of the latencies at a constant rate."""
    counts = np.full((1, minutes), round(60 * rate_rps))
    workload = Workload((job,), counts)
    draws = draw(workload, 5)
    cluster = SimulatedCluster(workload, draws, replicas, np.full(1, replicas))
    cluster.finish()
    return np.median(
        [np.quantile(part, job.quantile) for part in np.array_split(cluster.latency_s, minutes)]
    )


TRANSLATE = Job("a", slo_s=1.15, model="own", replica=Batched(8, 0.1, 0.3, 0.03))
CHAT = Job("a", slo_s=0.5, model="own", replica=replace(REPLICAS[4], prompt_cv=0.5))


@pytest.mark.parametrize("job", [TRANSLATE, CHAT], ids=["batched", "continuous"])
@pytest.mark.parametrize("rho", [0.4, 0.6])
def test_the_measured_table_has_the_latencies_of_the_kind(job, rho):
    table = measure((job,), (2,), requests=100_000)
    rate_rps = rho * 2 / job.busy_s
    assert table.tail_latency_s(job, rate_rps, 2) == pytest.approx(
        tail_latency_s(job, rate_rps, 2, 200), rel=0.1
    )


def test_faro_gives_a_batched_job_the_fewest_replicas_that_keep_its_slo():
    rate_rps = 25.0
    table = build_table(
        [TRANSLATE],
        np.full((1, 1, 2), rate_rps),
        [1],
        cold_start_minutes=0,
        latency_model=measure((TRANSLATE,), (1, 2, 3, 4)),
    )
    fewest = int(np.flatnonzero(table.value[0] > 0.99)[0])
    assert tail_latency_s(TRANSLATE, rate_rps, fewest, 20) < TRANSLATE.slo_s
    assert tail_latency_s(TRANSLATE, rate_rps, fewest - 1, 20) > TRANSLATE.slo_s


def test_the_lengths_of_token_services_do_not_change_other_jobs():
    counts = np.full((2, 3), 200)
    serial = draw(Workload((Job("a"), Job("b")), counts), 1)
    mixed = draw(Workload((Job("a"), Job("b", replica=CHAT.replica)), counts), 1)
    for name in ("arrival_s", "router_in_s", "router_out_s", "coin"):
        np.testing.assert_array_equal(getattr(mixed, name), getattr(serial, name))
    np.testing.assert_array_equal(mixed.service_s[:600], serial.service_s[:600])
    lengths = mixed.output_tokens[600:]
    np.testing.assert_array_equal(lengths, np.maximum(np.round(lengths), 1))
    assert lengths.mean() == pytest.approx(50, rel=0.1)
    assert lengths.std() / lengths.mean() == pytest.approx(0.5, rel=0.15)


def test_lengths_without_quantiles_are_drawn_as_before():
    drawn = CHAT.replica.lengths(np.random.default_rng(5), 4)
    normal = np.random.default_rng(5).standard_normal((2, 4))
    variance = np.log1p(np.array([[0.5], [0.5]]) ** 2)
    expected = [[200], [50]] * np.exp(np.sqrt(variance) * normal - variance / 2)
    np.testing.assert_array_equal(drawn, np.rint(expected))


def test_lengths_with_quantiles_have_them_scaled_to_the_mean():
    quantiles = ((0.0, 100.0), (0.5, 200.0), (1.0, 700.0))  # their mean is 300
    replica = replace(CHAT.replica, prompt_tokens=600, prompt_cv=0.0, prompt_quantiles=quantiles)
    prompts, outputs = replica.lengths(np.random.default_rng(5), 50_000)
    assert prompts.mean() == pytest.approx(600, rel=0.01)
    np.testing.assert_allclose(
        np.quantile(prompts, [0.0, 0.25, 0.5, 0.75, 1.0]), [200, 300, 400, 900, 1400], rtol=0.02
    )
    assert outputs.std() / outputs.mean() == pytest.approx(0.5, rel=0.05)  # still lognormal


def test_a_replica_has_room_for_a_batch_in_service_and_the_next_unless_the_job_has_a_limit():
    assert ServingModel().limit_of(TRANSLATE) == 16
    assert ServingModel(own_limits=(("a", 5),)).limit_of(TRANSLATE) == 5
    assert ServingModel(max_ongoing_requests=1).limit_of(Job("a")) == 1
