"""Models to serve: emulations that sleep instead of computing, and a torchvision network."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from faro_lib.workload.replicas import Batched, Continuous, replica_of
from faro_lib.workload.service import RESNET34, ServiceTime

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

MAX_SERVICE_S = 60.0


def _drawn(service: ServiceTime, rng: np.random.Generator) -> float:
    draw = rng.standard_normal(1)
    service.from_normals(draw)
    return float(draw[0])


class Emulated:
    """A model that sleeps for a random service time, or for the seconds in the request's body.

    mean_s : mean service time.
    scv : squared coefficient of variation of a lognormal service time; None: the distribution of
        ResNet34, scaled to `mean_s`.
    load_s : seconds that it takes to load the model.
    """

    def __init__(
        self,
        mean_s: float = RESNET34.mean_s,
        scv: float | None = None,
        seed: int | None = None,
        load_s: float = 0.0,
    ):
        time.sleep(load_s)
        scaled = RESNET34.scaled(mean_s / RESNET34.mean_s)
        self.service = scaled if scv is None else ServiceTime.from_moments(mean_s, scv)
        self._rng = np.random.default_rng(seed)

    async def __call__(self, request: Request) -> str | Response:
        body = await request.body()
        try:
            service_s = float(body) if body else min(_drawn(self.service, self._rng), MAX_SERVICE_S)
        except ValueError:
            service_s = math.nan
        if not 0 <= service_s <= MAX_SERVICE_S:
            from starlette.responses import PlainTextResponse

            problem = f"the body must be a service time in seconds, 0 to {MAX_SERVICE_S:g}"
            return PlainTextResponse(problem, 400)
        await asyncio.sleep(service_s)
        return "ok"


class EmulatedBatches:
    """A model that serves one batch at a time. The answer is the size of the batch.

    replica : the kind and the parameters of a `workload.replicas.Batched`.
    scv : squared coefficient of variation of batch times.
    serve_batch : if True, Ray Serve's @serve.batch forms the batches, and each batch blocks the
        event loop.
    """

    def __init__(
        self,
        replica: dict[str, Any],
        scv: float = 0.0,
        serve_batch: bool = False,
        seed: int | None = None,
    ):
        kind = replica_of(replica)
        assert isinstance(kind, Batched)
        self._kind = kind
        self._rng = np.random.default_rng(seed)
        self._factor = ServiceTime.from_moments(1.0, scv)
        self._waiting: asyncio.Queue[asyncio.Future] = asyncio.Queue()
        self._batches: asyncio.Task | None = None
        self._answer: Callable[[Any], Awaitable[str]] = self._wait
        if serve_batch:
            from ray import serve

            @serve.batch(max_batch_size=kind.max_batch, batch_wait_timeout_s=kind.wait_s)
            async def compute(requests: list) -> list[str]:
                time.sleep(self._duration_s(len(requests)))
                return [str(len(requests))] * len(requests)

            self._answer = compute

    async def __call__(self, request: Request) -> str:
        return await self._answer(request)

    def _duration_s(self, size: int) -> float:
        return self._kind.durations_s[size - 1] * _drawn(self._factor, self._rng)

    async def _wait(self, request: Request) -> str:
        ended = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait(ended)
        if self._batches is None:
            self._batches = asyncio.create_task(self._serve_batches())
        return await ended

    async def _serve_batches(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            with suppress(TimeoutError):
                async with asyncio.timeout(self._kind.wait_s):
                    while len(batch) < self._kind.max_batch:
                        batch.append(await self._waiting.get())
            await asyncio.sleep(self._duration_s(len(batch)))
            for ended in batch:
                if not ended.done():  # its client may have disconnected
                    ended.set_result(str(len(batch)))


class EmulatedTokens:
    """A service that generates tokens with continuous batching.

    replica : the kind and the parameters of a `workload.replicas.Continuous`.
    stream : if True, each token is sent when it is generated; if False, the answer is sent after
        the last token.
    """

    def __init__(self, replica: dict[str, Any], stream: bool = False, seed: int | None = None):
        kind = replica_of(replica)
        assert isinstance(kind, Continuous)
        self._kind = kind
        self._stream = stream
        self._rng = np.random.default_rng(seed)
        # (prompt tokens, output tokens, queue that receives the number of output tokens left)
        self._waiting: deque[tuple[int, int, asyncio.Queue]] = deque()
        self._iterations: asyncio.Task | None = None

    async def __call__(self, request: Request) -> str | Response:
        left: asyncio.Queue[int] = asyncio.Queue()
        prompt, output = (int(row[0]) for row in self._kind.lengths(self._rng, 1))
        self._waiting.append((prompt, output, left))
        if self._iterations is None or self._iterations.done():
            self._iterations = asyncio.create_task(self._iterate())
        if not self._stream:
            while await left.get():
                pass
            return f"{output} tokens"
        from starlette.responses import StreamingResponse

        return StreamingResponse(_tokens(await left.get(), left))

    async def _iterate(self) -> None:
        """Generate one token of each running request per iteration, until no request is left.

        A late wake-up shortens the next sleep.
        """
        kind = self._kind
        running: list[list] = []  # [output tokens left, the request's queue]
        end_s = asyncio.get_running_loop().time()
        while running or self._waiting:
            prompts = 0
            while self._waiting and len(running) < kind.max_sequences:
                if running and prompts + self._waiting[0][0] > kind.max_tokens:
                    break
                prompt, output, left = self._waiting.popleft()
                prompts += prompt
                running.append([output, left])
            end_s += kind.decode_s(len(running)) + kind.prefill_s(prompts)
            await asyncio.sleep(end_s - asyncio.get_running_loop().time())
            for sequence in running:
                sequence[0] -= 1
                if self._stream or not sequence[0]:
                    sequence[1].put_nowait(sequence[0])
            running = [sequence for sequence in running if sequence[0]]


async def _tokens(left: int, queue: asyncio.Queue[int]) -> AsyncIterator[str]:
    yield "token\n"
    while left:
        left = await queue.get()
        yield "token\n"


class TorchVision:
    """A torchvision network on the CPU with random weights. It classifies a random image."""

    def __init__(self, name: str = "resnet34", threads: int = 1):
        try:
            import torch
            import torchvision
        except ImportError:
            raise ValueError(
                "model TorchVision needs torch and torchvision: pip install 'faro_lib[torch]'"
            ) from None
        torch.set_num_threads(threads)
        self._torch = torch
        self._network = torchvision.models.get_model(name, weights=None).eval()
        self._image = torch.rand((1, 3, 224, 224))

    def __call__(self, request: Request) -> str:
        with self._torch.inference_mode():
            return str(int(self._network(self._image).argmax()))
