"""A lighter cluster for `ClusterEnv`: it simulates pods, but draws latencies from a table instead
of serving requests.

A job's tail latency of a minute is drawn from a `LatencyTable` at the minute's arrival rate and
smallest replica count. The smallest count applies, because the requests of the worst seconds decide
a high quantile. Queues are empty at the start of each minute. The mean latency is the half-wait
approximation of M/D/c, capped at its value with full queues. The number of ongoing requests follows
from the mean latency by Little's law. Drop rates are not modelled.
"""

from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from faro_lib.protocol import HISTORY_MINUTES, Observation
from faro_lib.queueing.formulas import erlang_c
from faro_lib.simulate.cluster import PAPER, CapacityStep, ServingModel, SimulatedCluster
from faro_lib.simulate.measure import measure
from faro_lib.simulate.pods import Pods
from faro_lib.workload import Job, Workload, arrays_of
from faro_lib.workload.jobs import MINUTE_S

RATES = 256  # arrival rates from 0 to peak


@lru_cache(maxsize=8)
def latencies(
    jobs: tuple[Job, ...], peak_rps: tuple[float, ...], max_replicas: int, model: ServingModel
) -> tuple[np.ndarray, np.ndarray]:
    """Tail and mean latencies in seconds, by job, arrival rate (RATES values up to the peak) and
    replicas (0, 1, ...).

    The tail latencies have a fourth axis: equally likely minutes, in ascending order of latency.
    """
    table = measure(jobs, serving_model=model)
    counts = np.arange(max_replicas + 1)
    tail_s, mean_s = [], []
    for job, peak in zip(jobs, peak_rps):
        rate_rps = peak * np.linspace(0, 1, RATES)[:, None]  # (RATES, 1)
        tail_s.append(table.minutes(job, rate_rps, counts)[0].astype(np.float32))
        mean_s.append(mean_latency(job, rate_rps, np.maximum(counts, 1), model))
    return np.array(tail_s), np.array(mean_s)


def mean_latency(
    job: Job, rate_rps: np.ndarray, replicas: np.ndarray, model: ServingModel
) -> np.ndarray:
    """Mean latency in seconds: half of the M/M/c wait, at most the wait in full queues."""
    service_s = job.service_time_s
    load = rate_rps * service_s  # in erlangs
    with np.errstate(divide="ignore"):
        wait_s = erlang_c(load, replicas) * service_s / 2 / np.maximum(replicas - load, 0)
    wait_s = np.where(load < replicas, wait_s, np.inf)
    full = 1 + model.queue_limit / replicas + model.limit_of(job)  # in service times
    return np.minimum(service_s + wait_s, service_s * full)


class FluidCluster(SimulatedCluster):
    """A simulated cluster without requests."""

    def __init__(
        self,
        workload: Workload,
        trial: int,
        capacity: float,
        initial: np.ndarray,
        capacity_steps: tuple[CapacityStep, ...] = (),
        serving_model: ServingModel = PAPER,
    ):
        """`trial` seeds the draw of each minute's tail latency from the table."""
        counts = workload.requests_per_min  # (jobs, minutes)
        jobs = arrays_of(workload.jobs)
        # Peaks are rounded up to a power of two, so that more calls find their table in the cache.
        peak_rps = 2 ** np.ceil(np.log2(np.maximum(counts.max(axis=1) / MINUTE_S, 1.0)))
        most = int(np.minimum(jobs.replicas_within(capacity), jobs.max_replicas).max())
        self._latencies, self._mean_s = latencies(
            workload.jobs, tuple(peak_rps), most, serving_model
        )
        self.workload = workload
        self._set_units(workload.jobs)
        for unit in self._units:
            if unit.shared:
                raise ValueError(f"the fluid model has no shared replicas: pool {unit.name!r}")
        self.now_s = 0.0
        self._capacity_steps = list(capacity_steps)
        self._lifetimes = ()
        # The minute's arrival rate and its draw, as indices into `_latencies`: (jobs, minutes).
        place = np.rint(counts / MINUTE_S / peak_rps[:, None] * (RATES - 1))
        self._place = place.astype(np.int64)
        self._rank = np.random.default_rng(trial).integers(
            self._latencies.shape[-1], size=counts.shape
        )
        self._rows = np.arange(len(counts))
        self._tail_s = np.full(counts.shape, np.nan)
        self._running = np.zeros(len(counts), np.int64)
        self._serving: Any = SimpleNamespace(advance=lambda until_s: None)
        self._pods = Pods(jobs.cores, jobs.cold_start_s, capacity, self._add, self._remove)
        self._target = np.array(initial, np.int64)
        for job, replicas in enumerate(self._target):
            self._pods.set_running(job, int(replicas))
        self._fewest = self._running.copy()
        self._drop = np.zeros(len(counts))

    def _add(self, job: int, now_s: float) -> None:
        self._running[job] += 1

    def _remove(self, job: int, now_s: float) -> None:
        self._running[job] -= 1
        self._fewest[job] = min(self._fewest[job], self._running[job])

    def _set_drop(self, drop: np.ndarray) -> None:
        self._drop = drop

    def observe(self) -> Observation:
        minute = int(self.now_s // MINUTE_S)
        current = max(int(np.ceil(self.now_s / MINUTE_S)) - 1, 0)
        counts = self.workload.requests_per_min
        pods = self._pods.jobs
        mean_s = self._mean_s[self._rows, self._place[:, current], self._running]
        return Observation(
            now_s=self.now_s,
            capacity=self._pods.capacity,
            minute=minute,
            arrivals_per_min=counts[:, max(0, minute - HISTORY_MINUTES) : minute].astype(float),
            mean_latency_s=np.where(counts[:, current] > 0, mean_s, 0.0),
            tail_latency_s=self.tail_latency_of(minute - 1),
            ongoing=counts[:, current] / MINUTE_S * mean_s,
            running=self._running.copy(),
            starting=self._target - self._running,
            target=self._target.copy(),
            terminating=np.array([len(one.idle_since_s) for one in pods]),
            changing=np.array([self._pods.changing(job, self.now_s) for job in range(len(pods))]),
            drop=self._drop,
        )

    def advance(self, until_s: float) -> None:
        for minute in range(int(self.now_s // MINUTE_S), int(until_s // MINUTE_S)):
            super().advance((minute + 1) * MINUTE_S)
            tail_s = self._latencies[
                self._rows, self._place[:, minute], self._fewest, self._rank[:, minute]
            ]
            self._tail_s[:, minute] = np.where(
                self.workload.requests_per_min[:, minute] > 0, tail_s, np.nan
            )
            self._fewest = self._running.copy()
        super().advance(until_s)

    def tail_latency_of(self, minute: int) -> np.ndarray:
        if minute < 0:
            return np.full(len(self._rows), np.nan)
        return self._tail_s[:, minute].copy()
