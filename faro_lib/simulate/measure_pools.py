"""Latency classes of jobs that share replicas, measured by simulating their pool."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from faro_lib.files import cached_array
from faro_lib.queueing import LatencyTable, latency_class
from faro_lib.simulate.cluster import ServingModel, constant_pool_latencies
from faro_lib.simulate.draws import draw
from faro_lib.simulate.latencies import minute_edges
from faro_lib.simulate.table_minutes import (
    MINUTES,
    SEED,
    THREADS,
    UTILISATIONS,
    WARM_UP,
    code_key,
    table_minutes,
)
from faro_lib.workload import Job, Workload, pools_of
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.pools import chained
from faro_lib.workload.service import true_busy_s, true_service_time


def pools_measured(table: LatencyTable, jobs: tuple[Job, ...], model: ServingModel) -> LatencyTable:
    """`table` with a class for each job that shares replicas.

    Such a class is measured at the load of the whole pool: a rate of the class is the one at which
    the job alone would have the load of its pool. In the measurement, the jobs of the pool have
    equal loads, and each replica holds a chain of models. Pools of equal services share classes.
    """
    first_of: dict[tuple, tuple[Job, ...]] = {}  # services -> the first pool that has them
    own: dict[str, str] = {}
    for pool in pools_of(jobs):
        if not pool.shared:
            continue
        members = tuple(jobs[j] for j in pool.jobs)
        first = first_of.setdefault(_services(members), members)
        if first is members:
            table = _with_pool(table, members, model)
        own |= {job.name: _class_name(like) for job, like in zip(members, first)}
    return replace(table, own=dict(table.own) | own)


def _with_pool(table: LatencyTable, jobs: tuple[Job, ...], model: ServingModel) -> LatencyTable:
    """`table` with the classes of the jobs of one pool."""
    # Whether a job keeps a minimum, and whose quota it uses, does not change its latency.
    free = tuple(replace(job, min_replicas=0, tenant="", tenant_quota=None) for job in jobs)
    classes = {_class_name(job): job for job in jobs}
    counts = [int(count) for count in table.replicas]
    with ThreadPoolExecutor(THREADS) as executor:
        by_count = list(executor.map(lambda count: _cached(free, count, model), counts))
    measured = np.stack(by_count, axis=3)  # (classes, 2, utilisations, counts, minutes)
    # Rate 0 has the values of the lowest measured rate.
    measured = np.concatenate([measured[:, :, :1], measured], axis=2)
    saturation_rps = np.array([1 / true_busy_s(job) for job in classes.values()])
    rows = {
        "quantile": np.array([job.quantile for job in classes.values()]),
        "max_rps": np.full(len(classes), np.inf),
        "rate_per_replica_rps": saturation_rps[:, None] * np.array([0.0, *UTILISATIONS]),
        "saturation_rps": saturation_rps,
        "tail_s": measured[:, 0],
        "excess_drops": measured[:, 1],
    }
    joined = {name: np.concatenate([getattr(table, name), row]) for name, row in rows.items()}
    return replace(table, classes=(*table.classes, *classes), own=table.own, **joined)


def _class_name(job: Job) -> str:
    return f"pool {job.pool}, {latency_class(job)}, SLO {job.slo_s:g} s"


def _cached(jobs: tuple[Job, ...], replicas: int, model: ServingModel) -> np.ndarray:
    """`_simulated`, from a cache."""
    key = *_services(jobs), model, replicas, UTILISATIONS, MINUTES, WARM_UP, code_key()
    return cached_array(key, lambda: _simulated(jobs, replicas, model))


def _services(jobs: tuple[Job, ...]) -> tuple:
    """What the latencies of a pool depend on: its services, and what a replica can hold."""
    pool = pools_of(jobs)[0]
    services = []
    for job in jobs:
        bursts = job.dispersion if job.bursty else ()
        services.append((true_service_time(job), job.replica, job.slo_s, job.quantile, bursts))
    return *services, (pool.models, pool.memory_of, pool.memory_gib)


def _simulated(jobs: tuple[Job, ...], replicas: int, model: ServingModel) -> np.ndarray:
    """Tail latencies and excess drop rates, (classes, 2, utilisations, MINUTES).

    The classes are in the order of their first jobs.
    """
    pool = pools_of(jobs)[0]
    names = list(dict.fromkeys(_class_name(job) for job in jobs))
    # A small pool cannot hold all models. Then only the first jobs have requests.
    served = jobs[: max(1, min(len(jobs), replicas * pool.models))]
    homes = np.bincount(np.arange(replicas) % len(served), minlength=len(served))
    placement = chained(pools_of(served)[0], homes)
    busy_s = np.array([true_busy_s(job) for job in served])
    # A request's service time at full load, by Little's law.
    in_service_s = served[0].replica.max_in_service * busy_s.max()
    warm = int(np.ceil(WARM_UP * in_service_s / MINUTE_S))
    # The minutes of jobs of the same class count together. They are alike, because the jobs share
    # a queue, so a job's minutes are as many as in other tables.
    result = np.empty((len(names), 2, len(UTILISATIONS), MINUTES))
    offset = np.random.default_rng([SEED, replicas]).random((len(served), 1))
    for column, utilisation in enumerate(UTILISATIONS):
        per_min = utilisation * replicas / len(served) / busy_s * MINUTE_S
        ends = np.arange(warm + MINUTES + 1) + offset
        counts = np.diff(np.floor(ends * per_min[:, None]).astype(int), axis=1)
        workload = Workload(served, counts)
        draws = draw(workload, SEED, router=model.router)
        all_s = constant_pool_latencies(served, draws, placement, model)
        edges = minute_edges(draws.arrival_s, draws.first, warm + MINUTES)
        for row, name in enumerate(names):
            members = [j for j, job in enumerate(served) if _class_name(job) == name] or [0]
            minutes = [
                (a, b) for j in members for a, b in zip(edges[j, warm:-1], edges[j, warm + 1 :])
            ]
            latency_s = np.concatenate([all_s[a:b] for a, b in minutes])
            starts = np.cumsum([0, *(b - a for a, b in minutes)])
            quantile = served[members[0]].quantile
            result[row, :, column] = table_minutes(latency_s, starts, quantile, 1.0)
    return result
