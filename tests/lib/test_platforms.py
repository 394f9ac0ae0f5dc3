"""The platforms' own autoscalers, against the examples and limits of their documentation."""

from __future__ import annotations

import numpy as np
import pytest
from observations import observed

from faro_lib.policies import HPA, PolicyContext, RayServe, make
from faro_lib.workload import Job

JOB = (Job("a", service_time_s=0.1),)


def busy(pods):
    """Requests per minute that keep this many pods of `JOB` busy."""
    return np.array([[pods / 0.1 * 60]])


def hpa(target, pods, *, starting=0, now_s=15.0, state=None):
    observation = observed(
        [target],
        now_s=now_s,
        arrivals_per_min=busy(pods),
        running=np.array([target - starting]),
        starting=np.array([starting]),
    )
    state, plan = HPA().decide(state or HPA().start(JOB), observation)
    return int(plan.target[0]), state


def test_hpa_requests_the_pods_that_bring_the_utilisation_to_80_percent():
    assert hpa(8, 7.99)[0] == 10  # 8 x (1.0 / 0.8)
    assert hpa(4, 3.7)[0] == 5  # 4 x (0.925 / 0.8) = 4.6


def test_a_name_with_a_percentage_is_the_hpa_with_that_target_utilisation():
    context = PolicyContext(JOB)
    assert make("HPA-60", context) == HPA(utilisation=0.6, name="HPA-60")
    observation = observed([10], now_s=15.0, arrivals_per_min=busy(6.9), running=np.array([10]))
    policy = make("HPA-60", context)
    _, plan = policy.decide(policy.start(JOB), observation)
    assert plan.target.tolist() == [12]  # 10 x (0.69 / 0.6) = 11.5
    for name in ("HPA-0", "HPA-101", "HPA-060", "HPA-x"):
        with pytest.raises(ValueError, match="unknown"):
            make(name, context)


def test_hpa_does_nothing_within_ten_percent_of_its_target():
    assert hpa(10, 8.7)[0] == 10
    assert hpa(10, 7.3)[0] == 10


def test_hpa_grows_by_at_most_a_quarter_as_utilisation_is_at_most_one():
    assert hpa(8, 80)[0] == 10


def test_starting_pods_count_as_idle_so_hpa_does_not_request_them_twice():
    # 8 of 8 running pods are busy: 10 are needed, and 2 are starting.
    assert hpa(10, 8, starting=2)[0] == 10


def test_hpa_shrinks_only_to_the_highest_recommendation_of_five_minutes():
    state = None
    target = 10
    path = []
    busy_pods = [8.0, *[4.0] * 8, *[1.6] * 33]
    for tick, pods in enumerate(busy_pods, 1):
        target, state = hpa(target, pods, now_s=15.0 * tick, state=state)
        path.append(target)
    assert set(path[:20]) == {10}  # the recommendation of tick 1 stays for 300 s
    assert path[20] == 5  # then 4.0 / 0.8 is the highest, until it is 300 s old too
    assert path[-1] == 2


def test_hpa_does_nothing_without_a_metric_even_after_wanting_to_shrink():
    state = None
    target = 10
    for tick in range(1, 60):
        target, state = hpa(target, 1.0 if tick < 10 else np.nan, now_s=15.0 * tick, state=state)
    assert target == 10


def test_hpa_waits_for_the_first_complete_minute():
    observation = observed([3], arrivals_per_min=np.zeros((1, 0)))
    assert HPA().decide(HPA().start(JOB), observation)[1].target.tolist() == [3]


def ray_serve(queues, target=2, **options):
    policy = RayServe(**options)
    state, targets = policy.start(JOB), []
    for tick, queue in enumerate(queues, 1):
        observation = observed([target], now_s=10.0 * tick, ongoing=np.array([queue]))
        state, plan = policy.decide(state, observation)
        target = int(plan.target[0])
        targets.append(target)
    return targets


def test_ray_serve_keeps_two_ongoing_requests_per_replica_30_seconds_after_its_first_decision():
    assert ray_serve([20, 20, 20, 20, 20]) == [2, 2, 2, 10, 10]


def test_ray_serve_adds_the_replica_of_the_documented_example():
    """Two replicas of 100 ms at 30 requests/s queue up; with a target of 1, three serve them.

    docs.ray.io, "Advanced Ray Serve Autoscaling".
    """
    assert ray_serve([3.0] * 4, ongoing=1.0)[-1] == 3


def test_a_decision_in_the_other_direction_begins_ray_serves_delay_again():
    assert ray_serve([20.0] * 2 + [0.0] * 3 + [20.0] * 4, target=4) == [4] * 9


def test_ray_serve_averages_over_thirty_seconds():
    assert ray_serve([20, 20, 8, 2])[-1] == 5


def test_one_observation_below_the_target_resets_ray_serves_delay_to_grow():
    assert ray_serve([8, 0, 0, 8, 8, 0, 0]) == [2] * 7


def test_ray_serve_shrinks_after_ten_minutes_of_wanting_fewer():
    targets = ray_serve([4] * 62, target=6)
    assert targets[:60] == [6] * 60
    assert targets[60:] == [2] * 2


def test_ray_serve_reads_missing_counts_as_unknown_not_as_zero():
    assert ray_serve([np.nan] * 100, target=6) == [6] * 100
    assert ray_serve([20, 20, np.nan, 20])[-1] == 10


def test_the_baseline_ray_serve_keeps_a_replica_for_each_ongoing_request():
    policy = make("RayServe", PolicyContext(JOB))
    state = policy.start(JOB)
    for tick in range(1, 62):
        state, plan = policy.decide(
            state, observed([4], now_s=10.0 * tick, ongoing=np.array([4.0]))
        )
        assert plan.target.tolist() == [4]


@pytest.mark.parametrize("policy", [HPA(), RayServe()], ids=lambda policy: policy.name)
def test_targets_stay_within_the_bounds_of_a_job(policy):
    job = (Job("a", service_time_s=0.1, min_replicas=2, max_replicas=6),)
    for load, bound in ((50.0, 6), (0.01, 2)):
        state = policy.start(job)
        target = 4
        for tick in range(1, 200):
            observation = observed(
                [target],
                now_s=policy.tick_s * tick,
                ongoing=np.array([load]),
                arrivals_per_min=np.array([[load * 600]]),
            )
            state, plan = policy.decide(state, observation)
            target = int(plan.target[0])
            assert 2 <= target <= 6
        assert target == bound
