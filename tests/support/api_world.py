"""`faro run` on a fake API server and a fake Prometheus, in this process.

A test changes what the server holds while the controller runs.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable

import waiting
from journal_things import count_ticks
from kube_api import ClusterApi
from kube_things import LEASE, Measured, lease
from waiting import PATIENCE_S

from faro_ops import cli
from faro_ops.operate.controller import controller

NAMESPACE, NAME = "jobs", "faro"
QUERIES = {"requests": "sum(x[$window])", "latency_mean_s": "sum(y[$window])"}


class ApiServer(ClusterApi):
    """Deployments on a node of twelve cores, and what a FaroPlan and a lease show of a run."""

    def __init__(self, replicas: dict[str, int], cores: int = 12):
        super().__init__(replicas, {"n1": cores})
        self.plan = {}
        self.put(LEASE, lease(""))  # released, so a controller takes it at once

    @property
    def holders(self) -> list[str]:
        """The holder in each write of the lease, in order."""
        return [
            body["spec"]["holderIdentity"] for _, path, body in self.writes if "/leases" in path
        ]

    def job(self, name: str) -> dict:
        """The job's row of the FaroPlan's status."""
        rows = (self.plan or {}).get("status", {}).get("jobs", [])
        return next((row for row in rows if row["name"] == name), {})

    def condition(self, kind: str) -> dict:
        conditions = (self.plan or {}).get("status", {}).get("conditions", [])
        return next((one for one in conditions if one["type"] == kind), {})


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
        monkeypatch.setattr(
            "faro_ops.operate.kube.operate.DeploymentMetrics", lambda *_, **__: Measured()
        )

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
        self.server.order(*rows)

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
            self.server.closed = True
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
