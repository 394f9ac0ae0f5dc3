"""A replica of a pool: a Ray Serve deployment that holds the models that the controller says.

It serves one request at a time, and others wait. Models are loaded in a thread while it serves.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from faro_ops.operate.rayserve.placements import ModelReport
from faro_ops.operate.rayserve.replica import (
    REPORT_TIMEOUT_S,
    load_model,
    placements_actor,
    response_of,
)
from faro_ops.operate.rayserve.residency import Held, ModelStep, PoolJobs, Row, first_rows

LOG = logging.getLogger("ray.serve")
FOLLOW_S = 1.0  # time between two reports
RETRY_S = 10.0  # a load that failed is tried again after this time
NOT_HELD = 0  # status of an answer: the replica does not hold the job's model


@dataclass(frozen=True, slots=True)
class Forwarded:
    """A request as the gateway sends it to a replica."""

    job: str
    replica: str  # the replica that it is meant for; "": any that holds the model
    scope: Mapping[str, Any]  # of ASGI; only what can be sent
    body: bytes


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer of a replica, and what it holds then."""

    replica: str
    holds: frozenset[str]
    status: int = NOT_HELD
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    service_s: float = 0.0
    waited_s: float = 0.0  # for the request before


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """How a job's model is made."""

    import_path: str
    args: Mapping[str, Any]


class Models:
    """The models in one replica. Loads do not stop the replica from serving."""

    def __init__(self, specs: Mapping[str, ModelSpec]):
        self._specs = specs
        self._models: dict[str, Any] = {}
        self._failed_s: dict[str, float] = {}  # job -> when its last load failed
        self.failures: dict[str, str] = {}  # job -> why its last load failed
        self.loading = ""
        self.version = 0  # number of changes of what it holds

    @property
    def holds(self) -> frozenset[str]:
        return frozenset(self._models)

    def get(self, job: str) -> Callable[..., Any] | None:
        return self._models.get(job)

    def report(self) -> ModelReport:
        now_s = time.monotonic()
        failed = [job for job, at_s in self._failed_s.items() if now_s - at_s < RETRY_S]
        return ModelReport(Held(self.holds, self.loading, frozenset(failed)), dict(self.failures))

    def drop(self, job: str) -> None:
        """Drop a model; a request in service still ends with it."""
        if self._models.pop(job, None) is not None:
            self.version += 1
            gc.collect()  # models often have cycles, and their memory is needed now

    async def load(self, job: str) -> None:
        """Load a model in a thread; a failure is noted and logged."""
        self.loading = job
        try:
            self._put(job, await asyncio.to_thread(_made, self._specs[job]))
        except Exception as error:
            self._note(job, error)
        finally:
            self.loading = ""

    def load_now(self, job: str) -> None:
        """Load a model in this thread; a failure is noted and logged."""
        try:
            self._put(job, _made(self._specs[job]))
        except Exception as error:
            self._note(job, error)

    def _put(self, job: str, model: Any) -> None:
        self._models[job] = model
        self.version += 1
        self._failed_s.pop(job, None)
        self.failures.pop(job, None)

    def _note(self, job: str, error: Exception) -> None:
        self._failed_s[job] = time.monotonic()
        self.failures[job] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        LOG.warning("the model of %s could not be loaded: %s", job, self.failures[job])


def _made(spec: ModelSpec) -> Any:
    return load_model(spec.import_path)(**spec.args)


class PoolReplica:
    """One replica of a pool.

    of : the pool and its jobs.
    specs : how the models are made, by job.
    """

    def __init__(self, of: PoolJobs, specs: Mapping[str, ModelSpec]):
        from ray import serve

        self._of = of
        self._name = serve.get_replica_context().replica_tag
        self._models = Models(specs)
        self._turn = asyncio.Lock()
        # A call in a thread goes on after its client has gone, so the thread is one for all.
        self._thread = ThreadPoolExecutor(1)
        self._placements = placements_actor()
        self._load_first()  # nothing else runs yet, so it may block
        self._following = asyncio.get_running_loop().create_task(self._follow_forever())

    def record_routing_stats(self) -> dict[str, Any]:
        """What the gateways' routers know of this replica (Ray Serve calls it)."""
        return {"holds": sorted(self._models.holds), "version": self._models.version}

    async def knock(self, request: Forwarded) -> Answered:
        """Say what the replica holds, and serve nothing."""
        return Answered(self._name, self._models.holds)

    async def __call__(self, request: Forwarded) -> Answered:
        """Serve a request when it is its turn, if the replica holds the model then."""
        arrived_s = time.perf_counter()
        async with self._turn:
            model = self._models.get(request.job)
            if model is None:
                return Answered(self._name, self._models.holds)
            began_s = time.perf_counter()
            try:
                status, headers, body = await self._called(model, request)
            except Exception:
                LOG.exception("the model of %s failed", request.job)
                status, headers, body = 500, (), b"Internal Server Error"
            service_s = time.perf_counter() - began_s
            times = service_s, began_s - arrived_s
            return Answered(self._name, self._models.holds, status, headers, body, *times)

    async def _called(
        self, model: Callable[..., Any], sent: Forwarded
    ) -> tuple[int, tuple[tuple[bytes, bytes], ...], bytes]:
        from starlette.requests import Request

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": sent.body, "more_body": False}

        request = Request(dict(sent.scope), receive)
        call = getattr(model, "__call__", model)  # noqa: B004
        if inspect.iscoroutinefunction(call):
            answer = await model(request)
        else:
            in_context = partial(contextvars.copy_context().run, model, request)
            answer = await asyncio.get_running_loop().run_in_executor(self._thread, in_context)
        response: Any = response_of(answer)
        if parts := getattr(response, "body_iterator", None):  # a streamed answer arrives whole
            encoded = [part if isinstance(part, bytes) else part.encode() async for part in parts]
            return response.status_code, tuple(response.raw_headers), b"".join(encoded)
        return response.status_code, tuple(response.raw_headers), bytes(response.body)

    def _load_first(self) -> None:
        """Load the models of a row before the first request; raise if none can be loaded."""
        for job in self._first_row():
            self._models.load_now(job)
        if not self._models.holds:
            reasons = "; ".join(f"{job}: {why}" for job, why in self._models.failures.items())
            pool = self._of.pool.name
            raise RuntimeError(f"no model of pool {pool!r} could be loaded: {reasons}")

    def _first_row(self) -> Row:
        for _ in range(3):  # the actor may be starting again
            try:
                return self._report().result(REPORT_TIMEOUT_S)[0]
            except Exception:
                self._placements = _found(self._placements)
        return first_rows(self._of.pool, self._of.names, 1)[0]

    def _report(self) -> Future[tuple[Row, ModelStep]]:
        """Report what the replica holds; the answer is its row, and what it should do."""
        told = self._models.report()
        return self._placements.report.remote(self._of, self._name, told).future()

    async def _follow_forever(self) -> None:
        """Report, drop and load; without the actor, keep what the replica holds."""
        load: asyncio.Task[None] | None = None
        while True:
            try:
                answer = asyncio.shield(asyncio.wrap_future(self._report()))
                _, step = await asyncio.wait_for(answer, REPORT_TIMEOUT_S)
            except Exception:
                step = ModelStep()
                self._placements = await asyncio.to_thread(_found, self._placements)
            for job in step.drop:
                self._models.drop(job)
            if step.load and not self._models.loading:
                load = asyncio.create_task(self._models.load(step.load))
            waiting = {load} if load and not load.done() else set()
            if waiting:
                await asyncio.wait(waiting, timeout=FOLLOW_S)
            else:
                await asyncio.sleep(FOLLOW_S)


def _found(before: Any) -> Any:
    """The actor's handle, looked up again; the old one if that fails."""
    try:
        return placements_actor()
    except Exception:
        return before
