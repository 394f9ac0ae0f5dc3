"""Hours of a real Ray Serve under load, with the controller of `faro run`.

There is a fault every two minutes. A request without an answer was either in a replica when that
was killed, or is counted as lost.

    python tests/support/live_hours.py --hours 2

Run it as root, because it mounts a small file system for the journal, and fills it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil

from faro_lib.workload import Job
from faro_ops.advise.profile.load_generator import DROPPED, FAILED, SERVED, UNSENT, Script, Sent
from faro_ops.http import BUSY_RETRY_S
from faro_ops.journal import reading
from faro_ops.operate.rayserve import local
from faro_ops.operate.rayserve.deploy import APPLICATIONS, configuration, deploy
from faro_ops.operate.rayserve.spec import serve_specs
from studies.live.generator import Generator

JOBS = tuple(
    Job(name, slo_s=0.8, service_time_s=0.15, cold_start_s=8.0, model="m") for name in "abc"
)
CAPACITY, LOAD_RPS, SHARE_S = 10, 30.0, 600  # every ten minutes the load moves between the jobs
EVERY_S, HOLD_S, LOOK_S = 120.0, 45.0, 5.0
DYING_S = 0.1  # after SIGKILL, until the process has ended and the proxy knows it
JOURNAL_BYTES = 64 * 2**20


@dataclass
class Seen:
    """What the run has seen; times are Unix times."""

    faults: list[tuple[float, str]] = field(default_factory=list)
    kills: list[tuple[float, str]] = field(default_factory=list)  # of replicas: when, of which job
    starts: int = 0  # of the controller
    broken: list[str] = field(default_factory=list)  # what should have held and did not
    memory: list[int] = field(default_factory=list)  # of the controller, in bytes, at every look


class World:
    """A Ray that serves the jobs, and the command `faro run` that scales them."""

    def __init__(self, ray: local.LocalRay, folder: Path, disk: Path, seed: int):
        self.ray = ray
        self.folder = folder
        self.disk = disk
        self.rng = np.random.default_rng(seed)
        self.seen = Seen()
        self.journal = disk / "run.journal"
        self.table = folder / "jobs.yaml"
        self.log = folder / "controller.log"
        self.write_table()
        self.controller = self.start()

    def write_table(self, slo_s: float = 0.8) -> None:
        row = "- {{job: {}, slo_s: {:g}, service_time_s: 0.15, cold_start_s: 8, model: m}}\n"
        self.table.write_text("".join(row.format(job.name, slo_s) for job in JOBS))

    def command(self) -> tuple[list[str], dict[str, str]]:
        where = [
            "--address",
            self.ray.rest.address,
            "--serve-address",
            self.ray.http.address,
            "--jobs",
            str(self.table),
        ]
        line = [
            sys.executable,
            "-m",
            "faro_ops.cli",
            "run",
            *where,
            "--apply",
            "--capacity",
            str(CAPACITY),
        ]
        return line, os.environ | {"RAY_AUTH_TOKEN": self.ray.rest.token, "RAY_AUTH_MODE": "token"}

    def start(self) -> subprocess.Popen:
        line, environment = self.command()
        self.seen.starts += 1
        with self.log.open("a") as log:
            return subprocess.Popen(
                [*line, "--journal", str(self.journal)],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def deployment(self, job: str) -> dict:
        return self.ray.rest.get(APPLICATIONS, BUSY_RETRY_S)["applications"][job]["deployments"][
            "replica"
        ]

    def process(self, words: str) -> psutil.Process:
        """The one process of this Ray whose command line contains `words`."""
        (found,) = [
            one for one in local.processes(self.ray.process.pid) if words in " ".join(one.cmdline())
        ]
        return found

    def look(self) -> None:
        """Check what must hold at any time."""
        with suppress(OSError):
            applications = self.ray.rest.get(APPLICATIONS)["applications"]
            target = [
                applications[job.name]["deployments"]["replica"]["target_num_replicas"]
                for job in JOBS
            ]
            if sum(target) > CAPACITY or min(target) < 1:
                self.seen.broken.append(f"{time.time():.0f}: targets {target}")
        if self.controller.poll() is not None:
            self.seen.broken.append(
                f"{time.time():.0f}: the controller ended with status {self.controller.returncode}"
            )
            self.controller = self.start()
        with suppress(psutil.Error):
            self.seen.memory.append(psutil.Process(self.controller.pid).memory_info().rss)

    def wait(self, until_s: float) -> None:
        while (left_s := until_s - time.time()) > 0:
            self.look()
            time.sleep(min(left_s, LOOK_S))

    # The faults.

    def nothing(self) -> None:
        pass

    def a_replica_is_killed(self) -> None:
        job = str(self.rng.choice([job.name for job in JOBS]))
        alive = [one for one in self.deployment(job)["replicas"] if one["state"] == "RUNNING"]
        os.kill(int(self.rng.choice([one["pid"] for one in alive])), signal.SIGKILL)
        self.seen.kills.append((time.time(), job))

    def the_controller_is_killed(self) -> None:
        self.controller.kill()
        self.controller.wait()
        self.controller = self.start()

    def the_controller_is_suspended(self) -> None:
        with suspended(psutil.Process(self.controller.pid)):
            self.wait(time.time() + HOLD_S)

    def the_dashboard_hangs(self) -> None:
        with suspended(self.process("dashboard/dashboard.py")):
            time.sleep(HOLD_S)

    def the_statistics_are_killed(self) -> None:
        self.process("ray::StatsAggregator").kill()

    def the_controller_of_ray_serve_is_killed(self) -> None:
        self.process("ray::ServeController").kill()

    def somebody_scales_by_hand(self) -> None:
        job, target = str(self.rng.choice([job.name for job in JOBS])), int(self.rng.integers(1, 5))
        with suppress(OSError):
            path = f"/api/v1/applications/{job}/deployments/replica/scale"
            self.ray.rest.post(path, {"target_num_replicas": target})
        time.sleep(15)  # until the controller reverts it, the targets may exceed the capacity

    def the_disk_is_full(self) -> None:
        ballast = self.disk / "ballast"
        with suppress(OSError), ballast.open("wb") as file:
            while True:
                file.write(b"\0" * 4096)
        try:
            self.wait(time.time() + HOLD_S)
        finally:
            ballast.unlink()

    def the_table_is_damaged(self) -> None:
        self.table.write_text("- {job: a, slo_s: [broken\n")
        self.wait(time.time() + HOLD_S)
        self.write_table()

    def an_slo_changes(self) -> None:
        self.write_table(slo_s=1.2)
        self.wait(time.time() + HOLD_S)
        self.write_table()

    def another_controller_starts(self) -> None:
        line, environment = self.command()
        other = subprocess.run(
            line, env=environment, capture_output=True, text=True, timeout=HOLD_S
        )
        if other.returncode == 0 or "take over with --force" not in other.stderr:
            self.seen.broken.append(
                f"{time.time():.0f}: a second controller: {other.returncode} {other.stderr[-200:]}"
            )


FAULTS: tuple[Callable[[World], None], ...] = (
    World.nothing,
    World.a_replica_is_killed,
    World.the_controller_is_killed,
    World.the_controller_is_suspended,
    World.the_dashboard_hangs,
    World.the_statistics_are_killed,
    World.the_controller_of_ray_serve_is_killed,
    World.somebody_scales_by_hand,
    World.the_disk_is_full,
    World.the_table_is_damaged,
    World.an_slo_changes,
    World.another_controller_starts,
)


@contextmanager
def suspended(process: psutil.Process) -> Iterator[None]:
    process.suspend()
    try:
        yield
    finally:
        process.resume()


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={JOURNAL_BYTES}", "tmpfs", str(folder)], check=True
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def requests(seconds: float, rng: np.random.Generator, urls: tuple[str, ...]) -> Script:
    """Poisson arrivals of LOAD_RPS in all; the jobs' shares change every SHARE_S."""
    due_s = np.sort(rng.uniform(0, seconds, rng.poisson(LOAD_RPS * seconds)))
    shares = rng.dirichlet(np.full(len(JOBS), 4.0), int(seconds // SHARE_S) + 1)
    upto = shares.cumsum(axis=1)[(due_s // SHARE_S).astype(int)]
    job = (rng.random(len(due_s))[:, None] > upto[:, :-1]).sum(axis=1)
    return Script(urls, due_s, job, np.full(len(due_s), np.nan))


def faults_in_order(count: int, rng: np.random.Generator) -> list[Callable[[World], None]]:
    """Each fault once in random order, then each once more, and so on."""
    rounds = -(-count // len(FAULTS))
    return [FAULTS[n] for _ in range(rounds) for n in rng.permutation(len(FAULTS))][:count]


def run(hours: float, every_s: float, seed: int) -> tuple[Seen, Script, Sent, dict[str, object]]:
    """Run it; return what was seen, the requests, their outcomes, and figures of the controller."""
    specs = serve_specs(JOBS, {job.name: {"max_ongoing_requests": 200} for job in JOBS})
    seconds = 3600 * hours
    rng = np.random.default_rng(seed)
    with (
        tempfile.TemporaryDirectory() as name,
        small_disk(Path(name) / "disk") as disk,
        local.start(CAPACITY + 2) as ray,  # two for the statistics and what replaces a replica
    ):
        deploy(
            ray.rest,
            configuration(JOBS, specs, [3, 3, 3]),
            (local.HTTP_HOST, urlsplit(ray.http.address).port or 0),
        )
        world = World(ray, Path(name), disk, seed)
        try:
            world.wait(time.time() + 30)
            script = requests(seconds, rng, tuple(ray.http.address + spec.route for spec in specs))
            began_s = time.time() + 3
            load = Generator(script, began_s)
            for n, fault in enumerate(faults_in_order(int(seconds // every_s), rng)):
                world.wait(began_s + (n + 0.25) * every_s)
                world.seen.faults.append((time.time(), fault.__name__))
                print(f"{time.time() - began_s:6.0f} s {fault.__name__}", flush=True)
                try:
                    fault(world)
                except (OSError, ValueError, psutil.Error, subprocess.TimeoutExpired) as error:
                    world.seen.broken.append(
                        f"{time.time():.0f}: {fault.__name__}: {error!r}"[:300]
                    )
            world.wait(began_s + seconds)
            sent = load.result(timeout_s=120)
            world.controller.send_signal(signal.SIGTERM)
            if status := world.controller.wait(60):
                world.seen.broken.append(f"the controller ended with status {status}")
        finally:
            if world.controller.poll() is None:
                world.controller.kill()
        figures = {
            "journal_bytes": sum(file.stat().st_size for file in world.journal.iterdir()),
            "ticks": sum(len(ticks) for _, ticks in reading.parts(world.journal)),
            "log": Counter(told(line) for line in world.log.read_text().splitlines()),
        }
        return (
            world.seen,
            Script(script.urls, script.due_s + began_s, script.job, script.service_s),
            sent,
            figures,
        )


def told(line: str) -> str:
    """A line of the log without what differs from run to run."""
    line = line.replace(tempfile.gettempdir(), "")
    return "".join("#" if letter.isdigit() else letter for letter in line)[:120]


def report(seen: Seen, script: Script, sent: Sent, figures: dict[str, object]) -> bool:
    """Print what was seen; True if nothing was lost but what a killed replica held."""
    unanswered = np.flatnonzero(sent.outcome != SERVED)
    held = np.zeros(len(unanswered), bool)
    due_s = script.due_s[unanswered]
    job = script.job[unanswered]
    for when_s, name in seen.kills:
        # Sent before the replica had ended, and not older than the longest answer.
        then = (due_s < when_s + DYING_S) & (due_s > when_s - 30)
        held |= then & (job == [one.name for one in JOBS].index(name))
    kinds = {FAILED: "failed", DROPPED: "answered 503", UNSENT: "not sent"}
    print(f"requests: {len(sent.outcome)}, served {sent.count(SERVED)}")
    print({noun: sent.count(kind) for kind, noun in kinds.items()})
    print(f"held by a killed replica: {held.sum()}, other: {(~held).sum()}")
    for index in unanswered[~held]:
        before = [(when_s, name) for when_s, name in seen.faults if when_s <= script.due_s[index]]
        fault_s, name = before[-1] if before else (np.nan, "-")
        print(
            f"  job {JOBS[script.job[index]].name}, {kinds[sent.outcome[index]]}, "
            f"status {sent.status[index]}, {script.due_s[index] - fault_s:.1f} s after {name}"
        )
    late = np.isfinite(sent.latency_s) & (sent.latency_s > 0.8)
    print(f"violations: {(late.sum() + len(unanswered)) / len(sent.outcome):.2%}")
    print("faults:", dict(sorted(Counter(name for _, name in seen.faults).items())))
    memory_mb = " ".join(f"{np.max(part) / 1e6:.0f}" for part in np.array_split(seen.memory, 12))
    print(
        f"controller started {seen.starts} times; "
        f"its largest memory in each twelfth of the run: {memory_mb} MB"
    )
    print(f"journal {figures['journal_bytes']} bytes, {figures['ticks']} ticks; log:")
    for line, count in sorted(figures["log"].items()):  # type: ignore[attr-defined]
        print(f"  {count:5} {line}")
    print("broken:", json.dumps(seen.broken, indent=1) if seen.broken else "none")
    return not seen.broken and bool(held.all())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--every", type=float, default=EVERY_S, help="seconds between faults")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sys.exit(not report(*run(arguments.hours, arguments.every, arguments.seed)))
