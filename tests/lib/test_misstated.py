"""Services that are wrong by shape: the simulator has them, and learning is not misled by them."""

from dataclasses import replace

import numpy as np
import pytest
from observations import observed

from faro_lib.policies.learning import Learner
from faro_lib.queueing.service_factor import mean_factor
from faro_lib.queueing.slower import Slower
from faro_lib.simulate import ServingModel, draw
from faro_lib.simulate.measure import measure
from faro_lib.simulate.misstated import Elsewhere, LongRequests, Spells
from faro_lib.simulate.serving import constant_latencies
from faro_lib.workload import Job, Workload
from faro_lib.workload.jobs import MINUTE_S

JOB = Job("a", service_time_s=0.1, service_scv=0.2, slo_s=0.8, model="own")
REPLICAS, RATE_RPS = 3, 18.0
NO_ROUTER = ServingModel("least-outstanding", max_ongoing_requests=50)
RANDOM = ServingModel("random", max_ongoing_requests=50)


def latencies(misstated=None, dispatch="least-outstanding", minutes=20, places=50):
    workload = Workload((JOB,), np.full((1, minutes), int(MINUTE_S * RATE_RPS)))
    draws = draw(workload, 24, router=None)
    draws = misstated(draws) if misstated else draws
    rules = dispatch, 50, np.array([places])
    return draws, constant_latencies((JOB,), draws, [REPLICAS], *rules)


@pytest.mark.parametrize("misstated", [LongRequests(), Spells()])
def test_the_mean_service_time_is_as_stated(misstated):
    stated, _ = latencies()
    changed, _ = latencies(misstated)
    assert changed.service_s.mean() == pytest.approx(stated.service_s.mean(), rel=0.03)
    assert not np.allclose(changed.service_s, stated.service_s)


def test_a_few_requests_take_eight_times_as_long_as_the_others():
    stated, _ = latencies()
    changed, _ = latencies(LongRequests())
    ratio = changed.service_s / stated.service_s
    is_long = ratio > 2 * ratio.min()
    assert is_long.mean() == pytest.approx(0.005, rel=0.3)
    assert ratio[is_long] == pytest.approx(8 * ratio.min())


def test_a_third_of_each_minute_is_at_half_speed():
    stated, _ = latencies()
    changed, _ = latencies(Spells())
    ratio = changed.service_s / stated.service_s
    slow = ratio > 1
    assert (changed.arrival_s[slow] % 60 >= 40).all()
    assert ratio[slow].max() == pytest.approx(2 * ratio.min())


def test_time_elsewhere_is_added_to_each_latency():
    _, stated_s = latencies()
    _, longer_s = latencies(Elsewhere(0.1))
    assert longer_s == pytest.approx(stated_s + 0.1)


def plain_random(draws, choices, places):
    """Latencies of FIFO replicas to which `choices` (requests,) sends requests."""
    done_s = [[] for _ in range(REPLICAS)]
    latency_s = np.empty(len(choices))
    for n, (arrival_s, service_s, replica) in enumerate(
        zip(draws.arrival_s, draws.service_s, choices)
    ):
        inside = [end for end in done_s[replica] if end > arrival_s]
        if len(inside) >= places:
            latency_s[n] = np.inf
            continue
        end = max([arrival_s, *inside]) + service_s
        done_s[replica] = [*inside, end]
        latency_s[n] = end - arrival_s
    return latency_s


@pytest.mark.parametrize("places", [2, 50])
def test_random_dispatch_is_a_queue_for_each_replica(places):
    """Against a second implementation, for the choices that the simulator makes."""
    draws, found_s = latencies(dispatch="random", minutes=3, places=places)
    mask = (1 << 64) - 1
    choices = []
    for request in range(len(found_s)):
        mixed = (request * 0x9E3779B97F4A7C15) & mask
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & mask
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & mask
        choices.append((mixed >> 33) % REPLICAS)
    shares = np.bincount(choices) / len(choices)
    assert shares == pytest.approx(1 / REPLICAS, abs=0.03)
    # The simulator shuffles the order of the replicas, which changes only their names.
    assert found_s == pytest.approx(plain_random(draws, choices, places))


def test_requests_wait_longer_at_random_than_behind_a_balancer():
    _, balanced_s = latencies()
    _, random_s = latencies(dispatch="random")
    assert np.quantile(random_s, 0.99) > 1.5 * np.quantile(balanced_s, 0.99)


WORLDS = {
    "at random": (None, RANDOM),
    "heavy tail": (LongRequests(), NO_ROUTER),
    "slow spells": (Spells(), NO_ROUTER),
    "time elsewhere": (Elsewhere(), NO_ROUTER),
}


def learned_in(table, minutes=30, factor=1.0, busy=True):
    """The mean factor after minutes with the latencies of `table`, which the learner does not know.

    busy : whether the platform measures the busy seconds of a request.
    """
    stated = measure((JOB,), (1, 2, 3, 8), serving_model=NO_ROUTER)
    learner, learned = Learner(), Learner().start((JOB,))
    truth = Slower(table, {"a": factor})
    rng = np.random.default_rng(1)
    for minute in range(1, minutes + 1):
        rate_rps = rng.uniform(0.4, 0.8) * REPLICAS / JOB.busy_s / factor
        tail_s = truth.tail_latency_s(JOB, rate_rps, REPLICAS)
        now = replace(
            observed([REPLICAS], now_s=MINUTE_S * minute),
            minute=minute,
            arrivals_per_min=np.full((1, 1), rate_rps * MINUTE_S),
            tail_latency_s=np.array([float(tail_s)]),
            busy_s=np.array([factor * JOB.busy_s]) if busy else None,
        )
        for seen in (replace(now, minute=minute - 1), now):
            learned = learner.updated((JOB,), learned, seen, stated)
    assert learned.informative[0] > minutes / 2
    return mean_factor(learned.belief)[0]


@pytest.mark.parametrize("world", WORLDS)
def test_a_service_that_is_wrong_by_shape_is_not_taken_for_a_slower_one(world):
    misstated, model = WORLDS[world]
    table = measure((JOB,), (1, 2, 3, 8), serving_model=model, misstated=misstated)
    assert learned_in(table) == pytest.approx(1.0, rel=0.12), "within twice BUSY_ERROR"


def test_without_busy_seconds_it_is():
    table = measure((JOB,), (1, 2, 3, 8), serving_model=RANDOM)
    assert learned_in(table, busy=False) > 1.2


@pytest.mark.parametrize("factor", [0.7, 1.5])
def test_a_slower_service_is_found_with_and_without_busy_seconds(factor):
    table = measure((JOB,), (1, 2, 3, 8), serving_model=NO_ROUTER)
    for busy in (True, False):
        assert learned_in(table, factor=factor, busy=busy) == pytest.approx(factor, rel=0.06)
