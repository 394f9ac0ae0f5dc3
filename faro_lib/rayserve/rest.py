"""Ray's REST interface and the window of the statistics: JSON over HTTP, with a token where Ray wants one."""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TIMEOUT_S = 5.0
AGAIN_S = 0.2
PATIENCE_S = 60.0  # of those who can wait


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirection is an error: it would carry the token to wherever it leads."""

    def redirect_request(self, *_):
        return None


OUTSIDE = urllib.request.build_opener(_NoRedirect)
LOOPBACK = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))  # no proxy leads to ourselves


def is_loopback(host: str | None) -> bool:
    """Whether a host is this machine and no other.

    >>> is_loopback("127.0.0.2"), is_loopback("localhost"), is_loopback("127.0.0.1.example.org")
    (True, True, False)
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


class Refusal(ValueError):
    """The server wants another token, or any."""


def read_token() -> str | None:
    """The token as Ray itself takes it: RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token; None without.

    Raises
    ------
    ValueError : RAY_AUTH_TOKEN_PATH names a file that is not there.
    """
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "disabled":
        return None
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token
    if named := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        if not Path(named).is_file():
            raise ValueError(f"RAY_AUTH_TOKEN_PATH={named}: no such file; it must hold Ray's token")
        return Path(named).read_text().strip()
    home = Path.home() / ".ray" / "auth_token"
    return home.read_text().strip() if home.is_file() else None


@dataclass(frozen=True, slots=True)
class Rest:
    """One server.

    address : http://host:port.
    token : sent as a bearer token; None sends none; a function is asked before every call, so that a token may rotate.
    timeout_s : of each call.
    """

    address: str
    token: str | Callable[[], str | None] | None = field(default=None, repr=False)
    timeout_s: float = TIMEOUT_S

    def __post_init__(self):
        parts = urllib.parse.urlsplit(self.address)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(f"address={self.address!r} must read http://host:port")

    def get(self, path: str, patience_s: float = 0.0) -> Any:
        """Asked again for `patience_s` while it is not answered: a busy machine may miss a timeout once."""
        until = time.monotonic() + patience_s
        while True:
            try:
                return self._call("GET", path)
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(AGAIN_S)

    def post(self, path: str, body: Any) -> Any:
        return self._call("POST", path, body)

    def put(self, path: str, body: Any) -> Any:
        return self._call("PUT", path, body)

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        """The answer's JSON, its text where it is none.

        Raises
        ------
        Refusal : status 401 or 403.
        OSError : no connection, no answer in time, or any other status than 2xx; one line.
        """
        url = self.address.rstrip("/") + path
        headers = {"Content-Type": "application/json"}
        token = self.token() if callable(self.token) else self.token
        if token:
            headers["Authorization"] = f"Bearer {token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, headers, method=method)
        try:
            opener = LOOPBACK if is_loopback(urllib.parse.urlsplit(url).hostname) else OUTSIDE
            with opener.open(request, timeout=self.timeout_s) as answer:
                text = answer.read().decode()
        except urllib.error.HTTPError as error:
            said = " ".join(error.read(300).decode(errors="replace").split())
            if error.code in (401, 403):
                what = "the token is wrong" if token else "it wants a token and none was given"
                raise Refusal(f"{url}: {what}; set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH") from None
            raise OSError(f"{url}: status {error.code}: {said}") from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise OSError(f"{url}: {getattr(error, 'reason', None) or error or type(error).__name__}") from None
        try:
            return json.loads(text)
        except ValueError:
            return text
