"""Prefill and decode replicas that come and go, against constant ones and a plain simulation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_steps import APART, STEPS, Plain, latency_of, whole_prompts

from faro_lib.simulate import Draws, ServingModel, SimulatedCluster, draw
from faro_lib.simulate.serving import constant_latencies
from faro_lib.workload import Job, Workload
from faro_lib.workload.replicas import Disaggregated
from faro_ops.advise.recommend.apart import ClusterApart
from studies.disaggregated import Requests

KIND = Disaggregated(**STEPS, **APART, prefill=(0, 1, 1, 2))
CHAT = Job("chat", replica=KIND, cold_start_s=5.0, min_replicas=0)
PLAIN = Job("plain", service_time_s=0.2, cold_start_s=5.0)
MODELS = {
    "round-robin": ServingModel("round-robin", queue_limit=5),
    "least-outstanding": ServingModel("least-outstanding"),
}


def limiting(job: Job, slo_on: str) -> Job:
    weight = 20.0 if slo_on == "both" else 0.0
    return replace(job, replica=replace(KIND, slo_on=slo_on, per_token_weight=weight))


def drawn(jobs: tuple[Job, ...], per_min: int, model: ServingModel) -> tuple[Workload, Draws]:
    workload = Workload(jobs, np.full((len(jobs), 4), per_min))
    return workload, draw(workload, 7, router=model.router)


def cluster_of(workload, draws, initial, model) -> ClusterApart:
    return ClusterApart(workload, draws, 20.0, np.array(initial), model)


@pytest.mark.parametrize("dispatch", MODELS)
@pytest.mark.parametrize("slo_on", ["first_token", "per_token", "end_to_end", "both"])
@pytest.mark.parametrize("replicas", [2, 4])
def test_constant_replicas_are_those_of_the_latency_table(dispatch, slo_on, replicas):
    model, jobs = MODELS[dispatch], (limiting(CHAT, slo_on), PLAIN)
    workload, draws = drawn(jobs, 250, model)
    cluster = cluster_of(workload, draws, [replicas, 3], model)
    cluster.finish()
    places = np.array([model.limit_of(job) for job in jobs])
    rules = dispatch, model.queue_limit, places
    expected = constant_latencies(jobs, draws, [replicas, 3], *rules)
    np.testing.assert_allclose(cluster.latency_s, expected, rtol=1e-9)
    assert np.isfinite(expected).any()


def test_a_single_replica_does_both():
    model = MODELS["least-outstanding"]
    workload, draws = drawn((CHAT,), 90, model)
    cluster = cluster_of(workload, draws, [1], model)
    cluster.finish()
    alike = Workload((replace(CHAT, replica=KIND.does_both),), workload.requests_per_min)
    other = SimulatedCluster(alike, draws, 20.0, np.array([1]), model)
    other.finish()
    np.testing.assert_allclose(cluster.latency_s, other.latency_s, rtol=1e-9)


def scaled(cluster: ClusterApart, targets: dict[float, int], step_s: float) -> None:
    """Advance in steps to the end, and set the target of the first job at some times."""
    now_s = 0.0
    while now_s < 240:
        now_s += step_s
        cluster.advance(now_s)
        if now_s in targets:
            target = np.array([targets[now_s], *[3] * (len(cluster.workload.jobs) - 1)])
            cluster.apply(target, np.zeros(len(target)))
    cluster.finish()


SCHEDULE = {30.0: 3, 60.0: 4, 120.0: 2, 150.0: 1, 180.0: 4, 210.0: 2}


@pytest.mark.parametrize("slo_on", ["first_token", "end_to_end", "both"])
def test_replicas_that_come_and_go_agree_with_a_second_simulation_of_all_steps(slo_on):
    """From 2 to 4 and back, so that prefill and decode both grow and shrink; all as replicas go."""
    model = MODELS["least-outstanding"]
    job = limiting(CHAT, slo_on)
    workload, draws = drawn((job,), 200, model)
    cluster = cluster_of(workload, draws, [2], model)
    scaled(cluster, {30.0: 3, 60.0: 4, 120.0: 2}, 5.0)

    def pool(requests: Requests, changes, outputs: bool) -> list[list[float]]:
        shuffle = np.random.default_rng([draws.seed, 2, 0]).permutation
        replicas = Plain(requests, 1, changes, shuffle)
        most = KIND.prefill_max_tokens if outputs else np.inf
        return replicas.run(whole_prompts(replicas, KIND, most))

    requests = Requests(draws.arrival_s, draws.prompt_tokens, draws.output_tokens)
    ones = np.ones(len(draws.arrival_s))
    # A cold start takes 5 s. 2 = 1 + 1, 3 = 1 + 2, 4 = 2 + 2.
    first = pool(requests._replace(output_tokens=ones), [(65.0, True), (120.0, False)], True)
    first_s = np.array([times[0] for times in first])
    ready_s = first_s + KIND.handover_s(draws.prompt_tokens)
    order = [r for r in np.argsort(ready_s, kind="stable") if draws.output_tokens[r] > 1]
    later = Requests(ready_s[order], np.zeros(len(order)), draws.output_tokens[order] - 1)
    second = pool(later, [(35.0, True), (120.0, False)], False)
    for request, times in zip(order, second):
        first[request] += times
    expected = latency_of(requests, first, 20.0, slo_on)
    np.testing.assert_allclose(cluster.latency_s, expected, rtol=1e-9)


@pytest.mark.parametrize("dispatch", MODELS)
@pytest.mark.parametrize("per_min", [30, 400])
def test_the_steps_in_which_time_advances_change_nothing(dispatch, per_min):
    model = MODELS[dispatch]
    workload, draws = drawn((CHAT, PLAIN), per_min, model)
    latencies = []
    for step_s in (0.5, 10.0):
        cluster = cluster_of(workload, draws, [2, 3], model)
        scaled(cluster, SCHEDULE, step_s)
        latencies.append(cluster.latency_s)
    np.testing.assert_allclose(*latencies, rtol=1e-9)


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(sorted(MODELS)),
    st.sampled_from([60, 600]),
    st.dictionaries(st.sampled_from(np.arange(10.0, 240.0, 10.0).tolist()), st.integers(0, 6)),
    st.integers(1, 5),
)
def test_every_request_is_served_or_dropped(dispatch, per_min, targets, initial):
    model = MODELS[dispatch]
    workload, draws = drawn((CHAT, PLAIN), per_min, model)
    cluster = cluster_of(workload, draws, [initial, 3], model)
    scaled(cluster, targets, 10.0)
    assert (cluster.latency_s > 0).all()
    assert cluster.observe().ongoing.tolist() == [0, 0]


def test_another_job_is_simulated_as_without_it():
    model = MODELS["round-robin"]
    workload, draws = drawn((CHAT, PLAIN), 100, model)
    cluster = cluster_of(workload, draws, [2, 3], model)
    scaled(cluster, SCHEDULE, 10.0)
    serial = (replace(PLAIN, name="serial"), PLAIN)
    other = SimulatedCluster(replace(workload, jobs=serial), draws, 20.0, np.array([2, 3]), model)
    other.finish()
    of_plain = slice(draws.first[1], None)
    np.testing.assert_array_equal(cluster.latency_s[of_plain], other.latency_s[of_plain])


def test_every_request_is_counted_once_when_it_ends():
    model = MODELS["least-outstanding"]
    workload, draws = drawn((limiting(CHAT, "end_to_end"),), 200, model)
    cluster = cluster_of(workload, draws, [2], model)
    scaled(cluster, SCHEDULE, 10.0)
    served = np.isfinite(cluster.latency_s)
    ends_s = (draws.arrival_s + cluster.latency_s)[served]
    counts = np.bincount(ends_s.astype(int), minlength=241)[:241]
    station = cluster._serving.station
    assert served.all()
    np.testing.assert_array_equal(station.finished[0], counts)
    in_time = draws.arrival_s + cluster.latency_s < 241
    total_s = cluster.latency_s[in_time].sum()
    assert station.finished_latency_s[0].sum() == pytest.approx(total_s)


def test_a_job_observes_its_requests_and_replicas():
    model = MODELS["least-outstanding"]
    workload, draws = drawn((CHAT,), 200, model)
    cluster = cluster_of(workload, draws, [2], model)
    cluster.advance(60.0)
    cluster.apply(np.array([4]), np.zeros(1))
    seen = cluster.observe()
    assert (seen.running.tolist(), seen.starting.tolist()) == ([2], [2])
    assert 0 < seen.ongoing[0] < 30
    cluster.advance(66.0)
    assert cluster.observe().running.tolist() == [4]
    assert 0 < cluster.observe().mean_latency_s[0] < 3
    cluster.finish()
    lasted_s = cluster.latency_s[cluster.minute_edges[0, 1] : cluster.minute_edges[0, 2]]
    assert np.isfinite(lasted_s).all()
