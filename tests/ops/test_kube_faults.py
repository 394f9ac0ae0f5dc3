"""Faults that the threads and ticks of `kube` survive.

Truncated answers, nonsense, a lease that expires in `apply`.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

import numpy as np
import pytest
from http_server import serving
from kube_api import ClusterApi, KubeApi
from kube_things import DEPLOYMENT, LEASE, Measured, deployment, lease
from test_kube_http import DEPLOYMENTS, api_at, failing
from waiting import PATIENCE_S, until

from faro_lib.control import Step
from faro_lib.protocol import HISTORY_MINUTES, HOLD, Plan
from faro_lib.workload import Job
from faro_lib.workload.jobs import MINUTE_S
from faro_ops.operate.clock import Clock
from faro_ops.operate.job_states import GONE, JobStates
from faro_ops.operate.kube import client
from faro_ops.operate.kube.client import ApiError
from faro_ops.operate.kube.deployment_metrics import Queries
from faro_ops.operate.kube.deployments import DeploymentRef, Deployments
from faro_ops.operate.kube.informer import Informer
from faro_ops.operate.kube.leader_gate import LeaderGatedCluster
from faro_ops.operate.kube.lease import Leadership, LeaseTimings
from faro_ops.operate.kube.status import Reporter, status_of
from faro_ops.operate.scaling import NotScaled

# --- the connection -------------------------------------------------------------------------------


def test_a_truncated_answer_is_one_line():
    with (
        serving(lambda _: (200, {"a": 1}, {"Content-Length": "5000"})) as server,
        pytest.raises(ApiError, match=r"GET /x: the answer broke off"),
    ):
        api_at(server, retries=0).get("/x")


def test_an_answer_that_is_not_json_is_one_line():
    with (
        serving(lambda _: (200, b"{}{}")) as server,
        pytest.raises(ApiError, match="does not answer as an API server does"),
    ):
        api_at(server, retries=0).get("/x")


def test_credentials_that_cannot_be_read_again_are_one_line():
    reads = iter(["t"])
    with (
        serving(lambda _: (401, {"message": "Unauthorized"})) as server,
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
    answers = iter([{"what": "is this"}, b'"text"', b"[1]"])
    objects = KubeApi()
    objects.put(DEPLOYMENT, deployment("a"))

    def answer(request):
        nonsense = None if "watch" in request.query else next(answers, None)
        return (200, nonsense) if nonsense else objects.http(request)

    with serving(answer) as server:
        informer = Informer(api_at(server, retries=0), DEPLOYMENTS).start()
        informer.wait(PATIENCE_S)
        informer.stop()
    assert [one["metadata"]["name"] for one in informer.items()] == ["a"]
    assert f"the copy of {DEPLOYMENTS} may be stale" in caplog.text


TIMINGS = LeaseTimings(duration_s=3.0, retry_period_s=0.1, renew_deadline_s=2.5)


@pytest.mark.parametrize(
    "nonsense", [KeyError("spec"), TypeError("?"), ValueError("no JSON"), ApiError(500, "busy")]
)
def test_a_candidate_survives_any_answer_of_the_server_and_logs_it_once(nonsense, caplog):
    server, answers = KubeApi(), [nonsense] * 3
    server.put(LEASE, lease("me", lasts_s=3))

    def fail(method, path, body):
        if answers:
            raise answers.pop()

    server.on_request = fail
    leadership = Leadership(server, "jobs", "faro", "me", TIMINGS).start()
    try:
        assert leadership.wait(PATIENCE_S)
    finally:
        leadership.stop()
    assert caplog.text.count("lease faro: ") == 1


def test_a_lease_without_a_spec_can_be_taken():
    server = KubeApi()
    server.put(LEASE, {"metadata": {"name": "faro", "namespace": "jobs"}})
    leadership = Leadership(server, "jobs", "faro", "me", TIMINGS).start()
    try:
        assert leadership.wait(PATIENCE_S)
        assert server.find(LEASE, "faro")["spec"]["holderIdentity"] == "me"
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
        deployments(ClusterApi({"a": 1, "b": 1})).observe(),
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
        deployments(ClusterApi({"a": 1, "b": 1})).observe(),
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


def deployments(server, clock=None, cores=8.0):
    addresses = [
        DeploymentRef(
            job, "jobs", job.name, Queries(requests="r[$window]", latency_mean_s="m[$window]")
        )
        for job in JOBS
    ]
    return Deployments(
        server, addresses, Measured(np.nan), clock or Clock.starting_now(in_s=-1000), cores
    )


def test_an_observation_of_deployments_has_the_time_of_the_tick():
    clock = Clock(int(datetime.now(UTC).timestamp()) - 1000)
    cluster = deployments(ClusterApi({"a": 1, "b": 1}), clock)
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
    server = ClusterApi({"a": 6, "b": 2})
    server.refuse(403, "PATCH", "/deployments/a/")
    cluster = deployments(server)
    cluster.observe()
    with pytest.raises(NotScaled, match=r"a is not scaled to 3.*and 1 more"):
        cluster.apply(np.array([3, 5]), np.zeros(2))
    assert server.replicas == {"a": 6, "b": 2}
    server.accept()
    cluster.apply(np.array([3, 5]), np.zeros(2))
    assert server.replicas == {"a": 3, "b": 5}


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
    server = ClusterApi({"a": 4, "b": 4})
    cluster = LeaderGatedCluster(deployments(server), None, Lease(2))
    cluster.observe()
    with pytest.raises(NotScaled, match="another controller may act now"):
        cluster.apply(np.array([2, 6]), np.zeros(2))
    assert server.replicas == {"a": 2, "b": 4}


def test_without_a_known_leader_a_tick_reports_that_it_changes_nothing():
    server = ClusterApi({"a": 4, "b": 4})
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

    other = {"manager": "other", "fieldsV1": {"f:spec": {}}}
    server = ClusterApi({"a": 1, "b": 1})
    server.change(DEPLOYMENT, "a", metadata={"managedFields": [*fields, other]})
    assert LeaderGatedCluster(deployments(server)).writer_of(0) == told


def test_after_a_jump_of_the_wall_clock_the_minutes_are_asked_for_at_the_new_times(monkeypatch):
    clock, wall_s = Clock(int(time.time()) - 300), time.time

    cluster = deployments(ClusterApi({"a": 1, "b": 1}), clock)
    cluster.observe()
    before_s = cluster._metrics.asked[0][-1]
    monkeypatch.setattr(time, "time", lambda: wall_s() + 3600)
    cluster.observe()
    ends_s, now_s = cluster._metrics.asked
    after_s = ends_s[-1]
    assert after_s - before_s == pytest.approx(3600, abs=61)
    assert 0 <= now_s - after_s <= 61
