"""A Ray of our own on this machine, on loopback, beside whatever else runs; ended by the ids of its own processes."""

from __future__ import annotations

import importlib.util
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from faro_lib.rayserve.rest import Rest

LOOPBACK = "127.0.0.2"  # of the node: Ray replaces 127.0.0.1 by the address of the network card
HTTP_HOST = "127.0.0.1"  # where HAProxy looks for the replicas of its own node
START_S = 180.0
PORTS = (
    "gcs",
    "dashboard",
    "agent",
    "agent_grpc",
    "runtime",
    "metrics",
    "client",
    "http",
    "fallback",
    "exporter",
    "stats",
)
OURS = range(28_000, 32_768)  # above those of Ray's workers and of the replicas, below those of outgoing connections
DIRECT_PORTS = 200  # replicas listen there


@dataclass(slots=True)
class LocalRay:
    """A running head node.

    Attributes
    ----------
    pid : of the process whose children all others are.
    dashboard, http : addresses of REST and of the served applications.
    token : that REST wants.
    """

    pid: int
    dashboard: str
    http: str
    token: str
    folder: Path
    process: subprocess.Popen

    @property
    def rest(self) -> Rest:
        return Rest(self.dashboard, self.token)

    def stop(self) -> None:
        """End every process of this Ray, and no other."""
        import psutil

        family = set(processes(self.pid))
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        family.update(session(self.pid))
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(family, timeout=10)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> LocalRay:
        return self

    def __exit__(self, *_) -> None:
        self.stop()


def processes(pid: int):
    """psutil's handles of a process and all that it started; a handle never means a later process of the same number."""
    import psutil

    try:
        head = psutil.Process(pid)
        return [head, *head.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def session(pid: int):
    """psutil's handles of the processes in the session that `pid` began, orphans (an HAProxy whose proxy died) included."""
    import psutil

    found = []
    for one in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(one.pid) == pid:
                found.append(one)
    return found


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, and that no outgoing connection is given meanwhile."""
    found: list[int] = []
    for port in random.SystemRandom().sample(OURS, len(OURS)):
        with socket.socket() as one, suppress(OSError):
            one.bind(("", port))
            found.append(port)
        if len(found) == count:
            return found
    raise ValueError(f"fewer than {count} ports of {OURS.start}..{OURS.stop - 1} are free; Ray needs as many")


def start(cpus: int, *, haproxy: bool = True, quiet: bool = True) -> LocalRay:
    """Start Ray with so many logical CPUs, on ports of its own, with a token of its own.

    Raises
    ------
    ValueError : Ray is not installed, or it did not start; one line.
    """
    if importlib.util.find_spec("ray") is None:
        raise ValueError("backend=local needs Ray Serve: pip install 'faro_lib[live]'")
    ports = dict(zip(PORTS, free_ports(len(PORTS))))
    folder = Path(tempfile.mkdtemp(prefix="faro-"))  # short: sockets lie in it
    token = secrets.token_hex(32)
    direct = 20_000 + secrets.randbelow(40) * DIRECT_PORTS
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")])),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "RAY_TMPDIR": str(folder),
        "RAY_SERVE_ENABLE_HA_PROXY": str(int(haproxy)),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy" / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "haproxy" / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder / "haproxy"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "haproxy" / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports["exporter"]),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports["stats"]),
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(ports["fallback"]),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(direct),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(direct + DIRECT_PORTS - 1),
    }
    environment.pop("RAY_ADDRESS", None)
    environment.pop("RAY_AUTH_TOKEN_PATH", None)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        environment[name] = "1"
    command = [
        *(str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--disable-usage-stats"),
        *("--node-ip-address", LOOPBACK, "--port", str(ports["gcs"])),
        *("--dashboard-host", LOOPBACK, "--dashboard-port", str(ports["dashboard"])),
        *("--dashboard-agent-listen-port", str(ports["agent"])),
        *("--dashboard-agent-grpc-port", str(ports["agent_grpc"])),
        *("--runtime-env-agent-port", str(ports["runtime"])),
        *("--metrics-export-port", str(ports["metrics"])),
        *("--ray-client-server-port", str(ports["client"])),
        *("--num-cpus", str(cpus), "--object-store-memory", str(128 * 2**20), "--temp-dir", str(folder)),
    ]
    log = folder / "ray-start.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output if quiet else None,
            stderr=subprocess.STDOUT if quiet else None,
            start_new_session=True,
        )
    ray = LocalRay(
        process.pid,
        f"http://{LOOPBACK}:{ports['dashboard']}",
        f"http://{HTTP_HOST}:{ports['http']}",
        token,
        folder,
        process,
    )
    try:
        _await(ray, log)
    except BaseException:
        ray.stop()
        raise
    return ray


def _await(ray: LocalRay, log: Path) -> None:
    until = time.monotonic() + START_S
    while True:
        if ray.process.poll() is not None:
            said = [line for line in log.read_text().splitlines() if line.strip()]
            raise ValueError(f"Ray did not start: {said[-1] if said else f'status {ray.process.returncode}'}")
        try:
            ray.rest.get("/api/serve/applications/")
            return
        except OSError as error:
            if time.monotonic() > until:
                raise ValueError(f"Ray did not answer within {START_S:g} s: {error}") from None
            time.sleep(0.5)
