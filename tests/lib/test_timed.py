"""Counts with times: what a time may be, where days begin, and which files are read."""

import gzip
import io
import time

import numpy as np
import pandas as pd
import pytest

from faro_lib.workload import Job
from faro_lib.workload.readers import read_counts, read_csv
from faro_lib.workload.timed import minutes_of
from faro_ops.advise.sources.history import history_from_csv
from faro_ops.operate.controller.model import Source
from faro_ops.prometheus import check_counts_query
from faro_ops.recorded_days import _days

FIRST = pd.Timestamp("2026-03-01 18:00")  # in UTC


def table(hours, jobs=("a", "b"), first=FIRST, started_h=0):
    """60 requests a minute, plus the hour of the day; the last job begins `started_h` h later."""
    minutes = pd.date_range(first, periods=60 * hours, freq="min")
    whole = pd.concat(
        [pd.DataFrame({"time": minutes, "job": job, "requests": 60 + minutes.hour}) for job in jobs]
    )
    return whole[
        (whole["job"] != jobs[-1]) | (whole["time"] >= first + pd.Timedelta(hours=started_h))
    ]


FORMS = {
    "ISO 8601": lambda time: time.dt.strftime("%Y-%m-%dT%H:%M:%S"),
    "ISO 8601 with a zone": lambda time: time.dt.strftime("%Y-%m-%dT%H:%M:%S+05:30"),
    "Unix seconds": lambda time: time.astype("datetime64[s]").astype(np.int64),
    "Unix milliseconds": lambda time: time.astype("datetime64[ms]").astype(np.int64),
}


@pytest.mark.parametrize("form", FORMS)
def test_days_begin_at_midnight_of_the_time_zone_of_the_file(form, tmp_path):
    rows = table(6 + 24 + 24 + 3)
    rows.assign(time=FORMS[form](rows["time"])).to_csv(tmp_path / "my.csv", index=False)
    traces = read_csv(tmp_path / "my.csv")
    # The first day has six hours only, the last one three: left out.
    assert traces.train.shape == (1, 1, 2, 1440)
    for day in (traces.evaluation[0], traces.train[0, 0, 0]):
        np.testing.assert_array_equal(day, np.broadcast_to(60 + np.arange(1440) // 60, day.shape))


@pytest.mark.parametrize(("hour", "days"), [(11, 3), (13, 2)])
def test_a_first_day_that_begins_after_noon_is_left_out(hour, days, tmp_path):
    first = FIRST.normalize() + pd.Timedelta(hours=hour)
    table(24 - hour + 48, first=first).to_csv(tmp_path / "my.csv", index=False)
    traces = read_csv(tmp_path / "my.csv")
    assert traces.days + 1 == days
    assert (traces.train[0, 0, 0] == 0).sum() == (60 * hour if days == 3 else 0)


def test_ten_minutes_before_midnight_are_no_day():
    just_after_midnight_s = time.mktime((2026, 3, 2, 0, 10, 0, 0, 0, -1))
    with pytest.raises(ValueError, match="no complete day"):
        _days((Job("a"),), np.full((1, 20), 60.0), just_after_midnight_s, "journal")


@pytest.mark.parametrize("first", ["2025-10-26 00:00", "2025-03-30 00:00"])
def test_no_minute_is_missing_or_repeated_when_the_clocks_change(first):
    times = pd.Series(pd.date_range(first, periods=300, freq="min", tz="Europe/Berlin", unit="ns"))
    np.testing.assert_array_equal(np.diff(minutes_of(times, "my.parquet")), 1)


@pytest.mark.parametrize("form", ["text", "stamps"])
@pytest.mark.parametrize("order", [1, -1])
def test_days_are_cut_at_the_offset_of_the_latest_time(form, order):
    times = pd.Series(
        pd.date_range("2026-03-28 12:00", periods=4, freq="12h", tz="Europe/Berlin", unit="ns")
    )[::order]
    times = times if form == "stamps" else times.map(lambda time: time.isoformat())
    hours = (minutes_of(times, "my.csv") // 60 % 24)[::order]
    assert hours.tolist() == [13, 1, 13, 1], "it is +01:00 at the first two times, and +02:00 later"


CHANGES = {"forward": "2026-03-27", "back": "2026-10-23"}  # two days before the clocks change


def days_in_berlin(first, form="text"):
    """Six days in which each hour of the clock has its number as requests per minute."""
    first = pd.Timestamp(first, tz="Europe/Berlin")
    last = first + pd.DateOffset(days=6, minutes=-1)
    times = pd.date_range(first, last, freq="min", unit="ns")
    requests = times.hour.to_numpy()
    if form == "text":
        times = [time.isoformat() for time in times]
    return pd.DataFrame({"time": times, "job": "a", "requests": requests})


@pytest.mark.parametrize("form", ["text", "stamps"])
@pytest.mark.parametrize("change", CHANGES)
def test_days_before_the_clocks_changed_are_learnt_by_the_clock_of_each_day(form, change, tmp_path):
    path = tmp_path / ("my.csv" if form == "text" else "my.parquet")
    rows = days_in_berlin(CHANGES[change], form)
    rows.to_csv(path, index=False) if form == "text" else rows.to_parquet(path)
    hours = np.repeat(np.arange(24), 60)
    for traces in (read_csv(path), history_from_csv(str(path)).traces):
        days = [*traces.train[:, 0, 0], traces.evaluation[0, 0]]
        assert len(days) >= 5
        for day in days:
            skipped = slice(2 * 60, 3 * 60) if change == "forward" else slice(0)
            kept = np.setdiff1d(np.arange(1440), np.arange(1440)[skipped])
            np.testing.assert_array_equal(day[kept], hours[kept])


def test_counts_in_utc_stay_as_they_are(tmp_path):
    rows = days_in_berlin("2026-03-27", "stamps")
    rows["time"] = rows["time"].dt.tz_convert("UTC").map(lambda time: time.isoformat())
    rows.to_csv(tmp_path / "my.csv", index=False)
    day = read_csv(tmp_path / "my.csv").train[1, 0, 0]
    np.testing.assert_array_equal(day, (np.repeat(np.arange(24), 60) + 1) % 24)


def test_the_last_minute_of_a_history_is_now():
    source = io.StringIO()
    table(6 + 24 + 24 + 3).to_csv(source, index=False)
    source.seek(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", source)
        history = history_from_csv("-")
    assert history.today.shape == (2, 1440)
    assert history.today[0, -1] == 60 + 2
    assert history.traces.days == 1


def test_a_first_day_of_more_than_half_is_learnt(tmp_path):
    table(24 + 14).to_csv(tmp_path / "my.csv", index=False)
    history = history_from_csv(str(tmp_path / "my.csv"))
    assert not history.single_day
    assert history.traces.train[0, 0, 0, -1] == history.today[0, -1]


def test_a_service_that_began_36_hours_ago_does_not_refuse_the_others(tmp_path):
    rows = table(72, started_h=36)
    rows.to_csv(tmp_path / "my.csv", index=False)
    history = history_from_csv(str(tmp_path / "my.csv"))
    assert history.forecaster().mean(5)[1] == pytest.approx(75, rel=0.4)
    assert read_csv(tmp_path / "my.csv").days == 1


def test_a_job_without_counts_is_planned_without_requests(tmp_path):
    table(30, jobs=("a",)).to_csv(tmp_path / "my.csv", index=False)
    (tmp_path / "jobs.csv").write_text("job\na\nnew\n")
    history = history_from_csv(str(tmp_path / "my.csv"), str(tmp_path / "jobs.csv"))
    assert history.unobserved == ("new",)
    assert (history.today[1] == 0).all()
    assert history.missing == 0


@pytest.mark.parametrize("name", ["my.csv.gz", "my.parquet"])
def test_other_files_hold_the_same_counts(name, tmp_path):
    rows = table(48, first=FIRST.normalize())
    rows.to_parquet(tmp_path / name) if name.endswith("parquet") else rows.to_csv(
        tmp_path / name, index=False
    )
    assert read_csv(tmp_path / name).train.sum() == rows["requests"].iloc[:1440].sum() * 2


def test_jobs_with_numbers_as_names_may_stand_in_a_parquet_file(tmp_path):
    rows = table(48, first=FIRST.normalize())
    rows.assign(job=rows["job"].map({"a": 7, "b": 8})).to_parquet(tmp_path / "my.parquet")
    assert read_csv(tmp_path / "my.parquet").names == ("7", "8")
    for none in (None, pd.Categorical([None] * len(rows), ["a", "b"])):
        rows.assign(job=none).to_parquet(tmp_path / "my.parquet")
        with pytest.raises(ValueError, match="line 2: job is empty"):
            read_csv(tmp_path / "my.parquet")


def test_times_of_day_without_a_date_are_refused(tmp_path):
    rows = table(1)
    rows.assign(time=rows["time"].dt.time).to_parquet(tmp_path / "my.parquet")
    with pytest.raises(ValueError, match="time is neither ISO 8601 nor Unix time"):
        read_csv(tmp_path / "my.parquet")


def test_rows_of_a_job_that_was_removed_do_not_end_the_learning_of_the_others(tmp_path):
    table(24, jobs=("a", "gone"), first=FIRST.normalize()).to_csv(tmp_path / "my.csv", index=False)
    traces = Source(str(tmp_path / "my.csv")).days((Job("a"), Job("new")))
    assert (traces.evaluation[0] > 0).all(axis=1).tolist() == [True, False]
    with pytest.raises(ValueError, match=r"job 'a' is not among the jobs \['b'\]"):
        Source(str(tmp_path / "my.csv")).days((Job("b"),))


def test_a_damaged_file_is_refused_in_one_line(tmp_path):
    for name, content in (
        ("cut.csv.gz", gzip.compress(b"time,job\n" * 99)[:20]),
        ("cut.parquet", b"PAR1"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}: not a table"):
            read_csv(tmp_path / name)


QUERIES = [
    (
        "sum by (job) (rate(http_requests_total[5m]))",
        "sum by (job) (increase(http_requests_total[1m]))",
    ),
    ('irate(http_requests_total{job="a"}[2m])', 'increase(http_requests_total{job="a"}[1m])'),
    (
        "sum by (job) (increase(http_requests_total[5m]))",
        "sum by (job) (increase(http_requests_total[1m]))",
    ),
    ('sum by (job) (latency_count{ns="x"})', 'sum by (job) (increase(latency_count{ns="x"}[1m]))'),
    (
        'rate(http_requests_total{path="/predict"}[1m])',
        'increase(http_requests_total{path="/predict"}[1m])',
    ),
    (
        "rate(http_requests_total{path=~'/a.*'}[1m])",
        "increase(http_requests_total{path=~'/a.*'}[1m])",
    ),
    (
        'rate(http_requests_total{code=~"[23].."}[5m])',
        'increase(http_requests_total{code=~"[23].."}[1m])',
    ),
]


@pytest.mark.parametrize(("wrong", "right"), QUERIES)
def test_a_query_that_does_not_count_a_minute_is_refused_with_the_right_one(wrong, right):
    with pytest.raises(ValueError) as error:
        check_counts_query(wrong)
    assert str(error.value).endswith(f"ask for the requests of one minute: {right!r}")
    check_counts_query(right)


@pytest.mark.parametrize(
    "query",
    [
        "60 * sum by (job) (rate(http_requests_total[5m]))",
        "job:requests:increase1m",
        "up",
        'sum by (s) (increase(http_requests_total{code=~"[23].."}[1m]))',
    ],
)
def test_a_query_that_may_count_a_minute_is_accepted(query):
    check_counts_query(query)


def test_a_millisecond_among_unix_seconds_is_told():
    times = pd.Series([1_700_000_040, 1_700_000_100_000])
    with pytest.raises(ValueError, match=r"1700000100000 is after .* it looks like milliseconds"):
        minutes_of(times, "counts.csv")


def test_a_table_with_a_missing_timestamp_is_refused_in_a_line(tmp_path):
    path = tmp_path / "counts.parquet"
    counts = table(1, jobs=("a",))
    counts.loc[3, "time"] = pd.NaT
    counts.to_parquet(path)
    with pytest.raises(ValueError, match=r"counts\.parquet: .*\(a time is missing\)"):
        read_counts(path)
