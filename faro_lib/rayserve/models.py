"""Models to serve: an emulation that sleeps, and a torchvision network (needs the extra `torch`)."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import numpy as np

from faro_lib.workload.service import RESNET34, ServiceTime

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

MAX_SERVICE_S = 60.0


class Emulated:
    """Sleep for a random service time, or for the number of seconds in the body of the request.

    mean_s : mean service time.
    scv : squared coefficient of variation of a lognormal; None: the distribution measured for ResNet34, scaled.
    """

    def __init__(self, mean_s: float = RESNET34.mean_s, scv: float | None = None, seed: int | None = None):
        scaled = RESNET34.scaled(mean_s / RESNET34.mean_s)
        self.service = scaled if scv is None else ServiceTime.from_moments(mean_s, scv)
        self._rng = np.random.default_rng(seed)

    async def __call__(self, request: Request) -> str | Response:
        body = await request.body()
        try:
            service_s = float(body) if body else min(self._draw_s(), MAX_SERVICE_S)
        except ValueError:
            service_s = math.nan
        if not 0 <= service_s <= MAX_SERVICE_S:
            from starlette.responses import PlainTextResponse

            return PlainTextResponse(f"the body must be a service time in seconds, 0 to {MAX_SERVICE_S:g}", 400)
        await asyncio.sleep(service_s)
        return "ok"

    def _draw_s(self) -> float:
        draw = self._rng.standard_normal(1)
        self.service.from_normals(draw)
        return float(draw[0])


class TorchVision:
    """A torchvision network on the CPU with random weights, which classifies a random 224 x 224 image."""

    def __init__(self, name: str = "resnet34", threads: int = 1):
        try:
            import torch
            import torchvision
        except ImportError:
            raise ValueError("model TorchVision needs torch and torchvision: pip install 'faro_lib[torch]'") from None
        torch.set_num_threads(threads)
        self._torch = torch
        self._network = torchvision.models.get_model(name, weights=None).eval()
        self._image = torch.rand((1, 3, 224, 224))

    def __call__(self, request: Request) -> str:
        with self._torch.inference_mode():
            return str(int(self._network(self._image).argmax()))
