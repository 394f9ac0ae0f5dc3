"""The HTTP server of the metrics: a thread for each connection, but only so many, and not for long.

A connection that stays idle would otherwise keep its thread and file descriptor for good, until
none is left for the API server and the journal.
"""

import logging
import socket
import sys
import threading
from collections.abc import Callable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

LOG = logging.getLogger(__name__)
# A Prometheus and a probe or two need one connection each, for some milliseconds.
MAX_CONNECTIONS = 32
IDLE_S = 10.0  # longest wait for a client to send or to take data
WSGIApp = Callable[[dict, Callable], Any]


class MetricsServer(ThreadingMixIn, WSGIServer):
    """Answers requests by a WSGI `app`; port 0 stands for any free one, see `server_port`.

    At most `max_connections` are open. A further one takes the place of the oldest, so that clients
    that never finish keep nobody out. OSError if the port is in use.

    idle_s : seconds after which a connection is closed whose client neither sends nor takes data.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        address: str,
        port: int,
        app: WSGIApp,
        max_connections: int = MAX_CONNECTIONS,
        idle_s: float = IDLE_S,
    ):
        # IPv4 or IPv6, as the address says.
        found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, host = found[0][0], found[0][4][0]
        self.idle_s = idle_s
        self._free = threading.BoundedSemaphore(max_connections)
        self._open: dict[socket.socket, None] = {}  # oldest first
        self._lock = threading.Lock()
        super().__init__((str(host), port), Handler)
        self.set_app(app)

    def start(self) -> None:
        """Serve in a thread of its own."""
        threading.Thread(target=self.serve_forever, name="metrics", daemon=True).start()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a new connection; if there are too many, end the oldest one first."""
        while not self._free.acquire(blocking=False):
            self._end_oldest()
            if self._free.acquire(timeout=0.1):  # its thread ends when it notices
                break
        with self._lock:
            self._open[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection, whose thread is about to end."""
        with self._lock:
            self._open.pop(request, None)
        try:
            super().shutdown_request(request)
        finally:
            self._free.release()

    def server_close(self) -> None:
        """Stop listening, and end all connections."""
        super().server_close()
        while self._end_oldest():
            pass

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log, in place of a traceback, that a client was slow or has gone."""
        error = sys.exception()
        if isinstance(error, OSError):
            LOG.debug("metrics: connection from %s ended: %s", client_address, error)
        else:
            LOG.error("metrics: request from %s failed", client_address, exc_info=True)

    def _end_oldest(self) -> bool:
        """Make the thread of the oldest connection end; False if there is none."""
        with self._lock:
            oldest = next(iter(self._open), None)
            if oldest is None:
                return False
            del self._open[oldest]
            try:
                oldest.shutdown(socket.SHUT_RDWR)
            except OSError:
                LOG.debug("metrics: the oldest connection has already ended")
        return True


class Handler(WSGIRequestHandler):
    """Answers one request per connection, without a line in the log."""

    server: MetricsServer

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(self.server.idle_s)  # of each wait

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""
