"""The exact solver against brute force and an integer program, and properties of every solver."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

import studies.paper.continuous
import studies.paper.reference  # noqa: F401, registers milp and convex
from faro_lib.allocate import (
    OBJECTIVES,
    SOLVERS,
    Objective,
    best_by_minute,
    marginal_values,
    register_objective,
    register_solver,
    solve,
)
from faro_lib.allocate.objectives import objective_of, quantised
from faro_lib.allocate.problem import problem_of
from faro_lib.queueing import half_mmc, relaxed
from faro_lib.utility import DROPS, UtilityTable, build_table, relaxed_utility
from faro_lib.workload import Job
from studies.paper import _kernels as paper_kernels
from studies.paper.hierarchical import solve_hierarchical
from studies.paper.repair import repaired
from studies.paper.solver import shrink, solve_paper

KNOWN = tuple(OBJECTIVES)


@st.composite
def instances(draw):
    """(table, budget, current, gamma): up to 4 jobs with ties, bounds, weights and quotas."""
    n = draw(st.integers(1, 4))
    columns = draw(st.integers(1, 6))
    # Few levels make ties, many make none; sorted rows are monotone, unsorted ones (change
    # penalties) are not.
    level = draw(
        st.sampled_from(
            [
                st.sampled_from([0.0, 0.25, 0.5, 1.0]),
                st.integers(0, 10).map(lambda k: k / 10),
                st.floats(0, 1),
            ]
        )
    )
    rows = draw(
        st.lists(
            st.lists(level, min_size=columns + 1, max_size=columns + 1), min_size=n, max_size=n
        )
    )
    value = np.array(rows)
    if draw(st.booleans()):
        value.sort(axis=1)
    cores = (
        st.sampled_from([1.0])
        if draw(st.booleans())
        else st.sampled_from([0.1, 0.3, 0.5, 1.0, 2.0])
    )
    quotas = {tenant: draw(st.none() | st.integers(0, 8).map(float)) for tenant in ("red", "blue")}
    jobs = []
    for j in range(n):
        low = draw(st.integers(0, 1))
        jobs.append(
            Job(
                f"{draw(st.sampled_from('xyz'))}{j}",
                cores=draw(cores),
                weight=draw(st.sampled_from([0.0, 0.5, 1.0, 1.0, 3.0])),
                min_replicas=low,
                max_replicas=draw(st.integers(max(low, 1), 6)),
                tenant=(tenant := draw(st.sampled_from(["red", "blue"]))),
                tenant_quota=quotas[tenant],
            )
        )
    effective = np.minimum(1.0, value * draw(st.sampled_from([1.0, 1.25])) + 0.01)
    table = UtilityTable.from_values(
        jobs, value, effective=effective, drop=np.full(value.shape, 0.02)
    )
    current = np.array(draw(st.lists(st.integers(0, columns), min_size=n, max_size=n)))
    gamma = draw(st.sampled_from([None, None, 0.0, 0.3, 2.5]))
    return table, float(draw(st.integers(1, 10))), current, gamma


def within_quotas(jobs, replicas):
    """Whether the jobs of no tenant use more cores than its quota."""
    tenths = [round(10 * job.cores) * int(x) for job, x in zip(jobs, replicas)]
    return all(
        sum(t for t, other in zip(tenths, jobs) if other.tenant == job.tenant)
        <= round(10 * job.tenant_quota)
        for job in jobs
        if job.tenant_quota is not None
    )


def rank(table, replicas, objective, current, gamma):
    """Sort key of an allocation: objective or sorted utilities, then change, then replicas."""
    chosen = OBJECTIVES[objective]
    utility = chosen.utilities(table)[np.arange(len(replicas)), replicas]
    weight = np.array([job.weight for job in table.jobs])
    value = (
        tuple(np.sort(quantised(utility)))
        if chosen.leximin
        else (chosen.score(utility, weight, gamma),)
    )
    return value, -int(np.abs(replicas - current).sum()), -int(replicas.sum())


def brute_force(table, budget, objective, current, gamma):
    """The best rank over all allocations, or None if none fits."""
    tenths = np.array([round(10 * job.cores) for job in table.jobs])
    best = None
    for choice in itertools.product(*(np.flatnonzero(np.isfinite(row)) for row in table.value)):
        replicas = np.array(choice)
        if (replicas * tenths).sum() > round(10 * budget) or not within_quotas(
            table.jobs, replicas
        ):
            continue
        found = rank(table, replicas, objective, current, gamma)
        best = found if best is None else max(best, found)
    return best


@pytest.mark.parametrize("name", KNOWN)
def test_the_scores_of_several_choices_are_those_of_each_alone(name):
    objective = OBJECTIVES.find(name)
    utility = np.random.default_rng(4).uniform(0, 1, (6, 9))
    utility[2, 3] = -np.inf
    weight = np.linspace(0.5, 2, 9)
    together = objective.score(utility, weight)
    assert together.tolist() == [objective.score(one, weight) for one in utility]
    assert np.isneginf(together).tolist() == [False, False, True, False, False, False]


@pytest.mark.parametrize("objective", KNOWN)
@examples(300)
@given(instance=instances())
def test_exact_equals_brute_force(objective, instance):
    table, budget, current, gamma = instance
    best = brute_force(table, budget, objective, current, gamma)
    if best is None:
        with pytest.raises(ValueError, match=r"budget|quota|job"):
            solve(table, budget, objective, current=current, gamma=gamma)
        return
    found = solve(table, budget, objective, current=current, gamma=gamma)
    assert rank(table, found.replicas, objective, current, gamma) == best
    assert found.gap == 0
    assert found.bound == found.value


def real_table(
    n, seed, *, utility="relaxed", load=3.2, drops=DROPS, decorate=False, quotas=(None, None)
):
    """A table of sampled rates by half-M/M/c; with `decorate`, weights and cores differ."""
    rng = np.random.default_rng(seed)
    jobs = [
        Job(
            f"job {j}",
            weight=float(rng.choice([0.5, 1.0, 2.0])) if decorate else 1.0,
            cores=float(rng.choice([0.5, 1.0, 1.5])) if decorate else 1.0,
            tenant=("red", "blue")[j % 2],
            tenant_quota=quotas[j % 2],
        )
        for j in range(n)
    ]
    rates = load * rng.gamma(4.0, 1.0, (n, 1, 1)) * rng.lognormal(0, 0.3, (n, 20, 7))
    return build_table(jobs, rates, np.full(n, 3), utility=utility, drops=drops)


def same_as_milp(table, budget, objective):
    exact = solve(table, budget, objective)
    oracle = solve(table, budget, objective, "milp")
    if OBJECTIVES[objective].leximin:
        ranks = [
            np.array(rank(table, a.replicas, objective, table.running, None)[0])
            for a in (exact, oracle)
        ]
        np.testing.assert_allclose(*ranks, atol=2e-6)
    # HiGHS satisfies constraints to within 1e-6.
    assert exact.value == pytest.approx(oracle.value, abs=2e-6)


@pytest.mark.parametrize("objective", KNOWN)
@pytest.mark.parametrize("utility", ["relaxed", "precise"])
def test_exact_equals_the_mixed_integer_program_on_10_jobs(objective, utility):
    same_as_milp(real_table(10, 1, utility=utility), 32, objective)


@pytest.mark.parametrize("objective", KNOWN)
def test_exact_equals_the_mixed_integer_program_with_weights_cores_and_quotas(objective):
    same_as_milp(real_table(10, 2, decorate=True, quotas=(11.0, 20.0)), 28, objective)


@pytest.mark.slow
@pytest.mark.parametrize("objective", KNOWN)
@pytest.mark.parametrize("utility", ["relaxed", "precise"])
@pytest.mark.parametrize(
    ("n", "budget", "seed"), [(10, 36, 3), (10, 16, 4), (20, 70, 5), (20, 40, 6)]
)
@pytest.mark.parametrize("decorate", [False, True])
def test_exact_equals_the_mixed_integer_program_on_10_and_20_jobs(
    objective, utility, n, budget, seed, decorate
):
    quotas = (budget * 0.6, budget * 0.5) if decorate else (None, None)
    same_as_milp(
        real_table(n, seed, utility=utility, decorate=decorate, quotas=quotas), budget, objective
    )


QUICK = ("convex", "greedy", "slsqp")


@examples(30)
@given(instances(), st.sampled_from(KNOWN), st.sampled_from(QUICK))
def test_no_solver_beats_exact_and_every_solver_stays_within_the_budget(
    instance, objective, solver
):
    table, budget, current, gamma = instance
    try:
        exact = solve(table, budget, objective, current=current, gamma=gamma)
    except ValueError:
        return
    other = solve(table, budget, objective, solver, current=current, gamma=gamma)
    assert other.value <= exact.value + 1e-9
    spent = [job.cores * x for job, x in zip(table.jobs, other.replicas)]
    assert sum(spent) <= budget + 1e-9
    assert within_quotas(table.jobs, other.replicas)
    if np.isfinite(other.bound):
        assert exact.value <= other.bound + 1e-6


@pytest.mark.parametrize("objective", ["Sum", "Fair", "FairSum", "PenaltySum"])
def test_continuous_solvers_stay_within_the_budget_and_below_the_optimum(objective):
    table = real_table(5, 7)
    best = solve(table, 14, objective).value
    for solver in ("cobyla", "slsqp", "differential-evolution"):
        options = {"maxiter": 30} if solver == "differential-evolution" else {}
        found = solve(table, 14, objective, solver, options=options)
        assert found.replicas.sum() <= 14
        assert found.value <= best + 1e-9


@examples(300)
@given(instances(), st.sampled_from(KNOWN), st.randoms(use_true_random=False))
def test_the_order_of_the_jobs_does_not_change_the_allocation(instance, objective, random):
    table, budget, current, gamma = instance
    order = list(range(len(table.jobs)))
    random.shuffle(order)
    shuffled = replace(
        table,
        jobs=[table.jobs[j] for j in order],
        running=table.running[order],
        value=table.value[order],
        effective=table.effective[order],
        drop=table.drop[order],
    )
    try:
        first = solve(table, budget, objective, current=current, gamma=gamma)
    except ValueError:
        return
    second = solve(shuffled, budget, objective, current=current[order], gamma=gamma)
    assert first.replicas[order].tolist() == second.replicas.tolist()
    assert first.value == second.value


def test_replicas_stay_as_they_are_if_no_change_improves_the_objective():
    table = UtilityTable.from_values([Job("a"), Job("b")], np.ones((2, 6)), running=[4, 2])
    for objective in ("Sum", "Fair", "FairSum", "ProportionalFair"):
        assert solve(table, 8, objective).replicas.tolist() == [4, 2]


def test_fair_raises_the_worst_off_then_the_next():
    value = [[0, 0.1, 0.2, 0.9], [0, 0.5, 0.6, 0.7], [0, 0.3, 0.8, 0.9]]
    table = UtilityTable.from_values([Job("a"), Job("b"), Job("c")], value)
    assert solve(table, 6, "Fair").replicas.tolist() == [3, 1, 2]


def test_the_job_with_the_larger_weight_gets_the_last_replica():
    value = [[0, 0.1, 0.9], [0, 0.1, 0.9]]
    for heavy in (0, 1):
        jobs = [
            Job("a", weight=2.0 if heavy == 0 else 1.0),
            Job("b", weight=2.0 if heavy == 1 else 1.0),
        ]
        assert solve(UtilityTable.from_values(jobs, value), 3).replicas[heavy] == 2


@pytest.mark.parametrize("seed", range(5))
def test_penalty_sum_drops_when_oversubscribed_and_is_at_least_as_good_as_sum(seed):
    table = real_table(10, seed)
    with_drops, without = (solve(table, 14, objective) for objective in ("PenaltySum", "Sum"))
    assert with_drops.drop.max() > 0.05
    assert with_drops.value >= without.value


def test_a_table_of_1000_jobs_is_solved_exactly_and_below_its_bound():
    table = real_table(1000, 8, drops=None)
    for objective in ("Sum", "FairSum", "Fair"):
        exact = solve(table, 3200, objective)
        assert exact.replicas.sum() <= 3200
        assert (
            exact.value
            >= solve(table, 3200, objective, "greedy" if objective == "Sum" else "exact").value
        )


@given(instances(), st.sampled_from(KNOWN))
@examples(60)
def test_marginal_values_are_differences_of_the_objective(instance, name):
    table, budget, current, gamma = instance
    try:
        plan = solve(table, budget, name, current=current, gamma=gamma)
    except ValueError:  # the minimum replicas exceed the budget or a quota
        return
    objective, weight = OBJECTIVES[name], np.array([job.weight for job in table.jobs])
    utilities, rows = objective.utilities(table), np.arange(len(table.jobs))
    more, less = marginal_values(table, plan, gamma=gamma)
    for j in rows:
        for by, found in ((1, more[j]), (-1, -less[j])):
            moved = plan.replicas.copy()
            moved[j] += by
            if not 0 <= moved[j] <= table.columns or np.isneginf(utilities[j, moved[j]]):
                assert np.isnan(found)
            else:
                now, then = (
                    objective.score(utilities[rows, x], weight, gamma)
                    for x in (plan.replicas, moved)
                )
                assert found == then - now  # sums of quantised terms are exact


def test_shrink_frees_replicas_whose_loss_is_within_the_tolerance():
    table = real_table(10, 11, load=1.0)
    plan = solve(table, 40, "Sum", current=np.full(10, 4))
    less = shrink(table, plan, 40)
    assert less.replicas.sum() < plan.replicas.sum()
    # Each replica taken may cost up to the tolerance.
    assert less.value >= plan.value - 1e-4 * (plan.replicas.sum() - less.replicas.sum())


def test_shrink_terminates_though_many_small_losses_add_up_to_a_large_gain():
    slowly = 0.9 + 0.5e-4 * np.arange(41)
    table = UtilityTable.from_values(
        [Job("a", max_replicas=40), Job("b", max_replicas=40)], [slowly, slowly]
    )
    plan = solve(table, 60, "Sum")
    assert 2 <= shrink(table, plan, 60).replicas.sum() <= 60


def test_in_the_papers_objective_a_job_without_replicas_leaves_nobody_any_utility():
    running = np.ones(2)
    formulation = paper_kernels.Formulation(
        np.ones((2, 1)),
        running,
        False,
        4 * running,
        0.99 * running,
        running,
        False,
        False,
        0.0,
        False,
    )
    assert paper_kernels.score(np.array([2.0, 2.0]), np.zeros(2), formulation) > 1
    assert paper_kernels.score(np.array([9.0, -0.1]), np.zeros(2), formulation) == 0


def test_the_papers_search_steps_over_drop_rates_in_per_cent():
    """With room for all, nothing is dropped; steps of rhobeg 3 would not end there."""
    jobs = [Job(str(j)) for j in range(4)]
    plan = solve_paper(jobs, np.full((4, 7), 10.0), [4] * 4, 30, "PenaltyFairSum")
    assert plan.drop.max() < 0.01


def test_a_repair_takes_equal_losses_from_the_job_that_stays_closest_to_its_replicas():
    flat = UtilityTable.from_values([Job("a"), Job("b")], [np.ones(9), np.ones(9)])
    problem = problem_of(flat, 10, objective_of("Sum"), current=[1, 6])
    assert repaired(problem, np.array([6, 6])[problem.order])[
        np.argsort(problem.order)
    ].tolist() == [6, 4]


def test_the_papers_objective_is_the_relaxed_half_mmc_at_fractional_replicas():
    rng = np.random.default_rng(13)
    rates, x = rng.uniform(1, 40, (4, 7)), rng.uniform(1, 6, 4)
    latency_s = relaxed(half_mmc, rates, x[:, None], 0.18, 0.99)
    expected = relaxed_utility(latency_s, 0.72).mean(axis=1).sum()
    ones = np.ones(4)
    formulation = paper_kernels.Formulation(
        rates * 0.18, ones, False, 4 * ones, 0.99 * ones, ones, False, False, 0.0, False
    )
    assert paper_kernels.score(x, np.zeros(4), formulation) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("objective", ["Sum", "Fair", "FairSum"])
@pytest.mark.parametrize("latency_model", ["half-mmc", "upper-bound"])
def test_the_papers_solver_stays_within_the_budget_and_below_the_optimum(objective, latency_model):
    rng = np.random.default_rng(14)
    jobs = [Job(f"job {j}") for j in range(6)]
    rates, running = rng.uniform(2, 30, (6, 7)), np.full(6, 2)
    plan = solve_paper(
        jobs, rates, running, 18, objective, latency_model=latency_model, method="slsqp"
    )
    assert plan.replicas.sum() <= 18
    if objective != "Fair":
        table = build_table(
            jobs, rates[:, None], running, latency_model=latency_model, cold_start_minutes=0
        )
        assert plan.value <= solve(table, 18, objective).value + 1e-3


def test_the_papers_solver_models_the_cold_start_only_on_a_full_cluster():
    jobs = [Job("a"), Job("b")]
    rates = np.full((2, 7), 20.0)
    full, roomy = (solve_paper(jobs, rates, [2, 2], budget, method="slsqp") for budget in (4, 12))
    assert full.replicas.sum() == 4
    assert roomy.value == pytest.approx(2.0, abs=1e-3)


def test_hierarchical_with_one_group_equals_the_solver():
    rng = np.random.default_rng(15)
    jobs = [Job(f"job {j}") for j in range(12)]
    rates, running = rng.uniform(2, 30, (12, 5, 7)), np.full(12, 3)
    whole = solve(build_table(jobs, rates, running, max_replicas=40), 40)
    one, four = (solve_hierarchical(jobs, rates, running, 40, groups=g) for g in (1, 4))
    assert four.replicas.sum() <= 40
    assert four.value <= whole.value
    assert one.value == pytest.approx(whole.value, rel=1e-12)


def test_a_registered_objective_is_solved_exactly():
    squares = Objective("Squares", term=lambda utility, weight: weight * utility**2)
    try:
        register_objective(squares)
        table = UtilityTable.from_values([Job("a"), Job("b")], [[0, 0.6, 0.7], [0, 0.1, 0.9]])
        assert solve(table, 3, "Squares").replicas.tolist() == [1, 2]
        with pytest.raises(ValueError, match="objective='Squares' is registered already"):
            register_objective(squares)
    finally:
        OBJECTIVES.pop("Squares", None)


def test_a_registered_solver_is_found_by_its_name():
    try:
        register_solver(
            "least",
            lambda problem: (np.argmax(~np.isneginf(problem.utility), axis=1), float("nan")),
        )
        assert solve(real_table(3, 1), 9, solver="least").replicas.tolist() == [1, 1, 1]
    finally:
        SOLVERS.pop("least", None)


JOBS = (Job("a", min_replicas=2, tenant="red"), Job("b", cores=0.5))
TABLE = UtilityTable.from_values(JOBS, np.ones((2, 5)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2, "Sum"), r"budget=2.0 cores is too small: min_replicas of the 2 jobs need 2.5"),
        ((-1, "Sum"), r"budget=-1 must be a number of cores >= 0"),
        ((9, "Max"), r"objective='Max' is unknown; accepted: Sum, Fair, FairSum"),
        ((9, "Sum", "simplex"), r"solver='simplex' is unknown; accepted: .*exact"),
        ((9, "PenaltySum"), r"objective='PenaltySum' needs a table with drops"),
    ],
)
def test_bad_input_is_named_with_what_is_accepted(arguments, message):
    with pytest.raises(ValueError, match=message):
        solve(TABLE, *arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": -1.0}, r"gamma=-1.0 must be a number >= 0"),
        ({"current": [1]}, r"current=\[1\] must be 2 whole numbers >= 0"),
    ],
)
def test_bad_options_are_named_with_what_is_accepted(options, message):
    with pytest.raises(ValueError, match=message):
        solve(TABLE, 9, "FairSum", **options)


def test_a_negative_weight_is_refused_when_the_job_is_created():
    with pytest.raises(ValueError, match=r"job 'a': weight=-1.0 must be a finite number >= 0"):
        Job("a", weight=-1.0)


def test_a_quota_below_the_minimum_of_its_tenants_jobs_is_refused():
    jobs = (replace(JOBS[0], tenant_quota=1.0), JOBS[1])
    with pytest.raises(
        ValueError, match=r"tenant 'red': tenant_quota=1 cores is too small: min_replicas .* need 2"
    ):
        solve(UtilityTable.from_values(jobs, np.ones((2, 5))), 9)


def test_shrinking_stays_within_quotas():
    table = real_table(10, 11, load=1.0, quotas=(9.0, None))
    assert within_quotas(table.jobs, shrink(table, solve(table, 40), 40).replicas)


@pytest.mark.parametrize("objective", ["Sum", "PenaltySum"])
def test_the_papers_solver_stays_within_quotas(objective):
    jobs = [Job(name, tenant="red", tenant_quota=5.0) for name in "ab"] + [Job("c")]
    plan = solve_paper(jobs, np.full((3, 7), 20.0), [2, 2, 2], 18, objective, method="slsqp")
    assert plan.replicas[:2].sum() <= 5 < plan.replicas.sum()


def test_the_hierarchical_solver_refuses_quotas():
    jobs = [Job("a", tenant="red", tenant_quota=5.0), Job("b")]
    with pytest.raises(
        ValueError, match="tenant_quota is not supported by the hierarchical solver"
    ):
        solve_hierarchical(jobs, np.ones((2, 1, 7)), [1, 1], 9, groups=2)


@examples(100)
@given(instances())
def test_the_best_allocation_of_each_minute_equals_the_exact_solver(instance):
    table, budget, _, _ = instance
    jobs = [replace(job, weight=1.0) for job in table.jobs]
    value = quantised(table.value)
    minutes = np.stack([value, np.where(np.isneginf(value), -np.inf, 1 - value)], axis=2)
    try:
        best = best_by_minute(minutes, jobs, budget)
    except ValueError:
        return
    plan = solve(replace(table, jobs=tuple(jobs)), budget)
    rows = np.arange(len(jobs))
    assert table.value[rows, best[:, 0]].sum() == pytest.approx(
        table.value[rows, plan.replicas].sum()
    )
    assert within_quotas(jobs, best[:, 1])


@pytest.mark.parametrize("seed", range(40))
def test_large_weights_cost_no_optimum(seed):
    """Rounding grows with the weights, and must not remove the columns of the optimum."""
    rng = np.random.default_rng(seed)
    value = np.sort(rng.random((60, 7)), axis=1)
    light, heavy = ([Job(f"{j:02d}", weight=w) for j in range(60)] for w in (1.0, 1e5))
    plans = [solve(UtilityTable.from_values(jobs, value), 190) for jobs in (light, heavy)]
    assert plans[1].value == pytest.approx(1e5 * plans[0].value, rel=1e-9)


def test_a_budget_that_rounding_brings_just_below_a_whole_number_of_replicas_loses_none():
    """0.3 / 0.1 is 2.999... in floating point."""
    jobs = [Job("a", cores=0.1)]
    assert solve_hierarchical(
        jobs, np.full((1, 1, 7), 20.0), [1], 0.3, groups=1
    ).replicas.tolist() == [3]
    assert solve_paper(jobs, np.full((1, 7), 20.0), [1], 0.3, method="slsqp").replicas.tolist() == [
        3
    ]


@pytest.mark.parametrize("objective", ["Sum", "FairSum"])
def test_dynamic_programming_is_left_with_few_of_2000_jobs(objective, monkeypatch):
    """A table of choices for all jobs and every budget would take 1.3 GB for 10,000 jobs."""
    from faro_lib.allocate import _solver_kernels as kernels

    rows, compiled = [], kernels.knapsack
    monkeypatch.setattr(
        kernels, "knapsack", lambda term, *rest: rows.append(len(term)) or compiled(term, *rest)
    )
    allocation = solve(real_table(2000, 1, drops=None), 6400, objective)
    assert allocation.gap == 0
    assert max(rows, default=0) < 100


def test_with_enough_for_all_jobs_only_the_least_change_is_left_to_find(monkeypatch):
    """Columns of equal utility are not searched for every budget."""
    from faro_lib.allocate import _solver_kernels as kernels

    rows, compiled = [], kernels.knapsack
    monkeypatch.setattr(
        kernels, "knapsack", lambda term, *rest: rows.append(len(term)) or compiled(term, *rest)
    )
    jobs = [Job(f"{j:03d}", max_replicas=9) for j in range(100)]
    running = np.arange(100) % 8 + 1
    table = UtilityTable.from_values(jobs, np.ones((100, 10)), running=running)
    assert solve(table, 1000).replicas.tolist() == running.tolist()
    assert not rows


def test_the_lagrangian_bound_is_the_same_from_any_first_price_and_valid_if_its_search_is_cut():
    from faro_lib.allocate import _solver_kernels as kernels

    problem = problem_of(real_table(50, 1, drops=None), 160, OBJECTIVES["Sum"])
    arguments = problem.term, problem.costs, problem.feasible, problem.budget
    bound, price, *_ = kernels.dual_bound(*arguments, 0.0, -np.inf)
    for guess in (0.001, 0.5 * price, price, 2 * price, 1e6):
        assert kernels.dual_bound(*arguments, guess, -np.inf)[0] == pytest.approx(bound)
    early, _, replicas, fits = kernels.dual_bound(*arguments, 0.0, bound + 1.0)
    assert bound <= early < bound + 1.0
    assert fits
    assert problem.fits(replicas)
