"""The load of the soak on kind, and what it costs: which requests failed, and in which pods.

A pod on the control plane, which no fault touches, sends the requests through the Services. Every
request that fails is attributed to a pod of its service that was going away at that time.
"""

from __future__ import annotations

import contextlib
import csv
import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from k8s_faro import REQUEST_S
from k8s_models import ModelWorld
from k8s_ray import IMAGE
from k8s_world import (
    CONTROL_PLANE,
    World,
    until,
)
from soak_faults import TROUBLED as NAMES

from faro_ops.operate.kube.capacity import is_ready
from faro_ops.operate.kube.client import ApiError, connect

RPS = {"a": 8.0, "b": 5.0}
WHOLE_S = 420.0  # until all is as before
POD_LOOK_S = 0.5
EDGE_S = 2.0  # a clock of a pod may differ, and a look at the pods comes later
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
    """A fault, and what it costs: a row of events.csv.

    at_s : seconds since the load began.
    lasted_s : until the fault was over.
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
    """The failed requests, each with the pods that may have held it and the fault of that time.

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


def as_text(counts: dict[str, Any]) -> str:
    """Counts by service as text.

    >>> as_text({"a": 4, "b": 2})
    'a=4 b=2'
    """
    return " ".join(f"{name}={count}" for name, count in counts.items())


def targets_of(text: str) -> dict[str, int]:
    """Replicas by service.

    >>> targets_of("a=4 b=2")
    {'a': 4, 'b': 2}
    """
    return {name: int(count) for name, count in (word.split("=") for word in text.split())}


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


# --- what watches, and what sends -----------------------------------------------------------------


class Watcher:
    """A thread that looks at the pods of the services, to know which were going away when."""

    def __init__(self) -> None:
        self.namespace = ""
        self.lives: dict[str, Life] = {}
        self.former: list[Life] = []  # those of pods that have started again since
        # A connection of its own, without retries, so that a look that fails is over soon.
        self._api = connect(retries=0, timeout_s=2.0)

    @contextlib.contextmanager
    def watching(self, namespace: str) -> Iterator[None]:
        self.namespace = namespace
        stop = threading.Event()

        def work() -> None:
            while not stop.wait(POD_LOOK_S):
                with contextlib.suppress(ApiError):
                    self.look_at_pods()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(30)

    def look_at_pods(self) -> None:
        now_s = time.time()
        pods = self._api.get(f"/api/v1/namespaces/{self.namespace}/pods")["items"]
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
        for name, life in list(self.lives.items()):
            if name not in seen and math.isinf(life.gone_s):
                life.gone_s = now_s
                # A pod that is killed at once is never seen to leave.
                life.leaves_s = min(life.leaves_s, now_s - 2 * POD_LOOK_S)

    def leaves(self, pod: str) -> None:
        """Note that a pod is about to be killed."""
        self.lives[pod].leaves_s = time.time()

    def leave(self, node: str) -> None:
        """Note that a node is about to stop, with its pods."""
        for life in list(self.lives.values()):
            if life.node == node and math.isinf(life.gone_s):
                self.leaves(life.pod)

    def returns(self, node: str) -> None:
        """Note that a node is ready again, and that its pods start again."""
        for life in list(self.lives.values()):
            if life.node == node and math.isfinite(life.leaves_s) and math.isinf(life.gone_s):
                life.gone_s = time.time()
                self.former.append(self.lives.pop(life.pod))

    def all_lives(self) -> list[Life]:
        return [*self.former, *self.lives.values()]


def load_image() -> None:
    """Give the control plane the image of the load's pod; cluster/up.sh gives it to the workers.

    An image that the node has already is not loaded again.
    """
    command = ["kind", "load", "docker-image", "--name", "faro", "--nodes", CONTROL_PLANE, IMAGE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


def load_pod(world: ModelWorld, elsewhere: World, seconds: float) -> str:
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
