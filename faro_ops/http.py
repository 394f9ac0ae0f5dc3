"""HTTP client for Ray's REST API and Prometheus.

It has TLS, tokens, time-outs and retries. Each error is one line. A request ends within a total
time, even if the server sends its answer byte by byte.
"""

import ipaddress
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ReadTimeoutError

from faro_ops.request_deadline import (
    WHOLE_TIMEOUTS,
    DeadlinePassed,
    deadline,
    use_timed_connections,
)

TIMEOUT_S = 5.0
RETRY_PAUSE_S = 0.2
# Argument `retry_for_s` of `HttpClient.get` for callers that can wait for a busy server.
BUSY_RETRY_S = 60.0
# Environment variables that name PEM files.
CA_FILE = "FARO_CA_FILE"  # the servers' certificate authority
CLIENT_CERTIFICATE = "FARO_CLIENT_CERTIFICATE"  # the client's certificate with its key


class Unauthorized(ValueError):
    """The server answered 401 or 403."""


class HttpError(OSError):
    """No answer (`status` 0), or a status other than 2xx.

    `detail` is the server's message or the network error.
    """

    def __init__(self, url: str, status: int, detail: str):
        problem = f"status {status}: {detail}" if status else detail
        super().__init__(f"{url}: {problem}")
        self.status = status
        self.detail = detail


class HttpTimeout(HttpError):
    """No complete answer in time."""


class DeadlineAdapter(HTTPAdapter):
    """An adapter whose connections end with the `deadline` of their request."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        use_timed_connections(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*args, **options)
        use_timed_connections(manager)
        return manager


def is_loopback(host: str | None) -> bool:
    """Whether a host name or address is loopback.

    >>> is_loopback("127.0.0.2"), is_loopback("localhost"), is_loopback("127.0.0.1.example.org")
    (True, True, False)
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def check_address(url: str, name: str = "address") -> None:
    """Raise ValueError unless `url` begins with http://host or https://host.

    A user and a password in it are refused, too.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc:
        host = parts.netloc.rpartition("@")[2]
        problem = "has a user or a password, which would appear in logs; Faro sends tokens only"
        raise ValueError(f"{name}={parts.scheme}://{host} {problem}")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"{name}={url!r} must be an http:// or https:// address, http://host:port")


@dataclass(frozen=True, slots=True)
class HttpClient:
    """A client of one server.

    Redirects are errors, because following one could send the token to another server.
    """

    address: str
    # A function is called for each request.
    token: str | Callable[[], str | None] | None = field(default=None, repr=False)
    # For connecting, and for each wait for data. WHOLE_TIMEOUTS limits the whole request.
    timeout_s: float = TIMEOUT_S
    # Advice in the message of `Unauthorized`.
    token_hint: str = "set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"

    def __post_init__(self) -> None:
        check_address(self.address)

    def get(self, path: str, retry_for_s: float = 0.0) -> Any:
        """The answer to GET `path`; after an HttpError, retry for `retry_for_s` seconds."""
        until_s = time.monotonic() + retry_for_s
        while True:
            try:
                return self.request("GET", path)
            except HttpError:
                if time.monotonic() > until_s:
                    raise
                time.sleep(RETRY_PAUSE_S)

    def post(self, path: str, body: Any) -> Any:
        return self.request("POST", path, body)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        form: dict[str, str] | None = None,
        within_s: float | None = None,
    ) -> Any:
        """Send `body` as JSON or `form` as form data; return the answer as JSON, or else as text.

        within_s : time-out of the whole request; None: WHOLE_TIMEOUTS * `timeout_s`.

        Raises Unauthorized for status 401 or 403, HttpTimeout if the answer is not complete in
        time, and HttpError for an incomplete answer or any other status outside 2xx.
        """
        within_s = within_s or WHOLE_TIMEOUTS * self.timeout_s
        url = self.address.rstrip("/") + path
        token = self.token() if callable(self.token) else self.token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        adapter = DeadlineAdapter()
        try:
            with deadline(within_s), requests.Session() as session:
                session.mount("http://", adapter)
                session.mount("https://", adapter)
                # Use no proxy for loopback.
                session.trust_env = not is_loopback(urlsplit(url).hostname)
                answer = session.request(
                    method,
                    url,
                    json=body,
                    data=form,
                    headers=headers,
                    # Without `auth`, `requests` would send a password from ~/.netrc.
                    auth=lambda prepared: prepared,
                    verify=os.environ.get(CA_FILE) or True,
                    cert=os.environ.get(CLIENT_CERTIFICATE) or None,
                    timeout=min(self.timeout_s, within_s),
                    allow_redirects=False,
                )
        except DeadlinePassed as error:
            raise HttpTimeout(url, 0, str(error)) from None
        except (OSError, ValueError) as error:  # exceptions of `requests` are OSErrors
            kind = HttpTimeout if _is_timeout(error) else HttpError
            raise kind(url, 0, _reason(error)) from None
        if answer.status_code in (401, 403):
            wrong = "the token is wrong"
            missing = "the server requires a token and none was given"
            raise Unauthorized(f"{url}: {wrong if token else missing}; {self.token_hint}")
        if not 200 <= answer.status_code < 300:
            raise HttpError(url, answer.status_code, _detail(answer))
        try:
            return answer.json()
        except ValueError:
            return answer.text


def _is_timeout(error: Exception) -> bool:
    """Whether an exception of `requests` is a time-out, also one within the body."""
    within_body = bool(error.args) and isinstance(error.args[0], ReadTimeoutError)
    return isinstance(error, requests.Timeout) or within_body


def _reason(error: Exception) -> str:
    """The innermost reason of an exception of `requests`, on one line."""
    cause: Any = error.args[0] if error.args else error
    text = " ".join(str(getattr(cause, "reason", cause)).split())
    # urllib3 writes "<object>(host=..., port=...): reason".
    return text.split("): ")[-1] or type(error).__name__


def _detail(answer: requests.Response) -> str:
    """The detail of an error response.

    It is the redirect target, the field `error` or `message`, or the start of the text.
    """
    if answer.is_redirect:
        return f"redirects to {answer.headers['Location']}; use that address"
    try:
        body = answer.json()
        return str(body.get("error") or body["message"])
    except (ValueError, KeyError, AttributeError):
        return " ".join(answer.text[:300].split())
