"""The autoscalers of studies/arena, against the worked examples and stated limits of their
documentation.
"""

import numpy as np
import pytest
from observations import observed

from faro_lib.workload import Job
from studies.arena.hpa_behavior import BehaviorHPA, ScalingPolicy
from studies.arena.keda import KEDA
from studies.arena.knative import KPA

JOB = (Job("a", service_time_s=0.1, max_replicas=1000),)


def path(policy, ticks, target, tick_s=None, **fields):
    """Targets after each tick; `fields` has the observed values by tick, and replicas follow at
    once.
    """
    state, targets = policy.start(JOB), []
    for tick in range(ticks):
        now = {name: np.array([values[tick]], float) for name, values in fields.items()}
        if "arrivals_per_min" in now:
            now["arrivals_per_min"] = now["arrivals_per_min"][:, None] * 60
        observation = observed(
            [target], capacity=1000.0, now_s=(tick_s or policy.tick_s) * (tick + 1), **now
        )
        state, plan = policy.decide(state, observation)
        target = int(plan.target[0])
        targets.append(target)
    return targets


# kubernetes.io, "Horizontal Pod Autoscaling", section "Configurable scaling behavior".
FOUR_PODS, TEN_PERCENT = ScalingPolicy("Pods", 4, 60), ScalingPolicy("Percent", 10, 60)


def test_hpa_removes_ten_per_cent_of_many_pods_and_four_of_few():
    """'If there are 80 replicas and the target has to be scaled down to 10', 8 go first, then 8 of
    72 (7.2, rounded up).
    """
    policy = BehaviorHPA(down=(FOUR_PODS, TEN_PERCENT), stabilisation_s=0.0)
    # 8 erlangs: 10 pods at 80 %.
    targets = path(policy, 40, 80, tick_s=60.0, arrivals_per_min=[80.0] * 40)
    assert targets[:2] == [72, 64]
    assert set(-np.diff([n for n in targets if 10 < n < 40])) == {4}
    assert targets[-1] == 10


def test_hpa_removes_no_more_within_the_period_of_a_policy():
    policy = BehaviorHPA(down=(FOUR_PODS,), stabilisation_s=0.0)
    targets = path(policy, 9, 30, arrivals_per_min=[80.0] * 9)  # a tick every 15 s
    assert targets == [26, 26, 26, 26, 22, 22, 22, 22, 18]


def test_select_policy_min_takes_the_smallest_change_and_no_policy_disables():
    five = ScalingPolicy("Pods", 5, 60)
    policy = BehaviorHPA(down=(TEN_PERCENT, five), select_down="Min", stabilisation_s=0.0)
    assert path(policy, 1, 80, arrivals_per_min=[80.0]) == [75]
    assert (
        path(BehaviorHPA(down=(), stabilisation_s=0.0), 3, 80, arrivals_per_min=[80.0] * 3)
        == [80] * 3
    )


def test_hpa_by_default_adds_four_pods_or_doubles_every_15_seconds():
    policy = BehaviorHPA(utilisation=0.1)  # one busy pod wants ten
    assert path(policy, 3, 1, arrivals_per_min=[10.0] * 3)[0] == 5  # 1 + 4
    assert path(policy, 1, 6, arrivals_per_min=[1000.0])[0] == 12


def test_the_stabilization_window_keeps_the_highest_recommendation_of_its_seconds():
    load = [80.0, *[8.0] * 30]
    for window_s, ticks in ((300.0, 20), (60.0, 4)):
        targets = path(BehaviorHPA(stabilisation_s=window_s), 31, 10, arrivals_per_min=load)
        assert targets[:ticks] == [10] * ticks
        assert targets[ticks] == 1


def test_an_upward_window_waits_until_all_of_it_wants_more():
    policy = BehaviorHPA(up_stabilisation_s=60.0)
    load = [40.0, *[50.0] * 9]  # 4 busy pods of 5, then 5 of 5
    targets = path(policy, 10, 5, arrivals_per_min=load)
    assert targets[:4] == [5] * 4
    assert targets[4] == 7


# keda.sh: an HPA with a metric of type AverageValue, between minReplicaCount and maxReplicaCount.
def test_keda_gives_each_threshold_of_the_metric_a_replica():
    # Threshold 8 requests/s: 41 / 8 = 5.1.
    assert path(KEDA(), 1, 4, arrivals_per_min=[41.0]) == [6]


def test_keda_keeps_its_count_within_ten_per_cent_of_the_threshold():
    assert path(KEDA(), 1, 10, arrivals_per_min=[87.0]) == [10]
    assert path(KEDA(), 1, 10, arrivals_per_min=[89.0]) == [12]


def test_keda_never_exceeds_its_ceiling_of_twice_an_equal_share_nor_moves_it():
    jobs = (*JOB, Job("b", service_time_s=0.1))
    policy = KEDA()
    state, target = policy.start(jobs), [1, 1]
    for tick in range(1, 40):
        load = np.array([[9000.0 * 60], [60.0]])
        capacity = 20.0 if tick < 20 else 40.0
        observation = observed(target, capacity=capacity, now_s=15.0 * tick, arrivals_per_min=load)
        state, plan = policy.decide(state, observation)
        target = plan.target.tolist()
    assert target == [20, 1]


# knative.dev, "Additional autoscaling configuration for Knative Pod Autoscaler" and "Configuring
# concurrency".
def test_kpa_keeps_70_per_cent_of_the_container_concurrency():
    assert path(KPA(concurrency=10), 1, 10, ongoing=[100.0]) == [15]  # 100 / (10 x 0.7) = 14.3


def test_kpa_panics_if_six_seconds_want_twice_the_ready_pods_and_then_never_shrinks():
    policy = KPA(utilisation=1.0)
    busy = [4.0] * 40 + [12.0] * 3 + [4.0] * 40
    targets = path(policy, 83, 4, ongoing=busy)
    assert targets[:40] == [4] * 40
    assert targets[40:43] == [5, 10, 12]  # the stable window, whose mean is still near 4, wants 5
    assert targets[42:71] == [12] * 29  # for a stable window after the reason to panic, at tick 41
    assert targets[-1] < 12


def test_kpa_follows_the_stable_window_without_panic():
    policy = KPA(utilisation=1.0)
    targets = path(policy, 70, 4, ongoing=[4.0] * 30 + [7.0] * 40)
    assert targets[29] == 4
    assert 4 < targets[40] < 7  # the mean of a minute, 1.75 times the pods is no panic
    assert targets[60] == 7


def test_kpa_halves_at_most_in_one_decision():
    assert path(KPA(), 3, 100, ongoing=[0.0] * 3) == [50, 25, 12]
    assert path(KPA(), 1, 1, ongoing=[0.0]) == [1]


@pytest.mark.parametrize("policy", [BehaviorHPA(), KEDA(), KPA()], ids=lambda policy: policy.name)
def test_missing_data_changes_nothing(policy):
    assert path(policy, 30, 6, arrivals_per_min=[np.nan] * 30, ongoing=[np.nan] * 30) == [6] * 30
