"""Measure latency tables by simulating constant arrival rates on constant replica counts."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from faro_lib.files import cached_array
from faro_lib.queueing import LatencyTable, latency_class
from faro_lib.queueing.curve import read_curve, with_curve
from faro_lib.simulate.cluster import PAPER, ServingModel
from faro_lib.simulate.draws import draw, uniform_arrivals
from faro_lib.simulate.latencies import minute_edges
from faro_lib.simulate.measure_pools import pools_measured
from faro_lib.simulate.misstated import Misstated
from faro_lib.simulate.serving import constant_latencies
from faro_lib.simulate.table_minutes import (
    MINUTES,
    SEED,
    THREADS,
    UTILISATIONS,
    WARM_UP,
    code_key,
    table_minutes,
)
from faro_lib.workload import Job, Workload
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.replicas import Replica
from faro_lib.workload.service import ServiceTime, true_busy_s, true_service_time

COUNTS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 32, 48, 64, 96)  # replica counts
USUAL_REPLICAS = 16  # largest replica count to measure if the capacity is unknown
# If a minute has more requests than this at utilisation 1, shorter windows are simulated.
WINDOW_REQUESTS = 7000


def measure(
    jobs: tuple[Job, ...],
    replicas: tuple[int, ...] | None = None,
    *,
    capacity: float | None = None,
    requests: int = 30_000,
    serving_model: ServingModel = PAPER,
    misstated: Misstated | None = None,
) -> LatencyTable:
    """The latency table of the jobs, measured by simulation at UTILISATIONS and replica counts.

    `replicas` are the counts to measure, by default COUNTS up to the number of replicas that fit
    into `capacity` cores. `requests` is the number of requests simulated at utilisation 1 for each
    count. Jobs with the same service time, replica type, bursts and limits share a simulation,
    whatever their SLO and quantile. Simulations run in parallel. Results are cached on disk
    (`files.cached_array`). For a job with a `latency_curve`, the table has the values of that
    curve. With `misstated`, the services differ from what the jobs state.
    """
    # Curves are read first, so that an invalid one is reported before the simulations.
    curves = [(job, read_curve(job.latency_curve, job)) for job in jobs if job.latency_curve]
    if replicas is None:
        most = USUAL_REPLICAS if capacity is None else capacity / min(job.cores for job in jobs)
        most = min(most, max(job.max_replicas for job in jobs))
        replicas = tuple(x for n, x in enumerate(COUNTS) if n == 0 or COUNTS[n - 1] < most)
    classes, own = _classes(jobs, serving_model)
    measured = [job for job, _ in classes.values()]  # one job of each class
    # Jobs with equal service times, replicas, bursts and limits share a simulation.
    rows_of: dict[tuple[ServiceTime, Replica, tuple[float, ...], ServingModel], list[int]] = {}
    for k, (job, model) in enumerate(classes.values()):
        key = true_service_time(job), job.replica, job.dispersion, model
        rows_of.setdefault(key, []).append(k)
    tasks = [(key[-1], rows, n) for key, rows in rows_of.items() for n in range(len(replicas))]
    shape = (len(classes), 1 + len(UTILISATIONS), len(replicas), MINUTES)
    tail_s, excess = np.empty(shape), np.empty(shape)

    def fill(task: tuple[ServingModel, list[int], int]) -> None:
        model, rows, column = task
        quantiles = tuple(measured[k].quantile for k in rows)
        job = measured[rows[0]]
        minutes = _simulated(job, replicas[column], model, quantiles, requests, misstated)
        tail_s[rows, 1:, column], excess[rows, 1:, column] = minutes.swapaxes(0, 1)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(fill, tasks))
    # Rate 0 has the values of the lowest measured rate.
    tail_s[:, 0] = tail_s[:, 1]
    excess[:, 0] = excess[:, 1]
    saturation_rps = np.array([1 / true_busy_s(job) for job in measured])
    table = LatencyTable(
        classes=tuple(classes),
        quantile=np.array([job.quantile for job in measured]),
        max_rps=np.full(len(classes), serving_model.max_rps),
        rate_per_replica_rps=saturation_rps[:, None] * np.array([0.0, *UTILISATIONS]),
        saturation_rps=saturation_rps,
        replicas=np.array(replicas),
        tail_s=tail_s,
        excess_drops=excess,
        own=own,
    )
    for job, curve in curves:
        table = with_curve(table, curve, job)
    return pools_measured(table, jobs, serving_model)


def _classes(
    jobs: tuple[Job, ...], serving_model: ServingModel
) -> tuple[dict[str, tuple[Job, ServingModel]], dict[str, str]]:
    """The first job of each class with its serving model, and `LatencyTable.own`.

    Jobs with a limit of their own (`ServingModel.own_limits`) are in classes of their own.
    """
    usual = replace(serving_model, own_limits=())
    classes: dict[str, tuple[Job, ServingModel]] = {}
    own: dict[str, str] = {}
    for job in reversed(jobs):
        kind = latency_class(job)
        limit = serving_model.limit_of(job)
        if limit != usual.limit_of(job):
            kind = own[job.name] = f"{kind}, at most {limit} ongoing"
        classes[kind] = job, replace(usual, max_ongoing_requests=limit)
    return classes, own


def _simulated(
    job: Job,
    replicas: int,
    model: ServingModel,
    quantiles: tuple[float, ...],
    requests: int,
    misstated: Misstated | None,
) -> np.ndarray:
    """Tail latencies and excess drop rates, (quantiles, 2, utilisations, MINUTES), from a cache."""

    def compute() -> np.ndarray:
        latency_s, by_rate, shrink = _run(job, replicas, model, requests, misstated)
        minutes = [
            [table_minutes(latency_s, edges, q, shrink) for edges in by_rate] for q in quantiles
        ]
        return np.array(minutes).swapaxes(1, 2)

    service = true_service_time(job), job.replica, model, *(job.dispersion if job.bursty else ())
    if misstated is not None:
        service = *service, misstated
    grid = requests, UTILISATIONS, MINUTES, WINDOW_REQUESTS, WARM_UP
    return cached_array((*service, replicas, quantiles, grid, code_key()), compute)


def _run(
    job: Job,
    replicas: int,
    model: ServingModel,
    requests: int,
    misstated: Misstated | None,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Simulate a constant arrival rate at each of UTILISATIONS.

    Time is divided into equal windows of at most a minute. At utilisation 1, a window has at most
    WINDOW_REQUESTS requests. Returns latencies (requests,), the index of each window's first
    request (utilisations, windows + 1), and `shrink`, the square root of the window length in
    minutes.
    """
    full_rps = replicas / true_busy_s(job)
    # A request's service time at full load, by Little's law.
    in_service_s = job.replica.max_in_service * true_busy_s(job)
    window_s = min(MINUTE_S, WINDOW_REQUESTS / full_rps)
    windows = max(MINUTES, int(requests / (full_rps * window_s)))
    warm = int(np.ceil(max(WARM_UP * in_service_s, window_s) / window_s))
    # `counts` are whole requests per window, or per minute for a job with bursts. Their running sum
    # differs from that of a constant rate by less than one.
    offset = np.random.default_rng(SEED).random((len(UTILISATIONS), 1))
    counted, counted_s = warm + windows, window_s
    if job.bursty:
        counted, counted_s = int(np.ceil(counted * window_s / MINUTE_S)), MINUTE_S
    ends = np.arange(counted + 1) + offset
    per_window = full_rps * counted_s * np.array(UTILISATIONS)
    counts = np.diff(np.floor(ends * per_window[:, None]).astype(int), axis=1)
    jobs = tuple(replace(job, name=str(n), tenant_quota=None) for n in range(len(counts)))
    workload = Workload(jobs, counts)
    draws = draw(workload, SEED, router=model.router)
    if not job.bursty and (window_s < MINUTE_S or not model.router):
        # The arrivals of `draw` only suit one-minute windows and the paper's model, in which some
        # overrun their minute.
        rng = np.random.default_rng([SEED, replicas])
        draws = replace(draws, arrival_s=uniform_arrivals(counts, rng, window_s))
    if misstated is not None:
        draws = misstated(draws)
    places = np.full(len(jobs), model.max_ongoing_requests)
    rules = model.dispatch, model.queue_limit, places
    latency_s = constant_latencies(jobs, draws, [replicas] * len(jobs), *rules)
    edges = minute_edges(draws.arrival_s * (MINUTE_S / window_s), draws.first, warm + windows)
    return latency_s, edges[:, warm:-1], float(np.sqrt(window_s / MINUTE_S))
