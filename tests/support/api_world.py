"""`faro run` on a fake API server and a fake Prometheus, in this process.

The server is an object with the calls of `kube.client.Api`, and a test changes what it holds while
the controller runs.
"""

from __future__ import annotations

import copy
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable

import numpy as np
import waiting
from journal_things import count_ticks
from kube_things import measured, node, pod
from waiting import PATIENCE_S

from faro_ops import cli
from faro_ops.cli import controller
from faro_ops.operate.kube.client import ApiError

NAMESPACE, NAME = "jobs", "faro"
NOBODY_YET = {"metadata": {"name": NAME}, "spec": {"holderIdentity": ""}}
QUERIES = {"requests": "sum(x[$window])", "latency_mean_s": "sum(y[$window])"}


class ApiServer:
    """Deployments of one-core pods, their HPAs, nodes, a lease and a FaroPlan.

    Attributes
    ----------
    silent : no call is answered.
    may : decides by the attributes of a review whether the controller has a permission.
    holders : the holder in each write of the lease, in order.
    scaled : (Deployment, replicas) of each change, in order.
    """

    host, namespace = "https://faro.test", NAMESPACE

    def __init__(self, replicas: dict[str, int], cores: int = 12):
        self.replicas = dict(replicas)
        self.requests_of = dict.fromkeys(replicas, "1")
        self.hpas: dict[str, str] = {}  # Deployment -> its HPA
        self.nodes = [node("n1", str(cores))]
        self.quotas: list[dict] = []
        self.lease = copy.deepcopy(NOBODY_YET)
        self.plan: dict = {"metadata": {"uid": "1"}, "spec": {}}
        self.silent = False
        self.may: Callable[[dict], bool] = lambda asked: True
        self.holders: list[str] = []
        self.scaled: list[tuple[str, int]] = []
        self.calls: Counter[str] = Counter()
        self.closed = threading.Event()

    # --- reading

    def get(self, path, **_):
        self._answer("GET", path)
        last = path.rsplit("/", 1)[-1]
        lists = {
            "deployments": lambda: [self._deployment(name) for name in list(self.replicas)],
            "horizontalpodautoscalers": lambda: [self._hpa(*one) for one in self.hpas.items()],
            "nodes": lambda: self.nodes,
            "pods": self._pods,
            "resourcequotas": lambda: self.quotas,
        }
        if last in lists:
            items = copy.deepcopy(lists[last]())
            return {"items": items, "metadata": {"resourceVersion": "1"}}
        if "/leases/" in path:
            return copy.deepcopy(self.lease)
        if "/faroplans/" in path:
            return copy.deepcopy(self.plan)
        if path == f"/api/v1/namespaces/{NAMESPACE}":
            return {"status": {"phase": "Active"}}
        if path == "/apis/autoscaling.faro/v1alpha1":
            return {"resources": [{"name": "faroplans"}]}
        raise ApiError(404, f"GET {path}: 404")

    def lines(self, path, silence_s, **_):
        """A watch without events, so that the informers list again every second."""
        self.closed.wait(1.1)
        self._answer("WATCH", path)
        return iter(())

    def _deployment(self, name):
        count = self.replicas[name]
        spec = {
            "replicas": count,
            "selector": {"matchLabels": {"app": name}},
            "template": pod("template", self.requests_of.get(name, "1")),
        }
        status = {"observedGeneration": 1, "replicas": count, "readyReplicas": count}
        return {"metadata": self._metadata(name), "spec": spec, "status": status}

    def _hpa(self, target, name):
        spec = {"scaleTargetRef": {"kind": "Deployment", "name": target}, "maxReplicas": 4}
        return {"metadata": self._metadata(name), "spec": spec}

    def _metadata(self, name):
        return {"name": name, "namespace": NAMESPACE, "resourceVersion": "1", "generation": 1}

    def _pods(self):
        return [
            pod(f"{name}-{n}", labels={"app": name})
            for name, count in list(self.replicas.items())
            for n in range(count)
        ]

    # --- writing

    def send(self, method, path, body=None, **_):
        self._answer(method, path)
        if path.endswith("selfsubjectaccessreviews"):
            return {"status": {"allowed": self.may(body["spec"]["resourceAttributes"])}}
        if "/leases" in path:
            self.holders.append(body["spec"]["holderIdentity"])
            self.lease = copy.deepcopy(body)
        elif path.endswith("/scale"):
            name = path.split("/")[-2]
            asked = {"resource": "deployments", "verb": "patch", "name": name}
            if name not in self.replicas:
                raise ApiError(404, f"PATCH {path}: 404")
            if not self.may(asked):
                raise ApiError(403, f"PATCH {path}: 403 forbidden")
            self.replicas[name] = body["spec"]["replicas"]
            self.scaled.append((name, self.replicas[name]))
        elif path.endswith("/status"):
            self.plan["status"] = body["status"]
        return {"metadata": {"resourceVersion": "1"}}

    def apply(self, path, manifest, **_):
        self._answer("APPLY", path)
        return {"metadata": {"uid": "1"}}

    def _answer(self, method, path):
        self.calls[f"{method} {path}"] += 1
        if self.silent:
            raise ApiError(0, f"{self.host} cannot be reached: ReadTimeoutError")

    # --- what the FaroPlan shows

    def job(self, name: str) -> dict:
        """The job's row of the FaroPlan's status."""
        rows = self.plan.get("status", {}).get("jobs", [])
        return next((row for row in rows if row["name"] == name), {})

    def condition(self, kind: str) -> dict:
        conditions = self.plan.get("status", {}).get("conditions", [])
        return next((one for one in conditions if one["type"] == kind), {})


class Measured:
    """A Prometheus in which every job that has a query has 60 requests per minute."""

    def __init__(self, *_, **__):
        pass

    def observe(self, queries, ends, now_s, minute_s):
        known = np.array([1.0 if one.requests else np.nan for one in queries])
        counts = np.repeat(60 * known[:, None], len(ends), 1)
        return measured(counts, 0.1 * known)


class Run:
    """`faro run --backend deployments` in the main thread, and an operator in another.

    operate : called in the operator's thread; when it returns, the controller is stopped.

    said : the lines of the controller so far.
    """

    def __init__(self, server: ApiServer, folder, monkeypatch, jobs: dict[str, dict] | None = None):
        self.server, self.folder = server, folder
        self.table = folder / "jobs.yaml"
        self.status: int | None = None
        self.said: list[str] = []
        self.edit(jobs or {name: {} for name in server.replicas})
        monkeypatch.setattr(
            "faro_ops.operate.kube.operate.NamespacedName.connect", lambda self, **_: server
        )
        say = controller.say

        def noted(message: str, *more: str) -> None:
            self.said.append(message)
            say(message, *more)

        monkeypatch.setattr(controller, "say", noted)
        monkeypatch.setattr("faro_ops.operate.kube.operate.DeploymentMetrics", Measured)

    def edit(self, jobs: dict[str, dict]) -> None:
        """Write the table: job -> its fields; `deployment` is added to the section."""
        rows = []
        for name, fields in jobs.items():
            section = fields.get("deployment", {})
            if isinstance(section, dict):
                section = {"queries": QUERIES} | section
            rows.append({"job": name, "cold_start_s": 1} | fields | {"deployment": section})
        self.write(json.dumps(rows))

    def write(self, table: str) -> None:
        """Replace the text of the table at once, so that nobody reads a part of it."""
        partial = self.table.with_suffix(".partial")
        partial.write_text(table)
        partial.rename(self.table)

    def order(self, **replicas: int) -> None:
        """Fix the replicas of these jobs, as `faro set` does, and clear all other orders."""
        rows = [{"job": job, "by": "me", "replicas": n} for job, n in replicas.items()]
        self.server.plan["spec"]["overrides"] = rows

    def go(self, operate: Callable[[], object], *options: str, policy: str = "FairShare") -> int:
        """Run until `operate` returns; the exit status. Its failed assertion is raised here."""
        problems: list[BaseException] = []
        self.ended = threading.Event()

        def operator():
            try:
                operate()
            except BaseException as error:
                problems.append(error)
            finally:
                if not self.ended.is_set():
                    os.kill(os.getpid(), signal.SIGTERM)

        thread = threading.Thread(target=operator, daemon=True)
        before = signal.signal(signal.SIGTERM, lambda *_: None)  # before and after the run
        command = ["run", "--backend", "deployments", "--plan", f"{NAMESPACE}/{NAME}"]
        command += ["--jobs", str(self.table), "--prometheus", "http://p", "--policy", policy]
        command += [
            "--tick",
            "0.2",
            "--max-scale-down",
            "1",
            "--journal",
            str(self.folder / "j"),
            *options,
        ]
        try:
            thread.start()
            self.status = cli.main(command)
            self.ended.set()
            thread.join(PATIENCE_S)
        finally:
            signal.signal(signal.SIGTERM, before)
            self.server.closed.set()
        for problem in problems:
            raise problem
        return self.status

    def until(self, holds: Callable[[], object], what: str = "it") -> None:
        """Wait until it holds; fails at once if the controller ends before."""
        waiting.until(lambda: holds() or self.ended.is_set(), what=what)
        assert holds() or not self.ended.is_set(), (
            f"the controller has ended before {what} came true"
        )

    def until_it_ends(self) -> None:
        """What an operator does whose controller ends by itself."""
        assert self.ended.wait(PATIENCE_S), "the controller does not end"

    def until_it_says(self, text: str) -> None:
        self.until(lambda: any(text in line for line in self.said), what=f"{text!r} is said")

    def until_ticks(self, more: int = 3) -> None:
        """Until so many ticks more are recorded. All but the first begin after this call."""
        before = self.ticks()
        self.until(lambda: self.ticks() >= before + more, what=f"{more} ticks")

    def ticks(self) -> int:
        return count_ticks(self.folder / "j")
