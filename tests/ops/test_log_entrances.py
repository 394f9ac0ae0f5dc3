"""Request logs wherever the command accepts counts: recommend, audit, simulate and run."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from request_logs import FAULTS, START, assert_names_file_and_row, bad_log, requests_of

from faro_lib.workload import Job, request_log
from faro_lib.workload.log_traces import read_workload
from faro_ops.advise.sources.serving_history import serving_from_log
from faro_ops.cli.app import exit_status
from faro_ops.operate.controller.model import FreshModel, Source

DAY = 1440


@pytest.fixture
def jobs(tmp_path):
    path = tmp_path / "jobs.yaml"
    path.write_text("- {job: a, service_time_s: 0.1}\n- {job: b, service_time_s: 0.1}\n")
    return path


@pytest.fixture
def replicas(tmp_path):
    """Two replicas of a, and one of b that becomes three after five minutes."""
    path = tmp_path / "replicas.csv"
    path.write_text(
        "time,job,replicas\n2026-03-01T23:00:00,a,2\n2026-03-01T23:00:00,b,1\n"
        "2026-03-02T00:05:10,b,3\n"
    )
    return path


def written(table, path):
    table.to_csv(path, index=False)
    return path


ENTRANCES = {
    "recommend": "recommend --workload {log} --jobs {jobs}",
    "audit": "audit --workload {log} --jobs {jobs} --replicas-file {replicas}",
    "simulate": "simulate --workload {log} --jobs {jobs}",
    "run": "run --history {log} --jobs {jobs}",
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("entrance", ENTRANCES)
def test_a_bad_log_is_one_line_with_file_and_row(entrance, fault, jobs, replicas, tmp_path, capsys):
    log, reason = bad_log(fault, tmp_path)
    arguments = ENTRANCES[entrance].format(log=log, jobs=jobs, replicas=replicas).split()
    assert exit_status(arguments) == 2
    assert_names_file_and_row(capsys.readouterr().err, log, fault, reason)


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_a_log_that_is_not_there_is_one_line(entrance, jobs, replicas, tmp_path, capsys):
    log = tmp_path / "none.jsonl.zst"
    arguments = ENTRANCES[entrance].format(log=log, jobs=jobs, replicas=replicas).split()
    assert exit_status(arguments) == 2
    said = capsys.readouterr().err
    assert f"{log}: no such file" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_the_progress_of_a_long_log_is_said(
    entrance, jobs, replicas, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(request_log, "BLOCK_BYTES", 2000)
    monkeypatch.setattr(request_log, "PROGRESS_ROWS", 40)
    table = requests_of(200).astype({"prompt_tokens": object})
    table.loc[399, "prompt_tokens"] = -1  # ends the command
    log = written(table, tmp_path / "log.csv")
    arguments = ENTRANCES[entrance].format(log=log, jobs=jobs, replicas=replicas).split()
    assert exit_status(arguments) == 2
    assert capsys.readouterr().err.count("million rows") >= 3


class TestSimulate:
    def test_at_random_a_log_is_simulated_as_its_table_of_counts(self, jobs, tmp_path, capsys):
        log = written(requests_of(2 * DAY), tmp_path / "log.csv")
        minute = np.arange(2 * DAY)
        times = START + pd.to_timedelta(minute, unit="min")
        counts = pd.concat(
            [pd.DataFrame({"time": times, "job": job, "requests": 1}) for job in "ab"]
        )
        table = written(counts, tmp_path / "counts.csv")
        tables = []
        for workload in (log, table):
            arguments = f"--workload {workload} --jobs {jobs} --policy FairShare --minutes 20"
            assert exit_status(["simulate", *arguments.split(), "--at-random", "--json"]) == 0
            rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
            measured = ("decision_ms_p50", "decision_ms_p99", "wall_s")
            tables.append([{k: v for k, v in row.items() if k not in measured} for row in rows])
        assert tables[0] == tables[1]
        assert len(tables[0]) == 1

    def test_only_a_log_shows_bursts(self, jobs, tmp_path, capsys):
        minute = np.arange(DAY)
        times = START + pd.to_timedelta(minute, unit="min")
        counts = pd.concat(
            [pd.DataFrame({"time": times, "job": job, "requests": 1}) for job in "ab"]
        )
        table = written(counts, tmp_path / "counts.csv")
        log = written(requests_of(DAY), tmp_path / "log.csv")
        assumed = "counts per minute do not show bursts: requests at random times are assumed"
        for workload, told in ((table, True), (log, False)):
            arguments = f"--workload {workload} --jobs {jobs} --policy FairShare --minutes 2"
            assert exit_status(["simulate", *arguments.split()]) == 0
            assert (assumed in capsys.readouterr().err) == told

    def test_the_exact_times_of_the_last_day_are_replayed(self, jobs, tmp_path):
        table = requests_of(2 * DAY)
        traces = read_workload(str(written(table, tmp_path / "log.csv")), str(jobs))
        times = pd.to_datetime(table["time"])
        last = times.iloc[-1].floor("D")
        for job, found in zip("ab", traces.workload().arrival_s):
            of_job = times[(table["job"] == job) & (times >= last)]
            np.testing.assert_allclose(found, (of_job - last).dt.total_seconds(), atol=1e-5)

    @pytest.mark.parametrize("ending", ["jsonl.gz", "parquet", "csv.zst"])
    def test_other_formats_have_the_same_days(self, ending, jobs, tmp_path):
        table = requests_of(2 * DAY)
        plain = read_workload(str(written(table, tmp_path / "log.csv")), str(jobs))
        path = tmp_path / f"log.{ending}"
        if ending == "parquet":
            table.to_parquet(path)
        else:
            as_json = ending.startswith("jsonl")
            text = table.to_json(orient="records", lines=True) if as_json else table.to_csv()
            with pa.output_stream(str(path), compression="detect") as out:
                out.write(text.encode())
        other = read_workload(str(path), str(jobs))
        assert other.names == plain.names == ("a", "b")
        np.testing.assert_array_equal(other.train, plain.train)
        np.testing.assert_array_equal(other.evaluation, plain.evaluation)
        assert plain.train.shape == (1, 1, 2, DAY)

    def test_a_last_day_that_ends_shortly_before_midnight_is_complete(self, tmp_path):
        quiet = written(requests_of(2 * DAY - 10), tmp_path / "quiet.csv")
        assert read_workload(str(quiet)).days == 1
        cut = written(requests_of(2 * DAY - 20), tmp_path / "cut.csv")
        assert read_workload(str(cut)).days == 0

    def test_a_log_of_less_than_a_day_is_refused(self, jobs, tmp_path, capsys):
        log = written(requests_of(60), tmp_path / "log.csv")
        assert exit_status(["simulate", "--workload", str(log), "--jobs", str(jobs)]) == 2
        assert "no complete day from midnight to midnight" in capsys.readouterr().err


class TestRun:
    def test_the_forecaster_learns_from_the_days_of_a_log(self, tmp_path):
        log = written(requests_of(3 * DAY, per_minute=4), tmp_path / "log.csv")
        model = Source(str(log), "seasonal").model((Job("a"), Job("b")))
        np.testing.assert_allclose(model.mean(5), 2.0)

    def test_a_job_that_leaves_the_table_later_does_not_stop_a_controller(self, tmp_path):
        log = written(requests_of(2 * DAY), tmp_path / "log.csv")
        jobs = (Job("a"), Job("b"))
        model = FreshModel(Source(str(log), "seasonal"), jobs, lambda *_: None)
        assert model.of(jobs[:1]).mean(5).shape == (1, 5)
        with pytest.raises(ValueError, match="job 'b'; the jobs are"):
            Source(str(log), "seasonal").model(jobs[:1])
        with pytest.raises(ValueError, match="no row is of one of the jobs c"):
            model.of((Job("c"),))


class TestAudit:
    def test_minutes_have_the_counts_latencies_and_replicas_of_the_log(
        self, jobs, replicas, tmp_path
    ):
        table = requests_of(10, per_minute=40)
        log = written(table, tmp_path / "log.csv")
        serving = serving_from_log(str(log), str(replicas), str(jobs))
        np.testing.assert_array_equal(serving.history.today, 20)
        minute = np.arange(len(table)) // 40
        for n, job in enumerate("ab"):
            of_job = table["latency_s"][table["job"] == job].groupby(minute[table["job"] == job])
            np.testing.assert_allclose(serving.latency_s[0, n], of_job.mean())
            np.testing.assert_allclose(serving.latency_s[1, n], of_job.median())
            np.testing.assert_allclose(serving.tail_s[n], of_job.quantile(0.99))
        assert serving.replicas.tolist() == [[2.0] * 10, [1.0] * 5 + [3.0] * 5]

    def test_replicas_before_their_first_row_are_unknown(self, jobs, tmp_path):
        (tmp_path / "late.csv").write_text(
            "time,job,replicas\n2026-03-02T00:03:00,a,2\n2026-03-02T00:04:00,b,1\n"
        )
        log = written(requests_of(6), tmp_path / "log.csv")
        late = serving_from_log(str(log), str(tmp_path / "late.csv"), str(jobs))
        expected = [[np.nan] * 3 + [2.0] * 3, [np.nan] * 4 + [1.0] * 2]
        np.testing.assert_array_equal(late.replicas, expected)
