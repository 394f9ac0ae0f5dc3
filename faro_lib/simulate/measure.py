"""Measure latency tables by simulating constant arrival rates on constant replica counts."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from faro_lib.files import cached_array
from faro_lib.queueing import LatencyTable, latency_class
from faro_lib.queueing.curve import read_curve, with_curve
from faro_lib.simulate.cluster import PAPER, ServingModel
from faro_lib.simulate.draws import draw, uniform_arrivals
from faro_lib.simulate.latencies import minute_edges, quantile_of
from faro_lib.simulate.serving import Serving
from faro_lib.workload import Job, Workload
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.replicas import Replica
from faro_lib.workload.service import ServiceTime, true_busy_s, true_service_time

# The grid is finest near saturation, where latency grows as 1 / (1 - rho) and drops begin.
UTILISATIONS = (
    0.05,
    0.1,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.65,
    0.7,
    0.75,
    0.8,
    0.84,
    0.88,
    0.91,
    0.94,
    0.97,
    1.0,
    1.03,
    1.06,
    1.1,
    1.2,
    1.5,
    2.0,
    3.0,
)
COUNTS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 32, 48, 64, 96)  # replica counts
USUAL_REPLICAS = 16  # largest replica count to measure if the capacity is unknown
MINUTES = 31  # number of simulated minutes stored for each rate and replica count
WINDOW_REQUESTS = (
    7000  # if a minute has more requests than this at utilisation 1, shorter windows are simulated
)
SEED = 1  # seed of the simulated requests
WARM_UP = 50  # shortest warm-up before the first minute, in service times; needed because queues begin empty
THREADS = min(8, os.cpu_count() or 1)  # few, because each simulation needs about 50 MB


def measure(
    jobs: tuple[Job, ...],
    replicas: tuple[int, ...] | None = None,
    *,
    capacity: float | None = None,
    requests: int = 30_000,
    serving_model: ServingModel = PAPER,
) -> LatencyTable:
    """The latency table of the jobs, measured by simulation at UTILISATIONS and replica counts.

    `replicas` are the counts to measure, by default COUNTS up to the number of replicas that fit
    into `capacity` cores. `requests` is the number of requests simulated at utilisation 1 for each
    count. Jobs with the same service time, replica type and limits share a simulation, whatever
    their SLO and quantile. Simulations run in parallel. Results are cached on disk
    (`files.cached_array`). For a job with a `latency_curve`, the table has the values of that
    curve.
    """
    # Curves are read first, so that an invalid one is reported before the simulations.
    curves = [(job, read_curve(job.latency_curve, job)) for job in jobs if job.latency_curve]
    if replicas is None:
        most = USUAL_REPLICAS if capacity is None else capacity / min(job.cores for job in jobs)
        most = min(most, max(job.max_replicas for job in jobs))
        replicas = tuple(x for n, x in enumerate(COUNTS) if n == 0 or COUNTS[n - 1] < most)
    own: dict[str, str] = {}
    members: dict[str, tuple[Job, ServingModel]] = {}
    for job in reversed(jobs):
        kind, limit = latency_class(job), serving_model.limit_of(job)
        if limit != replace(serving_model, own_limits=()).limit_of(job):
            own[job.name] = kind = f"{kind}, at most {limit} ongoing"
        members[kind] = (job, replace(serving_model, max_ongoing_requests=limit, own_limits=()))
    shape = (len(members), 1 + len(UTILISATIONS), len(replicas), MINUTES)
    tail_s, excess = np.empty(shape), np.empty(shape)
    alike: dict[tuple[ServiceTime, Replica, ServingModel], list[int]] = {}
    for k, (job, model) in enumerate(members.values()):
        alike.setdefault((true_service_time(job), job.replica, model), []).append(k)
    jobs = tuple(job for job, _ in members.values())

    def fill(task: tuple[ServingModel, list[int], int]) -> None:
        model, rows, column = task
        quantiles, x = tuple(jobs[k].quantile for k in rows), replicas[column]
        minutes = _simulated(jobs[rows[0]], x, model, quantiles, requests)
        tail_s[rows, 1:, column], excess[rows, 1:, column] = minutes.swapaxes(0, 1)

    with ThreadPoolExecutor(THREADS) as pool:
        list(
            pool.map(
                fill,
                [
                    (model, rows, n)
                    for (*_, model), rows in alike.items()
                    for n in range(len(replicas))
                ],
            )
        )
    tail_s[:, 0], excess[:, 0] = tail_s[:, 1], excess[:, 1]
    saturation_rps = np.array([1 / true_busy_s(job) for job in jobs])
    table = LatencyTable(
        classes=tuple(members),
        quantile=np.array([job.quantile for job, _ in members.values()]),
        max_rps=np.full(len(members), serving_model.max_rps),
        rate_per_replica_rps=saturation_rps[:, None] * np.array([0.0, *UTILISATIONS]),
        saturation_rps=saturation_rps,
        replicas=np.array(replicas),
        tail_s=tail_s,
        excess_drops=excess,
        own=own,
    )
    for job, curve in curves:
        table = with_curve(table, curve, job)
    return table


def _simulated(
    job: Job, replicas: int, model: ServingModel, quantiles: tuple[float, ...], requests: int
) -> np.ndarray:
    """Return tail latencies and excess drop rates, an array (quantiles, 2, utilisations, MINUTES) cached on disk."""

    def compute() -> np.ndarray:
        latency_s, by_rate, shrink = _run(job, replicas, model, requests)
        minutes = [[_minutes(latency_s, edges, q, shrink) for edges in by_rate] for q in quantiles]
        return np.array(minutes).swapaxes(1, 2)

    grid = requests, UTILISATIONS, MINUTES, WINDOW_REQUESTS, WARM_UP
    return cached_array(
        (true_service_time(job), job.replica, model, replicas, quantiles, grid, _code()), compute
    )


@cache
def _code() -> tuple[str, bytes]:
    """numpy's version and the code of `simulate` and `workload`: part of the cache key, because results depend on them."""
    files = (
        path
        for package in ("simulate", "workload")
        for path in Path(__file__).parents[1].glob(f"{package}/*.py")
    )
    return np.__version__, b"".join(path.read_bytes() for path in sorted(files))


def _run(
    job: Job, replicas: int, model: ServingModel, requests: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Simulate a constant arrival rate at each of UTILISATIONS, and divide time into equal windows of at most a minute.

    At utilisation 1, a window has at most WINDOW_REQUESTS requests. Returns latencies (requests,),
    the index of each window's first request (utilisations, windows + 1), and `shrink`, the square
    root of the window length in minutes.
    """
    full_rps = replicas / true_busy_s(job)
    in_service_s = job.replica.max_in_service * true_busy_s(
        job
    )  # Little's law: a request's service time at full load
    window_s = min(MINUTE_S, WINDOW_REQUESTS / full_rps)
    windows = max(MINUTES, int(requests / (full_rps * window_s)))
    warm = int(np.ceil(max(WARM_UP * in_service_s, window_s) / window_s))
    # `counts` are whole requests per window. Their running sum differs from that of a constant rate
    # by less than one.
    ends = np.arange(warm + windows + 1) + np.random.default_rng(SEED).random(
        (len(UTILISATIONS), 1)
    )
    counts = np.diff(
        np.floor(ends * (full_rps * window_s * np.array(UTILISATIONS))[:, None]).astype(int), axis=1
    )
    workload = Workload(
        tuple(replace(job, name=str(n), tenant_quota=None) for n in range(len(counts))), counts
    )
    draws = draw(workload, SEED, router=model.router)
    if window_s < MINUTE_S or not model.router:
        # The arrivals of `draw` only suit one-minute windows and the paper's model, in which some
        # overrun their minute.
        draws = replace(
            draws,
            arrival_s=uniform_arrivals(counts, np.random.default_rng([SEED, replicas]), window_s),
        )
    places = np.full(len(counts), model.max_ongoing_requests)
    serving = Serving(workload.jobs, draws, 1, model.dispatch, model.queue_limit, places)
    for n in range(len(counts)):
        for _ in range(replicas):
            serving.add_replica(n, 0.0)
    serving.advance(np.finfo(float).max)
    edges = minute_edges(draws.arrival_s * (MINUTE_S / window_s), draws.first, warm + windows)
    return serving.requests.latency_s, edges[:, warm:-1], float(np.sqrt(window_s / MINUTE_S))


def _minutes(
    latency_s: np.ndarray, edges: np.ndarray, quantile: float, shrink: float
) -> tuple[np.ndarray, np.ndarray]:
    """Tail latency in s of served requests, and excess drop rate, in each of MINUTES equally likely minutes.

    The excess drop rate is the drop rate minus (1 - quantile). Time window i has the requests
    edges[i] to edges[i + 1]. The windows are sorted by tail latency, and both results are
    interpolated between them at equally spaced ranks. `shrink` reduces the variation of the
    results, because whole minutes vary less than shorter windows.
    """
    rows = []
    for a, b in zip(edges[:-1], edges[1:]):
        if a < b:
            n, served = b - a, latency_s[a:b][np.isfinite(latency_s[a:b])]
            excess = 1 - len(served) / n - (1 - quantile)
            late = not np.isfinite(quantile_of(latency_s[a:b], quantile))
            # A dropped request has infinite latency, so the quantile of all requests is a higher
            # quantile of the served ones.
            level = 1.0 if late else min(1.0, quantile * (n - 1) / max(len(served) - 1, 1))
            tail_s = quantile_of(served, level) if len(served) else np.inf
            rows.append((late, tail_s, max(excess, 0.5 / n) if late else min(excess, -0.5 / n)))
    _, tail_s, excess = np.array(sorted(rows)).T
    longest = tail_s[np.isfinite(tail_s)].max(initial=0.0) or 1e6
    rank = (np.arange(MINUTES) + 0.5) / MINUTES * len(rows) - 0.5
    log_tail, excess = (
        shrink * np.interp(rank, np.arange(len(rows)), values) + (1 - shrink) * values.mean()
        for values in (np.log(np.minimum(tail_s, longest)), excess)
    )
    return np.exp(log_tail), excess
