"""An informer: a local copy of a collection of objects that follows the API server.

It lists the objects, watches for changes, and lists again after any error. A watch cannot always
continue: the server may have discarded its resource version (410), or lost it in a restore from a
backup. The official client's watch is not used, because it retries without a pause and continues
from the old version after every error except 410.

A server that answers but sends nothing, such as a proxy in front of a dead one, would leave the
copy stale unnoticed. So `age_s` says when the server last confirmed the copy: by a list, an event,
or a bookmark, which a server sends before it ends a watch. A watch without any is followed by a
list.
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Any, Self

from faro_ops.operate.kube.client import Api, ApiError

LOG = logging.getLogger(__name__)
WATCH_S = 30  # the server ends a watch after this time
SHORT_WATCH_S = 1.0  # a watch that ends sooner, without an event, has failed
LONGEST_WATCH_S = WATCH_S + 10  # so a watch that lasts longer has a dead or very slow connection
LIST_S = 60.0  # for a list: 30,000 pods are 100 MB
FIRST_PAUSE_S = 0.2  # after a watch; after failures, the pauses double up to the longest
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
        self.path = path
        self._keep = keep
        self._query = query
        self._items: dict[tuple[str, str], dict] = {}  # (namespace, name) -> object
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._listed = threading.Event()  # set by the first complete list
        self._confirmed_s = -math.inf  # monotonic time of the last list, event or bookmark
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
            raise self.error or ApiError(0, f"GET {self.path}: no answer within {timeout_s:g} s")

    def items(self) -> list[dict]:
        with self._lock:
            return list(self._items.values())

    @property
    def age_s(self) -> float:
        """Seconds since the server last confirmed the copy; inf before the first list."""
        return time.monotonic() - self._confirmed_s

    def _follow(self) -> None:
        version: str | None = None  # resource version to watch from; None: list first
        pause_s = FIRST_PAUSE_S
        failures = 0
        while not self._stop.is_set():
            try:
                version = self._watch(version or self._relist())
                failures = 0
                pause_s = FIRST_PAUSE_S
                self._stop.wait(pause_s)
            # Any error, because without this thread the copy would become stale unnoticed.
            except Exception as error:
                version = None
                failures += 1
                if isinstance(error, ApiError):
                    self.error = error
                else:
                    self.error = ApiError(0, f"{self.path}: {error!r}")
                if failures == WARN_AFTER:
                    LOG.warning("the copy of %s may be stale: %s", self.path, self.error)
                self._stop.wait(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _relist(self) -> str:
        answer = self._api.get(self.path, within_s=LIST_S, **self._query)
        items = {_key(item): self._keep(item) for item in answer["items"]}
        with self._lock:
            self._items = items
        self.error = None
        self._confirmed_s = time.monotonic()
        self._listed.set()
        return answer["metadata"]["resourceVersion"]

    def _watch(self, version: str) -> str | None:
        """Follow the changes since a resource version until the server ends the watch.

        Returns the last resource version, or None if nothing came, not even a bookmark. Raises
        ApiError if the watch breaks off or ends at once.
        """
        began_s = time.monotonic()
        last: str | None = None
        query = self._query | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_S),
            "resourceVersion": version,
        }
        for event in self._api.lines(self.path, LONGEST_WATCH_S, **query):
            if self._stop.is_set():
                break
            kind = event["type"]
            item = event["object"]
            if kind == "ERROR":
                message = f"watch {self.path}: {item.get('message', 'ended')}"
                raise ApiError(item.get("code", 0), message)
            last = item["metadata"]["resourceVersion"]
            if kind != "BOOKMARK":
                with self._lock:
                    if kind == "DELETED":
                        self._items.pop(_key(item), None)
                    else:
                        self._items[_key(item)] = self._keep(item)
            self._confirmed_s = time.monotonic()
        lasted_s = time.monotonic() - began_s
        if last is None and lasted_s < SHORT_WATCH_S and not self._stop.is_set():
            raise ApiError(0, f"watch {self.path}: it ended at once, without an event")
        return last


def _key(item: dict) -> tuple[str, str]:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]
