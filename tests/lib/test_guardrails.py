"""The guardrails, one by one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from observations import observed

from faro_lib.control import GuardrailConfig, Memory, PolicyFailed, tick
from faro_lib.policies import AIAD, FairShare
from faro_lib.protocol import (
    BOUNDS,
    CAPACITY,
    CONTESTED,
    DRIFT_CORRECTED,
    FAILED,
    HOLD,
    JOB_ADDED,
    JOB_REMOVED,
    MISSING,
    PLANNED,
    RATE_LIMIT,
    REASONS,
    Plan,
)
from faro_lib.workload import Job
from faro_ops.operate.loop.loop import report_failures, run
from faro_ops.protocol import LiveGuardrails


@dataclass(frozen=True)
class Wish:
    """A policy that always asks for the same targets."""

    target: tuple
    more: tuple | None = None
    less: tuple | None = None
    drop: float = 0.0
    attempts: int = 5
    name: str = "Wish"
    tick_s: float = 60.0

    def initial(self, jobs, capacity):
        return np.array(self.target)

    def start(self, jobs):
        return 0

    def decide(self, state, observation):
        value = {
            "marginal_value_up": None if self.more is None else np.array(self.more),
            "marginal_value_down": None if self.less is None else np.array(self.less),
        }
        target = np.array(self.target)
        reason = tuple(PLANNED if moved else HOLD for moved in target != observation.target)
        return state + 1, Plan(
            target, np.full(len(target), self.drop), reason, attempts=self.attempts, **value
        )


@dataclass(frozen=True)
class Failing(Wish):
    """A policy whose solver raises."""

    def decide(self, state, observation):
        raise ArithmeticError("no solution")


def jobs_of(*names, **fields):
    return tuple(Job(name, **fields) for name in names)


ABC = jobs_of("a", "b", "c")


class Ticks:
    """Tick by hand, one observation after another."""

    def __init__(self, policy, jobs=ABC, guardrails=GuardrailConfig()):  # noqa: B008
        self.policy = policy
        self.jobs = jobs
        self.guardrails = guardrails
        self.memory = Memory.start(policy, jobs)

    def after(self, observation):
        self.memory, step = tick(self.policy, self.guardrails, self.jobs, self.memory, observation)
        report_failures(step, on_failure=None)
        return step.target.tolist(), step.plan.reason


def blind(observation, *jobs):
    """The observation without the data of these jobs."""
    latency_s, counts = (
        observation.mean_latency_s.astype(float),
        observation.arrivals_per_min.astype(float),
    )
    latency_s, counts = latency_s.copy(), counts.copy()
    latency_s[list(jobs)] = np.nan
    counts[list(jobs), -1] = np.nan
    return replace(observation, mean_latency_s=latency_s, arrivals_per_min=counts)


def test_a_plan_within_the_guardrails_is_not_changed():
    assert Ticks(Wish((3, 1, 2))).after(observed([2, 2, 2])) == (
        [3, 1, 2],
        (PLANNED, PLANNED, HOLD),
    )


def test_data_that_is_missing_for_a_short_time_is_left_to_the_policy():
    ticks = Ticks(Wish((3, 1, 2)), guardrails=GuardrailConfig(stale_after_s=60))
    assert ticks.after(blind(observed([2, 2, 2], now_s=60.0), 0))[0] == [3, 1, 2]


def test_only_a_job_whose_data_stays_missing_is_held():
    ticks = Ticks(Wish((3, 1, 2)), guardrails=GuardrailConfig(stale_after_s=30))
    assert ticks.after(blind(observed([2, 2, 2], now_s=60.0), 0)) == (
        [2, 1, 2],
        (MISSING, PLANNED, HOLD),
    )


@pytest.mark.parametrize("field", ["arrivals_per_min", "mean_latency_s"])
def test_missing_counts_and_missing_latencies_have_the_same_effect(field):
    ticks = Ticks(Wish((3, 1, 2)), guardrails=GuardrailConfig(stale_after_s=30))
    observation = observed([2, 2, 2], now_s=60.0)
    without = replace(observation, **{field: getattr(blind(observation, 1), field)})
    assert ticks.after(without)[1] == (PLANNED, MISSING, HOLD)


def test_the_fail_mode_fair_share_applies_to_missing_data():
    ticks = Ticks(Wish((1, 1, 1)), guardrails=GuardrailConfig("fair-share", stale_after_s=30))
    observation = blind(observed([1, 1, 7], capacity=9, now_s=60.0), 0, 1, 2)
    assert ticks.after(observation) == ([3, 3, 3], (MISSING,) * 3)


def test_the_policy_decides_for_a_job_again_once_its_data_is_back():
    ticks = Ticks(Wish((3, 1, 2)), guardrails=GuardrailConfig(stale_after_s=30))
    ticks.after(blind(observed([2, 2, 2], now_s=60.0), 0, 1, 2))
    assert ticks.after(observed([2, 2, 2], now_s=70.0))[0] == [3, 1, 2]


def test_missing_latencies_are_not_read_as_low_latencies():
    # Ten minutes below the SLO let AIAD take a replica away; ten minutes without a latency do not.
    for latency_s, expected in ((0.1, 4), (np.nan, 5)):
        ticks = Ticks(AIAD(), jobs_of("a"), GuardrailConfig(stale_after_s=1e9))
        for n in range(1, 61):
            target, _ = ticks.after(
                observed([5], now_s=10.0 * n, mean_latency_s=np.array([latency_s]))
            )
        assert target == [expected]


def test_when_the_policy_raises_the_loop_holds_and_warns():
    with pytest.warns(PolicyFailed, match=r"'Wish' failed at 60 s, hold instead: no solution"):
        assert Ticks(Failing((3, 1, 2))).after(observed([2, 2, 2])) == ([2, 2, 2], (FAILED,) * 3)


def test_when_the_policy_raises_the_fail_mode_can_be_a_fair_share():
    with pytest.warns(PolicyFailed):
        assert Ticks(Failing((9, 9, 9)), guardrails=GuardrailConfig("fair-share")).after(
            observed([1, 1, 7], capacity=9)
        )[0] == [3, 3, 3]


def test_equal_shares_that_would_exceed_a_quota_are_not_made_and_the_loop_holds():
    ticks = Ticks(
        Failing((1, 1, 1)),
        jobs_of("a", "b", "c", tenant="t", tenant_quota=2.0),
        GuardrailConfig("fair-share"),
    )
    with pytest.warns(PolicyFailed):
        assert ticks.after(observed([2, 1, 1])) == ([2, 1, 1], (FAILED,) * 3)


def test_a_failed_policy_keeps_its_previous_state():
    ticks = Ticks(Failing((2, 2, 2)))
    with pytest.warns(PolicyFailed):
        ticks.after(observed([2, 2, 2]))
    assert ticks.memory.state == 0


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (Wish((3, np.nan, 2)), "whole numbers"),
        (Wish((3, 1.5, 2)), "whole numbers"),
        (Wish((3, 1)), "shape"),
        (Wish((3, 1, 2), drop=np.nan), r"lie in \[0, 1\]"),
        (Wish((3, 1, 2), drop=1.5), r"lie in \[0, 1\]"),
    ],
)
def test_an_invalid_plan_counts_as_a_failure(wish, message):
    class Nonsense(Wish):
        def decide(self, state, observation):
            target = np.array(self.target)
            return state, Plan(target, np.full(len(target), self.drop), (HOLD,) * len(target))

    nonsense = Nonsense(wish.target, drop=wish.drop)
    with pytest.warns(PolicyFailed, match=message):
        assert Ticks(nonsense).after(observed([2, 2, 2])) == ([2, 2, 2], (FAILED,) * 3)


def test_targets_stay_within_the_bounds_of_the_jobs():
    jobs = jobs_of("a", "b", "c", min_replicas=2, max_replicas=4)
    assert Ticks(Wish((1, 9, 3)), jobs).after(observed([3, 3, 3])) == (
        [2, 4, 3],
        (BOUNDS, BOUNDS, HOLD),
    )


def test_scaling_actions_are_limited_in_the_order_of_the_jobs():
    ticks = Ticks(Wish((3, 3, 4)), guardrails=GuardrailConfig(max_scaling_actions=2))
    assert ticks.after(observed([2, 2, 2])) == ([3, 3, 2], (PLANNED, PLANNED, RATE_LIMIT))


def test_the_most_valuable_starts_come_first_if_the_plan_has_values():
    wish = Wish((3, 3, 4), less=(0.1, 0.2, 0.3))
    assert Ticks(wish, guardrails=GuardrailConfig(max_scaling_actions=2)).after(
        observed([2, 2, 2])
    )[0] == [2, 2, 4]


def test_a_start_in_a_full_cluster_and_the_least_valuable_stop_are_one_action():
    wish = Wish((4, 1, 1), more=(0.0, 0.5, 0.1), less=(0.9, 0.0, 0.0))
    ticks = Ticks(wish, guardrails=GuardrailConfig(max_scaling_actions=1))
    assert ticks.after(observed([2, 2, 2], capacity=6))[0] == [3, 2, 1]


def test_actions_beyond_the_limit_are_made_by_later_decisions():
    ticks = Ticks(Wish((5, 1, 3)), guardrails=GuardrailConfig(max_scaling_actions=1))
    target = [2, 4, 3]
    for n in range(1, 4):
        target, _ = ticks.after(observed(target, capacity=9, now_s=60.0 * n))
    assert target == [5, 1, 3]


def test_a_delayed_scaling_action_has_the_reason_of_the_plan_that_requested_it():
    ticks = Ticks(Wish((3, 1, 2)))
    assert ticks.after(observed([2, 1, 2], capacity=5, now_s=60.0)) == (
        [2, 1, 2],
        (PLANNED, HOLD, HOLD),
    )
    ticks.policy = Wish((2, 1, 2), attempts=1)  # holds
    assert ticks.after(observed([2, 1, 2], capacity=9, now_s=120.0)) == (
        [3, 1, 2],
        (PLANNED, HOLD, HOLD),
    )
    ticks.policy = Wish((3, 1, 2), attempts=1)
    assert ticks.after(observed([3, 1, 2], capacity=9, now_s=180.0)) == (
        [3, 1, 2],
        (HOLD, HOLD, HOLD),
    )


def test_without_a_known_capacity_no_job_grows_and_none_shrinks_for_it():
    assert Ticks(Wish((3, 1, 2))).after(observed([2, 2, 2], capacity=np.nan))[0] == [3, 1, 2]
    assert Ticks(Wish((3, 2, 2))).after(observed([2, 2, 2], capacity=np.nan))[0] == [2, 2, 2]


def test_targets_changed_by_another_client_are_restored():
    ticks = Ticks(Wish((3, 1, 2)))
    ticks.after(observed([2, 2, 2], now_s=60.0))
    assert ticks.after(observed([1, 1, 1], now_s=120.0)) == (
        [3, 1, 2],
        (DRIFT_CORRECTED, HOLD, DRIFT_CORRECTED),
    )


def test_a_policy_steps_from_the_requested_target_not_from_a_changed_one():
    ticks = Ticks(AIAD(), jobs_of("a"))
    for n, target in ((1, 5), (2, 5), (3, 1)):
        asked, _ = ticks.after(observed([target], now_s=10.0 * n, mean_latency_s=np.array([1.0])))
    assert asked == [6]


def test_drop_rates_changed_by_another_client_are_restored():
    ticks = Ticks(Wish((2, 2, 2), drop=0.1))
    ticks.after(observed([2, 2, 2], now_s=60.0))
    assert ticks.after(observed([2, 2, 2], now_s=120.0))[1] == (DRIFT_CORRECTED,) * 3


def test_if_capacity_shrinks_unwanted_replicas_go_first_even_during_changes():
    wish = Wish((2, 1, 4))
    observation = observed([4, 2, 4], capacity=7, changing=[True, True, True])
    assert Ticks(wish).after(observation)[0] == [2, 1, 4]


def test_wanted_replicas_go_from_the_last_job_with_most_cores_above_its_minimum():
    assert Ticks(Wish((4, 2, 4))).after(observed([4, 2, 4], capacity=9)) == (
        [4, 2, 3],
        (HOLD, HOLD, CAPACITY),
    )
    assert Ticks(Wish((4, 2, 4))).after(observed([4, 2, 4], capacity=6)) == (
        [2, 2, 2],
        (CAPACITY, HOLD, CAPACITY),
    )


def test_replicas_removed_for_capacity_do_not_return_by_an_older_plan():
    ticks = Ticks(Wish((9, 2, 2)))
    assert ticks.after(observed([2, 2, 2], capacity=8, now_s=60.0))[0] == [
        4,
        2,
        2,
    ]  # the rest is carried over
    ticks.policy = Wish((4, 2, 2))
    assert ticks.after(observed([4, 2, 2], capacity=7, now_s=120.0))[0] == [3, 2, 2]
    ticks.policy = Wish((3, 2, 2))
    assert ticks.after(observed([3, 2, 2], capacity=20, now_s=180.0))[0] == [3, 2, 2]


def test_minima_go_last_and_from_the_job_of_the_least_weight():
    jobs = (Job("a", weight=0.5), Job("b"), Job("c"))
    assert Ticks(Wish((1, 1, 1)), jobs).after(observed([1, 1, 1], capacity=2))[0] == [0, 1, 1]
    assert Ticks(Wish((1, 1, 1))).after(observed([1, 1, 1], capacity=2))[0] == [1, 1, 0]


@pytest.mark.parametrize(
    ("minima", "capacity", "expected"),
    [((4, 1, 1, 1), 5, [2, 1, 1, 1]), ((50, 1, 1, 1), 8, [5, 1, 1, 1]), ((3, 3, 1), 4, [2, 1, 1])],
)
def test_no_job_goes_to_zero_for_the_minimum_of_another_that_has_several_replicas(
    minima, capacity, expected
):
    jobs = tuple(
        Job(str(n), min_replicas=fewest, max_replicas=50) for n, fewest in enumerate(minima)
    )
    assert (
        Ticks(Wish(minima), jobs).after(observed([1] * len(jobs), capacity=capacity))[0] == expected
    )


def with_present(observation, *present):
    return replace(observation, present=np.array(present))


def test_a_new_job_starts_at_its_minimum_whatever_the_plan():
    jobs = (Job("a"), Job("b"), Job("c", min_replicas=2))
    ticks = Ticks(Wish((3, 3, 5)), jobs)
    assert ticks.after(with_present(observed([3, 3, 0]), True, True, False)) == (
        [3, 3, 0],
        (HOLD, HOLD, HOLD),
    )
    added = with_present(observed([3, 3, 0], now_s=120.0), True, True, True)
    assert ticks.after(added) == ([3, 3, 2], (HOLD, HOLD, JOB_ADDED))
    assert ticks.after(with_present(observed([3, 3, 2], now_s=180.0), True, True, True))[0] == [
        3,
        3,
        5,
    ]


def test_a_job_that_comes_with_replicas_keeps_them_until_its_data_is_known():
    ticks = Ticks(Wish((3, 3, 5)))
    ticks.after(with_present(observed([3, 3, 5]), True, True, True))
    ticks.after(with_present(observed([3, 3, 0], now_s=120.0), True, True, False))
    unknown = np.array([[0.0], [0.0], [np.nan]])
    for now_s, reason in ((180.0, HOLD), (190.0, MISSING)):
        again = observed([3, 3, 20], now_s=now_s, arrivals_per_min=unknown)
        assert ticks.after(with_present(again, True, True, True)) == (
            [3, 3, 20],
            (HOLD, HOLD, reason),
        )
    known = with_present(observed([3, 3, 20], now_s=200.0), True, True, True)
    assert ticks.after(known) == ([3, 3, 5], (HOLD, HOLD, PLANNED))


def test_a_new_job_keeps_the_replicas_with_which_it_comes_within_its_bounds():
    jobs = (Job("a"), Job("b"), Job("c", min_replicas=2, max_replicas=9))
    ticks = Ticks(Wish((3, 3, 2)), jobs)
    ticks.after(with_present(observed([3, 3, 0]), True, True, False))
    added = with_present(observed([3, 3, 12], now_s=120.0), True, True, True)
    assert ticks.after(added) == ([3, 3, 9], (HOLD, HOLD, JOB_ADDED))


def test_a_job_that_comes_back_is_no_change_by_another_client():
    ticks = Ticks(Wish((3, 3, 5)))
    ticks.after(with_present(observed([3, 3, 5]), True, True, True))
    for n in range(9):
        there, now_s = n % 2 == 1, 120.0 + 60 * n
        back = observed([3, 3, 20 if there else 0], now_s=now_s)
        _, reason = ticks.after(with_present(back, True, True, there))
        assert CONTESTED not in reason


def test_a_new_job_in_a_full_cluster_takes_its_minimum_from_the_largest_job():
    ticks = Ticks(Wish((2, 4, 1)))
    ticks.after(with_present(observed([2, 4, 0], capacity=6), True, True, False))
    added = with_present(observed([2, 4, 0], capacity=6, now_s=120.0), True, True, True)
    assert ticks.after(added) == ([2, 3, 1], (HOLD, CAPACITY, JOB_ADDED))


def test_a_new_job_that_may_have_no_replicas_takes_none_below_the_minimum_of_another():
    ticks = Ticks(
        Wish((2, 2, 1)),
        (Job("a", min_replicas=2), Job("b", min_replicas=2), Job("c", min_replicas=0, weight=2.0)),
    )
    ticks.after(with_present(observed([2, 2, 0], capacity=4), True, True, False))
    added = with_present(observed([2, 2, 0], capacity=4, now_s=120.0), True, True, True)
    assert ticks.after(added)[0] == [2, 2, 0]


def test_a_removed_job_gives_up_all_its_replicas_even_during_changes():
    ticks = Ticks(Wish((2, 4, 1)))
    ticks.after(with_present(observed([2, 4, 1]), True, True, True))
    observation = with_present(
        observed([2, 4, 1], now_s=120.0, changing=[False, True, False]), True, False, True
    )
    assert ticks.after(observation) == ([2, 0, 1], (HOLD, JOB_REMOVED, HOLD))
    assert ticks.after(with_present(observed([2, 0, 1], now_s=180.0), True, False, True)) == (
        [2, 0, 1],
        (HOLD, HOLD, HOLD),
    )


def test_pending_targets_of_a_removed_job_do_not_block_other_jobs():
    ticks = Ticks(Wish((2, 2, 9)))
    before = with_present(observed([2, 2, 2], capacity=8, now_s=60.0), True, True, True)
    ticks.after(before)  # 5 of its 9 are carried over
    ticks.policy = Wish((8, 2, 4), attempts=1)
    assert ticks.after(
        with_present(observed([2, 2, 4], capacity=10, now_s=120.0), True, True, False)
    )[0] == [8, 2, 0]


def test_present_jobs_divide_the_share_of_absent_jobs():
    ticks = Ticks(FairShare())
    assert ticks.after(with_present(observed([2, 2, 0], capacity=8), True, True, False))[0] == [
        4,
        4,
        0,
    ]


class Broken:
    """A cluster that cannot be observed after `fails_s`."""

    def __init__(self, fails_s):
        self.fails_s = fails_s
        self.now_s = 0.0
        self.applied = []

    def advance(self, until_s):
        self.now_s = until_s

    def observe(self):
        if self.now_s >= self.fails_s:
            raise ConnectionError("no answer")
        return observed([2, 2, 2], now_s=self.now_s)

    def apply(self, target, drop):
        self.applied.append(target.tolist())


def test_a_cluster_that_cannot_be_observed_holds_its_targets():
    cluster = Broken(120.0)
    steps = []
    run(
        cluster,
        Wish((3, 1, 2)),
        ABC,
        400.0,
        on_step=steps.append,
        guardrails=LiveGuardrails(stale_after_s=90),
    )
    assert cluster.applied == [[3, 1, 2]] * 6
    assert [step.plan.reason[0] for step in steps] == [PLANNED, DRIFT_CORRECTED, *[MISSING] * 4]
    assert [step.observation.minute for step in steps] == [1, 2, 3, 4, 5, 6]
    assert np.isnan(steps[-1].observation.arrivals_per_min[:, 1:]).all()


def test_without_a_single_observation_the_run_ends_with_the_error():
    with pytest.raises(ConnectionError):
        run(Broken(0.0), Wish((3, 1, 2)), ABC, 400.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("fail_mode", "panic"),
        ("max_scaling_actions", -1),
        ("stale_after_s", -1.0),
    ],
)
def test_invalid_guardrails_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"{field}={value!r}"):
        GuardrailConfig(**{field: value})


@given(st.data())
def test_targets_always_fit_the_capacity_keep_the_minima_and_have_a_reason(data):
    n = data.draw(st.integers(1, 4))

    def per_job(values):
        return data.draw(st.lists(values, min_size=n, max_size=n))

    jobs = tuple(
        Job(str(k), cores=tenths / 10, min_replicas=fewest, max_replicas=fewest + 5)
        for k, (tenths, fewest) in enumerate(
            per_job(st.tuples(st.integers(1, 20), st.integers(0, 2)))
        )
    )
    cores = np.array([job.cores for job in jobs])
    fewest = np.array([job.min_replicas for job in jobs])
    guardrails = GuardrailConfig(
        data.draw(st.sampled_from(["hold", "fair-share"])),
        data.draw(st.sampled_from([None, 0, 1, 3])),
        data.draw(st.sampled_from([0.0, 60.0])),
    )
    ticks = None
    target = np.maximum(1, fewest)
    for number in range(1, data.draw(st.integers(1, 5)) + 1):
        wish = Wish(tuple(per_job(st.integers(0, 9))))
        policy = Failing(wish.target) if data.draw(st.booleans()) else wish
        ticks = ticks or Ticks(policy, jobs, guardrails)
        ticks.policy = policy
        capacity = (
            int(np.ceil(10 * np.maximum(1, fewest) @ cores)) / 10
            + data.draw(st.integers(0, 100)) / 10
        )
        present = np.array(per_job(st.booleans()))
        drifted = data.draw(st.booleans())  # something else changed the targets
        now = np.array(per_job(st.integers(0, 5)) if drifted else target)
        observation = with_present(
            observed(now, capacity, per_job(st.booleans()), now_s=60.0 * number), *present
        )
        if data.draw(st.booleans()):
            observation = blind(observation, *range(n))
        if isinstance(policy, Failing):
            with pytest.warns(PolicyFailed):
                target, reason = ticks.after(observation)
        else:
            target, reason = ticks.after(observation)
        assert np.array(target) @ cores <= capacity + 1e-9
        assert (np.array(target)[present] >= fewest[present]).all()
        assert (np.array(target)[~present] == 0).all()
        assert set(reason) <= set(REASONS)
