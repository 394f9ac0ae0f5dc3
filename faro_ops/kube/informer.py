"""An informer: a local copy of a collection of objects that follows the API server.

It lists the objects, watches for changes, and lists again after any error. A watch cannot always
continue: the server may have discarded its resource version (410), or lost it in a restore from a
backup. The official client's watch is not used, because it retries without a pause and continues
from the old version after every error except 410.
"""

import logging
import threading
from collections.abc import Callable
from typing import Any, Self

from faro_ops.kube.client import Api, ApiError

LOG = logging.getLogger(__name__)
WATCH_S = 30  # the server ends a watch after this time
SILENCE_S = WATCH_S + 10  # so silence for this time means that the connection is dead
FIRST_PAUSE_S = 0.2  # after the first failure; the pauses double up to the longest
LONGEST_PAUSE_S = 5.0
WARN_AFTER = 3  # failures in a row; a single failure is normal, because resource versions expire


class Informer:
    """A copy of the collection at `path`, kept up to date by a thread.

    keep : returns the part of an object to store.
    query : parameters of every request, such as a label selector.
    """

    def __init__(
        self, api: Api, path: str, keep: Callable[[dict], dict] = lambda item: item, **query: Any
    ):
        self._api = api
        self._path = path
        self._keep = keep
        self._query = query
        self._items: dict[tuple[str, str], dict] = {}  # (namespace, name) -> object
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._listed = threading.Event()  # set by the first complete list
        self.error: ApiError | None = None  # the last failure; None after a complete list
        self._thread = threading.Thread(target=self._follow, name=f"watch {path}", daemon=True)

    def start(self) -> Self:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stop.set()

    def wait(self, timeout_s: float) -> None:
        """Wait for the first list; raises ApiError if it does not arrive in time."""
        if not self._listed.wait(timeout_s):
            raise self.error or ApiError(0, f"GET {self._path}: no answer within {timeout_s:g} s")

    def items(self) -> list[dict]:
        with self._lock:
            return list(self._items.values())

    def _follow(self) -> None:
        version: str | None = None  # resource version to watch from; None: list first
        pause_s = FIRST_PAUSE_S
        failures = 0
        while not self._stop.is_set():
            try:
                version = self._watch(version or self._relist())
                pause_s = FIRST_PAUSE_S
                failures = 0
            # Any error, because without this thread the copy would become stale unnoticed.
            except Exception as error:
                version = None
                failures += 1
                if isinstance(error, ApiError):
                    self.error = error
                else:
                    self.error = ApiError(0, f"{self._path}: {error!r}")
                if failures == WARN_AFTER:
                    LOG.warning("the copy of %s may be stale: %s", self._path, self.error)
                self._stop.wait(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _relist(self) -> str:
        answer = self._api.get(self._path, **self._query)
        items = {_key(item): self._keep(item) for item in answer["items"]}
        with self._lock:
            self._items = items
        self.error = None
        self._listed.set()
        return answer["metadata"]["resourceVersion"]

    def _watch(self, version: str) -> str:
        """Follow the changes since a resource version until the server ends the watch.

        Returns the last resource version. Raises ApiError if the watch breaks off.
        """
        query = self._query | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_S),
            "resourceVersion": version,
        }
        for event in self._api.lines(self._path, SILENCE_S, **query):
            if self._stop.is_set():
                break
            kind = event["type"]
            item = event["object"]
            if kind == "ERROR":
                message = f"watch {self._path}: {item.get('message', 'ended')}"
                raise ApiError(item.get("code", 0), message)
            version = item["metadata"]["resourceVersion"]
            if kind == "BOOKMARK":
                continue
            with self._lock:
                if kind == "DELETED":
                    self._items.pop(_key(item), None)
                else:
                    self._items[_key(item)] = self._keep(item)
        return version


def _key(item: dict) -> tuple[str, str]:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]
