"""An API server, or a proxy before it, that sends its answers byte by byte holds no caller."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import pytest
from http_server import serving
from test_kube_http import api_at as api_of
from waiting import PATIENCE_S

from faro_ops.http import HttpClient, HttpTimeout
from faro_ops.operate.kube import client
from faro_ops.operate.kube.client import ApiError

HEADERS = b"HTTP/1.1 200 OK\r\n"
BODY = HEADERS + b"Content-Length: 1000\r\n\r\n{"
CHUNKED = HEADERS + b"Transfer-Encoding: chunked\r\n\r\n1"
CLOSED = HEADERS + b"Connection: close\r\n\r\n["
STARTS = [b"", HEADERS, BODY, CHUNKED, CLOSED]
NAMES = ["status line", "headers", "body", "chunks", "body until the end"]


class Dripping:
    """A server that sends `start` and then a byte every 20 ms, to each connection."""

    def __init__(self, start: bytes):
        self.over, self.connections = threading.Event(), 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self._start = start
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.connections += 1
                threading.Thread(target=self._drip, args=[connection], daemon=True).start()

    def _drip(self, connection):
        with connection, suppress(OSError):
            connection.sendall(self._start)
            while not self.over.wait(0.02):
                connection.sendall(b"1")


@contextmanager
def dripping(start: bytes):
    server = Dripping(start)
    try:
        yield server
    finally:
        server.over.set()
        server.listener.close()


def error_of(call) -> OSError:
    """The OSError of `call`; fails if it does not end, because the servers here never do."""
    errors = []

    def ask():
        try:
            call()
        except OSError as error:
            errors.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PATIENCE_S)
    assert not asking.is_alive(), "it would have held the caller without end"
    return errors[0]


@pytest.mark.parametrize("method", ["GET", "PATCH"])
@pytest.mark.parametrize("start", STARTS, ids=NAMES)
def test_a_request_ends_after_its_whole_time_however_slowly_the_answer_drips(
    start, method, monkeypatch
):
    monkeypatch.setattr(client, "WHOLE_TIMEOUTS", 0.01)
    with dripping(start) as server:
        api = api_of(server, timeout_s=60.0)  # no wait for a byte takes so long
        error = error_of(lambda: api.send(method, "/x", {}))
    assert str(error) == f"{method} /x: no complete answer within 0.6 s"
    assert server.connections <= 1, "a dripping server is not asked again"


@pytest.mark.parametrize("start", STARTS, ids=NAMES)
def test_a_watch_that_drips_ends_after_its_time(start):
    with dripping(start) as server:
        api = api_of(server, timeout_s=60.0)
        error = error_of(lambda: list(api.lines("/x", 0.9, watch="true")))
    assert str(error) == "GET /x: the stream has not ended after 0.9 s"


def test_a_server_that_hangs_at_each_attempt_ends_the_request_too():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        class Hanging:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"

        api = api_of(Hanging, timeout_s=0.3, retries=20)
        error = error_of(lambda: api.get("/x"))
    assert str(error) == "GET /x: no complete answer within 0.9 s"


def test_a_list_may_take_longer_than_other_requests(monkeypatch):
    monkeypatch.setattr(client, "WHOLE_TIMEOUTS", 0.002)

    def slow(*_):
        time.sleep(0.25)
        return 200, {"items": []}

    with serving(slow) as server:
        api = api_of(server, timeout_s=60.0, retries=0)
        with pytest.raises(ApiError, match=r"no complete answer within 0\.12 s"):
            api.get("/x")
        assert api.get("/x", within_s=60.0) == {"items": []}


def test_a_deadline_that_is_left_cuts_no_later_request_on_the_same_connection(monkeypatch):
    """Connections are kept; the second request here runs past the end of the first one's time."""
    replies, connections, now_s = [b'{"n": 1}', b'{"n": 2}'], [], [0.0]
    clock = SimpleNamespace(monotonic=lambda: now_s[0])
    monkeypatch.setattr("faro_ops.request_deadline.time", clock)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        connection, _ = listener.accept()
        connections.append(connection)
        for reply in replies:
            connection.recv(65536)
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(reply)
            connection.sendall(head + reply)

    class Keeping:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    threading.Thread(target=serve, daemon=True).start()
    api = api_of(Keeping, timeout_s=60.0, retries=0)
    assert api.get("/x") == json.loads(replies[0])
    now_s[0] = 1000.0  # the first request had 180 s
    assert api.get("/x") == json.loads(replies[1])
    assert len(connections) == 1
    listener.close()


@pytest.mark.parametrize("start", [b"", HEADERS])
def test_a_proxy_that_drips_its_reply_to_connect_holds_no_caller(start, monkeypatch):
    monkeypatch.setattr("faro_ops.http.is_loopback", lambda host: False)
    with dripping(start) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        web = HttpClient("https://faro.invalid", timeout_s=60.0)
        error = error_of(lambda: web.request("GET", "/", within_s=0.6))
    assert isinstance(error, HttpTimeout)
    assert str(error).endswith("no complete answer within 0.6 s")
