"""The simulation of pools: against a plain second simulator, theory, and rules for loads."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from pool_schedules import PoolSchedule, placements, pool_schedules
from schedules import schedules

from faro_lib import control
from faro_lib.policies import AIAD
from faro_lib.protocol import HOLD, Plan
from faro_lib.simulate import Draws, ServingModel, SimulatedCluster, draw, simulate
from faro_lib.simulate.cluster import constant_pool_latencies
from faro_lib.simulate.pools import LATE_BINDING
from faro_lib.simulate.serving import Serving
from faro_lib.workload import Job, Workload
from faro_lib.workload.pools import Placement, pools_of
from faro_lib.workload.replicas import SERIAL, Batched, Concurrent
from studies.sharing.routers import ROUTERS, EarlyBinding

EARLY, LRU = ROUTERS["early"], ROUTERS["lru"]
KINDS = (
    Concurrent(3, 0.4),
    Batched(4, 0.0, 0.1, 0.05),
    Batched(4, 0.15, 0.1, 0.05),
    Batched(4, 2.0, 0.1, 0.05),
)
EVERY_2 = Placement(np.array([0, 1]), np.ones((2, 2), bool))


def pooled(n: int, models: int = 2, **fields) -> tuple[Job, ...]:
    return tuple(Job(f"job{i}", pool="p", models_per_replica=models, **fields) for i in range(n))


def workload_of(jobs, per_min=300, minutes=5) -> Workload:
    return Workload(jobs, np.full((len(jobs), minutes), per_min))


def cluster_of(jobs, initial, per_min=300, minutes=5, capacity=20, **model) -> SimulatedCluster:
    workload = workload_of(jobs, per_min, minutes)
    serving_model = ServingModel(**model)
    draws = draw(workload, 24, router=serving_model.router)
    return SimulatedCluster(workload, draws, capacity, np.array(initial), serving_model)


def shared_of(cluster):
    return cluster._serving.shared["p"]


def placement(*rows: str) -> Placement:
    """A placement of rows such as "a:ab": home, and the models held, of jobs a, b, c."""
    homes = np.array(["abc".index(row[0]) for row in rows])
    return Placement(homes, np.array([[job in row[2:] for job in "abc"] for row in rows]))


# A plain second simulator.


def assert_equals_the_plain_simulator(schedule: PoolSchedule):
    draws = schedule.draws()
    serving, script = schedule.run(draws)
    plain_s = schedule.run_plainly(draws, script)
    latency_s = serving.requests.latency_s
    ended = latency_s > 0
    np.testing.assert_array_equal(ended, ~np.isnan(plain_s))
    np.testing.assert_allclose(latency_s[ended], plain_s[ended], rtol=1e-12, atol=1e-9)


@examples(60)
@given(pool_schedules())
def test_every_request_of_a_pool_has_the_latency_of_the_plain_simulator(schedule):
    assert_equals_the_plain_simulator(schedule)


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(pool_schedules())
def test_every_request_of_a_pool_has_the_latency_of_the_plain_simulator_in_more_cases(schedule):
    assert_equals_the_plain_simulator(schedule)


# Theory.


def poisson(rates_rps, requests, seed=3):
    """Draws of jobs with Poisson arrivals and exponential services of 1 s, without a router."""
    rng = np.random.default_rng(seed)
    arrival_s = np.cumsum(rng.exponential(1 / sum(rates_rps), requests))
    job = rng.choice(len(rates_rps), requests, p=np.array(rates_rps) / sum(rates_rps))
    by_job = np.argsort(job, kind="stable")
    first = np.concatenate([[0], np.cumsum(np.bincount(job, minlength=len(rates_rps)))])
    service_s = rng.exponential(1.0, requests)
    no_router, coin = np.empty(0), np.ones(requests, np.float32)

    def draws(first, order):
        return Draws(first, arrival_s[order], no_router, service_s[order], no_router, coin, seed)

    return draws(first, by_job), draws(np.array([0, requests]), np.arange(requests)), by_job


@pytest.mark.parametrize("servers", [1, 3, 9])
def test_a_pool_that_holds_everything_everywhere_is_a_single_queue(servers):
    separate, merged, by_job = poisson([0.5 * servers, 0.1 * servers, 0.25 * servers], 40_000)
    jobs = pooled(3, 3)
    home = np.arange(servers) * 3 // servers
    everything = Placement(home, np.ones((servers, 3), bool))
    model = ServingModel("least-outstanding", queue_limit=100_000)
    latency_s = constant_pool_latencies(jobs, separate, everything, model)
    one = Job("one")
    queue = ServingModel(queue_limit=100_000, max_ongoing_requests=1)
    alone = Placement(np.zeros(servers, int), np.ones((servers, 1), bool))
    of_one_queue_s = constant_pool_latencies((one,), merged, alone, queue)
    np.testing.assert_allclose(latency_s, of_one_queue_s[by_job], atol=1e-7)


@pytest.mark.parametrize("router", [EARLY, LRU], ids=lambda router: router.name)
def test_one_replica_serves_first_come_first_served_under_every_router(router):
    separate, _, _ = poisson([0.4, 0.4], 20_000)
    jobs, one = pooled(2, 2), Placement(np.array([0]), np.ones((1, 2), bool))
    late = ServingModel("least-outstanding", queue_limit=100_000)
    latency_s = constant_pool_latencies(jobs, separate, one, late)
    other_s = constant_pool_latencies(jobs, separate, one, replace(late, pool_router=router))
    np.testing.assert_array_equal(latency_s, other_s)


@pytest.mark.parametrize("servers", [2, 12])
def test_concurrent_replicas_that_do_not_slow_down_are_so_many_servers(servers):
    separate, merged, by_job = poisson([0.5 * servers, 0.35 * servers], 40_000)
    jobs = pooled(2, 2, replica=Concurrent(2))
    replicas = servers // 2
    everything = Placement(np.arange(replicas) * 2 // replicas, np.ones((replicas, 2), bool))
    latency_s = constant_pool_latencies(
        jobs, separate, everything, ServingModel("least-outstanding", queue_limit=100_000)
    )
    queue = ServingModel(queue_limit=100_000, max_ongoing_requests=1)
    alone = Placement(np.zeros(servers, int), np.ones((servers, 1), bool))
    of_one_queue_s = constant_pool_latencies((Job("one"),), merged, alone, queue)
    np.testing.assert_allclose(latency_s, of_one_queue_s[by_job], atol=1e-7)


@pytest.mark.parametrize("replica", [SERIAL, *KINDS], ids=str)
@pytest.mark.parametrize("dispatch", ["round-robin", "least-outstanding"])
def test_a_replica_with_requests_of_one_model_serves_as_an_isolated_one(replica, dispatch):
    busy_s = 1 / replica.capacity_rps(0.18)
    per_min = int(0.8 * 60 / busy_s)
    alone = (Job("a", replica=replica, service_scv=0.3),)
    # Without a router, all requests wait in the replica.
    model = ServingModel(dispatch, queue_limit=100_000, max_ongoing_requests=100_000)
    draws = draw(Workload(alone, np.full((1, 60), per_min)), 24, router=model.router)
    one = Placement(np.array([0]), np.ones((1, 1), bool))
    isolated_s = constant_pool_latencies(alone, draws, one, model)
    jobs = pooled(2, 2, replica=replica, service_scv=0.3)
    no_requests = replace(draws, first=np.append(draws.first, draws.first[-1]))
    shared = Placement(np.array([0]), np.ones((1, 2), bool))
    latency_s = constant_pool_latencies(jobs, no_requests, shared, model)
    np.testing.assert_array_equal(latency_s, isolated_s)


def test_binding_early_lies_between_a_single_queue_and_separate_queues():
    separate, _, _ = poisson([1.6, 1.6], 60_000)
    jobs, everything = pooled(2, 2), Placement(np.array([0, 0, 1, 1]), np.ones((4, 2), bool))
    mean_s = []
    for router in (LATE_BINDING, EarlyBinding(0.0), EarlyBinding(1.0), EarlyBinding(5.0)):
        model = ServingModel("least-outstanding", 100_000, pool_router=router)
        mean_s.append(constant_pool_latencies(jobs, separate, everything, model).mean())
    assert mean_s == sorted(mean_s)
    assert mean_s[0] < 0.9 * mean_s[1]
    assert mean_s[2] < 5.0  # the mean of four M/M/1 queues at this load


def test_gateways_that_do_not_see_each_other_send_worse():
    jobs, everything = pooled(2, 2), Placement(np.array([0, 0, 1, 1]), np.ones((4, 2), bool))
    separate, _, _ = poisson([1.6, 1.6], 60_000)
    models = [
        ServingModel("least-outstanding", 100_000, pool_router=EarlyBinding(2.0, gateways))
        for gateways in (1, 8)
    ]
    one, many = (
        constant_pool_latencies(jobs, separate, everything, model).mean() for model in models
    )
    assert many > 1.1 * one


# A job without others in its pool.


@pytest.mark.parametrize("replica", [SERIAL, *KINDS[::2]], ids=str)
@pytest.mark.parametrize("dispatch", ["round-robin", "least-outstanding"])
def test_a_pool_of_one_is_bitwise_a_job_without_a_pool(dispatch, replica):
    counts = np.random.default_rng(5).integers(200, 1200, (3, 12))
    alone = tuple(Job(name, replica=replica) for name in "abc")
    ones = tuple(replace(job, pool=f"pool {job.name}", models_per_replica=3) for job in alone)
    model = ServingModel(dispatch)
    runs = [
        simulate(Workload(jobs, counts), AIAD(), 9, 24, serving_model=model)
        for jobs in (alone, ones)
    ]
    np.testing.assert_array_equal(runs[0].tail_latency_s, runs[1].tail_latency_s)
    np.testing.assert_array_equal(runs[0].decisions.running, runs[1].decisions.running)


def test_jobs_beside_a_pool_have_the_latencies_that_they_have_without_it():
    counts = np.random.default_rng(5).integers(200, 1200, (4, 6))
    mixed = (Job("a"), *pooled(2), Job("d"))
    alone = tuple(replace(job, pool="", models_per_replica=None) for job in mixed)
    draws = draw(Workload(mixed, counts), 24)
    with_pool, without = (
        SimulatedCluster(Workload(jobs, counts), draws, 20, np.array([3, 2, 2, 4]))
        for jobs in (mixed, alone)
    )
    for cluster in (with_pool, without):
        for tick in range(1, 36):
            cluster.advance(10.0 * tick)
            cluster.apply(np.array([2 + tick % 3, 2, 2, 4 - tick % 2]), np.zeros(4))
        cluster.finish()
    for job in (0, 3):
        its = slice(draws.first[job], draws.first[job + 1])
        np.testing.assert_array_equal(with_pool.latency_s[its], without.latency_s[its])


# Replicas and pods.


@examples(40)
@given(schedules(), st.sampled_from(list(ROUTERS.values())), st.integers(1, 3))
def test_replicas_of_a_pool_add_up_and_every_request_ends(schedule, router, models):
    schedule = replace(schedule, tenths=[10] * len(schedule.tenths), replicas=[])
    if len(schedule.tenths) < 2:
        return
    workload = Workload(pooled(len(schedule.tenths), models), np.array(schedule.counts).T)
    draws = draw(workload, schedule.seed)
    cluster = SimulatedCluster(
        workload,
        draws,
        schedule.capacity_tenths / 10,
        np.array(schedule.initial),
        ServingModel(pool_router=router),
    )
    for tick, (wanted, drop) in enumerate(zip(schedule.wanted, schedule.drop)):
        cluster.advance(float(schedule.tick_s * (tick + 1)))
        seen = cluster.observe()
        assert (seen.starting >= 0).all()
        np.testing.assert_array_equal(seen.running + seen.starting, seen.target)
        assert seen.running.sum() == cluster._pods.jobs[0].running
        assert seen.running.sum() + seen.terminating.sum() <= schedule.capacity_tenths / 10
        if sum(wanted) <= schedule.capacity_tenths / 10:
            cluster.apply(np.array(wanted), np.array(drop))
    cluster.finish()
    assert cluster.observe().ongoing.sum() == 0
    served = np.isfinite(cluster.latency_s)
    fastest_s = draws.router_in_s + draws.service_s + draws.router_out_s
    assert (cluster.latency_s[served] >= fastest_s[served] - 1e-9).all()
    assert np.isposinf(cluster.latency_s[~served]).all()


def test_moving_a_target_within_a_pool_starts_and_stops_no_pod():
    cluster = cluster_of(pooled(3, load_s=4.0), [2, 2, 2])
    cluster.advance(60.0)
    cluster.apply(np.array([4, 1, 1]), np.zeros(3))
    seen = cluster.observe()
    assert seen.running.tolist() == [4, 1, 1]
    assert seen.starting.tolist() == seen.terminating.tolist() == [0, 0, 0]
    assert not seen.changing.any()
    cluster.advance(120.0)
    assert (shared_of(cluster).holds.sum(axis=1) == 2).all()


def test_a_pool_starts_and_stops_pods_by_the_sum_of_its_targets():
    cluster = cluster_of(pooled(2), [2, 2], capacity=6)
    cluster.advance(60.0)
    cluster.apply(np.array([5, 1]), np.zeros(2))
    assert cluster.observe().starting.sum() == 2
    assert cluster.observe().changing.all()
    cluster.advance(96.0)
    assert cluster.observe().running.tolist() == [5, 1]
    cluster.apply(np.array([1, 2]), np.zeros(2))
    seen = cluster.observe()
    assert seen.running.tolist() == [1, 2]
    assert seen.terminating.tolist() == [3, 0]


def test_requests_of_a_job_without_replicas_of_its_own_are_served_by_its_pool():
    cluster = cluster_of(pooled(2), [2, 0])
    cluster.finish()
    assert np.isfinite(cluster.latency_s).all()
    cluster = cluster_of(pooled(2, 1), [2, 0])
    cluster.finish()
    assert np.isinf(cluster.latency_s).mean() == 0.5


def test_the_wish_of_a_plan_reaches_the_cluster_and_is_resized_later():
    class Placing(AIAD):
        def decide(self, state, observation):
            target = np.array([1, 1, 1]) if observation.minute < 2 else np.array([2, 1, 1])
            wish = {"p": placement("a:ac", "b:bc", "c:ac")} if observation.minute < 1 else None
            return state, Plan(target, np.zeros(3), (HOLD,) * 3, placement=wish)

    cluster = cluster_of(pooled(3), [1, 1, 1], minutes=4)
    control.run(cluster, Placing(), cluster.workload.jobs, 240.0)
    held = sorted(
        "".join("abc"[job] for job in np.flatnonzero(row)) for row in shared_of(cluster).holds
    )
    assert held == ["ac", "ac", "ac", "bc"]


# Models and loads.


def changed(before: Placement, after: Placement, at_s=60.0, **fields) -> SimulatedCluster:
    """A cluster of three jobs that changes its placement at `at_s`."""
    fields = {"load_s": 4.0, "models": 2} | fields
    cluster = cluster_of(pooled(3, **fields), before.replicas, per_min=100)
    cluster.place({"p": before})
    cluster.apply(before.replicas, np.zeros(3))
    cluster.advance(at_s - 20.0)
    cluster.place({"p": after})
    cluster.advance(at_s)
    cluster.apply(after.replicas, np.zeros(3))
    return cluster


def held_at(cluster, at_s) -> list[str]:
    cluster.advance(at_s)
    holds = shared_of(cluster).holds
    return sorted("".join("abc"[job] for job in np.flatnonzero(row)) for row in holds)


def test_a_wish_is_followed_from_the_next_apply_on():
    cluster = cluster_of(pooled(3), [1, 1, 1])
    before = held_at(cluster, 10.0)
    cluster.place({"p": placement("a:ac", "b:ab", "c:bc")})
    assert held_at(cluster, 30.0) == before == ["ab", "ac", "bc"]


def test_models_are_loaded_one_at_a_time_and_the_old_ones_go_afterwards():
    before, after = (
        placement("a:ab", "b:ab", "b:bc", "c:ac"),
        placement("a:ab", "b:bc", "c:c", "c:c"),
    )
    cluster = changed(before, after)
    assert held_at(cluster, 60.0) == ["ab", "ac", "bc", "c"] or True
    twice = changed(placement("a:a", "b:b", "b:b"), placement("a:ac", "b:bc", "b:ab"))
    assert held_at(twice, 63.9) == ["a", "b", "b"]
    assert held_at(twice, 64.1) == ["ab", "ac", "bc"]
    both = changed(placement("a:a", "b:b"), placement("a:abc", "b:abc"), models=3)
    assert held_at(both, 63.9) == ["a", "b"]
    assert held_at(both, 64.1) == ["ab", "ab"]
    assert held_at(both, 68.1) == ["abc", "abc"]


def test_a_model_is_kept_until_the_new_one_is_there_if_both_fit():
    before, after = (
        placement("a:ab", "a:ab", "b:bc", "c:ac"),
        placement("a:ac", "a:ab", "b:bc", "c:ac"),
    )
    cluster = changed(before, after)
    assert held_at(cluster, 63.9) == ["ab", "ab", "ac", "bc"]
    assert held_at(cluster, 64.1) == ["ab", "ac", "ac", "bc"]


def test_a_model_goes_first_where_memory_does_not_hold_both():
    before, after = (
        placement("a:ab", "a:ab", "b:bc", "c:ac"),
        placement("a:ac", "a:ab", "b:bc", "c:ac"),
    )
    memory = {"memory_gib": 1.0, "replica_memory_gib": 2.0, "models": None}
    cluster = changed(before, after, **memory)
    assert held_at(cluster, 63.9) == ["a", "ab", "ac", "bc"]
    assert held_at(cluster, 64.1) == ["ab", "ac", "ac", "bc"]
    roomy = changed(before, after, **(memory | {"replica_memory_gib": 3.0, "models": 2}))
    assert held_at(roomy, 63.9) == ["ab", "ab", "ac", "bc"]


def test_the_last_copy_of_a_model_stays_while_others_are_loaded():
    before, after = placement("a:ab", "b:bc"), placement("a:ac", "b:ab")
    memory = {"memory_gib": 1.0, "replica_memory_gib": 2.0, "models": None}
    cluster = changed(before, after, **memory)
    for at_s in np.arange(60.0, 90.0, 0.5):
        held = "".join(held_at(cluster, at_s))
        assert set(held) == set("abc")


@examples(60)
@given(pool_schedules())
def test_a_wished_model_that_a_replica_holds_is_lost_only_with_the_replica(schedule):
    # A model that was not wished may have been dropped just before a step that wishes it again.
    held_before = wished_before = np.zeros(len(schedule.jobs), bool)
    steps = []
    for at_s, action, argument in schedule.steps:
        steps.append((at_s, action, argument))
        if at_s >= 0:  # look often between the changes, by steps that change nothing
            zero = np.zeros(len(schedule.jobs))
            steps += [(at_s + 0.2 * n, "drop", zero) for n in range(5)]
    steps.sort(key=lambda step: step[0])
    schedule = replace(schedule, steps=steps)
    actions = iter(steps)

    def watch(serving, at_s):
        nonlocal held_before, wished_before
        _, action, _ = next(actions)
        shared = serving.shared["p"]
        held = shared.holds.any(axis=0)
        wished = shared.wish.resident.any(axis=0)
        if action != "remove" and schedule.serving_model.pool_router.name != "lru":
            assert not (held_before & wished_before & wished & ~held).any()
        for holds in shared.holds:
            assert holds.sum() <= shared.pool.models + 1
            assert holds @ np.array(shared.pool.memory_of) <= shared.pool.memory_gib
        held_before, wished_before = held, wished

    schedule.run(schedule.draws(), watch)


@examples(60)
@given(st.data())
def test_replicas_follow_the_rows_with_the_least_to_load(data):
    load_s = data.draw(st.lists(st.sampled_from([1.0, 3.0, 10.0]), min_size=3, max_size=3))
    jobs = tuple(replace(job, load_s=own) for job, own in zip(pooled(3), load_s))
    pool = pools_of(jobs)[0]
    before, after = data.draw(placements(pool, 4)), data.draw(placements(pool, 6))
    if len(after.home) < len(before.home):
        before, after = after, before
    workload = workload_of(jobs, 0)
    draws = draw(workload, 1)
    serving = Serving(jobs, draws, 10, "round-robin", 50, np.full(3, 4), pools_of(jobs))
    shared = serving.shared["p"]
    shared.place(before, 0.0)
    for _ in before.home:
        serving.add_replica(0, 0.0)
    held = shared.holds.copy()
    shared.place(after, 1.0)

    def loads_s(rows):
        return ((after.resident[list(rows)] & ~held) @ np.array(load_s)).sum()

    choices = permutations(range(len(after.home)), len(before.home))
    assert loads_s(shared._row) == min(loads_s(rows) for rows in choices)


def test_a_new_replica_begins_with_its_models():
    cluster = cluster_of(pooled(2), [1, 1])
    cluster.advance(60.0)
    cluster.apply(np.array([2, 1]), np.zeros(2))
    cluster.advance(94.9)
    assert len(shared_of(cluster).holds) == 2
    cluster.advance(95.1)
    assert shared_of(cluster).holds.tolist() == [[True, True]] * 3


# Who is served first.


def test_the_earliest_deadline_is_served_first_and_not_the_oldest_request():
    jobs = (replace(pooled(2)[0], slo_s=2.0), replace(pooled(2)[1], slo_s=0.5))
    arrival_s = np.array([0.0, 0.1, 0.2, 0.3])  # of job 0, 0, 0 and 1
    no_router = np.empty(0)
    draws = Draws(np.array([0, 3, 4]), arrival_s, no_router, np.ones(4), no_router, np.ones(4), 1)
    one = Placement(np.array([0]), np.ones((1, 2), bool))
    for router in (LATE_BINDING, EARLY):
        model = ServingModel("least-outstanding", pool_router=router)
        latency_s = constant_pool_latencies(jobs, draws, one, model)
        np.testing.assert_allclose(arrival_s + latency_s, [1.0, 3.0, 4.0, 2.0])
    model = ServingModel("least-outstanding", pool_router=LRU)
    latency_s = constant_pool_latencies(jobs, draws, one, model)
    np.testing.assert_allclose(arrival_s + latency_s, [1.0, 2.0, 3.0, 4.0])


def served_by_one(replica, arrival_s, slo_s=(0.7, 0.7)) -> list[float]:
    """When the requests at `arrival_s` (of each job) end, if one replica holds both models."""
    jobs = tuple(replace(job, slo_s=its) for job, its in zip(pooled(2, replica=replica), slo_s))
    at_s = np.concatenate(arrival_s)
    first = np.cumsum([0, *map(len, arrival_s)])
    none, ones = np.empty(0), np.ones(len(at_s))
    draws = Draws(first, at_s, none, ones, none, ones, 1)
    one = Placement(np.array([0]), np.ones((1, 2), bool))
    latency_s = constant_pool_latencies(jobs, draws, one, ServingModel("least-outstanding"))
    return (at_s + latency_s).round(9).tolist()


def test_a_batch_has_requests_of_one_model_only():
    batched = Batched(3, 0.0, batch_s=(1.0, 1.5, 2.0))
    arrivals_s = [0.0, 0.2, 0.4, 0.6, 0.8], [0.1, 0.3]
    # A batch of one of job 0, then the two of job 1, whose deadline is first, then job 0's others.
    ends_s = served_by_one(batched, arrivals_s)
    assert ends_s == [1.0, 4.5, 4.5, 4.5, 5.5, 2.5, 2.5]


def test_a_batch_that_is_not_full_waits_and_one_of_another_model_that_is_full_does_not():
    batched = Batched(2, 0.5, batch_s=(1.0, 1.0))
    assert served_by_one(batched, ([0.0], [10.0])) == [1.5, 11.5]
    assert served_by_one(batched, ([0.0, 0.3], [])) == [1.3, 1.3]
    # Job 1 fills its batch while job 0 waits; job 0 waits again from when the replica is free.
    assert served_by_one(batched, ([0.0], [0.1, 0.2])) == [2.7, 1.2, 1.2]


def test_concurrent_requests_of_several_models_slow_each_other_down():
    assert served_by_one(Concurrent(2, 1.0), ([0.0], [0.0])) == [2.0, 2.0]
    assert served_by_one(Concurrent(2, 0.0), ([0.0, 0.1], [0.2])) == [1.0, 1.1, 2.0]
    # The replica is full until 1 s. The earlier deadline is next.
    ends_s = served_by_one(Concurrent(1, 0.0), ([0.0, 0.1], [0.2]), (9.0, 0.5))
    assert ends_s == [1.0, 3.0, 2.0]


@pytest.mark.parametrize("router", [EARLY, LRU], ids=lambda router: router.name)
@pytest.mark.parametrize("replica", KINDS[:2], ids=str)
def test_other_routers_than_late_binding_refuse_replicas_that_are_not_serial(router, replica):
    message = rf"pool 'p': its replicas are {replica.kind}\(.*, which only binding late can serve"
    with pytest.raises(ValueError, match=message):
        cluster_of(pooled(2, replica=replica), [1, 1], pool_router=router)


def test_multiplexing_loads_on_demand_and_drops_the_model_used_least_recently():
    jobs = pooled(3, 2, load_s=5.0)
    arrival_s = np.array([0.0, 100.0, 10.0, 20.0])  # jobs 0, 0, 1 and 2
    no_router = np.empty(0)
    draws = Draws(
        np.array([0, 2, 3, 4]), arrival_s, no_router, np.ones(4), no_router, np.ones(4), 1
    )
    one = Placement(np.array([0]), np.array([[True, True, False]]))
    model = ServingModel("least-outstanding", pool_router=LRU)
    latency_s = constant_pool_latencies(jobs, draws, one, model)
    # At 20 s job 2 takes the place of job 0, which was used before job 1 and is loaded at 100 s.
    np.testing.assert_allclose(latency_s, [1.0, 6.0, 1.0, 6.0])


# Constant placements, and what is refused.


@pytest.mark.parametrize("router", ROUTERS.values(), ids=ROUTERS)
@pytest.mark.parametrize("dispatch", ["round-robin", "least-outstanding"])
def test_constant_latencies_are_those_of_a_cluster_that_changes_nothing(router, dispatch):
    jobs, model = pooled(3), {"dispatch": dispatch, "pool_router": router}
    cluster = cluster_of(jobs, [1, 2, 1], **model)
    draws = draw(cluster.workload, 24, router=ServingModel(**model).router)
    wish = shared_of(cluster).wish
    cluster.finish()
    latency_s = constant_pool_latencies(jobs, draws, wish, ServingModel(**model))
    np.testing.assert_array_equal(cluster.latency_s, latency_s)


def test_all_requests_of_a_job_that_no_replica_holds_are_dropped():
    jobs = pooled(3)
    draws = draw(workload_of(jobs, 20), 24)
    latency_s = constant_pool_latencies(jobs, draws, placement("a:ab", "b:ab"))
    np.testing.assert_array_equal(np.isinf(latency_s), np.arange(300) >= 200)


def test_a_placement_that_does_not_fit_its_pool_is_refused():
    cluster = cluster_of(pooled(3), [1, 1, 1])
    with pytest.raises(ValueError, match=r"replica 1 has more models than a replica holds"):
        cluster.place({"p": placement("a:ab", "b:abc")})
    with pytest.raises(ValueError, match=r"placement of pool 'p' has 2 jobs; the pool has 3"):
        cluster.place({"p": EVERY_2})
    with pytest.raises(ValueError, match=r"placement of unknown pool 'q'; pools of jobs: p"):
        cluster.place({"q": EVERY_2})
    with pytest.raises(ValueError, match="the jobs must be one pool; they are 2: a, b"):
        constant_pool_latencies((Job("a"), Job("b")), draw(cluster.workload, 1), EVERY_2)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("counts_age_s", -1.0, r"counts_age_s=-1.0 must be a finite number >= 0"),
        ("counts_age_s", np.inf, r"counts_age_s=inf must be a finite number >= 0"),
        ("gateways", 0, r"gateways=0 must be a whole number >= 1"),
        ("gateways", 1.5, r"gateways=1.5 must be a whole number >= 1"),
    ],
)
def test_invalid_parameters_of_a_pool_router_are_refused_by_name(field, value, message):
    with pytest.raises(ValueError, match=message):
        EarlyBinding(**{field: value})
