"""What the hour on kind counts and writes (tests/support/k8s_soak.py), without a cluster."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Callable
from unittest import mock

import k8s_soak
import pytest
import yaml
from k8s_soak import (
    EVENTS,
    LOAD,
    ONLY_ON_KIND,
    Event,
    Life,
    Look,
    Lost,
    SoakWorld,
    attributed,
    cost,
    evict,
    problems,
    sent_between,
    title,
    write_table,
)
from kube_api import KubeApi
from kube_things import DEPLOYMENT, NODE, POD, node, pod
from soak_faults import FAULTS

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


def test_a_quiet_hour_has_no_problem():
    assert problems([event()], [look(90, "a=4 b=3"), look(110, "a=4 b=3")], []) == []


@pytest.mark.parametrize(
    ("looks", "lost", "words"),
    [
        ([look(5, "a=1 b=3")], [], "is asked to run 1"),
        ([look(5, "a=9 b=9")], [], "exceed the capacity"),
        ([look(90, "a=6 b=3"), look(110, "a=3 b=3")], [], "went from 6 to 3"),
        ([], [Lost(7.0, "a", "timeout", 1.0, "", "")], "lost without a killed pod"),
    ],
)
def test_what_does_not_hold_is_a_problem_of_one_line(looks, lost, words):
    (line,) = problems([event()], looks, lost)
    assert words in line


def test_an_event_after_which_not_all_is_as_before_is_a_problem():
    (line,) = problems([event(whole_s=math.inf)], [], [])
    assert "not as before" in line


def test_a_look_while_the_api_server_is_away_is_no_problem():
    assert problems([event()], [look(90, "a=4 b=3"), Look(110.0)], []) == []


def test_tables_have_a_row_for_each_thing(tmp_path):
    write_table(tmp_path / "new" / "events.csv", Event, [event(targets="a=4"), event()])
    rows = list(csv.DictReader((tmp_path / "new" / "events.csv").open()))
    assert [row["targets"] for row in rows] == ["a=4", ""]
    assert rows[0]["whole_s"] == "60.0"


def test_each_event_has_a_name_that_reads_as_a_sentence():
    names = [one.__name__ for one in EVENTS]
    assert len(set(names)) == len(names) == 10
    assert all(len(name.split("_")) > 2 for name in names)


def test_each_event_is_a_fault_of_the_soak_in_virtual_time_too_unless_it_takes_real_pods():
    shared = [one.on_kind for one in FAULTS if one.on_kind]
    only = [title(one) for one in ONLY_ON_KIND]
    assert sorted(shared + only) == sorted(title(one) for one in EVENTS)


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
    text = text.replace(f"end + {k8s_soak.REQUEST_S}", "end + 0.5")
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


@pytest.fixture
def world(tmp_path):
    one = object.__new__(SoakWorld)
    one.api, one.folder, one.namespace, one.names = api_server(), tmp_path, "soak", k8s_soak.NAMES
    rows = [one.row(name) for name in one.names]
    (tmp_path / "jobs.yaml").write_text(yaml.safe_dump({"jobs": rows}))
    one.objects_of = one._manifests()
    return one


def kinds(things):
    return [one["kind"] for one in things]


def test_the_controllers_are_those_of_the_manifests_and_act(world):
    (controller,) = [one for one in world.objects_of["controller"] if one["kind"] == "Deployment"]
    arguments = controller["spec"]["template"]["spec"]["containers"][0]["args"]
    assert controller["spec"]["replicas"] == 2
    assert controller["metadata"]["name"] == f"{k8s_soak.NAME}-controller"
    assert {"--apply", "--wait", "deployments", f"soak/{k8s_soak.NAME}"} <= {*arguments}


def test_taking_the_permissions_deletes_every_binding_and_nothing_else(world):
    world.revoke()
    bindings = [one for one in kinds(world.objects_of["rbac"]) if one.endswith("Binding")]
    assert [method for method, _, _ in world.api.writes] == ["DELETE"] * len(bindings)
    assert len(bindings) >= 2
    assert all("bindings/" in path for _, path, _ in world.api.writes)


def test_a_changed_model_loads_before_it_serves_and_keeps_the_number_of_replicas(world):
    for name in world.names:
        world.api.put(DEPLOYMENT, world.model(name))
    world.change_models(60.0)
    assert len(world.api.writes) == len(world.names)
    for method, path, body in world.api.writes:
        (container,) = body["spec"]["template"]["spec"]["containers"]
        assert (method, "replicas" in body["spec"]) == ("PATCH", False)
        assert container["command"][-1].startswith("sleep 60; exec python")
        assert path.endswith(("/deployments/a", "/deployments/b"))


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
    with mock.patch.object(k8s_soak, "connect", return_value=world.api):
        watcher = k8s_soak.Watcher(world, BEGAN_S)
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


def test_an_event_that_fails_is_noted_and_the_hour_goes_on(world):
    def broken():
        raise AssertionError("the node does not come back")

    noted: list[str] = []
    with mock.patch.object(SoakWorld, "is_whole", return_value=True):
        first = k8s_soak.happen(broken, "a node is drained", world, BEGAN_S, noted)
        second = k8s_soak.happen(lambda: None, "nothing", world, BEGAN_S, noted)
    assert math.isinf(first.whole_s)
    assert math.isfinite(second.whole_s)
    assert len(noted) == 1
    assert "a node is drained: the node does not come back" in noted[0]
