"""An informer: a local copy of a collection of objects that follows the API server.

It lists the objects, watches for changes, and lists again after any error. A watch cannot always continue: the server
may have discarded its resource version (410), or lost it in a restore from a backup. The official client's watch is not
used, because it retries without a pause and continues from the old version after every error except 410.
"""

import logging
import threading
from collections.abc import Callable
from typing import Any, Self

from faro_ops.kube.client import Api, ApiError

LOG = logging.getLogger(__name__)
# The server ends a watch after WATCH_S seconds, so silence for 10 seconds longer means that the connection is dead.
WATCH_S = 30
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
WARN_AFTER = 3  # failures in a row; a single failure is normal, because resource versions expire


class Informer:
    """A copy of the collection at `path`, kept up to date by a thread; `keep` returns the part of an object to store."""

    def __init__(
        self, api: Api, path: str, keep: Callable[[dict], dict] = lambda item: item, **query: Any
    ):
        self._api, self._path, self._keep, self._query = api, path, keep, query
        self._items: dict[tuple[str, str], dict] = {}
        self._lock = threading.Lock()
        self._stop, self._listed = threading.Event(), threading.Event()
        self.error: ApiError | None = None
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
        version, pause_s, failures = None, FIRST_PAUSE_S, 0
        while not self._stop.is_set():
            try:
                version = self._watch(version or self._relist())
                pause_s, failures = FIRST_PAUSE_S, 0
            except Exception as error:  # any error, because without this thread the copy would become stale unnoticed
                version, failures = None, failures + 1
                self.error = (
                    error
                    if isinstance(error, ApiError)
                    else ApiError(0, f"{self._path}: {error!r}")
                )
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
        """Follow the changes since a resource version until the server ends the watch; returns the last version."""
        query = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH_S)}
        for event in self._api.lines(
            self._path, WATCH_S + 10, **self._query, **query, resourceVersion=version
        ):
            if self._stop.is_set():
                break
            kind, item = event["type"], event["object"]
            if kind == "ERROR":
                raise ApiError(
                    item.get("code", 0), f"watch {self._path}: {item.get('message', 'ended')}"
                )
            version = item["metadata"]["resourceVersion"]
            if kind != "BOOKMARK":
                with self._lock:
                    if kind == "DELETED":
                        self._items.pop(_key(item), None)
                    else:
                        self._items[_key(item)] = self._keep(item)
        return version


def _key(item: dict) -> tuple[str, str]:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]
