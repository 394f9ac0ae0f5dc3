"""A total time for an HTTP request, however slowly its server answers.

A time-out of a socket limits only each wait. A server, or a proxy, that sends a byte before each
time-out would hold its caller without end. `RequestDeadline` shuts the connection down instead, in
a thread. For that, the pool manager of urllib3 must make connections of this module
(`use_watched_connections`).
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from http.client import HTTPException
from types import TracebackType
from typing import Any, Self

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection

WHOLE_TIMEOUTS = 3.0  # a whole request may take this many times its time-out for a single wait


class DeadlinePassed(Exception):
    """The request took longer than its total time.

    It is no OSError, because urllib3 would try again after one.
    """

    def __init__(self, seconds: float):
        super().__init__(f"no complete answer within {seconds:.3g} s")


class RequestDeadline:
    """A context manager that ends the requests within it after `seconds`.

    Whatever the requests raise or return after that, it raises DeadlinePassed. It applies to the
    requests of this thread within `applied()`, with their retries, until it is left.
    """

    def __init__(self, seconds: float):
        self.seconds = seconds
        self._lock = threading.Lock()
        self._over = self._left = False
        self._connection: Any = None  # the connection that this request uses
        self._socket: Any = None  # its socket, which a connection forgets before the body is read
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._left = True
        self._timer.cancel()
        # A broken connection may look like the end of the answer. What ends the program, or closes
        # a generator, passes.
        if self._over and (error is None or isinstance(error, Exception)):
            raise DeadlinePassed(self.seconds) from None

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Apply this deadline to the requests that the thread sends within the context."""
        token = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(token)

    def watch(self, connection: Any) -> None:
        """Note the connection, and its socket if it has one; DeadlinePassed if it is too late."""
        with self._lock:
            # Another request may have used the connection before, and cuts it no longer.
            connection.deadline = self
            self._connection, self._socket = connection, connection.sock
            if self._over:
                raise DeadlinePassed(self.seconds)

    def _end(self) -> None:
        with self._lock:
            if self._left:
                return
            self._over = True
            connection = self._connection
            if connection is None or connection.deadline is not self:
                return
            for one in {self._socket, connection.sock} - {None}:
                with suppress(OSError):  # it is closed already
                    one.shutdown(socket.SHUT_RDWR)


_CURRENT: ContextVar[RequestDeadline | None] = ContextVar("request_deadline", default=None)


class _Watched:
    """A connection of urllib3 that the deadline of the current request can shut down."""

    deadline: RequestDeadline | None = None

    def connect(self) -> None:
        self._watch()  # before, because a proxy may answer slowly, too
        super().connect()  # type: ignore[misc]
        self._watch()

    def request(self, *args: Any, **options: Any) -> None:
        self._watch()
        super().request(*args, **options)  # type: ignore[misc]

    def getresponse(self) -> Any:
        self._watch()
        try:
            return super().getresponse()  # type: ignore[misc]
        except (OSError, HTTPException):
            self._watch()  # urllib3 would send the request again
            raise

    def _watch(self) -> None:
        deadline = _CURRENT.get()
        if deadline is not None:
            deadline.watch(self)


class _WatchedHTTP(_Watched, HTTPConnection):
    pass


class _WatchedHTTPS(_Watched, HTTPSConnection):
    pass


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _WatchedHTTP


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _WatchedHTTPS


def use_watched_connections(manager: PoolManager) -> None:
    """Let `manager` make connections that a RequestDeadline can end.

    A manager for a SOCKS proxy, which has connections of its own, stays as it is.
    """
    if manager.pool_classes_by_scheme["https"] is HTTPSConnectionPool:
        manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
