"""Deployments without Kubernetes: emulated pods, in front of them a balancer, and their API.

One process has all pods of all Deployments. A pod is a request queue that sleeps instead of
computing, with the metrics of `cluster/model_server.py`. The process answers

- POST /jobs/NAME: a request, whose body is its service time,
- GET /metrics/POD and GET /targets: the pods' metrics, and the list of pods for a Prometheus,
- the calls of Kubernetes' API with which Faro reads and scales Deployments.
"""

import asyncio
import json
import random
import sys
import time
from dataclasses import asdict, dataclass, field
from itertools import count
from typing import Self

import uvicorn
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from faro_ops.operate.rayserve.replica import Dropped, ReplicaQueue

HOST = "127.0.0.1"
NAMESPACE = "models"
BUCKETS = [0.01 * 1.2**i for i in range(40)]  # as those of cluster/model_server.py
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
# How the balancer chooses a pod: one of those with the fewest requests, or any, as a Service of
# Kubernetes does.
FEWEST, RANDOM = "fewest", "random"
AUTOSCALERS = f"/apis/autoscaling/v2/namespaces/{NAMESPACE}/horizontalpodautoscalers"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the process serves."""

    port: int
    replicas: dict[str, int]  # Deployment -> replicas at the start
    max_ongoing_requests: int  # of a pod; further requests get status 503
    cold_start_s: float  # until a new pod is ready
    balancer: str = FEWEST  # or RANDOM

    @classmethod
    def of(cls, text: str) -> Self:
        return cls(**json.loads(text))

    def __str__(self) -> str:
        return json.dumps(asdict(self))


class Pod:
    """A replica that serves one request at a time."""

    def __init__(self, name: str, max_ongoing_requests: int):
        self.name = name
        self.ready = False
        self.queue = ReplicaQueue(max_ongoing_requests)
        self.registry = CollectorRegistry()
        self._requests = Counter("http_requests", "Arrived.", registry=self.registry)
        self._dropped = Counter("http_requests_dropped", "Dropped.", registry=self.registry)
        self._cancelled = Counter("http_requests_cancelled", "Given up.", registry=self.registry)
        self._seconds = Histogram(
            "http_request_seconds", "Latency.", buckets=BUCKETS, registry=self.registry
        )

    async def answer(self, service_s: float) -> bool:
        """Whether the request was served and not dropped."""
        self._requests.inc()
        arrived = time.perf_counter()
        try:
            await self.queue.serve(lambda: asyncio.sleep(service_s))
        except Dropped:
            self._dropped.inc()
            return False
        except asyncio.CancelledError:  # the client hung up
            self._cancelled.inc()
            raise
        self._seconds.observe(time.perf_counter() - arrived)
        return True


@dataclass(slots=True)
class Deployment:
    """Pods of one model.

    A removed pod stays in `terminating` until it has served its requests, or longer.
    """

    name: str
    settings: Settings
    pods: list[Pod] = field(default_factory=list)
    terminating: list[Pod] = field(default_factory=list)
    version: int = 1
    serial: count = field(default_factory=count)
    starts: set[asyncio.Task] = field(default_factory=set)  # keeps the tasks alive

    def __post_init__(self) -> None:
        self.pods = [self._new() for _ in range(self.settings.replicas[self.name])]
        for pod in self.pods:
            pod.ready = True

    def _new(self) -> Pod:
        return Pod(f"{self.name}-{next(self.serial)}", self.settings.max_ongoing_requests)

    def scale(self, replicas: int) -> None:
        """Remove the newest pods, or start new ones."""
        self.version += 1
        self.terminating = [pod for pod in self.terminating if pod.queue.ongoing]
        self.terminating += self.pods[replicas:]
        del self.pods[replicas:]
        while len(self.pods) < replicas:
            self.pods.append(self._new())
            task = asyncio.create_task(self._start(self.pods[-1]))
            self.starts.add(task)
            task.add_done_callback(self.starts.discard)

    async def _start(self, pod: Pod) -> None:
        await asyncio.sleep(self.settings.cold_start_s)
        pod.ready = True

    def chosen(self) -> Pod | None:
        """The ready pod that gets the next request."""
        ready = [pod for pod in self.pods if pod.ready]
        random.shuffle(ready)
        if self.settings.balancer == FEWEST:
            ready.sort(key=lambda pod: pod.queue.ongoing)
        return next(iter(ready), None)

    def api_object(self) -> dict:
        meta = {
            "name": self.name,
            "namespace": NAMESPACE,
            "resourceVersion": str(self.version),
            "generation": self.version,
        }
        status = {
            "observedGeneration": self.version,
            "replicas": len(self.pods),
            "readyReplicas": sum(pod.ready for pod in self.pods),
        }
        return {"metadata": meta, "spec": {"replicas": len(self.pods)}, "status": status}


def application(settings: Settings) -> Starlette:
    """The routes of the process."""
    deployments = {name: Deployment(name, settings) for name in settings.replicas}

    def scraped() -> dict[str, tuple[Deployment, Pod]]:
        return {
            pod.name: (one, pod)
            for one in deployments.values()
            for pod in (*one.pods, *one.terminating)
        }

    async def answer(request: Request) -> Response:
        service_s = float(await request.body())
        pod = deployments[request.path_params["name"]].chosen()
        served = pod is not None and await pod.answer(service_s)
        return PlainTextResponse("served" if served else "dropped", 200 if served else 503)

    async def metrics(request: Request) -> Response:
        found = scraped().get(request.path_params["pod"])
        if found is None:
            return PlainTextResponse("no such pod", 404)
        return Response(generate_latest(found[1].registry), media_type=CONTENT_TYPE_LATEST)

    async def targets(_: Request) -> Response:
        groups = [
            {
                "targets": [f"{HOST}:{settings.port}"],
                "labels": {
                    "service": one.name,
                    "pod": name,
                    "__metrics_path__": f"/metrics/{name}",
                },
            }
            for name, (one, _) in scraped().items()
        ]
        return JSONResponse(groups)

    async def listed(_: Request) -> Response:
        return JSONResponse({"items": [one.api_object() for one in deployments.values()]})

    async def autoscalers(_: Request) -> Response:
        return JSONResponse({"items": []})

    async def scale(request: Request) -> Response:
        one = deployments[request.path_params["name"]]
        one.scale((await request.json())["spec"]["replicas"])
        return JSONResponse(one.api_object())

    return Starlette(
        routes=[
            Route("/jobs/{name}", answer, methods=["POST"]),
            Route("/metrics/{pod}", metrics),
            Route("/targets", targets),
            Route(DEPLOYMENTS, listed),
            Route(AUTOSCALERS, autoscalers),
            Route(f"{DEPLOYMENTS}/{{name}}/scale", scale, methods=["PATCH"]),
        ]
    )


if __name__ == "__main__":
    given = Settings.of(sys.argv[1])
    uvicorn.run(
        application(given),
        host=HOST,
        port=given.port,
        log_level="warning",
        timeout_graceful_shutdown=5,
    )
