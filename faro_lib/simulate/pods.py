"""Pods: how replicas come and go inside a fixed capacity (paper/simulator rules).

Growing takes the job's idle pods first (ready after a short while), then new pods (ready after the cold start); what finds
no pod waits and tries again. Shrinking removes the newest replica; its pod stays idle, and counts, until it is collected.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field

import numpy as np

REUSE_S = 3.0  # an idle pod serves again after this; also how long a removal counts as a change
RETRY_S = 5.0  # a replica that found no pod tries again after this
IDLE_S, CHECK_S = 30.0, 5.0  # idle pods are collected after IDLE_S, at the next multiple of CHECK_S
BIRTH, COLLECT, RETRY = 0, 1, 2  # kinds of event, in their order at equal times

EPSILON = 1e-9


@dataclass(slots=True)
class JobPods:
    """One job's pods. `births` are the instants at which starting replicas begin to serve, oldest request first."""

    cores: float
    cold_start_s: float
    running: int = 0
    births: list[float] = field(default_factory=list)
    idle_since_s: deque[float] = field(default_factory=deque)
    waiting: int = 0
    removed_s: float = -np.inf

    @property
    def pods(self) -> int:
        return self.running + len(self.births) + len(self.idle_since_s)


class Pods:
    """All jobs' pods and the timetable of what happens to them.

    Two callbacks tell the serving side: `on_birth(job, now_s)` and `on_removal(job, now_s)`, once a replica.
    """

    def __init__(
        self,
        cores,
        cold_start_s,
        capacity: float,
        on_birth,
        on_removal,
        idle_s: float = IDLE_S,
        retry_s: float = RETRY_S,
    ):
        self.capacity = capacity
        self.idle_s, self.retry_s = idle_s, retry_s
        self.jobs = [JobPods(c, s) for c, s in zip(cores, cold_start_s)]
        self._on_birth, self._on_removal = on_birth, on_removal
        self._timetable: list[tuple[float, int, int]] = []  # (instant, kind, job)

    def set_running(self, job: int, replicas: int) -> None:
        """Replicas that are there from the beginning."""
        for _ in range(replicas):
            self.jobs[job].running += 1
            self._on_birth(job, 0.0)

    @property
    def free_cores(self) -> float:
        return self.capacity - sum(job.pods * job.cores for job in self.jobs)

    def changing(self, job: int, now_s: float) -> bool:
        pods = self.jobs[job]
        return bool(pods.births or pods.waiting or now_s < pods.removed_s + REUSE_S)

    def grow(self, job: int, replicas: int, now_s: float) -> None:
        pods = self.jobs[job]
        reused = min(replicas, len(pods.idle_since_s))
        for _ in range(reused):
            pods.idle_since_s.popleft()
            self._plan_birth(job, now_s + REUSE_S)
        free = int((self.free_cores + EPSILON) // pods.cores)
        new = max(0, min(replicas - reused, free))
        for _ in range(new):
            self._plan_birth(job, now_s + pods.cold_start_s)
        pods.waiting = replicas - reused - new
        if pods.waiting:
            heapq.heappush(self._timetable, (now_s + self.retry_s, RETRY, job))

    def shrink(self, job: int, replicas: int, now_s: float) -> None:
        """Give up what waits, then what starts, then what runs, the newest first."""
        pods = self.jobs[job]
        given_up = min(replicas, pods.waiting)
        pods.waiting -= given_up
        for _ in range(replicas - given_up):
            if pods.births:
                pods.births.pop()
            else:
                pods.running -= 1
                self._on_removal(job, now_s)
            pods.idle_since_s.append(now_s)
            collected_s = np.ceil((now_s + self.idle_s) / CHECK_S - EPSILON) * CHECK_S
            heapq.heappush(self._timetable, (collected_s, COLLECT, job))
        pods.removed_s = now_s

    def advance(self, until_s: float) -> None:
        """Let everything happen that is due before `until_s`, and the births at `until_s` itself.

        At equal times the controller acts before pods are collected and before retries, so those wait for the next call.
        """
        while self._timetable and self._timetable[0][:2] < (until_s, COLLECT):
            now_s, kind, job = heapq.heappop(self._timetable)
            pods = self.jobs[job]
            if kind == BIRTH:
                if now_s in pods.births:  # else it was given up
                    pods.births.remove(now_s)
                    pods.running += 1
                    self._on_birth(job, now_s)
            elif kind == COLLECT:
                while pods.idle_since_s and pods.idle_since_s[0] + self.idle_s <= now_s + EPSILON:
                    pods.idle_since_s.popleft()
            elif pods.waiting:
                self.grow(job, pods.waiting, now_s)

    def _plan_birth(self, job: int, at_s: float) -> None:
        self.jobs[job].births.append(at_s)
        heapq.heappush(self._timetable, (at_s, BIRTH, job))
