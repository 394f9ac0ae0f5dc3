"""The load generator against a small server, and a run's requests against the simulator's."""

import asyncio
import threading
from contextlib import nullcontext
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from checkouts import ROOT
from waiting import PATIENCE_S

from faro_lib.control import PolicyFailed
from faro_lib.metrics.measures import summarize
from faro_lib.policies.baselines import AIAD, FairShare
from faro_lib.simulate.run import Decisions
from faro_lib.workload import Job, Workload
from faro_lib.workload.readers import read_jobs
from faro_lib.workload.replicas import Concurrent
from faro_lib.workload.synthetic import synthetic
from faro_ops.advise.calibrate import FIRST_TOKEN, LATENCY, PER_TOKEN
from faro_ops.advise.profile.load_generator import (
    DROPPED,
    FAILED,
    SERVED,
    UNSENT,
    Script,
    Sent,
    send,
)
from faro_ops.advise.profile.load_profile import offer_load
from faro_ops.advise.profile.profile import Profile, moments, profile_job, write_profiles
from faro_ops.jobs_table import read_sections
from faro_ops.operate.rayserve.running_job import RunningJob
from faro_ops.operate.rayserve.spec import EMULATED, serve_specs
from faro_ops.operate.rayserve.statistics import empty_row
from studies.live.agreement import lost_utility_error, pairs, published_distance, ranking_distance
from studies.live.generator import Generator
from studies.live.live_slice import (
    Slice,
    limit_rate,
    matched_simulation,
    part_of,
    run_of,
    script_of,
)

RELEASED = threading.Event()


class Answers(BaseHTTPRequestHandler):
    """/status/503 answers 503, /slow after 0.2 s, anything else at once with 200.

    /held answers 200 once /release has been asked for. The parts of an answer are 0.5 s apart for
    /stream, which has two, and 0.02 s for /tokens, which has five.
    """

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/release":
            RELEASED.set()
        if self.path == "/held" and not RELEASED.wait(PATIENCE_S):
            self.path = "/status/500"
        if self.path == "/slow":
            threading.Event().wait(0.2)
        if self.path == "/stream":
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"a")
            self.wfile.flush()
            threading.Event().wait(0.5)
            self.wfile.write(b"b")
            return
        if self.path == "/tokens":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in (*[b"1\r\na\r\n"] * 5, b"0\r\n\r\n"):
                self.wfile.write(part)
                threading.Event().wait(0.02)
            return
        self.send_response(
            int(self.path.rsplit("/", 1)[1]) if self.path.startswith("/status/") else 200
        )
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def script(address, *paths, due_s=None):
    n = len(paths)
    due_s = np.zeros(n) if due_s is None else np.array(due_s)
    return Script(tuple(address + path for path in paths), due_s, np.arange(n), np.full(n, np.nan))


def sending(one, **options):
    import time

    return asyncio.run(send(one, time.time() + 0.05, **options))


def test_every_request_counts_as_served_dropped_or_failed(address):
    sent = sending(script(address, "/", "/status/503", "/status/500", "/"))
    assert sent.outcome.tolist() == [SERVED, DROPPED, FAILED, SERVED]
    assert np.isfinite(sent.latency_s).tolist() == [True, False, False, True]


def test_a_server_that_is_down_is_a_failed_request_and_not_an_error():
    assert sending(script("http://127.0.0.1:9", "/")).outcome.tolist() == [FAILED]


def test_a_slow_answer_does_not_delay_the_next_request(address):
    RELEASED.clear()
    sent = sending(script(address, "/held", "/release", due_s=[0.0, 0.05]))
    assert sent.outcome.tolist() == [SERVED, SERVED]


def test_latency_counts_from_the_time_at_which_the_request_was_due(address):
    import time

    sent = asyncio.run(send(script(address, "/"), time.time() - 1.0))
    assert sent.latency_s[0] > 1.0
    assert sent.send_lag_s[0] > 0.99


def test_requests_beyond_the_bound_in_flight_are_recorded_as_unsent(address):
    sent = sending(script(address, "/slow", "/slow", "/slow"), in_flight=2)
    assert sorted(sent.outcome.tolist()) == [SERVED, SERVED, UNSENT]


def test_a_load_above_the_bound_is_refused_before_anything_is_sent(address):
    many = Script((address,), np.zeros(100), np.zeros(100, int), np.full(100, np.nan))
    with pytest.raises(ValueError, match="above the bound of 5"):
        sending(many, max_rps=5)


@pytest.mark.parametrize("host", ["192.0.2.1", "127.0.0.1.example.org", "localhost.example.org"])
def test_only_loopback_is_loaded_by_default(host):
    with pytest.raises(ValueError, match="only loopback"):
        Generator(script(f"http://{host}", "/"), 0.0)


def test_the_time_to_the_first_part_of_a_streamed_answer_is_measured(address):
    streamed = offer_load(f"{address}/stream", 20.0, 1.0, np.random.default_rng(1))[1]
    whole = offer_load(f"{address}/slow", 20.0, 1.0, np.random.default_rng(1))[1]
    assert np.all(streamed[LATENCY] > 0.5)
    assert np.all(streamed[FIRST_TOKEN] < streamed[LATENCY])
    assert FIRST_TOKEN not in whole  # the answer comes in one part


def test_the_time_per_token_is_measured_if_a_streamed_answer_has_a_part_for_each_token(address):
    rng = np.random.default_rng(1)
    of_tokens = offer_load(f"{address}/tokens", 20.0, 1.0, rng, output_tokens=5.0)[1]
    after_first_s = of_tokens[LATENCY] - of_tokens[FIRST_TOKEN]
    np.testing.assert_allclose(of_tokens[PER_TOKEN], after_first_s / 4)
    for path, tokens in (
        ("tokens", 20.0),
        ("tokens", 0.0),
        ("slow", 5.0),
    ):  # several tokens a part; unknown; one part
        assert (
            PER_TOKEN
            not in offer_load(f"{address}/{path}", 20.0, 1.0, rng, output_tokens=tokens)[1]
        )


def test_the_generator_runs_in_its_own_process(address):
    import time

    generator = Generator(script(address, "/", "/status/503"), time.time() + 1.0)
    try:
        sent = generator.result(timeout_s=60)
    finally:
        generator.stop()
    assert sent.outcome.tolist() == [SERVED, DROPPED]


@pytest.fixture(scope="module")
def one():
    traces = synthetic(seed=1, jobs=3, days=2)
    return Slice(traces.workload().between(0, 8), 8, 2.0, 60.0, 10)


def test_the_requests_sent_are_those_that_the_simulator_serves(one):
    draws = one.draws(24)
    script, order = script_of(one, draws, ["a", "b", "c"])
    assert len(script.due_s) == len(draws.arrival_s)
    assert (np.diff(script.due_s) >= 0).all()
    np.testing.assert_allclose(script.due_s * one.scale, draws.arrival_s[order])
    np.testing.assert_allclose(script.service_s * one.scale, draws.service_s[order])
    assert np.bincount(script.job).tolist() == np.diff(draws.first).tolist()


def test_a_live_run_is_evaluated_as_a_simulated_one(one):
    draws = one.draws(24)
    _, order = script_of(one, draws, ["a", "b", "c"])
    n = len(order)
    outcome = np.full(n, SERVED, np.int8)
    outcome[::10] = DROPPED
    sent = Sent(outcome, np.full(n, 0.2), np.zeros(n), np.full(n, 0.2), np.ones(n, int))
    run = run_of(one, draws, order, sent, Decisions(), 1.0)
    summary = summarize(run)
    assert summary["requests"] == n
    assert summary["drop_rate"] == pytest.approx((outcome == DROPPED).mean())
    assert run.slo_missed.sum() == 0  # 0.2 s of wall time are 0.4 s of the trace
    late = run_of(one, draws, order, replace(sent, latency_s=np.full(n, 0.4)), Decisions(), 1.0)
    assert late.slo_missed.sum() == n - (outcome == DROPPED).sum()


def test_the_matched_simulation_begins_with_a_fair_share_under_every_policy(one):
    assert one.initial.tolist() == [2, 2, 2]
    for policy in (FairShare(), AIAD()):
        run = matched_simulation(one, policy, 24)
        assert run.initial.tolist() == [2, 2, 2]
        assert set(np.diff([0.0, *run.decisions.time_s])) == {60.0}


def test_a_policy_that_raises_fails_the_matched_simulation(one):
    class Failing(AIAD):
        def decide(self, state, observation):
            raise ArithmeticError("no solution")

    with pytest.raises(PolicyFailed, match=r"'AIAD' failed at 60 s.*no solution"):
        matched_simulation(one, Failing(), 24)


def test_no_decision_of_the_matched_simulation_exceeds_the_rate_limit(one):
    run = matched_simulation(one, AIAD(), 24)
    targets = np.vstack([run.initial, *run.decisions.target])
    assert np.maximum(np.diff(targets, axis=0), 0).sum(axis=1).max() <= 6


def test_ticks_too_close_in_wall_time_are_refused(one):
    with pytest.raises(ValueError, match="at least 30 s apart"):
        replace(one, tick_s=10.0)


def test_part_of_the_traces_begins_every_day_at_the_same_minute():
    traces = synthetic(seed=1, jobs=4, days=3)
    part = part_of(traces, [2, 0], 100)
    assert [job.name for job in part.jobs] == ["job2", "job0"]
    np.testing.assert_array_equal(part.evaluation[0, 0], traces.evaluation[0, 2, 100:])
    assert part.days == 2
    np.testing.assert_array_equal(part.train[0, 1, 1, :10], traces.train[0, 1, 0, 100:110])
    np.testing.assert_array_equal(part.train[0, 1, 1, -100:], traces.train[1, 1, 0, :100])
    whole = part_of(traces, [1], 0)
    np.testing.assert_array_equal(whole.train[:, :, 0], traces.train[:, :, 1])


def test_a_slice_above_the_rate_bound_is_thinned_and_reports_the_share_kept():
    workload = Workload((Job("a"),), np.array([[6000, 3000]]))
    less, share = limit_rate(workload, 2.0, 100.0)
    assert share == 0.5
    assert less.requests_per_min.tolist() == [[3000, 1500]]
    assert limit_rate(workload, 1.0, 100.0)[1] == 1.0


def summary_of(**violations):
    """A policy's violations by trial: first live, then in simulation."""
    rows = []
    for policy, (live, simulation) in violations.items():
        for environment, values in (("live", live), ("simulation", simulation)):
            for trial, value in enumerate(values):
                row = {"environment": environment, "policy": policy, "trial": trial}
                rows.append(row | {"slo_violation_rate": value, "lost_utility": 10 * value})
    return pd.DataFrame(rows)


def test_a_single_policy_has_no_pair_to_compare():
    from studies.live import figures as draw

    alone = summary_of(A=([0.1, 0.11, 0.1], [0.1, 0.1, 0.11]))
    assert len(pairs(alone)) == 0
    assert ranking_distance(alone) == 0
    more = dict.fromkeys(("failed", "unsent", "noisy_host", "background_cpu", "niced_cpu"), 0) | {
        "requests": 10
    }
    assert "no ranking is claimed" in draw.live_caption(
        alone.assign(lost_utility=0.5, scale=2.0, **more)
    )


def test_a_pair_is_decided_only_if_both_environments_are_certain():
    steady, noisy = [0.1, 0.11, 0.1], [0.1, 0.4, 0.0]
    table = pairs(
        summary_of(A=(steady, steady), B=([0.3, 0.31, 0.3], [0.3, 0.32, 0.3]), C=(noisy, noisy))
    )
    decided = {(row.policy, row.other): row.decided for row in table.itertuples()}
    assert decided[("A", "B")]
    assert not decided[("A", "C")]


def test_the_ranking_distance_is_0_for_the_same_order_and_1_for_the_reverse():
    same = summary_of(A=([0.1], [0.2]), B=([0.2], [0.3]), C=([0.3], [0.4]))
    reverse = summary_of(A=([0.1], [0.4]), B=([0.2], [0.3]), C=([0.3], [0.2]))
    one_pair = summary_of(A=([0.1], [0.3]), B=([0.2], [0.2]), C=([0.3], [0.4]))
    assert ranking_distance(same) == 0
    assert ranking_distance(reverse) == 1
    assert ranking_distance(one_pair) == pytest.approx(1 / 3)
    assert lost_utility_error(same)["error"].tolist() == pytest.approx([1.0, 1.0, 1.0])


def test_the_papers_ranking_distance_needs_three_policies_that_the_paper_has():
    assert (
        published_distance(ROOT / "data/published", ["AIAD", "MArk", "FairShare", "Oneshot"]) == 0.0
    )
    assert published_distance(ROOT / "data/published", ["AIAD", "MArk", "HPA", "RayServe"]) is None
    assert published_distance(None, ["AIAD", "MArk", "FairShare"]) is None


def test_moments_are_those_of_the_sample():
    times = np.random.default_rng(1).gamma(4.0, 0.05, 500)
    mean, scv = moments({"done": 500, "service_s": times.sum(), "service_s2": (times**2).sum()})
    assert mean == pytest.approx(times.mean())
    assert scv == pytest.approx(times.var() / times.mean() ** 2)
    with pytest.raises(ValueError, match="nothing to profile"):
        moments({"done": 0})


def profiled(monkeypatch, outcome, first_s, last_s, **of_replicas):
    """What `profile_job` measures if every request is answered, and replicas report, like this."""

    async def send(script, origin_s):
        one = np.ones(1)
        return Sent(np.array([outcome]), last_s * one, one, first_s * one, np.ones(1, int))

    row = empty_row() | {"arrivals": 10, "done": 10} | of_replicas
    http = SimpleNamespace(
        address="http://127.0.0.1", get=lambda *_: {"a": {"seconds": {"1": row}}}
    )
    monkeypatch.setattr("faro_ops.advise.profile.profile.send", send)
    monkeypatch.setattr(
        "faro_ops.advise.profile.profile.time",
        SimpleNamespace(time=lambda: 0.5, sleep=lambda _: None),
    )
    monkeypatch.setattr(RunningJob, "more_replicas", lambda *_: nullcontext((2, 6.0)))
    service = RunningJob(None, http, "a", serve_specs((Job("a"),))[0])
    return profile_job(service, requests=10)


def test_a_service_that_refuses_every_request_has_no_service_time(monkeypatch):
    with pytest.raises(ValueError, match=r"^no request was served"):
        profiled(
            monkeypatch, FAILED, np.nan, np.nan, service_s=0.01, service_s2=1e-5, latency_s=0.01
        )


def test_a_streamed_answer_is_served_until_its_last_part_and_the_network_delays_its_first(
    monkeypatch,
):
    one = profiled(monkeypatch, SERVED, 0.13, 0.63, service_s=1.0, service_s2=0.1, latency_s=1.2)
    assert one.network_overhead_s == pytest.approx(0.01)
    assert one.service_time_s == pytest.approx(0.6)


def test_a_profile_is_written_into_the_table_and_the_rest_stays_the_same(tmp_path):
    path = tmp_path / "jobs.yaml"
    path.write_text("jobs:\n- job: a\n  slo_s: 0.5\n  serve: {max_ongoing_requests: 4}\n- job: b\n")
    write_profiles(path, {"a": Profile(0.0812345, 0.2, 0.003, 100, cold_start_s=6.789)})
    a, b = read_jobs(path)
    assert (a.service_time_s, a.service_scv, a.cold_start_s, a.slo_s) == (0.08123, 0.2, 6.8, 0.5)
    # 100 requests whose times have a coefficient of variation of 0.45
    assert a.service_time_error == pytest.approx(0.045, abs=5e-4)
    assert b == Job("b")
    assert read_sections(path, "serve") == {"a": {"max_ongoing_requests": 4}, "b": {}}


class TestServeSpecs:
    def test_defaults_are_named_after_the_job_and_take_the_service_time_of_its_model(self):
        one, other = serve_specs((Job("a"), Job("a again 1")), scale=2.0)
        assert (one.application, one.route, other.route) == ("a", "/a", "/a-again-1")
        assert one.import_path == EMULATED
        assert one.args["mean_s"] == pytest.approx(0.154 / 2, rel=0.01)

    @pytest.mark.parametrize(
        ("section", "message"),
        [
            (
                {"max_ongoing": 3},
                "unknown key 'serve.max_ongoing'; did you mean 'max_ongoing_requests'?",
            ),
            ({"max_ongoing_requests": 0}, "max_ongoing_requests=0 must be a whole number >= 1"),
            ({"route": "no"}, "route='no' must be a slash and a name of 1 to 100 letters, digits"),
            ({"import_path": "module"}, "must read package.module:Class"),
        ],
    )
    def test_an_invalid_section_is_one_line(self, section, message):
        with pytest.raises(ValueError) as error:
            serve_specs((Job("a"),), {"a": section})
        assert message in str(error.value)

    def test_a_slowdown_that_is_an_error_of_the_calibration_is_emulated(self):
        (spec,) = serve_specs((Job("a", replica=Concurrent(3, 0.0005)),))
        assert (spec.import_path, spec.concurrency) == (EMULATED, 3)

    def test_two_jobs_with_one_route_are_refused(self):
        with pytest.raises(ValueError, match="belongs to two jobs"):
            serve_specs((Job("a"), Job("b")), {"b": {"route": "/a"}})


def test_nothing_private_of_ray_is_used_and_nothing_in_it_is_patched():
    from pathlib import Path

    live = Path(__file__).parents[2] / "faro_ops" / "operate" / "rayserve"
    texts = {path.name: path.read_text() for path in live.glob("*.py")}
    assert len(texts) > 10
    for name, text in texts.items():
        assert "_private" not in text, name
        assert "setattr(" not in text, name
        assert "monkeypatch" not in text, name
