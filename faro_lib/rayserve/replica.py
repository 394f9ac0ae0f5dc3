"""A replica: the user's model behind a door that measures, queues, sheds and reports; the model knows nothing of it."""

from __future__ import annotations

import asyncio
import hmac
import importlib
import inspect
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

from faro_lib.rayserve.statistics import Board, add_row, bucket_of, empty_row

NAMESPACE, BOARD = "faro", "faro-statistics"
HEARTBEAT_S = 1.0
REPORT_AFTER_S = 0.1  # past the full second, so that a second is reported once it is over
UNREPORTED_S = 300  # seconds that a replica keeps while nobody listens
GOLDEN = (5**0.5 - 1) / 2


class Dropped(Exception):
    """The request was dropped at the door."""


class Station:
    """The door, the queue and the server of one replica.

    Parameters
    ----------
    max_ongoing_requests : requests that it may hold, the one in service included; one more is refused.
    concurrency : requests in service at once.

    Attributes
    ----------
    accept : the share of requests that pass the door. Which ones is a golden-ratio sequence from a random start: evenly
        spread, and after n requests the share is met to about 1/n.
    rows : what happened in each second that was not reported yet.
    """

    def __init__(self, max_ongoing_requests: int, concurrency: int = 1, clock: Callable[[], float] = time.time):
        self.max_ongoing_requests, self.accept, self.inside = max_ongoing_requests, 1.0, 0
        self.rows: dict[int, dict[str, Any]] = {}
        self._clock, self._point = clock, random.random()
        self._serving = asyncio.Semaphore(concurrency)

    def _row(self) -> dict[str, Any]:
        return self.rows.setdefault(int(self._clock()), empty_row())

    async def serve(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """What `call` answers, once it is its turn.

        Raises
        ------
        Dropped : the share to accept, or the max_ongoing_requests, left no room.
        """
        self._row()["arrivals"] += 1
        self._point = (self._point + GOLDEN) % 1
        if self._point >= self.accept or self.inside >= self.max_ongoing_requests:
            self._row()["dropped"] += 1
            raise Dropped
        self.inside += 1
        arrived = time.perf_counter()
        try:
            async with self._serving:
                began = time.perf_counter()
                answer = await call()
                ended = time.perf_counter()
        except BaseException:  # a caller that went away included: every arrival ends as one of done, dropped, failed
            self._row()["failed"] += 1
            raise
        finally:
            self.inside -= 1
        bucket = str(bucket_of(ended - arrived))
        service_s = ended - began
        times = {"latency_s": ended - arrived, "service_s": service_s, "service_s2": service_s**2}
        add_row(self._row(), {"done": 1, "buckets": {bucket: 1}} | times)
        return answer

    def finished_seconds(self) -> dict[int, dict]:
        """Rows of seconds that are over, silent ones included: a second without a row was not seen by anybody."""
        now = int(self._clock())
        first = min(self.rows, default=now)
        for second in range(max(first, now - UNREPORTED_S), now):
            self.rows.setdefault(second, empty_row())
        for old in [second for second in self.rows if second < now - UNREPORTED_S]:
            del self.rows[old]
        self.rows.setdefault(now, empty_row())
        return {second: self.rows[second] for second in sorted(self.rows) if second < now}

    def forget(self, seconds) -> None:
        """These were reported."""
        for second in seconds:
            self.rows.pop(second, None)


def board():
    """The named actor that hears the replicas; made by whoever asks first, anew if it is gone."""
    import ray

    actor = ray.remote(num_cpus=0, max_restarts=-1)(Board)
    return actor.options(name=BOARD, namespace=NAMESPACE, lifetime="detached", get_if_exists=True).remote()


def load(path: str) -> Callable[..., Any]:
    """The class or function behind "package.module:Name".

    >>> load("collections:OrderedDict").__name__
    'OrderedDict'
    """
    module, _, name = path.partition(":")
    if not module or not name:
        raise ValueError(f"model={path!r} must read package.module:Name")
    found = getattr(importlib.import_module(module), name, None)
    if found is None:
        raise ValueError(f"model={path!r}: the module {module} has no {name}")
    return found


class Replica:
    """One replica of a job as Ray Serve runs it."""

    def __init__(self, job: str, model: str, options: dict[str, Any], max_ongoing_requests: int, concurrency: int):
        from ray import serve

        self._job, self._name = job, serve.get_replica_context().replica_tag
        self._station = Station(max_ongoing_requests, concurrency)
        self._model = load(model)(**options)
        call = getattr(self._model, "__call__", self._model)  # noqa: B004 - the method, to see whether it is async
        self._is_async = inspect.iscoroutinefunction(call)
        self._board = board()
        self._heart = asyncio.get_running_loop().create_task(self._beat())

    async def __call__(self, request):
        from starlette.responses import PlainTextResponse, Response

        async def call():
            return await (self._model(request) if self._is_async else asyncio.to_thread(self._model, request))

        try:
            answer = await self._station.serve(call)
        except Dropped:
            return PlainTextResponse("dropped", status_code=503, headers={"Retry-After": "1"})
        return answer if isinstance(answer, Response) else PlainTextResponse(str(answer))

    async def _beat(self) -> None:
        """Report every second, shortly after it is over; what nobody heard is kept and told again."""
        while True:
            now = time.time()
            await asyncio.sleep(HEARTBEAT_S - (now - REPORT_AFTER_S) % HEARTBEAT_S)
            rows = self._station.finished_seconds()
            try:
                heard = self._board.report.remote(self._job, self._name, self._station.inside, rows)
                share = await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(heard.future())), 5.0)
            except Exception:  # whatever became of the board, serving goes on
                try:
                    self._board = await asyncio.to_thread(board)
                except Exception:
                    await asyncio.sleep(HEARTBEAT_S)
                continue
            self._station.forget(rows)
            if share is not None:
                self._station.accept = share


class Window:
    """The board over HTTP: GET what was reported since a second, POST which share of requests jobs shall accept.

    Where Ray has a token, the window wants the same one.
    """

    def __init__(self):
        self._board = board()

    async def __call__(self, request):
        from starlette.responses import JSONResponse, PlainTextResponse

        from faro_lib.rayserve.rest import read_token

        token = read_token()
        given = request.headers.get("authorization", "")
        if token and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            return PlainTextResponse("the token is missing or wrong", status_code=401)
        try:
            return JSONResponse(await self._answer(request))
        except Exception:
            self._board = await asyncio.to_thread(board)
            return JSONResponse(await self._answer(request))

    async def _answer(self, request):
        if request.method == "POST":
            shares = await request.json()
            await self._board.accept.remote(shares)
            return shares
        return await self._board.read.remote(int(request.query_params.get("since", 0)))


def application(arguments: dict[str, Any]):
    """The Serve application of one job, as the declarative configuration builds it from its `args`."""
    from ray import serve

    chosen = {key: arguments[key] for key in ("job", "model", "options", "max_ongoing_requests", "concurrency")}
    deployment: Any = serve.deployment(Replica)
    options = dict(
        name=arguments.get("deployment", "replica"),
        num_replicas=arguments["replicas"],
        max_ongoing_requests=100
        * chosen["max_ongoing_requests"],  # the replica itself refuses; Serve shall never queue
        ray_actor_options={"num_cpus": arguments["cores"]},
        graceful_shutdown_timeout_s=30,
        health_check_period_s=5,
        health_check_timeout_s=15,
    )
    return deployment.options(**options).bind(**chosen)


def window(arguments: dict[str, Any]):
    """The Serve application of the statistics' window."""
    from ray import serve

    deployment: Any = serve.deployment(Window)
    return deployment.options(name="window", num_replicas=1, ray_actor_options={"num_cpus": 0}).bind()
