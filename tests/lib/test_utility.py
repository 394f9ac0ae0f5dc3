"""Utility tables against their definition, computed directly, and properties of every table."""

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from faro_lib.queueing import (
    Formula,
    LatencyModel,
    LatencyTable,
    latency,
    latency_class,
    latency_models,
    latency_table,
)
from faro_lib.utility import (
    DROPS,
    SOLVER_STEPS,
    UtilityTable,
    build_table,
    precise_drop_penalty,
    predicted_latency,
    relaxed_drop_penalty,
    relaxed_utility,
    with_switching_cost,
)
from faro_lib.workload import Job

JOBS = (
    Job("a"),
    Job("b", slo_s=0.4, service_time_s=0.1, quantile=0.9, cold_start_s=90.0),
    Job("c", min_replicas=2, max_replicas=5, service_scv=0.5),
)
RUNNING = np.array([2, 4, 3])


def sampled_rates(seed=0, samples=20, minutes=4, scale=1.0):
    rng = np.random.default_rng(seed)
    return (
        scale
        * rng.gamma(3.0, 4.0, (len(JOBS), 1, 1))
        * rng.lognormal(0, 0.4, (len(JOBS), samples, minutes))
    )


def by_definition(
    job, rates, running, x, *, latency_model, utility, alpha=1.0, drop=0.0, cold_min=1.0
):
    """Expected utility of one job at x replicas, computed directly from the equations."""

    def of(replicas):
        if replicas == 0:
            return (rates == 0).astype(float)
        kept = rates * (1 - drop)
        late = latency(
            latency_model,
            kept,
            replicas,
            job.service_time_s,
            job.quantile,
            service_scv=job.service_scv,
        )
        return (
            relaxed_utility(late, job.slo_s, alpha)
            if utility == "relaxed"
            else latency_models.utility_of(late, job.slo_s, "precise")
        )

    cold = (
        np.clip(cold_min - np.arange(rates.shape[1]), 0, 1)
        if x > running
        else np.zeros(rates.shape[1])
    )
    mixed = cold * of(running) + (1 - cold) * of(x)
    return float(mixed.mean())


@pytest.mark.parametrize("latency_model", ["half-mmc", "mdc", "mgc", "mmc", "upper-bound"])
@pytest.mark.parametrize(
    ("utility", "alpha"), [("relaxed", 1.0), ("relaxed", 4.0), ("precise", 1.0)]
)
@pytest.mark.parametrize("cold_min", [0.0, 0.4, 1.0, 2.5])
def test_every_cell_equals_the_definition_of_expected_utility(
    latency_model, utility, alpha, cold_min
):
    rates = sampled_rates()
    table = build_table(
        JOBS,
        rates,
        RUNNING,
        latency_model=latency_model,
        utility=utility,
        alpha=alpha,
        cold_start_minutes=cold_min,
    )
    for j, job in enumerate(JOBS):
        for x in range(job.min_replicas, min(job.max_replicas, table.columns) + 1):
            truth = by_definition(
                job,
                rates[j],
                RUNNING[j],
                x,
                latency_model=latency_model,
                utility=utility,
                alpha=alpha,
                cold_min=cold_min,
            )
            assert table.value[j, x] == pytest.approx(truth, abs=3e-4), (job.name, x)


def test_replica_counts_outside_the_bounds_are_infeasible():
    table = build_table(JOBS, sampled_rates(), RUNNING)
    assert np.isneginf(table.value[:, 0]).all()
    assert np.isneginf(table.value[2, 1])
    assert np.isfinite(table.value[2, 2:6]).all()
    assert np.isneginf(table.value[2, 6:]).all()


@pytest.mark.parametrize("utility", ["relaxed", "precise"])
def test_the_drop_rate_of_every_cell_is_the_best_on_the_grid(utility):
    rates = sampled_rates(scale=2.0)
    table = build_table(JOBS, rates, RUNNING, utility=utility, drops=DROPS)
    penalty = relaxed_drop_penalty if utility == "relaxed" else precise_drop_penalty
    for j, job in enumerate(JOBS):
        for x in range(max(job.min_replicas, 1), min(job.max_replicas, table.columns, 7) + 1):
            each = [
                penalty(d)
                * by_definition(
                    job, rates[j], RUNNING[j], x, latency_model="half-mmc", utility=utility, drop=d
                )
                for d in DROPS
            ]
            assert table.effective[j, x] == pytest.approx(max(each), abs=3e-4)
            at = DROPS.index(table.drop[j, x])
            assert each[at] == pytest.approx(max(each), abs=3e-4)


def test_the_drop_grid_contains_every_percent_and_every_breakpoint():
    assert {0.0, 0.001, 0.03, 0.08, 0.01, 0.05, 0.1, 1.0} <= set(DROPS)
    assert len(DROPS) == 102


@examples(40)
@given(
    st.integers(0, 1000),
    st.floats(0.05, 4.0),
    st.sampled_from(["half-mmc", "mdc", "upper-bound"]),
    st.sampled_from(["relaxed", "precise"]),
)
def test_utility_increases_with_replicas_and_the_best_drop_rate_never_lowers_it(
    seed, scale, latency_model, utility
):
    table = build_table(
        JOBS,
        sampled_rates(seed, scale=scale),
        RUNNING,
        latency_model=latency_model,
        utility=utility,
        drops=DROPS,
    )
    for row, effective in zip(table.value, table.effective):
        inside = np.isfinite(row)
        assert np.all(np.diff(row[inside]) >= -1e-3)
        assert np.all((row[inside] >= 0) & (row[inside] <= 1 + 1e-12))
        assert np.all(effective[inside] >= row[inside] - 1e-12)


def test_the_table_ends_where_every_sample_meets_its_slo():
    table = build_table([Job("a")], np.full((1, 5, 3), 4.0), [1], cold_start_minutes=0)
    assert table.columns < 5
    assert table.value[0, -1] == pytest.approx(1)


def test_the_table_reaches_the_running_count_even_if_fewer_replicas_suffice():
    assert build_table([Job("a")], np.full((1, 5, 3), 4.0), [9]).columns >= 9


def test_a_new_replica_serves_nothing_before_it_has_started():
    table = build_table([Job("a")], np.full((1, 1, 1), 30.0), [2], cold_start_minutes=1)
    assert table.value[0, -1] == pytest.approx(table.value[0, 2])


def test_without_cold_start_minutes_each_job_uses_its_own_cold_start():
    rates = sampled_rates()
    own = build_table(JOBS, rates, RUNNING, cold_start_minutes=None)
    b = build_table(JOBS, rates, RUNNING, cold_start_minutes=1.5)
    assert own.value[1] == pytest.approx(b.value[1, : own.columns + 1])


def test_the_switching_cost_is_charged_at_every_count_but_the_running_one():
    rates = sampled_rates()
    free = build_table(JOBS, rates, RUNNING)
    charged = with_switching_cost(free, 0.25)
    assert charged.value[0, 2] == free.value[0, 2]
    assert charged.value[0, 3] == pytest.approx(free.value[0, 3] - 0.25)
    with pytest.raises(ValueError, match=r"switching_cost=-1.0 must be a number >= 0"):
        with_switching_cost(free, -1.0)


def test_a_job_without_requests_has_full_utility_on_zero_replicas():
    job = Job("a", min_replicas=0)
    assert build_table([job], np.zeros((1, 3, 2)), [0]).value[0, 0] == pytest.approx(1)
    assert build_table([job], np.ones((1, 3, 2)), [0]).value[0, 0] == 0


class Learned(LatencyModel):
    """A latency model that is not a formula."""

    def expected_utility(self, job, rate_rps, replicas, utility, alpha):
        return 1 / (1 + (rate_rps * job.service_time_s / replicas) ** 2)


def test_a_learned_model_is_read_through_its_expected_utility():
    rates = sampled_rates(scale=0.5)
    table = build_table(
        JOBS, rates, RUNNING, latency_model=Learned(), cold_start_minutes=0, max_replicas=8
    )
    expected = np.mean(1 / (1 + (rates[0] * 0.18 / 3) ** 2))
    assert table.value[0, 3] == pytest.approx(expected, abs=1e-3)


def measured(quantile=0.99):
    """A table whose tail latency rises linearly with the utilisation, without drops."""
    rho = np.linspace(0, 4, 401)
    tail_s = np.broadcast_to(0.36 * (1 + rho[None, :, None, None]), (1, 401, 8, 1))
    return LatencyTable(
        classes=(latency_class(Job("any", quantile=quantile)),),
        quantile=[quantile],
        max_rps=[np.inf],
        rate_per_replica_rps=rho[None] / 0.18,
        saturation_rps=[1 / 0.18],
        replicas=np.arange(1, 9),
        tail_s=tail_s,
        excess_drops=0 * tail_s - 0.01,
    )


def test_a_measured_table_is_read_through_its_mean_utilities():
    rates = 1 + sampled_rates(scale=0.5)
    table = build_table(
        (Job("a"), Job("b"), Job("c", slo_s=0.5)),
        rates,
        RUNNING,
        latency_model=measured(),
        cold_start_minutes=0,
        max_replicas=8,
    )
    for row, slo_s in ((0, 0.72), (2, 0.5)):
        tail_s = 0.36 * (1 + rates[row] * 0.18 / 3)
        assert table.value[row, 3] == pytest.approx(np.minimum(1, slo_s / tail_s).mean(), abs=2e-3)


def test_plans_of_300_services_at_other_capacities_compute_no_curve_again():
    jobs, model = [Job(f"j{n}", slo_s=0.4 + n / 1000) for n in range(300)], measured()
    misses = []
    for capacity in (5, 5, 8, 7):
        build_table(
            jobs, np.ones((300, 1, 1)), np.ones(300), latency_model=model, max_replicas=capacity
        )
        misses.append(latency_table._curve.cache_info().misses)
    assert len(set(misses)) == 1


@pytest.mark.parametrize("columns", [5, 33])
@pytest.mark.parametrize(
    "latency_model", ["half-mmc", "mdc", "mgc", "mmc", "upper-bound", measured()]
)
def test_curves_of_more_replica_counts_do_not_change_those_of_fewer(latency_model, columns):
    model = latency_models.model_of(latency_model)
    job = Job("a", service_scv=0.5 if latency_model == "mgc" else 0.0)
    if isinstance(model, Formula):
        key = model._class_of(job)
        exact = latency_models._formula_curve(model.name, *key, "relaxed", 1.0, columns)
    else:
        key = model.classes.index(model.class_of(job)), job.slo_s, job.busy_s
        exact = latency_table._curve(model, *key, "relaxed", 1.0, columns)
    for wide, narrow in zip(model.curves([job], "relaxed", 1.0, columns), exact):
        np.testing.assert_array_equal(wide[0, : columns + 1], narrow)


def test_a_measured_table_refuses_a_quantile_that_was_not_measured():
    with pytest.raises(
        ValueError, match=r"'resnet34 of 0.18 s, p99' was not measured; there are: .* p90"
    ):
        build_table([Job("a")], np.ones((1, 1, 1)), [1], latency_model=measured(0.9))


def test_predicted_latency_is_the_latency_of_the_model_at_the_rates_that_are_not_dropped():
    rates = np.array([5.0, 20.0, 3.0])
    expected = [
        float(latency("half-mmc", r * 0.9, x, j.service_time_s, j.quantile))
        for j, r, x in zip(JOBS, rates, [2, 4, 3])
    ]
    assert predicted_latency(JOBS, rates, [2, 4, 3], drop=0.1) == pytest.approx(expected)
    assert np.isinf(predicted_latency(JOBS, rates, [0, 4, 3])[0])


def test_drop_penalties_have_the_breakpoints_of_the_paper():
    assert precise_drop_penalty([0.01, 0.0101, 0.05, 0.1, 0.11]).tolist() == [1, 0.75, 0.75, 0.5, 0]
    assert precise_drop_penalty([0.001, 0.03, 0.08, 0.081], SOLVER_STEPS).tolist() == [
        1,
        0.75,
        0.5,
        0,
    ]
    assert relaxed_drop_penalty([0.001, 0.03, 0.08, 1.0]).tolist() == [1, 0.75, 0.5, 0]


@given(st.floats(0.001, 100.0), st.floats(0.01, 10.0), st.floats(0.1, 8.0))
def test_the_relaxed_utility_is_never_below_the_precise(late, slo, alpha):
    assert latency_models.utility_of(late, slo, "precise") <= relaxed_utility(late, slo, alpha) <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"rates_rps": np.full((3, 2, 2), np.nan)},
            r"rates_rps of job 'a', sample 0, minute 0 is nan; .*finite number >= 0",
        ),
        (
            {"rates_rps": np.full((3, 2, 2), -1.0)},
            r"rates_rps of job 'a', sample 0, minute 0 is -1.0",
        ),
        (
            {"rates_rps": np.ones((2, 2, 2))},
            r"rates_rps has shape \(2, 2, 2\); expected \(3 jobs, samples, minutes\)",
        ),
        ({"running": [1, 2]}, r"running=\[1, 2\] must be 3 whole numbers >= 0"),
        ({"running": [1, 2, -1]}, r"running=\[1, 2, -1\] must be"),
        ({"utility": "soft"}, r"utility='soft' is not a utility; accepted: relaxed, precise"),
        (
            {"latency_model": "mm1"},
            r"latency_model='mm1' is not a model; accepted: upper-bound, half-mmc",
        ),
        ({"latency_model": 3}, r"latency_model=3 must be the name of a formula"),
        ({"drops": (0.1, 0.2)}, r"drops=\(0.1, 0.2\) must increase from 0"),
        ({"cold_start_minutes": -1.0}, r"cold_start_minutes=-1.0 must be a number >= 0"),
    ],
)
def test_bad_input_is_named_with_what_is_accepted(change, message):
    good = {"rates_rps": np.ones((3, 2, 2)), "running": RUNNING}
    with pytest.raises(ValueError, match=message):
        build_table(JOBS, **{**good, **change})


def test_a_table_with_nan_names_the_job():
    with pytest.raises(ValueError, match="value of job 'a' must be finite"):
        UtilityTable.from_values([Job("a")], [[0.0, np.nan]])


@pytest.mark.parametrize("latency_model", ["half-mmc", "mmc", "mdc", "mgc", "upper-bound"])
@pytest.mark.parametrize("slo_over_service", [0.9, 1.0, 1.0001, 1.01, 1.1])
def test_a_formula_is_read_to_0_02_where_the_slo_is_about_the_service_time(
    latency_model, slo_over_service
):
    job = Job(
        "a", service_time_s=2.0, slo_s=2.0 * slo_over_service, service_scv=0.5, max_replicas=4
    )
    for rho in np.linspace(0.02, 1.2, 25):
        for replicas in (1, 2, 4):
            rate_rps = rho * replicas / 2.0
            table = build_table(
                [job],
                np.full((1, 1, 1), rate_rps),
                [4],
                latency_model=latency_model,
                cold_start_minutes=0,
            )
            exact = relaxed_utility(
                latency(latency_model, rate_rps, replicas, 2.0, 0.99, service_scv=0.5), job.slo_s
            )
            assert table.value[0, replicas] == pytest.approx(float(exact), abs=0.02)


def test_rates_in_another_memory_order_give_the_same_table_and_compile_nothing_again():
    from faro_lib.utility._table_kernels import fill

    rates = sampled_rates()
    table = build_table(JOBS, rates, RUNNING)
    compiled = len(fill.signatures)
    transposed = build_table(JOBS, np.asfortranarray(rates), RUNNING)
    np.testing.assert_array_equal(transposed.value, table.value)
    assert len(fill.signatures) == compiled
