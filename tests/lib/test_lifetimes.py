"""Requests of jobs that are added and removed in the simulated cluster."""

from __future__ import annotations

import numpy as np
import pytest

from faro_lib.policies import Fixed
from faro_lib.simulate import ServingModel, SimulatedCluster, draw, simulate
from faro_lib.workload import Job, Workload

NONE = np.zeros(1)


def cluster_of(per_min, lifetime, replicas, dispatch="round-robin"):
    workload = Workload((Job("a"),), np.array([per_min]))
    draws = draw(workload, 24)
    serving_model = ServingModel(dispatch)
    return SimulatedCluster(
        workload, draws, 8, np.array([replicas]), serving_model, lifetimes=((0, *lifetime),)
    ), draws


def request(cluster, now_s, replicas):
    cluster.advance(now_s)
    cluster.apply(np.array([replicas]), NONE)


@pytest.mark.parametrize("dispatch", ["round-robin", "least-outstanding"])
def test_requests_for_a_job_before_it_exists_are_dropped(dispatch):
    cluster, draws = cluster_of([60, 60, 0], (120.0, np.inf), 0, dispatch)
    request(cluster, 120.0, 1)
    cluster.finish()
    assert np.isinf(cluster.latency_s[draws.arrival_s < 119]).all()


@pytest.mark.parametrize("dispatch", ["round-robin", "least-outstanding"])
def test_a_request_at_the_very_beginning_is_served(dispatch):
    workload = Workload((Job("a"),), np.array([[1]]))
    serving_model = ServingModel(dispatch)
    draws = draw(workload, 24, router=serving_model.router)
    assert draws.arrival_s[0] == 0
    cluster = SimulatedCluster(workload, draws, 1, np.array([1]), serving_model)
    cluster.finish()
    assert np.isfinite(cluster.latency_s).all()


def test_requests_wait_for_the_first_replica_of_a_new_job_and_are_all_served():
    cluster, draws = cluster_of([0, 60, 60, 0], (60.0, np.inf), 0)
    request(cluster, 60.0, 1)
    cluster.finish()
    assert np.isfinite(cluster.latency_s).all()
    first = draws.arrival_s < 65  # these waited for a cold start of 35 s
    assert (draws.arrival_s + cluster.latency_s)[first].min() >= 95.0
    ends_s = draws.arrival_s + cluster.latency_s
    assert len(np.unique(ends_s)) == len(ends_s), "one after another"


def test_a_removed_job_drops_waiting_requests_and_finishes_those_in_service():
    cluster, draws = cluster_of([1200, 0], (0.0, 30.0), 1)
    cluster.advance(30.0)
    inside = int(cluster.observe().ongoing[0])
    ended = int(np.sum(cluster.latency_s > 0))
    assert inside > 10
    cluster.apply(np.array([0]), NONE)
    assert cluster.observe().ongoing[0] <= 4  # requests in the replica
    cluster.finish()
    assert not cluster.observe().ongoing.any()
    assert (np.isinf(cluster.latency_s) | (cluster.latency_s > 0)).all()
    served = np.isfinite(cluster.latency_s)
    assert ended < len(draws.arrival_s)
    assert (draws.arrival_s + cluster.latency_s)[served].max() < 32.0
    assert np.isinf(cluster.latency_s[draws.arrival_s > 30.0]).all()


def test_a_job_is_present_from_its_beginning_to_its_end():
    cluster, _ = cluster_of([0, 0, 0], (60.0, 120.0), 0)
    seen = []
    for now_s in (0.0, 59.0, 60.0, 119.0, 120.0):
        cluster.advance(now_s)
        seen.append(bool(cluster.observe().present[0]))
    assert seen == [False, False, True, True, False]


TWICE = ((0, 0.0, 600.0), (0, 1200.0, np.inf))


def test_a_job_that_comes_back_is_absent_only_in_between():
    workload = Workload((Job("a"),), np.zeros((1, 30), int))
    cluster = SimulatedCluster(workload, draw(workload, 24), 8, np.array([2]), lifetimes=TWICE)
    seen = []
    for now_s in (0.0, 700.0, 1300.0):
        cluster.advance(now_s)
        seen.append(bool(cluster.observe().present[0]))
    assert seen == [True, False, True]


def test_a_job_that_comes_back_later_has_its_replicas_from_the_beginning():
    workload = Workload((Job("a"),), [[60, 60]])
    assert simulate(workload, Fixed(2), 8, 24, lifetimes=TWICE).initial.tolist() == [2]
