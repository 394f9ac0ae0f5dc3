"""HPAs under the bounds that Faro sets: what the bounds promise, and that HPAs choose replicas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from observations import observed

from faro_lib import forecast
from faro_lib.policies import HPA, PolicyContext, make
from faro_lib.policies.faro import tuned
from faro_lib.policies.loops import fold_minutes
from faro_lib.simulate import simulate
from faro_lib.utility import UtilityTable
from faro_lib.workload import Job, arrays_of
from faro_lib.workload.synthetic import synthetic
from faro_ops import cli
from faro_ops.operate.limits.bounds import AsBounds, bounds
from studies import adoption
from studies.adoption import StaticFloors, UnderCeilings, divided, static_floors

RISING = [0, 0.5, 0.8, 0.95, 0.99, 1.0]


@pytest.fixture(scope="module")
def traces():
    return synthetic(seed=2, jobs=4, days=2, minutes=60)


@pytest.fixture(scope="module")
def context(traces):
    return PolicyContext(traces.jobs, forecast.fit("ar", traces), traces=traces)


@pytest.fixture(scope="module")
def run(traces, context):
    """60 minutes on 12 cores, too few for the busiest minutes, with the bounds of each decision."""
    bounds_set = []

    class Recorded(UnderCeilings):
        def decide(self, state, observation):
            state, plan = UnderCeilings.decide(self, state, observation)
            limits = state.hpa.jobs
            bounds_set.append((observation, limits.min_replicas, limits.max_replicas, plan.target))
            return state, plan

    result = simulate(traces.workload(), Recorded(AsBounds.of(tuned(context)), HPA()), 12, seed=24)
    return result, bounds_set


def test_a_floor_is_the_smallest_count_that_costs_at_most_the_tolerance():
    table = UtilityTable.from_values([Job("a"), Job("b")], [RISING, RISING])
    for tolerance, expected in ((0.0, 4), (0.045, 3), (0.2, 2), (1.0, 1)):
        floor, _ = bounds(
            table, np.array([4, 4]), np.array([np.zeros(2), np.ones(2)]), 8, tolerance
        )
        assert floor.tolist() == [expected, expected]


def test_a_job_whose_hpa_holds_enough_replicas_by_itself_needs_no_floor():
    table = UtilityTable.from_values([Job("a"), Job("b")], [RISING, RISING])
    load = np.array([[3.6, 1.0], [3.6, 1.0]])  # an HPA holds five replicas, and two
    floor, ceiling = bounds(table, np.array([5, 5]), load, 10, 0.02)
    assert floor.tolist() == [1, 4]
    assert ceiling.tolist() == [5, 5]


def test_free_capacity_raises_the_ceiling_of_the_busiest_job_and_an_idle_job_lends_its_own():
    table = UtilityTable.from_values([Job("busy"), Job("idle")], [RISING, [0, 1, 1, 1, 1, 1]])
    _, ceiling = bounds(table, np.array([4, 1]), np.array([[0.0, 0.0], [3.0, 0.0]]), 8, 0.02)
    assert ceiling.tolist() == [7, 1]


def test_an_idle_job_has_a_floor_of_one_however_many_replicas_its_hpa_has_left(traces):
    idle = forecast.fit("persistence", replace(traces, train=np.zeros_like(traces.train)))
    policy = AsBounds.of(tuned(PolicyContext(traces.jobs, idle), "FairSum"))
    at = observed([5] * 4, now_s=910.0, minute=15, arrivals_per_min=np.zeros((4, 15)))
    plan = policy.plan(fold_minutes(policy.start(traces.jobs), at), at)
    assert plan.floor.tolist() == [1] * 4


def test_ceilings_respect_cores_quotas_and_maxima():
    jobs = (
        Job("a", cores=2.0),
        Job("b", tenant="x", tenant_quota=2.0),
        Job("c", max_replicas=2),
    )
    table = UtilityTable.from_values(jobs, [[0, 1, 1, 1]] * 3)
    _, ceiling = bounds(
        table, np.array([1, 1, 1]), np.array([np.zeros(3), [1.0, 9.0, 9.0]]), 9.0, 0.02
    )
    assert ceiling.tolist() == [2, 2, 2]  # 4 + 2 + 2 cores; another replica of a needs two


def test_the_hpa_stays_within_the_bounds_and_the_ceilings_within_the_capacity(run):
    _, bounds_set = run
    for observation, floor, ceiling, target in bounds_set:
        if observation.now_s >= 15:
            assert ceiling.sum() <= 12
            assert (floor <= ceiling).all()
            assert floor.min() >= 1
            if observation.now_s % HPA().tick_s == 0:
                assert (floor <= target).all()
                assert (target <= ceiling).all()


def test_between_its_own_ticks_nothing_changes_because_only_the_hpa_chooses_replicas(run):
    result, _ = run
    target = np.array(result.decisions.target)
    time_s = np.array(result.decisions.time_s)
    changed = (np.diff(target, axis=0) != 0).any(axis=1)
    assert changed.any()
    assert (time_s[1:][changed] % HPA().tick_s == 0).all()


def test_under_contention_ceilings_lose_less_than_hpas_alone(traces, context, run):
    alone = simulate(traces.workload(), HPA(), 12, seed=24)
    assert lost(run[0]) < 0.8 * lost(alone)


def lost(result):
    from faro_lib.metrics.measures import lost_utility, minute_utility

    return lost_utility(minute_utility(result))


def test_a_floor_that_falls_is_followed_at_once_because_an_hpa_remembers_no_bounds():
    jobs = (Job("a", service_time_s=0.1),)
    load = dict(arrivals_per_min=np.array([[0.8 / 0.1 * 60]]))  # keeps one pod at its target
    state = HPA().start(jobs)
    for tick in range(1, 25):
        floor = 4 if tick < 24 else 1
        state = replace(state, jobs=replace(arrays_of(jobs), min_replicas=np.array([floor])))
        state, plan = HPA().decide(state, observed([4], now_s=15.0 * tick, **load))
        assert plan.target[0] == floor


def test_static_floors_divide_their_share_by_the_load_and_never_change(traces, context):
    assert divided(10, np.array([6.0, 2.0]), np.ones(2, int), np.ones(2)).tolist() == [7, 3]
    policy = static_floors(context)
    assert isinstance(make("StaticFloors", context), StaticFloors)
    floor = policy.floors(traces.jobs, 12)
    assert floor.sum() <= 0.75 * 12
    result = simulate(traces.workload(), policy, 12, seed=24)
    assert (np.array(result.decisions.target) >= floor).all()


def test_static_floors_can_be_simulated_from_the_command_line(coarse_tables, monkeypatch, capsys):
    monkeypatch.setenv("FARO_PLUGINS", "")
    arguments = "--policy StaticFloors --minutes 5 --forecaster ar --plugin {}"
    assert cli.main(["simulate", *arguments.format(adoption.__file__).split()]) == 0
    assert "StaticFloors" in capsys.readouterr().out


def test_a_context_without_traces_is_refused_in_plain_words(traces):
    with pytest.raises(
        ValueError, match=r"policy 'StaticFloors' needs traces; its context has none"
    ):
        make("StaticFloors", PolicyContext(traces.jobs))
