"""Open-loop load generator: each request is sent when it is due, whether or not earlier ones have been answered.

`Generator` runs it in a separate process, so that other work does not delay it.
"""

import asyncio
import io
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from subprocess import PIPE
from urllib.parse import urlsplit

import aiohttp
import numpy as np

from faro_lib.http import is_loopback

SERVED, DROPPED, FAILED, UNSENT = 0, 1, 2, 3  # outcomes; unsent = too many requests were in flight
OUTCOMES = ("served", "dropped", "failed", "unsent")
MAX_RPS = 200.0
MAX_IN_FLIGHT = 2000
TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Script:
    """Requests to send; arrays have shape (requests,) and are sorted by `due_s`."""

    urls: tuple[str, ...]
    due_s: np.ndarray  # when to send each request, in wall seconds after the start
    job: np.ndarray  # index into `urls`
    service_s: np.ndarray  # service time to send as the request's body; NaN = no body

    def check_rate(self, max_rps: float) -> None:
        """Raise ValueError if the mean rate over the busiest ten seconds exceeds `max_rps`."""
        peak_rps = np.bincount((self.due_s // 10).astype(int)).max() / 10 if len(self.due_s) else 0.0
        if peak_rps > max_rps:
            raise ValueError(f"load of {peak_rps:.0f} requests/s is above the bound of {max_rps:g}")


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of the requests of a script; arrays have shape (requests,)."""

    outcome: np.ndarray  # index into OUTCOMES
    status: np.ndarray  # HTTP status; 0 without an answer
    latency_s: np.ndarray  # wall seconds from the due time to the end of the answer; NaN unless served
    send_lag_s: np.ndarray  # wall seconds from the due time until the request was sent
    first_s: np.ndarray  # wall seconds from the due time to the first part of the answer's body; NaN unless served

    def count(self, outcome: int) -> int:
        return int((self.outcome == outcome).sum())


async def send(script: Script, origin_s: float, *, max_rps: float = MAX_RPS, in_flight: int = MAX_IN_FLIGHT) -> Sent:
    """Send every request when it is due, and wait for all answers.

    origin_s : Unix time at which `due_s` is 0.
    in_flight : maximum number of unanswered requests; a request beyond it is not sent.
    """
    script.check_rate(max_rps)
    n = len(script.due_s)
    outcome, status = np.full(n, UNSENT, np.int8), np.zeros(n, np.int16)
    latency_s, send_lag_s, first_s = np.full((3, n), np.nan)
    flying: set[asyncio.Task] = set()
    offset = time.time() - time.perf_counter()  # perf_counter() + offset is wall time that never jumps

    async def send_one(i: int, due: float) -> None:
        body = None if np.isnan(script.service_s[i]) else f"{script.service_s[i]:.6f}"
        try:
            async with session.post(script.urls[script.job[i]], data=body) as answer:
                await answer.content.readany()
                first = time.perf_counter()
                await answer.read()
                status[i] = answer.status
                outcome[i] = {200: SERVED, 503: DROPPED}.get(answer.status, FAILED)
        except (TimeoutError, aiohttp.ClientError, OSError):
            outcome[i] = FAILED
        if outcome[i] == SERVED:
            latency_s[i], first_s[i] = time.perf_counter() + offset - due, first + offset - due

    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=10)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        for i in range(n):
            due = origin_s + script.due_s[i]
            wait_s = due - offset - time.perf_counter()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            send_lag_s[i] = time.perf_counter() + offset - due
            if len(flying) < in_flight:
                task = asyncio.create_task(send_one(i, due))
                flying.add(task)
                task.add_done_callback(flying.discard)
        if flying:
            await asyncio.gather(*flying)
    return Sent(outcome, status, latency_s, send_lag_s, first_s)


def packed(**arrays) -> bytes:
    """Named arrays as the bytes of an .npz file."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def unpacked(content: bytes) -> dict[str, np.ndarray]:
    """The named arrays in the bytes that `packed` returned."""
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return dict(file)


class Generator:
    """The load generator in a process of its own; it only sends to loopback addresses."""

    def __init__(self, script: Script, origin_s: float, *, max_rps: float = MAX_RPS):
        for url in script.urls:
            if not is_loopback(urlsplit(url).hostname):
                raise ValueError(f"load for {url}: only loopback is allowed here")
        script.check_rate(max_rps)
        code = f"from {__name__} import main; main()"
        self._process = subprocess.Popen([sys.executable, "-c", code], stdin=PIPE, stdout=PIPE, stderr=PIPE)
        assert self._process.stdin
        self._process.stdin.write(packed(**asdict(script), origin_s=origin_s, max_rps=max_rps))
        self._process.stdin.close()  # the process starts to send when its input ends
        self._process.stdin = None

    @property
    def pid(self) -> int:
        return self._process.pid

    def result(self, timeout_s: float | None = None) -> Sent:
        """Wait until every request is answered, and return the outcomes."""
        answer, errors = self._process.communicate(timeout=timeout_s)
        if status := self._process.returncode:
            lines = [line for line in errors.decode(errors="replace").splitlines() if line.strip()]
            raise RuntimeError(f"the load generator failed: {[status, *lines][-1]}")
        return Sent(**unpacked(answer))

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.communicate(timeout=10)


def main() -> None:
    """The process: read a `Script` from standard input, send it, and write the `Sent` to standard output."""
    arrays = unpacked(sys.stdin.buffer.read())
    origin_s, max_rps = float(arrays.pop("origin_s")), float(arrays.pop("max_rps"))
    script = Script(tuple(arrays.pop("urls").tolist()), **arrays)
    sys.stdout.buffer.write(packed(**asdict(asyncio.run(send(script, origin_s, max_rps=max_rps)))))
