"""The age of an informer's copy, and servers that send nothing or end every watch."""

from __future__ import annotations

import threading
import time

import pytest
from waiting import PATIENCE_S, until

from faro_ops.operate.kube import informer as module
from faro_ops.operate.kube.capacity import Capacity
from faro_ops.operate.kube.capacity_watch import CapacityWatch
from faro_ops.operate.kube.client import ApiError
from faro_ops.operate.kube.informer import FIRST_PAUSE_S, Informer


def thing(name, version="1"):
    return {"metadata": {"name": name, "resourceVersion": version}}


def bookmark(version):
    return {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": version}}}


class Server:
    """An API server without a network: `watch()` yields the events of a watch."""

    def __init__(self, watch):
        self.watch, self.lists, self.watches = watch, 0, 0

    def get(self, path, **_):
        self.lists += 1
        return {"items": [thing("a")], "metadata": {"resourceVersion": "1"}}

    def lines(self, path, within_s, **_):
        self.watches += 1
        yield from self.watch()


@pytest.fixture
def following():
    started = []

    def follow(watch):
        server = Server(watch)
        started.append(Informer(server, "/things").start())
        started[-1].wait(PATIENCE_S)
        return server, started[-1]

    yield follow
    for one in started:
        one.stop()


@pytest.mark.parametrize("events", [[], [bookmark("2")]])
def test_a_server_that_ends_every_watch_at_once_is_asked_a_few_times_a_second(following, events):
    began_s = time.monotonic()
    server, _ = following(lambda: iter(events))
    time.sleep(1.0)
    watches = server.watches
    assert watches <= (time.monotonic() - began_s) / FIRST_PAUSE_S + 1
    assert server.lists <= server.watches + 1


def test_a_watch_that_ends_at_once_without_an_event_is_named_as_the_error(following, caplog):
    server, informer = following(lambda: iter([]))
    first_s = time.monotonic() - informer.age_s
    until(lambda: "may be stale" in caplog.text)
    assert "watch /things: it ended at once, without an event" in caplog.text
    until(lambda: server.lists > 2)
    assert time.monotonic() - informer.age_s > first_s, "the list after each watch is an answer"


def test_the_copy_ages_while_a_watch_is_silent_and_an_event_or_bookmark_confirms_it(following):
    go, ended = threading.Event(), threading.Event()

    def watch():
        go.wait(PATIENCE_S)
        yield bookmark("2")
        ended.wait(PATIENCE_S)

    _, informer = following(watch)

    def confirmed_s():
        return time.monotonic() - informer.age_s

    time.sleep(0.3)
    assert informer.age_s >= 0.3
    listed_s = confirmed_s()
    go.set()
    until(lambda: confirmed_s() > listed_s + 0.1)
    ended.set()


def test_the_copy_ages_while_the_server_cannot_be_reached(following):
    away = threading.Event()

    def watch():
        away.wait(PATIENCE_S)
        raise ApiError(0, "connection refused")
        yield

    server, informer = following(watch)
    server.get = lambda path, **_: next(watch())
    away.set()
    until(lambda: informer.error is not None)
    before_s = informer.age_s
    time.sleep(0.3)
    assert informer.age_s >= before_s + 0.3


def test_a_watch_that_brings_nothing_is_followed_by_a_list(following, monkeypatch):
    monkeypatch.setattr(module, "SHORT_WATCH_S", 0.05)

    def watch():
        time.sleep(0.1)
        yield from ()

    server, informer = following(watch)
    until(lambda: server.lists >= 2)
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
