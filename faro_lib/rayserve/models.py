"""Models to serve: one that only takes time, and one that computes (extra `torch`)."""

from __future__ import annotations

import asyncio

import numpy as np

from faro_lib.workload.service import RESNET34, ServiceTime

IMAGE = (1, 3, 224, 224)


class Emulated:
    """Takes as long as a model would, without its computing: by default the paper's ResNet34, sped up.

    A request may bring the service time that it needs, in seconds, as its body: then two runs meet the same requests.

    Parameters
    ----------
    mean_s : mean service time.
    scv : squared coefficient of variation of a lognormal; None keeps the shape of the measured ResNet34.
    seed : of the draws.
    """

    def __init__(self, mean_s: float = RESNET34.mean_s, scv: float | None = None, seed: int | None = None):
        self.service = (
            RESNET34.scaled(mean_s / RESNET34.mean_s) if scv is None else ServiceTime.from_moments(mean_s, scv)
        )
        self._rng = np.random.default_rng(seed)

    async def __call__(self, request) -> str:
        body = await request.body()
        if body:
            service_s = float(body)
        else:
            draw = self._rng.standard_normal(1)
            self.service.from_normals(draw)
            service_s = float(draw[0])
        await asyncio.sleep(min(service_s, 60.0))
        return "ok"


class TorchVision:
    """A torchvision network on the CPU with random weights; answers the most likely class of a 224 x 224 image.

    Parameters
    ----------
    name : a model of torchvision, resnet18 or resnet34 say.
    threads : of one request.
    """

    def __init__(self, name: str = "resnet34", threads: int = 1):
        try:
            import torch
            import torchvision
        except ImportError:
            raise ValueError("model TorchVision needs torch and torchvision: pip install 'faro_lib[torch]'") from None
        torch.set_num_threads(threads)
        self._torch = torch
        self._network = torchvision.models.get_model(name, weights=None).eval()
        self._image = torch.rand(IMAGE)

    def __call__(self, request) -> str:
        with self._torch.inference_mode():
            return str(int(self._network(self._image).argmax()))
