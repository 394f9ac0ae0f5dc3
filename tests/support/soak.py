"""Hours of a controller on a fake Ray, with a fault in most minutes.

Time passes as fast as the controller decides.

python tests/support/soak.py --hours 24
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from live_things import FakeRay

from faro_lib import forecast
from faro_lib.policies import PolicyContext, make
from faro_lib.policies.loops import paced
from faro_lib.protocol import CONTESTED
from faro_lib.workload import Job, Traces
from faro_ops.controller.clock import Clock
from faro_ops.controller.loop import run
from faro_ops.http import HttpError
from faro_ops.rayserve.cluster import Lease, RayServeCluster
from faro_ops.rayserve.spec import serve_specs
from faro_ops.rayserve.statistics import StatsAggregator

JOBS = tuple(Job(name, slo_s=0.8, service_time_s=0.2, cold_start_s=5.0) for name in "abc")
CPUS, TICK_S, MINUTE_S = 12.0, 60.0, 60
FAULTS = (
    "none",
    "no answer",
    "status 500",
    "wrong JSON",
    "no statistics",
    "wrong statistics",
    "replica dies",
    "pending",
    "capacity halves",
    "clock forward",
    "clock back",
    "disk full",
    "lease lost",
    "idle hour",
    "scaled by hand",
    "aggregator restarts",
)
REPORTED = {
    "no answer": "observe",
    "status 500": "observe",
    "wrong JSON": "observe",
    "lease lost": "apply",
    "disk full": "journal",
    "clock forward": "clock",
    "clock back": "clock",
}


@dataclass
class World:
    """A Ray with three jobs, the time, and the fault of the minute."""

    rng: np.random.Generator
    faults: tuple[str, ...]
    ray: FakeRay = field(default_factory=lambda: FakeRay({job.name: 2 for job in JOBS}, cpus=CPUS))
    monotonic_s: float = 1e6
    wall_s: float = 1.8e9
    fault: str = "none"
    idle_until_s: float = 0.0

    address = "http://ray.test"

    def time(self) -> float:
        return self.wall_s

    def monotonic(self) -> float:
        return self.monotonic_s

    def sleep(self, seconds: float) -> None:
        self.monotonic_s += seconds
        self.wall_s += seconds

    def begin_minute(self) -> None:
        """Draw the fault of this minute, and let the replicas report the minute before."""
        self.fault, ray = str(self.rng.choice(self.faults)), self.ray
        ray.cpus = CPUS / 2 if self.fault == "capacity halves" else CPUS
        self.wall_s += {"clock forward": 3600, "clock back": -3600}.get(self.fault, 0)
        if self.fault == "idle hour":
            self.idle_until_s = self.monotonic_s + 3600
        if self.fault == "scaled by hand":
            ray.targets[str(self.rng.choice(list(ray.targets)))] = int(self.rng.integers(0, 9))
        if self.fault == "aggregator restarts":
            ray.stats = StatsAggregator()
        if self.fault == "lease lost":
            ray.stats.lease("another controller", TICK_S / 2, force=True)
        if self.fault != "no statistics":
            for n, job in enumerate(JOBS):
                idle = n == 0 and self.monotonic_s < self.idle_until_s
                ray.hear(
                    job.name,
                    0 if idle else 4 * (n + 1),
                    range(int(self.wall_s) - MINUTE_S, int(self.wall_s)),
                )

    # The calls of HttpClient.

    def get(self, path: str, retry_for_s: float = 0.0):
        return self.request("GET", path, None)

    def post(self, path: str, body):
        return self.request("POST", path, body)

    def request(self, method: str, path: str, body):
        on_stats = path.startswith("/faro-statistics")
        if not on_stats and self.fault == "no answer":
            raise HttpError(path, 0, "timed out")
        status, answer = self.ray.answer(method, path, body)
        if not on_stats and self.fault == "status 500":
            status = 500
        if status != 200:
            raise HttpError(path, status, "no")
        if not on_stats and self.fault == "wrong JSON" and method == "GET":
            return {"unexpected": [1]}
        if on_stats and self.fault == "wrong statistics" and method == "GET":
            return ["not", "statistics"]
        answer = json.loads(json.dumps(answer))
        if path.startswith("/api/serve/applications/") and self.fault in (
            "replica dies",
            "pending",
        ):
            for application in answer["applications"].values():
                del application["deployments"]["replica"]["replicas"][-1:]
        return answer


@dataclass
class Figures:
    """What a soak has seen."""

    ticks: int = 0
    skipped: int = 0  # minutes without a tick
    faults: Counter = field(default_factory=Counter)
    failures: Counter = field(default_factory=Counter)
    messages: dict[str, str] = field(default_factory=dict)  # the first one of each reason
    moves: Counter = field(default_factory=Counter)  # by hour
    broken: list[str] = field(default_factory=list)  # invariants that did not hold
    journal_bytes: int = 0
    kept_seconds: int = 0


def soak(
    hours: float, seed: int = 0, faults: tuple[str, ...] = FAULTS, forecaster: str = "auto"
) -> Figures:
    """Run the controller for some hours and check the invariants after every tick."""
    world, figures, told = World(np.random.default_rng(seed), faults), Figures(), []
    started, full = [], os.fsync

    class Stop(threading.Event):
        def wait(self, timeout=None):
            world.sleep(timeout or 0.0)
            return self.is_set()

    def fsync(number):
        if world.fault == "disk full" and started:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        full(number)

    class Cluster(RayServeCluster):
        def advance(self, until_s):
            super().advance(until_s)
            if started and not told_of(REPORTED.get(world.fault)):
                figures.broken.append(f"{world.fault} was not counted")
            told.clear()
            world.begin_minute()
            figures.faults[world.fault] += 1
            started.append(until_s)

    def told_of(reason):
        return reason is None or reason in told

    def on_step(step):
        figures.ticks += 1
        observation, cores = step.observation, np.array([job.cores for job in JOBS])
        figures.moves[int(observation.now_s // 3600)] += int(
            (step.target != observation.target).sum()
        )
        if step.target @ cores > observation.capacity + 1e-9:
            problem = f"targets {step.target} exceed {observation.capacity:g} cores"
            figures.broken.append(f"{observation.now_s:g} s: {problem}")
        if (step.target < 1).any():
            figures.broken.append(
                f"{observation.now_s:g} s: targets {step.target} are below the minimum"
            )
        figures.kept_seconds = max(map(len, cluster._recent._seconds.values()))

    def on_failure(reason, message):
        told.append(reason)
        figures.failures[reason] += 1
        figures.messages.setdefault(reason, message)
        if len(message) > 1000 or "\n" in message:
            figures.broken.append(f"a message of {len(message)} characters: {message[:100]!r}")

    none = np.zeros((0, 1, len(JOBS), 1440), int)
    fitted = forecast.fit(forecaster, Traces(JOBS, none, np.zeros((1, len(JOBS), 1440), int)))
    with (
        mock.patch("time.time", world.time),
        mock.patch("time.monotonic", world.monotonic),
        mock.patch("os.fsync", fsync),
        tempfile.TemporaryDirectory() as folder,
    ):
        clock = Clock(int(world.wall_s) - 900, stop=Stop())
        policy = paced(make("Faro-Sum", PolicyContext(JOBS, forecaster=fitted)), TICK_S)
        cluster = Cluster(
            JOBS, serve_specs(JOBS), world, world, clock, lease=Lease("soak", 3 * TICK_S)
        )
        cluster.connect()
        path = Path(folder) / "journal"
        run(
            cluster,
            policy,
            JOBS,
            900 + 3600 * hours,
            journal=path,
            clock=clock,
            on_step=on_step,
            on_failure=on_failure,
        )
        figures.journal_bytes = path.stat().st_size
    # The end of the run begins one more minute.
    figures.skipped = sum(figures.faults.values()) - 1 - figures.ticks
    figures.failures[CONTESTED] += 0
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    began = time.perf_counter()
    seen = soak(arguments.hours, arguments.seed)
    print(f"{arguments.hours:g} h in {time.perf_counter() - began:.0f} s: {seen.ticks} ticks")
    print("faults:", dict(sorted(seen.faults.items())))
    print("failures:", dict(sorted(seen.failures.items())))
    bytes_per_tick = seen.journal_bytes / max(seen.ticks, 1)
    print(f"journal {bytes_per_tick:.0f} bytes a tick, {seen.kept_seconds} seconds kept by job")
    print("broken:", seen.broken or "none")
    sys.exit(bool(seen.broken))
