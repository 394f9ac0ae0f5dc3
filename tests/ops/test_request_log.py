"""Request logs: a row for each request becomes counts per minute, and says whether they burst."""

import gzip
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from faro_lib import files
from faro_lib.workload import limits, request_log
from faro_lib.workload.bursts import burst_arrivals, dispersion
from faro_lib.workload.request_log import (
    COMPRESSIONS,
    FORMATS,
    is_request_log,
    read_request_log,
)
from faro_ops.advise.sources.history import history_from_csv

START = pd.Timestamp("2026-03-02T08:00:00")
RNG = np.random.default_rng(1)


def rows(minutes=5, per_minute=60, zone=""):
    """Requests of two jobs at random times, as a table in the order of time."""
    seconds = np.sort(RNG.random(2 * minutes * per_minute) * 60 * minutes).round(3)
    stamps = START + pd.to_timedelta(seconds, unit="s")
    times = [f"{stamp:%Y-%m-%dT%H:%M:%S.%f}{zone}" for stamp in stamps]
    jobs = RNG.choice(["a", "b"], len(times))
    return pd.DataFrame({"time": times, "job": jobs, "prompt_tokens": 10, "status": 200})


def written(table, path):
    """Write the table in the format of the path."""
    kind = Path(path.stem).suffix if path.suffix in COMPRESSIONS else path.suffix
    if kind == ".parquet":
        table.to_parquet(path.with_suffix("") if path.suffix in COMPRESSIONS else path)
        content = (path.with_suffix("") if path.suffix in COMPRESSIONS else path).read_bytes()
    elif kind == ".csv":
        content = table.to_csv(index=False).encode()
    else:
        content = table.to_json(orient="records", lines=True).encode()
    packed = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
    with pa.output_stream(str(path), compression=packed) as out:
        out.write(content)
    return path


def by_pandas(table, job):
    minute = (pd.to_datetime(table["time"]) - START).dt.total_seconds() // 60
    of_job = minute[table["job"] == job].astype(int)
    return np.bincount(of_job, minlength=int(minute.max()) + 1).tolist()


@pytest.mark.parametrize("packed", COMPRESSIONS)
@pytest.mark.parametrize("form", FORMATS)
def test_every_format_has_the_same_counts(form, packed, tmp_path):
    table = rows()
    path = written(table, tmp_path / f"log{form}{packed}")
    assert is_request_log(path)
    log = read_request_log(path)
    assert log.names == ("a", "b")
    assert log.first_minute == START.value // 60_000_000_000
    assert log.per_minute.tolist() == [by_pandas(table, job) for job in log.names]


def test_unix_times_and_iso_times_with_an_offset_are_read(tmp_path):
    table = rows(zone="+02:00")
    local = read_request_log(written(table, tmp_path / "local.csv"))
    assert local.first_minute == START.value // 60_000_000_000, "by the log's own clock"
    stamps = pd.to_datetime(table["time"].str.slice(0, -6))
    unix = table.assign(time=(stamps - pd.Timestamp(0)).dt.total_seconds())
    same = read_request_log(written(unix, tmp_path / "unix.csv"))
    assert same.per_minute.tolist() == local.per_minute.tolist()


def test_batches_of_a_few_rows_give_the_same_counts(tmp_path, monkeypatch):
    table = rows(minutes=30)
    path = written(table, tmp_path / "log.csv")
    whole = read_request_log(path)
    monkeypatch.setattr(request_log, "BLOCK_BYTES", 700)
    assert len(list(request_log.batches(path))) > 50
    assert read_request_log(path).counts.tolist() == whole.counts.tolist()


def test_the_progress_of_a_long_log_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(request_log, "BLOCK_BYTES", 2000)
    monkeypatch.setattr(request_log, "PROGRESS_ROWS", 200)
    lines = []
    read_request_log(written(rows(minutes=10), tmp_path / "log.csv"), report=lines.append)
    assert len(lines) >= 4
    assert all("million rows" in line for line in lines)


BAD = {
    "out of order": ("time", "2026-03-02T07:59:00", "order of time"),
    "another time zone": ("time", "2026-03-02T08:00:30+02:00", "the UTC offset of row 1 (none)"),
    "no time": ("time", "yesterday", "ISO 8601"),
    "negative tokens": ("prompt_tokens", -5, "a number from 0 to 1e+09"),
    "too many tokens": ("prompt_tokens", 1e12, "a number from 0 to 1e+09"),
    "no number": ("prompt_tokens", "many", "a number from 0 to 1e+09"),
    "unknown job": ("job", "z", "the jobs are ['a', 'b']"),
    "no job": ("job", "", "the jobs are ['a', 'b']"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_row_is_named_with_its_file(fault, tmp_path):
    column, value, reason = BAD[fault]
    table = rows().astype({column: object})
    table.loc[100, column] = value
    path = written(table, tmp_path / "log.csv")
    with pytest.raises(ValueError, match=r"log\.csv") as caught:
        read_request_log(path, ["a", "b"])
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "row 101" in str(caught.value)


def test_a_row_with_too_few_columns_and_a_truncated_file_are_told_in_one_line(tmp_path):
    path = tmp_path / "short.csv"
    path.write_text("time,job,status\n2026-03-02T08:00:00,a,200\n2026-03-02T08:00:01,a\n")
    with pytest.raises(ValueError, match=r"short\.csv: damaged or no log"):
        read_request_log(path)
    whole = gzip.compress(rows(minutes=60).to_csv(index=False).encode())
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.csv\.gz: damaged or no log") as caught:
        read_request_log(cut)
    assert "\n" not in str(caught.value)


def test_a_log_without_rows_is_told(tmp_path):
    (tmp_path / "none.csv").write_text("time,job\n")
    with pytest.raises(ValueError, match=r"none\.csv: no rows"):
        read_request_log(tmp_path / "none.csv")


def test_tables_of_counts_are_no_logs(tmp_path):
    path = tmp_path / "counts.csv"
    path.write_text("time,job,requests\n2026-03-02T08:00:00,a,7\n")
    assert not is_request_log(path)
    assert not is_request_log(tmp_path / "missing.csv")
    path.write_text("minute,job,requests\n0,a,7\n")
    assert not is_request_log(path)


@pytest.mark.parametrize("shape", [1.0, 0.2])
def test_the_dispersion_is_that_of_the_arrival_process(shape):
    """Gamma gaps of shape k have an index of dispersion of 1 / k over long windows."""
    gaps = np.random.default_rng(3).gamma(shape, 1 / (20 * shape), 400_000)
    window = (np.cumsum(gaps) // 10).astype(int)
    counts = np.bincount(window)[None, :-1]
    assert dispersion(counts, 6)[0] == pytest.approx(1 / shape, rel=0.1)


def test_a_load_that_rises_slowly_is_no_burst():
    rate = np.linspace(10, 400, 6000)
    counts = np.random.default_rng(3).poisson(rate)[None]
    assert counts.var() / counts.mean() > 50
    assert dispersion(counts, 6)[0] == pytest.approx(1.0, rel=0.1)


def test_a_log_is_a_history(tmp_path):
    table = rows(minutes=40)
    lines = []
    path = written(table, tmp_path / "log.jsonl.gz")
    history = history_from_csv(str(path), report=lines.append)
    assert [job.name for job in history.jobs] == ["a", "b"]
    assert history.today.tolist() == [by_pandas(table, job) for job in "ab"]
    assert lines == []


@pytest.fixture
def bursty_log(tmp_path):
    """A log of service chat, whose gamma gaps have an index of dispersion of 10."""
    gaps = np.random.default_rng(3).gamma(0.1, 10 / 5, 20_000)
    times = START + pd.to_timedelta(np.cumsum(gaps), unit="s")
    table = pd.DataFrame({"time": times.strftime("%Y-%m-%dT%H:%M:%S.%f"), "job": "chat"})
    return str(written(table, tmp_path / "log.csv"))


def test_bursts_are_told_with_whether_predictions_include_them(bursty_log):
    lines = []
    history_from_csv(bursty_log, report=lines.append)
    history_from_csv(bursty_log, report=lines.append, bursts=False)
    assert all("requests come in bursts: chat (" in line for line in lines)
    known, random = lines
    assert "Predictions include the bursts" in known
    assert "assume random times and are optimistic" in random


def test_a_log_gives_the_exact_times_and_the_dispersion_of_its_jobs(bursty_log):
    history = history_from_csv(bursty_log)
    (job,) = history.jobs
    assert job.dispersion_10s == pytest.approx(10, rel=0.2)
    times = pd.to_datetime(pd.read_csv(bursty_log)["time"])
    expected = (times - times.iloc[0].floor("min")).dt.total_seconds()
    (found,) = history.traces.workload().arrival_s
    np.testing.assert_allclose(found, expected, atol=1e-5)
    counts = history.traces.evaluation[0, 0]
    alike = burst_arrivals(counts, job.dispersion, np.random.default_rng(4))
    of_log, of_fit = (
        dispersion(np.bincount(one.astype(int), minlength=60 * len(counts))[None], 10)[0]
        for one in (found, alike)
    )
    assert of_fit == pytest.approx(of_log, rel=0.15)


def test_at_random_neither_times_nor_bursts_are_used(bursty_log):
    for history in (
        history_from_csv(bursty_log, bursts=False),
        history_from_csv(bursty_log).at_random(),
    ):
        assert not history.jobs[0].bursty
        assert history.traces.workload().arrival_s == ()


def test_the_dispersion_that_a_table_states_is_kept(bursty_log, tmp_path):
    table = tmp_path / "jobs.yaml"
    table.write_text("- {job: chat, dispersion_10s: 3}\n")
    assert history_from_csv(bursty_log, str(table)).jobs[0].dispersion == (3.0, 1.0, 1.0)


def test_the_last_day_of_a_longer_log_has_its_own_times(tmp_path):
    """The log begins 40 hours before its end, so its last 24 hours are the last day."""
    minutes = 40 * 60
    stamps = START + pd.to_timedelta(np.arange(minutes) * 60 + 5.0, unit="s")
    table = pd.DataFrame({"time": stamps.strftime("%Y-%m-%dT%H:%M:%S.%f"), "job": "a"})
    history = history_from_csv(str(written(table, tmp_path / "log.csv")))
    (times,) = history.traces.arrival_s
    np.testing.assert_allclose(times, np.arange(1440) * 60 + 5.0)


def test_the_command_recommends_from_a_log(tmp_path, capsys):
    from faro_ops.cli.app import exit_status

    table = rows(minutes=40)
    path = written(table, tmp_path / "log.csv")
    assert exit_status(["recommend", "--workload", str(path), "--capacity", "12", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [job["job"] for job in found["jobs"]] == ["a", "b"]
    table.loc[3, "prompt_tokens"] = -1
    assert (
        exit_status(["recommend", "--workload", str(written(table, path)), "--capacity", "12"]) == 2
    )
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "row 4" in error


# --- what would take all memory, or another century -----------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_unix_times_in_milliseconds_are_the_same_times(form, tmp_path):
    table = rows()
    seconds = (pd.to_datetime(table["time"]) - pd.Timestamp(0)).dt.total_seconds()
    in_s = read_request_log(written(table.assign(time=seconds), tmp_path / f"s{form}"))
    in_ms = table.assign(time=(1000 * seconds).round().astype(np.int64))
    log = read_request_log(written(in_ms, tmp_path / f"ms{form}"))
    assert log.first_minute == in_s.first_minute == START.value // 60_000_000_000
    assert log.per_minute.tolist() == in_s.per_minute.tolist()


@pytest.mark.parametrize(("factor", "unit"), [(1e6, "microseconds"), (1e9, "nanoseconds")])
def test_unix_times_in_other_units_are_refused_in_a_line(factor, unit, tmp_path):
    table = rows()
    seconds = (pd.to_datetime(table["time"]) - pd.Timestamp(0)).dt.total_seconds()
    path = written(table.assign(time=(factor * seconds).astype(np.int64)), tmp_path / "log.csv")
    accepted = f"in s or ms, before the year 2100; it looks like {unit}"
    with pytest.raises(ValueError, match=rf"log\.csv, row 1: time=\S+; .* {accepted}$"):
        read_request_log(path)


def test_a_missing_timestamp_of_a_parquet_file_is_refused_with_its_row(tmp_path):
    path = tmp_path / "log.parquet"
    stamps = pa.array([1_700_000_000, None], pa.int64()).cast(pa.timestamp("s"))
    pq.write_table(pa.table({"time": stamps, "job": ["a", "a"]}), path)
    with pytest.raises(ValueError, match=r"log\.parquet, row 2: time=missing"):
        read_request_log(path)


def test_iso_times_after_the_year_2100_are_refused(tmp_path):
    path = written(rows().assign(time="2150-01-01T00:00:00"), tmp_path / "log.csv")
    with pytest.raises(ValueError, match=r"row 1: time=.*before the year 2100"):
        read_request_log(path)


@pytest.mark.parametrize(("unit", "name"), [("us", "microseconds"), ("ns", "nanoseconds")])
def test_a_table_of_counts_in_other_units_is_refused_in_a_line(unit, name, tmp_path):
    times = pd.date_range(START, periods=60, freq="min").astype(f"datetime64[{unit}]").astype(int)
    path = tmp_path / "counts.csv"
    pd.DataFrame({"time": times, "job": "a", "requests": 1}).to_csv(path, index=False)
    with pytest.raises(ValueError, match=rf"nor Unix time in s or ms \(.* 2100; .* like {name}\)"):
        history_from_csv(path)


def test_a_column_of_timestamps_in_another_century_is_refused_in_a_line(tmp_path):
    far = np.array([55_900_000_000_000_000], "datetime64[ms]").astype("datetime64[ms]")
    table = pa.table({"time": pa.array(far, pa.timestamp("ms")), "job": ["a"]})
    pq.write_table(table, tmp_path / "log.parquet")
    with pytest.raises(ValueError, match="row 1: time=55900000000000; a time, before the year"):
        read_request_log(tmp_path / "log.parquet")


def test_a_table_with_too_many_jobs_for_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_COUNTS", 100)
    times = pd.date_range(START, periods=60, freq="min")
    counts = [pd.DataFrame({"time": times, "job": job, "requests": 1}) for job in "ab"]
    pd.concat(counts).to_csv(tmp_path / "counts.csv", index=False)
    with pytest.raises(ValueError, match=r"2 jobs with 60 counts each are too many; .* is the"):
        history_from_csv(tmp_path / "counts.csv")


def test_a_table_whose_jobs_are_ids_of_requests_is_refused(tmp_path):
    times = pd.date_range(START, periods=240, freq="min")
    ids = [f"request-{n}" for n in range(len(times))]
    path = tmp_path / "counts.csv"
    pd.DataFrame({"time": times, "job": ids, "requests": 1}).to_csv(path, index=False)
    with pytest.raises(ValueError, match=r"240 different names .* is it the id of a request"):
        history_from_csv(path)


def test_a_parquet_table_with_more_rows_than_fit_into_memory_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "counts.parquet"
    times = pd.date_range(START, periods=60, freq="min")
    pd.DataFrame({"time": times, "job": "a", "requests": 1}).to_parquet(path, index=False)
    history_from_csv(path)
    monkeypatch.setattr(files, "MAX_UNPACKED_BYTES", 1 << 10)
    with pytest.raises(ValueError, match=r"counts\.parquet: .*its 60 rows take more than .* GiB"):
        history_from_csv(path)


def test_a_log_whose_jobs_are_ids_of_requests_is_refused_before_it_takes_memory(
    tmp_path, monkeypatch
):
    table = rows(minutes=20)
    ids = table.assign(job=[f"request-{n}" for n in range(len(table))])
    path = written(ids, tmp_path / "log.csv")
    with pytest.raises(ValueError, match=f"{len(table)} different names .* is it the id of a req"):
        read_request_log(path)
    monkeypatch.setattr(limits, "MAX_JOBS", 1000)
    with pytest.raises(ValueError, match=r"at most 1000 jobs .* is the column job the id"):
        read_request_log(path)
    assert read_request_log(path, names=["request-7"], ignore_others=True).counts.sum() == 1


def test_more_counts_than_fit_into_memory_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_COUNTS", 50)
    path = written(rows(), tmp_path / "log.csv")
    with pytest.raises(ValueError, match=r"2 jobs with .* 50 counts are accepted; split"):
        read_request_log(path)


def test_a_small_file_that_unpacks_to_more_than_memory_is_refused(tmp_path, monkeypatch):
    path = written(rows(), tmp_path / "log.parquet.gz")
    read_request_log(path)
    monkeypatch.setattr(files, "MAX_UNPACKED_BYTES", 1 << 10)
    with pytest.raises(ValueError, match=r"log\.parquet\.gz: it unpacks to more than .* GiB"):
        read_request_log(path)


def test_a_packed_table_that_unpacks_to_more_than_memory_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "counts.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write("job,minute,requests\n" + "".join(f"a,{n},1\n" for n in range(2 * 1440)))
    history_from_csv(path)
    monkeypatch.setattr(files, "MAX_UNPACKED_BYTES", 1 << 10)
    with pytest.raises(ValueError, match=r"counts\.csv\.gz: not a table \(it unpacks to more"):
        history_from_csv(path)


def test_a_small_packed_file_is_not_read_with_one_large_request_for_memory():
    asked = []

    class Stream(io.BytesIO):
        def read(self, size=-1):
            asked.append(size)
            return super().read(size)

    assert files.Bounded(Stream(b"abc")).read() == b"abc"
    assert max(asked) <= files.READ_BYTES
