"""Columns that are cores: the best configuration of each service for each amount of cores."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faro_lib.allocate import solve
from faro_lib.simulate.measure import measure
from faro_lib.utility import DROPS, build_table
from faro_lib.workload import Job
from faro_lib.workload.replicas import Batched
from studies.replicas.best_configurations import best_configurations

SLOW, FAST = (
    Job("slow", max_replicas=6),
    Job("fast", service_time_s=0.06, cores=2.0, max_replicas=4),
)
rates = st.floats(0, 30, allow_nan=False)


def load(*of_service):
    """The same rate in each of two minutes and in the only sample, (services, 1, 2)."""
    return np.repeat(np.array(of_service, float)[:, None, None], 2, axis=2)


@settings(deadline=None, max_examples=25)
@given(
    st.lists(rates, min_size=1, max_size=3),
    st.integers(3, 14),
    st.sampled_from(["Sum", "PenaltySum", "Fair"]),
    st.data(),
)
def test_the_allocation_is_the_best_of_all_configurations_and_counts(
    of_service, cores, objective, data
):
    services = {f"s{j}": [SLOW, FAST] for j in range(len(of_service))}
    current = [data.draw(st.sampled_from(["slow", "fast"])) for _ in services]
    running = [data.draw(st.integers(1, 3)) for _ in services]
    drops = DROPS if objective == "PenaltySum" else None
    best = best_configurations(
        services, load(*of_service), current, running, cores=cores, drops=drops
    )
    allocation = solve(best.table, cores, objective=objective)

    # Each configuration is a job of its own. The running replicas serve, whichever they have.
    rows = [job for jobs in services.values() for job in jobs]
    serving = np.repeat([2 * j + (name == "fast") for j, name in enumerate(current)], 2)
    parts = build_table(
        rows, load(*np.repeat(of_service, 2)), np.repeat(running, 2), serving=serving, drops=drops
    ).effective
    alternatives = [
        [
            (parts[2 * j + c, min(x, parts.shape[1] - 1)], x * job.cores)
            for c, job in enumerate((SLOW, FAST))
            for x in range(1, job.max_replicas + 1)
        ]
        for j in range(len(services))
    ]
    fitting = [
        [value for value, _ in choice]
        for choice in itertools.product(*alternatives)
        if sum(used for _, used in choice) <= cores
    ]
    optimum = max((min if objective == "Fair" else sum)(values) for values in fitting)
    assert allocation.value == pytest.approx(optimum, abs=1e-6)
    assert allocation.gap == pytest.approx(0, abs=1e-9)
    assert sum(job.cores * x for job, x in best.chosen(allocation.replicas)) <= cores


def test_with_a_spread_it_is_the_best_of_the_best_configurations_for_each_amount():
    """FairSum prefers equal utilities, but never a worse configuration on the same cores."""
    services = {"s0": [SLOW, FAST], "s1": [SLOW, FAST]}
    cores = 6
    best = best_configurations(
        services, load(20.0, 9.0), ["slow", "slow"], [1, 1], cores=cores, cold_start_minutes=0
    )
    allocation = solve(best.table, cores, objective="FairSum")
    value = best.table.value
    scores = [
        value[0, a] + value[1, b] - 2 * abs(value[0, a] - value[1, b])
        for a, b in itertools.product(range(1, cores), repeat=2)
        if a + b <= cores
    ]
    assert allocation.value == pytest.approx(max(scores), abs=1e-6)
    assert allocation.gap == pytest.approx(0, abs=1e-9)


def test_one_configuration_is_the_table_of_replicas():
    job = Job("a", max_replicas=5)
    best = best_configurations({"a": [job]}, load(12.0), ["a"], [2], cores=5)
    plain = build_table([job], load(12.0), [2]).value[0]
    assert best.table.value[0, : len(plain)].tolist() == np.maximum.accumulate(plain).tolist()
    assert best.chosen([3]) == [(job, 3)]


def test_running_replicas_serve_until_those_of_another_configuration_have_started():
    best = best_configurations(
        {"a": [SLOW, FAST]}, load(25.0), ["slow"], [1], cores=8, cold_start_minutes=2.0
    )
    assert np.ptp(best.table.value[0, 1:]) == 0  # all cells are what one slow replica is worth
    assert best.chosen([8]) == [(SLOW, 1)]
    started = best_configurations(
        {"a": [SLOW, FAST]}, load(25.0), ["slow"], [1], cores=8, cold_start_minutes=0.0
    )
    assert started.chosen([4]) == [(FAST, 2)]


def test_a_change_of_the_configuration_pays_the_switching_cost():
    def chosen(cost):
        best = best_configurations(
            {"a": [SLOW, FAST]},
            load(11.0),
            ["slow"],
            [2],
            cores=2,
            cold_start_minutes=0.0,
            switching_cost=cost,
        )
        return best.chosen([2])

    assert chosen(0.0) == [(FAST, 1)]
    assert chosen(1.0) == [(SLOW, 2)]


def test_of_equal_cells_the_current_configuration_wins():
    for current in (SLOW, FAST):
        best = best_configurations({"a": [SLOW, FAST]}, load(0.0), [current.name], [1], cores=8)
        assert best.chosen([8])[0][0] == current


def test_more_cores_are_never_worth_less_and_too_few_are_infeasible():
    many = Job("many", cores=3.0, min_replicas=2)
    best = best_configurations(
        {"a": [many, Job("large", cores=4.0)]}, load(10.0), ["large"], [1], cores=9
    )
    assert np.isneginf(best.table.value[0, :4]).all()
    assert (np.diff(best.table.value[0, 4:]) >= 0).all()


@pytest.mark.slow
def test_the_batch_size_follows_the_load():
    """A small batch answers sooner, a large one serves more; a low rate needs the small one."""
    sizes = [
        Job(
            f"{b} at once",
            slo_s=0.35,
            replica=Batched(b, wait_s=0.1, base_s=0.1, per_request_s=0.02),
        )
        for b in (2, 8)
    ]
    model = measure(tuple(sizes), (1, 2, 4), requests=3_000)

    def chosen(rate):
        best = best_configurations(
            {"a": sizes},
            load(rate),
            ["2 at once"],
            [1],
            cores=2,
            cold_start_minutes=0.0,
            latency_model=model,
        )
        return best.chosen([2])[0][0].name

    assert [chosen(rate) for rate in (2.0, 40.0)] == ["2 at once", "8 at once"]


def test_a_service_has_one_slo_and_runs_one_of_its_configurations():
    with pytest.raises(
        ValueError, match="service 'a': slo_s must be the same in all of its configurations"
    ):
        best_configurations(
            {"a": [SLOW, Job("late", slo_s=2.0)]}, load(1.0), ["slow"], [1], cores=4
        )
    with pytest.raises(
        ValueError, match="service 'a': current='gone' is not one of its configurations"
    ):
        best_configurations({"a": [SLOW, FAST]}, load(1.0), ["gone"], [1], cores=4)
    with pytest.raises(ValueError, match="one entry for each of the 1 services"):
        best_configurations({"a": [SLOW]}, load(1.0, 2.0), ["slow"], [1], cores=4)
