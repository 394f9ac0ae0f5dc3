"""Jobs, workloads and their readers, and their one-line errors."""

from __future__ import annotations

import gzip
import hashlib
import json
import os

import numpy as np
import pandas as pd
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from faro_lib.workload import Job, Traces, Workload
from faro_lib.workload import published as artifact
from faro_lib.workload.published import read_artifact
from faro_lib.workload.readers import read_csv, read_jobs
from faro_lib.workload.service import true_service_time
from faro_lib.workload.synthetic import downsample, scale_to, synthetic
from faro_lib.workload.tables import load_workload
from faro_ops.advise.sources.history import history_from_csv
from studies.traces.files import write_jobs


def one_line(error) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


# --- jobs and workloads


@pytest.mark.parametrize(
    ("field", "value", "accepted"),
    [
        ("name", "", "1 to 100 printable ASCII characters"),
        ("slo_s", 0.0, "a finite number > 0"),
        ("slo_s", float("nan"), "a finite number > 0"),
        ("service_time_s", -1.0, "a finite number > 0"),
        ("cores", 0.0, "a finite number > 0"),
        ("cores", 0.25, "a multiple of 0.1"),
        ("service_scv", -0.1, "a finite number >= 0"),
        ("cold_start_s", float("inf"), "a finite number >= 0"),
        ("weight", -1.0, "a finite number >= 0"),
        ("quantile", 1.0, "strictly between 0 and 1"),
        ("quantile", 0.0, "strictly between 0 and 1"),
        ("min_replicas", -1, "a whole number >= 0"),
        ("min_replicas", 1.5, "a whole number >= 0"),
        ("max_replicas", 0, "a whole number from min_replicas=1 to 1000000"),
    ],
)
def test_a_job_rejects_bad_values_and_names_the_accepted_ones(field, value, accepted):
    with pytest.raises(ValueError) as error:
        Job(**{"name": "resnet", field: value})
    message = one_line(error)
    assert field in message
    assert repr(value) in message
    assert accepted in message


@pytest.mark.parametrize("cores", [0.1, 0.3, 0.7, 1.1, 2.9])
def test_any_multiple_of_a_tenth_of_a_core_is_accepted(cores):
    assert Job("a", cores=cores).cores == cores


def test_jobs_have_unique_names():
    with pytest.raises(ValueError, match="job 'a' occurs more than once"):
        Workload((Job("a"), Job("a")), [[1], [1]])


def test_a_workload_has_a_job():
    with pytest.raises(ValueError, match="jobs is empty"):
        Workload((), np.zeros((0, 3)))


def test_a_workload_has_one_row_per_job():
    with pytest.raises(ValueError, match=r"shape \(1, 2\).*2 jobs"):
        Workload((Job("a"), Job("b")), [[1, 2]])


@pytest.mark.parametrize("bad", [-1, 0.5, float("nan"), float("inf")])
def test_a_count_that_is_not_a_whole_number_is_rejected_with_its_index(bad):
    with pytest.raises(ValueError, match=r"requests_per_min\[0, 1\].*whole numbers >= 0"):
        Workload((Job("a"),), [[1, bad]])


def test_counts_cannot_be_changed_afterwards():
    workload = Workload((Job("a"),), [[1, 2]])
    with pytest.raises(ValueError):
        workload.requests_per_min[0, 0] = 5


def test_a_day_that_does_not_exist_is_rejected():
    traces = synthetic(jobs=2, days=2, minutes=4)
    assert traces.workload(day=2).minutes == 4
    with pytest.raises(ValueError, match="day=3 is not a training day; there are days 1 to 2"):
        traces.workload(day=3)


def test_until_evaluates_a_training_day_and_trains_on_the_days_before():
    traces = synthetic(jobs=2, days=4, minutes=4)
    honest = traces.until(3)
    np.testing.assert_array_equal(honest.train, traces.train[:2])
    np.testing.assert_array_equal(honest.evaluation, traces.train[2])
    with pytest.raises(ValueError, match=r"day=1 must lie in 2\.\.4"):
        traces.until(1)


# --- CSV of counts


@pytest.fixture
def csv(tmp_path):
    def write(text):
        path = tmp_path / "requests.csv"
        path.write_text(text)
        return path

    return write


@examples(25)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.randoms(use_true_random=False))
def test_a_csv_is_read_as_written_in_any_order_of_rows(
    tmp_path_factory, days, jobs, minutes, random
):
    counts = np.array([random.randrange(2000) for _ in range(days * jobs * minutes)]).reshape(
        days, jobs, minutes
    )
    rows = [
        (day, minute, f"job{job}", counts[day, job, minute])
        for day in range(days)
        for job in range(jobs)
        for minute in range(minutes)
    ]
    random.shuffle(rows)
    path = tmp_path_factory.mktemp("csv") / "requests.csv"
    pd.DataFrame(rows, columns=["day", "minute", "job", "requests"]).to_csv(path, index=False)
    traces = read_csv(path)
    assert [job.name for job in traces.jobs] == [f"job{job}" for job in range(jobs)]
    np.testing.assert_array_equal(traces.evaluation, counts[-1:])
    np.testing.assert_array_equal(traces.train, counts[:-1, None])


def test_a_csv_may_be_compressed(tmp_path):
    path = tmp_path / "requests.csv.gz"
    path.write_bytes(gzip.compress(b"minute,job,requests\n0,a,7\n"))
    assert read_csv(path).evaluation.tolist() == [[[7]]]


def test_the_usual_names_of_an_export_are_accepted(csv):
    midnight = 20_000 * 86_400
    rows = "".join(f"{midnight + 60 * minute},007,3\n" for minute in range(1440))
    traces = read_csv(csv(f"timestamp,service,count\n{rows}"))
    assert [job.name for job in traces.jobs] == ["007"]
    assert traces.evaluation.sum() == 3 * 1440


def test_jobs_come_in_the_order_of_their_table(csv):
    traces = read_csv(csv("minute,job,requests\n0,a,1\n0,b,2\n"), (Job("b", slo_s=1.0), Job("a")))
    assert traces.jobs[0].slo_s == 1.0
    assert traces.evaluation.tolist() == [[[2], [1]]]


def test_a_job_missing_from_the_table_of_jobs_is_named(csv, tmp_path):
    counts, jobs = str(csv("minute,job,requests\n0,a,1\n0,x,1\n")), tmp_path / "jobs.csv"
    jobs.write_text("job\na\n")
    for read in (load_workload, history_from_csv):
        with pytest.raises(ValueError, match=r"job 'x' is not among the jobs \['a'\]"):
            read(counts, str(jobs))


def test_a_job_without_rows_is_named(csv):
    with pytest.raises(ValueError, match="minute 0 is missing for job 'b'"):
        read_csv(csv("minute,job,requests\n0,a,1\n"), (Job("a"), Job("b")))


@pytest.mark.parametrize("reader", [read_csv, read_jobs, lambda path: read_artifact(path, path)])
def test_a_file_that_does_not_exist_is_named(tmp_path, reader):
    with pytest.raises(FileNotFoundError, match=r"nothing\.csv: no such file"):
        reader(tmp_path / "nothing.csv")


# --- tables of jobs


@pytest.mark.parametrize("suffix", [".csv", ".yaml"])
def test_jobs_are_read_as_written(tmp_path, suffix):
    jobs = (
        Job("a", slo_s=1.5, cores=0.5, tenant="x", min_replicas=2),
        Job("7", quantile=0.9, model="resnet18"),
    )
    write_jobs(jobs, tmp_path / f"jobs{suffix}")
    assert read_jobs(tmp_path / f"jobs{suffix}") == jobs


@pytest.mark.parametrize("suffix", [".csv", ".yaml"])
def test_a_jobs_table_written_to_another_folder_names_the_same_latency_curve(
    tmp_path, monkeypatch, suffix
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "curve.csv").touch()
    (tmp_path / "elsewhere").mkdir()
    write_jobs((Job("a", latency_curve="curve.csv"),), f"elsewhere/jobs{suffix}")
    assert os.path.samefile(read_jobs(f"elsewhere/jobs{suffix}")[0].latency_curve, "curve.csv")


def test_a_job_with_the_name_of_a_published_model_keeps_its_own_service_time(tmp_path):
    (tmp_path / "jobs.csv").write_text("job,service_time_s\nresnet18,0.02\n")
    assert true_service_time(read_jobs(tmp_path / "jobs.csv")[0]).mean_s == pytest.approx(0.02)


def test_empty_fields_of_a_jobs_table_take_the_defaults(tmp_path):
    (tmp_path / "jobs.csv").write_text("job,slo_s,weight\na,,2\nb,1.0,\n")
    assert read_jobs(tmp_path / "jobs.csv") == (Job("a", weight=2.0), Job("b", slo_s=1.0))


# --- downsampling, scaling


@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from([1, 2, 4]),
    st.integers(1, 5),
    st.integers(0, 999),
)
def test_downsampling_averages_every_few_minutes_from_every_phase(jobs, days, factor, points, seed):
    per_min = (
        np.random.default_rng(seed).integers(0, 100, (jobs, days, factor * points)).astype(float)
    )
    downsampled = downsample(per_min, factor)
    assert downsampled.shape == (days, factor, jobs, points)
    for job in range(jobs):
        line = list(per_min[job].ravel()) + [per_min[job, -1, -1]] * factor
        for day in range(days):
            for phase in range(factor):
                for point in range(points):
                    start = day * factor * points + phase + point * factor
                    expected = np.mean(line[start : start + factor])
                    assert downsampled[day, phase, job, point] == pytest.approx(expected)


def test_a_factor_that_does_not_divide_the_day_is_rejected():
    with pytest.raises(ValueError, match="a day of 10 minutes cannot be downsampled by 4"):
        downsample(np.zeros((1, 1, 10)), 4)


@given(st.integers(0, 999), st.sampled_from([10, 1600]))
def test_scaling_maps_each_job_to_1_to_maximum_in_the_same_order(seed, most):
    per_min = np.random.default_rng(seed).gamma(1.0, 50.0, (2, 3, 2, 7))
    scaled = scale_to(per_min, most)
    for job in range(2):
        assert scaled[:, :, job].min() == 1
        assert scaled[:, :, job].max() == most
        order = np.argsort(per_min[:, :, job].ravel())
        assert (np.diff(scaled[:, :, job].ravel()[order]) >= 0).all()


def test_a_job_that_never_varies_is_scaled_to_one():
    assert scale_to(np.full((1, 1, 1, 3), 5.0)).tolist() == [[[[1, 1, 1]]]]


# --- the published artifact


@pytest.fixture
def small_artifact(tmp_path, monkeypatch):
    """Two files in the artifact's layout: two jobs, three minutes, and the expected checksums."""
    rng = np.random.default_rng(3)
    counts = rng.integers(1, 1600, (11, 4, 2, 3))  # days, samples, jobs, minutes
    rows = [
        dict(hash_func=f"f{job}", day=day + 1, sample=sample, counts=counts[day, sample, job])
        for job in range(2)
        for day in range(11)
        for sample in range(4)
    ]
    training, evaluation = tmp_path / "train.pkl", tmp_path / "input.json"
    pd.DataFrame(rows).to_pickle(training)

    def write_evaluation(day):
        lines = [
            {"counts": {f"f{job}": {"a": 1, "b": int(day[job, minute]) - 1} for job in range(2)}}
            for minute in range(3)
        ]
        evaluation.write_text("".join(json.dumps(line) + "\n" for line in lines))
        for name, path in (("EVALUATION_SHA256", evaluation), ("TRAINING_SHA256", training)):
            monkeypatch.setattr(artifact, name, hashlib.sha256(path.read_bytes()).hexdigest())

    write_evaluation(counts[10, 0])
    return evaluation, training, counts, write_evaluation


def test_the_artifact_trains_on_ten_days_and_evaluates_on_the_eleventh(small_artifact):
    evaluation, training, counts, _ = small_artifact
    traces = read_artifact(evaluation, training)
    np.testing.assert_array_equal(traces.train, counts[:10])
    np.testing.assert_array_equal(traces.evaluation, counts[10, :1])


def test_artifact_files_of_different_days_are_rejected(small_artifact):
    evaluation, training, counts, write_evaluation = small_artifact
    write_evaluation(counts[9, 0])
    with pytest.raises(ValueError, match="its day 11 is not the day of"):
        read_artifact(evaluation, training)


@pytest.mark.parametrize("which", [0, 1])
def test_a_file_whose_checksum_does_not_match_is_not_opened(small_artifact, monkeypatch, which):
    path = small_artifact[which]
    path.write_bytes(path.read_bytes() + b"\n")
    if which == 1:
        monkeypatch.setattr(
            artifact.pickle, "loads", lambda content: pytest.fail("the pickle was opened")
        )
    with pytest.raises(ValueError) as error:
        read_artifact(*small_artifact[:2])
    assert f"{path}: SHA-256" in one_line(error)
    assert "the file was not opened" in one_line(error)


# --- the synthetic workload


def test_the_synthetic_workload_is_a_function_of_its_seed():
    one = synthetic(1, 3, 2, 60)
    again = synthetic(1, 3, 2, 60)
    other = synthetic(2, 3, 2, 60)
    np.testing.assert_array_equal(one.train, again.train)
    np.testing.assert_array_equal(one.evaluation, again.evaluation)
    assert (one.evaluation != other.evaluation).any()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_synthetic_evaluation_day_has_the_published_load(seed):
    traces = synthetic(seed)
    assert isinstance(traces, Traces)
    load = traces.workload().requests_per_min.sum(axis=0) / 60 * 0.154
    assert np.quantile(load, 0.95) == pytest.approx(22.6, rel=0.01)


def test_synthetic_jobs_are_correlated_and_keep_a_daily_shape():
    traces = synthetic(1)
    days = traces.train[:, 0].astype(float)  # (days, jobs, minutes)
    by_job = np.corrcoef(days.transpose(1, 0, 2).reshape(10, -1))
    assert by_job[np.triu_indices(10, 1)].mean() > 0.05
    shape = days.mean(axis=0)
    last = traces.evaluation[0].astype(float)
    own = np.mean([np.corrcoef(shape[job], last[job])[0, 1] for job in range(10)])
    others = np.mean([np.corrcoef(shape[job], last[(job + 1) % 10])[0, 1] for job in range(10)])
    assert own > others + 0.2


@pytest.mark.parametrize(("jobs", "days", "minutes"), [(0, 1, 10), (1, -1, 10), (1, 1, 0)])
def test_an_empty_synthetic_workload_is_rejected(jobs, days, minutes):
    with pytest.raises(ValueError, match=f"jobs={jobs}, days={days}, minutes={minutes}"):
        synthetic(1, jobs, days, minutes)
