"""What the hour on kind checks and counts (tests/support/soak_kind*.py), without a cluster."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import sys
from collections.abc import Callable
from unittest import mock

import pytest
import soak_kind
import soak_kind_requests
import yaml
from kube_api import KubeApi
from kube_things import DEPLOYMENT, FAROPLAN, HPA, NODE, POD, hpa, node, pod
from soak_faults import NONE, faults_of
from soak_kind import KindInvariants, drawn, problems
from soak_kind_requests import (
    LOAD,
    NAMES,
    REQUEST_S,
    Event,
    Life,
    Look,
    Lost,
    Watcher,
    attributed,
    cost,
    sent_between,
    write_table,
)
from soak_kind_world import KindWorld, counted_in, counts_of, evict, falsify
from soak_world import PLAN

BEGAN_S = 1000.0


def failure(at_s, took_s=1.0, job="a", status="RemoteDisconnected()"):
    return {"at": BEGAN_S + at_s, "job": job, "status": status, "took_s": took_s}


def life(leaves_s=math.inf, gone_s=math.inf, job="a", pod="a-1"):
    return Life(pod, job, "n1", BEGAN_S + leaves_s, BEGAN_S + gone_s)


def pods_of(failures, *lives):
    return [one.pod for one in attributed(failures, lives, [], BEGAN_S)]


def event(**fields):
    return Event(**{"event": "a node is drained", "at_s": 100.0, "whole_s": 60.0} | fields)


def look(at_s, targets, capacity=1.4):
    return Look(at_s, targets, capacity=capacity)


def test_a_request_under_way_when_its_pod_is_killed_is_attributed_to_the_pod():
    assert pods_of([failure(9.5)], life(leaves_s=10, gone_s=11)) == ["a-1"]


def test_a_request_that_ended_before_the_pod_began_to_leave_is_attributed_to_none():
    assert pods_of([failure(2.0)], life(leaves_s=10, gone_s=11)) == [""]


def test_a_request_sent_after_the_pod_was_gone_is_attributed_to_none():
    assert pods_of([failure(30.0)], life(leaves_s=10, gone_s=11)) == [""]


def test_a_request_is_never_attributed_to_a_pod_of_another_service_or_to_one_that_stays():
    assert pods_of([failure(9.5)], life(10, 11, job="b"), life(pod="a-2")) == [""]


def test_a_lost_request_names_the_event_of_its_time():
    (one,) = attributed([failure(130.0)], [], [event()], BEGAN_S)
    assert one.event == "a node is drained"


def test_requests_are_counted_from_the_cumulative_counts_of_the_load():
    counts = [{"at": BEGAN_S + at, "sent": {"a": at, "b": 2 * at}} for at in (0, 10, 20, 30)]
    assert sent_between(counts, BEGAN_S + 10, BEGAN_S + 29) == 30


def test_an_event_gets_its_requests_losses_and_the_range_of_the_targets():
    one = event()
    counts = [{"at": BEGAN_S, "sent": {"a": 0}}, {"at": BEGAN_S + 150, "sent": {"a": 70}}]
    lost = [Lost(120.0, "a", "x", 1.0, "a-1", one.event), Lost(20.0, "a", "x", 1.0, "", "")]
    cost(
        one,
        counts,
        lost,
        [look(110, "a=4 b=3"), look(115, "a=5 b=3"), look(400, "a=9 b=9")],
        BEGAN_S,
    )
    assert (one.sent, one.failed, one.in_killed_pods) == (70, 1, 1)
    assert one.targets == "a=4..5 b=3"


def test_an_hour_without_losses_has_no_problem():
    assert problems([event()], []) == []


def test_a_request_that_is_lost_without_a_killed_pod_is_a_problem_of_one_line():
    (line,) = problems([event()], [Lost(7.0, "a", "timeout", 1.0, "", "")])
    assert "lost without a killed pod" in line


def test_a_fault_after_which_not_all_is_as_before_is_a_problem():
    (line,) = problems([event(whole_s=math.inf)], [])
    assert "not as before" in line


def test_tables_have_a_row_for_each_thing(tmp_path):
    write_table(tmp_path / "new" / "events.csv", Event, [event(targets="a=4"), event()])
    rows = list(csv.DictReader((tmp_path / "new" / "events.csv").open()))
    assert [row["targets"] for row in rows] == ["a=4", ""]
    assert rows[0]["whole_s"] == "60.0"


def test_a_seed_gives_every_fault_once_in_an_order_of_its_own():
    faults = faults_of("kind")
    first, again, other = (
        [one.name for one, _ in itertools.islice(drawn(seed), len(faults))] for seed in (0, 0, 1)
    )
    assert first == again != other
    assert sorted(first) == sorted(one.name for one in faults)


def said_by_load(status_of: Callable[[], int], statement: str = "", then: str = "") -> list[dict]:
    """What the load's program says in half a second at 20 requests a second.

    It runs in a pod, so only its text is at hand.

    then : what is done after a statement of it.
    """

    class Answer:
        @property
        def status(self):
            return status_of()

    out = io.StringIO()
    text = LOAD.replace("time.sleep(10)", "time.sleep(0.2)")
    text = text.replace(f"end + {REQUEST_S}", "end + 0.5")
    if statement:
        assert statement in text
        text = text.replace(statement, f"{statement}; {then}")
    with (
        mock.patch.object(sys, "argv", ["-c", "0.5", "a=20=http://x.test/"]),
        mock.patch.object(sys, "stdout", out),
        mock.patch("urllib.request.urlopen", return_value=Answer()),
    ):
        exec(compile(text, "load", "exec"), {})
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_the_load_says_which_requests_failed_and_how_many_it_sent():
    answers = iter([200, 500] * 1000)
    lines = said_by_load(lambda: next(answers))
    sent = [one["sent"]["a"] for one in lines if "sent" in one]
    failed = [one for one in lines if "status" in one]
    assert sent[-1] > 3
    assert {one["status"] for one in failed} == {500}
    assert abs(len(failed) - sent[-1] / 2) <= 2


def test_the_load_does_not_make_up_for_a_pause_of_the_machine_by_a_burst():
    """It stops for 0.4 of its 0.5 seconds; at 20 a second, it would send ten without the pause."""
    pause = "sent[name] == 2 and time.sleep(0.4)"
    lines = said_by_load(lambda: 200, "sent[name] += 1", pause)
    sent = [one["sent"]["a"] for one in lines if "sent" in one]
    assert 2 <= sent[-1] <= 5


# --- the world of the hour, as far as it needs no cluster -----------------------------------------


def api_server() -> KubeApi:
    """An API server with a node that has an image."""
    api = KubeApi(namespace="soak")
    api.put(NODE, node() | {"status": {"images": [{"names": ["x/pause:1"]}]}})
    return api


class Clock:
    """A clock that moves only when somebody sleeps."""

    now_s = 0.0

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def world(tmp_path):
    one = object.__new__(KindWorld)
    one.begin()
    one.clock = Clock()
    one.api, one.folder, one.namespace, one.names = api_server(), tmp_path, "soak", NAMES
    one.nodes = {"n1": "worker-1", "n2": "worker-2"}
    one.proxy = "http://proxy.test"
    rows = [one.row(name) for name in one.names]
    (tmp_path / "jobs.yaml").write_text(yaml.safe_dump({"jobs": rows}))
    one.objects_of = one.manifests()
    return one


def controller_of(world):
    (one,) = [one for one in world.objects_of["controller"] if one["kind"] == "Deployment"]
    return one


def test_the_controllers_are_those_of_the_manifests_and_act(world):
    controller = controller_of(world)
    arguments = controller["spec"]["template"]["spec"]["containers"][0]["args"]
    assert controller["spec"]["replicas"] == 2
    assert controller["metadata"]["name"] == f"{PLAN}-controller"
    assert {"--apply", "--wait", "deployments", f"soak/{PLAN}"} <= {*arguments}


def test_the_controllers_ask_the_proxy_and_prometheus_reads_what_they_count(world):
    template = controller_of(world)["spec"]["template"]
    assert world.proxy in template["spec"]["containers"][0]["args"]
    assert template["metadata"]["annotations"]["prometheus.io/scrape"] == "true"


def test_permissions_are_taken_from_every_role_and_given_back(world):
    roles = [one for one in world.objects_of["rbac"] if one["kind"] in ("Role", "ClusterRole")]
    world.deny(("*", "*"))
    world.deny()
    taken, given = (
        {path: body["rules"] for _, path, body in some}
        for some in (world.api.writes[: len(roles)], world.api.writes[len(roles) :])
    )
    assert len(taken) == len(roles) >= 2
    assert all(rules == [] for rules in taken.values())
    assert list(given.values()) == [one["rules"] for one in roles]


def test_a_changed_model_loads_before_it_serves_and_keeps_the_number_of_replicas(world):
    world.api.put(DEPLOYMENT, world.model("a"))
    with mock.patch.object(KindWorld, "wait"):
        world.load_models("a")
    ((method, path, body),) = world.api.writes
    (container,) = body["spec"]["template"]["spec"]["containers"]
    assert (method, "replicas" in body["spec"]) == ("PATCH", False)
    assert container["command"][-1].startswith("sleep 60; exec python")
    assert path.endswith("/deployments/a")


def test_a_fault_of_a_node_befalls_the_worker_that_has_its_place(world):
    world.api.put(NODE, node("worker-1"))
    (fault,) = faults_of("kind", ("one node of two is cordoned",))
    fault.begin(world, "a")
    assert world.find(NODE, "n1")["spec"]["unschedulable"]
    fault.end(world, "a")
    assert not world.find(NODE, "n1")["spec"]["unschedulable"]


def test_what_a_fault_creates_is_in_the_namespace_of_the_soak(world):
    world.put(HPA, hpa("a", 2, 6))
    assert world.api.find(HPA, "a", "soak")
    world.remove(HPA, "a")
    assert world.find(HPA, "a") is None


# --- what the controllers are told and what they count --------------------------------------------

QUERIES = " or ".join(
    f'label_replace(sum({metric}{{service="{job}"}}), "faro_query", "{number}", "", "")'
    for number, (job, metric) in enumerate(
        [("a", "http_requests_total"), ("a", "seconds_sum"), ("b", "http_requests_total")]
    )
)


def test_a_wrong_count_is_that_of_one_job_and_of_the_last_seconds():
    assert counts_of("a", QUERIES) == {"0"}
    body = {
        "data": {
            "result": [
                {"metric": {"faro_query": number}, "values": [[10.0, "7"], [50.0, "8"]]}
                for number in "012"
            ]
        }
    }
    falsify(body, {"0"}, lambda value: -value, 40.0)
    values = [[text for _, text in one["values"]] for one in body["data"]["result"]]
    assert values == [["7", "-8.0"], ["7", "8"], ["7", "8"]]


@pytest.mark.parametrize(
    ("samples", "grown"),
    [
        ([(100, "3"), (105, "3")], 0),
        ([(100, "3"), (105, "5")], 2),
        ([(100, "3"), (105, "1"), (110, "2")], 1),  # the controller started again
        ([(130, "2")], 2),  # counted for the first time
    ],
)
def test_failures_are_counted_across_a_start_of_the_controller(samples, grown):
    assert counted_in(samples, 100.0) == grown


# --- the invariants on kind -----------------------------------------------------------------------


def shown(world, replicas, capacity=1.4, **states):
    """Let the API server show this."""
    for name, count in replicas.items():
        world.deploy_at(name, count)
    rows = [{"name": name, "state": states.get(name, "fine")} for name in replicas]
    rows = [row | {"stateReason": "because"} for row in rows]
    status = {"capacityCores": capacity, "jobs": rows, "controller": "faro-1.2"}
    status["lastDecisionTime"] = f"2030-01-01T00:{int(world.clock.now_s) // 60:02}:00Z"
    plan = {"metadata": {"name": PLAN, "namespace": "soak"}, "spec": {}, "status": status}
    world.api.put(FAROPLAN, plan)
    labels = {"app.kubernetes.io/name": f"{PLAN}-controller"}
    world.api.put(POD, pod("faro-1", namespace="soak", labels=labels))


@pytest.fixture
def seen(world):
    """Returns what invariants find broken if services first have `before`, and then `after`."""

    def deploy_at(name, replicas):
        one = world.model(name)
        one["spec"]["replicas"] = replicas
        world.api.put(DEPLOYMENT, one | {"status": {"readyReplicas": replicas}})

    def broken(before, after, fault=NONE, **more):
        checked = KindInvariants()
        checked.start(world)
        shown(world, before)
        checked.look(world)
        checked.begin(world, fault, "a")
        world.clock.sleep(60.0)
        shown(world, after, **more)
        checked.look(world)
        return checked.figures.broken

    world.deploy_at = deploy_at
    with mock.patch.object(KindWorld, "enough", return_value=2):
        yield broken


def test_a_steady_hour_breaks_no_invariant(seen):
    assert seen({"a": 4, "b": 4}, {"a": 4, "b": 4}) == []


@pytest.mark.parametrize(
    ("after", "words"),
    [
        ({"a": 4, "b": 2}, "b has 2, its twin 3 to inf"),
        ({"a": 1, "b": 4}, "a is asked to run 1, below its minimum"),
        ({"a": 9, "b": 9}, "exceed room for 14"),
        ({"a": 2, "b": 3}, "3 of 8 replicas are removed within a minute"),
    ],
)
def test_what_breaks_an_invariant_is_noted(seen, after, words):
    assert any(words in line for line in seen({"a": 4, "b": 4}, after))


def test_a_job_that_a_fault_befalls_may_change_and_the_other_may_not(seen):
    (fault,) = faults_of("kind", ("a job is scaled by hand",))
    assert seen({"a": 4, "b": 4}, {"a": 7, "b": 4}, fault) == []
    (line,) = seen({"a": 7, "b": 4}, {"a": 7, "b": 2}, fault)
    assert "b has 2" in line


def test_a_fault_is_over_only_when_the_plan_shows_the_state_of_its_job(world, seen):
    (fault,) = faults_of("kind", ("a query is slow",))
    checked = KindInvariants()
    shown(world, {"a": 4, "b": 4})
    checked.begin(world, fault, "a")
    assert checked.unseen(world) == ["a is fine, not missing on the board"]
    shown(world, {"a": 4, "b": 4}, a="missing")
    assert checked.unseen(world) == []


def test_a_rolling_update_takes_no_replica_away_before_another_one_serves(world):
    strategy = world.model("a")["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_a_drain_leaves_pods_of_daemon_sets_and_repeats_what_a_budget_refuses():
    server = KubeApi()
    for name, owner in (("web", "ReplicaSet"), ("stubborn", "ReplicaSet"), ("proxy", "DaemonSet")):
        one = pod(name)
        server.put(
            POD, one | {"metadata": one["metadata"] | {"ownerReferences": [{"kind": owner}]}}
        )
    server.refuse(429, "POST", "/stubborn/")  # its budget allows none
    assert not evict(server, "n1")
    assert [path.split("/")[-2] for _, path, _ in server.writes] == ["web", "stubborn"]
    server.accept()
    evict(server, "n1")
    assert evict(server, "n1")
    assert [one["metadata"]["name"] for one in server.all(POD)] == ["proxy"]


def test_the_watcher_knows_when_a_pod_began_to_leave_and_when_it_was_gone(world):
    meta = {"name": "a-1", "namespace": "soak", "labels": {"app": "a"}}
    with mock.patch.object(soak_kind_requests, "connect", return_value=world.api):
        watcher = Watcher()
    watcher.namespace = "soak"
    world.api.put(POD, {"metadata": meta, "spec": {"nodeName": "n1"}})
    watcher.look_at_pods()
    assert watcher.lives["a-1"].leaves_s == math.inf
    world.api.change(POD, "a-1", "soak", metadata={"deletionTimestamp": "now"})
    watcher.look_at_pods()
    left_s = watcher.lives["a-1"].leaves_s
    world.api.remove(POD, "a-1", "soak")
    watcher.look_at_pods()
    assert left_s <= watcher.lives["a-1"].gone_s < math.inf
    assert watcher.lives["a-1"].leaves_s <= left_s


def test_a_pod_of_a_node_that_stops_and_returns_has_two_lives(world):
    meta = {"name": "a-1", "namespace": "soak", "labels": {"app": "a"}}
    world.api.put(POD, {"metadata": meta, "spec": {"nodeName": "n1"}})
    with mock.patch.object(soak_kind_requests, "connect", return_value=world.api):
        watcher = Watcher()
    watcher.namespace = "soak"
    watcher.look_at_pods()
    watcher.leave("n1")
    watcher.returns("n1")
    watcher.look_at_pods()
    before, after = watcher.all_lives()
    assert before.leaves_s <= before.gone_s < math.inf
    assert after.pod == before.pod
    assert math.isinf(after.leaves_s)


def test_a_fault_that_fails_is_noted_and_the_hour_goes_on(world):
    def befall(_, checked, fault, job):
        assert fault is NONE, "the node does not come back"

    noted: list[str] = []
    (drained,) = faults_of("kind", ("a node is drained",))
    with (
        mock.patch.object(KindWorld, "wait"),
        mock.patch.object(soak_kind, "befall", befall),
    ):
        first, second = (
            soak_kind.happen(fault, "a", world, KindInvariants(), BEGAN_S, noted)
            for fault in (drained, NONE)
        )
    assert math.isinf(first.whole_s)
    assert math.isfinite(second.whole_s)
    assert len(noted) == 1
    assert "a node is drained: the node does not come back" in noted[0]
