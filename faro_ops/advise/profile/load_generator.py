"""Open-loop load generator: it sends each request when due, even if earlier ones still wait."""

import asyncio
import time
from dataclasses import dataclass

import aiohttp
import numpy as np

# Outcomes; UNSENT = not sent, because too many requests were unanswered.
OUTCOMES = ("served", "dropped", "failed", "unsent")
SERVED, DROPPED, FAILED, UNSENT = range(4)
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
        requests = np.bincount((self.due_s // 10).astype(int))  # in each ten seconds
        peak_rps = requests.max(initial=0) / 10
        if peak_rps > max_rps:
            raise ValueError(f"load of {peak_rps:.0f} requests/s is above the bound of {max_rps:g}")


@dataclass(frozen=True, slots=True)
class Sent:
    """Outcomes and latencies of a script's requests; arrays have shape (requests,)."""

    outcome: np.ndarray  # index into OUTCOMES
    # Wall seconds from the due time to the end of the answer, NaN unless served; until the request
    # was sent; and to the first part of the answer's body, NaN unless served.
    latency_s: np.ndarray
    send_lag_s: np.ndarray
    first_s: np.ndarray
    # Number of parts of the answer's body, often one per token if it is streamed; 0 unless served.
    parts: np.ndarray

    def count(self, outcome: int) -> int:
        return int((self.outcome == outcome).sum())


async def send(
    script: Script, origin_s: float, *, max_rps: float = MAX_RPS, in_flight: int = MAX_IN_FLIGHT
) -> Sent:
    """Send every request when it is due, and wait for all answers.

    origin_s : Unix time at which `due_s` is 0.
    in_flight : maximum number of unanswered requests; a request beyond it is not sent.
    """
    script.check_rate(max_rps)
    n = len(script.due_s)
    outcome = np.full(n, UNSENT, np.int8)
    parts = np.zeros(n, int)
    latency_s, send_lag_s, first_s = np.full((3, n), np.nan)
    flying: set[asyncio.Task] = set()
    # perf_counter() + offset is wall time that never jumps.
    offset = time.time() - time.perf_counter()

    async def send_one(i: int, due: float) -> None:
        first = None
        received = 0
        body = None if np.isnan(script.service_s[i]) else f"{script.service_s[i]:.6f}"
        try:
            async with session.post(script.urls[script.job[i]], data=body) as answer:
                async for part, ends in answer.content.iter_chunks():
                    first = first or time.perf_counter()
                    received += ends and len(part) > 0
                outcome[i] = {200: SERVED, 503: DROPPED}.get(answer.status, FAILED)
        except (TimeoutError, aiohttp.ClientError, OSError):
            outcome[i] = FAILED
        if outcome[i] == SERVED:
            last = time.perf_counter()
            latency_s[i] = last + offset - due
            first_s[i] = (first or last) + offset - due
            parts[i] = max(received, 1)

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
        await asyncio.gather(*flying)
    return Sent(outcome, latency_s, send_lag_s, first_s, parts)
