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

from faro_lib.policies.protocol import HISTORY_MINUTES, Observation
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
    table, counts = measure(jobs, serving_model=model), np.arange(max_replicas + 1)
    tail_s, mean_s = [], []
    for job, peak in zip(jobs, peak_rps):
        rate_rps, p = peak * np.linspace(0, 1, RATES)[:, None], job.service_time_s
        tail_s.append(table.minutes(job, rate_rps, counts)[0].astype(np.float32))
        load, busy = rate_rps * p, np.maximum(counts, 1)
        with np.errstate(divide="ignore"):
            wait_s = np.where(
                load < busy, erlang_c(load, busy) * p / 2 / np.maximum(busy - load, 0), np.inf
            )
        mean_s.append(
            np.minimum(p + wait_s, p * (1 + model.queue_limit / busy + model.limit_of(job)))
        )
    return np.array(tail_s), np.array(mean_s)


class FluidCluster(SimulatedCluster):
    """A simulated cluster without requests.

    `trial` seeds the draw of each minute's tail latency from the table.
    """

    def __init__(
        self,
        workload: Workload,
        trial: int,
        capacity: float,
        initial: np.ndarray,
        capacity_steps: tuple[CapacityStep, ...] = (),
        serving_model: ServingModel = PAPER,
    ):
        counts, jobs = workload.requests_per_min, arrays_of(workload.jobs)
        peak_rps = 2 ** np.ceil(
            np.log2(np.maximum(counts.max(axis=1) / MINUTE_S, 1.0))
        )  # rounded up for cache hits
        most = int(np.minimum(jobs.replicas_within(capacity), jobs.max_replicas).max())
        self._latencies, self._mean_s = latencies(
            workload.jobs, tuple(peak_rps), most, serving_model
        )
        self.workload, self.now_s = workload, 0.0
        self._capacity_steps, self._lifetimes = list(capacity_steps), ()
        place = np.rint(counts / MINUTE_S / peak_rps[:, None] * (RATES - 1))
        self._rows, self._place = np.arange(len(counts)), place.astype(np.int64)
        self._rank = np.random.default_rng(trial).integers(
            self._latencies.shape[-1], size=counts.shape
        )
        self._tail_s, self._running = np.full(counts.shape, np.nan), np.zeros(len(counts), np.int64)
        self._serving: Any = SimpleNamespace(advance=lambda until_s: None)
        self._pods = Pods(jobs.cores, jobs.cold_start_s, capacity, self._add, self._remove)
        self._target = np.array(initial, np.int64)
        for job, replicas in enumerate(self._target):
            self._pods.set_running(job, int(replicas))
        self._fewest, self._drop = self._running.copy(), np.zeros(len(counts))

    def _add(self, job: int, now_s: float) -> None:
        self._running[job] += 1

    def _remove(self, job: int, now_s: float) -> None:
        self._running[job] -= 1
        self._fewest[job] = min(self._fewest[job], self._running[job])

    def _set_drop(self, drop: np.ndarray) -> None:
        self._drop = drop

    def observe(self) -> Observation:
        minute, current = (
            int(self.now_s // MINUTE_S),
            max(int(np.ceil(self.now_s / MINUTE_S)) - 1, 0),
        )
        counts, pods = self.workload.requests_per_min, self._pods.jobs
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
        return self._tail_s[:, minute].copy() if minute >= 0 else np.full(len(self._rows), np.nan)
