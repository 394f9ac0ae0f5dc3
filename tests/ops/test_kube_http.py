"""`kube` with a faulty API server and a faulty Prometheus.

Back-off, rotated credentials, expired watches, missing data.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from fake_prometheus import MARKED, FakePrometheus
from http_server import serving
from kube_api import KubeApi
from kube_things import DEPLOYMENT, deployment, object_path
from waiting import PATIENCE_S, until

from faro_ops.operate.kube.client import Api, ApiError, connect
from faro_ops.operate.kube.deployment_metrics import DeploymentMetrics, Queries
from faro_ops.operate.kube.informer import Informer

DEPLOYMENTS = object_path(DEPLOYMENT)


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

    def answer(_):
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

    def answer(request):
        if request.headers["authorization"] == f"Bearer {valid[0]}":
            return 200, {}
        return 401, {"message": "Unauthorized"}

    with serving(answer) as server:
        api = api_at(server, token=lambda: valid[0])
        api.get("/x")
        valid[0] = "new"
        api.get("/x")
        assert len(server.asked) == 3


def test_no_error_contains_the_token():
    with (
        serving(lambda _: (403, {"message": "you are nobody"})) as server,
        pytest.raises(ApiError) as raised,
    ):
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


# --- informers ------------------------------------------------------------------------------------


@pytest.fixture
def objects():
    """An API server with the Deployment a."""
    api = KubeApi()
    api.put(DEPLOYMENT, deployment("a"))
    yield api
    api.closed = True


def names_of(informer):
    return {one["metadata"]["name"] for one in informer.items()}


def lists_and_watches(server):
    """The queries of the lists, and those of the watches."""
    asked = [one.query for one in server.asked]
    return [one for one in asked if "watch" not in one], [one for one in asked if "watch" in one]


def test_an_informer_relists_when_its_resource_version_has_expired(objects):
    objects.ends_watches = True
    with objects.serving() as server:
        informer = Informer(api_at(server), DEPLOYMENTS).start()
        informer.wait(PATIENCE_S)
        objects.silent = True  # while the server is away, it forgets what has changed
        objects.remove(DEPLOYMENT, "a")
        objects.put(DEPLOYMENT, deployment("b"))
        objects.forget()
        objects.silent = objects.ends_watches = False
        until(lambda: names_of(informer) == {"b"})
        objects.put(DEPLOYMENT, deployment("c"))
        until(lambda: names_of(informer) == {"b", "c"})
        informer.stop()
    lists, _ = lists_and_watches(server)
    assert len(lists) >= 2


def test_an_informer_resumes_from_its_last_version_when_a_watch_ends(objects, monkeypatch):
    monkeypatch.setattr("faro_ops.operate.kube.informer.WATCH_S", 0.05)
    with objects.serving() as server:
        informer = Informer(api_at(server), DEPLOYMENTS).start()
        informer.wait(PATIENCE_S)
        for n in range(3):
            objects.put(DEPLOYMENT, deployment(f"new-{n}"))
            until(lambda n=n: f"new-{n}" in names_of(informer))
        seen = objects.version
        until(lambda: lists_and_watches(server)[1][-1]["resourceVersion"] == str(seen))
        informer.stop()
    lists, watches = lists_and_watches(server)
    versions = [int(one["resourceVersion"]) for one in watches]
    assert len(lists) == 1
    assert versions == sorted(versions)
    assert len(set(versions)) > 1


def test_an_informer_without_a_server_keeps_its_items_and_the_error(objects):
    objects.ends_watches = True
    with objects.serving() as server:
        informer = Informer(api_at(server, retries=0), DEPLOYMENTS).start()
        informer.wait(PATIENCE_S)
    until(lambda: "cannot be reached" in str(informer.error))
    informer.stop()
    assert names_of(informer) == {"a"}


# --- Prometheus -----------------------------------------------------------------------------------


QUERIES = Queries(
    requests="sum(increase(requests[$window]))",
    latency_mean_s="mean[$window]",
    latency_s="p99[$window]",
)
ENDS = np.array([880.0, 940.0, 1000.0])  # of minutes; it is 1030 now


def observed(answer, queries=(QUERIES,), now_s=1030.0):
    """What is observed of a FakePrometheus, or of a server that answers so; and the requests."""
    with serving(answer.http if isinstance(answer, FakePrometheus) else answer) as server:
        load = DeploymentMetrics(server.url).observe(list(queries), ENDS, now_s)
    return load, server.asked


def test_counts_and_latencies_are_by_the_minute():
    counts = [(880, 60), (940, 120), (1000, 90), (1030, 50)]
    load, asked = observed(
        FakePrometheus({"requests": counts, "mean": [(1030, 0.25)], "p99": [(1000, 0.5)]})
    )
    assert load["arrivals_per_min"].tolist() == [[60, 120, 90]]
    assert load["arrivals_now"].tolist() == [50]
    assert load["mean_latency_s"].tolist() == [0.25]
    assert load["tail_latency_s"].tolist() == [0.5]
    ranges = [one.query for one in asked if "requests[60s]" in one.query["query"]]
    assert [(form["start"], form["end"], form["step"]) for form in ranges] == [
        ("880.000", "1000.000", "60")
    ]


def test_a_minute_without_a_sample_is_missing_and_not_zero():
    load, _ = observed(FakePrometheus({"requests": [(880, 60), (1000, 90)]}))
    assert np.isnan(load["arrivals_per_min"][0, 1])
    assert load["arrivals_per_min"][0, [0, 2]].tolist() == [60, 90]
    assert np.isnan(
        [load["mean_latency_s"][0], load["tail_latency_s"][0], load["ongoing"][0]]
    ).all()
    assert load["arrivals_now"] is None


def test_the_mean_latency_of_an_idle_job_is_zero_and_not_missing():
    load, _ = observed(FakePrometheus({"mean": [(1030, np.nan)], "p99": [(1000, np.nan)]}))
    assert load["mean_latency_s"].tolist() == [0]
    assert np.isnan(load["tail_latency_s"]).all()


def test_two_hundred_jobs_need_few_requests_and_keep_their_own_answers():
    queries = [
        Queries(requests=f"r{i:03d}[$window]", latency_mean_s=f"m{i:03d}[$window]")
        for i in range(200)
    ]
    values = {f"r{i:03d}": [(when, i) for when in (*ENDS, 1030)] for i in range(200)}
    load, asked = observed(FakePrometheus(values), queries)
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
    [(200, {"status": "error"}), (200, b'["?"]'), (500, {}), (200, {"data": {"result": [{}]}})],
)
def test_a_nonsense_answer_of_prometheus_leaves_everything_missing(answer):
    load, _ = observed(lambda *_: answer)
    assert np.isnan(load["arrivals_per_min"]).all()


def test_a_query_whose_answer_is_a_native_histogram_costs_only_its_own_job():
    plain = FakePrometheus(OF_OTHER)

    def answer(request):
        status, body = plain.http(request)
        for query, place in MARKED.findall(request.query["query"]):
            if "requests" in query:
                histogram = {"metric": {"faro_query": place}, "histograms": [[880, {}]]}
                body["data"]["result"].append(histogram)
        return status, body

    load, _ = observed(answer, [QUERIES, OTHER])
    assert load["arrivals_per_min"][1].tolist() == [7, 7, 7]
    assert np.isnan(load["arrivals_per_min"][0]).all()


def test_an_outage_of_prometheus_is_logged_once(caplog):
    prometheus = FakePrometheus()
    with prometheus.serving() as server:
        one = DeploymentMetrics(server.url)
        for prometheus.silent in (True, True, False, True):
            one.observe([OTHER], ENDS, 1030.0)
    assert caplog.text.count(f"{server.url}: data is missing") == 2


def test_a_missing_token_file_is_one_line():
    with pytest.raises(ValueError, match="prometheus_token=/nowhere: no such file"):
        DeploymentMetrics("http://127.0.0.1:9", "/nowhere")


def rejecting(word, values=()) -> FakePrometheus:
    one = FakePrometheus(values)
    one.wrong.add(word)
    return one


OTHER = Queries(requests="other[$window]", latency_mean_s="late[$window]")
OF_OTHER = {"other": [(when, 7) for when in (*ENDS, 1030)], "late": [(1030, 0.5)]}
SEVERAL = {
    "requests": [(880, 1)],
    "increase": [(880, 1)],
}  # both are words of the query for requests


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        (FakePrometheus(OF_OTHER | SEVERAL), QUERIES),
        (
            rejecting("bad", OF_OTHER),
            Queries(requests="bad([$window]", latency_mean_s="mean[$window]"),
        ),
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
            FakePrometheus(SEVERAL),
            "increase(requests[$window])",
            "query 'increase(requests[$window])' has several answers; one is needed",
        ),
        (rejecting("bad"), "bad([$window]", "query 'bad([$window]': parse error"),
    ],
)
def test_the_error_names_the_wrong_query_although_later_ones_are_answered(answer, query, error):
    with answer.serving() as server:
        metrics = DeploymentMetrics(server.url)
        metrics.observe(
            [Queries(requests=query, latency_mean_s="mean[$window]"), OTHER], ENDS, 1030.0
        )
    assert metrics.error.startswith(error)


def test_the_token_of_prometheus_is_read_for_every_request(tmp_path):
    path = tmp_path / "token"
    one_query = Queries.model_construct(requests="x[$window]", latency_mean_s="")
    with FakePrometheus().serving() as server:
        path.write_text("none yet")
        client = DeploymentMetrics(server.url, str(path))
        for token in ("one", "two"):
            path.write_text(token)
            client.observe([one_query], ENDS, 1000.0)
    assert [one.headers["Authorization"] for one in server.asked] == ["Bearer one", "Bearer two"]


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
