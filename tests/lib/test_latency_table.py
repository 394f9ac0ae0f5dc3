"""The measured latency table against an independent simulation at constant rates."""

import threading
from pathlib import Path

import numpy as np
import pytest

from faro_lib.policies import Fixed
from faro_lib.queueing import LatencyTable
from faro_lib.simulate import LIVE, ServingModel
from faro_lib.simulate.measure import measure
from faro_lib.workload import Job, Workload
from faro_ops.advise.recommend.sizing import violations_by_capacity
from studies.queueing.latency_table import errors, latencies


def synthetic(**changes):
    """A table in which the tail latency doubles from one rate to the next, and 4 % are dropped."""
    tail_s = np.ones((1, 3, 2, 1)) * np.array([1.0, 2.0, 4.0])[None, :, None, None]
    excess = np.ones((1, 3, 2, 1)) * np.array([-0.01, -0.01, 0.03])[None, :, None, None]
    arrays = {
        "classes": ("resnet34 of 0.18 s, p99",),
        "quantile": [0.99],
        "max_rps": [np.inf],
        "rate_per_replica_rps": [[0.0, 4.0, 8.0]],
        "saturation_rps": [8.0],
        "replicas": [1, 4],
        "tail_s": tail_s,
        "excess_drops": excess,
    }
    return LatencyTable(**{**arrays, **changes})


JOB = Job("a")


def test_the_logarithm_of_the_latency_is_interpolated_between_rates():
    assert synthetic().tail_latency_s(JOB, 2.0, 1) == pytest.approx(np.sqrt(2.0))


def test_the_latency_is_infinite_only_where_the_drop_rate_exceeds_what_the_quantile_allows():
    assert np.isfinite(synthetic().tail_latency_s(JOB, [4.5, 4.9], 1)).all()
    assert np.isinf(synthetic().tail_latency_s(JOB, 5.1, 1))


def test_without_replicas_every_request_is_dropped():
    assert synthetic().minutes(JOB, 1.0, 0)[1].mean() == 1
    assert synthetic().expected_utility(JOB, 1.0, 0, "relaxed") == 0


def test_a_job_almost_without_requests_keeps_its_utility_whatever_its_slo():
    hopeless = Job("a", slo_s=0.01)
    assert synthetic().expected_utility(hopeless, 1 / 6000, 1, "precise") == pytest.approx(0.99)


def test_more_replicas_than_measured_never_increase_the_latency_at_the_same_rate_per_replica():
    counts = np.array([4, 8, 16, 64])
    assert np.all(np.diff(synthetic().tail_latency_s(JOB, 5.0 * counts, counts)) < 0)


def test_fewer_replicas_than_measured_never_decrease_the_latency_at_the_same_rate_per_replica():
    counts = np.array([1, 2, 3, 4])
    table = synthetic(replicas=[4, 8])
    assert np.all(np.diff(table.tail_latency_s(JOB, 2.0 * counts, counts)) < 0)


def test_a_rate_that_the_router_cannot_pass_is_dropped_at_any_replica_count():
    table = synthetic(max_rps=[10.0])
    assert table.minutes(JOB, 40.0, 1000)[1].mean() == pytest.approx(0.75)


def test_a_job_of_its_own_class_is_read_from_there():
    table = synthetic(classes=("wide",), own={"a": "wide"})
    assert table.tail_latency_s(JOB, 4.0, 1) == pytest.approx(2.0)
    with pytest.raises(
        ValueError, match=r"'resnet34 of 0.18 s, p99' was not measured; there are: wide"
    ):
        table.tail_latency_s(Job("b"), 4.0, 1)


def test_a_saved_table_reads_back_unchanged(tmp_path):
    table = synthetic(own={"a": "resnet34 of 0.18 s, p99"})
    table.save(tmp_path / "measured.npz")
    again = LatencyTable.load(tmp_path / "measured.npz")
    assert (again.classes, again.own) == (table.classes, table.own)
    np.testing.assert_array_equal(again.tail_s, table.tail_s)


def test_an_invalid_table_is_named():
    with pytest.raises(ValueError, match=r"excess_drops must lie in \[-1, 1\]"):
        synthetic(excess_drops=np.full((1, 3, 2, 1), 1.5))
    with pytest.raises(ValueError, match=r"quantile has shape \(2,\); expected \(1,\)"):
        synthetic(quantile=[0.9, 0.99])


def test_jobs_of_one_model_with_different_slos_and_quantiles_share_a_simulation(monkeypatch):
    runs = runs_of(monkeypatch)
    jobs = (Job("a"), Job("b", slo_s=0.4), Job("c", quantile=0.9))
    table = measure(jobs, (2,), requests=500)
    assert len(runs) == 1
    a, b, c = (float(table.expected_utility(job, 8.0, 2, "relaxed")) for job in jobs)
    assert c >= a > b > 0


def runs_of(monkeypatch):
    """The calls of the simulation behind `measure`."""
    from faro_lib.simulate import measure as module

    runs = []
    monkeypatch.setattr(module, "_run", lambda *a, run=module._run: runs.append(a) or run(*a))
    return runs


def test_a_table_that_was_measured_before_is_read_from_disk_and_is_the_same(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    runs = runs_of(monkeypatch)
    first, second = (
        measure((Job("a"), Job("b", quantile=0.9)), (1, 2), requests=500) for _ in range(2)
    )
    assert len(runs) == 2  # one for each replica count
    np.testing.assert_array_equal(first.tail_s, second.tail_s)
    np.testing.assert_array_equal(first.excess_drops, second.excess_drops)


@pytest.mark.parametrize(
    "change",
    [
        lambda **at: measure((Job("a", model="any", service_time_s=0.2),), (1,), **at),
        lambda **at: measure((Job("a", quantile=0.9),), (1,), **at),
        lambda **at: measure((Job("a"),), (2,), **at),
        lambda **at: measure((Job("a"),), (1,), **at | {"requests": 600}),
        lambda **at: measure((Job("a"),), (1,), serving_model=ServingModel(queue_limit=9), **at),
        lambda **at: measure(
            (Job("a"),), (1,), serving_model=ServingModel(own_limits=(("a", 9),)), **at
        ),
    ],
)
def test_whatever_changes_a_table_measures_it_again(change, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    runs = runs_of(monkeypatch)
    measure((Job("a"),), (1,), requests=500)
    change(requests=500)
    assert len(runs) == 2


def test_a_table_of_other_code_of_the_services_is_not_read_from_the_cache():
    from faro_lib.simulate.table_minutes import code_key
    from faro_lib.workload import service

    assert Path(service.__file__).read_bytes() in code_key()[1]


def test_a_broken_file_in_the_cache_and_a_folder_that_cannot_be_made_do_no_harm(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    table = measure((Job("a"),), (1,), requests=500)
    for path in (tmp_path / "faro").iterdir():
        path.write_bytes(path.read_bytes()[:50])
    np.testing.assert_array_equal(measure((Job("a"),), (1,), requests=500).tail_s, table.tail_s)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    np.testing.assert_array_equal(measure((Job("a"),), (1,), requests=500).tail_s, table.tail_s)


def test_kinds_of_replicas_are_measured_in_parallel(monkeypatch, tmp_path):
    """Each of two simulations begins before the other has ended."""
    from faro_lib.simulate import measure as module

    together = threading.Barrier(2, timeout=60)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(module, "THREADS", 2)
    monkeypatch.setattr(module, "_run", lambda *a, run=module._run: [together.wait(), run(*a)][1])
    measure((Job("a"), Job("b", model="any", service_time_s=2.0)), (1,), requests=500)


def test_a_jobs_own_max_ongoing_requests_is_measured():
    model = ServingModel("least-outstanding", max_ongoing_requests=4, own_limits=(("b", 20),))
    jobs = (Job("a"), Job("b"))
    table = measure(jobs, (1,), requests=2000, serving_model=model)
    few, many = (table.minutes(job, 5.0, 1)[1].mean() for job in jobs)
    assert few > many


def test_a_job_of_50_ms_behind_the_papers_router_never_serves_120_requests_per_second():
    """The router passes every request twice and serves about 109 requests per second."""
    job = Job("a", model="any", service_time_s=0.05, slo_s=0.2)
    table = measure((job,), (8, 16))
    assert table.expected_utility(job, 120.0, [12, 16, 40], "relaxed").max() < 0.2


@pytest.mark.parametrize("service_s", [0.001, 4.0, 40.0, 60.0])
def test_services_of_1_ms_to_60_s_can_be_measured(service_s):
    job = Job("a", model="any", service_time_s=service_s, slo_s=4 * service_s)
    table = measure((job,), (1, 2), requests=500, serving_model=ServingModel("least-outstanding"))
    assert np.isfinite(table.tail_latency_s(job, 0.4 * np.array([1, 2]) / service_s, [1, 2])).all()


VARIABLE = Job("a", model="any", service_scv=0.2)
RATE_RPS = 0.6 * 2 / VARIABLE.service_time_s  # utilisation 0.6 of two replicas


@pytest.fixture(scope="module")
def expected():
    """Utility of two live replicas, by the measured table."""
    return float(
        measure((VARIABLE,), (1, 2), serving_model=LIVE).expected_utility(
            VARIABLE, RATE_RPS, 2, "relaxed"
        )
    )


def test_the_table_of_a_real_service_has_the_utility_of_poisson_arrivals(expected):
    """The published arrivals overrun their minutes and overload the next (0.87, not 0.95)."""
    rng = np.random.default_rng(5)
    minutes = 1000
    arrival_s = np.cumsum(rng.exponential(1 / RATE_RPS, int(60 * RATE_RPS * minutes)))
    shape = np.sqrt(np.log1p(VARIABLE.service_scv))
    service_s = VARIABLE.service_time_s * rng.lognormal(-(shape**2) / 2, shape, len(arrival_s))
    latency_s = latencies(arrival_s, service_s, 2, LIVE.max_ongoing_requests)
    by_minute = np.split(latency_s, np.searchsorted(arrival_s, 60 * np.arange(1, minutes)))
    utility = [
        min(1, VARIABLE.slo_s / np.quantile(one, 0.99, method="higher")) for one in by_minute
    ]
    assert expected == pytest.approx(np.mean(utility), abs=0.02)


def test_a_simulation_of_a_recommendation_has_the_utility_of_the_table(expected):
    day = Workload((VARIABLE,), np.full((1, 400), 60 * RATE_RPS, int))
    accepted = np.full(1, 0.01)

    def quiet(line):
        pass

    curve = violations_by_capacity(
        day, Fixed(2, tick_s=60.0), (2, 2), accepted, serving_model=LIVE, report=quiet
    )
    assert 1 - curve.set_index("capacity_cores")["lost_utility"][2] == pytest.approx(
        expected, abs=0.02
    )


@pytest.mark.parametrize(
    "seed", [10, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (9, 35))]
)
def test_the_table_gives_the_utility_of_an_independent_simulation(seed):
    error, within = errors(seed, 0.02)
    assert error.max() <= 0.1 + within


@pytest.mark.slow
def test_the_table_is_within_0_03_of_the_simulation_on_average_and_0_1_in_99_percent_of_the_cases():
    """The first 30 of the 200 cases of studies/queueing/latency_table.py.

    The error of the simulation counts in favour of the table.
    """
    found = [errors(seed, 0.01) for seed in range(30)]
    error = np.array([one[0] for one in found])
    half_width = np.array([one[1] for one in found])
    assert error.mean(axis=0).max() <= 0.03
    assert np.quantile(error - half_width[:, None], 0.99, axis=0).max() <= 0.1
