"""Counts from Prometheus.

A real server with six hours of backfilled counters, and a stub with bad answers.
"""

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from http_server import serving

from faro_lib.workload import Job, limits
from faro_lib.workload.bursts import burst_arrivals
from faro_ops import cli
from faro_ops.advise.sources.history import history_from_prometheus, with_window_bursts
from faro_ops.prometheus import read_prometheus

QUERY = "sum by (service) (increase(http_requests_total[1m]))"
HOURS, STEP_S = 6, 15


def counts_per_min(service: str) -> np.ndarray:
    """Requests per minute of a service."""
    minute = np.arange(HOURS * 60)
    return np.rint({"a": 300, "b": 120}[service] * (1 + 0.5 * np.sin(minute / 60)))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """(address, unix time of the last sample); service b was not scraped for minutes 100 to 110."""
    for program in ("prometheus", "promtool"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not there: on Debian, apt-get install prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    end_s = int(time.time()) // 60 * 60 - 120
    lines = ["# TYPE http_requests counter"]
    for service in ("a", "b"):
        per_step = np.repeat(counts_per_min(service) * STEP_S / 60, 60 // STEP_S)
        for n, total in enumerate(np.cumsum(per_step)):
            at_s = end_s - (len(per_step) - 1 - n) * STEP_S
            if service == "a" or not 100 <= n * STEP_S / 60 < 110:
                # Two replicas, so that the query has something to sum.
                lines += [
                    f'http_requests_total{{service="{service}",pod="{pod}"}} {total / 2} {at_s}'
                    for pod in "xy"
                ]
    (folder / "counters.txt").write_text("\n".join([*lines, "# EOF", ""]))
    (folder / "config.yaml").write_text("scrape_configs: []\n")
    backfill = [
        "promtool",
        "tsdb",
        "create-blocks-from",
        "openmetrics",
        folder / "counters.txt",
        folder / "data",
    ]
    subprocess.run(backfill, check=True, capture_output=True)
    with prometheus_in(folder) as address:
        yield f"http://{address}", float(end_s)


@contextmanager
def prometheus_in(folder):
    """Address of a Prometheus with the config.yaml and the data of this folder."""
    address = f"127.0.0.1:{free_port()}"
    options = [f"--config.file={folder}/config.yaml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("w") as log:
        running = subprocess.Popen(
            ["prometheus", *options, f"--web.listen-address={address}"], stdout=log, stderr=log
        )
    try:
        until_ready(f"http://{address}/-/ready", running)
        yield address
    finally:
        running.terminate()
        running.wait(30)


def until_ready(url, running):
    began = time.monotonic()
    while time.monotonic() - began < 60:
        assert running.poll() is None, "prometheus ended"
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("prometheus is not ready")


@pytest.mark.slow
def test_a_range_query_gives_the_counts_of_every_service(server):
    url, end_s = server
    names, counts = read_prometheus(url, QUERY, minutes=90, end_s=end_s)
    assert names == ("a", "b")
    truth = np.stack([counts_per_min(name)[-90:] for name in names])
    # `increase` extrapolates from its samples to the whole minute.
    assert np.abs(counts / truth - 1).max() < 0.05


@pytest.mark.slow
def test_minutes_without_scrapes_are_missing_and_not_zero(server):
    url, end_s = server
    names, counts = read_prometheus(url, QUERY, minutes=HOURS * 60, end_s=end_s)
    gap = counts[names.index("b"), 102:109]
    assert np.isnan(gap).all()
    assert np.isfinite(counts[names.index("a"), 1:]).all()


@pytest.mark.slow
def test_a_history_fills_gaps_for_training_and_keeps_them_missing_for_decisions(server):
    url, _ = server
    history = history_from_prometheus(url, QUERY, None, hours=HOURS)
    assert history.missing >= 7
    assert (history.traces.evaluation > 0).all()


@pytest.mark.slow
def test_the_recommend_command_accepts_a_range_query(server, capsys):
    url, _ = server
    arguments = [
        "recommend",
        "--prometheus",
        url,
        "--query",
        QUERY,
        "--hours",
        "5",
        "--capacity",
        "8",
        "--json",
    ]
    assert cli.main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    by_job = {row["job"]: row for row in found["jobs"]}
    assert set(by_job) == {"a", "b"}
    assert by_job["a"]["replicas"] >= by_job["b"]["replicas"]
    assert by_job["a"]["forecast_rps"] > by_job["b"]["forecast_rps"]
    assert by_job["a"]["forecast_rps"] == pytest.approx(counts_per_min("a")[-1] / 60, rel=0.3)


@pytest.mark.slow
def test_a_rejected_query_is_one_line_with_its_reason(server):
    url, _ = server
    with pytest.raises(ValueError, match=r"query 'sum\(' was refused: .*parse error") as error:
        read_prometheus(url, "sum(", minutes=5)
    assert "\n" not in str(error.value)


@pytest.fixture
def stub():
    """A server that answers `stub.answer`, which may be (status, body, headers)."""
    one = SimpleNamespace(answer={})

    def answer(_):
        return one.answer if isinstance(one.answer, tuple) else (200, one.answer)

    with serving(answer) as one.server:
        one.url = one.server.url
        yield one


def asked_as(stub):
    """(path, token) of each request."""
    return [(one.path, one.headers.get("Authorization")) for one in stub.server.asked]


def matrix(*labels):
    return {
        "status": "success",
        "data": {"result": [{"metric": one, "values": [[60.0, "5"]]} for one in labels]},
    }


BAD = [
    (matrix(), None, "has no series in the last 5 minutes"),
    (
        matrix({"a": "x", "b": "y"}),
        None,
        "label=None does not name the job; its series have the labels: a, b",
    ),
    (matrix({"a": "x", "b": "y"}), "c", "label='c' does not name the job"),
    (
        matrix({"a": "x", "b": "1"}, {"a": "x", "b": "2"}),
        "a",
        "several series belong to job 'x'; sum by",
    ),
    (b"<html>", None, "not a Prometheus server"),
]


@pytest.mark.parametrize(("answer", "label", "message"), BAD, ids=[case[2][:30] for case in BAD])
def test_a_bad_answer_is_rejected_in_one_line(stub, answer, label, message):
    stub.answer = answer
    with pytest.raises(ValueError) as error:
        read_prometheus(stub.url, "up", minutes=5, label=label, end_s=300)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("cap", "most"), [("MAX_JOBS", 2), ("MAX_COUNTS", 12)])
def test_more_series_than_there_may_be_jobs_are_refused_in_a_line(stub, cap, most, monkeypatch):
    stub.answer = matrix(*({"job": str(n)} for n in range(3)))
    names, _ = read_prometheus(stub.url, "up", minutes=5, end_s=300)
    assert len(names) == 3
    monkeypatch.setattr(limits, cap, most)
    line = rf"{stub.url}: query 'up': 3 jobs with 5 counts each .* {most} .*; sum by \(\.\.\.\)"
    with pytest.raises(ValueError, match=line):
        read_prometheus(stub.url, "up", minutes=5, end_s=300)


def test_a_value_belongs_to_the_minute_that_it_ends(stub):
    stub.answer = matrix({"service": "a"})
    _, counts = read_prometheus(stub.url, "up", minutes=3, end_s=130)
    ends_at_0_60_120_s = [[np.nan, 5, np.nan]]
    np.testing.assert_array_equal(counts, ends_at_0_60_120_s)


def test_windows_of_ten_seconds_fill_minutes(stub):
    stub.answer = matrix({"service": "a"})
    _, counts = read_prometheus(stub.url, "up", minutes=2, end_s=130, step_s=10)
    assert counts.shape == (1, 12)
    assert np.flatnonzero(counts[0] == 5).tolist() == [5], "the window that ends at 60 s"


def test_counts_of_ten_seconds_give_the_dispersion_from_ten_seconds_on():
    jobs = tuple(Job(name) for name in ("bursty", "random", "gaps"))
    rng = np.random.default_rng(1)
    arrival_s = burst_arrivals(np.full(600, 200), (20.0, 1.0, 1.0), rng)
    bursty = np.bincount((arrival_s / 10).astype(int), minlength=3600).astype(float)
    windows = np.stack([bursty, rng.poisson(30.0, 3600), np.full(3600, np.nan)])
    windows[0, 7] = np.nan
    bursty_job, *others = with_window_bursts(jobs, windows)
    assert bursty_job.dispersion == (pytest.approx(20, rel=0.1), 1.0, 1.0)
    assert others == list(jobs[1:])


@pytest.mark.parametrize("text", ["NaN", "+Inf", "-Inf"])
def test_a_count_that_is_not_finite_is_missing(text, stub):
    stub.answer = matrix({"service": "a"})
    stub.answer["data"]["result"][0]["values"] += [[120.0, text]]
    _, counts = read_prometheus(stub.url, "up", minutes=3, end_s=130)
    np.testing.assert_array_equal(counts, [[np.nan, 5, np.nan]])


def test_the_bearer_token_is_read_from_its_file_and_sent(stub, tmp_path):
    (tmp_path / "token").write_text("secret\n")
    stub.answer = matrix({"service": "a"})
    read_prometheus(stub.url, "up", minutes=1, end_s=60, token_path=str(tmp_path / "token"))
    assert asked_as(stub) == [("/api/v1/query_range", "Bearer secret")]
    with pytest.raises(ValueError, match="none: no such file; it must hold a bearer token"):
        read_prometheus(stub.url, "up", minutes=1, token_path="none")


def test_a_redirection_is_reported_and_does_not_get_the_token(stub, tmp_path):
    (tmp_path / "token").write_text("secret\n")
    stub.answer = 302, b"", {"Location": "/elsewhere"}
    with pytest.raises(ConnectionError, match="redirects to /elsewhere; use that address"):
        read_prometheus(stub.url, "up", minutes=1, end_s=60, token_path=str(tmp_path / "token"))
    assert asked_as(stub) == [("/api/v1/query_range", "Bearer secret")]
