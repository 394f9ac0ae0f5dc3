"""A plugin: autoscalers of other projects as their own code, in a process beside this one.

The process gets one line of JSON per tick, the observation, and answers with one line, the
replicas. Its clock shows the simulated time. The first line describes the jobs, and its answer
names the versions of the code.

`python -m studies.arena.agreement --build` builds the program of the projects in Go, from the
modules of `studies/arena/own`; Ray Serve's code is a Python package.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from faro_lib.policies import Observation, Plan, register
from faro_lib.policies.baselines import Reactive, ReactiveState
from faro_lib.policies.platforms import reactive_plan
from faro_lib.workload import JobArrays
from faro_lib.workload.jobs import MINUTE_S
from studies.arena.keda import with_ceilings

SOURCES = Path(__file__).with_name("own")
ANSWER_S = 60.0  # real seconds to wait for a line
START_S = 300.0  # and for the first one, because a process may import for a while on a busy machine


@cache
def program() -> Path:
    """Where `python -m studies.arena.agreement --build` puts the program of these Go sources."""
    files = sorted([*SOURCES.glob("*.go"), *SOURCES.glob("go.*")])
    version = sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    kept = Path(os.environ.get("FARO_KIND_CACHE") or Path(home) / "faro-kind")
    return kept / "programs" / f"autoscalers-{version}" / "own"


class ProcessFailed(RuntimeError):
    """The process of another project's autoscaler has ended, or answered with an error."""


class Bridge:
    """A process that is asked one line of JSON at a time, and answers with one."""

    def __init__(self, command: tuple[str, ...]):
        self._name = Path(command[-1] if len(command) < 3 else command[1]).name
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, as long as the process
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
            )
        except FileNotFoundError as error:
            hint = "`python -m studies.arena.agreement --build` builds it"
            raise ProcessFailed(f"{command[0]}: no such program; {hint}") from error
        self._finalizer = weakref.finalize(self, _end, self._process)

    def ask(self, message: Mapping[str, Any], within_s: float = ANSWER_S) -> dict[str, Any]:
        """The answer to a message; ProcessFailed with one line if there is none in time."""
        process = self._process
        assert process.stdin
        assert process.stdout
        try:
            process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise ProcessFailed(self._ending()) from None
        if not select.select([process.stdout], [], [], within_s)[0]:
            raise ProcessFailed(f"{self._name}: no answer within {within_s:g} s")
        line = process.stdout.readline()
        if not line:
            raise ProcessFailed(self._ending())
        try:
            answer = json.loads(line)
        except json.JSONDecodeError:
            raise ProcessFailed(f"{self._name}: answered {line.strip()!r}, not JSON") from None
        if "error" in answer:
            raise ProcessFailed(f"{self._name}: {answer['error']}")
        return answer

    def _ending(self) -> str:
        status = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        # A program in Go explains itself in the first line, and Python in the last one.
        panics = [line for line in lines if line.startswith(("panic: ", "fatal error: "))]
        why = f": {[*panics, *lines[-1:]][0]}" if lines else ""
        return f"{self._name}: ended with status {status}{why}"

    def close(self) -> None:
        """End the process."""
        self._finalizer()


def _end(process: subprocess.Popen) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def numbers(values: np.ndarray | None, jobs: int) -> list[float | None]:
    """One number per job; None for unknown ones, because JSON has no NaN."""
    if values is None:
        return [None] * jobs
    return [float(value) if np.isfinite(value) else None for value in values]


def tick_of(observation: Observation, busy_s: np.ndarray) -> dict[str, Any]:
    """The line of a tick. `busy_s` are the stated busy times, for platforms that measure none."""
    jobs = len(observation.target)
    history = observation.arrivals_per_min
    rate_rps = history[:, -1] / MINUTE_S if history.shape[1] else None
    measured = observation.busy_s
    return {
        "now_s": float(observation.now_s),
        "capacity": float(observation.capacity),
        "running": [int(count) for count in observation.running],
        "starting": [max(0, int(count)) for count in observation.starting],
        "target": [int(count) for count in observation.target],
        "rate_rps": numbers(rate_rps, jobs),
        "busy_s": numbers(busy_s if measured is None else measured, jobs),
        "ongoing": numbers(observation.ongoing, jobs),
    }


@dataclass(frozen=True, slots=True)
class OwnState:
    """The process, None before the first tick, and the jobs that it was told."""

    jobs: JobArrays
    names: tuple[str, ...]
    bridge: Bridge | None = None
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OwnCode(Reactive):
    """The policy of a process. It has a state of its own, so that a replay needs a new one."""

    command: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    # Bounds for the process: jobs and the first observation -> jobs.
    bounds: Callable[[JobArrays, Observation], JobArrays] = lambda jobs, observation: jobs
    name: str = "own"

    def start(self, jobs) -> OwnState:  # type: ignore[override]
        state: ReactiveState = Reactive.start(self, jobs)
        return OwnState(state.jobs, tuple(job.name for job in jobs))

    def begin(self, state: OwnState, observation: Observation) -> OwnState:
        """The state with a process that knows the jobs."""
        jobs = self.bounds(state.jobs, observation)
        bridge = Bridge(self.command)
        columns = zip(state.names, jobs.min_replicas, jobs.max_replicas, jobs.cores, jobs.busy_s)
        rows = [
            {
                "name": f"job-{n}",  # names of Kubernetes' objects are more limited than ours
                "min_replicas": int(least),
                "max_replicas": int(most),
                "cores": float(cores),
                "busy_s": float(busy_s),
            }
            for n, (_, least, most, cores, busy_s) in enumerate(columns)
        ]
        first = {"jobs": rows, "tick_s": self.tick_s, "settings": dict(self.settings)}
        answer = bridge.ask(first, START_S)
        return replace(state, jobs=jobs, bridge=bridge, versions=answer["versions"])

    def decide(  # type: ignore[override]
        self, state: OwnState, observation: Observation
    ) -> tuple[OwnState, Plan]:
        if state.bridge is None:
            state = self.begin(state, observation)
        assert state.bridge
        answer = state.bridge.ask(tick_of(observation, state.jobs.busy_s))
        return state, reactive_plan(np.array(answer["target"], np.int64), observation)


def in_go(kind: str, name: str, tick_s: float, **options: Any) -> OwnCode:
    return OwnCode(tick_s, (str(program()), kind), name=name, **options)


def in_ray(name: str) -> OwnCode:
    """Ray Serve with the defaults of AutoscalingConfig, but for the bounds of the jobs."""
    return OwnCode(10.0, (sys.executable, str(SOURCES / "ray_serve.py")), name=name)


# The `behavior` of studies/arena/hpa_behavior.py.
SLOW_DOWN = {
    "scaleDown": {
        "stabilizationWindowSeconds": 60,
        "policies": [{"type": "Percent", "value": 10, "periodSeconds": 60}],
    }
}
# By the name of our reading of the same autoscaler.
OWN: dict[str, Callable[[], OwnCode]] = {
    "HPA": lambda: in_go("hpa", "HPA-own", 15.0),
    "HPA-behavior": lambda: in_go(
        "hpa", "HPA-behavior-own", 15.0, settings={"behavior": SLOW_DOWN}
    ),
    "KEDA": lambda: in_go("keda", "KEDA-own", 15.0, bounds=with_ceilings),
    "KPA": lambda: in_go("knative", "KPA-own", 2.0),
    "RayServe-2.60": lambda: in_ray("RayServe-2.60-own"),
}
register("HPA-own")(lambda context: OWN["HPA"]())
register("HPA-behavior-own")(lambda context: OWN["HPA-behavior"]())
register("KEDA-own")(lambda context: OWN["KEDA"]())
register("KPA-own")(lambda context: OWN["KPA"]())
register("RayServe-2.60-own")(lambda context: OWN["RayServe-2.60"]())
