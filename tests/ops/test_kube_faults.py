"""Faults that the threads and ticks of `kube` survive.

Truncated answers, nonsense, a lease that expires in `apply`.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

import numpy as np
import pytest
from kube_things import measured
from test_kube_http import api_at, failing, serving, thing
from waiting import PATIENCE_S, until

from faro_lib.control import Step
from faro_lib.protocol import HISTORY_MINUTES, HOLD, Plan
from faro_lib.workload import Job
from faro_lib.workload.jobs import MINUTE_S
from faro_ops.operate.kube import client
from faro_ops.operate.kube.client import ApiError
from faro_ops.operate.kube.deployment_metrics import Queries
from faro_ops.operate.kube.deployments import DeploymentRef, Deployments
from faro_ops.operate.kube.informer import Informer
from faro_ops.operate.kube.leader_gate import LeaderGatedCluster
from faro_ops.operate.kube.lease import Leadership, LeaseTimings
from faro_ops.operate.kube.status import Reporter, status_of
from faro_ops.operate.loop.clock import Clock
from faro_ops.operate.loop.job_states import GONE, JobStates
from faro_ops.operate.loop.scaling import NotScaled

# --- the connection -------------------------------------------------------------------------------


def test_a_truncated_answer_is_one_line():
    with (
        serving(lambda *_: (200, {"a": 1}, {"Content-Length": "5000"})) as server,
        pytest.raises(ApiError, match=r"GET /x: the answer broke off"),
    ):
        api_at(server, retries=0).get("/x")


def test_an_answer_that_is_not_json_is_one_line():
    class Page(
        list
    ):  # the fake sends the lines of a list as JSON, one after the other: two are no object
        pass

    with (
        serving(lambda *_: (200, Page([{}, {}]))) as server,
        pytest.raises(ApiError, match="does not answer as an API server does"),
    ):
        api_at(server, retries=0).get("/x")


def test_credentials_that_cannot_be_read_again_are_one_line():
    reads = iter(["t"])
    with (
        serving(lambda *_: (401, {"message": "Unauthorized"})) as server,
        pytest.raises(ApiError, match="new credentials cannot be read") as error,
    ):
        api_at(server, lambda: next(reads)).get("/x")
    assert error.value.status == 401


def test_a_retry_after_of_an_hour_is_cut_short(monkeypatch):
    pauses = []
    monkeypatch.setattr(client, "LONGEST_PAUSE_S", 0.2)
    monkeypatch.setattr(time, "sleep", pauses.append)
    with serving(failing(1, 429, **{"Retry-After": "3600"})) as server:
        assert api_at(server).get("/x") == {"kind": "fine"}
    assert max(pauses) == 0.2


# --- threads --------------------------------------------------------------------------------------


def test_an_informer_survives_nonsense_and_warns_that_its_copy_is_stale(caplog):
    answers = iter([{"what": "is this"}, "text", [1]])

    def answer(method, path, query, headers):
        if "watch" in query:
            return 200, []
        return 200, next(
            answers, {"items": [thing("a", "1")], "metadata": {"resourceVersion": "1"}}
        )

    with serving(answer) as server:
        informer = Informer(api_at(server, retries=0), "/things").start()
        informer.wait(PATIENCE_S)
        informer.stop()
    assert [one["metadata"]["name"] for one in informer.items()] == ["a"]
    assert "the copy of /things may be stale" in caplog.text


TIMINGS = LeaseTimings(duration_s=3.0, retry_period_s=0.1, renew_deadline_s=2.5)


class Leases:
    """An API server that holds one lease; `nonsense` answers are given first."""

    def __init__(self, nonsense=(), lease=None):
        self.nonsense, self.lease, self.lock = list(nonsense), lease, threading.Lock()

    def get(self, path):
        with self.lock:
            if self.nonsense:
                raise self.nonsense.pop(0)
            if self.lease is None:
                raise ApiError(404, "not found")
            return self.lease

    def send(self, method, path, body):
        self.lease = body
        return body


@pytest.mark.parametrize(
    "nonsense", [KeyError("spec"), TypeError("?"), ValueError("no JSON"), ApiError(500, "busy")]
)
def test_a_candidate_survives_any_answer_of_the_server_and_logs_it_once(nonsense, caplog):
    held = {"spec": {"holderIdentity": "me", "renewTime": "1", "leaseDurationSeconds": 3}}
    leadership = Leadership(Leases([nonsense] * 3, held), "n", "faro", "me", TIMINGS).start()
    try:
        assert leadership.wait(PATIENCE_S)
    finally:
        leadership.stop()
    assert caplog.text.count("lease faro: ") == 1


def test_a_lease_without_a_spec_can_be_taken():
    server = Leases(lease={"metadata": {"name": "faro"}})
    leadership = Leadership(server, "n", "faro", "me", TIMINGS).start()
    try:
        assert leadership.wait(PATIENCE_S)
        assert server.lease["spec"]["holderIdentity"] == "me"
    finally:
        leadership.stop()


def test_the_plan_is_published_again_after_a_failed_report(caplog):
    published = []

    class Odd(Reporter):
        def publish(self, steps):
            published.append(steps)
            if len(published) == 1:
                raise KeyError("uid")

    reporter = Odd(None, "n", "faro", "AIAD", "me")
    for step in (1, 2):
        reporter(JOBS, step)
        until(lambda step=step: len(published) == step)
    reporter.close()
    assert published == [[(JOBS, 1)], [(JOBS, 2)]]
    assert "the plan is not published" in caplog.text


def test_the_condition_has_the_time_of_its_change_and_not_of_the_report():
    step = Step(
        deployments(Server(a=1, b=1)).observe(),
        Plan(np.array([1, 2]), np.zeros(2), (HOLD, HOLD)),
        np.array([1, 2]),
        0.0,
    )
    status = status_of(JOBS, step, "me", "2026-01-01T00:05:00Z", "2026-01-01T00:00:00Z")
    assert status["lastDecisionTime"] == "2026-01-01T00:05:00Z"
    assert status["conditions"][0]["lastTransitionTime"] == "2026-01-01T00:00:00Z"
    assert status["usedCores"] == 3


def test_the_status_has_each_jobs_state_its_waiting_pods_and_orders_not_in_force():
    states = JobStates(lambda: 0.0)
    states.report("a", GONE, "deployment 'jobs/a' does not exist", by="test")
    states.refuse_orders({"z": "the table has no such job"})
    step = Step(
        deployments(Server(a=1, b=1)).observe(),
        Plan(np.array([1, 2]), np.zeros(2), (HOLD, HOLD)),
        np.array([1, 2]),
        0.0,
    )
    status = status_of(JOBS, step, "me", "now", "then", states=states, pending={"b": 1})
    a, b = status["jobs"]
    assert (a["state"], a["stateReason"]) == ("gone", "deployment 'jobs/a' does not exist")
    assert a["stateSince"] == "1970-01-01T00:00:00Z"
    assert (b["state"], b["pendingPods"], "stateReason" in b) == ("fine", 1, False)
    assert status["ordersNotInForce"] == [{"job": "z", "reason": "the table has no such job"}]


# --- plain Deployments ----------------------------------------------------------------------------

JOBS = (Job("a", cold_start_s=5.0), Job("b", cold_start_s=5.0))


class Server:
    """Deployments by name; `refused` are not scaled."""

    def __init__(self, **replicas):
        self.replicas, self.dropped, self.scaled = replicas, set(), []

    def get(self, path, **query):
        found = self.replicas.items() if path.endswith("deployments") else ()
        return {"items": [self.deployment(name, count) for name, count in found]}

    def deployment(self, name, count):
        meta = {"name": name, "namespace": "jobs", "resourceVersion": "1", "generation": 1}
        status = {"observedGeneration": 1, "replicas": count, "readyReplicas": count}
        return {"metadata": meta, "spec": {"replicas": count}, "status": status}

    def send(self, method, path, body, **_):
        name = path.split("/")[-2]
        if name in self.dropped:
            raise ApiError(403, "quota")
        self.replicas[name] = body["spec"]["replicas"]
        self.scaled.append(name)
        return {"metadata": {"resourceVersion": "2"}}


class Silent:
    """A Prometheus without an answer, which notes the instant that it was asked about."""

    def observe(self, queries, ends, now_s, minute_s):
        self.asked = ends, now_s
        return measured(np.full((len(queries), len(ends)), np.nan), np.full(len(queries), np.nan))


def deployments(server, clock=None, cores=8.0):
    addresses = [
        DeploymentRef(job, "jobs", job.name, Queries("r[$window]", "m[$window]")) for job in JOBS
    ]
    return Deployments(server, addresses, Silent(), clock or Clock.starting_now(in_s=-1000), cores)


def test_an_observation_of_deployments_has_the_time_of_the_tick():
    clock = Clock(int(datetime.now(UTC).timestamp()) - 1000)
    cluster = deployments(Server(a=1, b=1), clock)
    cluster.advance(960.0)
    seen = cluster.observe()
    assert seen.now_s == 960.0
    assert seen.minute == 16
    ends, asked_s = cluster._metrics.asked
    assert (len(ends), ends[-1], asked_s) == (
        HISTORY_MINUTES,
        clock.origin_s + 16 * MINUTE_S,
        clock.origin_s + 960.0,
    )


def test_a_job_that_fails_to_shrink_blocks_growth_into_its_cores_until_it_shrinks():
    server = Server(a=6, b=2)
    server.dropped = {"a"}
    cluster = deployments(server)
    cluster.observe()
    with pytest.raises(NotScaled, match=r"a is not scaled to 3.*and 1 more"):
        cluster.apply(np.array([3, 5]), np.zeros(2))
    assert server.replicas == {"a": 6, "b": 2}
    server.dropped = set()
    cluster.apply(np.array([3, 5]), np.zeros(2))
    assert server.scaled == ["a", "b"]


class Lease:
    """Leads for so many questions."""

    name, holder = "faro", "me"

    class candidate:
        identity = "me"

    def __init__(self, questions):
        self.left = questions

    def is_leader(self, for_s):
        self.left -= 1
        return self.left >= 0


def test_a_lease_that_expires_during_apply_stops_the_remaining_calls():
    server = Server(a=4, b=4)
    cluster = LeaderGatedCluster(deployments(server), None, Lease(2))
    cluster.observe()
    with pytest.raises(NotScaled, match="another controller may act now"):
        cluster.apply(np.array([2, 6]), np.zeros(2))
    assert server.replicas == {"a": 2, "b": 4}


def test_without_a_known_leader_a_tick_reports_that_it_changes_nothing():
    server = Server(a=4, b=4)
    cluster = LeaderGatedCluster(deployments(server), None, Lease(0))
    cluster.observe()
    with pytest.raises(OSError, match="lease faro could not be renewed; this tick changes nothing"):
        cluster.apply(np.array([2, 6]), np.zeros(2))
    assert server.replicas == {"a": 4, "b": 4}


@pytest.mark.parametrize(
    ("writers", "told"),
    [([], None), (["faro"], None), (["kube-controller-manager", "kubectl", "faro"], "kubectl")],
)
def test_the_client_that_last_scaled_a_deployment_is_known_from_its_managed_fields(writers, told):
    fields = [
        {
            "manager": manager,
            "time": f"2026-01-01T00:00:0{n}Z",
            "fieldsV1": {"f:spec": {"f:replicas": {}}},
        }
        for n, manager in enumerate(writers)
    ]

    class Api:
        def get(self, path):
            other = {"manager": "other", "fieldsV1": {"f:spec": {}}}
            return {
                "items": [
                    {
                        "metadata": {
                            "name": "a",
                            "namespace": "jobs",
                            "managedFields": [*fields, other],
                        }
                    }
                ]
            }

    assert LeaderGatedCluster(deployments(Api())).writer_of(0) == told


def test_after_a_jump_of_the_wall_clock_the_minutes_are_asked_for_at_the_new_times(monkeypatch):
    clock, wall_s, asked = Clock(int(time.time()) - 300), time.time, []

    class Asked(Silent):
        def observe(self, queries, minute_ends_s, now_s, minute_s):
            asked.append((minute_ends_s[-1], now_s))
            return super().observe(queries, minute_ends_s, now_s, minute_s)

    cluster = deployments(Server(a=1, b=1), clock)
    cluster._metrics = Asked()
    cluster.observe()
    monkeypatch.setattr(time, "time", lambda: wall_s() + 3600)
    cluster.observe()
    (before_s, _), (after_s, now_s) = asked
    assert after_s - before_s == pytest.approx(3600, abs=61)
    assert 0 <= now_s - after_s <= 61
