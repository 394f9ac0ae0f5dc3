"""Latency classes of jobs that share replicas, measured by simulating their pool."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from faro_lib.files import cached_array
from faro_lib.queueing import LatencyTable, latency_class
from faro_lib.simulate.cluster import ServingModel, SimulatedCluster
from faro_lib.simulate.draws import draw
from faro_lib.simulate.latencies import minute_edges
from faro_lib.workload import Job, Pool, Workload, pools_of
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.service import true_busy_s, true_service_time

# (latencies (requests,), edges of windows, quantile, shrink) -> tail latencies, excess drop rates
Minutes = Callable[[np.ndarray, np.ndarray, float, float], tuple[np.ndarray, np.ndarray]]


def with_pools(
    table: LatencyTable,
    jobs: tuple[Job, ...],
    utilisations: tuple[float, ...],
    minutes_of: Minutes,
    model: ServingModel,
    *,
    seed: int,
    warm_up: int,
    threads: int,
    code: object,
) -> LatencyTable:
    """`table` with a class for each job that shares replicas.

    The class of a job is measured with the load of its whole pool. A rate of this class is the one
    at which the job alone would have the load of the pool. In the measurement, the jobs of the pool
    have equal loads, and each replica holds a chain of models. The other arguments are those of
    `measure.measure`.
    """
    counts = tuple(int(n) for n in table.replicas)
    shape = table.tail_s.shape[1:]
    for pool in pools_of(jobs):
        if not pool.shared:
            continue
        members = tuple(jobs[j] for j in pool.jobs)
        shared = tuple(
            replace(job, tenant="", tenant_quota=None, min_replicas=0) for job in members
        )
        classes = list(dict.fromkeys(_class_name(pool, job) for job in members))
        first = [next(j for j in members if _class_name(pool, j) == name) for name in classes]

        def measured(replicas: int, pool=pool, shared=shared, classes=classes) -> np.ndarray:
            def compute() -> np.ndarray:
                return _simulated(shared, replicas, utilisations, minutes_of, model, seed, warm_up)

            alike = tuple(
                (true_service_time(job), job.slo_s, job.quantile, job.load_s) for job in shared
            )
            key = alike, pool.models, pool.memory_of, pool.memory_gib, model, replicas
            return cached_array((*key, utilisations, seed, warm_up, shape, code), compute)

        with ThreadPoolExecutor(threads) as executor:
            by_count = list(executor.map(measured, counts))
        tail_s = np.empty((len(classes), *shape))
        excess = np.empty((len(classes), *shape))
        for column, values in enumerate(by_count):  # (classes, 2, utilisations, minutes)
            tail_s[:, 1:, column] = values[:, 0]
            excess[:, 1:, column] = values[:, 1]
        tail_s[:, 0], excess[:, 0] = tail_s[:, 1], excess[:, 1]
        saturation_rps = np.array([1 / true_busy_s(job) for job in first])
        rows = {
            "quantile": np.array([job.quantile for job in first]),
            "max_rps": np.full(len(first), np.inf),
            "rate_per_replica_rps": saturation_rps[:, None] * np.array([0.0, *utilisations]),
            "saturation_rps": saturation_rps,
            "tail_s": tail_s,
            "excess_drops": excess,
        }
        joined = {name: np.concatenate([getattr(table, name), row]) for name, row in rows.items()}
        own = dict(table.own) | {job.name: _class_name(pool, job) for job in members}
        table = replace(table, classes=(*table.classes, *classes), own=own, **joined)
    return table


def _class_name(pool: Pool, job: Job) -> str:
    return f"pool {pool.name}, {latency_class(job)}, SLO {job.slo_s:g} s"


def _simulated(
    jobs: tuple[Job, ...],
    replicas: int,
    utilisations: tuple[float, ...],
    minutes_of: Minutes,
    model: ServingModel,
    seed: int,
    warm_up: int,
) -> np.ndarray:
    """Tail latencies and excess drop rates, (classes, 2, utilisations, minutes)."""
    pool = pools_of(jobs)[0]
    # So many jobs have a replica that holds their model; a small pool cannot hold all.
    held = min(len(jobs), replicas * pool.models)
    jobs = jobs[:held] if held > 1 else jobs[:1]
    pool = pools_of(jobs)[0]
    homes = np.bincount(np.arange(replicas) % len(jobs), minlength=len(jobs))
    busy_s = np.array([true_busy_s(job) for job in jobs])
    warm = int(np.ceil(warm_up * busy_s.max() / MINUTE_S))
    windows = -(-31 // len(jobs)) + 3
    names = list(dict.fromkeys(_class_name(pool, job) for job in jobs))
    result = np.empty((len(names), 2, len(utilisations), 31))
    rng = np.random.default_rng([seed, replicas])
    for column, utilisation in enumerate(utilisations):
        rate_rps = utilisation * replicas / len(jobs) / busy_s
        ends = np.arange(warm + windows + 1) + rng.random((len(jobs), 1))
        counts = np.diff(np.floor(ends * rate_rps[:, None] * MINUTE_S).astype(int), axis=1)
        workload = Workload(jobs, counts)
        draws = draw(workload, seed, router=model.router)
        cores = max(replicas, len(jobs)) * pool.cores
        cluster = SimulatedCluster(workload, draws, cores, homes, model)
        cluster.finish()
        latency_s = cluster.latency_s
        edges = minute_edges(draws.arrival_s, draws.first, warm + windows)
        for row, name in enumerate(names):
            of_class = [j for j, job in enumerate(jobs) if _class_name(pool, job) == name]
            joined, starts = [], [0]
            for j in of_class:
                for a, b in zip(edges[j, warm:-1], edges[j, warm + 1 :]):
                    joined.append(latency_s[a:b])
                    starts.append(starts[-1] + b - a)
            quantile = jobs[of_class[0]].quantile
            values = minutes_of(np.concatenate(joined), np.array(starts), quantile, 1.0)
            result[row, :, column] = values
    return result
