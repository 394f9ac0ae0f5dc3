"""The simulator against queueing theory: textbook formulas, written out here."""

from __future__ import annotations

from functools import cache
from math import exp, factorial, log

import numpy as np
import pytest
from examples import SHARE
from test_queueing import mdc_wait_cdf

from faro_lib.simulate import Draws, ServingModel, SimulatedCluster
from faro_lib.workload import Job, Workload
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.replicas import SERIAL
from faro_lib.workload.service import ServiceTime

SEED = 7
REQUESTS = round(1_000_000 * SHARE)
# Only the dispatcher has a queue: first come, first served.
ONE_QUEUE = ServingModel(queue_limit=100_000, max_ongoing_requests=1)
NO_QUEUE = ServingModel(dispatch="least-outstanding", max_ongoing_requests=1)


@cache
def exponential(mean_s):
    return lambda rng, n: rng.exponential(mean_s, n)


@cache
def constant(mean_s):
    return lambda rng, n: np.full(n, mean_s)


@cache  # two tests share the M/M/1 queue
def run_queue(
    rate_rps, service, servers, serving_model=ONE_QUEUE, requests=REQUESTS, replica=SERIAL
):
    """Poisson arrivals, no router: (latency, service) of every request once the queue is warm."""
    rng = np.random.default_rng(SEED)
    arrival_s = np.cumsum(rng.exponential(1 / rate_rps, requests))
    service_s = service(rng, requests)
    draws = Draws(
        np.array([0, requests]),
        arrival_s,
        np.empty(0),
        service_s,
        np.empty(0),
        np.ones(requests, np.float32),
        SEED,
    )
    counts = np.bincount((arrival_s // MINUTE_S).astype(int))
    cluster = SimulatedCluster(
        Workload((Job("job", replica=replica),), counts[None]),
        draws,
        servers,
        np.array([servers]),
        serving_model,
    )
    cluster.finish()
    return cluster.latency_s[requests // 100 :], service_s[requests // 100 :]


def erlang_b(load, servers):
    return (load**servers / factorial(servers)) / sum(
        load**k / factorial(k) for k in range(servers + 1)
    )


def erlang_c(load, servers):
    last = load**servers / factorial(servers) / (1 - load / servers)
    return last / (sum(load**k / factorial(k) for k in range(servers)) + last)


def test_time_in_an_mm1_queue_is_exponential():
    latency_s, _ = run_queue(0.7, exponential(1.0), 1)
    assert latency_s.mean() == pytest.approx(1 / 0.3, rel=0.03)
    assert np.quantile(latency_s, 0.99) == pytest.approx(log(100) / 0.3, rel=0.05)


@pytest.mark.parametrize(("servers", "rho"), [(2, 0.6), (4, 0.8), (10, 0.85)])
def test_in_an_mmc_queue_the_erlang_c_share_waits_exponentially_long(servers, rho):
    load = rho * servers
    latency_s, service_s = run_queue(load, exponential(1.0), servers)
    wait_s = latency_s - service_s
    waits = wait_s > 1e-9
    assert waits.mean() == pytest.approx(erlang_c(load, servers), rel=0.03)
    assert wait_s[waits].mean() == pytest.approx(1 / (servers - load), rel=0.05)
    assert np.quantile(wait_s[waits], 0.9) == pytest.approx(log(10) / (servers - load), rel=0.06)


def test_an_md1_queue_waits_half_as_long_on_average_as_an_mm1_queue():
    rho = 0.7
    for service, expected in (
        (exponential(1.0), rho / (1 - rho)),
        (constant(1.0), rho / (1 - rho) / 2),
    ):
        latency_s, service_s = run_queue(rho, service, 1)
        assert (latency_s - service_s).mean() == pytest.approx(expected, rel=0.04)


def test_waits_in_an_md1_queue_follow_erlangs_distribution():
    rho = 0.6
    latency_s, _ = run_queue(rho, constant(1.0), 1)
    for wait in (0.0, 0.5, 1.0, 2.5):
        terms = [
            (rho * (k - wait)) ** k / factorial(k) * exp(-rho * (k - wait))
            for k in range(int(wait) + 1)
        ]
        assert (latency_s - 1.0 <= wait + 1e-9).mean() == pytest.approx(
            (1 - rho) * sum(terms), abs=0.005
        )


@pytest.mark.parametrize(("servers", "rho"), [(3, 0.7), (8, 0.9)])
def test_waits_in_an_mdc_queue_follow_the_exact_distribution(servers, rho):
    latency_s, _ = run_queue(rho * servers, constant(1.0), servers)
    for wait in (0.0, 0.3, 1.0):
        share = (latency_s - 1.0 <= wait + 1e-9).mean()
        assert share == pytest.approx(float(mdc_wait_cdf(wait, rho, servers)), abs=0.01)


def test_waits_in_an_mg1_queue_follow_pollaczek_and_khinchine():
    service = ServiceTime(0.6, 0.3, 0.5)
    mean_s, rho = service.mean_s, 0.6

    def lognormal(rng, n):
        normals = rng.standard_normal(n)
        service.from_normals(normals)
        return normals

    latency_s, service_s = run_queue(rho / mean_s, lognormal, 1)
    expected = rho / (1 - rho) * mean_s * (1 + service.scv) / 2
    assert (latency_s - service_s).mean() == pytest.approx(expected, rel=0.04)


@pytest.mark.parametrize(
    "service", [exponential(1.0), constant(1.0)], ids=["exponential", "constant"]
)
def test_without_a_queue_the_erlang_b_share_is_dropped_for_any_service_times(service):
    latency_s, _ = run_queue(3.0, service, 4, NO_QUEUE)
    assert np.isinf(latency_s).mean() == pytest.approx(erlang_b(3.0, 4), rel=0.02)


def test_one_replica_behind_the_router_is_an_mm1k_queue():
    rho, serving_model = 1.2, ServingModel(queue_limit=5, max_ongoing_requests=4)
    latency_s, _ = run_queue(rho, exponential(1.0), 1, serving_model)
    k = (
        4 + 1 + (5 + 1)
    )  # "more than 5 waiting" lets a sixth in; the request held by the dispatcher is not counted
    assert np.isinf(latency_s).mean() == pytest.approx(
        (1 - rho) * rho**k / (1 - rho ** (k + 1)), rel=0.02
    )
    served_s = latency_s[np.isfinite(latency_s)]
    states = rho ** np.arange(k + 1)
    inside = (states * np.arange(k + 1)).sum() / states.sum()
    accepted_rps = rho * (1 - states[-1] / states.sum())
    assert served_s.mean() == pytest.approx(inside / accepted_rps, rel=0.02)  # Little's law


def test_a_service_time_has_its_stated_moments():
    normals = np.random.default_rng(SEED).standard_normal(2_000_000)
    service = ServiceTime(0.422472, 0.0793016, 0.0685808)
    service.from_normals(normals)
    assert normals.mean() == pytest.approx(service.mean_s, rel=1e-3)
    assert normals.var() / normals.mean() ** 2 == pytest.approx(service.scv, rel=0.01)
    assert service.mean_s == pytest.approx(0.154, abs=5e-4)  # as published for ResNet34
