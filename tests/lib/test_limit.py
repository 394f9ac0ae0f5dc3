"""The clairvoyant limit against brute force, and the components of the remaining loss."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from faro_lib import forecast
from faro_lib.allocate import best_by_minute
from faro_lib.experiments import limits
from faro_lib.experiments.limits import (
    clairvoyant,
    enough_replicas,
    max_replicas_of_any,
    measured_utility,
)
from faro_lib.metrics.measures import lost_utility, summarize
from faro_lib.policies import PolicyContext, make
from faro_lib.simulate import draw, simulate
from faro_lib.simulate.cluster import PAPER
from faro_lib.simulate.measure import measure
from faro_lib.workload import Job, Workload, arrays_of
from faro_lib.workload.replicas import Batched, Continuous
from faro_lib.workload.synthetic import synthetic
from studies.ablation.remaining import ALL, AS_IS, CONSTANT, IDEALS, LIMIT, remaining
from studies.comparison.run import compare, limits_of
from studies.forecast.oracle import oracle


@st.composite
def clusters(draw):
    """Jobs, the value of their replicas in two minutes, and a capacity for their minima."""
    jobs = tuple(
        Job(
            str(n),
            cores=draw(st.sampled_from([0.5, 1.0, 1.5, 2.0])),
            min_replicas=(minimum := draw(st.integers(0, 2))),
            max_replicas=minimum + draw(st.integers(1, 3)),
        )
        for n in range(draw(st.integers(1, 3)))
    )
    value = draw(st.lists(st.floats(0, 1), min_size=len(jobs) * 10, max_size=len(jobs) * 10))
    arrays = arrays_of(jobs)
    capacity = float(arrays.min_replicas @ arrays.cores) + draw(
        st.sampled_from([0.0, 0.4, 1.0, 2.5, 6.0])
    )
    return jobs, np.array(value).reshape(len(jobs), 5, 2), capacity


@examples(60)
@given(clusters())
def test_the_allocation_of_every_minute_is_the_best_that_fits(cluster):
    jobs, value, capacity = cluster
    cores = arrays_of(jobs).cores
    bounds = [range(job.min_replicas, min(4, job.max_replicas) + 1) for job in jobs]
    fitting = [x for x in product(*bounds) if np.array(x) @ cores <= capacity + 1e-9]
    rows, best = np.arange(len(jobs)), best_by_minute(value, jobs, capacity)
    for minute in range(2):
        assert tuple(best[:, minute]) in fitting
        optimum = max(value[rows, x, minute].sum() for x in fitting)
        assert value[rows, best[:, minute], minute].sum() == pytest.approx(optimum)


def test_the_largest_count_of_a_job_leaves_the_others_their_minimum():
    assert max_replicas_of_any((Job("a"),) * 10, 36) == 27
    assert max_replicas_of_any((Job("a", min_replicas=3), Job("b", cores=2.0)), 12) == 10
    assert max_replicas_of_any((Job("a", max_replicas=4), Job("b", max_replicas=2)), 12) == 4
    assert max_replicas_of_any((Job("a", min_replicas=0), Job("b", min_replicas=0)), 12) == 12


def test_an_idle_job_without_a_minimum_leaves_all_cores_to_the_other():
    jobs = (Job("a", min_replicas=0), Job("b", min_replicas=0))
    utility = np.stack([np.full((5, 1), np.nan), np.arange(5)[:, None] / 4])
    assert clairvoyant(utility, 4, jobs).replicas.tolist() == [[0], [4]]


OF_REQUESTS = ("arrival_s", "router_in_s", "service_s", "router_out_s", "coin")  # fields of `Draws`


def test_a_minute_after_a_long_queue_has_the_utility_of_its_requests_alone():
    job = Job("a", model="own", service_time_s=2.0, slo_s=8.0)
    draws = draw(day := Workload((job,), [[120, 10]]), 24)
    own = {name: getattr(draws, name)[draws.arrival_s >= 60] for name in OF_REQUESTS}
    alone = replace(draws, first=np.array([0, len(own["arrival_s"])]), **own)
    assert measured_utility(day, draws, 1)[0, 1, 1] == measured_utility(day, alone, 1)[0, 1, 1]


ONE_AT_ONCE_S = 2.0  # duration of a request alone, in either kind of replica


@pytest.mark.parametrize(
    "replica",
    [Batched(8, base_s=2.0), Continuous(0.02, 0.0, 0.0, 16, output_tokens=100, prompt_tokens=1)],
)
def test_enough_replicas_hold_every_request_alone(replica):
    assert enough_replicas(Workload((Job("a", replica=replica),), [[600]])) >= 10 * ONE_AT_ONCE_S


def day_of(**fields):
    return Workload((Job("a", **fields), Job("b", **fields)), np.full((2, 6), 900))


def limit_of(day, capacity):
    return limits_of(day, draw(day, 24), (capacity,))["lost_utility"].item()


def test_no_fixed_allocation_beats_the_limit_of_a_job_of_exponential_services():
    """With a tight SLO, replicas help far beyond the load: each one avoids a queue of two."""
    day = Workload(
        (Job("a", model="own", service_time_s=0.1, service_scv=1.0, slo_s=0.5),),
        np.full((1, 30), 300),
    )
    for size in (8, 16):
        run = simulate(day, make("FairShare", PolicyContext(day.jobs)), size, 24)
        assert limit_of(day, size) <= summarize(run)["lost_utility"] + 1e-9


def test_counts_that_help_no_job_are_not_simulated(monkeypatch):
    runs = []
    monkeypatch.setattr(limits, "simulate", lambda *a, **b: runs.append(a) or simulate(*a, **b))
    assert measured_utility(day_of(), draw(day_of(), 24), 40).shape[1] == len(runs) + 1 < 12


def test_the_limit_of_replicas_of_two_cores_is_that_of_half_as_many_cores():
    assert limit_of(day_of(cores=2.0), 14) == limit_of(day_of(), 7)


def test_the_limit_keeps_within_the_bounds_of_the_jobs():
    free = limit_of(day_of(), 8)
    assert limit_of(day_of(max_replicas=2), 8) == limit_of(day_of(max_replicas=2), 4) > free
    assert limit_of(day_of(min_replicas=4), 8) >= free
    assert (
        limit_of(day_of(min_replicas=2), 4)
        == limit_of(day_of(max_replicas=2), 4)
        > limit_of(day_of(), 4)
    )


def test_the_minutes_of_the_clairvoyant_add_up_to_the_limit_and_fit():
    policies = {"FairShare": make("FairShare", PolicyContext(day_of().jobs))}
    tables = compare(day_of(), policies, 7, trials=2, report=None)
    assert (tables.clairvoyant.groupby(["trial", "minute"])["running"].sum() <= 7).all()
    for _, row in tables.limit.iterrows():
        of = tables.clairvoyant[tables.clairvoyant["trial"] == row["trial"]]
        values = of.pivot(index="job", columns="minute", values="utility").to_numpy()
        assert lost_utility(values) == row["lost_utility"]


INSTANT = replace(PAPER, idle_s=0.0, retry_s=1.0)


@examples(12)
@given(
    counts=st.lists(st.lists(st.integers(0, 1500), min_size=6, max_size=6), min_size=2, max_size=3),
    spare=st.integers(0, 5),
    name=st.sampled_from(["FairShare", "AIAD", "Oneshot", "MArk", "Faro-Sum", "Faro-PenaltySum"]),
)
def test_no_policy_loses_less_than_the_limit_even_with_instant_moves_and_an_oracle(
    counts, spare, name
):
    jobs = tuple(Job(str(n), cold_start_s=0.0) for n in range(len(counts)))
    day = Workload(jobs, np.array(counts))
    capacity, draws = len(jobs) + spare, draw(day, 24)
    run = simulate(
        day,
        make(name, PolicyContext(jobs, oracle(day))),
        capacity,
        draws=draws,
        serving_model=INSTANT,
    )
    assert (
        summarize(run)["lost_utility"]
        >= limits_of(day, draws, (capacity,))["lost_utility"].item() - 1e-9
    )


def test_no_limit_is_claimed_for_measures_that_drops_can_lower():
    assert list(limits_of(day_of(), draw(day_of(), 24), (4,))) == [
        "capacity_cores",
        "trial",
        "lost_utility",
    ]


@pytest.mark.parametrize("fields", [{"min_replicas": 3}, {"max_replicas": 2}, {"cores": 2.0}])
def test_measured_latencies_do_not_depend_on_the_bounds_of_the_first_job(fields):
    free, bound = (measure((job,), (1, 3), requests=1000) for job in (Job("a"), Job("a", **fields)))
    np.testing.assert_array_equal(free.tail_s, bound.tail_s)


TRACES = synthetic(seed=3, jobs=4, days=2, minutes=40)
DAY = TRACES.workload()


@pytest.fixture(scope="module")
def context():
    return PolicyContext(
        TRACES.jobs, forecast.fit("ar", TRACES), measure(TRACES.jobs, (1, 2, 4, 8), requests=3000)
    )


@pytest.fixture(scope="module")
def parts(context):
    return remaining(DAY, context, 13, draw(DAY, 24)).set_index("part")


def test_each_component_of_the_remaining_loss_has_a_row(parts):
    assert list(parts.index) == list(IDEALS)
    assert parts["slo_violation_rate"].isna().tolist() == [
        part in (CONSTANT, LIMIT) for part in parts.index
    ]


def test_the_first_row_is_the_loss_of_the_tuned_policy(parts, context):
    run = simulate(DAY, make("Faro-Sum", context), 13, draws=draw(DAY, 24))
    assert parts["lost_utility"][AS_IS] == summarize(run)["lost_utility"]


def test_the_clairvoyant_loses_least_and_ideal_parts_help(parts):
    lost = parts["lost_utility"]
    assert lost.idxmin() == LIMIT
    assert lost[ALL] < lost[AS_IS]


def test_a_context_without_a_measured_table_is_refused(context):
    with pytest.raises(ValueError, match="needs a measured latency table"):
        remaining(DAY, replace(context, latency_model=None), 13, draw(DAY, 24))
