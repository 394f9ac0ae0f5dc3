"""Services that share replicas learn a factor of their pool, and one of each service."""

from dataclasses import replace

import numpy as np
import pytest
from observations import observed

from faro_lib.policies.learning import Learner
from faro_lib.policies.pool_learning import COMMON, SharedFactors, updated
from faro_lib.queueing import Formula, service_factor
from faro_lib.queueing.service_factor import FACTORS, MODEL_ERROR, OUTLIER, OUTLIER_DENSITY, STEP
from faro_lib.queueing.shared_factor import (
    COMMON_MINUTE,
    EVERY_MINUTE,
    SlowerPools,
    idle_latency_s,
    joint_likelihood,
    product,
    shifted,
)
from faro_lib.queueing.slower import Slower
from faro_lib.simulate.measure import measure
from faro_lib.workload import Job

MMC = Formula("mmc")
ALONE = Job("d", slo_s=0.6, service_time_s=0.1, service_scv=0.2, model="own")
SHARED = tuple(replace(ALONE, name=name, pool="p", models_per_replica=2) for name in "abc")
JOBS = (*SHARED, ALONE)
REPLICAS = 6
TABLE = measure(SHARED, (4, 6, 8))


# --- arithmetic, against plain loops --------------------------------------------------------------


def test_a_product_of_two_posteriors_adds_logarithms():
    rng = np.random.default_rng(1)
    of_pool, own = rng.random(len(FACTORS)), rng.random((2, len(FACTORS)))
    expected, middle = np.zeros_like(own), len(FACTORS) // 2
    for job, of_job in enumerate(own):
        for g, p in enumerate(of_pool):
            for h, q in enumerate(of_job):
                at = min(max(g + h - middle, 0), len(FACTORS) - 1)
                expected[job, at] += p * q
    np.testing.assert_allclose(product(of_pool, own), expected)


@pytest.mark.parametrize("steps", [0, 1, -1, 5, -40])
def test_shifted_posteriors_keep_their_weight(steps):
    weight = service_factor.prior(np.array([0.1, 0.3]))
    moved = shifted(weight, steps)
    assert moved.sum(axis=1) == pytest.approx(1.0)
    if abs(steps) < 6:
        before = service_factor.mean_factor(weight[:1])
        assert service_factor.mean_factor(moved[:1]) == pytest.approx(before * np.exp(STEP * steps))


def test_the_likelihood_of_a_minute_is_that_of_the_equation():
    """At sampled factors: F (T(L) - S) + f S, with a lognormal error."""
    tail_s = np.array([0.4, 0.5])
    mean_own, load = 1.1, 3.6
    likely = joint_likelihood(TABLE, SHARED[:2], load, REPLICAS, tail_s, mean_own)
    idle_s = idle_latency_s(TABLE, SHARED[:2])
    for j, g, h in [(0, 28, 28), (1, 33, 20), (0, 20, 40)]:
        job, mean = SHARED[j], FACTORS[g] * mean_own
        minutes_s, _ = TABLE.minutes(job, load * mean / job.busy_s, REPLICAS)
        density = []
        for minute_s in minutes_s[::EVERY_MINUTE]:
            own_s = min(minute_s, idle_s[j])
            predicted_s = mean * (minute_s - own_s) + FACTORS[g] * FACTORS[h] * own_s
            error = (np.log(tail_s[j]) - np.log(predicted_s)) / MODEL_ERROR
            density.append(np.exp(-(error**2) / 2) / MODEL_ERROR / np.sqrt(2 * np.pi))
        mean_density = sum(density) / len(density)
        for r, own in enumerate(density):
            alike = COMMON_MINUTE * own + (1 - COMMON_MINUTE) * mean_density
            expected = (1 - OUTLIER) * alike + OUTLIER * OUTLIER_DENSITY
            assert likely[j, g, r, h] == pytest.approx(expected, rel=1e-4)


def test_an_update_is_that_of_the_sum_over_all_factors():
    """For two services, against the sum over the factors of both, the error and the minute."""
    rng = np.random.default_rng(2)
    few, minutes = 5, 2
    at = slice(26, 26 + few)  # factors that have any weight
    of_pool, own = np.zeros(len(FACTORS)), np.zeros((2, len(FACTORS)))
    of_pool[at], own[:, at] = rng.random(few), rng.random((2, few))
    of_pool /= of_pool.sum()
    own /= own.sum(axis=1, keepdims=True)
    likely = rng.random((2, len(FACTORS), minutes, len(FACTORS)))
    posterior, of_own = updated(of_pool, own, likely)
    expected_g, expected_h = np.zeros(len(FACTORS)), np.zeros((2, len(FACTORS)))
    for g in range(26, 26 + few):
        for now, error in enumerate(COMMON[g]):
            for r in range(minutes):
                for h in range(26, 26 + few):
                    for k in range(26, 26 + few):
                        weight = of_pool[g] * error * own[0, h] * own[1, k]
                        weight *= likely[0, now, r, h] * likely[1, now, r, k]
                        expected_g[g] += weight
                        expected_h[0, h] += weight
                        expected_h[1, k] += weight
    np.testing.assert_allclose(posterior, expected_g / expected_g.sum(), atol=1e-12)
    np.testing.assert_allclose(
        service_factor.normalised(own * of_own), service_factor.normalised(expected_h), atol=1e-12
    )


def test_levelling_changes_no_product():
    start = SharedFactors.start(JOBS)
    own = shifted(service_factor.prior(np.full(4, 0.2)), 4)
    levelled, after = start.levelled(own)
    assert service_factor.mean_factor(levelled.weight) == pytest.approx(np.exp(4 * STEP), rel=0.01)
    assert service_factor.mean_factor(after[:3]) == pytest.approx(1.0, rel=0.01)
    assert np.array_equal(after[3], own[3]), "a job alone has no pool"
    before = service_factor.mean_factor(start.belief(own))
    assert service_factor.mean_factor(levelled.belief(after)) == pytest.approx(before, rel=0.01)


# --- a latency model of slower pools --------------------------------------------------------------


def test_services_that_are_all_as_slow_are_those_of_longer_times():
    names = [job.name for job in SHARED]
    factors = dict.fromkeys(names, 1.3)
    pools, each = SlowerPools(TABLE, factors, factors), Slower(TABLE, factors)
    rates = np.linspace(5.0, 40.0, 6)
    expected = each.tail_latency_s(SHARED[0], rates, REPLICAS)
    assert pools.tail_latency_s(SHARED[0], rates, REPLICAS) == pytest.approx(expected)
    assert pools.busy_s(SHARED[0]) == pytest.approx(1.3 * SHARED[0].busy_s)


def test_a_slow_service_in_a_pool_waits_as_long_as_the_others():
    own, shared = {"a": 1.5, "b": 1.0}, {"a": 1.2, "b": 1.2}
    pools = SlowerPools(TABLE, own, shared)
    load = 4.0  # erlangs of the pool
    slow_s, usual_s = (
        pools.tail_latency_s(job, load / pools.busy_s(job), REPLICAS) for job in SHARED[:2]
    )
    assert slow_s - usual_s == pytest.approx(0.5 * idle_latency_s(TABLE, SHARED[:1])[0])
    at_s = TABLE.tail_latency_s(SHARED[0], load / SHARED[0].busy_s, REPLICAS)
    assert usual_s == pytest.approx(1.2 * at_s - 0.2 * idle_latency_s(TABLE, SHARED[:1])[0])


def test_curves_of_pools_are_over_the_true_load():
    own, shared = {"a": 1.5, "b": 1.0, "c": 1.0}, dict.fromkeys("abc", 1.2)
    pools = SlowerPools(TABLE, own, shared)
    curves = pools.curves(SHARED, "precise", 1.0, REPLICAS)
    for j, job in enumerate(SHARED):
        k, loads = curves.of_job[j], np.linspace(0.5, 9.0, 18)
        knots = np.linspace(
            curves.first[k, REPLICAS], curves.last[k, REPLICAS], curves.value.shape[2]
        )
        of_curve = np.interp(loads, knots, curves.value[k, REPLICAS])
        expected = pools.expected_utility(job, loads / pools.busy_s(job), REPLICAS, "precise")
        assert of_curve == pytest.approx(expected, abs=0.03)


def test_as_stated_a_pool_has_the_table_itself():
    ones = dict.fromkeys("abc", 1.0)
    of_pool, stated = SlowerPools(TABLE, ones, ones), TABLE
    ours, theirs = (one.curves(SHARED, "relaxed", 1.0, 8) for one in (of_pool, stated))
    for own, other in zip(ours, theirs):
        np.testing.assert_array_equal(own, other)


# --- what minutes tell ----------------------------------------------------------------------------


def minute(factors, sharing=1.0, load=3.0, **fields):
    """An observed minute of SHARED whose services are so much slower, at the same loads."""
    own = {job.name: sharing * factor for job, factor in zip(SHARED, factors)}
    mean = float(np.mean(list(own.values())))
    slower = SlowerPools(TABLE, own, dict.fromkeys(own, mean))
    tail_s = [
        float(slower.tail_latency_s(job, load * mean / slower.busy_s(job), REPLICAS))
        for job in SHARED
    ]
    counts = np.full((3, 1), load / 3 / ALONE.busy_s * 60)
    told = dict(arrivals_per_min=counts, tail_latency_s=np.array(tail_s))
    told["mean_latency_s"] = np.array(tail_s) / 3
    return observed([REPLICAS // 3] * 3, **told | fields)


def learned_after(observation, minutes, learned=None):
    learner, learned = Learner(), learned or Learner().start(SHARED)
    for n in range(learned.minute + 1, learned.minute + 1 + minutes):
        for at in (n - 1, n):
            learned = learner.updated(SHARED, learned, replace(observation, minute=at), TABLE)
    return learned


@pytest.mark.parametrize("sharing", [0.8, 1.0, 1.1, 1.3])
def test_ten_minutes_tell_how_much_slower_services_are_that_share(sharing):
    learned = learned_after(minute((1.0, 1.0, 1.0), sharing), 10)
    factor = service_factor.mean_factor(learned.belief)
    assert factor == pytest.approx(sharing, rel=0.06)
    assert service_factor.mean_factor(learned.pools.weight) == pytest.approx(sharing, rel=0.08)


def test_a_slow_service_is_told_from_a_slow_pool():
    learned = learned_after(minute((1.5, 1.0, 1.0)), 20)
    factor = service_factor.mean_factor(learned.belief)
    assert factor == pytest.approx([1.5, 1.0, 1.0], rel=0.1)


def test_what_a_pool_serves_together_refutes_a_belief_that_it_is_slow():
    """Each service alone could be served by the replicas at a factor of 2, all together cannot."""
    counts = np.full(3, 2.4 / ALONE.busy_s * 60)  # 7.2 erlangs on 6 replicas at a factor of 1
    lost = minute((1.0,) * 3, tail_latency_s=np.full(3, np.nan), served_per_min=counts / 2)
    start = learned_after(minute((1.0,) * 3, 1.9), 10)
    assert service_factor.mean_factor(start.belief).min() > 1.7
    after = learned_after(lost, 3, start)
    most = REPLICAS / (3 * 1.2)  # the largest factor at which 3.6 erlangs are served
    assert service_factor.mean_factor(after.pools.belief(after.weight)).max() < 1.1 * most
    resting = learned_after(replace(lost, served_per_min=counts / 20), 3, start)
    assert service_factor.mean_factor(resting.belief).min() > 1.5


def test_services_that_lack_replicas_say_that_their_pool_is_slow():
    lost = dict(tail_latency_s=np.full(3, np.inf), refused_per_min=np.full(3, 50.0))
    lost |= dict(served_tail_latency_s=np.full(3, 2.0))
    learned = learned_after(minute((1.0,) * 3, load=4.0, **lost), 5)
    assert service_factor.mean_factor(learned.belief).min() > 1.3
    assert service_factor.mean_factor(learned.pools.weight)[0] == pytest.approx(1.0, rel=0.05)


def test_the_first_minute_after_a_refusal_says_nothing_about_the_service():
    refused = minute((1.0,) * 3, drop=np.array([1.0, 0.0, 0.0]))
    late = minute((3.0, 1.0, 1.0))
    before = learned_after(refused, 5)
    first = learned_after(late, 1, before)
    assert service_factor.mean_factor(first.weight)[0] == pytest.approx(1.0, rel=0.03)
    assert first.informative[0] == before.informative[0]
    assert learned_after(late, 2, before).informative[0] > before.informative[0]


def test_factors_of_pools_fade_without_evidence():
    learned = learned_after(minute((1.0,) * 3, 1.5), 10)
    silent = minute((1.0,) * 3, tail_latency_s=np.full(3, np.nan))
    after = learned_after(silent, 240, learned)
    assert service_factor.mean_factor(learned.pools.weight)[0] > 1.35
    assert service_factor.mean_factor(after.pools.weight)[0] == pytest.approx(1.0, rel=0.05)


def test_a_roll_out_of_a_whole_pool_makes_its_factor_uncertain_and_that_of_one_service_does_not():
    learned = learned_after(minute((1.0,) * 3, 1.3), 20)
    one, every = (
        Learner().changed(learned, np.array(jobs)).pools.weight
        for jobs in ([True, False, False], [True] * 3)
    )
    assert service_factor.relative_error(one) == pytest.approx(
        service_factor.relative_error(learned.pools.weight)
    )
    assert service_factor.relative_error(every)[0] > 0.3


def test_jobs_alone_are_learned_as_without_any_pool():
    rng = np.random.default_rng(3)
    learner, both, single = Learner(), Learner().start(JOBS), Learner().start((ALONE,))
    table = measure((*SHARED, ALONE), (2, 4, 6))
    for n in range(1, 6):
        fields = dict(arrivals_per_min=np.full((4, 1), 600.0), minute=n)
        fields |= dict(tail_latency_s=rng.uniform(0.2, 0.5, 4), mean_latency_s=np.full(4, 0.12))
        every = observed([2] * 4, **fields)
        last = {name: value[-1:] for name, value in fields.items() if name != "minute"}
        both = learner.updated(JOBS, both, every, table)
        single = learner.updated((ALONE,), single, observed([2], minute=n, **last), table)
    np.testing.assert_array_equal(both.belief[3:], single.belief)
