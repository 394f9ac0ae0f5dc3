"""JSON over HTTP for Ray's REST API and Prometheus: TLS, tokens, time-outs, retries and errors in one place."""

from __future__ import annotations

import ipaddress
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
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
        super().__init__(f"{url}: status {status}: {detail}" if status else f"{url}: {detail}")
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

    Parameters
    ----------
    address : http://host:port or https://host:port, without a path.
    token : bearer token, or a function that returns it; the function is called for each request, so tokens can rotate.
    timeout_s : for connecting, and for each read.
    token_hint : how to supply the token; ends the message of `Unauthorized`.
    """

    address: str
    token: str | Callable[[], str | None] | None = field(default=None, repr=False)
    timeout_s: float = TIMEOUT_S
    token_hint: str = "set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"

    def __post_init__(self):
        check_address(self.address)

    def get(self, path: str, retry_for_s: float = 0.0) -> Any:
        """The answer's JSON (its text if it is not JSON); failures are retried for `retry_for_s` seconds."""
        until = time.monotonic() + retry_for_s
        while True:
            try:
                return self._request("GET", path)
            except HttpError:
                if time.monotonic() > until:
                    raise
                time.sleep(RETRY_PAUSE_S)

    def post(self, path: str, body: Any) -> Any:
        return self._request("POST", path, json=body)

    def put(self, path: str, body: Any) -> Any:
        return self._request("PUT", path, json=body)

    def post_form(self, path: str, fields: dict[str, str]) -> Any:
        return self._request("POST", path, data=fields)

    def _request(self, method: str, path: str, **content: Any) -> Any:
        """Send one request on a connection of its own, so that threads share nothing and certificates can rotate.

        Raises
        ------
        Unauthorized : status 401 or 403.
        HttpError : no complete answer in time, or any other status than 2xx; one line.
        """
        url = self.address.rstrip("/") + path
        token = self.token() if callable(self.token) else self.token
        try:
            with requests.Session() as session:
                session.trust_env = not is_loopback(urlsplit(url).hostname)  # no proxy leads to this machine
                session.auth = _Bearer(token)
                tls = {"verify": os.environ.get(CA_FILE) or True, "cert": os.environ.get(CLIENT_CERTIFICATE) or None}
                limits = {"timeout": self.timeout_s, "allow_redirects": False}
                answer = session.request(method, url, **tls, **limits, **content)
        except (requests.RequestException, OSError, ValueError) as error:
            raise HttpError(url, 0, _reason(error)) from None
        if answer.status_code in (401, 403):
            reason = "the token is wrong" if token else "the server requires a token and none was given"
            raise Unauthorized(f"{url}: {reason}; {self.token_hint}")
        if not answer.ok or answer.is_redirect:
            raise HttpError(url, answer.status_code, _detail(answer))
        try:
            return answer.json()
        except ValueError:
            return answer.text


@dataclass(frozen=True, slots=True)
class _Bearer(requests.auth.AuthBase):
    """Sets the header even where there is no token: without it, `requests` would take a password from ~/.netrc."""

    token: str | None

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self.token:
            request.headers["Authorization"] = f"Bearer {self.token}"
        return request


def _detail(answer: requests.Response) -> str:
    """The message of an error answer: its field `error` or `message`, its redirect, or the start of its text."""
    if answer.is_redirect:
        return f"redirects to {answer.headers['Location']}; use that address"
    try:
        body = answer.json()
        return str(body.get("error") or body["message"])
    except (ValueError, KeyError, AttributeError):
        return " ".join(answer.text[:300].split())


def _reason(error: Exception) -> str:
    """One line for a failed connection, without the layers that `requests` and urllib3 put around the cause."""
    cause: Any = error.args[0] if error.args else error
    cause = getattr(cause, "reason", cause)
    return " ".join(str(cause).split()).split("): ")[-1] or type(error).__name__


def token_file(path: str | None, name: str) -> Callable[[], str] | None:
    """A function that reads the bearer token in the file `path`; None without a path.

    Raises
    ------
    ValueError : there is no such file; `name` is the setting that the message blames.
    """
    if path is None:
        return None
    if not Path(path).is_file():
        raise ValueError(f"{name}={path}: no such file; it must hold a bearer token")
    return lambda: Path(path).read_text().strip()
