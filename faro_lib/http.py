"""JSON over HTTP for Ray's REST API and Prometheus: TLS, tokens, time-outs, retries and errors in one place."""

from __future__ import annotations

import ipaddress
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests

TIMEOUT_S = 5.0
RETRY_PAUSE_S = 0.2
BUSY_RETRY_S = 60.0  # `retry_for_s` of callers outside the control loop, which can wait for a busy server
CA_FILE = "FARO_CA_FILE"  # environment: PEM file of the authority that signed the servers' certificates
CLIENT_CERTIFICATE = "FARO_CLIENT_CERTIFICATE"  # environment: PEM file with our certificate and its key


class Unauthorized(ValueError):
    """The server answered 401 or 403."""


class HttpError(OSError):
    """No answer (`status` 0), or a status that is not 2xx; `detail` is the server's own message."""

    def __init__(self, url: str, status: int, detail: str):
        super().__init__(f"{url}: {f'status {status}: ' if status else ''}{detail}")
        self.status, self.detail = status, detail


def is_loopback(host: str | None) -> bool:
    """Whether the host name or address means this machine.

    >>> is_loopback("127.0.0.2"), is_loopback("localhost"), is_loopback("127.0.0.1.example.org")
    (True, True, False)
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def check_address(url: str, name: str = "address") -> None:
    """Raise ValueError unless `url` reads http://host or https://host."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"{name}={url!r} must be an http:// or https:// address, http://host:port")


@dataclass(frozen=True, slots=True)
class HttpClient:
    """A client of one server. Redirects are errors, because they would carry the token to another server.

    token : bearer token, or a function that returns it; it is called for each request, so that tokens can rotate.
    timeout_s : for connecting, and for each read.
    token_hint : how to supply the token; ends the message of `Unauthorized`.
    """

    address: str
    token: str | Callable[[], str | None] | None = field(default=None, repr=False)
    timeout_s: float = TIMEOUT_S
    token_hint: str = "set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"

    def __post_init__(self) -> None:
        check_address(self.address)

    def get(self, path: str, retry_for_s: float = 0.0) -> Any:
        """GET; failures are retried for `retry_for_s` seconds."""
        until = time.monotonic() + retry_for_s
        while True:
            try:
                return self.request("GET", path)
            except HttpError:
                if time.monotonic() > until:
                    raise
                time.sleep(RETRY_PAUSE_S)

    def post(self, path: str, body: Any) -> Any:
        return self.request("POST", path, body)

    def put(self, path: str, body: Any) -> Any:
        return self.request("PUT", path, body)

    def request(self, method: str, path: str, body: Any = None, form: dict[str, str] | None = None) -> Any:
        """The answer's JSON, or its text if it is not JSON.

        Each request has a connection of its own: threads share nothing, and certificates can rotate.

        Raises Unauthorized: status 401 or 403.
        HttpError : no complete answer in time, or any other status than 2xx; one line.
        """
        url = self.address.rstrip("/") + path
        token = self.token() if callable(self.token) else self.token
        try:
            with requests.Session() as session:
                session.trust_env = not is_loopback(urlsplit(url).hostname)  # no proxy leads to this machine
                answer = session.request(
                    method,
                    url,
                    json=body,
                    data=form,
                    headers={"Authorization": f"Bearer {token}"} if token else {},
                    auth=lambda prepared: prepared,  # by default `requests` would send a password from ~/.netrc
                    verify=os.environ.get(CA_FILE) or True,
                    cert=os.environ.get(CLIENT_CERTIFICATE) or None,
                    timeout=self.timeout_s,
                    allow_redirects=False,
                )
        except (OSError, ValueError) as error:  # exceptions of `requests` are OSErrors
            cause: Any = error.args[0] if error.args else error
            reason = " ".join(str(getattr(cause, "reason", cause)).split()).split("): ")[-1]
            raise HttpError(url, 0, reason or type(error).__name__) from None
        if answer.status_code in (401, 403):
            problem = "the token is wrong" if token else "the server requires a token and none was given"
            raise Unauthorized(f"{url}: {problem}; {self.token_hint}")
        if not 200 <= answer.status_code < 300:
            raise HttpError(url, answer.status_code, _detail(answer))
        try:
            return answer.json()
        except ValueError:
            return answer.text


def _detail(answer: requests.Response) -> str:
    """An error answer's redirect, its field `error` or `message`, or the start of its text."""
    if answer.is_redirect:
        return f"redirects to {answer.headers['Location']}; use that address"
    try:
        body = answer.json()
        return str(body.get("error") or body["message"])
    except (ValueError, KeyError, AttributeError):
        return " ".join(answer.text[:300].split())
