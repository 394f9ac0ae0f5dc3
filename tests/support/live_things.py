"""Shared by the tests of the live parts: jobs, a server that answers like Ray, a policy, a cluster.

The policy has a fixed target; the state of the cluster never changes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from http_server import Request, serving
from observations import observed

from faro_lib.workload import Job
from faro_ops.operate.rayserve.placements import Placements
from faro_ops.operate.rayserve.statistics import StatsAggregator, empty_row

JOBS = (Job("a", cold_start_s=5.0), Job("b", cold_start_s=5.0))


class FakeRay:
    """Ray's REST API and the stats endpoint in one server; targets take effect at once.

    Attributes
    ----------
    targets : replicas by application.
    scaled : every change, in order.
    deleting : applications being deleted.
    failed : applications whose redeployment has failed, and of which Ray lists no deployment.
    status : answers every request.
    hang_s : delay of each answer.
    token : required.
    """

    def __init__(self, targets: dict[str, int], cpus: float = 8.0, token: str | None = None):
        self.targets, self.cpus, self.token = dict(targets), cpus, token
        self.scaled: list[tuple[str, int]] = []
        self.deleting: set[str] = set()
        self.failed: set[str] = set()
        self.status, self.window_status, self.hang_s = 200, 200, 0.0
        self.stats = StatsAggregator()
        self.placements = Placements()

    def hear(
        self, job: str, per_second: int, seconds, latency_s: float = 0.1, by: str | None = None
    ) -> None:
        """A replica (`by`) of the job reports `per_second` requests in each of these seconds."""
        from faro_ops.operate.rayserve.statistics import bucket_of

        row = empty_row() | {
            "arrivals": per_second,
            "done": per_second,
            "latency_s": per_second * latency_s,
        }
        rows = {
            second: row | {"buckets": {str(bucket_of(latency_s)): per_second}} for second in seconds
        }
        self.stats.report(job, by or f"{job}#1", 0, rows)

    def answer(self, method: str, path: str, body):
        parts = urlsplit(path)
        if parts.path == "/faro-statistics":
            if self.window_status != 200:
                return self.window_status, {}
            query = parse_qs(parts.query)
            if "placements" in query:
                self.placements.wish(body or {})
                return 200, self.placements.read()
            if "holder" in query:
                return 200, self.stats.lease(
                    query["holder"][0], float(query["duration_s"][0]), "force" in query
                )
            if method == "POST":
                self.stats.accept(body, float(query["for_s"][0]))
                return 200, {}
            return 200, self.stats.read(int(parse_qs(parts.query)["since"][0]))
        if self.status != 200:
            return self.status, {}
        if parts.path == "/api/serve/applications/":
            return 200, {"applications": {name: self.application(name) for name in self.targets}}
        if parts.path == "/api/v0/nodes":
            node = {"state": "ALIVE", "resources_total": {"CPU": self.cpus}}
            return 200, {"data": {"result": {"result": [node]}}}
        name = parts.path.split("/")[4]
        if name not in self.targets:
            return 404, {}
        self.targets[name] = body["target_num_replicas"]
        self.scaled.append((name, body["target_num_replicas"]))
        return 200, {}

    def application(self, name: str):
        if name in self.failed:
            return {"status": "DEPLOY_FAILED", "deployments": {}}
        count, status = self.targets[name], "DELETING" if name in self.deleting else "RUNNING"
        replicas = [{"state": "RUNNING"}] * count
        deployments = {"replica": {"target_num_replicas": count, "replicas": replicas}}
        if name.startswith("pool-"):
            gateways = [{"state": "RUNNING", "replica_id": "gateway#1"}]
            deployments["gateway"] = {"target_num_replicas": 1, "replicas": gateways}
        return {"status": status, "deployments": deployments}

    def http(self, request: Request) -> tuple[int, Any]:
        if self.hang_s:
            time.sleep(self.hang_s)
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return 401, {}
        return self.answer(request.method, request.address, request.body)

    @contextmanager
    def served(self) -> Iterator[str]:
        """The address of a server, until the block ends."""
        with serving(self.http) as server:
            yield server.url


@dataclass
class Still:
    """A cluster whose state never changes; time passes at once."""

    now_s: float = 0.0

    def advance(self, until_s):
        self.now_s = until_s

    def observe(self):
        return observed([1, 1], now_s=self.now_s)

    def apply(self, target, drop):
        pass


class Wanting:
    """A policy with a fixed target."""

    name, tick_s = "Wanting", 10.0

    def __init__(self, target, drop=None, tick_s=10.0):
        self.tick_s = tick_s
        self.target = np.array(target)
        self.drop = np.zeros(len(self.target)) if drop is None else np.array(drop)

    def initial(self, jobs, capacity):
        return self.target

    def start(self, jobs):
        return 0

    def decide(self, state, observation):
        from faro_lib.protocol import HOLD, Plan

        return state + 1, Plan(self.target, self.drop, (HOLD,) * len(self.target))
