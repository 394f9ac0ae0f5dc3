"""`kube` with a faulty API server and a faulty Prometheus.

Back-off, rotated credentials, expired watches, missing data.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from k8s_world import MARKED
from waiting import PATIENCE_S, until

from faro_ops.operate.kube.client import Api, ApiError, connect
from faro_ops.operate.kube.deployment_metrics import DeploymentMetrics, Queries
from faro_ops.operate.kube.informer import Informer


class Fake(ThreadingHTTPServer):
    """Answers with what `answer(method, path, query, headers)` returns.

    That is (status, object, headers), or the lines of a stream.
    """

    daemon_threads = True

    def __init__(self, answer):
        self.answer, self.asked = answer, []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        form = (
            body
            if self.headers.get("Content-Type") == "application/x-www-form-urlencoded"
            else parts.query
        )
        query = {key: values[0] for key, values in parse_qs(form).items()}
        self.server.asked.append((self.command, parts.path, query))
        status, thing, *headers = self.server.answer(self.command, parts.path, query, self.headers)
        self.send_response(status)
        for name, value in (headers[0] if headers else {}).items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        for line in thing if isinstance(thing, list) else [thing]:
            self.wfile.write(json.dumps(line).encode() + b"\n")

    do_POST = do_PUT = do_PATCH = do_GET


@contextmanager
def serving(answer):
    server = Fake(answer)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def api_at(server, token=lambda: "t", **options) -> Api:
    def load():
        from kubernetes.client import Configuration

        configuration = Configuration(host=server.url)
        configuration.api_key = {"BearerToken": f"Bearer {token()}"}
        return configuration

    return Api(load, "jobs", **options)


def failing(times, status, **headers):
    """An answer that fails so often, and then is well."""
    left = [times]

    def answer(*_):
        left[0] -= 1
        if left[0] >= 0:
            return status, {"message": "not now"}, headers
        return 200, {"kind": "fine"}

    return answer


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("method", ["GET", "PATCH", "POST"])
def test_a_busy_server_is_retried(status, method):
    with serving(failing(2, status)) as server:
        assert api_at(server).send(method, "/x", {} if method != "GET" else None) == {
            "kind": "fine"
        }
        assert len(server.asked) == 3


def test_a_retry_after_header_is_honoured():
    with serving(failing(1, 429, **{"Retry-After": "1"})) as server:
        began = time.monotonic()
        api_at(server).get("/x")
        assert time.monotonic() - began >= 1


def test_a_server_that_stays_busy_is_one_line():
    with (
        serving(failing(100, 503)) as server,
        pytest.raises(ApiError, match="GET /x: 503 not now") as raised,
    ):
        api_at(server, retries=2).get("/x")
    assert raised.value.status == 503


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422])
def test_a_refusal_is_not_retried(status):
    with serving(failing(1, status)) as server:
        with pytest.raises(ApiError, match=str(status)):
            api_at(server).get("/x")
        assert len(server.asked) == 1


def test_a_server_that_does_not_answer_is_one_line():
    with serving(failing(0, 200)) as server:
        api = api_at(server, retries=1)
    with pytest.raises(ApiError, match="cannot be reached") as raised:
        api.get("/x")
    assert raised.value.status == 0


def test_a_token_that_has_rotated_is_read_again_without_a_restart():
    valid = ["old"]

    def answer(method, path, query, headers):
        return (
            (200, {})
            if headers["authorization"] == f"Bearer {valid[0]}"
            else (401, {"message": "Unauthorized"})
        )

    with serving(answer) as server:
        api = api_at(server, token=lambda: valid[0])
        api.get("/x")
        valid[0] = "new"
        api.get("/x")
        assert len(server.asked) == 3


def test_no_error_contains_the_token():
    def answer(method, path, query, headers):
        return 403, {"message": f"you are {headers['authorization'][:0]}nobody"}

    with serving(answer) as server, pytest.raises(ApiError) as raised:
        api_at(server, token=lambda: "s3cret").get("/x")
    assert "s3cret" not in repr(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "kubeconfig"), ("", "kubeconfig"), ("apiVersion: v1\nkind: Config\n", "kubeconfig")],
)
def test_a_broken_kubeconfig_is_one_line(tmp_path, text, message):
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as raised:
        connect(str(path))
    assert "\n" not in str(raised.value)


def thing(name, version, **more):
    return {"metadata": {"name": name, "resourceVersion": version}, **more}


def test_an_informer_relists_when_its_resource_version_has_expired():
    lists = [[thing("a", "1")], [thing("b", "9")]]

    def answer(method, path, query, headers):
        if "watch" not in query:
            found = lists.pop(0) if len(lists) > 1 else lists[0]
            return 200, {"items": found, "metadata": {"resourceVersion": "1"}}
        gone = {"type": "ERROR", "object": {"code": 410, "message": "too old resource version"}}
        return 200, [{"type": "ADDED", "object": thing("c", "2")}, gone]

    with serving(answer) as server:
        informer = Informer(api_at(server), "/things").start()
        informer.wait(PATIENCE_S)
        until(lambda: {one["metadata"]["name"] for one in informer.items()} == {"b", "c"})
        informer.stop()
    assert sum("watch" not in query for _, _, query in server.asked) >= 2
    assert {one["metadata"]["name"] for one in informer.items()} >= {"b"}
    assert "a" not in {one["metadata"]["name"] for one in informer.items()}


def test_an_informer_resumes_from_its_last_version_when_a_watch_ends():
    def answer(method, path, query, headers):
        if "watch" not in query:
            return 200, {"items": [], "metadata": {"resourceVersion": "5"}}
        time.sleep(0.05)
        return 200, [
            {
                "type": "BOOKMARK",
                "object": {"metadata": {"resourceVersion": str(int(query["resourceVersion"]) + 1)}},
            }
        ]

    def watched(server):
        return [query["resourceVersion"] for _, _, query in server.asked if "watch" in query]

    with serving(answer) as server:
        informer = Informer(api_at(server), "/things").start()
        until(lambda: len(watched(server)) > 2)
        informer.stop()
        versions = watched(server)
    assert sum("watch" not in query for _, _, query in server.asked) == 1
    assert versions == [str(5 + i) for i in range(len(versions))]
    assert len(versions) > 2


def test_an_informer_without_a_server_keeps_its_items_and_the_error():
    def answer(method, path, query, headers):
        return 200, {
            "items": [thing("a", "1")],
            "metadata": {"resourceVersion": "1"},
        } if "watch" not in query else []

    with serving(answer) as server:
        informer = Informer(api_at(server, retries=0), "/things").start()
        informer.wait(PATIENCE_S)
    until(lambda: informer.error is not None)
    informer.stop()
    assert [one["metadata"]["name"] for one in informer.items()] == ["a"]
    assert informer.error is not None


# --- Prometheus -----------------------------------------------------------------------------------


QUERIES = Queries("sum(increase(requests[$window]))", "mean[$window]", "p99[$window]")
ENDS = np.array([880.0, 940.0, 1000.0])  # of minutes; it is 1030 now


def prometheus(values: dict[str, list[tuple[float, object]]], refused=()):
    """Answers each marked query that contains a word of `values` with the samples of that word."""

    def answer(method, path, form, headers):
        if any(word in form["query"] for word in refused):
            return 400, {"status": "error", "error": "parse error"}
        result = []
        for query, place in MARKED.findall(form["query"]):
            for word, samples in values.items():
                times = [
                    (when, str(value))
                    for when, value in samples
                    if float(form["start"]) <= when <= float(form["end"])
                ]
                if word in query and times:
                    result.append({"metric": {"faro_query": place}, "values": times})
        return 200, {"data": {"resultType": "matrix", "result": result}}

    return answer


def observed(answer, queries=(QUERIES,), now_s=1030.0):
    with serving(answer) as server:
        load = DeploymentMetrics(server.url).observe(list(queries), ENDS, now_s)
    return load, server.asked


def test_counts_and_latencies_are_by_the_minute():
    counts = [(880, 60), (940, 120), (1000, 90), (1030, 50)]
    load, asked = observed(
        prometheus({"requests": counts, "mean": [(1030, 0.25)], "p99": [(1000, 0.5)]})
    )
    assert load["arrivals_per_min"].tolist() == [[60, 120, 90]]
    assert load["arrivals_now"].tolist() == [50]
    assert load["mean_latency_s"].tolist() == [0.25]
    assert load["tail_latency_s"].tolist() == [0.5]
    ranges = [form for _, _, form in asked if "requests[60s]" in form["query"]]
    assert [(form["start"], form["end"], form["step"]) for form in ranges] == [
        ("880.000", "1000.000", "60")
    ]


def test_a_minute_without_a_sample_is_missing_and_not_zero():
    load, _ = observed(prometheus({"requests": [(880, 60), (1000, 90)]}))
    assert np.isnan(load["arrivals_per_min"][0, 1])
    assert load["arrivals_per_min"][0, [0, 2]].tolist() == [60, 90]
    assert np.isnan(
        [load["mean_latency_s"][0], load["tail_latency_s"][0], load["ongoing"][0]]
    ).all()
    assert load["arrivals_now"] is None


def test_the_mean_latency_of_an_idle_job_is_zero_and_not_missing():
    load, _ = observed(prometheus({"mean": [(1030, "NaN")], "p99": [(1000, "NaN")]}))
    assert load["mean_latency_s"].tolist() == [0]
    assert np.isnan(load["tail_latency_s"]).all()


def test_two_hundred_jobs_need_few_requests_and_keep_their_own_answers():
    queries = [Queries(f"r{i:03d}[$window]", f"m{i:03d}[$window]") for i in range(200)]
    values = {f"r{i:03d}": [(when, i) for when in (*ENDS, 1030)] for i in range(200)}
    load, asked = observed(prometheus(values), queries)
    assert load["arrivals_per_min"][:, -1].tolist() == list(range(200))
    assert len(asked) <= 20


def test_without_prometheus_everything_is_missing():
    load = DeploymentMetrics("http://127.0.0.1:9", timeout_s=1).observe(
        [QUERIES, QUERIES], ENDS, 1030.0
    )
    assert load["arrivals_per_min"].shape == (2, 3)
    assert np.isnan(load["arrivals_per_min"]).all()
    assert np.isnan(load["mean_latency_s"]).all()


@pytest.mark.parametrize(
    "answer",
    [(200, {"status": "error"}), (200, ["?"]), (500, {}), (200, {"data": {"result": [{}]}})],
)
def test_a_nonsense_answer_of_prometheus_leaves_everything_missing(answer):
    load, _ = observed(lambda *_: answer)
    assert np.isnan(load["arrivals_per_min"]).all()


def test_a_query_whose_answer_is_a_native_histogram_costs_only_its_own_job():
    plain = prometheus(OF_OTHER)

    def answer(method, path, form, headers):
        status, body = plain(method, path, form, headers)
        for query, place in MARKED.findall(form["query"]):
            if "requests" in query:
                histogram = {"metric": {"faro_query": place}, "histograms": [[880, {}]]}
                body["data"]["result"].append(histogram)
        return status, body

    load, _ = observed(answer, [QUERIES, OTHER])
    assert load["arrivals_per_min"][1].tolist() == [7, 7, 7]
    assert np.isnan(load["arrivals_per_min"][0]).all()


def test_an_outage_of_prometheus_is_logged_once(caplog):
    down = [True]

    def answer(*_):
        return (503, {}) if down[0] else (200, {"data": {"result": []}})

    with serving(answer) as server:
        one = DeploymentMetrics(server.url)
        for down[0] in (True, True, False, True):
            one.observe([OTHER], ENDS, 1030.0)
    assert caplog.text.count(f"{server.url}: data is missing") == 2


def test_a_missing_token_file_is_one_line():
    with pytest.raises(ValueError, match="prometheus_token=/nowhere: no such file"):
        DeploymentMetrics("http://127.0.0.1:9", "/nowhere")


OTHER = Queries("other[$window]", "late[$window]")
OF_OTHER = {"other": [(when, 7) for when in (*ENDS, 1030)], "late": [(1030, 0.5)]}
SEVERAL = {
    "requests": [(880, 1)],
    "increase": [(880, 1)],
}  # both are words of the query for requests


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        (prometheus(OF_OTHER | SEVERAL), QUERIES),
        (prometheus(OF_OTHER, refused=["bad"]), Queries("bad([$window]", "mean[$window]")),
    ],
)
def test_a_wrong_query_of_one_job_leaves_the_data_of_the_others_whole(answer, wrong):
    load, _ = observed(answer, [wrong, OTHER])
    assert load["arrivals_per_min"][1].tolist() == [7, 7, 7]
    assert (load["arrivals_now"][1], load["mean_latency_s"][1]) == (7, 0.5)
    assert np.isnan(load["arrivals_per_min"][0]).all()


@pytest.mark.parametrize(
    ("answer", "query", "error"),
    [
        (
            prometheus(SEVERAL),
            "increase(requests)",
            "query 'increase(requests)' has several answers; one is needed",
        ),
        (prometheus({}, refused=["bad"]), "bad(", "query 'bad(': parse error"),
    ],
)
def test_the_error_names_the_wrong_query_although_later_ones_are_answered(answer, query, error):
    with serving(answer) as server:
        metrics = DeploymentMetrics(server.url)
        metrics.observe([Queries(query, "mean[$window]"), OTHER], ENDS, 1030.0)
    assert metrics.error.startswith(error)


def test_the_token_of_prometheus_is_read_for_every_request(tmp_path):
    path, seen = tmp_path / "token", []

    def answer(method, where, form, headers):
        seen.append(headers.get("Authorization"))
        return 200, {"data": {"result": []}}

    with serving(answer) as server:
        path.write_text("none yet")
        client = DeploymentMetrics(server.url, str(path))
        for token in ("one", "two"):
            path.write_text(token)
            client.observe([Queries("x[$window]", "")], ENDS, 1000.0)
    assert seen == ["Bearer one", "Bearer two"]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({}, r"queries.requests is missing"),
        (
            {"requests": "sum(rate(x[1m]))", "latency_mean_s": "y[$window]"},
            r"must look back by \$window",
        ),
        ({"request": "x"}, "did you mean 'requests'"),
    ],
)
def test_invalid_queries_are_refused_in_one_line(section, message):
    with pytest.raises(ValueError, match=message):
        Queries.of("resnet", section)
