"""A Kubernetes API server in memory, in virtual time: objects, versions, watches, permissions.

`FakeServer` has the objects; `FakeApi` is a connection with the interface of `kube.client.Api`.
Every call takes LATENCY_S. Stored objects are replaced and never changed, so lists need no copies.
"""

from __future__ import annotations

import copy
import json
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any

from soak_time import Killed, VirtualTime

from faro_ops.operate.kube.client import APPLY, JSON, MERGE, ApiError

LATENCY_S = 0.005
RETRY_S = 0.5  # mean pause before a repeated attempt
KEPT_EVENTS = 5000  # of watches; an older version is answered with 410
SERVED = {
    "/apis/autoscaling.faro/v1alpha1": ("faroplans",),
    "/apis/ray.io/v1": ("rayservices", "rayclusters"),
}
Place = tuple[str, str]  # API group and version, plural
Key = tuple[str, str]  # namespace, name


class FakeServer:
    """The objects of a cluster.

    watchers : called after each change with (plural, object or None).
    denied : (verb, plural) pairs that are answered with 403; "*" stands for all.
    silent : whether it answers nothing.
    ends_watches : whether it ends each watch at once.
    deaf : whether watches stay open and send nothing, as behind a proxy whose server has died.
    calls : number of calls by virtual minute.
    """

    def __init__(self, virtual: VirtualTime):
        self.virtual = virtual
        self.objects: dict[Place, dict[Key, dict]] = {}
        self.version = 1
        self.changes: deque[tuple[int, Place, str, dict]] = deque(maxlen=KEPT_EVENTS)
        self.forgotten = 0  # versions up to this one cannot be watched any more
        self.denied: set[tuple[str, str]] = set()
        self.silent = self.ends_watches = self.deaf = False
        self.calls: Counter[int] = Counter()
        self.on_change: Callable[[str, dict], None] = lambda plural, thing: None

    # --- objects, for the world ----------------------------------------------------------------

    def all(self, base: str, plural: str) -> list[dict]:
        return list(self.objects.get((base, plural), {}).values())

    def find(self, base: str, plural: str, name: str, namespace: str = "") -> dict | None:
        return self.objects.get((base, plural), {}).get((namespace, name))

    def put(self, base: str, plural: str, thing: dict) -> dict:
        """Create or replace an object."""
        meta = thing["metadata"]
        things = self.objects.setdefault((base, plural), {})
        key = meta.get("namespace", ""), meta["name"]
        before = things.get(key)
        self.version += 1
        meta = meta | {"resourceVersion": str(self.version)}
        if before is None:
            meta.setdefault("uid", f"uid-{self.version}")
            meta["generation"] = 1
        elif before.get("spec") != thing.get("spec"):
            meta["generation"] = before["metadata"].get("generation", 1) + 1
        stored = thing | {"metadata": meta}
        things[key] = stored
        self._changed((base, plural), "MODIFIED" if before else "ADDED", stored)
        return stored

    def remove(self, base: str, plural: str, name: str, namespace: str = "") -> dict | None:
        thing = self.objects.get((base, plural), {}).pop((namespace, name), None)
        if thing is not None:
            self.version += 1
            meta = thing["metadata"] | {"resourceVersion": str(self.version)}
            self._changed((base, plural), "DELETED", thing | {"metadata": meta})
        return thing

    def _changed(self, place: Place, kind: str, thing: dict) -> None:
        if len(self.changes) == self.changes.maxlen:
            self.forgotten = self.changes[0][0]
        self.changes.append((self.version, place, kind, thing))
        self.on_change(place[1], thing)

    # --- requests ------------------------------------------------------------------------------

    def allowed(self, verb: str, plural: str) -> bool:
        return not {(verb, plural), ("*", plural), (verb, "*"), ("*", "*")} & self.denied

    def answer(self, method: str, path: str, body: dict | None, kind: str, query: dict) -> dict:
        base, namespace, plural, name, part = parsed(path)
        if plural == "selfsubjectaccessreviews":
            wanted = (body or {})["spec"]["resourceAttributes"]
            return {"status": {"allowed": self.allowed(wanted["verb"], wanted["resource"])}}
        if plural == "":
            if base not in SERVED:
                raise ApiError(404, f"{method} {path}: 404 not found")
            return {"resources": [{"name": one} for one in SERVED[base]]}
        if plural == "namespaces":
            return {"metadata": {"name": name}, "status": {"phase": "Active"}}
        verb = {"GET": "get" if name else "list", "POST": "create", "PUT": "update"}
        asked = verb.get(method, method.lower())
        if not self.allowed(asked, plural):
            raise ApiError(403, f"{method} {path}: 403 {plural} is forbidden: cannot {asked}")
        things = self.objects.get((base, plural), {})
        if method == "GET" and not name:
            chosen = [one for one in things.values() if selects(one, namespace, query)]
            return {"metadata": {"resourceVersion": str(self.version)}, "items": chosen}
        if method == "POST":
            return self._create(base, plural, namespace, dict(body or {}), path)
        before = things.get((namespace, name))
        if before is None and kind == APPLY and method == "PATCH":
            return copy.deepcopy(self._create(base, plural, namespace, dict(body or {}), path))
        if before is None:
            raise ApiError(404, f"{method} {path}: 404 {plural} {name!r} not found")
        if method == "GET":
            return scale_of(before) if part == "scale" else copy.deepcopy(before)
        if method == "DELETE":
            self.remove(base, plural, name, namespace)
            return {}
        version = (body or {}).get("metadata", {}).get("resourceVersion")
        if version not in (None, "", before["metadata"]["resourceVersion"]):
            raise ApiError(409, f"{method} {path}: 409 the object has been modified")
        after = copy.deepcopy(body) if method == "PUT" else merged(before, without_meta(body))
        if method == "PUT":
            after["metadata"] = before["metadata"] | after.get("metadata", {})
            after["metadata"].pop("resourceVersion", None)
        stored = self.put(base, plural, after)
        return scale_of(stored) if part == "scale" else copy.deepcopy(stored)

    def _create(self, base: str, plural: str, namespace: str, thing: dict, path: str) -> dict:
        meta = dict(thing.get("metadata", {}))
        meta.setdefault("namespace", namespace)
        if "name" not in meta:
            meta["name"] = f"{meta.get('generateName', 'x')}{self.version}"
        if plural == "events":  # nobody reads them here
            return thing | {"metadata": meta}
        if (meta["namespace"], meta["name"]) in self.objects.get((base, plural), {}):
            raise ApiError(409, f"POST {path}: 409 {plural} {meta['name']!r} already exists")
        return self.put(base, plural, copy.deepcopy(thing) | {"metadata": meta})

    def events(self, path: str, query: dict, silence_s: float) -> Iterator[dict]:
        """The events of a watch, until its time is over."""
        base, namespace, plural, _, _ = parsed(path)
        if not self.allowed("watch", plural):
            raise ApiError(403, f"GET {path}: 403 {plural} is forbidden: cannot watch")
        seen = int(query["resourceVersion"])
        if seen < self.forgotten:
            message = "too old resource version"
            yield {"type": "ERROR", "object": {"code": 410, "message": message}}
            return
        if self.ends_watches:
            return
        virtual = self.virtual
        end_s = virtual.now_s + float(query["timeoutSeconds"])
        silent_from_s = virtual.now_s

        def news() -> bool:
            return self.version > seen or self.silent or self.deaf

        while virtual.now_s < end_s:
            if self.silent or self.deaf:
                back = virtual.block(
                    lambda: not (self.silent or self.deaf),
                    silent_from_s + silence_s - virtual.now_s,
                )
                if not back:
                    raise ApiError(0, f"GET {path}: the stream broke (ReadTimeoutError)")
                continue
            virtual.block(news, end_s - virtual.now_s)
            silent_from_s = virtual.now_s
            for version, place, kind, thing in self.since(seen):
                seen = version
                if place == (base, plural) and selects(thing, namespace, query):
                    yield {"type": kind, "object": thing}
        meta = {"resourceVersion": str(self.version)}
        yield {"type": "BOOKMARK", "object": {"metadata": meta}}

    def since(self, seen: int) -> list[tuple[int, Place, str, dict]]:
        newer = []
        for change in reversed(self.changes):
            if change[0] <= seen:
                break
            newer.append(change)
        return newer[::-1]


class FakeApi:
    """A connection to a FakeServer with the interface of `faro_ops.operate.kube.client.Api`."""

    host = "https://api.test"

    def __init__(self, server: FakeServer, *, retries: int = 4, timeout_s: float = 5.0):
        self.namespace = "default"
        self._server = server
        self._retries = retries
        self._timeout_s = timeout_s

    def get(self, path: str, **query: Any) -> dict:
        return self.send("GET", path, **query)

    def send(
        self, method: str, path: str, body: dict | None = None, *, kind: str = JSON, **query: Any
    ) -> dict:
        self._reach()
        return self._server.answer(method, path, body, kind, query)

    def apply(self, path: str, manifest: dict, **query: Any) -> dict:
        return self.send("PATCH", path, manifest, kind=APPLY, **query)

    def lines(self, path: str, silence_s: float, **query: Any) -> Iterator[dict]:
        self._reach()
        yield from self._server.events(path, query, silence_s)

    def _reach(self) -> None:
        """Take the time of a call; ApiError if the server is silent during all attempts."""
        virtual, server = self._server.virtual, self._server
        task = virtual.task
        if task is not None and task.process.dead:
            raise Killed
        for attempt in range(self._retries + 1):
            server.calls[int(virtual.now_s // 60)] += 1
            virtual.sleep(LATENCY_S)
            if not server.silent:
                return
            virtual.sleep(self._timeout_s)
            if attempt < self._retries:
                virtual.sleep(RETRY_S)
        raise ApiError(0, f"{self.host} cannot be reached: ReadTimeoutError")


def parsed(path: str) -> tuple[str, str, str, str, str]:
    """(API group and version, namespace, plural, name, subresource) of a path.

    >>> parsed("/apis/apps/v1/namespaces/jobs/deployments/a/scale")
    ('/apis/apps/v1', 'jobs', 'deployments', 'a', 'scale')
    >>> parsed("/api/v1/namespaces/jobs")
    ('/api/v1', '', 'namespaces', 'jobs', '')
    """
    parts = path.strip("/").split("/")
    size = 2 if parts[0] == "api" else 3
    base, rest = "/" + "/".join(parts[:size]), parts[size:]
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    plural, name, part = [*rest, "", "", ""][:3]
    return base, namespace, plural, name, part


def selects(thing: dict, namespace: str, query: dict) -> bool:
    """Whether a list or watch of a namespace ("": all) with its selectors has this object."""
    meta = thing["metadata"]
    if namespace and meta.get("namespace") != namespace:
        return False
    labels = meta.get("labels", {})
    for pair in filter(None, query.get("labelSelector", "").split(",")):
        name, equals, value = pair.partition("=")
        if name not in labels or (equals and labels[name] != value):
            return False
    for pair in filter(None, query.get("fieldSelector", "").split(",")):
        name, _, value = pair.partition("=")
        if name == "metadata.name" and meta["name"] != value:
            return False
    return True


def merged(before: Any, patch: Any) -> Any:
    """A merge patch (RFC 7386) applied to an object; both stay as they are."""
    if not isinstance(patch, dict):
        return json.loads(json.dumps(patch))
    after = dict(before) if isinstance(before, dict) else {}
    for key, value in patch.items():
        if value is None:
            after.pop(key, None)
        else:
            after[key] = merged(after.get(key), value)
    return after


def without_meta(patch: dict | None) -> dict:
    """A patch without what a client may not change."""
    patch = dict(patch or {})
    meta = {
        key: value
        for key, value in patch.pop("metadata", {}).items()
        if key not in ("name", "namespace", "resourceVersion", "uid")
    }
    return patch | ({"metadata": meta} if meta else {})


def scale_of(deployment: dict) -> dict:
    return {
        "metadata": dict(deployment["metadata"]),
        "spec": {"replicas": deployment["spec"].get("replicas", 1)},
    }


__all__ = ["APPLY", "MERGE", "FakeApi", "FakeServer"]
