"""Properties of the simulated cluster that hold for every schedule."""

from __future__ import annotations

import dataclasses
import gc
import weakref

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from schedules import Schedule, schedules

from faro_lib.policies import AIAD, FairShare, Fixed, Oneshot
from faro_lib.simulate import TRIAL_SEEDS, Draws, ServingModel, SimulatedCluster, draw, simulate
from faro_lib.simulate.latencies import quantile_of
from faro_lib.simulate.pods import CHECK_S
from faro_lib.workload import Job, Workload
from faro_lib.workload.arrivals import sample_arrivals
from faro_lib.workload.jobs import MINUTE_S

SERVING_MODELS = [
    ServingModel(),
    ServingModel(dispatch="least-outstanding"),
    ServingModel(dispatch="random"),
    ServingModel(queue_limit=3, max_ongoing_requests=2),
]
BUSY = Workload(
    (Job("a"), Job("b"), Job("c")), np.random.default_rng(5).integers(200, 1200, (3, 12))
)


@examples(60)
@given(schedules(), st.sampled_from(SERVING_MODELS))
def test_every_request_is_either_served_or_dropped(schedule, serving_model):
    draws = schedule.draws()
    cluster, _ = schedule.run(draws, serving_model)
    served = np.isfinite(cluster.latency_s)
    assert cluster.observe().ongoing.sum() == 0
    fastest_s = draws.router_in_s + draws.service_s + draws.router_out_s
    assert (cluster.latency_s[served] >= fastest_s[served] - 1e-9).all()
    assert np.isposinf(cluster.latency_s[~served]).all()
    ended = cluster._serving.station.finished.sum(
        axis=1
    )  # requests that ended within the minutes of the workload
    assert (ended <= np.diff(draws.first)).all()


@examples(60)
@given(schedules())
def test_pods_never_exceed_the_capacity_at_any_check(schedule):
    schedule = dataclasses.replace(schedule, tick_s=int(CHECK_S))
    ticks = int(len(schedule.counts) * MINUTE_S / CHECK_S) - 1
    wanted = [schedule.wanted[min(tick, len(schedule.wanted) - 1)] for tick in range(ticks)]
    drop = [schedule.drop[min(tick, len(schedule.drop) - 1)] for tick in range(ticks)]
    schedule = dataclasses.replace(schedule, wanted=wanted, drop=drop, attempts=[5] * ticks)
    used = []
    advance = SimulatedCluster.advance

    def watched(cluster, until_s):
        advance(cluster, until_s)
        pods = cluster._pods.jobs
        used.append(sum(round(job.cores * 10) * job.pods for job in pods))
        assert [job.running for job in pods] == cluster._serving.station.active.tolist()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SimulatedCluster, "advance", watched)
        schedule.run(schedule.draws())
    assert len(used) > ticks
    assert max(used) <= schedule.capacity_tenths


@examples(30)
@given(schedules())
def test_targets_never_exceed_the_capacity(schedule):
    _, steps = schedule.run(schedule.draws())
    assert max(int(step.target @ schedule.tenths) for step in steps) <= schedule.capacity_tenths


@examples(20)
@given(schedules(), st.sampled_from(SERVING_MODELS))
def test_jobs_do_not_affect_each_other_while_the_capacity_is_ample(schedule, serving_model):
    alone_jobs = len(schedule.tenths)
    ample = sum(schedule.tenths) * 10  # room for six active and six idle replicas per job
    schedule = dataclasses.replace(schedule, spare_tenths=ample)
    draws = schedule.draws()
    cluster, _ = schedule.run(draws, serving_model)
    for job in range(alone_jobs):
        a, b = draws.first[job], draws.first[job + 1]
        alone = dataclasses.replace(
            schedule,
            counts=[[row[job]] for row in schedule.counts],
            tenths=[schedule.tenths[job]],
            initial=[schedule.initial[job]],
            wanted=[[row[job]] for row in schedule.wanted],
            drop=[[row[job]] for row in schedule.drop],
        )
        own = [
            getattr(draws, field)[a:b]
            for field in ("arrival_s", "router_in_s", "service_s", "router_out_s", "coin")
        ]
        its_cluster, _ = alone.run(
            Shuffled(np.array([0, b - a]), *own, draws.seed, as_job=job), serving_model
        )
        np.testing.assert_array_equal(its_cluster.latency_s, cluster.latency_s[a:b])


@dataclasses.dataclass(frozen=True)
class Shuffled(Draws):
    """Draws of one job that shuffles its replicas as job number `as_job` does."""

    as_job: int = 0

    def shuffler(self, job):
        return Draws.shuffler(self, self.as_job)


@examples(10)
@given(schedules())
def test_the_same_seed_gives_identical_results(schedule):
    first, _ = schedule.run(schedule.draws())
    second, _ = schedule.run(schedule.draws())
    np.testing.assert_array_equal(first.latency_s, second.latency_s)


def test_another_seed_gives_other_results():
    one, other = (simulate(BUSY, FairShare(), 9, seed) for seed in TRIAL_SEEDS[:2])
    assert (one.tail_latency_s != other.tail_latency_s).any()


@pytest.mark.parametrize("policy", [FairShare(), AIAD(), Oneshot()], ids=lambda policy: policy.name)
def test_policies_that_share_draws_receive_the_same_requests(policy):
    draws = draw(BUSY, 24)
    names = [
        field.name
        for field in dataclasses.fields(Draws)
        if isinstance(getattr(draws, field.name), np.ndarray)
    ]
    before = [getattr(draws, name).copy() for name in names]
    shared = simulate(BUSY, policy, 9, draws=draws)
    for name, array in zip(names, before):
        np.testing.assert_array_equal(getattr(draws, name), array)
    fresh = simulate(BUSY, policy, 9, 24)
    np.testing.assert_array_equal(shared.tail_latency_s, fresh.tail_latency_s)
    np.testing.assert_array_equal(shared.dropped, fresh.dropped)


def test_a_request_that_meets_no_other_takes_its_own_service_times():
    light = Workload((Job("a"),), [[1] * 10])
    draws = draw(light, 24)
    for replicas in (1, 3):
        cluster = SimulatedCluster(light, draws, replicas, np.array([replicas]))
        cluster.finish()
        expected = draws.router_in_s + draws.service_s + draws.router_out_s
        np.testing.assert_allclose(cluster.latency_s, expected, rtol=1e-9)


@given(
    st.integers(1, 4).flatmap(
        lambda jobs: st.lists(
            st.lists(st.integers(0, 40), min_size=jobs, max_size=jobs), min_size=1
        )
    ),
    st.sampled_from(TRIAL_SEEDS),
)
def test_arrivals_are_those_of_the_published_rule(by_minute, seed):
    counts = np.array(by_minute).T
    rng = np.random.default_rng(seed)
    expected: list[list[float]] = [[] for _ in counts]
    for minute in range(counts.shape[1]):
        for job, n in enumerate(counts[:, minute]):
            if n:
                gaps = rng.exponential(60 / n, n)
                expected[job] += list(60 * minute + np.concatenate(([0.0], np.cumsum(gaps[:-1]))))
    arrival_s, first = sample_arrivals(
        Workload(tuple(Job(str(n)) for n in range(len(counts))), counts), seed
    )
    for job, arrivals in enumerate(expected):
        np.testing.assert_allclose(
            arrival_s[first[job] : first[job + 1]], sorted(arrivals), rtol=1e-12
        )


@examples(30)
@given(st.floats(0.0, 1.0), st.integers(0, 2**31))
def test_with_ample_replicas_a_request_is_dropped_if_its_coin_is_below_the_rate(rate, seed):
    workload = Workload((Job("a"),), [[300, 300]])
    draws = draw(workload, seed)
    cluster = SimulatedCluster(workload, draws, 20, np.array([20]))
    cluster.apply(np.array([20]), np.array([rate]))
    cluster.finish()
    np.testing.assert_array_equal(np.isinf(cluster.latency_s), draws.coin < rate)


def test_a_run_counts_every_request_once():
    run = simulate(BUSY, AIAD(), 9, 24)
    np.testing.assert_array_equal(run.requests.sum(axis=1), BUSY.requests_per_min.sum(axis=1))
    assert (run.dropped + run.slo_missed <= run.requests).all()
    assert run.dropped.sum() > 0
    assert run.slo_missed.sum() > 0


@given(
    st.lists(st.floats(0.01, 100), min_size=1, max_size=40),
    st.integers(0, 5),
    st.sampled_from([0.5, 0.9, 0.99, 1.0]),
)
def test_a_quantile_interpolates_like_numpy_and_is_infinite_if_a_drop_has_weight(
    served, dropped, q
):
    values = np.random.default_rng(0).permutation(np.array(served + [np.inf] * dropped))
    position = q * (len(values) - 1)
    if np.ceil(position) > len(served) - 1:
        assert quantile_of(values, q) == np.inf
    else:
        finite_stand_in = np.where(np.isinf(values), 1e6, values)
        assert quantile_of(values, q) == pytest.approx(np.quantile(finite_stand_in, q), rel=1e-9)


@pytest.mark.parametrize("q", [0.0, 0.5, 0.95, 0.99, 1.0])
@pytest.mark.parametrize(
    "order", [np.sort, lambda values: np.sort(values)[::-1].copy(), lambda values: values]
)
def test_a_quantile_is_exactly_that_of_the_sorted_values(order, q):
    """Also of equal values, and the values stay as they are."""
    rng = np.random.default_rng(7)
    for values in (rng.lognormal(size=1000), rng.integers(1, 4, 500) / 10, np.full(64, 0.18)):
        given = order(values)
        before, ordered = given.copy(), np.sort(given)
        low = int(q * (len(values) - 1))
        high = min(low + 1, len(values) - 1)
        weight = q * (len(values) - 1) - low
        exact = ordered[low] + (ordered[high] - ordered[low]) * weight
        assert quantile_of(given, q) == exact
        assert np.array_equal(given, before)


def test_an_unreferenced_cluster_frees_its_requests_at_once():
    workload = Workload((Job("a"),), [[10]])
    cluster = SimulatedCluster(workload, draw(workload, 24), 2, np.array([1]))
    cluster.finish()
    latency_s = weakref.ref(cluster.latency_s)
    gc.disable()  # a reference cycle would keep gigabytes until the next collection
    try:
        del cluster
        assert latency_s() is None
    finally:
        gc.enable()


def test_a_replica_that_waits_for_cores_is_not_forgotten_when_more_are_asked_for():
    workload = Workload((Job("a"), Job("b")), np.zeros((2, 4), int))
    cluster = SimulatedCluster(workload, draw(workload, 24), 4, np.array([3, 1]))
    for at_s, target in (
        (10.0, [1, 2]),
        (20.0, [1, 3]),
    ):  # the idle pods of job a keep their cores until 40 s
        cluster.advance(at_s)
        cluster.apply(np.array(target), np.zeros(2))
    cluster.advance(200.0)
    assert cluster.observe().running.tolist() == [1, 3]


def test_a_replica_that_was_given_up_before_it_served_starts_cold_again():
    workload = Workload((Job("a", cold_start_s=35.0),), np.zeros((1, 4), int))
    cluster = SimulatedCluster(workload, draw(workload, 24), 2, np.array([1]))
    for at_s, target in ((10.0, 2), (20.0, 1), (25.0, 2)):
        cluster.advance(at_s)
        cluster.apply(np.array([target]), np.zeros(1))
    running = []
    for at_s in (59.0, 61.0):
        cluster.advance(at_s)
        running.append(cluster.observe().running.item())
    assert running == [1, 2]


def test_a_pod_that_was_reused_and_given_up_again_stays_warm():
    workload = Workload((Job("a", cold_start_s=35.0),), np.zeros((1, 4), int))
    cluster = SimulatedCluster(workload, draw(workload, 24), 2, np.array([2]))
    for at_s, target in ((10.0, 1), (20.0, 2), (21.0, 1), (25.0, 2), (29.0, 2)):
        cluster.advance(at_s)
        cluster.apply(np.array([target]), np.zeros(1))
    assert cluster.observe().running.item() == 2


def test_a_capacity_step_shows_in_the_next_observation():
    workload = Workload((Job("a"),), [[10, 10]])
    cluster = SimulatedCluster(
        workload, draw(workload, 24), 8, np.array([2]), capacity_steps=((30.0, 5.0),)
    )
    cluster.advance(20.0)
    assert cluster.observe().capacity == 8.0
    cluster.advance(40.0)
    assert cluster.observe().capacity == 5.0


def test_an_unknown_dispatch_is_refused_by_name():
    with pytest.raises(ValueError, match=r"dispatch='any'.*round-robin, least-outstanding, random"):
        ServingModel(dispatch="any")


@pytest.mark.parametrize(
    ("field", "value"),
    [("queue_limit", -1), ("max_ongoing_requests", 0), ("max_ongoing_requests", 1.5)],
)
def test_invalid_limits_of_a_serving_model_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"{field}={value} must be a whole number"):
        ServingModel(**{field: value})


def test_fewer_cores_than_jobs_are_refused():
    with pytest.raises(
        ValueError, match=r"capacity=2 cores cannot hold the minimum of 3 jobs, 3 cores"
    ):
        simulate(BUSY, FairShare(), 2, 24)


def test_initial_replicas_beyond_the_capacity_are_refused():
    message = r"initial=\[4, 4, 4\] needs 12 cores; the capacity is 9"
    with pytest.raises(ValueError, match=message):
        simulate(BUSY, FairShare(), 9, 24, initial=np.full(3, 4))
    with pytest.raises(ValueError, match=message):
        simulate(BUSY, Fixed(4), 9, 24)
    late = simulate(BUSY, Fixed(4), 9, 24, lifetimes=((0, 60.0, np.inf),))
    assert late.initial.tolist() == [0, 4, 4]


def test_a_run_without_seed_and_draws_is_refused():
    with pytest.raises(ValueError, match="seed=None"):
        simulate(BUSY, FairShare(), 9)


def test_a_schedule_reaches_the_cases_that_matter():
    """The examples would prove little if pods never waited and queues never overflowed."""
    schedule = Schedule(
        counts=[[1200, 1200]] * 2,
        tenths=[10, 10],
        spare_tenths=0,
        initial=[2, 1],
        tick_s=10,
        wanted=[[1, 2]] * 11,
        drop=[[0.0, 0.5]] * 11,
        attempts=[5] * 11,
        seed=0,
    )
    cluster, steps = schedule.run(schedule.draws())
    assert np.isinf(cluster.latency_s[: cluster.minute_edges[0, -1]]).any()
    assert max(step.observation.starting.max() for step in steps) == 1
