"""A Kubernetes API server in memory: objects, versions, watches, permissions and faults.

A `KubeApi` has the calls of `faro_ops.operate.kube.client.Api`, and tests pass it in its place.
`served` answers the same over HTTP, to a real client. The soak has connections to it whose calls
take virtual time (soak_world.py). `ClusterApi` has nodes, and a scheduler for Deployments, too.

Stored objects are replaced and never changed, so lists need no copies.
"""

from __future__ import annotations

import copy
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager
from typing import Any

from http_server import HttpServer, Request, serving
from kube_things import (
    DEPLOYMENT,
    FAROPLAN,
    HPA,
    NAMESPACE,
    NODE,
    POD,
    Kind,
    deployment,
    node,
    pod,
)

from faro_ops.operate.kube.client import APPLY, JSON, ApiError, amount

KEPT_EVENTS = 5000  # of watches; an older version is answered with 410
SERVED = {
    "/apis/autoscaling.faro/v1alpha1": ("faroplans",),
    "/apis/ray.io/v1": ("rayservices", "rayclusters"),
}
VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
READS = ("get", "list", "watch")
JOBS = "jobs"  # the namespace of the jobs
Key = tuple[str, str]  # namespace, name


class RealTime:
    """Waits for other threads, with the calls of `VirtualTime`."""

    @property
    def now_s(self) -> float:
        return time.monotonic()

    def block(self, holds: Callable[[], object], timeout_s: float) -> bool:
        end_s = self.now_s + timeout_s
        while not (held := holds()) and self.now_s < end_s:
            time.sleep(0.01)
        return bool(held)


class KubeApi:
    """The objects of a cluster, and how the server answers.

    clock : has `now_s` and `block`, as VirtualTime does.
    namespace : exists, and is that of a client's kubeconfig.
    served : resources of each API group that a test may take away.

    requests : (method, path, body) of each call, oldest first; a watch has the method WATCH.
    may : whether the client may do what these resourceAttributes of a review say.
    on_request : called with (method, path, body) before each answer.
    busy : before so many of the next writes, the status of the written object changes.
    silent : whether it answers nothing.
    ends_watches : whether it ends each watch at once.
    deaf : whether watches stay open and send nothing, as behind a proxy whose server has died.
    """

    host = "https://faro.test"

    def __init__(self, clock: Any = None, namespace: str = JOBS):
        self.clock = clock or RealTime()
        self.namespace = namespace
        self.served = dict(SERVED)
        self.objects: dict[Kind, dict[Key, dict]] = {}
        self.version = 1
        self.changes: deque[tuple[int, Kind, str, dict]] = deque(maxlen=KEPT_EVENTS)
        self.forgotten = 0  # versions up to this one cannot be watched any more
        self.requests: list[tuple[str, str, Any]] = []
        self.may: Callable[[dict], bool] = lambda asked: True
        self.on_request: Callable[[str, str, Any], None] = lambda method, path, body: None
        self.busy = 0
        self.silent = self.ends_watches = self.deaf = False
        self.closed = False  # ends all watches
        self.lock = threading.RLock()
        self._refused: list[tuple[int, str, str]] = []
        phase = {"phase": "Active"}
        self.put(NAMESPACE, {"metadata": {"name": namespace}, "status": phase})

    # --- objects, for the test -----------------------------------------------------------------

    def all(self, kind: Kind) -> list[dict]:
        return list(self.objects.get(kind, {}).values())

    def find(self, kind: Kind, name: str, namespace: str = JOBS) -> dict | None:
        return self.objects.get(kind, {}).get((namespace, name))

    def put(self, kind: Kind, thing: dict) -> dict:
        """Create or replace an object."""
        with self.lock:
            meta = thing["metadata"]
            things = self.objects.setdefault(kind, {})
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
            self._changed(kind, "MODIFIED" if before else "ADDED", stored)
            return stored

    def change(self, kind: Kind, name: str, namespace: str = JOBS, **fields: Any) -> dict:
        """Merge these fields into an object, as another client does."""
        before = self.find(kind, name, namespace)
        assert before, f"{kind[1]} {namespace}/{name} does not exist"
        return self.put(kind, merged(before, fields))

    def remove(self, kind: Kind, name: str, namespace: str = JOBS) -> dict | None:
        with self.lock:
            thing = self.objects.get(kind, {}).pop((namespace, name), None)
            if thing is not None:
                self.version += 1
                meta = thing["metadata"] | {"resourceVersion": str(self.version)}
                self._changed(kind, "DELETED", thing | {"metadata": meta})
            return thing

    @property
    def plan(self) -> dict | None:
        """The FaroPlan "faro" of the namespace; None if there is none."""
        return self.find(FAROPLAN, "faro", self.namespace)

    @plan.setter
    def plan(self, plan: dict | None) -> None:
        if plan is None:
            self.remove(FAROPLAN, "faro", self.namespace)
        else:
            meta = {"name": "faro", "namespace": self.namespace} | plan.get("metadata", {})
            self.put(FAROPLAN, {"spec": {}} | plan | {"metadata": meta})

    def order(self, *rows: Any) -> None:
        """Write these overrides into the FaroPlan, as `kubectl edit` does."""
        self.change(FAROPLAN, "faro", self.namespace, spec={"overrides": list(rows)})

    def forget(self) -> None:
        """Forget all changes, so that a watch since an earlier version is answered with 410."""
        self.version += 1
        self.changes.clear()
        self.forgotten = self.version

    def _changed(self, kind: Kind, how: str, thing: dict) -> None:
        if len(self.changes) == self.changes.maxlen:
            self.forgotten = self.changes[0][0]
        self.changes.append((self.version, kind, how, thing))

    # --- faults and what was asked -------------------------------------------------------------

    def refuse(self, status: int, method: str = "", word: str = "") -> None:
        """Answer requests of a method whose path has a word with this status; "": all of them."""
        self._refused.append((status, method, word))

    def accept(self) -> None:
        """Refuse nothing more."""
        self._refused.clear()

    @property
    def writes(self) -> list[tuple[str, str, Any]]:
        """The requests that change an object."""
        return [
            one
            for one in self.requests
            if one[0] not in ("GET", "WATCH") and "accessreviews" not in one[1]
        ]

    # --- the calls of a client -----------------------------------------------------------------

    def get(self, path: str, *, within_s: float | None = None, **query: Any) -> dict:
        return self.send("GET", path, **query)

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
        self._reach(method, path, body)
        return self.answer(method, path, body, kind, query)

    def apply(self, path: str, manifest: dict, **query: Any) -> dict:
        return self.send("PATCH", path, manifest, kind=APPLY, **query)

    def lines(self, path: str, within_s: float, **query: Any) -> Iterator[dict]:
        self._reach("WATCH", path, None)
        return self.events(path, query, within_s)

    def _reach(self, method: str, path: str, body: Any) -> None:
        self.requests.append((method, path, copy.deepcopy(body)))
        if self.silent:
            raise ApiError(0, f"{self.host} cannot be reached: ReadTimeoutError")

    # --- over HTTP -----------------------------------------------------------------------------

    def serving(self) -> AbstractContextManager[HttpServer]:
        """A server with these objects, on loopback."""
        return serving(self.http)

    def http(self, request: Request) -> tuple[int, Any]:
        """The answer to an HTTP request: status, and an object or the events of a watch."""
        kind = request.headers.get("Content-Type", JSON)
        try:
            if "watch" in request.query:
                return 200, self.lines(request.path, 60.0, **request.query)
            return 200, self.send(
                request.method, request.path, request.body, kind=kind, **request.query
            )
        except ApiError as error:
            return error.status or 503, {"message": str(error)}

    # --- answers -------------------------------------------------------------------------------

    def answer(self, method: str, path: str, body: Any, kind: str, query: Mapping) -> dict:
        """The object in the answer; ApiError with the status of a refusal."""
        with self.lock:
            self.on_request(method, path, body)
            for status, of_method, word in self._refused:
                if of_method in ("", method) and word in path:
                    raise ApiError(status, f"{method} {path}: {status}")
            return self._answer(method, path, body, kind, query)

    def _answer(self, method: str, path: str, body: Any, kind: str, query: Mapping) -> dict:
        base, namespace, plural, name, part = parsed(path)
        if plural == "selfsubjectaccessreviews":
            return {"status": {"allowed": self.may(body["spec"]["resourceAttributes"])}}
        if plural == "":
            if base not in self.served:
                raise ApiError(404, f"{method} {path}: 404 not found")
            return {"resources": [{"name": one} for one in self.served[base]]}
        self.check(VERBS.get(method, "get" if name else "list"), path)
        of = base, plural
        things = self.objects.get(of, {})
        if method == "GET" and not name:
            chosen = [one for one in things.values() if selects(one, namespace, query)]
            return {"metadata": {"resourceVersion": str(self.version)}, "items": chosen}
        if part == "eviction":
            self.remove(of, name, namespace)
            return {}
        if method == "POST":
            return self._create(of, namespace, dict(body or {}), path)
        before = things.get((namespace, name))
        if before is None and kind == APPLY and method == "PATCH":
            return copy.deepcopy(self._create(of, namespace, dict(body or {}), path))
        if before is None:
            raise ApiError(404, f"{method} {path}: 404 {plural} {name!r} not found")
        if method == "GET":
            return scale_of(before) if part == "scale" else copy.deepcopy(before)
        if self.busy:
            self.busy -= 1
            before = self.put(of, before)
        if method == "DELETE":
            self.remove(of, name, namespace)
            return {}
        version = (body or {}).get("metadata", {}).get("resourceVersion")
        if version not in (None, "", before["metadata"]["resourceVersion"]):
            raise ApiError(409, f"{method} {path}: 409 the object has been modified")
        after = copy.deepcopy(body) if method == "PUT" else merged(before, without_meta(body))
        if method == "PUT":
            after["metadata"] = before["metadata"] | after.get("metadata", {})
            after["metadata"].pop("resourceVersion", None)
        stored = self.put(of, after)
        return scale_of(stored) if part == "scale" else copy.deepcopy(stored)

    def check(self, verb: str, path: str) -> None:
        """ApiError 403 if the client may not do this."""
        base, namespace, plural, name, part = parsed(path)
        asked = {
            "group": base.split("/")[2] if base.startswith("/apis") else "",
            "namespace": namespace,
            "resource": plural,
            "subresource": part,
            "verb": verb,
            "name": name,
        }
        if not self.may(asked):
            raise ApiError(403, f"{path}: 403 {plural} is forbidden: cannot {verb}")

    def _create(self, kind: Kind, namespace: str, thing: dict, path: str) -> dict:
        meta = dict(thing.get("metadata", {}))
        meta.setdefault("namespace", namespace)
        if "name" not in meta:
            meta["name"] = f"{meta.get('generateName', 'x')}{self.version}"
        if kind[1] == "events":  # nobody reads them here
            return thing | {"metadata": meta}
        if (meta["namespace"], meta["name"]) in self.objects.get(kind, {}):
            raise ApiError(409, f"POST {path}: 409 {kind[1]} {meta['name']!r} already exists")
        return self.put(kind, copy.deepcopy(thing) | {"metadata": meta})

    # --- watches -------------------------------------------------------------------------------

    def events(self, path: str, query: Mapping, silence_s: float) -> Iterator[dict]:
        """The events of a watch, until its time is over."""
        self.check("watch", path)
        return self._events(path, query, silence_s)

    def _events(self, path: str, query: Mapping, silence_s: float) -> Iterator[dict]:
        base, namespace, plural, _, _ = parsed(path)
        seen = int(query["resourceVersion"])
        if seen < self.forgotten:
            message = "too old resource version"
            yield {"type": "ERROR", "object": {"code": 410, "message": message}}
            return
        if self.ends_watches:
            return
        clock = self.clock
        end_s = clock.now_s + float(query["timeoutSeconds"])
        silent_from_s = clock.now_s

        def is_mute() -> bool:
            return self.silent or self.deaf

        def news() -> bool:
            return self.version > seen or is_mute() or self.closed

        while clock.now_s < end_s and not self.closed:
            if is_mute():
                left_s = silent_from_s + silence_s - clock.now_s
                if not clock.block(lambda: not is_mute(), left_s):
                    raise ApiError(0, f"GET {path}: the stream broke (ReadTimeoutError)")
                continue
            clock.block(news, end_s - clock.now_s)
            silent_from_s = clock.now_s
            for version, kind, how, thing in self.since(seen):
                seen = version
                if kind == (base, plural) and selects(thing, namespace, query):
                    yield {"type": how, "object": thing}
        meta = {"resourceVersion": str(self.version)}
        yield {"type": "BOOKMARK", "object": {"metadata": meta}}

    def since(self, seen: int) -> list[tuple[int, Kind, str, dict]]:
        newer = []
        for change in reversed(self.changes):
            if change[0] <= seen:
                break
            newer.append(change)
        return newer[::-1]


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


# --- nodes, and Deployments with pods -------------------------------------------------------------


class Replicas(MutableMapping[str, int]):
    """Job -> replicas that its Deployment asks for; a change is that of another client."""

    def __init__(self, api: ClusterApi):
        self._api = api

    def __getitem__(self, job: str) -> int:
        found = self._api.find(DEPLOYMENT, job)
        if found is None:
            raise KeyError(job)
        return found["spec"]["replicas"]

    def __setitem__(self, job: str, replicas: int) -> None:
        if job in self:
            self._api.change(DEPLOYMENT, job, spec={"replicas": replicas})
        else:
            self._api.put(DEPLOYMENT, deployment(job, replicas))

    def __delitem__(self, job: str) -> None:
        self._api.remove(DEPLOYMENT, job)

    def __iter__(self) -> Iterator[str]:
        return iter([one["metadata"]["name"] for one in self._api.all(DEPLOYMENT)])

    def __len__(self) -> int:
        return len(self._api.all(DEPLOYMENT))

    def __repr__(self) -> str:
        return repr(dict(self))


class ClusterApi(KubeApi):
    """An API server with nodes, and a scheduler: pods run as soon as a node has a free core.

    replicas : job -> replicas of its Deployment, whose pods request one core each.
    nodes : name -> cores.
    """

    def __init__(
        self,
        replicas: Mapping[str, int],
        nodes: Mapping[str, int] = {"n1": 1000},
        **options: Any,
    ):
        super().__init__(**options)
        self.replicas = Replicas(self)
        self._serial = 0
        for name, cores in nodes.items():
            self.put(NODE, node(name, str(cores)))
        self.replicas.update(replicas)

    def put(self, kind: Kind, thing: dict) -> dict:
        with self.lock:
            stored = super().put(kind, thing)
            if kind in (NODE, DEPLOYMENT):
                self.schedule()
            meta = stored["metadata"]
            return self.find(kind, meta["name"], meta.get("namespace", "")) or stored

    def remove(self, kind: Kind, name: str, namespace: str = JOBS) -> dict | None:
        with self.lock:
            removed = super().remove(kind, name, namespace)
            if kind in (NODE, DEPLOYMENT):
                self.schedule()
            return removed

    def pods_of(self, job: str) -> list[dict]:
        return [one for one in self.all(POD) if one["metadata"]["labels"].get("app") == job]

    def schedule(self) -> None:
        """Delete surplus pods, pending ones first, and start missing ones where there is room."""
        nodes = {one["metadata"]["name"]: one for one in self.all(NODE)}
        for one in self.all(POD):
            owner = one["metadata"]["labels"].get("app")
            is_orphan = owner is not None and owner not in self.replicas
            if is_orphan or one["spec"].get("nodeName") not in (None, *nodes):
                self._remove_pod(one)
        for job, wanted in self.replicas.items():
            pods = sorted(self.pods_of(job), key=lambda one: not one["spec"].get("nodeName"))
            for one in pods[wanted:]:
                self._remove_pod(one)
            for _ in range(wanted - len(pods)):
                self._serial += 1
                name, labels = f"{job}-{self._serial}", {"app": job}
                self.put(POD, pod(name, on=None, phase="Pending", labels=labels))
        free = {name: self.free(name) for name in nodes}
        for one in self.all(POD):
            best = max(free, key=lambda name: free[name], default=None)
            if "nodeName" not in one["spec"] and best is not None and free[best] >= 1:
                free[best] -= 1
                placed = {"spec": {"nodeName": best}, "status": {"phase": "Running"}}
                self.put(POD, merged(one, placed))
        for one in self.all(DEPLOYMENT):
            self._observe(one)

    def _remove_pod(self, one: dict) -> None:
        self.remove(POD, one["metadata"]["name"], one["metadata"]["namespace"])

    def _observe(self, one: dict) -> None:
        pods = self.pods_of(one["metadata"]["name"])
        status = {
            "observedGeneration": one["metadata"]["generation"],
            "replicas": len(pods),
            "updatedReplicas": len(pods),
            "readyReplicas": sum(bool(each["spec"].get("nodeName")) for each in pods),
        }
        if one.get("status") != status:
            super().put(DEPLOYMENT, one | {"status": status})

    def free(self, name: str) -> float:
        """Free cores for new pods on a node."""
        one = self.find(NODE, name, "")
        if one is None or one["spec"].get("unschedulable"):
            return 0.0
        if one["status"]["conditions"][0]["status"] != "True":
            return 0.0
        running = sum(each["spec"].get("nodeName") == name for each in self.all(POD))
        return amount(one["status"]["allocatable"]["cpu"]) - running

    def bounds(self) -> dict[str, tuple[int, int]]:
        """HPA -> (minReplicas, maxReplicas)."""
        specs = {one["metadata"]["name"]: one["spec"] for one in self.all(HPA)}
        return {name: (spec["minReplicas"], spec["maxReplicas"]) for name, spec in specs.items()}

    @property
    def scaled(self) -> list[tuple[str, int]]:
        """(Deployment, replicas) of each request that scales one, in order."""
        return [
            (path.split("/")[-2], body["spec"]["replicas"])
            for _, path, body in self.writes
            if path.endswith("/scale")
        ]
