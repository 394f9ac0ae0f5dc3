"""Open-loop load: requests are sent when they are due, whatever became of those before them.

Runs as a process of its own (`python -m faro_lib.rayserve.load`), so that nothing but the machine delays it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
import urllib.parse
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from faro_lib.rayserve.rest import is_loopback

SERVED, DROPPED, FAILED, UNSENT = 0, 1, 2, 3  # what became of a request; unsent = too many were in flight
OUTCOMES = ("served", "dropped", "failed", "unsent")
MOST_RPS = 200.0
IN_FLIGHT = 2000
TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Script:
    """Requests to be sent; arrays (requests,), in the order of `due_s`.

    due_s : wall seconds after the origin; job : index into urls; service_s : sent as the body, NaN sends none.
    """

    urls: tuple[str, ...]
    due_s: np.ndarray
    job: np.ndarray
    service_s: np.ndarray

    @property
    def peak_rps(self) -> float:
        """Requests in the busiest ten seconds, a second."""
        if not len(self.due_s):
            return 0.0
        return float(np.bincount((self.due_s // 10).astype(int)).max() / 10)


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of each request of a script; arrays (requests,).

    outcome : index into OUTCOMES; status : of HTTP, 0 without an answer.
    latency_s : wall seconds from the instant at which the request was due to the end of its answer; NaN unless served.
    late_s : how much later than due it was sent.
    """

    outcome: np.ndarray
    status: np.ndarray
    latency_s: np.ndarray
    late_s: np.ndarray

    def count(self, outcome: int) -> int:
        return int((self.outcome == outcome).sum())


async def send(script: Script, origin_s: float, *, max_rps: float = MOST_RPS, in_flight: int = IN_FLIGHT) -> Sent:
    """Send every request at its instant and wait for all answers.

    Parameters
    ----------
    origin_s : the wall-clock instant of `due_s` = 0.
    max_rps : a script whose busiest ten seconds ask for more is refused.
    in_flight : requests without an answer at once; one more is not sent but recorded as such.
    """
    import aiohttp

    if script.peak_rps > max_rps:
        raise ValueError(f"load of {script.peak_rps:.0f} requests/s is above the bound of {max_rps:g}")
    n = len(script.due_s)
    outcome, status = np.full(n, UNSENT, np.int8), np.zeros(n, np.int16)
    latency_s, late_s = np.full(n, np.nan), np.full(n, np.nan)
    flying: set[asyncio.Task] = set()
    offset = time.time() - time.perf_counter()  # one clock that never jumps

    async def one(place: int, due: float) -> None:
        service_s = script.service_s[place]
        body = None if np.isnan(service_s) else f"{service_s:.6f}"
        try:
            async with session.post(script.urls[script.job[place]], data=body) as answer:
                await answer.read()
                status[place] = answer.status
                outcome[place] = SERVED if answer.status == 200 else DROPPED if answer.status == 503 else FAILED
        except (TimeoutError, aiohttp.ClientError, OSError):
            outcome[place] = FAILED
        if outcome[place] == SERVED:
            latency_s[place] = time.perf_counter() + offset - due

    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=10)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        for place in range(n):
            due = origin_s + script.due_s[place]
            wait_s = due - offset - time.perf_counter()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            late_s[place] = time.perf_counter() + offset - due
            if len(flying) < in_flight:
                task = asyncio.create_task(one(place, due))
                flying.add(task)
                task.add_done_callback(flying.discard)
        if flying:
            await asyncio.gather(*flying)
    return Sent(outcome, status, latency_s, late_s)


class Generator:
    """The load generator in a process of its own."""

    def __init__(self, script: Script, origin_s: float, *, max_rps: float = MOST_RPS, loopback_only: bool = True):
        for url in script.urls:
            if loopback_only and not is_loopback(urllib.parse.urlsplit(url).hostname):
                raise ValueError(f"load for {url}: only loopback is allowed here")
        if script.peak_rps > max_rps:
            raise ValueError(f"load of {script.peak_rps:.0f} requests/s is above the bound of {max_rps:g}")
        self._folder = tempfile.TemporaryDirectory(prefix="faro-load-")
        folder = Path(self._folder.name)
        np.savez(folder / "script.npz", due_s=script.due_s, job=script.job, service_s=script.service_s)
        (folder / "about.json").write_text(json.dumps({"urls": script.urls, "origin_s": origin_s, "max_rps": max_rps}))
        command = [sys.executable, "-m", "faro_lib.rayserve.load", str(folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    @property
    def pid(self) -> int:
        return self._process.pid

    def result(self, timeout_s: float | None = None) -> Sent:
        """What became of every request, once all are answered."""
        _, said = self._process.communicate(timeout=timeout_s)
        if self._process.returncode:
            lines = [line for line in said.splitlines() if line.strip()]
            raise RuntimeError(f"the load generator failed: {lines[-1] if lines else self._process.returncode}")
        with np.load(Path(self._folder.name) / "sent.npz") as sent:
            found = Sent(**{name: sent[name] for name in Sent.__slots__})
        self._folder.cleanup()
        return found

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.communicate(timeout=10)
        self._folder.cleanup()


def main(folder: str) -> None:
    about = json.loads((Path(folder) / "about.json").read_text())
    with np.load(Path(folder) / "script.npz") as script:
        told = Script(tuple(about["urls"]), script["due_s"], script["job"], script["service_s"])
    sent = asyncio.run(send(told, about["origin_s"], max_rps=about["max_rps"]))
    np.savez(Path(folder) / "sent.npz", **{name: getattr(sent, name) for name in Sent.__slots__})


if __name__ == "__main__":
    main(sys.argv[1])
