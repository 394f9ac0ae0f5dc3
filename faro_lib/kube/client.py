"""How Kubernetes is reached: authentication, time-outs, back-off, and every error as one line.

Objects are the API's own JSON as dictionaries. Two hundred of them cost a few milliseconds so, a second as typed models.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

RETRIED = (429, 500, 502, 503, 504)
JSON, MERGE, APPLY = "application/json", "application/merge-patch+json", "application/apply-patch+yaml"
MANAGER = "faro"  # the field manager that our writes carry
LONGEST_PAUSE_S = 10.0  # between two tries, whatever the server asks for: a tick must come to its end
IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class ApiError(OSError):
    """The API server refused, or was not reached; `status` is HTTP's, 0 where there was no answer."""

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status = status


class Api:
    """A connection to one API server.

    Parameters
    ----------
    load : answers with a `kubernetes.client.Configuration`; called again when the credentials in hand are refused, so
        that a token may rotate.
    namespace : where the connection's owner lives.
    retries : how often 429, 5xx and a broken connection are tried again, with exponential back-off and jitter; the server's
        Retry-After is honoured, up to `LONGEST_PAUSE_S`.
    timeout_s : for each attempt.
    """

    def __init__(self, load: Callable[[], Any], namespace: str, *, retries: int = 4, timeout_s: float = 5.0):
        self.namespace = namespace
        self._load, self._retries, self._timeout_s = load, retries, timeout_s
        self._client = self._fresh()

    def _fresh(self):
        from kubernetes.client import ApiClient
        from urllib3 import Retry

        configuration = self._load()
        configuration.retries = Retry(
            total=self._retries,
            status_forcelist=RETRIED,
            allowed_methods=None,  # a create that is tried again finds its object and is a 409, never a second one
            backoff_factor=0.2,
            backoff_max=LONGEST_PAUSE_S,
            backoff_jitter=0.2,
            retry_after_max=LONGEST_PAUSE_S,
            raise_on_status=False,
        )
        configuration.connection_pool_maxsize = 32
        return ApiClient(configuration)

    @property
    def host(self) -> str:
        return self._client.configuration.host

    def get(self, path: str, **query) -> dict:
        return self.send("GET", path, **query)

    def send(self, method: str, path: str, body: dict | None = None, *, kind: str = JSON, **query) -> dict:
        """One request; the object that it answers with."""
        answer = self._request(method, path, body, kind, query, self._timeout_s)
        text = _body(answer, f"{method} {path}")
        if not 200 <= answer.status < 300:
            raise ApiError(answer.status, f"{method} {path}: {answer.status} {_said(text)}")
        try:
            return json.loads(text) if text else {}
        except ValueError:
            raise ApiError(0, f"{method} {path}: {self.host} does not answer as an API server does") from None

    def apply(self, path: str, thing: dict, **query) -> dict:
        """Server-side apply of `thing` at `path`, taking over fields from whoever had set them."""
        return self.send("PATCH", path, thing, kind=APPLY, fieldManager=MANAGER, force="true", **query)

    def lines(self, path: str, silence_s: float, **query) -> Iterator[dict]:
        """JSON objects, one a line, as they come; it is an error when none comes for `silence_s`."""
        answer = self._request("GET", path, None, JSON, query, (self._timeout_s, silence_s))
        if answer.status != 200:
            raise ApiError(answer.status, f"GET {path}: {answer.status} {_said(_body(answer, f'GET {path}'))}")
        response, rest = answer.response, b""
        try:
            for chunk in response.stream(None):
                *whole, rest = (rest + chunk).split(b"\n")
                yield from (json.loads(line) for line in whole if line)
        except Exception as broken:
            raise ApiError(0, f"GET {path}: the stream broke ({type(broken).__name__})") from None
        finally:
            response.close()
            response.release_conn()

    def _request(self, method, path, body, kind, query, timeout):
        answer = self._once(method, path, body, kind, query, timeout)
        if answer.status == 401:  # the credentials may have been renewed under our feet
            try:
                self._client = self._fresh()  # other threads may still use the old one
            except Exception as broken:  # a kubeconfig breaks its loader in many ways
                raise ApiError(401, f"{self.host}: refused, and new credentials cannot be read: {broken}") from None
            answer = self._once(method, path, body, kind, query, timeout)
        return answer

    def _once(self, method, path, body, kind, query, timeout):
        from urllib3.exceptions import HTTPError

        headers = {"Accept": JSON, "Content-Type": kind, "User-Agent": MANAGER}
        try:
            self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        except Exception as broken:  # it may read a token anew
            raise ApiError(0, f"{self.host}: the credentials cannot be read: {broken}") from None
        url = self.host + path + (f"?{urlencode(query)}" if query else "")
        try:
            return self._client.call_api(method, url, headers, body, _request_timeout=timeout)
        except (HTTPError, OSError) as broken:
            why = getattr(broken, "reason", broken)
            raise ApiError(0, f"{self.host} is not reached: {type(why).__name__}") from None


def _body(answer, asked: str) -> bytes:
    """The rest of an answer, which may break off after its status."""
    from urllib3.exceptions import HTTPError

    try:
        return answer.read()
    except (HTTPError, OSError) as broken:
        raise ApiError(0, f"{asked}: the answer broke off ({type(broken).__name__})") from None


def _said(text: bytes | None) -> str:
    """The message of a Status object."""
    try:
        return str(json.loads(text or b"")["message"])
    except (ValueError, KeyError, TypeError):
        return (text or b"").decode(errors="replace")[:200]


def connect(kubeconfig: str | None = None, context: str | None = None, **options) -> Api:
    """A connection by a kubeconfig (the one named, else $KUBECONFIG or ~/.kube/config), or in a pod by its ServiceAccount.

    Parameters
    ----------
    kubeconfig : path; None chooses the ServiceAccount where there is one.
    context : of the kubeconfig; None is its current one.
    options : of `Api`.

    Raises
    ------
    ValueError : the credentials cannot be read; one line.
    """
    from kubernetes import config
    from kubernetes.client import Configuration

    if kubeconfig is None and context is None and (IN_CLUSTER / "token").exists():

        def load():
            config.load_incluster_config(configuration := Configuration())
            return configuration

        where, namespace = "ServiceAccount", (IN_CLUSTER / "namespace").read_text().strip()
    else:
        where = f"kubeconfig={kubeconfig or config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION}"
        if kubeconfig is not None and not Path(kubeconfig).exists():
            raise ValueError(f"{where}: no such file")

        def load():
            config.load_kube_config(kubeconfig, context, configuration := Configuration(), persist_config=False)
            return configuration

        namespace = "default"
    try:
        api = Api(load, namespace, **options)
        if where != "ServiceAccount":
            _, current = config.list_kube_config_contexts(kubeconfig)
            if context is None:
                api.namespace = current["context"].get("namespace", "default")
    except Exception as mistake:  # a broken kubeconfig breaks the loader in many ways
        raise ValueError(f"{where}: {' '.join(str(mistake).split()) or type(mistake).__name__}") from None
    return api


@lru_cache(4096)
def amount(quantity: str) -> float:
    """A Kubernetes quantity as a number.

    >>> amount("1500m"), amount("2Gi")
    (1.5, 2147483648.0)
    """
    from kubernetes.utils.quantity import parse_quantity

    return float(parse_quantity(quantity))
