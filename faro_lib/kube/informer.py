"""Watching: a copy of a collection that follows the API server.

List, then watch from there; after any error list anew, for a version that the server no longer has (410), or has never
had (restored from a backup), cannot be watched from. The client library's informer goes on from the old version after
all errors but 410, and without a pause.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from faro_lib.kube.client import Api, ApiError

LOG = logging.getLogger(__name__)
WATCH_S = 30  # the server ends a watch after this long; silence for WATCH_S + 10 means that the line is dead
LONGEST_PAUSE_S = 5.0
TOLD_AFTER = 3  # failures in a row; a version that is gone is one, and nothing to tell


def whole(thing: dict) -> dict:
    return thing


class Informer:
    """The collection at `path`, kept current by a thread.

    Parameters
    ----------
    keep : what of an object is worth remembering.
    changed : called after each change.
    """

    def __init__(
        self,
        api: Api,
        path: str,
        keep: Callable[[dict], dict] = whole,
        changed: Callable[[], None] = lambda: None,
        **query,
    ):
        self._api, self._path, self._keep, self._changed, self._query = api, path, keep, changed, query
        self._things: dict[tuple[str, str], dict] = {}
        self._lock = threading.Lock()
        self._stop, self._listed = threading.Event(), threading.Event()
        self.list_count = 0
        self.heard_s = float("-inf")  # time.monotonic() when the server last answered
        self.error: ApiError | None = None
        self._thread = threading.Thread(target=self._follow, name=f"watch {path}", daemon=True)

    def start(self) -> Informer:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stop.set()

    def wait(self, timeout_s: float) -> None:
        """Until the first list is there; raises what prevents it."""
        if not self._listed.wait(timeout_s):
            raise self.error or ApiError(0, f"GET {self._path}: no answer within {timeout_s:g} s")

    def items(self) -> list[dict]:
        with self._lock:
            return list(self._things.values())

    def silent_s(self) -> float:
        """Seconds since the server was last heard."""
        return time.monotonic() - self.heard_s

    def _follow(self) -> None:
        version, pause_s, failures = None, 0.2, 0
        while not self._stop.is_set():
            try:
                if version is None:
                    version = self._list()
                version = self._watch(version)
                pause_s, failures = 0.2, 0
            except (
                Exception
            ) as error:  # whatever it was: who stops following here would be frozen, and nobody would know
                version, failures = None, failures + 1
                self.error = error if isinstance(error, ApiError) else ApiError(0, f"{self._path}: {error!r}")
                if failures == TOLD_AFTER:
                    LOG.warning("what is known of %s may be old: %s", self._path, self.error)
                self._stop.wait(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _list(self) -> str:
        listed = self._api.get(self._path, **self._query)
        things = {_key(thing): self._keep(thing) for thing in listed["items"]}
        with self._lock:
            self._things = things
        self.list_count += 1
        self.heard_s, self.error = time.monotonic(), None
        self._listed.set()
        self._changed()
        return listed["metadata"]["resourceVersion"]

    def _watch(self, version: str) -> str:
        events = self._api.lines(
            self._path,
            WATCH_S + 10,
            **self._query,
            watch="true",
            allowWatchBookmarks="true",
            resourceVersion=version,
            timeoutSeconds=WATCH_S,
        )
        for event in events:
            if self._stop.is_set():
                break
            kind, thing = event["type"], event["object"]
            if kind == "ERROR":
                raise ApiError(thing.get("code", 0), f"watch {self._path}: {thing.get('message', 'ended')}")
            self.heard_s = time.monotonic()
            version = thing["metadata"]["resourceVersion"]
            if kind != "BOOKMARK":
                with self._lock:
                    if kind == "DELETED":
                        self._things.pop(_key(thing), None)
                    else:
                        self._things[_key(thing)] = self._keep(thing)
                self._changed()
        self.heard_s = time.monotonic()
        return version


def _key(thing: dict) -> tuple[str, str]:
    return thing["metadata"].get("namespace", ""), thing["metadata"]["name"]
