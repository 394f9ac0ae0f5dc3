"""The gateway of a pool: the ingress deployment that holds the requests until a replica is free.

It binds late by default: a request waits here, and a replica that holds its model takes the
earliest deadline (arrival + SLO) when it is free, or soon will be (`pace`). With early binding, the
router of the gateway's handle sends each request at once to the replica with the fewest requests
among those that hold its model.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from faro_lib.workload.pools import Pool
from faro_ops.operate.rayserve.clock_offset import FollowingClock
from faro_ops.operate.rayserve.late_queue import LateQueue, Place
from faro_ops.operate.rayserve.pace import Pace
from faro_ops.operate.rayserve.pool_replica import (
    NOT_HELD,
    Answered,
    Forwarded,
    ModelSpec,
    PoolReplica,
)
from faro_ops.operate.rayserve.replica import (
    HEARTBEAT_S,
    RAY_LIMIT_FACTOR,
    Dropped,
    Failed,
    ReplicaQueue,
    aggregator,
    next_report,
    report_seconds,
)
from faro_ops.operate.rayserve.residency import PoolJobs
from faro_ops.operate.rayserve.spec import LATE

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

LOG = logging.getLogger("ray.serve")
GATEWAY = "gateway"  # name of the deployment
LOOK_S = 0.2  # time between two looks at the running replicas
AGAIN_S = 0.05  # pause before a request is sent again that no replica could serve
EARLY_REQUESTS = 4  # requests in a replica that is bound early
ROUTING_STATS_S = 1.0  # Ray asks replicas for what they hold at this interval
# Entries of an ASGI scope that a model can read and that can be sent to another process.
SCOPE = (
    "type",
    "http_version",
    "method",
    "scheme",
    "path",
    "raw_path",
    "root_path",
    "query_string",
    "headers",
    "client",
    "server",
)


@dataclass(frozen=True, slots=True)
class GatewayJob:
    """A job of the pool as its gateway sees it."""

    name: str
    path: str  # last part of its route
    slo_s: float
    max_ongoing_requests: int  # of the job, in this gateway and the replicas


class Gateway:
    """One replica of the gateway of a pool.

    pool : handle of the pool's replicas.
    binding : "late" or "early".
    """

    def __init__(self, pool: Any, jobs: tuple[GatewayJob, ...], binding: str):
        from ray import serve

        context = serve.get_replica_context()
        self._name, self._application = context.replica_tag, context.app_name
        self._pool = pool
        self._jobs = {job.path: job for job in jobs}
        # All replicas count in the seconds of the aggregator, whatever the clock of their node.
        self._clock = FollowingClock()
        self._queues = {
            job.name: ReplicaQueue(job.max_ongoing_requests, 1, self._clock.now_s) for job in jobs
        }
        self._pace = Pace()
        self._late = LateQueue(self._pace.free_after_s) if binding == LATE else None
        self._versions: dict[str, tuple[int, frozenset[str]]] = {}  # newest known, by replica
        self._aggregator = aggregator()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._report_forever())]
        if self._late is not None:
            self._tasks.append(loop.create_task(self._look_forever(jobs[0].name)))

    async def __call__(self, request: Request) -> Response:
        from starlette.responses import PlainTextResponse, Response

        path = request.scope["path"].rstrip("/").rpartition("/")[2]
        job = self._jobs.get(path)
        if job is None:
            return PlainTextResponse(f"this pool has no job {path!r}", 404)
        scope = {key: request.scope[key] for key in SCOPE if key in request.scope}
        sent = Forwarded(job.name, "", scope, await request.body())
        place: Any = nullcontext()
        if self._late is not None:
            place = Place(self._late, job.name, time.monotonic() + job.slo_s)
        try:
            answer = await self._served(sent, place)
        except Failed as error:
            answer = error.args[0]
        except Dropped:
            return PlainTextResponse("dropped", status_code=503, headers={"Retry-After": "1"})
        response = Response(answer.body, answer.status)
        response.raw_headers = list(answer.headers)
        return response

    async def _served(self, sent: Forwarded, place: AbstractAsyncContextManager[Any]) -> Answered:
        """The answer of a replica; raises Dropped, or Failed if the model or the replica failed."""

        async def call() -> Answered:
            while True:
                answer = await self._sent(sent, place)
                if answer.status >= 500:
                    raise Failed(answer)
                if answer.status != NOT_HELD:
                    return answer
                if isinstance(place, Place):
                    await place.change()
                else:
                    await asyncio.sleep(AGAIN_S)

        return await self._queues[sent.job].serve(call, place)

    async def _sent(self, sent: Forwarded, place: AbstractAsyncContextManager[Any]) -> Answered:
        """One attempt to serve a request; the status NOT_HELD if its replica had no such model."""
        named = place.replica if isinstance(place, Place) else ""
        to = Forwarded(sent.job, named, sent.scope, sent.body)
        began_s = time.perf_counter()
        try:
            answer: Answered = await self._pool.remote(to)
        except Exception as error:  # the replica died while it had the request
            if self._late is not None:
                self._late.forget(named)
            if isinstance(place, Place) and place.ahead:  # it served the request before
                return Answered(named, frozenset())
            LOG.warning("a request of %s is lost with its replica: %s", sent.job, _line(error))
            return Answered(named, frozenset(), 500, (), b"the replica ended")
        if answer.status != NOT_HELD:
            path_s = time.perf_counter() - began_s - answer.waited_s - answer.service_s
            self._pace.note(sent.job, answer.service_s, path_s)
        if self._late is not None:
            if answer.replica != named:  # Ray no longer runs the one that was meant, or not yet
                self._late.forget(named)
            self._late.note(answer.replica, answer.holds)
        return answer

    async def _look_forever(self, job: str) -> None:
        """Keep the late queue informed about the running replicas and what they hold."""
        from faro_ops.operate.rayserve.handle_routers import running_replicas

        assert self._late is not None
        while True:
            try:
                if not running_replicas(self._application):
                    # Ray makes the router of a handle when the handle is first used.
                    await self._pool.knock.remote(Forwarded(job, "", {}, b""))
                self._late.update(self._newest(running_replicas(self._application)))
            except Exception as error:
                LOG.warning("the replicas of the pool are not known: %s", _line(error))
            await asyncio.sleep(LOOK_S)

    def _newest(
        self, running: Mapping[str, tuple[int, frozenset[str]]]
    ) -> dict[str, frozenset[str]]:
        """What each running replica holds; an older version than one known before is ignored."""
        for name, known in running.items():
            self._versions[name] = max(known, self._versions.get(name, known), key=_version)
        self._versions = {name: self._versions[name] for name in running}
        return {name: holds for name, (_, holds) in self._versions.items()}

    async def _report_forever(self) -> None:
        """Report the measurements of all jobs each second, as a replica of a single job does."""
        while True:
            await next_report(self._clock)
            try:
                await report_seconds(self._aggregator, self._name, self._queues, self._clock)
            except Exception:  # serving continues without the aggregator
                try:
                    self._aggregator = await asyncio.to_thread(aggregator)
                except Exception:
                    await asyncio.sleep(HEARTBEAT_S)


def _version(known: tuple[int, frozenset[str]]) -> int:
    return known[0]


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def pool_application(arguments: dict[str, Any]) -> Any:
    """The Ray Serve application of a pool, from the `args` of the declarative configuration."""
    from ray import serve
    from ray.serve.config import RequestRouterConfig

    of = PoolJobs(_pool_of(arguments["pool"]), tuple(job["job"] for job in arguments["jobs"]))
    specs = {job["job"]: ModelSpec(job["import_path"], job["args"]) for job in arguments["jobs"]}
    gateways, binding = arguments["gateways"], arguments["binding"]
    limits = [job["max_ongoing_requests"] for job in arguments["jobs"]]
    limit = sum(limits) if binding == LATE else EARLY_REQUESTS
    routing: dict[str, Any] = {
        "request_router_class": "faro_ops.operate.rayserve.pool_router:ByModel",
        "request_routing_stats_period_s": ROUTING_STATS_S,
    }
    replica: Any = serve.deployment(PoolReplica)
    replicas = replica.options(
        name=arguments["deployment"],
        num_replicas=arguments["replicas"],
        max_ongoing_requests=limit,
        ray_actor_options={"num_cpus": arguments["cores"]},
        graceful_shutdown_timeout_s=30,
        health_check_period_s=5,
        health_check_timeout_s=15,
        request_router_config=RequestRouterConfig(**routing),
    ).bind(of, specs)
    jobs = tuple(
        GatewayJob(job["job"], job["path"], job["slo_s"], -(-limit // gateways))
        for job, limit in zip(arguments["jobs"], limits)
    )
    gateway: Any = serve.deployment(Gateway)
    return gateway.options(
        name=GATEWAY,
        num_replicas=gateways,
        max_ongoing_requests=RAY_LIMIT_FACTOR * sum(limits),
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=30,
        health_check_period_s=5,
        health_check_timeout_s=15,
    ).bind(replicas, jobs, binding)


def _pool_of(fields: Mapping[str, Any]) -> Pool:
    """The pool from its fields in JSON, where infinity is None."""
    memory_gib = float("inf") if fields["memory_gib"] is None else float(fields["memory_gib"])
    return Pool(
        name=fields["name"],
        jobs=tuple(fields["jobs"]),
        cores=fields["cores"],
        cold_start_s=fields["cold_start_s"],
        models=fields["models"],
        memory_gib=memory_gib,
        memory_of=tuple(fields["memory_of"]),
        load_s=tuple(fields["load_s"]),
    )
