"""A latency curve from elsewhere: a CSV that a job's row names, and that decisions use."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from faro_lib.queueing.curve import read_curve
from faro_lib.simulate.measure import measure
from faro_lib.utility import build_table
from faro_lib.workload import Job
from faro_lib.workload.readers import read_jobs

RATES = (1.0, 2.0, 4.0, 8.0)
COUNTS = (1, 2, 4)


def latency_s(rate: float, replicas: int) -> float:
    return 0.2 + 0.02 * rate**1.5 / replicas


def table(**columns) -> pd.DataFrame:
    rows = [
        {
            "replicas": x,
            "rate_per_replica_rps": rate,
            "p50_s": latency_s(rate, x) / 3,
            "p99_s": latency_s(rate, x),
        }
        for x in COUNTS
        for rate in RATES
    ]
    return pd.DataFrame(rows).assign(**columns)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "curve.csv"
    table().to_csv(path, index=False)
    return path


@pytest.mark.parametrize(("quantile", "share"), [(0.99, 1.0), (0.5, 1 / 3)])
def test_the_latencies_of_the_file_are_those_of_the_table(path, quantile, share):
    job = Job("a", quantile=quantile, latency_curve=str(path))
    curve = read_curve(path, job)
    for replicas in COUNTS:
        for rate in RATES:
            expected = share * latency_s(rate, replicas)
            assert float(curve.tail_latency_s(job, replicas * rate, replicas)) == pytest.approx(
                expected
            )
    between = float(curve.tail_latency_s(job, 3.0, 1))
    assert share * latency_s(2.0, 1) < between < share * latency_s(4.0, 1)


def test_requests_beyond_the_largest_rate_are_counted_as_dropped(path):
    job = Job("a", latency_curve=str(path))
    curve = read_curve(path, job)
    assert curve.minutes(job, 8.0, 1)[1].mean() == 0
    assert curve.minutes(job, 16.0, 1)[1].mean() == pytest.approx(0.5)
    assert np.isinf(curve.tail_latency_s(job, 16.0, 1))


def test_a_job_of_the_jobs_table_uses_its_curve_and_others_their_simulation(path, tmp_path):
    jobs_table = tmp_path / "jobs.yaml"
    jobs_table.write_text("- {job: a, latency_curve: curve.csv}\n- {job: b, service_time_s: 0.1}\n")
    jobs = read_jobs(jobs_table)
    measured = measure(jobs, (1, 2, 4), requests=1000)
    plain = measure(jobs[1:], (1, 2, 4), requests=1000)
    for replicas in COUNTS:
        of_curve = float(measured.tail_latency_s(jobs[0], 4.0 * replicas, replicas))
        # It is interpolated on another grid.
        assert of_curve == pytest.approx(latency_s(4.0, replicas), rel=0.03)
        np.testing.assert_array_equal(
            measured.tail_latency_s(jobs[1], 4.0, replicas),
            plain.tail_latency_s(jobs[1], 4.0, replicas),
        )
    assert measured.expected_utility(jobs[0], 4.0, 1, "precise") == pytest.approx(1.0)


def test_a_curve_gives_the_same_latencies_alone_and_in_the_table_of_all_jobs(path):
    job = Job("a", latency_curve=str(path))
    alone, joined = read_curve(path, job), measure((job,), COUNTS, requests=500)
    replicas = np.array([1, 2, 3, 4, 6, 8, 16, 64])
    for rate_rps in (0.01, 0.5, 2.0, 4.0, 8.0, 24.0, 100.0):
        np.testing.assert_allclose(
            joined.tail_latency_s(job, rate_rps, replicas),
            alone.tail_latency_s(job, rate_rps, replicas),
            rtol=0.03,
        )


def test_more_replicas_than_on_the_curve_never_raise_the_latency(path):
    job = Job("a", latency_curve=str(path))
    joined = measure((job,), COUNTS, requests=500)
    for rate_rps in (1.0, 8.0, 24.0):
        latency_s = joined.tail_latency_s(job, rate_rps, np.arange(1, 65))
        assert (latency_s[1:] <= latency_s[:-1] + 1e-9).all()


def test_a_curve_is_believed_at_rates_beyond_what_the_service_time_of_the_jobs_table_allows(
    tmp_path,
):
    path = tmp_path / "curve.csv"
    table(rate_per_replica_rps=[10.0, 20.0, 30.0, 40.0] * len(COUNTS)).to_csv(path, index=False)
    job = Job("a", service_time_s=0.1, slo_s=1.0, latency_curve=str(path))
    at_40_rps = build_table(
        [job], np.full((1, 1, 1), 40.0), [1], latency_model=read_curve(path, job)
    )
    assert at_40_rps.value[0, 1] == pytest.approx(1.0)


def test_drop_rates_of_the_file_are_kept(tmp_path):
    path = tmp_path / "curve.csv"
    table(drop_rate=[0.0, 0.0, 0.1, 0.3] * len(COUNTS)).to_csv(path, index=False)
    job = Job("a", latency_curve=str(path))
    assert read_curve(path, job).minutes(job, 4.0, 1)[1].mean() == pytest.approx(0.1)
    assert measure((job,), (1, 2), requests=500).minutes(job, 8.0, 1)[1].mean() == pytest.approx(
        0.3, abs=0.01
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.drop(columns="p99_s"),
            "column 'p99_s' is missing; the latency columns are: p50_s",
        ),
        (
            lambda t: t[t["rate_per_replica_rps"] < 8],
            "3 rates are too few for a curve; at least 4 are needed",
        ),
        (lambda t: t.drop(index=5), "rate_per_replica_rps=2 is missing for 2 replicas"),
        (
            lambda t: t.assign(p99_s=t["p99_s"].where(t.index != 2, 0.1)),
            "p99_s falls to 0.1 at 4 requests/s on 1 replicas",
        ),
        (
            lambda t: t.assign(p99_s=t["p99_s"].where(t.index != 2, -1)),
            "line 4: p99_s=-1.0 must be a finite number > 0",
        ),
        (lambda t: t.assign(replicas="many"), "line 2: replicas=many must be a finite number > 0"),
        (lambda t: t.assign(drop_rate=-0.1), "line 2: drop_rate=-0.1 must be a number from 0 to 1"),
        (lambda t: t.assign(drop_rate="no"), "line 2: drop_rate=no must be a number from 0 to 1"),
        (
            lambda t: t.assign(drop_rate=0.0).replace({"drop_rate": {0.0: None}}),
            "line 2: drop_rate=nan must be",
        ),
    ],
)
def test_a_curve_that_cannot_be_used_is_refused_in_one_line(tmp_path, change, message):
    path = tmp_path / "curve.csv"
    change(table()).to_csv(path, index=False)
    with pytest.raises(ValueError) as error:
        measure((Job("a", latency_curve=str(path)),), (1,))
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [("gone.csv", "gone.csv: no such file or folder"), ("", "is a folder, and a file is needed")],
)
def test_a_curve_that_cannot_be_read_is_refused_in_one_line(tmp_path, name, message):
    """It is a ValueError, so a controller whose changed table names such a curve keeps its jobs."""
    with pytest.raises(ValueError, match=f"^{tmp_path}.*{message}$"):
        measure((Job("a", latency_curve=str(tmp_path / name)),), (1,))
