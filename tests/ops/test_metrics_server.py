"""The exporter's HTTP server: however many clients connect, a scrape is answered."""

import os
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest

from faro_lib.workload import Job
from faro_ops.operate.export.exporter import Exporter
from faro_ops.operate.export.metrics_server import MAX_CONNECTIONS, MetricsServer

JOBS = (Job("a"),)
MANY = 200  # connections, far more than the server keeps


def scraped(port: int, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
        return answer.read().decode()


def connections(stack: ExitStack, port: int, count: int) -> list[socket.socket]:
    return [
        stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
        for _ in range(count)
    ]


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether `holds()` becomes True; the limit is only for a test that fails."""
    until_s = time.monotonic() + 30
    while not holds() and time.monotonic() < until_s:
        time.sleep(0.01)
    return holds()


@contextmanager
def serving(**options: float) -> Iterator[MetricsServer]:
    """A server that answers `ok` to every request."""

    def answer(_environ: dict, start_response: Callable) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"ok"]

    server = MetricsServer("127.0.0.1", 0, answer, **options)
    server.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def test_a_scrape_is_answered_beside_many_idle_connections():
    with closing(Exporter(JOBS, 0)) as exporter, ExitStack() as stack:
        connections(stack, exporter.port, MANY)
        assert "faro_ticks_total 0.0" in scraped(exporter.port)
        assert scraped(exporter.port, "/healthz") == "0 s since the last tick\n"


def test_idle_connections_keep_a_bounded_number_of_threads_and_descriptors():
    with closing(Exporter(JOBS, 0)) as exporter, ExitStack() as stack:
        threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
        connections(stack, exporter.port, MANY)
        scraped(exporter.port)  # the server has accepted all connections before
        assert threading.active_count() <= threads + MAX_CONNECTIONS
        # Each connection has one descriptor of the client, which is this process, too.
        kept = len(os.listdir("/proc/self/fd")) - descriptors - MANY
        assert kept <= MAX_CONNECTIONS


def test_an_idle_connection_does_not_keep_a_thread():
    with serving(idle_s=0.05) as server, ExitStack() as stack:
        threads = threading.active_count()
        (client,) = connections(stack, server.server_port, 1)
        assert client.recv(1) == b""  # the server has closed it
        assert eventually(lambda: threading.active_count() == threads)


def test_a_further_connection_takes_the_place_of_the_oldest():
    with serving(max_connections=2) as server, ExitStack() as stack:
        first, second, third = connections(stack, server.server_port, 3)
        assert first.recv(1) == b""
        for client in (second, third):
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert client.makefile("rb").read().endswith(b"ok")


def test_a_client_that_sends_a_byte_at_a_time_keeps_nobody_out():
    with serving(max_connections=1) as server, ExitStack() as stack:
        (slow,) = connections(stack, server.server_port, 1)
        slow.sendall(b"GET / HT")
        assert scraped(server.server_port) == "ok"


def test_closing_the_server_ends_its_connections():
    with ExitStack() as stack:
        with serving() as server:
            (client,) = connections(stack, server.server_port, 1)
            assert scraped(server.server_port) == "ok"  # so the connection has been accepted
        assert client.recv(1) == b""


def test_a_failing_metric_ends_one_request_and_is_logged(caplog):
    def fail(_environ: dict, _start_response: Callable) -> list[bytes]:
        raise KeyError("a bug")

    with serving() as server:
        server.set_app(fail)
        with pytest.raises(urllib.error.HTTPError, match="500"):
            scraped(server.server_port)
        server.set_app(lambda environ, start: (start("200 OK", []) and []) or [b"ok"])
        assert scraped(server.server_port) == "ok"


def test_a_port_in_use_is_refused_in_one_line():
    with serving() as server, pytest.raises(ValueError, match=r"metrics port .* choose another"):
        Exporter(JOBS, server.server_port)
