"""Random small pools: jobs, requests, and replicas that come, go and change their models."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import reference_pools
from hypothesis import strategies as st
from reference_simulator import Request

from faro_lib.simulate import ServingModel, draw
from faro_lib.simulate.draws import Draws
from faro_lib.simulate.pools import LATE_BINDING
from faro_lib.simulate.serving import Serving
from faro_lib.workload import Job, Workload
from faro_lib.workload.pools import Placement, Pool, pools_of
from faro_lib.workload.replicas import SERIAL, Batched, Concurrent
from studies.sharing.routers import EarlyBinding, LeastRecentlyUsed


@dataclass(frozen=True)
class PoolSchedule:
    """One pool and a script of changes; `steps` are (time, action, argument)."""

    jobs: tuple[Job, ...]
    counts: list  # requests per minute: lists over jobs of lists over minutes
    serving_model: ServingModel
    steps: list
    seed: int

    @property
    def pool(self) -> Pool:
        return pools_of(self.jobs)[0]

    def draws(self) -> Draws:
        workload = Workload(self.jobs, np.array(self.counts))
        return draw(workload, self.seed, router=self.serving_model.router)

    def run(self, draws: Draws, watch=lambda serving, at_s: None):
        """(serving after all steps, the script for `PoolWorld`), `watch` called at each step."""
        model = self.serving_model
        serving = Serving(
            self.jobs,
            draws,
            300,
            model.dispatch,
            model.queue_limit,
            np.array([model.limit_of(job) for job in self.jobs]),
            pools_of(self.jobs),
            model.pool_router,
        )
        shared = serving.shared[self.pool.name]
        script = []
        for at_s, action, argument in self.steps:
            if action == "add":
                serving.add_replica(0, at_s)
            elif action == "remove":
                serving.remove_replica(0, at_s)
            elif action == "drop":
                serving.advance(at_s)
                serving.station.drop[:] = argument
            else:
                shared.place(argument, at_s)
                rows = [set(np.flatnonzero(row).tolist()) for row in argument.resident]
                argument = (argument.home.tolist(), rows, list(shared._row))
            script.append((at_s, action, argument))
            watch(serving, at_s)
        serving.advance(np.finfo(float).max)
        return serving, script

    def run_plainly(self, draws: Draws, script) -> np.ndarray:
        """Latency of every request in the plain simulator; NaN if it still waits."""
        model, pool = self.serving_model, self.pool
        n = len(draws.arrival_s)
        passes = [
            own if len(own) else np.zeros(n) for own in (draws.router_in_s, draws.router_out_s)
        ]
        columns = [draws.arrival_s, passes[0], draws.service_s, passes[1], draws.coin]
        requests = [Request(*row) for row in zip(*(column.tolist() for column in columns))]
        kinds = [asdict(job.replica) for job in self.jobs]
        for kind, job in zip(kinds, self.jobs):
            kind["batch_s"] = getattr(job.replica, "durations_s", ())
        world_of = reference_pools.WORLDS.get(self.jobs[0].replica.kind)
        world = (partial(world_of, kinds) if world_of else reference_pools.PoolWorld)(
            [requests[a:b] for a, b in zip(draws.first[:-1], draws.first[1:])],
            [job.slo_s for job in self.jobs],
            list(pool.load_s),
            list(pool.memory_of),
            [model.limit_of(job) for job in self.jobs],
            pool.models,
            pool.memory_gib,
            model.pool_router.name,
            getattr(model.pool_router, "counts_age_s", 0.0),
            getattr(model.pool_router, "gateways", 1),
            model.queue_limit,
            model.router is not None,
            script,
        )
        latency_s = np.concatenate(world.run())
        return np.array([np.nan if one is None else one for one in latency_s], float)


@st.composite
def placements(draw_from, pool: Pool, most: int):
    """A placement of up to `most` replicas that can hold their models."""
    size = len(pool.jobs)
    homes = sorted(draw_from(st.lists(st.integers(0, size - 1), max_size=most)))
    resident = np.zeros((len(homes), size), bool)
    for row, home in zip(resident, homes):
        row[home] = True
        for job in draw_from(st.permutations(range(size))):
            more = row.copy()
            more[job] = True
            if pool.holds(more) and draw_from(st.booleans()):
                row[job] = True
    return Placement(np.array(homes, np.int64), resident)


@st.composite
def routers(draw_from):
    queued = draw_from(st.sampled_from([None, EarlyBinding, LeastRecentlyUsed]))
    if queued is None:
        return LATE_BINDING
    return queued(draw_from(st.sampled_from([0.0, 0.25, 2.0])), draw_from(st.integers(1, 3)))


@st.composite
def replicas_of_jobs(draw_from, size):
    """The replicas of the jobs of a pool: of one kind, with equal limits."""
    kind = draw_from(st.sampled_from(["serial", "concurrent", "batched"]))
    at_once = draw_from(st.integers(1, 4))
    if kind == "serial":
        return [SERIAL] * size
    if kind == "concurrent":
        return [Concurrent(at_once, draw_from(st.sampled_from([0.0, 0.5])))] * size
    wait_s = draw_from(st.sampled_from([0.0, 0.1, 1.0]))
    base_s = [draw_from(st.sampled_from([0.05, 0.2])) for _ in range(size)]
    return [Batched(at_once, wait_s, base, 0.03) for base in base_s]


@st.composite
def pool_schedules(draw_from):
    size = draw_from(st.integers(2, 4))
    by_memory = draw_from(st.booleans())
    models = draw_from(st.integers(1, size))
    memory_of = draw_from(st.lists(st.sampled_from([1.0, 2.0]), min_size=size, max_size=size))
    load_s = draw_from(st.lists(st.sampled_from([0.0, 0.3, 2.0]), min_size=size, max_size=size))
    slo_s = draw_from(st.lists(st.sampled_from([0.2, 0.7, 2.0]), min_size=size, max_size=size))
    replicas = draw_from(replicas_of_jobs(size))
    jobs = tuple(
        Job(
            f"job{n}",
            pool="p",
            slo_s=slo_s[n],
            load_s=load_s[n],
            models_per_replica=None if by_memory else models,
            memory_gib=memory_of[n] if by_memory else None,
            replica_memory_gib=3.0 if by_memory else None,
            model="other" if n % 2 else "resnet34",
            service_time_s=0.05 if n % 2 else 0.18,
            service_scv=0.5 if n % 2 or replicas[n].kind == "batched" else 0.0,
            replica=replicas[n],
        )
        for n in range(size)
    )
    pool = pools_of(jobs)[0]
    serving_model = ServingModel(
        dispatch=draw_from(st.sampled_from(["round-robin", "least-outstanding"])),
        queue_limit=draw_from(st.sampled_from([0, 3, 50])),
        max_ongoing_requests=draw_from(st.integers(1, 4)),
        pool_router=draw_from(routers()) if replicas[0] == SERIAL else LATE_BINDING,
    )
    steps: list = []
    serving, wish = 0, 0
    times = sorted(draw_from(st.lists(st.integers(0, 120), min_size=1, max_size=8)))
    for tick, at_s in enumerate([-np.inf, *times]):
        placement = draw_from(placements(pool, 6))
        wish = len(placement.home)
        for _ in range(serving - wish):
            steps.append((float(at_s), "remove", None))
        serving = min(serving, wish)
        steps.append((float(at_s), "place", placement))
        if tick and draw_from(st.booleans()):
            steps.append(
                (float(at_s), "drop", draw_from(st.sampled_from([0.0, 0.3])) * np.ones(size))
            )
        for _ in range(draw_from(st.integers(0, wish - serving))):
            steps.append((float(at_s), "add", None))
            serving += 1
    most = draw_from(st.sampled_from([20, 300, 900]))
    counts = [
        draw_from(st.lists(st.integers(0, most), min_size=2, max_size=2)) for _ in range(size)
    ]
    return PoolSchedule(jobs, counts, serving_model, steps, draw_from(st.integers(0, 1000)))
