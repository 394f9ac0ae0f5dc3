"""RayServeCluster with a server that answers like Ray; observations from the replicas' seconds."""

import socketserver
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from live_things import JOBS, FakeRay, Wanting

from faro_ops.http import HttpClient, Unauthorized
from faro_ops.operate.clock import Clock
from faro_ops.operate.loop.loop import APPLY, OBSERVE, run
from faro_ops.operate.rayserve.authentication import read_token
from faro_ops.operate.rayserve.cluster import RayServeCluster
from faro_ops.operate.rayserve.recent import RecentSeconds
from faro_ops.operate.rayserve.spec import serve_specs
from faro_ops.operate.rayserve.statistics import empty_row, latency_of

ROOT = Path(__file__).parents[2]


def cluster_at(address, clock=None, token=None, timeout_s=2.0) -> RayServeCluster:
    rest = HttpClient(address, token, timeout_s)
    return RayServeCluster(
        JOBS, serve_specs(JOBS), rest, rest, clock or Clock(int(time.time()) - 120)
    )


@pytest.fixture
def ray():
    return FakeRay({"a": 2, "b": 3})


def test_it_observes_replicas_targets_and_the_cores_of_ray(ray):
    with ray.served() as address:
        seen = cluster_at(address).observe()
    assert seen.capacity == 8
    assert seen.target.tolist() == seen.running.tolist() == [2, 3]
    assert not seen.changing.any()
    assert seen.present is None


def test_the_dead_nodes_that_ray_lists_hide_no_live_one(ray):
    answer = ray.answer

    def of_many_nodes(method, path, body):
        if not path.startswith("/api/v0/nodes"):
            return answer(method, path, body)
        dead, live = (
            {"state": state, "resources_total": {"CPU": 4.0}} for state in ("DEAD", "ALIVE")
        )
        limit = int(parse_qs(urlsplit(path).query)["limit"][0])
        return 200, {"data": {"result": {"result": [*[dead] * 1000, live, live][:limit]}}}

    ray.answer = of_many_nodes
    with ray.served() as address:
        assert cluster_at(address).observe().capacity == 8


def test_complete_minutes_have_counts_and_those_of_a_silent_job_are_missing(ray):
    clock = Clock(int(time.time()) - 121)
    ray.hear("a", 2, range(clock.origin_s, clock.origin_s + 120))
    with ray.served() as address:
        cluster = cluster_at(address, clock)
        cluster.advance(120.0)
        seen = cluster.observe()
    assert seen.arrivals_per_min[0].tolist() == [120, 120]
    assert np.isnan(seen.arrivals_per_min[1]).all()
    assert np.isnan(seen.mean_latency_s[1])
    assert seen.mean_latency_s[0] == pytest.approx(0.1)
    assert seen.tail_latency_s[0] == pytest.approx(0.1, rel=0.03)


def test_downscales_come_first_and_jobs_at_their_target_are_left_alone(ray):
    with ray.served() as address:
        cluster = cluster_at(address)
        cluster.observe()
        cluster.apply(np.array([4, 1]), np.zeros(2))
        cluster.apply(np.array([4, 1]), np.array([0.3, 0.0]))
    assert ray.scaled == [("b", 1), ("a", 4)]
    assert ray.stats.report("a", "a#1", 0, {}).accept == pytest.approx(0.7)


def test_a_failed_call_does_not_prevent_the_others(ray):
    with ray.served() as address:
        cluster = cluster_at(address)
        cluster.observe()
        del ray.targets["b"]
        with pytest.raises(OSError, match="404"):
            cluster.apply(np.array([4, 1]), np.zeros(2))
    assert ray.scaled == [("a", 4)]


def test_no_job_grows_into_cores_that_another_has_not_given_up(ray):
    ray.cpus = 5.0
    with ray.served() as address:
        cluster = cluster_at(address)
        cluster.observe()
        del ray.targets["b"]
        with pytest.raises(OSError, match="404"):
            cluster.apply(np.array([4, 1]), np.zeros(2))
    assert ray.scaled == []


def test_no_call_is_made_once_another_controller_may_act(ray):
    with ray.served() as address:
        cluster = cluster_at(address)
        cluster.observe()
        answers = iter([True, False, False])
        with pytest.raises(OSError, match="another controller may act now"):
            cluster.apply(np.array([4, 1]), np.array([0.5, 0.5]), may_act=lambda: next(answers))
    assert ray.scaled == [("b", 1)]
    assert ray.stats.report("a", "a#1", 0, {}).accept is None


def test_a_deleted_application_is_absent_and_is_not_scaled(ray):
    del ray.targets["b"]
    with ray.served() as address:
        cluster = cluster_at(address)
        seen = cluster.observe()
        cluster.apply(np.array([2, 1]), np.zeros(2))
    assert seen.present.tolist() == [True, False]
    assert ray.scaled == []


def test_an_application_that_ray_deploys_again_is_not_removed(ray):
    with ray.served() as address:
        cluster = cluster_at(address)
        cluster.observe()
        replicas = ray.targets.pop("b")
        seen = cluster.observe()
        cluster.apply(np.array([2, 1]), np.zeros(2))
        ray.targets["b"] = replicas
        after = cluster.observe()
    assert seen.present is None
    assert seen.target.tolist() == after.target.tolist() == [2, 3]
    assert ray.scaled == [], "Ray would answer 404"


def test_an_application_that_stays_unlisted_is_removed(ray, monkeypatch):
    monkeypatch.setattr("faro_ops.operate.rayserve.cluster.REDEPLOY_S", 0.0)
    with ray.served() as address:
        cluster = cluster_at(address)
        cluster.observe()
        del ray.targets["b"]
        assert cluster.observe().present.tolist() == [True, False]


def test_an_application_whose_redeployment_has_failed_keeps_its_target(ray, monkeypatch):
    with ray.served() as address:
        cluster = cluster_at(address)
        cluster.observe()
        ray.failed.add("b")
        cluster.observe()
        later_s = time.monotonic() + 60
        monkeypatch.setattr("faro_ops.operate.rayserve.cluster.time.monotonic", lambda: later_s)
        seen = cluster.observe()
    assert seen.present is None
    assert seen.target.tolist() == [2, 3]


def test_an_application_that_ray_deletes_is_removed_at_once(ray):
    with ray.served() as address:
        cluster = cluster_at(address)
        cluster.observe()
        ray.deleting.add("b")
        assert cluster.observe().present.tolist() == [True, False]
        del ray.targets["b"]
        assert cluster.observe().present.tolist() == [True, False]


def test_without_the_stats_endpoint_replicas_are_known_and_their_data_is_missing(ray):
    ray.window_status = 500
    with ray.served() as address:
        cluster = cluster_at(address)
        cluster.advance(60.0)
        seen = cluster.observe()
    assert seen.target.tolist() == [2, 3]
    assert np.isnan(seen.arrivals_per_min).all()
    assert np.isnan(seen.ongoing).all()


def test_a_restart_of_the_stats_aggregator_loses_no_history_of_the_controller(ray):
    clock = Clock(int(time.time()) - 121)
    ray.hear("a", 2, range(clock.origin_s, clock.origin_s + 120))
    with ray.served() as address:
        cluster = cluster_at(address, clock)
        cluster.advance(120.0)
        before = cluster.observe()
        ray.stats.__init__()
        after = cluster.observe()
    np.testing.assert_array_equal(after.arrivals_per_min, before.arrivals_per_min)


@pytest.mark.parametrize(
    ("given", "message"),
    [(None, "requires a token and none was given"), ("other", "token is wrong")],
)
def test_a_wrong_or_missing_token_is_refused_with_the_variable_to_set(given, message):
    ray = FakeRay({"a": 1, "b": 1}, token="right")
    with ray.served() as address:
        cluster_at(address, token="right").connect()
        with pytest.raises(Unauthorized, match=f"{message}.*RAY_AUTH_TOKEN"):
            cluster_at(address, token=given).connect()


def test_ongoing_requests_are_missing_and_not_zero_without_a_heartbeat(ray, monkeypatch):
    ray.hear("a", 2, [int(time.time()) - 1])
    with ray.served() as address:
        assert cluster_at(address).observe().ongoing[0] == 0
        later_s = time.time() + 60
        monkeypatch.setattr("faro_ops.operate.rayserve.statistics.time.time", lambda: later_s)
        assert np.isnan(cluster_at(address, Clock(int(later_s) - 120)).observe().ongoing[0])


def test_replicas_about_to_stop_are_not_counted_as_starting(ray):
    application = ray.application

    def shrinking(name):
        state = application(name)
        state["deployments"]["replica"]["target_num_replicas"] -= 1
        return state

    ray.application = shrinking
    with ray.served() as address:
        seen = cluster_at(address).observe()
    assert (seen.target.tolist(), seen.running.tolist(), seen.starting.tolist()) == (
        [1, 2],
        [2, 3],
        [0, 0],
    )


@contextmanager
def raw(answer: bytes):
    """A server that sends these bytes to whoever comes; what it was sent."""
    heard: list[bytes] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            heard.append(self.request.recv(65536))
            self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", heard
        finally:
            server.shutdown()


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{", b"nonsense\r\n\r\n", b""]
)
def test_a_truncated_answer_is_an_error_like_any_other(answer):
    with raw(answer) as (address, _), pytest.raises(OSError, match=address):
        HttpClient(address).get("/x")


def test_a_page_of_another_server_is_not_taken_for_ray():
    with (
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>") as (address, _),
        pytest.raises(ValueError, match="answered, but not by Ray Serve") as error,
    ):
        cluster_at(address).connect()
    assert "\n" not in str(error.value)


def test_a_token_does_not_follow_a_redirection():
    with raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}") as (elsewhere, heard):
        moved = (
            f"HTTP/1.1 302 Found\r\nLocation: {elsewhere}/x\r\nContent-Length: 0\r\n\r\n".encode()
        )
        with raw(moved) as (address, _), pytest.raises(OSError, match="status 302"):
            HttpClient(address, "secret").get("/x")
    assert heard == []


def test_no_proxy_is_used_for_this_machine(ray):
    with ray.served() as address:
        code = "from faro_ops.http import HttpClient\n"
        code += f"print(len(HttpClient({address!r}).get('/api/serve/applications/')))"
        proxied = {"http_proxy": "http://127.0.0.1:9", "PATH": "", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", code], env=proxied, capture_output=True, text=True, timeout=60
        )
    assert done.stdout == "1\n", done.stderr


def test_a_server_that_does_not_answer_is_one_line():
    with pytest.raises(ValueError, match=r"no Ray Serve at http://127.0.0.1:9 .*") as error:
        cluster_at("http://127.0.0.1:9").connect()
    assert "\n" not in str(error.value)


def test_the_token_comes_from_the_environment_or_the_file_that_it_names(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    assert read_token() is None
    (tmp_path / "token").write_text("in the file\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    assert read_token() == "in the file"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "in the variable")
    assert read_token() == "in the variable"
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"RAY_AUTH_TOKEN_PATH=.*no such file"):
        read_token()


class Fault:
    """Something goes wrong between two ticks of the loop, and mends between two others."""

    def __init__(self, ray, breaks, mends, field, value):
        self.ray, self.at = ray, {breaks: (field, value), mends: (field, getattr(ray, field))}
        self.ticks = 0

    def __call__(self, *_):
        self.ticks += 1
        if self.ticks in self.at:
            setattr(self.ray, *self.at[self.ticks])


@pytest.mark.parametrize(
    ("field", "value"), [("status", 500), ("hang_s", 0.4), ("window_status", 503)]
)
def test_the_loop_survives_a_server_that_fails_or_hangs_and_restores_the_targets(
    ray, field, value, monkeypatch
):
    monkeypatch.setattr("faro_ops.operate.rayserve.cluster.LAG_S", 0.02)
    clock = Clock(int(time.time()), scale=30.0)
    failures, steps = [], []
    fault = Fault(ray, 2, 6, field, value)

    def on_step(step):
        steps.append(step)
        fault()
        if len(steps) == 6:
            ray.targets["a"] = 1  # somebody else meddles while it was away
        restored = ray.targets == {"a": 3, "b": 4}
        if (restored and len(steps) >= 10) or len(steps) == 200:
            clock.stop.set()

    with ray.served() as address:
        cluster = cluster_at(address, clock, timeout_s=0.2)
        policy = Wanting([3, 4])
        run(
            cluster,
            policy,
            JOBS,
            clock=clock,
            on_step=on_step,
            on_failure=lambda reason, text: failures.append(reason),
        )
    assert ray.targets == {"a": 3, "b": 4}
    assert all(step.target.tolist() == [3, 4] for step in steps)
    assert {OBSERVE, APPLY} & set(failures)


def minute_of_which_a_tenth(was):
    """Statistics of 600 requests in the minute from 1000 s on: nine tenths served, a tenth not."""
    row = empty_row() | {
        "arrivals": 10,
        "done": 9,
        was: 1,
        "latency_s": 0.9,
        "buckets": {"100": 9},
    }
    return dict.fromkeys(range(1000, 1060), row)


@pytest.mark.parametrize(
    ("was", "field"),
    [
        ("failed", "failed_per_min"),
        ("cancelled", "cancelled_per_min"),
        ("dropped", "refused_per_min"),
    ],
)
def test_requests_that_are_not_served_violate_the_slo_and_have_no_latency(was, field):
    recent = RecentSeconds(("a",), Clock(1000))
    recent.add("a", minute_of_which_a_tenth(was))
    ended = {name: counts.tolist() for name, counts in recent.ended_per_min(1).items()}
    none = {"failed_per_min": [0], "cancelled_per_min": [0], "refused_per_min": [0]}
    assert ended == {"served_per_min": [540]} | none | {field: [60]}
    p99 = np.array([0.99])
    assert np.isinf(recent.tail_latency_s(1, p99))
    assert recent.served_tail_latency_s(1, p99) == pytest.approx(latency_of(100))


def test_a_job_whose_requests_all_fail_does_not_look_idle():
    recent = RecentSeconds(("a",), Clock(1000))
    recent.add(
        "a",
        {second: empty_row() | {"arrivals": 1, "failed": 1} for second in range(1000, 1060)},
    )
    assert np.isnan(recent.mean_latency_s(60.0)).all()


def test_a_minute_with_few_unknown_seconds_is_scaled_up_and_with_many_is_missing():
    recent = RecentSeconds(("a",), Clock(1000))
    row = empty_row() | {"arrivals": 1}
    recent.add("a", dict.fromkeys(range(1000, 1050), row))
    assert recent.arrivals_per_min(1).tolist() == [[60]]
    recent = RecentSeconds(("a",), Clock(1000))
    recent.add("a", dict.fromkeys(range(1000, 1030), row))
    assert np.isnan(recent.arrivals_per_min(1)).all()


def test_a_minute_is_summed_once_for_all_its_statistics(monkeypatch):
    summed = []
    totals = RecentSeconds.totals

    def counting(recent, first, last):
        summed.append(first)
        return totals(recent, first, last)

    monkeypatch.setattr(RecentSeconds, "totals", counting)
    recent = RecentSeconds(("a",), Clock(1000))
    recent.add("a", minute_of_which_a_tenth(was="failed"))
    quantile = np.array([0.99])
    for _ in range(2):
        recent.arrivals_per_min(1)
        recent.ended_per_min(1)
        recent.served_tail_latency_s(1, quantile)
        recent.tail_latency_s(1, quantile)
        recent.token_latencies_s(1, quantile)
        recent.goodput_rps(1, np.array([0.7]))
    assert summed == [1000]


def test_a_minute_is_summed_again_after_a_late_report():
    recent = RecentSeconds(("a",), Clock(1000))
    row = empty_row() | {"arrivals": 1}
    recent.add("a", dict.fromkeys(range(1000, 1060), row))
    assert recent.arrivals_per_min(1).tolist() == [[60]]
    recent.add("a", {1030: empty_row() | {"arrivals": 41}})
    assert recent.arrivals_per_min(1).tolist() == [[100]]


@pytest.mark.parametrize(("known", "count"), [(0, np.nan), (10, np.nan), (18, 20.0), (20, 20.0)])
def test_an_incomplete_minute_is_unknown_if_too_many_of_its_seconds_are(known, count):
    recent = RecentSeconds(("a",), Clock(1000))
    recent.add("a", {second: empty_row() | {"arrivals": 1} for second in range(1000, 1000 + known)})
    assert recent.arrivals_now(0, 20.0) == pytest.approx([count], nan_ok=True)


def test_drop_rates_are_not_taken_for_zero_while_the_replicas_statistics_do_not_answer(ray):
    with ray.served() as address:
        cluster = cluster_at(address)
        cluster.observe()
        for job in ("a", "b"):
            ray.hear(job, 1, [int(time.time())])
        cluster.apply(np.array([2, 3]), np.array([0.3, 0.0]))
        assert cluster.observe().drop.tolist() == [0.3, 0.0]
        ray.window_status = 503
        assert cluster.observe().drop.tolist() == [0.3, 0.0]


def test_trace_time_is_scaled_wall_time():
    recent = RecentSeconds(("a",), Clock(1000, scale=2.0))
    ended = empty_row() | {"arrivals": 1, "done": 1, "latency_s": 0.25, "buckets": {"128": 1}}
    recent.add("a", dict.fromkeys(range(1000, 1030), ended))
    assert recent.arrivals_per_min(1).tolist() == [[30]]
    assert recent.mean_latency_s(60.0).tolist() == [0.5]
    assert recent.tail_latency_s(1, np.array([0.99]))[0] == pytest.approx(0.512, rel=0.03)
    with pytest.raises(ValueError, match=r"scale=7\.0 must divide 60"):
        Clock(0, scale=7.0)


def test_dropped_requests_that_reach_into_the_quantile_make_it_infinite():
    recent = RecentSeconds(("a",), Clock(1000))
    recent.add("a", minute_of_which_a_tenth(was="dropped"))
    assert np.isinf(recent.tail_latency_s(1, np.array([0.99])))
    assert np.isfinite(recent.tail_latency_s(1, np.array([0.5])))
