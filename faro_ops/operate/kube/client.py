"""Requests to the Kubernetes API server, with time-outs and retries. Each error is one line.

A request ends within a total time, even if the server sends its answer byte by byte.

The official client loads and refreshes the credentials and sends the requests. This module adds
server-side apply, watches that notice a dead connection, and retries with a maximum pause. It
returns dictionaries instead of typed models, because 200 objects then load in milliseconds instead
of a second.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from faro_lib.files import lines_of
from faro_ops.request_deadline import (
    WHOLE_TIMEOUTS,
    DeadlinePassed,
    deadline,
    use_timed_connections,
)

if TYPE_CHECKING:
    from kubernetes.client import ApiClient, Configuration

RETRIED = (429, 500, 502, 503, 504)
# Media types of a body: an object, a merge patch, and a server-side apply.
JSON = "application/json"
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
MAX_LINE_BYTES = 64 << 20  # of a stream; an API server stores no object of more than some MiB
MANAGER = "faro"  # the field manager that the API server records for Faro's writes
# Longest pause between attempts, even if the server asks for more, so that ticks end in time.
LONGEST_PAUSE_S = 10.0
IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class ApiError(OSError):
    """The API server refused the request (HTTP `status`) or did not answer (`status` 0)."""

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status = status


class Api:
    """A connection to one API server.

    load : returns a `kubernetes.client.Configuration`; called again after a 401, so that
        credentials can rotate.
    namespace : default namespace, from the kubeconfig's context or the pod.
    retries : number of retries after 429, 5xx and broken connections. Their pauses grow, up to
        `LONGEST_PAUSE_S`.
    timeout_s : time-out of each wait. A request, with its retries, ends after WHOLE_TIMEOUTS times
        as long, or at the end of a pause that has begun then.
    """

    def __init__(
        self,
        load: Callable[[], Configuration],
        namespace: str,
        *,
        retries: int = 4,
        timeout_s: float = 5.0,
    ):
        self.namespace = namespace
        self._load = load
        self._retries = retries
        self._timeout_s = timeout_s
        self._client = self._new_client()

    def _new_client(self) -> ApiClient:
        from kubernetes.client import ApiClient
        from urllib3 import Retry

        configuration = self._load()
        configuration.retries = Retry(
            total=self._retries,
            status_forcelist=RETRIED,
            # Every method, because a repeated POST can at worst duplicate a Kubernetes Event.
            allowed_methods=None,
            backoff_factor=0.2,
            backoff_max=LONGEST_PAUSE_S,
            backoff_jitter=0.2,
            retry_after_max=LONGEST_PAUSE_S,  # type: ignore[arg-type]
            raise_on_status=False,
        )
        configuration.connection_pool_maxsize = 32
        client = ApiClient(configuration)
        use_timed_connections(client.rest_client.pool_manager)
        return client

    @property
    def host(self) -> str:
        return self._client.configuration.host

    def get(self, path: str, *, within_s: float | None = None, **query: Any) -> dict:
        """The object at `path`; for the arguments and errors, see `send`."""
        return self.send("GET", path, within_s=within_s, **query)

    def send(
        self,
        method: str,
        path: str,
        body: dict | None = None,
        *,
        kind: str = JSON,
        within_s: float | None = None,
        **query: Any,
    ) -> dict:
        """Send a body of media type `kind` and return the object in the answer; raises ApiError.

        within_s : total time of the request; None: WHOLE_TIMEOUTS times the time-out of a wait.
        """
        request = f"{method} {path}"
        try:
            with deadline(within_s or WHOLE_TIMEOUTS * self._timeout_s):
                answer = self._request(method, path, body, kind, query, self._timeout_s)
                text = _read(answer, request)
        except DeadlinePassed as error:
            raise ApiError(0, f"{request}: {error}") from None
        try:
            return json.loads(text) if text else {}
        except ValueError:
            problem = f"{self.host} does not answer as an API server does"
            raise ApiError(0, f"{request}: {problem}") from None

    def apply(self, path: str, manifest: dict, **query: Any) -> dict:
        """Create or update an object by server-side apply, overwriting other managers' fields."""
        return self.send(
            "PATCH", path, manifest, kind=APPLY, fieldManager=MANAGER, force="true", **query
        )

    def lines(self, path: str, within_s: float, **query: Any) -> Iterator[dict]:
        """The JSON objects of a stream, one per line.

        Raises ApiError if the stream has not ended after `within_s` seconds.
        """
        try:
            with deadline(within_s):  # which the answer keeps; not while the caller has control
                timeout = (self._timeout_s, within_s)
                answer = self._request("GET", path, None, JSON, query, timeout)
            yield from _objects(answer.response, f"GET {path}")
        except DeadlinePassed:
            problem = f"the stream has not ended after {within_s:g} s"
            raise ApiError(0, f"GET {path}: {problem}") from None

    def _request(
        self,
        method: str,
        path: str,
        body: dict | None,
        kind: str,
        query: dict,
        timeout: Any,
        again: bool = True,
    ) -> Any:
        """Send a request and return the raw 2xx answer; raises ApiError.

        After a 401, if `again`, reload the credentials and resend the request once.
        """
        from urllib3.exceptions import HTTPError

        headers = {"Accept": JSON, "Content-Type": kind, "User-Agent": MANAGER}
        try:
            self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        except Exception as error:  # of any type, because reading the credentials may run a plugin
            raise ApiError(0, f"{self.host}: the credentials cannot be read: {error}") from None
        url = self.host + path + (f"?{urlencode(query)}" if query else "")
        try:
            answer = self._client.call_api(method, url, headers, body, _request_timeout=timeout)
        except (HTTPError, OSError) as error:
            reason = type(getattr(error, "reason", error)).__name__
            raise ApiError(0, f"{self.host} cannot be reached: {reason}") from None
        if answer.status == 401 and again:
            try:
                # A new client, because other threads may still use the old one.
                self._client = self._new_client()
            except Exception as error:  # the loader of kubeconfigs raises many types
                problem = f"refused, and new credentials cannot be read: {error}"
                raise ApiError(401, f"{self.host}: {problem}") from None
            return self._request(method, path, body, kind, query, timeout, again=False)
        if not 200 <= answer.status < 300:
            message = _message(_read(answer, f"{method} {path}"))
            raise ApiError(answer.status, f"{method} {path}: {answer.status} {message}")
        return answer


def _objects(response: Any, request: str) -> Iterator[dict]:
    """The JSON objects of a stream, one per line; ApiError if it breaks, or DeadlinePassed."""
    try:
        for line in lines_of(response.stream(None), MAX_LINE_BYTES):
            if line:
                yield json.loads(line)
    except DeadlinePassed:
        raise
    except Exception as error:
        raise ApiError(0, f"{request}: the stream broke ({type(error).__name__})") from None
    finally:
        response.close()
        response.release_conn()


def _read(answer: Any, request: str) -> bytes:
    """The body of an answer; raises ApiError if the connection breaks before the end."""
    from urllib3.exceptions import HTTPError

    try:
        return answer.read()
    except (HTTPError, OSError) as error:
        raise ApiError(0, f"{request}: the answer broke off ({type(error).__name__})") from None


def _message(text: bytes | None) -> str:
    """The `message` of a Kubernetes Status (JSON), or the first 200 characters of another text."""
    try:
        return str(json.loads(text or b"")["message"])
    except (ValueError, KeyError, TypeError):
        return (text or b"").decode(errors="replace")[:200]


def connect(kubeconfig: str | None = None, context: str | None = None, **options: Any) -> Api:
    """A connection with the credentials of a kubeconfig or of the pod's ServiceAccount.

    kubeconfig : path, by default $KUBECONFIG or ~/.kube/config.
    context : context of the kubeconfig, by default the current one.
    options : arguments of `Api`.

    In a pod, the ServiceAccount is used if neither `kubeconfig` nor `context` is given.
    ValueError for bad credentials.
    """
    from kubernetes import config
    from kubernetes.client import Configuration

    in_pod = kubeconfig is None and context is None and (IN_CLUSTER / "token").exists()
    file = f"kubeconfig={kubeconfig or config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION}"
    if kubeconfig is not None and not Path(kubeconfig).exists():
        raise ValueError(f"{file}: no such file")

    def load() -> Configuration:
        configuration = Configuration()
        if in_pod:
            config.load_incluster_config(configuration)
        else:
            config.load_kube_config(kubeconfig, context, configuration, persist_config=False)
        return configuration

    try:
        if in_pod:
            return Api(load, (IN_CLUSTER / "namespace").read_text().strip(), **options)
        contexts, current = config.list_kube_config_contexts(kubeconfig)
        chosen = next((one for one in contexts if one["name"] == context), current)
        return Api(load, chosen["context"].get("namespace", "default"), **options)
    except Exception as error:  # the loader of kubeconfigs raises many types
        message = " ".join(str(error).split()) or type(error).__name__
        source = "ServiceAccount" if in_pod else file
        raise ValueError(f"{source}: {message}") from None


def found(api: Api, path: str, absent: tuple[int, ...] = (404,)) -> dict | None:
    """The object at `path`; None if the answer's HTTP status is in `absent`, by default 404."""
    try:
        return api.get(path)
    except ApiError as error:
        if error.status not in absent:
            raise
        return None


@lru_cache(4096)
def amount(quantity: str) -> float:
    """A Kubernetes quantity, such as "500m", as a number.

    >>> amount("1500m"), amount("2Gi")
    (1.5, 2147483648.0)
    """
    from kubernetes.utils.quantity import parse_quantity

    return float(parse_quantity(quantity))
