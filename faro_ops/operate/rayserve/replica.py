"""The Ray Serve deployments: the replica, which wraps a user's model, and the stats endpoint."""

from __future__ import annotations

import asyncio
import contextvars
import hmac
import inspect
import json
import math
import pkgutil
import random
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from faro_ops.moved import moved
from faro_ops.operate.rayserve.authentication import read_token
from faro_ops.operate.rayserve.clock_offset import FollowingClock
from faro_ops.operate.rayserve.placements import Placements
from faro_ops.operate.rayserve.statistics import (
    UNREPORTED_S,
    StatsAggregator,
    add_row,
    bucket_of,
    empty_row,
)
from faro_ops.operate.rayserve.streams import stream_key

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

NAMESPACE, ACTOR = "faro", "faro-statistics"
PLACEMENTS = "faro-placements"  # name of the actor with the placements of pools
PLACEMENTS_PARAMETER = "placements"  # of requests to the stats endpoint that are about them
HEARTBEAT_S = 1.0
REPORT_AFTER_S = 0.1  # the statistics of a second are reported this many seconds after its end
REPORT_TIMEOUT_S = 5.0
GOLDEN_RATIO = (5**0.5 - 1) / 2
# Ray's own max_ongoing_requests is this multiple of the job's, so that Ray itself never queues
RAY_LIMIT_FACTOR = 100


class Dropped(Exception):
    """The replica dropped the request."""


class Failed(Exception):
    """The model answered with status 5xx; the argument is its response."""


class ReplicaQueue:
    """The request queue of one replica.

    It drops requests, limits the number in service, and records measurements. It accepts the share
    `accept` of requests, but none while `max_ongoing_requests` are ongoing. A golden-ratio sequence
    spreads the accepted requests evenly among the arriving ones. A share below 1 holds only for a
    time (`accept_for`): if the controller and the aggregator have died, nobody could end it.
    `ongoing` counts requests waiting or in service. `rows` has the measurements of seconds that are
    not reported yet.
    """

    def __init__(
        self,
        max_ongoing_requests: int,
        concurrency: int = 1,
        clock: Callable[[], float] = time.time,
    ):
        self.max_ongoing_requests = max_ongoing_requests
        self.accept = 1.0
        self.ongoing = 0
        self.rows: dict[int, dict[str, Any]] = {}
        self._clock = clock
        self._accept_ends_s = math.inf  # by time.monotonic()
        self._point = random.random()  # in the golden-ratio sequence
        self._serving = asyncio.Semaphore(concurrency)
        # A call in a thread goes on after its client has disconnected, so this pool limits the
        # calls to `concurrency` too.
        self.threads = ThreadPoolExecutor(concurrency)

    def accept_for(self, share: float, seconds: float) -> None:
        """Accept this share of requests for some seconds, and all requests afterwards."""
        self.accept = share
        self._accept_ends_s = time.monotonic() + seconds

    def _row(self) -> dict[str, Any]:
        return self.rows.setdefault(int(self._clock()), empty_row())

    async def serve(
        self,
        call: Callable[[], Awaitable[Any]],
        place: AbstractAsyncContextManager[Any] | None = None,
    ) -> Any:
        """Return the result of `call`, or raise Dropped.

        At most `concurrency` calls run at a time, and others wait. If `place` is given, calls wait
        to enter it instead, and `service_s` of the answer is the time of the service.
        """
        self._row()["arrivals"] += 1
        if self.accept < 1 and time.monotonic() >= self._accept_ends_s:
            self.accept = 1.0
        self._point = (self._point + GOLDEN_RATIO) % 1
        if self._point >= self.accept or self.ongoing >= self.max_ongoing_requests:
            self._row()["dropped"] += 1
            raise Dropped
        self.ongoing += 1
        arrived = time.perf_counter()
        try:
            async with place or self._serving:
                began = time.perf_counter()
                answer = await call()
                ended = time.perf_counter()
        except asyncio.CancelledError:  # the client hung up
            self._row()["cancelled"] += 1
            raise
        except BaseException:
            self._row()["failed"] += 1
            raise
        finally:
            self.ongoing -= 1
        latency_s = ended - arrived
        service_s = ended - began if place is None else answer.service_s
        measured = {
            "done": 1,
            "latency_s": latency_s,
            "service_s": service_s,
            "service_s2": service_s**2,
            "buckets": {str(bucket_of(latency_s)): 1},
        }
        add_row(self._row(), measured)
        return answer

    async def streamed(self, parts: AsyncIterable[Any], arrived_s: float) -> AsyncIterator[Any]:
        """Wait for the first part of a streamed answer and return all parts.

        The request stays ongoing until the last part. Then its times to the first part, per later
        part and to the last one are recorded. If the model fails before that, the request has
        failed. If the client hangs up before that, it is cancelled.

        arrived_s : when the request arrived, by time.perf_counter().
        """
        rest = aiter(parts)
        empty = object()
        first = await anext(rest, empty)
        first_s = last_s = time.perf_counter()

        async def every() -> AsyncIterator[Any]:
            nonlocal last_s
            self.ongoing += 1
            count = 1
            try:
                if first is not empty:
                    yield first
                async for part in rest:
                    count += 1
                    last_s = time.perf_counter()
                    yield part
            except (asyncio.CancelledError, GeneratorExit):  # the client hung up
                self._row()["cancelled"] += 1
                raise
            except Exception:
                self._row()["failed"] += 1
                raise
            else:
                key = stream_key(first_s - arrived_s, last_s - arrived_s, count)
                add_row(self._row(), {"streams": {key: 1}})
            finally:
                self.ongoing -= 1

        return every()

    def finished_seconds(self) -> dict[int, dict]:
        """Measurements of complete, unreported Unix seconds.

        Zeros mean no requests. A missing second means no data.
        """
        now = int(self._clock())
        oldest = now - UNREPORTED_S
        for second in range(max(min(self.rows, default=now), oldest), now + 1):
            self.rows.setdefault(second, empty_row())
        self.rows = {second: self.rows[second] for second in sorted(self.rows) if second >= oldest}
        return {second: row for second, row in self.rows.items() if second < now}

    def forget(self, seconds: Iterable[int]) -> None:
        """Remove the measurements of these seconds, which have been reported."""
        for second in seconds:
            self.rows.pop(second, None)


def aggregator() -> Any:
    """The handle of this Ray cluster's StatsAggregator actor; the first call creates the actor."""
    import ray

    actor = ray.remote(num_cpus=0, max_restarts=-1)(StatsAggregator)
    return actor.options(
        name=ACTOR, namespace=NAMESPACE, lifetime="detached", get_if_exists=True
    ).remote()


def placements_actor() -> Any:
    """The handle of this Ray cluster's Placements actor; the first call creates the actor."""
    import ray

    actor = ray.remote(num_cpus=0, max_restarts=-1)(Placements)
    return actor.options(
        name=PLACEMENTS, namespace=NAMESPACE, lifetime="detached", get_if_exists=True
    ).remote()


def load_model(path: str) -> Callable[..., Any]:
    """Import the class or function that is named "package.module:Name".

    >>> load_model("collections:OrderedDict").__name__
    'OrderedDict'
    """
    if path.count(":") != 1:
        raise ValueError(f"import_path={path!r} must read package.module:Name")
    if problem := moved(path):
        raise ValueError(problem)
    try:
        return pkgutil.resolve_name(path)
    except AttributeError:
        module, name = path.split(":")
        raise ValueError(f"import_path={path!r}: the module {module} has no {name}") from None


def response_of(answer: Any) -> Response:
    """The response that Ray Serve would make of a model's answer.

    It is text for str, bytes and None, and JSON for other objects.
    """
    from fastapi.encoders import jsonable_encoder
    from starlette.responses import PlainTextResponse, Response

    if isinstance(answer, Response):
        return answer
    if answer is None or isinstance(answer, str | bytes):
        return PlainTextResponse(answer)
    arrays: dict[Any, Callable[[Any], Any]] = {
        np.ndarray: np.ndarray.tolist,
        np.generic: np.generic.item,
    }
    text = json.dumps(jsonable_encoder(answer, custom_encoder=arrays), separators=(",", ":"))
    return Response(text, media_type="application/json")


class ReplicaActor:
    """One replica of the job named `job`. The other arguments are fields of `ServeSpec`."""

    def __init__(
        self,
        job: str,
        import_path: str,
        args: dict[str, Any],
        max_ongoing_requests: int,
        concurrency: int,
    ):
        from ray import serve

        self._job = job
        self._name = serve.get_replica_context().replica_tag
        # All replicas count in the seconds of the aggregator, whatever the clock of their node.
        self._clock = FollowingClock()
        self._queue = ReplicaQueue(max_ongoing_requests, concurrency, self._clock.now_s)
        self._model = load_model(import_path)(**args)
        # The check for async needs the method of a class, and the function itself.
        call = getattr(self._model, "__call__", self._model)  # noqa: B004
        self._is_async = inspect.iscoroutinefunction(call)
        self._aggregator = aggregator()
        self._heartbeat = asyncio.get_running_loop().create_task(self._report_forever())

    async def __call__(self, request: Request) -> Response:
        from starlette.responses import PlainTextResponse

        arrived_s = time.perf_counter()

        async def call() -> Response:
            if self._is_async:
                answer = await self._model(request)
            else:
                model = partial(contextvars.copy_context().run, self._model, request)
                loop = asyncio.get_running_loop()
                answer = await loop.run_in_executor(self._queue.threads, model)
            response: Any = response_of(answer)
            if response.status_code >= 500:
                raise Failed(response)
            parts = getattr(response, "body_iterator", None)  # only streaming responses have it
            if parts:
                response.body_iterator = await self._queue.streamed(parts, arrived_s)
            return response

        try:
            return await self._queue.serve(call)
        except Failed as error:
            return error.args[0]
        except Dropped:
            return PlainTextResponse("dropped", status_code=503, headers={"Retry-After": "1"})

    async def _report_forever(self) -> None:
        """Report each second's measurements shortly after the second ends.

        If a report fails, send them again later.
        """
        while True:
            await next_report(self._clock)
            try:
                await self._report()
            except Exception:  # serving continues without the aggregator
                try:
                    self._aggregator = await asyncio.to_thread(aggregator)
                except Exception:
                    await asyncio.sleep(HEARTBEAT_S)

    async def _report(self) -> None:
        queues = {self._job: self._queue}
        await report_seconds(self._aggregator, self._name, queues, self._clock)


async def next_report(clock: FollowingClock) -> None:
    """Sleep until shortly after the end of a second."""
    await asyncio.sleep(HEARTBEAT_S - (clock.now_s() - REPORT_AFTER_S) % HEARTBEAT_S)


async def report_seconds(
    aggregator: Any, name: str, queues: Mapping[str, ReplicaQueue], clock: FollowingClock
) -> None:
    """Report the finished seconds of each job's queue, and obey the aggregator's answers.

    name : of the replica that reports.
    """
    for job, queue in queues.items():
        # Before the first answer, this clock may be wrong.
        rows = queue.finished_seconds() if clock.has_heard else {}
        sent_s = time.monotonic()
        report = aggregator.report.remote(job, name, queue.ongoing, rows)
        answer = asyncio.shield(asyncio.wrap_future(report.future()))
        reply = await asyncio.wait_for(answer, REPORT_TIMEOUT_S)
        received_s = time.monotonic()
        queue.forget(rows)
        # A restarted aggregator knows no share: the last one holds until its time is over.
        if reply.accept is not None:
            # The time that the answer took is part of it.
            queue.accept_for(reply.accept, reply.for_s - (received_s - sent_s))
        if clock.heard(sent_s, received_s, reply.now_s):
            # Only the second that has just begun is lost; its number was wrong.
            for one in queues.values():
                one.rows.clear()


class StatsEndpoint:
    """HTTP access to the `StatsAggregator`. If Ray has a token, requests must carry it.

    GET returns the statistics of the seconds from `since` on. POST sets the shares of requests to
    accept for `for_s` seconds. A POST with the parameter `holder` instead requests the lease, which
    is the right to scale the jobs, and returns the lease's holder. With the parameter `placements`,
    GET and POST are about the placements of pools: `Placements.read` and `Placements.wish`.
    """

    def __init__(self) -> None:
        self._aggregator = aggregator()
        self._placements: Any = None  # a cluster without pools needs no such actor

    async def __call__(self, request: Request) -> Response:
        from starlette.responses import JSONResponse, PlainTextResponse

        token = read_token()
        given = request.headers.get("authorization", "")
        if token and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            return PlainTextResponse("the token is missing or wrong", status_code=401)
        try:
            return JSONResponse(await self._answer(request))
        except Exception:  # the actor may have died: look it up again
            self._aggregator = await asyncio.to_thread(aggregator)
            self._placements = None
            return JSONResponse(await self._answer(request))

    async def _answer(self, request: Request) -> Any:
        query = request.query_params
        if PLACEMENTS_PARAMETER in query:
            self._placements = self._placements or await asyncio.to_thread(placements_actor)
            if request.method == "POST":
                await self._placements.wish.remote(await request.json())
                return {}
            return await self._placements.read.remote()
        if request.method == "POST" and "holder" in query:
            return await self._aggregator.lease.remote(
                query["holder"], float(query["duration_s"]), "force" in query
            )
        if request.method == "POST":
            await self._aggregator.accept.remote(await request.json(), float(query["for_s"]))
            return {}
        return await self._aggregator.read.remote(int(query.get("since", 0)))


def application(arguments: dict[str, Any]) -> Any:
    """The Ray Serve application of one job, from the `args` of the declarative configuration."""
    from ray import serve

    keys = ("job", "import_path", "args", "max_ongoing_requests", "concurrency")
    deployment: Any = serve.deployment(ReplicaActor)
    return deployment.options(
        name=arguments.get("deployment", "replica"),
        num_replicas=arguments["replicas"],
        max_ongoing_requests=RAY_LIMIT_FACTOR * arguments["max_ongoing_requests"],
        ray_actor_options={"num_cpus": arguments["cores"]},
        graceful_shutdown_timeout_s=30,
        health_check_period_s=5,
        health_check_timeout_s=15,
    ).bind(**{key: arguments[key] for key in keys})


def stats_endpoint(arguments: dict[str, Any]) -> Any:
    """The Ray Serve application of the stats endpoint."""
    from ray import serve

    deployment: Any = serve.deployment(StatsEndpoint)
    return deployment.options(
        name="stats", num_replicas=1, ray_actor_options={"num_cpus": 0}
    ).bind()
