"""The age of an informer's copy, and servers that send nothing or end every watch."""

from __future__ import annotations

import time

import pytest
from kube_api import KubeApi
from kube_things import DEPLOYMENT, deployment, object_path
from waiting import PATIENCE_S, until

from faro_ops.operate.kube import informer as module
from faro_ops.operate.kube.capacity import Capacity
from faro_ops.operate.kube.capacity_watch import CapacityWatch
from faro_ops.operate.kube.client import ApiError
from faro_ops.operate.kube.informer import FIRST_PAUSE_S, Informer

DEPLOYMENTS = object_path(DEPLOYMENT)


@pytest.fixture
def server():
    """An API server with the Deployment a."""
    one = KubeApi()
    one.put(DEPLOYMENT, deployment("a"))
    yield one
    one.closed = True


@pytest.fixture
def following(server):
    started = []

    def follow():
        started.append(Informer(server, DEPLOYMENTS).start())
        started[-1].wait(PATIENCE_S)
        return started[-1]

    yield follow
    for one in started:
        one.stop()


def lists(server) -> int:
    return len(server.requests) - watches(server)


def watches(server) -> int:
    return sum(method == "WATCH" for method, _, _ in server.requests)


@pytest.mark.parametrize("bookmarks", [False, True])
def test_a_server_that_ends_every_watch_at_once_is_asked_a_few_times_a_second(
    server, following, bookmarks, monkeypatch
):
    server.ends_watches = not bookmarks
    monkeypatch.setattr(module, "WATCH_S", 0 if bookmarks else module.WATCH_S)
    began_s = time.monotonic()
    following()
    time.sleep(1.0)
    asked = watches(server)
    assert asked <= (time.monotonic() - began_s) / FIRST_PAUSE_S + 1
    assert lists(server) <= watches(server) + 1


def test_a_watch_that_ends_at_once_without_an_event_is_named_as_the_error(
    server, following, caplog
):
    server.ends_watches = True
    informer = following()
    first_s = time.monotonic() - informer.age_s
    until(lambda: "may be stale" in caplog.text)
    assert f"watch {DEPLOYMENTS}: it ended at once, without an event" in caplog.text
    until(lambda: lists(server) > 2)
    assert time.monotonic() - informer.age_s > first_s, "the list after each watch is an answer"


@pytest.mark.parametrize("event", ["a change", "a bookmark"])
def test_the_copy_ages_while_a_watch_is_silent_and_an_event_or_bookmark_confirms_it(
    server, following, event, monkeypatch
):
    if event == "a bookmark":
        monkeypatch.setattr(module, "WATCH_S", 1)  # the server sends one before it ends a watch
    informer = following()

    def confirmed_s():
        return time.monotonic() - informer.age_s

    time.sleep(0.3)
    assert informer.age_s >= 0.3
    listed_s = confirmed_s()
    if event == "a change":
        server.put(DEPLOYMENT, deployment("b"))
    until(lambda: confirmed_s() > listed_s + 0.1)
    assert lists(server) == 1


def test_the_copy_ages_while_the_server_cannot_be_reached(server, following, monkeypatch):
    monkeypatch.setattr(module, "LONGEST_WATCH_S", 0.1)
    informer = following()
    server.silent = True
    until(lambda: informer.error is not None)
    before_s = informer.age_s
    time.sleep(0.3)
    assert informer.age_s >= before_s + 0.3


def test_a_watch_that_brings_nothing_is_followed_by_a_list(server, following, monkeypatch):
    monkeypatch.setattr(module, "SHORT_WATCH_S", 0.05)
    answer = server.lines

    def without_a_bookmark(path, within_s, **query):
        time.sleep(0.1)
        server.ends_watches = True
        return answer(path, within_s, **query)

    server.lines = without_a_bookmark
    informer = following()
    until(lambda: lists(server) >= 2)
    assert informer.error is None


def test_a_copy_that_was_never_listed_is_infinitely_old():
    assert Informer(None, "/things").age_s == float("inf")


def test_the_capacity_is_as_old_as_the_oldest_copy_and_names_its_error():
    class Copy:
        def __init__(self, path, age_s, error=None):
            self.path, self.age_s, self.error = path, age_s, error

    class Watch(CapacityWatch):
        def measured(self):
            return Capacity(8.0, {}, {})

    found = Watch(Copy("/pods", 3.0), Copy("/nodes", 95.0, ApiError(403, "forbidden"))).current()
    assert (found.age_s, found.outage) == (95.0, "/nodes: forbidden")
