"""`Cluster` on Ray Serve, over REST: what runs, what the replicas report, and how many there shall be."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from faro_lib.control import growth
from faro_lib.control.clock import Clock
from faro_lib.policies.protocol import Observation
from faro_lib.rayserve.deploy import APPLICATIONS, WINDOW_ROUTE
from faro_lib.rayserve.recent import History
from faro_lib.rayserve.rest import Refusal, Rest
from faro_lib.rayserve.spec import Served
from faro_lib.workload import Job, jobs_array
from faro_lib.workload.jobs import MINUTE_S

LAG_S = 0.6  # wall seconds after an instant until what happened before it has been reported
LATE_S = 15  # seconds that may still be reported anew
PATIENCE_S = 90.0  # a change that takes longer, wall time, no longer keeps the job from being changed again
ALIVE = ("RUNNING", "DEPLOYING", "UNHEALTHY", "NOT_STARTED")


class RayServeCluster:
    """Jobs as applications of one Ray cluster that somebody else has deployed.

    Parameters
    ----------
    jobs, served : what is controlled, and where it is.
    ray : REST of the dashboard.
    http : where the applications are served; the statistics' window is one of them.
    clock : trace time.
    capacity : cores that the jobs may use; None asks Ray for all that its nodes have.
    """

    def __init__(
        self,
        jobs: tuple[Job, ...],
        served: tuple[Served, ...],
        ray: Rest,
        http: Rest,
        clock: Clock,
        capacity: float | None = None,
    ):
        self.jobs, self.served, self.clock = jobs, served, clock
        self._ray, self._http = ray, http
        self._fixed_capacity, self._capacity = capacity, capacity
        self._history = History(tuple(job.name for job in jobs))
        self._percentile = jobs_array(jobs, "quantile")
        self._heard_until = 0
        self._now_s = 0.0
        self._seen: np.ndarray | None = None  # targets as Ray has them; -1 = the application is absent
        self._asked_at = np.full(len(jobs), -np.inf)
        self._cores = jobs_array(jobs, "cores")
        self.may_act: Callable[[], bool] = lambda: True

    def connect(self) -> None:
        """Ask both servers once, so that a wrong address or token is refused before anything begins.

        Raises
        ------
        ValueError : one line.
        """
        try:
            for server, path in ((self._ray, APPLICATIONS), (self._http, f"{WINDOW_ROUTE}?since={int(time.time())}")):
                if not isinstance(server.get(path), dict):
                    raise OSError(f"{server.address}{path} is answered, but not by Ray Serve and Faro")
        except OSError as error:
            raise ValueError(f"no Ray Serve at {self._ray.address} and {self._http.address}: {error}") from None

    def advance(self, until_s: float) -> None:
        self.clock.wait_until(until_s, LAG_S)
        self._now_s = until_s

    def observe(self) -> Observation:
        states = self._ray.get(APPLICATIONS)["applications"]
        self._capacity = self._read_capacity()
        told = self._hear()
        now_s, clock = self._now_s, self.clock
        minute = int(now_s // MINUTE_S)
        deployments = [self._deployment(states, one) for one in self.served]
        present = np.array([found is not None for found in deployments])
        found = [one or {} for one in deployments]
        target = np.array([int(one.get("target_num_replicas") or 0) for one in found])
        counts = [_by_state(one) for one in found]
        running = np.array([count.get("RUNNING", 0) for count in counts])
        self._seen = np.where(present, target, -1)
        recently = time.monotonic() - self._asked_at < PATIENCE_S
        return Observation(
            now_s=now_s,
            capacity=self._capacity,
            minute=minute,
            arrivals_per_min=self._history.arrivals_per_min(clock, minute),
            mean_latency_s=self._history.mean_latency_s(clock, now_s),
            tail_latency_s=self._history.percentile_s(clock, minute, self._percentile),
            ongoing=np.array([_queue(told.get(job.name)) for job in self.jobs]),
            running=running,
            starting=np.maximum(target - running, 0),
            target=target,
            terminating=np.array([count.get("STOPPING", 0) for count in counts]),
            changing=(running < target) & recently,
            drop=np.array([_drop(told.get(job.name)) for job in self.jobs]),
            arrivals_now=self._history.arrivals_now(clock, minute, now_s),
            present=None if present.all() else present,
        )

    def apply(self, target, drop) -> None:
        """Ask Ray for these replicas, those that go first, and the replicas for these drop rates.

        Every call is made, whatever became of those before it, but for two: nobody grows into what another has not given
        up, and nothing is asked for any more once `may_act` says no.

        Raises
        ------
        OSError : what went wrong first.
        """
        target = np.asarray(target)
        seen = np.full(len(target), -2) if self._seen is None else self._seen
        wrong: list[Exception] = []
        # Where nothing was seen yet nothing is known to stand in the way.
        standing = np.where(seen < 0, target, seen)
        for job in np.argsort(target - seen, kind="stable"):
            if seen[job] == -1 or seen[job] == target[job]:
                continue
            if target[job] > standing[job] and not growth(target, standing, self._cores, self._capacity or 0.0)[job]:
                wrong.append(OSError(f"{self.jobs[job].name} does not grow to {target[job]}: others have not shrunk"))
                continue
            one = self.served[job]
            path = f"/api/v1/applications/{one.application}/deployments/{one.deployment}/scale"
            try:
                self._call(self._ray, path, {"target_num_replicas": int(target[job])})
                self._asked_at[job] = time.monotonic()
                standing[job] = target[job]
                if self._seen is not None:
                    self._seen[job] = target[job]
            except (OSError, Refusal) as error:
                wrong.append(error)
        try:
            shares = {job.name: round(1 - float(d), 6) for job, d in zip(self.jobs, drop)}
            self._call(self._http, WINDOW_ROUTE, shares)
        except (OSError, Refusal) as error:
            wrong.append(error)
        if wrong:
            raise OSError(str(wrong[0]))

    def _call(self, server: Rest, path: str, body: dict[str, Any]) -> None:
        if not self.may_act():
            raise OSError("another controller may act by now; the rest is left to it")
        server.post(path, body)

    def _hear(self) -> dict[str, Any]:
        """What the window tells; nothing where it does not answer: then the data is missing, and the loop knows."""
        try:
            told = self._http.get(f"{WINDOW_ROUTE}?since={self._heard_until - LATE_S}")
        except (OSError, Refusal):
            return {}
        known = {job.name for job in self.jobs}
        told = {job: one for job, one in told.items() if job in known}
        for job, one in told.items():
            self._history.hear(job, one["seconds"])
        self._heard_until = int(time.time())
        return told

    def _deployment(self, states, one: Served) -> dict[str, Any] | None:
        state = states.get(one.application, {})
        return state.get("deployments", {}).get(one.deployment) if state.get("status") in ALIVE else None

    def _read_capacity(self) -> float:
        if self._fixed_capacity is not None:
            return self._fixed_capacity
        with suppress(OSError, Refusal, KeyError, TypeError):
            nodes = self._ray.get("/api/v0/nodes?detail=1&limit=1000")["data"]["result"]["result"]
            alive = [node for node in nodes if node["state"] == "ALIVE"]
            return float(sum(node["resources_total"].get("CPU", 0.0) for node in alive))
        if self._capacity is None:
            raise OSError(f"{self._ray.address}: Ray does not tell its nodes' resources")
        return self._capacity


def _by_state(deployment: dict[str, Any]) -> dict[str, int]:
    states = [replica["state"] for replica in deployment.get("replicas", [])]
    return {state: states.count(state) for state in set(states)}


def _queue(told: dict[str, Any] | None) -> float:
    """Requests inside; unknown where no replica was heard of lately."""
    return float(told["inside"]) if told and told["replicas"] else np.nan


def _drop(told: dict[str, Any] | None) -> float:
    """The drop rate in force as far as the board knows: none, if nobody told it one."""
    share = (told or {}).get("accept")
    return 0.0 if share is None else round(1 - share, 6)
