"""Orders for more replicas than there is room for: what the jobs get instead, and what is said."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from observations import observed

from faro_lib import forecast
from faro_lib.control import Memory
from faro_lib.policies import PolicyContext, make
from faro_lib.protocol import OVERRIDE
from faro_lib.workload import Job, Traces
from faro_ops.operate.job_states import FINE, MISCONFIGURED, JobStates
from faro_ops.operate.limits.bounds import HAND_BACK, KEEP_FLOOR
from faro_ops.operate.limits.fitting import fitting_orders, report_orders, shortfalls
from faro_ops.operate.loop.resume import next_memory
from faro_ops.operate.loop.tick import tick
from faro_ops.operate.memory.overrides import Override, RejectedOrder, Settings
from faro_ops.protocol import LiveGuardrails, LivePlan

NONE = 0  # no order


def fitting(ordered, minimum, capacity, cores=None, weight=None, group=None, quota=(np.inf,)):
    jobs = len(ordered)
    return fitting_orders(
        np.array(ordered),
        np.array(minimum),
        np.ones(jobs) if cores is None else np.array(cores),
        np.ones(jobs) if weight is None else np.array(weight),
        np.zeros(jobs, int) if group is None else np.array(group),
        np.array(quota),
        capacity,
    ).tolist()


class TestWhatFits:
    def test_an_order_that_fits_is_in_force_in_full(self):
        assert fitting([5, NONE], [1, 1], 8) == [5, 1]

    def test_an_order_leaves_the_others_their_minima(self):
        assert fitting([50, NONE, NONE], [1, 2, 1], 8) == [5, 2, 1]

    def test_an_order_fits_into_its_own_quota_beside_the_minima_of_its_tenant(self):
        order = fitting([50, NONE, NONE], [1, 1, 1], 20, group=[1, 1, 0], quota=[np.inf, 4.0])
        assert order == [3, 1, 1]

    def test_without_room_a_job_keeps_its_own_minimum(self):
        assert fitting([50, NONE], [2, 6], 5) == [2, 6]

    def test_of_two_orders_the_job_with_the_higher_weight_comes_first(self):
        assert fitting([6, 6], [1, 1], 8, weight=[1.0, 2.0]) == [2, 6]

    def test_equal_weights_share_fairly_and_a_small_order_is_met_first(self):
        assert fitting([50, 50], [1, 1], 9) == [5, 4]
        assert fitting([50, 2], [1, 1], 9) == [7, 2]

    def test_what_a_large_replica_leaves_goes_to_a_smaller_one(self):
        order = fitting([4, 9], [1, 1], 8, cores=[3.0, 1.0], weight=[2.0, 1.0])
        assert order == [2, 2]


@st.composite
def orders(draw):
    jobs = draw(st.integers(1, 5))
    column = {"min_size": jobs, "max_size": jobs}
    minimum = draw(st.lists(st.integers(0, 3), **column))
    ordered = [
        draw(st.just(NONE) | st.integers(least, 12)) if least else draw(st.integers(0, 12))
        for least in minimum
    ]
    return {
        "ordered": ordered,
        "minimum": minimum,
        "capacity": draw(st.integers(0, 60)) / 2,
        "cores": draw(st.lists(st.sampled_from([0.5, 1.0, 1.5, 4.0]), **column)),
        "weight": draw(st.lists(st.sampled_from([0.0, 1.0, 2.0]), **column)),
        "group": draw(st.lists(st.integers(0, 1), **column)),
        "quota": [np.inf, draw(st.integers(0, 20)) / 2],
    }


class TestForAllOrders:
    @given(orders())
    def test_only_jobs_with_an_order_change_and_none_gets_more_than_it_is_ordered(self, case):
        for count, ordered, minimum in zip(fitting(**case), case["ordered"], case["minimum"]):
            assert count == minimum if ordered == NONE else minimum <= count <= ordered

    @given(orders())
    def test_capacity_and_quotas_hold_and_no_replica_more_would_fit(self, case):
        counts = np.array(fitting(**case))
        cores, group = np.array(case["cores"]), np.array(case["group"])
        before = np.array(case["minimum"]) * cores
        used = counts * cores
        assert used.sum() <= max(case["capacity"], before.sum()) + 1e-6
        for n, quota in enumerate(case["quota"]):
            mine = group == n
            assert used[mine].sum() <= max(quota, before[mine].sum()) + 1e-6
        for n in np.flatnonzero(counts < np.array(case["ordered"])):
            in_group = used[group == group[n]].sum()
            room = min(case["capacity"] - used.sum(), case["quota"][group[n]] - in_group)
            assert cores[n] > room - 1e-6

    @given(orders())
    def test_an_order_of_a_lower_weight_takes_nothing_from_a_higher_one(self, case):
        high = np.array(case["weight"]) == max(case["weight"])
        alone = np.where(high, case["ordered"], NONE).tolist()
        counts = np.array(fitting(**case))
        assert (
            counts[high].tolist() == np.array(fitting(**case | {"ordered": alone}))[high].tolist()
        )


# --- in the tick ----------------------------------------------------------------------------------

JOBS = (Job("a", max_replicas=50), Job("b"), Job("c", min_replicas=2))  # 50 ordered for a
FIXED = LiveGuardrails(fixed=("a",))


def policy_named(name, jobs):
    counts = np.full((3, 1, len(jobs), 1440), 60)
    context = PolicyContext(jobs, forecast.fit("persistence", Traces(jobs, counts[:2], counts[2])))
    return make(name, context)


def ticks(policy, jobs, capacities, guardrails=FIXED, start=(1, 1, 2), **fields):
    """Ticks of a minute each, at these capacities, on a cluster that obeys at once."""
    memory = Memory.start(policy, jobs)
    target, steps = np.array(start), []
    for n, capacity in enumerate(capacities, 1):
        seen = observed(
            target,
            capacity,
            now_s=60.0 * n,
            minute=n,
            arrivals_per_min=np.full((len(jobs), n), 60.0),
            mean_latency_s=np.full(len(jobs), 0.2),
            tail_latency_s=np.full(len(jobs), 0.2),
            **fields,
        )
        memory, step = tick(policy, guardrails, jobs, memory, seen)
        memory = next_memory(memory, True, None)
        target = step.target
        steps.append(step)
    return steps


@pytest.mark.parametrize("name", ["Faro-Sum", "FairShare", "AIAD", "HPA", "MArk"])
class TestAnOrderAboveTheCapacity:
    def test_its_job_keeps_what_it_has_and_no_policy_fails(self, name):
        steps = ticks(policy_named(name, JOBS), JOBS, [8.0] * 3, start=(2, 1, 2))
        assert [step.failure for step in steps] == [None] * 3
        assert steps[-1].target[0] == 2
        assert steps[-1].plan.reason[0] == OVERRIDE

    def test_the_others_are_scaled_as_if_it_kept_them(self, name):
        two = (replace(JOBS[0], max_replicas=2), *JOBS[1:])
        without = ticks(policy_named(name, two), two, [8.0] * 3, start=(2, 1, 2))
        steps = ticks(policy_named(name, JOBS), JOBS, [8.0] * 3, start=(2, 1, 2))
        assert steps[-1].target.tolist() == without[-1].target.tolist()

    def test_what_its_job_has_is_reduced_if_the_capacity_falls(self, name):
        steps = ticks(policy_named(name, JOBS), JOBS, [8.0, 6.0], start=(5, 1, 2))
        assert [step.failure for step in steps] == [None] * 2
        assert steps[-1].target.tolist() == [3, 1, 2]

    def test_it_is_in_force_in_full_when_there_is_room(self, name):
        steps = ticks(policy_named(name, JOBS), JOBS, [8.0, 60.0, 60.0])
        assert steps[-1].target[0] == 50
        assert shortfalls(JOBS, FIXED.fixed, steps[-1]) == {}


@pytest.mark.parametrize("name", ["Faro-Sum", "FairShare"])
def test_an_order_above_its_quota_fails_no_policy(name):
    jobs = tuple(
        replace(job, tenant="t", tenant_quota=4.0) if job.name != "c" else job for job in JOBS
    )
    steps = ticks(policy_named(name, jobs), jobs, [20.0] * 3)
    assert [step.failure for step in steps] == [None] * 3
    assert steps[-1].target[0] == 1
    (reason,) = shortfalls(jobs, FIXED.fixed, steps[-1]).values()
    assert reason == (
        "order of 50 replicas does not fit beside the minima of the other jobs and into "
        "tenant_quota=4 cores; until it does, the job keeps 1"
    )


def test_an_order_is_in_force_although_the_policy_fails():
    class Failing:
        name, tick_s = "failing", 60.0

        def start(self, jobs):
            return None

        def decide(self, state, observation):
            raise ValueError("no plan")

    five = (replace(JOBS[0], max_replicas=5), *JOBS[1:])
    assert ticks(Failing(), five, [8.0])[-1].target.tolist() == [5, 1, 2]


@pytest.mark.parametrize(("order", "gets"), [(3, 3), (4, 1)])
def test_an_order_is_in_force_if_it_fits_beside_what_a_held_job_has(order, gets):
    jobs = (replace(JOBS[0], max_replicas=order), *JOBS[1:])
    held = np.array([False, True, False])
    steps = ticks(policy_named("Faro-Sum", jobs), jobs, [8.0] * 2, start=(1, 3, 2), held=held)
    assert steps[-1].target.tolist()[:2] == [gets, 3]


@pytest.mark.parametrize("floor", [None, [HAND_BACK, 1, KEEP_FLOOR]])
def test_an_autoscaler_gets_the_order_as_both_bounds_also_between_plans_and_without_authority(
    floor,
):
    class Bounding:
        name, tick_s = "bounding", 60.0

        def start(self, jobs):
            return None

        def decide(self, state, observation):
            bounds = None if floor is None else np.array(floor)
            target = observation.target
            return state, LivePlan(target, np.zeros(3), ("hold",) * 3, floor=bounds)

    hpas = {"unbounded": np.array([True, False, False]), "replicas": np.array([1, 1, 2])}
    five = (replace(JOBS[0], max_replicas=5), *JOBS[1:])
    (step,) = ticks(Bounding(), five, [8.0], **hpas)
    assert step.target.tolist() == [5, 1, 2]
    assert step.plan.floor.tolist() == [5, *(floor or [0, KEEP_FLOOR, KEEP_FLOOR])[1:]]


def test_an_order_of_a_job_that_does_not_exist_takes_no_room():
    present = np.array([False, True, True])
    steps = ticks(policy_named("Faro-Sum", JOBS), JOBS, [8.0] * 2, start=(0, 1, 2), present=present)
    assert steps[-1].failure is None
    assert steps[-1].target.tolist()[0] == 0
    assert shortfalls(JOBS, FIXED.fixed, steps[-1]) == {}


def test_with_an_unknown_capacity_an_order_takes_nothing_from_the_others():
    steps = ticks(policy_named("Faro-Sum", JOBS), JOBS, [np.nan], start=(1, 3, 2))
    assert steps[-1].target.sum() <= 6
    assert (steps[-1].target >= [1, 1, 2]).all()


class TestWhatIsSaid:
    def settings(self, *rejected):
        order = Override(job="a", by="me", from_s=0.0, replicas=50)
        return Settings(JOBS, {}, fixed=(order,), rejected=rejected)

    def test_the_board_says_what_the_job_has_instead(self):
        states = JobStates()
        steps = ticks(policy_named("FairShare", JOBS), JOBS, [8.0, 60.0])
        report_orders(states, self.settings(), steps[0])
        assert states.of("a").state == MISCONFIGURED
        assert states.of("a").reason == (
            "order of 50 replicas does not fit beside the minima of the other jobs; "
            "until it does, the job keeps 1"
        )
        report_orders(states, self.settings(), steps[1])
        assert states.of("a").state == FINE

    def test_the_board_has_rejected_orders_of_the_jobs_that_it_knows(self):
        states = JobStates()
        (step,) = ticks(policy_named("FairShare", JOBS), JOBS, [60.0])
        rejected = (
            RejectedOrder("b", "{'job': 'b'}", "an override has either replicas or load"),
            RejectedOrder("gone", "{'job': 'gone'}", "no such job in the jobs' table"),
        )
        report_orders(states, self.settings(*rejected), step)
        assert list(states.troubled()) == ["b"]
        assert "an override has either replicas or load" in states.of("b").reason

    def test_an_order_that_fits_on_fewer_nodes_is_said(self):
        jobs = (Job("a", cores=2.0, max_replicas=3), Job("b", cores=1.0))
        (step,) = ticks(
            policy_named("FairShare", jobs),
            jobs,
            [8.0],
            start=(1, 1),
            free_cores=np.array([1.0, 1.0, 2.0]),
            placed=np.array([[1, 0, 0], [0, 1, 0]]),
        )
        assert step.target.tolist()[0] == 2
        assert shortfalls(jobs, ("a",), step) == {"a": "order of 3 replicas: 2 fit on the nodes"}
