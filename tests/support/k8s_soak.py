"""An hour of Faro on the kind cluster under a steady load, with an event every few minutes.

Two services are plain Deployments of model servers. Two controllers run in pods, as the chart
installs them, and Prometheus of cluster/monitoring.sh measures the load. A pod on the control
plane, which no event touches, sends the requests through the Services. Every request that fails is
attributed to a pod of its service that was going away at that time.

    KUBECONFIG=... python tests/support/k8s_soak.py --minutes 60 --out data/recorded-faults

writes three tables: events.csv, looks.csv (every five seconds) and lost.csv (a row per request that
failed). `--minutes 3` tries the harness; its events hold for a few seconds only.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from k8s_faro import REQUEST_S
from k8s_models import CORES, ModelWorld, Prometheus
from k8s_ray import IMAGE
from k8s_world import (
    CONTROL_PLANE,
    ROOT,
    World,
    apply,
    cordon,
    docker,
    path_of,
    until,
    without_api_server,
    workers,
)
from kube_things import objects

from faro_lib.workload.readers import read_jobs
from faro_ops.operate.kube.capacity import has_ready_condition, is_ready
from faro_ops.operate.kube.client import MERGE, ApiError, connect
from faro_ops.operate.kube.manifests import ManifestSpec

NAMES = ("a", "b")
NAME = "main"  # of the FaroPlan; the controllers are called main-controller
MINIMUM = 2  # replicas of each service
QUOTA = 14  # replicas; a rolling update may add one of each service
CONTROLLER_CORES = 0.75  # of the controllers, one of which may be replaced
ORDERED = 4  # replicas by order
RPS = {"a": 8.0, "b": 5.0}
TICK_S = 10.0
LOOK_S, POD_LOOK_S = 5.0, 0.5
LOAD_S = 60.0  # that a changed model loads
HOLD_S = 60.0  # of an event that lasts
WHOLE_S = 420.0  # until all is as before
EDGE_S = 2.0  # a clock of a pod may differ, and a look at the pods comes later
STARTED_S = 600.0  # Prometheus has to see some minutes of load first
# It prints a line of JSON for each request that fails, and every ten seconds what it has sent. If
# the machine stops it for a while, it does not make up for that: a burst fills a model's queue.
LOAD = r"""
import collections, json, sys, threading, time, urllib.request
sent, lock = collections.Counter(), threading.Lock()
def say(**one):
    with lock:
        sys.stdout.write(json.dumps(one) + "\n")
        sys.stdout.flush()
def send(name, url):
    began = time.time()
    try:
        status = urllib.request.urlopen(url, timeout=TIMEOUT).status
    except urllib.error.HTTPError as error:
        status = error.code
    except Exception as error:
        status = repr(error)[:100]
    if status != 200:
        say(at=began, job=name, status=status, took_s=round(time.time() - began, 2))
def steadily(name, url, rps):
    due = time.time()
    while time.time() < end:
        threading.Thread(target=send, args=(name, url), daemon=True).start()
        with lock:
            sent[name] += 1
        due = max(due + 1 / rps, time.time())
        time.sleep(max(0.0, due - time.time()))
end = time.time() + float(sys.argv[1])
for word in sys.argv[2:]:
    name, rps, url = word.split("=", 2)
    threading.Thread(target=steadily, args=(name, url, float(rps)), daemon=True).start()
while time.time() < end + TIMEOUT:
    time.sleep(10)
    with lock:
        now = dict(sent)
    say(at=time.time(), sent=now)
""".replace("TIMEOUT", str(REQUEST_S))


# --- what is recorded -----------------------------------------------------------------------------


@dataclass
class Event:
    """Something that happens, and what it costs: a row of events.csv.

    at_s : seconds since the load began.
    lasted_s : until the event was over.
    whole_s : until all was as before; inf if it never was.
    in_killed_pods : failed requests that were sent to a pod that was going away.
    targets : the smallest and the largest target of each service meanwhile.
    """

    event: str
    at_s: float
    lasted_s: float = math.inf
    whole_s: float = math.inf
    sent: int = 0
    failed: int = 0
    in_killed_pods: int = 0
    targets: str = ""

    @property
    def end_s(self) -> float:
        return self.at_s + (self.whole_s if math.isfinite(self.whole_s) else WHOLE_S)


@dataclass
class Look:
    """What the API server showed at one time: a row of looks.csv. Empty while it was away.

    load : programs that run or wait for a core or a disk, per core, in the mean of a minute.
    """

    at_s: float
    targets: str = ""  # replicas of each service that its Deployment asks for
    ready: str = ""
    leader: str = ""
    decided_s_ago: float = math.nan
    capacity: float = math.nan
    reason: str = ""
    conditions: str = ""
    load: float = math.nan


@dataclass
class Life:
    """A pod of a service, in Unix times; inf: not yet."""

    pod: str
    job: str
    node: str = ""
    leaves_s: float = math.inf  # it is being deleted, or its node has stopped
    gone_s: float = math.inf


@dataclass
class Lost:
    """A request that failed: a row of lost.csv.

    pod : pods of its service that were going away meanwhile; "" if there was none.
    """

    at_s: float
    job: str
    status: str
    took_s: float
    pod: str
    event: str


def attributed(
    failures: Iterable[dict], lives: Iterable[Life], events: Iterable[Event], began_s: float
) -> list[Lost]:
    """The failed requests, each with the pods that may have held it and the event of that time.

    A pod may have held a request of its service that was sent before the pod was gone, and that
    ended after the pod began to leave.
    """
    lives, events = list(lives), list(events)
    rows = []
    for one in failures:
        sent_s, ended_s = one["at"], one["at"] + one["took_s"]
        held = [
            life.pod
            for life in lives
            if life.job == one["job"]
            and sent_s <= life.gone_s + EDGE_S
            and ended_s >= life.leaves_s - EDGE_S
        ]
        at_s = sent_s - began_s
        during = [each.event for each in events if each.at_s <= at_s <= each.end_s]
        rows.append(
            Lost(
                round(at_s, 2),
                one["job"],
                str(one["status"]),
                one["took_s"],
                " ".join(held),
                during[-1] if during else "",
            )
        )
    return rows


def sent_between(counts: list[dict], first_s: float, last_s: float) -> int:
    """Requests sent between two Unix times, from the load's cumulative counts."""

    def until_s(when_s: float) -> int:
        before = [sum(one["sent"].values()) for one in counts if one["at"] <= when_s]
        return max(before, default=0)

    return until_s(last_s) - until_s(first_s)


def write_table(path: Path, kind: type, rows: Iterable[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [one.name for one in fields(kind)], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {
                    name: f"{value:.1f}" if isinstance(value, float) else value
                    for name, value in asdict(row).items()
                }
            )


# --- the world ------------------------------------------------------------------------------------


class SoakWorld(ModelWorld):
    """Two services, and two controllers as `faro manifests` and the chart describe them."""

    def __init__(self, folder: Path):
        super().__init__(folder, NAMES, QUOTA)
        room = CORES * QUOTA + CONTROLLER_CORES
        spec = {"hard": {"requests.cpu": f"{room:.2f}"}}
        apply(self.api, self.named("ResourceQuota", "models", spec=spec))
        apply(self.api, *(self.budget(name) for name in NAMES))
        for name in NAMES:
            self.scale(name, ORDERED)
        self.objects_of = self._manifests()
        self.grant()
        for file in ("config", "controller", "network"):
            apply(self.api, *self.objects_of[file])

    def _manifests(self) -> dict[str, list[dict]]:
        table = self.folder / "jobs.yaml"
        spec = ManifestSpec(
            read_jobs(table),
            table.read_text(),
            backend="deployments",
            namespace=self.namespace,
            name=NAME,
            image=IMAGE,
            deployments=self.names,
            namespaces=(self.namespace,),
            prometheus="http://prometheus.monitoring:9090",
            tick_s=TICK_S,
        )
        files = ("rbac", "config", "controller", "network")
        return {file: objects(spec, f"{file}.yaml") for file in files}

    def row(self, name: str) -> dict:
        return super().row(name) | {"min_replicas": MINIMUM}

    def budget(self, name: str) -> dict:
        spec = {"maxUnavailable": 1, "selector": {"matchLabels": {"app": name}}}
        return self.named("PodDisruptionBudget", name, spec=spec) | {"apiVersion": "policy/v1"}

    def model(self, name: str, loads_s: float = 0.0) -> dict:
        """The Deployment of a service. Its pods are ready only after `loads_s`."""
        deployment = super().model(name)
        surge = {"maxSurge": 1, "maxUnavailable": 0}
        deployment["spec"]["strategy"] = {"type": "RollingUpdate", "rollingUpdate": surge}
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        if loads_s:
            program = f"sleep {loads_s:.0f}; exec python /model/model_server.py"
            container["command"] = ["sh", "-c", program]
        return deployment

    def change_models(self, loads_s: float) -> None:
        """Give the services a template whose models load for a while; Faro keeps the replicas."""
        for name in self.names:
            template = self.model(name, loads_s)["spec"]["template"]
            path = self.path(f"/apis/apps/v1/{{ns}}/deployments/{name}")
            self.api.send("PATCH", path, {"spec": {"template": template}}, kind=MERGE)

    def scale(self, name: str, replicas: int) -> None:
        path = self.path(f"/apis/apps/v1/{{ns}}/deployments/{name}/scale")
        body = {"spec": {"replicas": replicas}}
        self.api.send("PATCH", path, body, kind=MERGE)

    def grant(self) -> None:
        apply(self.api, *self.objects_of["rbac"])

    def revoke(self) -> None:
        """Take the permissions away: the bindings, not the account."""
        for thing in self.objects_of["rbac"]:
            if thing["kind"] in ("RoleBinding", "ClusterRoleBinding"):
                with contextlib.suppress(ApiError):
                    self.api.send("DELETE", path_of(thing))

    def deployments(self) -> dict[str, dict]:
        items = self.get("/apis/apps/v1/{ns}/deployments")["items"]
        return {one["metadata"]["name"]: one for one in items if one["metadata"]["name"] in NAMES}

    def leader_pod(self) -> str:
        """Name of the pod of the controller that leads."""
        leader = self.plan()["controller"]
        names = [pod["metadata"]["name"] for pod in self.controllers()]
        return next(name for name in names if name in leader)

    def controllers(self) -> list[dict]:
        chosen = f"app.kubernetes.io/name={NAME}-controller"
        return self.get("/api/v1/{ns}/pods", labelSelector=chosen)["items"]

    def ready_pods(self, name: str) -> set[str]:
        """Names of the pods of a service that serve."""
        pods = self.get("/api/v1/{ns}/pods", labelSelector=f"app={name}")["items"]
        return {pod["metadata"]["name"] for pod in pods if is_ready(pod)}

    def restarts(self) -> int:
        return sum(
            one["restartCount"]
            for pod in self.controllers()
            for one in pod["status"].get("containerStatuses", [])
        )

    def is_whole(self) -> bool:
        """Whether all replicas of the newest template serve, and a plan is new."""
        for one in self.deployments().values():
            wanted, status = one["spec"]["replicas"], one.get("status", {})
            counts = [status.get(key, 0) for key in ("replicas", "updatedReplicas")]
            counts.append(status.get("readyReplicas", 0))
            current = status.get("observedGeneration", 0) >= one["metadata"]["generation"]
            if not current or any(count != wanted for count in counts):
                return False
        decided = self.plan().get("lastDecisionTime")
        return decided is not None and seconds_since(decided) < 3 * TICK_S

    def delete_pod(self, name: str) -> None:
        path = self.path(f"/api/v1/{{ns}}/pods/{name}")
        self.api.send("DELETE", path, gracePeriodSeconds="0")

    def set_by_hand(self, *words: str) -> None:
        """Run `faro set` as an operator does."""
        plan = ("--plan", f"{self.namespace}/{NAME}")
        command = [sys.executable, "-m", "faro_ops.cli", "set", *words, *plan]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr


def seconds_since(text: str) -> float:
    return time.time() - datetime.fromisoformat(text).timestamp()


# --- nodes ----------------------------------------------------------------------------------------


def evict(api: Any, node: str) -> bool:
    """Try to evict every pod of a node that no DaemonSet owns; returns whether none is left."""
    pods = api.get("/api/v1/pods", fieldSelector=f"spec.nodeName={node}")["items"]
    left = [pod for pod in pods if not of_daemon_set(pod)]
    for pod in left:
        meta = pod["metadata"]
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": meta["name"]}}
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/eviction"
        try:
            api.send("POST", path, body)
        except ApiError as error:
            # 429: a disruption budget allows none now. 500: two budgets select the pod.
            if error.status not in (404, 429):
                raise
    return not left


def of_daemon_set(pod: dict) -> bool:
    owners = pod["metadata"].get("ownerReferences", [])
    return any(one["kind"] in ("DaemonSet", "Node") for one in owners)


@contextlib.contextmanager
def drained(api: Any, node: str) -> Iterator[None]:
    """A node without pods, as `kubectl drain` leaves it; it takes pods again at the end."""

    def is_empty() -> bool:
        time.sleep(1)
        return evict(api, node)

    cordon(api, node)
    try:
        until(is_empty, WHOLE_S, f"{node} is empty")
        yield
    finally:
        until(lambda: cordon(api, node, False) is None, 60, f"{node} takes pods again")


def node_is_ready(api: Any, node: str) -> bool:
    return has_ready_condition(api.get(f"/api/v1/nodes/{node}"))


# --- what watches ---------------------------------------------------------------------------------


class Watcher:
    """Two threads: one looks at targets and plan, the other at the pods of the services."""

    def __init__(self, world: SoakWorld, began_s: float):
        self.world = world
        self.began_s = began_s
        self.looks: list[Look] = []
        self.lives: dict[str, Life] = {}
        # Connections of their own, without retries, so that a look that fails is over soon.
        self._apis = [connect(retries=0, timeout_s=2.0) for _ in range(2)]
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._repeat, args=(self.look, LOOK_S), daemon=True),
            threading.Thread(
                target=self._repeat, args=(self.look_at_pods, POD_LOOK_S), daemon=True
            ),
        ]

    def __enter__(self) -> Watcher:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _repeat(self, look: Callable[[], None], every_s: float) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            with contextlib.suppress(ApiError):
                look()
            self._stop.wait(max(0.1, every_s - (time.monotonic() - began)))

    def look(self) -> None:
        one = Look(round(time.time() - self.began_s, 1))
        one.load = os.getloadavg()[0] / (os.cpu_count() or 1)
        self.looks.append(one)
        api, place = self._apis[0], f"namespaces/{self.world.namespace}"
        items = api.get(f"/apis/apps/v1/{place}/deployments")["items"]
        found = {item["metadata"]["name"]: item for item in items}
        ready = [found[name].get("status", {}).get("readyReplicas", 0) for name in NAMES]
        one.targets = " ".join(f"{name}={found[name]['spec']['replicas']}" for name in NAMES)
        one.ready = " ".join(f"{name}={count}" for name, count in zip(NAMES, ready))
        plan = api.get(f"/apis/autoscaling.faro/v1alpha1/{place}/faroplans/{NAME}")
        status = plan.get("status", {})
        one.leader = status.get("controller", "")
        one.capacity = float(status.get("capacityCores", math.nan))
        one.reason = status.get("reason", "")
        if decided := status.get("lastDecisionTime"):
            one.decided_s_ago = round(seconds_since(decided), 1)
        wrong = [
            f"{each['type']}={each['status']} {each.get('reason', '')}"
            for each in status.get("conditions", [])
            if each["type"] != "Acting"
        ]
        one.conditions = "; ".join(wrong)

    def look_at_pods(self) -> None:
        now_s = time.time()
        pods = self._apis[1].get(f"/api/v1/namespaces/{self.world.namespace}/pods")["items"]
        seen = set()
        for pod in pods:
            meta = pod["metadata"]
            job = meta.get("labels", {}).get("app", "")
            if job not in NAMES:
                continue
            seen.add(meta["name"])
            life = self.lives.setdefault(meta["name"], Life(meta["name"], job))
            life.node = pod["spec"].get("nodeName", "")
            if meta.get("deletionTimestamp"):
                life.leaves_s = min(life.leaves_s, now_s)
        for name, life in self.lives.items():
            if name not in seen and math.isinf(life.gone_s):
                life.gone_s = now_s
                # A pod that is killed at once is never seen to leave.
                life.leaves_s = min(life.leaves_s, now_s - 2 * POD_LOOK_S)

    def kill(self, pod: str) -> None:
        """Note that a pod is about to be killed."""
        self.lives[pod].leaves_s = time.time()


# --- the events -----------------------------------------------------------------------------------


class Events:
    """What happens in the hour. Each method is one event, and returns when it is over."""

    def __init__(self, world: SoakWorld, watcher: Watcher, hold_s: float):
        self.world = world
        self.api = world.api
        self.watcher = watcher
        self.hold_s = hold_s

    def hold(self) -> None:
        time.sleep(self.hold_s)

    def an_order_fixes_a_service(self) -> None:
        self.world.set_by_hand("a", "--replicas", str(ORDERED))
        until(lambda: self.world.replicas("a") == ORDERED, 90, "the order is in force")
        self.hold()
        self.world.set_by_hand("a", "--clear")

    def a_service_is_frozen(self) -> None:
        before = self.world.replicas("b")
        self.world.set_by_hand("b", "--freeze")
        self.hold()
        assert self.world.replicas("b") == before, "a frozen service keeps its replicas"
        self.world.set_by_hand("b", "--clear")

    def a_model_pod_is_killed(self) -> None:
        before = self.world.ready_pods("a")
        name = min(before)
        self.watcher.kill(name)
        self.world.delete_pod(name)
        # Its Deployment does not show the loss at once.
        until(lambda: self.world.ready_pods("a") - before, WHOLE_S, "another pod serves")

    def the_leaders_pod_is_killed(self) -> None:
        leader = self.world.plan()["controller"]
        self.world.delete_pod(self.world.leader_pod())
        until(lambda: self.world.plan()["controller"] != leader, 120, "the other one leads")

    def a_node_is_cordoned(self) -> None:
        node = workers(self.api)[0]
        cordon(self.api, node)
        try:
            self.hold()
        finally:
            cordon(self.api, node, False)

    def a_node_is_drained(self) -> None:
        with drained(self.api, workers(self.api)[-1]):
            self.hold()

    def permissions_are_taken_and_given_back(self) -> None:
        self.world.revoke()
        try:
            self.hold()
        finally:
            self.world.grant()

    def the_api_server_is_away(self) -> None:
        with without_api_server():
            self.hold()

    def the_template_changes_and_its_models_load_for_a_minute(self) -> None:
        self.world.change_models(min(LOAD_S, self.hold_s))
        until(self.world.is_whole, WHOLE_S + 20 * self.hold_s, "the rolling update is done")

    def the_nodes_are_replaced_one_by_one(self) -> None:
        for node in workers(self.api):
            with drained(self.api, node):
                docker("stop", node)
                self.hold()
                docker("start", node)
                until(lambda node=node: node_is_ready(self.api, node), 300, f"{node} is ready")
            until(self.world.is_whole, WHOLE_S, "all replicas serve again")


# `Fault.on_kind` of soak_faults.py says which of them are faults in virtual time, too.
EVENTS = (
    Events.an_order_fixes_a_service,
    Events.a_node_is_cordoned,
    Events.permissions_are_taken_and_given_back,
    Events.a_model_pod_is_killed,
    Events.a_node_is_drained,
    Events.the_leaders_pod_is_killed,
    Events.a_service_is_frozen,
    Events.the_api_server_is_away,
    Events.the_template_changes_and_its_models_load_for_a_minute,
    Events.the_nodes_are_replaced_one_by_one,
)

# The worlds in virtual time have no rolling updates, and replace no nodes one by one.
ONLY_ON_KIND = (
    Events.the_template_changes_and_its_models_load_for_a_minute,
    Events.the_nodes_are_replaced_one_by_one,
)


def title(event: Callable) -> str:
    """The name of an event as a sentence."""
    return event.__name__.replace("_", " ")


# --- the run --------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What an hour has seen.

    broken : what should have held and did not, one line each.
    """

    events: list[Event]
    looks: list[Look]
    lost: list[Lost]
    restarts: int
    broken: list[str]

    def write(self, folder: Path) -> None:
        write_table(folder / "events.csv", Event, self.events)
        write_table(folder / "looks.csv", Look, self.looks)
        write_table(folder / "lost.csv", Lost, self.lost)


def problems(events: list[Event], looks: list[Look], lost: list[Lost]) -> list[str]:
    """What did not hold: one line each."""
    found = []
    for one in lost:
        if not one.pod:
            found.append(f"{one.at_s:.0f} s: a request to {one.job} was lost without a killed pod")
    for look in looks:
        counts = targets_of(look.targets)
        for name, count in counts.items():
            if count < MINIMUM:
                found.append(f"{look.at_s:.0f} s: {name} is asked to run {count}")
        if sum(counts.values()) * CORES > look.capacity + CORES / 10:  # false if it is unknown
            cores = f"the capacity of {look.capacity:g} cores"
            found.append(f"{look.at_s:.0f} s: targets {look.targets} exceed {cores}")
    for event in events:
        if math.isinf(event.whole_s):
            found.append(f"{event.at_s:.0f} s: after {event.event!r}, all was not as before")
        if "order" in event.event:
            continue
        # The load is steady, so nothing but an order may take replicas away.
        before = [one for one in looks if one.at_s < event.at_s and one.targets]
        during = [one for one in looks if event.at_s <= one.at_s <= event.end_s and one.targets]
        if not before:
            continue
        had = targets_of(before[-1].targets)
        for look in during:
            for name, count in targets_of(look.targets).items():
                if count < had[name] - 1:
                    text = f"{name} went from {had[name]} to {count} during {event.event!r}"
                    found.append(f"{look.at_s:.0f} s: {text}")
    return list(dict.fromkeys(found))


def targets_of(text: str) -> dict[str, int]:
    """Replicas by service.

    >>> targets_of("a=4 b=2")
    {'a': 4, 'b': 2}
    """
    return {name: int(count) for name, count in (word.split("=") for word in text.split())}


def load_image() -> None:
    """Give the control plane the image of the load's pod; cluster/up.sh gives it to the workers.

    An image that the node has already is not loaded again.
    """
    command = ["kind", "load", "docker-image", "--name", "faro", "--nodes", CONTROL_PLANE, IMAGE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


def load_pod(world: SoakWorld, elsewhere: World, seconds: float) -> str:
    """Start the load on the control plane; returns the path of its pod."""
    words = [f"{name}={RPS[name]:g}={world.address(name)}" for name in NAMES]
    path = world.python(
        f"load-{world.namespace}",
        LOAD,
        f"{seconds:.0f}",
        *words,
        namespace=elsewhere.namespace,
        nodeName=CONTROL_PLANE,
    )
    until(lambda: is_ready(world.api.get(path)), 180, "the load has begun")
    return path


def run(minutes: float, folder: Path) -> Outcome:
    """Run the hour. Its namespaces are deleted at the end."""
    with contextlib.ExitStack() as stack:
        elsewhere = stack.enter_context(contextlib.closing(World(folder)))
        Prometheus(elsewhere.api)  # is installed
        load_image()
        world = stack.enter_context(contextlib.closing(SoakWorld(folder)))
        count = len(EVENTS)
        share_s = 60 * minutes / count
        hold_s = min(HOLD_S, share_s / 5)
        path = load_pod(world, elsewhere, 60 * minutes + STARTED_S + count * WHOLE_S)
        until(world.is_whole, STARTED_S, lambda: f"the first plan: {world.plan()}")
        began_s = time.time()
        broken: list[str] = []
        events: list[Event] = []
        with Watcher(world, began_s) as watcher:
            time.sleep(min(60.0, share_s))
            happening = Events(world, watcher, hold_s)
            for call in EVENTS:
                events.append(happen(partial(call, happening), title(call), world, began_s, broken))
                left_s = began_s + len(events) * share_s - time.time()
                time.sleep(max(2 * LOOK_S, left_s))
            time.sleep(REQUEST_S + 2)  # requests under way end
        lines = list(world.api.lines(f"{path}/log", 10.0))
        elsewhere.api.send("DELETE", path, gracePeriodSeconds="0")
        counts = [one for one in lines if "sent" in one]
        failures = [one for one in lines if "status" in one and one["at"] >= began_s]
        lost = attributed(failures, watcher.lives.values(), events, began_s)
        for event in events:
            cost(event, counts, lost, watcher.looks, began_s)
        broken += problems(events, watcher.looks, lost)
        return Outcome(events, watcher.looks, lost, world.restarts(), broken)


def happen(
    call: Callable[[], None], name: str, world: SoakWorld, began_s: float, broken: list[str]
) -> Event:
    """Let an event happen, and wait until all is as before."""
    event = Event(name, round(time.time() - began_s, 1))
    print(f"{event.at_s:6.0f} s {event.event}", flush=True)
    try:
        call()
        event.lasted_s = round(time.time() - began_s - event.at_s, 1)
        until(world.is_whole, WHOLE_S, lambda: f"as before: {world.plan()}")
        event.whole_s = round(time.time() - began_s - event.at_s, 1)
    except Exception as error:  # the other events are worth their figures
        broken.append(f"{event.at_s:.0f} s: {event.event}: {str(error) or repr(error)}"[:300])
    return event


def cost(
    event: Event, counts: list[dict], lost: list[Lost], looks: list[Look], began_s: float
) -> None:
    """Fill in what an event cost."""
    end_s = event.end_s
    event.sent = sent_between(counts, began_s + event.at_s, began_s + end_s)
    mine = [one for one in lost if event.at_s <= one.at_s <= end_s]
    event.failed = len(mine)
    event.in_killed_pods = sum(bool(one.pod) for one in mine)
    seen = [
        targets_of(one.targets) for one in looks if event.at_s <= one.at_s <= end_s and one.targets
    ]
    if seen:
        ranges = []
        for name in NAMES:
            low, high = min(one[name] for one in seen), max(one[name] for one in seen)
            ranges.append(f"{name}={low}" if low == high else f"{name}={low}..{high}")
        event.targets = " ".join(ranges)


def report(outcome: Outcome) -> str:
    """What an hour has seen, as text."""
    lines = ["\t".join(one.name for one in fields(Event))]
    lines += ["\t".join(map(str, asdict(one).values())) for one in outcome.events]
    lines.append(f"controllers restarted {outcome.restarts} times")
    lines.append(f"{len(outcome.lost)} requests failed")
    lines += [f"broken: {one}" for one in outcome.broken or ["nothing"]]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--out", type=Path, default=ROOT / "data/recorded-faults")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        seen = run(arguments.minutes, Path(name))
    seen.write(arguments.out)
    print(report(seen))
    sys.exit(bool(seen.broken))
