"""A model that serves in batches, for the live tests; Ray's workers import it."""

from __future__ import annotations

import asyncio
import time


class Batching:
    """One batch at a time: it starts when `max_batch` requests wait, or `wait_s` after it could, and sleeps."""

    def __init__(self, max_batch: int, wait_s: float, base_s: float, per_request_s: float):
        self.max_batch, self.wait_s, self.base_s, self.per_request_s = max_batch, wait_s, base_s, per_request_s
        self.waiting: list[tuple[float, asyncio.Future]] = []
        self.arrived = asyncio.Event()
        self.worker: asyncio.Task | None = None

    async def __call__(self, request) -> str:
        done = asyncio.get_running_loop().create_future()
        self.waiting.append((time.perf_counter(), done))
        self.arrived.set()
        if self.worker is None:
            self.worker = asyncio.create_task(self._serve())
        await done
        return "ok"

    async def _serve(self):
        while True:
            while not self.waiting:
                self.arrived.clear()
                await self.arrived.wait()
            latest = max(time.perf_counter(), self.waiting[0][0]) + self.wait_s
            while len(self.waiting) < self.max_batch and time.perf_counter() < latest:
                self.arrived.clear()
                try:
                    await asyncio.wait_for(self.arrived.wait(), max(latest - time.perf_counter(), 0.0))
                except TimeoutError:
                    break
            batch, self.waiting = self.waiting[: self.max_batch], self.waiting[self.max_batch :]
            await asyncio.sleep(self.base_s + self.per_request_s * len(batch))
            for _, done in batch:
                if not done.done():
                    done.set_result(None)
