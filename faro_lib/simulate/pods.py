"""The life cycle of pods within the cluster's capacity.

The rules are those of the simulator in the EuroSys'25 artifact. A shrinking job removes its newest
replicas first. If a removed replica has served, its pod becomes idle. An idle pod keeps its cores
until it is deleted. A growing job first reuses its idle pods, which serve after a short delay. It
then starts new pods, which serve after the cold start. A replica that finds no free cores waits and
tries again.
"""

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from faro_lib.workload.jobs import TOLERANCE

# Delay until an idle pod serves again, and how long a job counts as changing after a removal.
REUSE_S = 3.0
RETRY_S = 5.0  # delay until a replica that found no free cores tries again
IDLE_S, CHECK_S = 30.0, 5.0  # idle pods are deleted after IDLE_S, at the next multiple of CHECK_S
# At equal times, events have this order: a replica begins to serve, idle pods are deleted, waiting
# replicas try again.
BIRTH, COLLECT, RETRY = 0, 1, 2


@dataclass(slots=True)
class JobPods:
    """The pods of one job, or of one pool."""

    cores: float  # cores per pod
    cold_start_s: float
    running: int = 0
    # Times at which starting replicas begin to serve.
    births: list[float] = field(default_factory=list)
    idle_since_s: deque[float] = field(default_factory=deque)
    waiting: int = 0  # replicas that wait for free cores
    removed_s: float = -np.inf

    @property
    def pods(self) -> int:
        return self.running + len(self.births) + len(self.idle_since_s)


class Pods:
    """The pods of all jobs, and their future events.

    A pool of jobs counts as one job here, because any of its jobs may use any of its pods.
    `cores` and `cold_start_s` (jobs,) describe each job's replicas. `on_birth` and `on_removal` are
    called with (job, time) when a replica begins or ceases to serve.
    """

    def __init__(
        self,
        cores: np.ndarray,
        cold_start_s: np.ndarray,
        capacity: float,
        on_birth: Callable[[int, float], None],
        on_removal: Callable[[int, float], None],
        idle_s: float = IDLE_S,
        retry_s: float = RETRY_S,
    ):
        self.jobs = [JobPods(*row) for row in zip(cores, cold_start_s)]
        self.capacity = capacity
        self.idle_s = idle_s
        self.retry_s = retry_s
        self._on_birth = on_birth
        self._on_removal = on_removal
        self._events: list[tuple[float, int, int]] = []  # (time, kind, job)

    def set_running(self, job: int, replicas: int) -> None:
        """Give the job its serving replicas at the start of the run, without a cold start."""
        for _ in range(replicas):
            self.jobs[job].running += 1
            self._on_birth(job, -np.inf)  # before the first arrival, which may be at 0

    def changing(self, job: int, now_s: float) -> bool:
        """Whether replicas of the job start or wait, or one was removed within REUSE_S."""
        pods = self.jobs[job]
        return bool(pods.births or pods.waiting or now_s < pods.removed_s + REUSE_S)

    def grow(self, job: int, replicas: int, now_s: float) -> None:
        """Start this many replicas of the job, and its waiting ones, as far as cores allow."""
        pods = self.jobs[job]
        replicas += pods.waiting
        reused = min(replicas, len(pods.idle_since_s))
        for _ in range(reused):
            pods.idle_since_s.popleft()
            self._start(job, now_s + REUSE_S)
        free_cores = self.capacity - sum(one.pods * one.cores for one in self.jobs)
        possible = max(0, int((free_cores + TOLERANCE) // pods.cores))
        new = min(replicas - reused, possible)
        for _ in range(new):
            self._start(job, now_s + pods.cold_start_s)
        pods.waiting = replicas - reused - new
        if pods.waiting:
            heapq.heappush(self._events, (now_s + self.retry_s, RETRY, job))

    def shrink(self, job: int, replicas: int, now_s: float) -> None:
        """Remove this many replicas of the job: waiting ones first, then starting, then running."""
        pods = self.jobs[job]
        given_up = min(replicas, pods.waiting)
        pods.waiting -= given_up
        for _ in range(replicas - given_up):
            if not pods.births:
                pods.running -= 1
                self._on_removal(job, now_s)
            elif pods.births.pop() > now_s + REUSE_S:
                continue  # the pod has never served: it is not kept for reuse, and frees its cores
            pods.idle_since_s.append(now_s)
            collected_s = np.ceil((now_s + self.idle_s) / CHECK_S - TOLERANCE) * CHECK_S
            heapq.heappush(self._events, (collected_s, COLLECT, job))
        pods.removed_s = now_s

    def advance(self, until_s: float) -> None:
        """Process the events before `until_s`, and the replicas that begin to serve at `until_s`.

        Other events at `until_s` are left to the next call, because the controller acts before
        them.
        """
        while self._events and self._events[0][:2] < (until_s, COLLECT):
            now_s, kind, job = heapq.heappop(self._events)
            pods = self.jobs[job]
            if kind == BIRTH and now_s in pods.births:  # the replica may have been removed
                pods.births.remove(now_s)
                pods.running += 1
                self._on_birth(job, now_s)
            elif kind == COLLECT:
                while pods.idle_since_s and pods.idle_since_s[0] + self.idle_s <= now_s + TOLERANCE:
                    pods.idle_since_s.popleft()
            elif kind == RETRY and pods.waiting:
                self.grow(job, 0, now_s)

    def _start(self, job: int, at_s: float) -> None:
        self.jobs[job].births.append(at_s)
        heapq.heappush(self._events, (at_s, BIRTH, job))
