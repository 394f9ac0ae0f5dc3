"""The HTTP server of all stand-ins: one function answers each request."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Request:
    """A request, as a function that answers it sees it."""

    method: str
    address: str  # path and query
    content: bytes
    headers: Message

    @property
    def path(self) -> str:
        return urlsplit(self.address).path

    @cached_property
    def query(self) -> dict[str, str]:
        """The parameters of the address, and those of a form."""
        text = urlsplit(self.address).query
        if self.headers.get("Content-Type") == FORM:
            text += f"&{self.content.decode()}"
        return {key: values[0] for key, values in parse_qs(text).items()}

    @property
    def body(self) -> Any:
        """The object of a JSON body; None without a body."""
        return json.loads(self.content) if self.content else None


class HttpServer(ThreadingHTTPServer):
    """Answers with what `answer(request)` returns: (status, object), and headers if it likes.

    Bytes are sent as they are, an iterator as a stream of JSON lines, and anything else as JSON.

    asked : the requests so far.
    """

    daemon_threads = True

    def __init__(self, answer: Callable[[Request], tuple], host: str, scheme: str):
        self.answer = answer
        self.scheme = scheme
        self.asked: list[Request] = []
        super().__init__((host, 0), _Handler)

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.server_address[0]}:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """A client that has stopped to wait is no error."""


class _Handler(BaseHTTPRequestHandler):
    server: HttpServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Request(self.command, self.path, content, self.headers)
        self.server.asked.append(request)
        status, thing, *more = self.server.answer(request)
        if not isinstance(thing, bytes | Iterator):
            thing = json.dumps(thing).encode()
        headers = {"Content-Length": str(len(thing))} if isinstance(thing, bytes) else {}
        self.send_response(status)
        for name, value in (headers | (more[0] if more else {})).items():
            self.send_header(name, value)
        self.end_headers()
        for part in [thing] if isinstance(thing, bytes) else thing:
            self.wfile.write(part if isinstance(part, bytes) else json.dumps(part).encode() + b"\n")

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET


@contextmanager
def serving(
    answer: Callable[[Request], tuple],
    host: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
) -> Iterator[HttpServer]:
    """A server, until the block ends. Each answer closes its connection."""
    server = HttpServer(answer, host, "https" if tls else "http")
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
