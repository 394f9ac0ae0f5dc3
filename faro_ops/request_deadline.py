"""A total time for an HTTP request, however slowly its server answers.

A time-out of a socket limits only each wait, so a server, or a proxy, that sends a byte before each
time-out would hold its caller without end. Within `deadline(seconds)`, each wait is no longer than
what remains of the total. For that, the pool manager of urllib3 must make connections of this
module (`use_timed_connections`).
"""

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection

WHOLE_TIMEOUTS = 3.0  # a whole request may take this many times its time-out for a single wait


class DeadlinePassed(Exception):
    """The request took longer than its total time.

    It is no OSError, because urllib3 would try again after one.
    """

    def __init__(self, seconds: float):
        super().__init__(f"no complete answer within {seconds:.3g} s")


@dataclass(frozen=True, slots=True)
class _Deadline:
    """The end of a request, at `until_s` of the monotonic clock, and its total time `seconds`."""

    until_s: float
    seconds: float

    def remaining_s(self) -> float:
        """The seconds that remain; DeadlinePassed if there are none."""
        left_s = self.until_s - time.monotonic()
        if left_s <= 0:
            raise DeadlinePassed(self.seconds)
        return left_s

    def shortened(self, timeout_s: float | None) -> float:
        """A time-out of one wait that ends no later than the request; DeadlinePassed if late."""
        left_s = self.remaining_s()
        return left_s if timeout_s is None else min(timeout_s, left_s)


_CURRENT: ContextVar[_Deadline | None] = ContextVar("request_deadline", default=None)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """End the requests that this thread sends within the context, with their retries, in time.

    A request that has not its complete answer `seconds` after the start of the context raises
    DeadlinePassed. An answer whose body is read after the context keeps its deadline.
    """
    token = _CURRENT.set(_Deadline(time.monotonic() + seconds, seconds))
    try:
        yield
    finally:
        _CURRENT.reset(token)


class _TimedReader(io.RawIOBase):
    """Reads a socket; no wait is longer than the socket's time-out or what remains."""

    def __init__(self, raw: io.RawIOBase, sock: Any, end: _Deadline):
        self._raw, self._sock, self._end = raw, sock, end
        self._timeout_s = sock.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._end.shortened(self._timeout_s))
        try:
            return self._raw.readinto(buffer)
        except TimeoutError:
            self._end.remaining_s()  # raises DeadlinePassed, which is the reason then
            raise

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedResponse(HTTPResponse):
    """A response of http.client, of a server or of a proxy's CONNECT, whose reads have an end."""

    def __init__(self, sock: Any, *args: Any, **options: Any):
        super().__init__(sock, *args, **options)
        end = _CURRENT.get()
        if end is not None:
            self.fp = io.BufferedReader(_TimedReader(self.fp.detach(), sock, end))


class _Timed:
    """A connection of urllib3 that begins nothing after the deadline."""

    response_class: Any = _TimedResponse
    timeout: Any

    def connect(self) -> None:
        end = _CURRENT.get()
        if end is not None:
            self.timeout = end.shortened(self.timeout)
        super().connect()  # type: ignore[misc]

    def request(self, *args: Any, **options: Any) -> None:
        end = _CURRENT.get()
        if end is not None:
            self.timeout = end.shortened(self.timeout)
        super().request(*args, **options)  # type: ignore[misc]


class _TimedHTTP(_Timed, HTTPConnection):
    pass


class _TimedHTTPS(_Timed, HTTPSConnection):
    pass


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _TimedHTTP


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _TimedHTTPS


def use_timed_connections(manager: PoolManager) -> None:
    """Let `manager` make connections that end with the `deadline` of their request.

    A manager for a SOCKS proxy, which has connections of its own, stays as it is.
    """
    if manager.pool_classes_by_scheme["https"] is HTTPSConnectionPool:
        manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
