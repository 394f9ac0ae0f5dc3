"""A model server for plain Deployments, which waits instead of computing.

Serves requests at /, one at a time, and Prometheus metrics at /metrics, both on port 8000. The
queries of jobs.yaml read these metrics.
"""

from __future__ import annotations

import asyncio
import os
import time

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from faro_ops.operate.rayserve.replica import Dropped, ReplicaQueue

SERVICE_S = float(os.environ.get("SERVICE_S", "0.1"))  # duration of a request
# Requests that may wait or be in service; others get status 503.
MAX_ONGOING = int(os.environ.get("MAX_ONGOING_REQUESTS", "10"))
BUCKETS = [0.01 * 1.2**i for i in range(40)]  # up to 12 s

requests = Counter("http_requests", "Requests that arrived.")
dropped = Counter("http_requests_dropped", "Requests that were dropped.")
cancelled = Counter("http_requests_cancelled", "Requests whose client left before the answer.")
seconds = Histogram(
    "http_request_seconds", "Latency of the requests that were served.", buckets=BUCKETS
)
ongoing = Gauge("http_requests_ongoing", "Requests waiting or in service.")
queue = ReplicaQueue(MAX_ONGOING)
ongoing.set_function(lambda: queue.ongoing)


async def answer(request: Request) -> PlainTextResponse:
    requests.inc()
    arrived = time.perf_counter()
    try:
        await queue.serve(lambda: asyncio.sleep(SERVICE_S))
    except Dropped:
        dropped.inc()
        return PlainTextResponse("dropped", status_code=503)
    if await request.is_disconnected():
        cancelled.inc()
        return PlainTextResponse("cancelled", status_code=499)
    seconds.observe(time.perf_counter() - arrived)
    return PlainTextResponse("served")


async def metrics(_: Request) -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


if __name__ == "__main__":
    routes = [Route("/", answer, methods=["GET", "POST"]), Route("/metrics", metrics)]
    app = Starlette(routes=routes)
    uvicorn.run(app, host="0.0.0.0", port=8000, log_level="warning", timeout_graceful_shutdown=20)
