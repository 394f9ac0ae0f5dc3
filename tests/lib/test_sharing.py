"""Decisions about pools agree with maximum flows, enumerations and plain loops."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

from faro_lib import forecast
from faro_lib.allocate import OBJECTIVES, solve
from faro_lib.allocate.objectives import quantised
from faro_lib.policies import Faro, PolicyContext, make
from faro_lib.queueing import model_of
from faro_lib.sharing._admission_kernels import choice_utilities
from faro_lib.sharing.admission import admit
from faro_lib.sharing.placement import near_shares, place
from faro_lib.sharing.units import pool_rows, rows_for, units_of, with_pools
from faro_lib.simulate import SimulatedCluster, draw, simulate
from faro_lib.simulate.measure import measure
from faro_lib.utility import build_table
from faro_lib.workload import Job, Placement, Traces, Workload, arrays_of, pools_of
from faro_lib.workload.pools import chained
from faro_lib.workload.replicas import SERIAL, Batched, Concurrent, Continuous
from faro_lib.workload.synthetic import synthetic
from studies.sharing.world import shortage
from tests.support.examples import examples

MODEL = model_of("mgc")


def shared_jobs(number, models=2, **fields):
    return tuple(
        Job(f"j{index}", pool="p", models_per_replica=models, **fields) for index in range(number)
    )


def unserved_by_flow(placement, loads):
    """Load minus the maximum flow from jobs to replicas that hold their models, in thousandths."""
    replicas, jobs = placement.resident.shape
    nodes = jobs + replicas + 2
    capacity = np.zeros((nodes, nodes), np.int32)
    source, sink = nodes - 2, nodes - 1
    capacity[source, :jobs] = np.round(1000 * loads)
    capacity[:jobs, jobs : jobs + replicas] = 10**6 * placement.resident.T
    capacity[jobs : jobs + replicas, sink] = 1000
    flow = maximum_flow(csr_array(capacity), source, sink).flow_value
    return (np.round(1000 * loads).sum() - flow) / 1000


@st.composite
def placements(draw):
    jobs = draw(st.integers(2, 5))
    pool = pools_of(shared_jobs(jobs, draw(st.integers(1, jobs))))[0]
    homes = draw(st.lists(st.integers(0, 3), min_size=jobs, max_size=jobs))
    homes[0] += 1
    loads = draw(st.lists(st.integers(0, 4000), min_size=jobs, max_size=jobs))
    return pool, chained(pool, np.array(homes)), np.array(loads) / 1000


def admitted(loads, replicas, curves, weight, objective):
    """The admission of one pool; `loads` is (paths, jobs)."""
    return admit(loads.T[None], np.array([replicas]), curves, weight[None], objective)


def utilities(keeps, loads, curves, replicas):
    """The utility of each job (choices, jobs) of one pool; `loads` is (paths, jobs)."""
    arrays = curves.of_job[None], curves.first, curves.last, curves.value
    return choice_utilities(keeps, loads.T[None], *arrays, 1.0, np.array([replicas]))[0]


def row_of(jobs, rates_rps, running, most, **options):
    """The worth of 0, 1, ... replicas to one pool, (X + 1,), and the utilities, (jobs, X + 1)."""
    rows = pool_rows(
        jobs, pools_of(jobs), rates_rps, np.array([running]), np.array([most]), **options
    )
    return rows.worth[0], rows.utility


class TestPlacement:
    @examples(100)
    @given(placements())
    def test_the_shortage_is_what_a_maximum_flow_leaves(self, case):
        _, placement, loads = case
        assert shortage(placement, loads[None, :])[0] == pytest.approx(
            unserved_by_flow(placement, loads)
        )

    @examples(50)
    @given(placements(), st.integers(0, 6))
    def test_a_decided_placement_respects_the_pool_and_is_never_worse_than_the_chain(
        self, case, more
    ):
        pool, current, loads = case
        replicas = len(current.home) + more
        minimum = np.minimum(current.replicas, 1)
        placed = place(pool, replicas, loads[None, :], minimum, current)
        assert len(placed.home) == replicas
        assert pool.holds(placed.resident).all()
        assert (placed.replicas >= minimum).all()
        kept = current.resized(placed.replicas)
        assert shortage(placed, loads[None, :] / 0.9) <= shortage(kept, loads[None, :] / 0.9) + 1e-9

    def test_nothing_moves_while_the_replicas_suffice(self):
        pool = pools_of(shared_jobs(4))[0]
        current = chained(pool, np.array([2, 2, 2, 2]))
        placed = place(pool, 8, np.full((5, 4), 1.2), np.ones(4, int), current)
        assert (placed.resident == current.resident).all()

    def test_a_job_that_grows_gets_into_replicas_of_others(self):
        pool = pools_of(shared_jobs(4))[0]
        current = chained(pool, np.array([2, 2, 2, 2]))
        loads = np.array([[3.5, 1.0, 0.5, 0.5]])
        assert shortage(current, loads)[0] == 0
        loads = np.array([[5.5, 0.5, 0.5, 0.5]])
        placed = place(pool, 8, loads, np.ones(4, int), current)
        assert shortage(placed, loads)[0] == 0
        assert placed.resident[:, 0].sum() >= 6

    def test_homes_follow_the_shares_and_keep_the_minimum(self):
        assert near_shares(np.array([9.0, 0.0, 1.0]), 10, np.array([1, 1, 1])).tolist() == [8, 1, 1]
        assert near_shares(np.zeros(3), 5, np.array([0, 0, 0])).sum() == 5

    def test_a_placement_keeps_its_rows_when_it_is_resized(self):
        pool = pools_of(shared_jobs(3))[0]
        placement = chained(pool, np.array([2, 1, 1]))
        bigger = placement.resized(np.array([3, 0, 2]))
        assert bigger.home.tolist() == [0, 0, 0, 2, 2]
        assert (bigger.resident[0] == bigger.resident[2]).all()
        assert pool.holds(bigger.resident).all()


class TestAdmission:
    @examples(60)
    @given(
        st.sampled_from(["Sum", "FairSum", "Fair", "PenaltySum", "PenaltyFairSum"]),
        st.integers(1, 5),
        st.lists(st.floats(0.0, 3.0), min_size=3, max_size=3),
        st.lists(st.sampled_from([0.5, 1.0, 3.0]), min_size=3, max_size=3),
    )
    def test_no_other_choice_is_better(self, name, replicas, loads, weights):
        jobs = shared_jobs(3)
        objective = OBJECTIVES.find(name)
        curves = MODEL.curves(jobs, "relaxed", 1.0, 8)
        loads = np.array([loads, [load * 1.3 for load in loads]])
        weight = np.array(weights)
        found = admitted(loads, replicas, curves, weight, objective)
        assert found.value == found.bound
        busy_s = arrays_of(jobs).busy_s
        best = -np.inf
        for drop in product((0.0, 1.0), repeat=3):
            kept = 1 - np.array(drop)
            utility = np.zeros(3)
            for path in loads:
                for j, job in enumerate(jobs):
                    if path[j] == 0:
                        utility[j] += 0.5
                    elif kept[j]:
                        rate = (kept * path).sum() / busy_s[j]
                        utility[j] += MODEL.expected_utility(job, rate, replicas, "relaxed") / 2
            best = max(best, objective.score(utility, weight))
        if objective.effective:  # it may also refuse in part
            assert found.value >= best - 1e-3
        else:
            assert found.value == pytest.approx(best, abs=2e-3)

    def test_the_heaviest_job_is_refused_first(self):
        jobs = shared_jobs(3)
        curves = MODEL.curves(jobs, "relaxed", 1.0, 8)
        loads = np.array([[6.0, 1.5, 1.5]])
        found = admitted(loads, 4, curves, np.ones(3), OBJECTIVES.find("Sum"))
        assert found.drop.tolist() == [[1.0, 0.0, 0.0]]
        weighted = admitted(loads, 8, curves, np.array([9.0, 1, 1]), OBJECTIVES.find("Sum"))
        assert weighted.drop[0, 0] == 0.0

    def test_nothing_is_refused_where_all_fits(self):
        jobs = shared_jobs(3)
        curves = MODEL.curves(jobs, "relaxed", 1.0, 8)
        found = admitted(np.full((4, 3), 1.0), 6, curves, np.ones(3), OBJECTIVES.find("Sum"))
        assert found.drop.tolist() == [[0.0, 0.0, 0.0]]

    def test_many_jobs_are_decided_with_a_bound(self):
        jobs = shared_jobs(20)
        curves = MODEL.curves(jobs, "relaxed", 1.0, 16)
        rng = np.random.default_rng(3)
        loads = rng.uniform(0.2, 2.0, (10, 20))
        found = admitted(loads, 12, curves, np.ones(20), OBJECTIVES.find("Sum"))
        assert 0 < found.value < found.bound <= 20
        assert 0 < found.drop.sum() < 20


class TestUnits:
    def test_the_row_of_a_pool_is_what_its_replicas_are_worth_to_all_jobs(self):
        jobs = shared_jobs(3)
        rng = np.random.default_rng(1)
        rates = rng.uniform(2, 12, (3, 4, 2))
        worth, utility = row_of(jobs, rates, 3, 8, latency_model=MODEL, cold_start_minutes=1.0)
        curves = MODEL.curves(jobs, "relaxed", 1.0, 8)
        busy_s = arrays_of(jobs).busy_s[:, None]
        expected = 0.0
        for minute, replicas in ((0, 3), (1, 6)):  # new replicas serve after a minute
            for sample in range(4):
                load = rates[:, [sample], minute] * busy_s
                best = admitted(load.T, replicas, curves, np.ones(3), OBJECTIVES.find("Sum"))
                expected += best.value[0] / 8
        assert worth[6] == pytest.approx(expected, abs=1e-6)
        assert utility[:, 6].sum() == pytest.approx(worth[6])
        assert (np.diff(worth) >= -1e-9).all()

    @examples(60)
    @given(
        st.lists(st.sampled_from([0.0, 2.0, 9.0, 30.0]), min_size=8, max_size=8),
        st.lists(st.sampled_from([0.5, 1.0, 3.0]), min_size=4, max_size=4),
        st.sampled_from([0.72, 0.3]),
        st.booleans(),
    )
    def test_the_row_serves_the_number_of_jobs_that_is_worth_most(
        self, rates, weights, slo_s, refuse
    ):
        jobs = tuple(
            replace(job, weight=weight, slo_s=slo_s if n else 0.72)
            for n, (job, weight) in enumerate(zip(shared_jobs(4), weights))
        )
        rates = np.array(rates).reshape(4, 2, 1)
        options = dict(latency_model=MODEL, cold_start_minutes=0.0, refuse=refuse)
        worth, utility = row_of(jobs, rates, 1, 6, **options)
        curves, busy_s = MODEL.curves(jobs, "relaxed", 1.0, 6), arrays_of(jobs).busy_s
        first_to_refuse = [0.0] if not refuse else range(5)
        for replicas in range(min(6, len(worth) - 1) + 1):
            best = 0.0
            for sample in range(2):
                load = rates[:, sample, 0] * busy_s
                rank = (load / weights).argsort(kind="stable").argsort()
                of_count = []
                for refused in first_to_refuse:
                    keeps = (rank < 4 - refused).astype(float)[None]
                    served = utilities(keeps, load[None], curves, replicas)
                    # A refused job without load is not counted in a prefix, but loses nothing.
                    of_count.append((served[0] * weights)[(keeps[0] > 0) | (load == 0)].sum())
                best += max(of_count) / 2
            assert worth[replicas] == pytest.approx(best, abs=1e-8)
            assert utility[:, replicas] @ weights == pytest.approx(worth[replicas], abs=1e-8)

    def test_sums_and_spread_go_both_ways(self):
        a, c = shared_jobs(2)
        units = units_of((a, Job("alone"), c))
        assert units.sums(np.array([1, 5, 2])).tolist() == [5, 3]
        assert units.spread(np.array([5.0, 3.0])).tolist() == [3.0, 5.0, 3.0]

    def test_the_bounds_of_a_pool_are_sums(self):
        jobs = shared_jobs(3, min_replicas=2, max_replicas=9)
        unit = units_of(jobs).jobs[0]
        assert (unit.min_replicas, unit.max_replicas) == (6, 27)


@st.composite
def mixed_tables(draw):
    """A table of two pools and a job alone, the rows of the pools, and a budget."""
    jobs = (
        *(Job(f"a{n}", pool="a", models_per_replica=2, min_replicas=0) for n in range(2)),
        *(Job(f"b{n}", pool="b", models_per_replica=2, weight=2.0) for n in range(2)),
        Job("alone", min_replicas=1),
    )
    rates = draw(st.lists(st.floats(0.0, 25.0), min_size=5, max_size=5))
    rates_rps = np.array(rates)[:, None, None] * np.array([[0.8, 1.3]])[:, :, None]
    objective = OBJECTIVES.find(draw(st.sampled_from(["Sum", "FairSum", "Fair"])))
    gamma = objective.gamma(5)
    units = units_of(jobs)
    options = dict(latency_model=MODEL, cold_start_minutes=0.0)
    two, ten = np.full(2, 2), np.full(2, 10)
    rows = rows_for(objective, gamma, jobs, units.pools, rates_rps, two, ten, **options)
    alone = build_table([jobs[4]], rates_rps[4:], [1], latency_model=MODEL, max_replicas=10)
    running = np.array([1, 2, 2])
    return with_pools(units, alone, running, rows), objective, gamma, draw(st.integers(4, 10))


class TestPoolsAndJobsAlone:
    @examples(1000)
    @given(mixed_tables())
    def test_the_capacity_is_divided_as_well_as_by_trying_everything(self, case):
        table, objective, gamma, budget = case
        found = solve(table, budget, objective, gamma=gamma)
        best = None
        for counts in product(range(table.columns + 1), repeat=3):
            if sum(counts) > budget:
                continue
            value = quantised(table.value[np.arange(3), counts])
            if np.isneginf(value).any():
                continue
            least = quantised(table.least[np.arange(3), counts])
            greatest = quantised(table.greatest[np.arange(3), counts])
            if objective.leximin:
                score = tuple(np.sort(least))
            else:
                score = (value.sum() + quantised(gamma * (least.min() - greatest.max())),)
            best = score if best is None else max(best, score)
        assert found.replicas.sum() <= budget
        if objective.leximin:
            chosen = quantised(table.least[np.arange(3), found.replicas])
            assert tuple(np.sort(chosen)) == best
        else:
            assert found.value == pytest.approx(best[0], abs=1e-9)
            assert found.bound == pytest.approx(found.value)

    def test_a_pool_of_one_is_decided_as_a_job_alone(self):
        traces = synthetic(jobs=3, days=2, minutes=30)
        fitted = forecast.fit("structural", traces)
        single = tuple(replace(job, pool=job.name, models_per_replica=1) for job in traces.jobs)
        runs = []
        for jobs in (traces.jobs, single):
            of_jobs = replace(traces, jobs=jobs)
            context = PolicyContext(jobs, fitted, latency_model=MODEL, traces=of_jobs)
            runs.append(simulate(of_jobs.workload(), make("Faro-Sum", context), 9, seed=24))
        assert np.array_equal(runs[0].decisions.target, runs[1].decisions.target)
        assert np.array_equal(runs[0].tail_latency_s, runs[1].tail_latency_s, equal_nan=True)

    @pytest.mark.parametrize("objective", ["Sum", "Fair", "FairSum", "PenaltySum"])
    def test_faro_decides_a_pool_and_a_job_alone_together(self, objective):
        traces = synthetic(jobs=4, days=2, minutes=30)
        jobs = tuple(
            replace(job, pool="p" if index else "", models_per_replica=2 if index else None)
            for index, job in enumerate(traces.jobs)
        )
        shared = replace(traces, jobs=jobs)
        fitted = forecast.fit("structural", traces)
        context = PolicyContext(jobs, fitted, latency_model=MODEL, traces=shared)
        run = simulate(shared.workload(), make(f"Faro-{objective}", context), 9, seed=24)
        targets = np.array(run.decisions.target)
        assert (targets.sum(axis=1) <= 9).all()
        assert (targets >= 1).all()
        placements = [found["p"] for found in run.decisions.placement if found]
        pool = units_of(jobs).pools[0]
        assert all(pool.holds(placement.resident).all() for placement in placements)
        assert all(placement.resident.any(axis=0).all() for placement in placements)

    def test_a_pool_may_need_more_than_on_any_training_day(self):
        jobs = shared_jobs(2)
        quiet = np.random.default_rng(0).poisson(100, (3, 1, 2, 30))
        fitted = forecast.fit("persistence", Traces(jobs, quiet[:-1], quiet[-1]))
        policy = Expecting6000(fitted, latency_model=MODEL, reserve=True)
        workload = Workload(jobs, quiet[-1, 0])
        cluster = SimulatedCluster(workload, draw(workload, 24), 80, np.array([2, 2]))
        cluster.advance(60.0)
        plan = policy.plan(policy.start(jobs), cluster.observe())
        training_load = 2 * 100 / 60 * jobs[0].busy_s
        assert plan.target.sum() > 10 * training_load

    @pytest.mark.parametrize(("at_s", "job"), [(60.0, 0), (110.0, 1)])
    def test_a_pool_refuses_for_the_minute_that_has_just_begun_or_else_for_the_next(
        self, at_s, job
    ):
        jobs = shared_jobs(2)
        counts = np.random.default_rng(0).poisson(100, (3, 1, 2, 30))
        fitted = forecast.fit("persistence", Traces(jobs, counts[:-1], counts[-1]))
        policy = TakingTurns(fitted, latency_model=MODEL)
        workload = Workload(jobs, counts[-1, 0])
        cluster = SimulatedCluster(workload, draw(workload, 24), 4, np.array([2, 2]))
        cluster.advance(at_s)
        plan = policy.plan(policy.start(jobs), cluster.observe())
        assert plan.drop.tolist() == [float(n == job) for n in range(2)]


class TakingTurns(Faro):
    """Faro with the forecast that only one job has too much load: the first, then the second."""

    def forecast_paths(self, state, observation):
        paths = np.full((2, self.samples, self.horizon_minutes), 100.0)
        paths[0, :, 0] = paths[1, :, 1:] = 60_000.0
        return paths


class Expecting6000(Faro):
    """Faro with the forecast that every job gets 6,000 requests in each minute."""

    def forecast_paths(self, state, observation):
        return np.full((len(state.jobs), self.samples, self.horizon_minutes), 6000.0)


class TestBadPools:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"models_per_replica": 0}, "models_per_replica=0 must be a whole number >= 1"),
            ({"models_per_replica": None}, "nothing says how many models"),
            ({"memory_gib": 0.0}, "memory_gib=0.0 must be a finite number > 0"),
            ({"memory_gib": 9.0, "replica_memory_gib": 8.0}, "is more than a replica of pool"),
            ({"replica_memory_gib": 8.0}, "memory_gib is needed"),
        ],
    )
    def test_impossible_values_are_named(self, changes, message):
        fields = {"pool": "p", "models_per_replica": 2} | changes
        with pytest.raises(ValueError, match=message):
            pools_of([Job(name, **fields) for name in "ab"])

    def test_jobs_of_a_pool_agree_about_its_replicas(self):
        first, second = Job("a", pool="p", models_per_replica=2), Job("b", pool="p", cores=2.0)
        with pytest.raises(ValueError, match=r"job 'b': cores=2\.0 differs from 1\.0"):
            pools_of([first, second])

    def test_replicas_of_a_pool_are_of_one_kind_with_equal_limits(self):
        def pool_of(*replicas):
            fields = {"pool": "p", "models_per_replica": 2}
            return pools_of([Job(name, replica=one, **fields) for name, one in zip("ab", replicas)])

        refused = {
            "kind=batched differs from serial": (SERIAL, Batched(4, base_s=0.1)),
            "at_once=3 differs from 2": (Concurrent(2), Concurrent(3)),
            r"slowdown=0\.5 differs from 0\.0": (Concurrent(2), Concurrent(2, 0.5)),
            "max_batch=8 differs from 4": (Batched(4, base_s=0.1), Batched(8, base_s=0.1)),
            r"wait_s=0\.1 differs from 0\.0": (Batched(4, 0.0, 0.1), Batched(4, 0.1, 0.1)),
        }
        for message, replicas in refused.items():
            with pytest.raises(ValueError, match=f"job 'b': {message}, which job 'a' of pool 'p'"):
                pool_of(*replicas)
        with pytest.raises(ValueError, match="job 'a': replicas of kind continuous cannot be sh"):
            pool_of(*[Continuous(0.02, 0.001, 1e-4, 3, 5.0, 9.0)] * 2)
        # Models may differ in how long a batch takes.
        assert len(pool_of(Batched(4, 0.1, 0.1), Batched(4, 0.1, 0.3))[0].jobs) == 2

    def test_jobs_of_the_same_name_without_a_pool_are_alone(self):
        assert [pool.jobs for pool in pools_of([Job("a"), Job("a", slo_s=1.0)])] == [(0,), (1,)]

    def test_a_pool_with_a_quota_has_one_tenant(self):
        quota = {"pool": "p", "models_per_replica": 2, "tenant_quota": 4.0}
        one, other = Job("a", tenant="x", **quota), Job("b", tenant="y", **quota)
        with pytest.raises(ValueError, match="job 'b': tenant=y differs from x"):
            pools_of([one, other])

    def test_a_placement_without_the_home_model_is_refused(self):
        with pytest.raises(ValueError, match="must hold the model of its home job"):
            Placement(np.array([0]), np.array([[False, True]]))


def test_pools_of_equal_services_share_the_classes_of_the_latency_table():
    def pool(name, slo_s=0.72):
        return tuple(Job(f"{name}{n}", slo_s, pool=name, models_per_replica=2) for n in range(2))

    one = measure(pool("a"), (1, 2), requests=2000)
    both = measure((*pool("a"), *pool("b")), (1, 2), requests=2000)
    assert both.classes == one.classes
    first, second = (
        Job("a0", pool="a", models_per_replica=2),
        Job("b0", pool="b", models_per_replica=2),
    )
    np.testing.assert_array_equal(
        both.tail_latency_s(first, 5.0, 2), both.tail_latency_s(second, 5.0, 2)
    )
    other = measure((*pool("a"), *pool("b", slo_s=1.0)), (1, 2), requests=2000)
    assert len(other.classes) > len(one.classes)
